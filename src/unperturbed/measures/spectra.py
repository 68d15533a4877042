r"""Eigenspectra of activity: how its variance is spread over directions, and the exponent with which it falls.

Activity is a matrix A of M samples and K units, its columns centred; :math:`\lambda_1 \ge \lambda_2 \ge \dots` are the
eigenvalues of :math:`A^\top A / (M - 1)`.

Sources. Cross-validation: Stringer et al. (2019), doi:10.1038/s41586-019-1346-5, methods: with eigenvectors :math:`u_n`
of the first of two repeats of the same stimuli and projections :math:`p^1_n, p^2_n` of both,
:math:`\hat\lambda_n = \frac{1}{M-1} \sum_s p^1_n(s) p^2_n(s)`, free of noise that the repeats do not share, and below 0
where there is hardly a signal. Exponent: :math:`\log \lambda_n = c - \alpha \log n` by least squares over ranks 11 to
500, each rank with the weight 1/n (Stringer et al.) or 1 (Holzhausen et al. 2024, arXiv:2405.00679). White data:
Marchenko and Pastur (1967), doi:10.1070/SM1967v001n04ABEH001994. Effective rank: Roy and Vetterli (2007), EUSIPCO.

Departs from the sources: units are centred over stimuli; r2 weighs ranks as the fit does, where Stringer et al. look at
100 ranks at equal distances of log n; a fit refuses eigenvalues below 0, of which their code takes the size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from unperturbed.records import SpecError

Weights = Literal["none", "1/n"]
Spectrum = NDArray[np.float64]

MOST = 1024  # components of the cross-validation, as published
FIRSTS, LASTS = (5, 11, 20), (100, 200, 500, 800)  # the ends of the ranges over which an exponent is compared
FEWEST = 3  # ranks of a fit: any two lie on a line
ROUND_OFF = 1e-14  # of the largest eigenvalue; what is below cannot be told from 0
ANGLES = 20_000  # of the integral of Marchenko and Pastur's density


@dataclass(frozen=True)
class PowerLaw:
    """The exponent of a spectrum, with what it was fitted to: it changes with the range."""

    alpha: float  # minus the slope of log eigenvalue over log rank
    r2: float  # of the logarithms, weighed as the fit is, 0 to 1
    first: int  # rank, from 1
    last: int  # rank, included
    weights: Weights


class Repeats(NamedTuple):
    """Simulated responses to the same stimuli, each (samples, units)."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    signal: NDArray[np.float64]  # what the two share


class Recovery(NamedTuple):
    """Exponents that are found where the true one is known, by weighted fits over the same ranks."""

    plain: float  # of the spectrum of one repeat
    cross_validated: float
    noise_free: float  # of the spectrum of the signal itself


def eigenspectrum(activity: NDArray[Any]) -> Spectrum:
    """Return the eigenvalues of the covariance, in falling order, as many as samples and units allow.

    Those that round-off cannot tell from 0 are 0.

    Args:
        activity: (M, K), two samples or more.

    Returns:
        min(M - 1, K) eigenvalues; all others are 0.

    Raises:
        SpecError: not such a table of numbers, or activations that are constant.

    >>> eigenspectrum(np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])).round(12).tolist()
    [6.0, 0.666666666667]
    """
    centred = _centred(activity)
    samples, units = centred.shape
    products = centred.T @ centred if units <= samples else centred @ centred.T
    values = np.linalg.eigvalsh(products)[::-1][: min(samples - 1, units)] / (samples - 1)
    return np.where(values > ROUND_OFF * values[0], values, 0.0)


def cross_validated_spectrum(
    first: NDArray[Any], second: NDArray[Any], *, components: int | None = None, swaps: int = 0, seed: int = 0
) -> Spectrum:
    """Return the variance that two repeats share along each principal component of the first.

    Of a network without chance the repeats are equal, and this is the plain spectrum.

    Args:
        first: (M, K) responses to M stimuli.
        second: (M, K) responses to the same stimuli in the same order.
        components: how many; ``None``: 1024, or as many as samples and units allow.
        swaps: how often the two repeats of every stimulus change places by the toss of a coin; the result is the mean.
            0 takes them as they are, as the repeats of different order are of equal worth.
        seed: of the coins.

    Raises:
        SpecError: repeats of different shapes or as in ``eigenspectrum``, or fewer samples or units than components.
    """
    a, b = _pair(first, second)
    most = min(len(a) - 1, a.shape[1])
    kept = min(MOST, most) if components is None else components
    if not 1 <= kept <= most:
        raise SpecError(
            f"components: expected 1 to {most}, as there are {len(a)} samples of {a.shape[1]} units; got {kept}"
        )
    if swaps == 0:
        return _shared(a, b, kept)
    coins = np.random.default_rng(seed).random((swaps, len(a), 1)) < 0.5
    # Centred anew, as the two halves of a swap have other means.
    pairs = ((np.where(coin, b, a), np.where(coin, a, b)) for coin in coins)
    return np.mean([_shared(_centred(one), _centred(other), kept) for one, other in pairs], axis=0)


def held_out_spectrum(first: NDArray[Any], second: NDArray[Any]) -> Spectrum:
    """Return the variance of other stimuli along each principal component of the first ones.

    Where there are few samples, a plain spectrum falls although the true one does not, because the components are
    chosen for the very samples whose variance is measured. Here they are not.

    Args:
        first: (M, K) responses that give the components.
        second: (N, K) responses to other stimuli.

    Raises:
        SpecError: as in ``eigenspectrum``, or not the same units.
    """
    a, b = _centred(first), _centred(second)
    if a.shape[1] != b.shape[1]:
        raise SpecError(f"activity: expected the same units twice; got {a.shape[1]} and {b.shape[1]}")
    if a.shape[1] <= len(a):
        values, axes = np.linalg.eigh(a.T @ a)
    else:
        values, responses = np.linalg.eigh(a @ a.T)
        axes = a.T @ responses / np.sqrt(np.maximum(values, ROUND_OFF * values[-1]))
    kept = values[::-1] > ROUND_OFF * values[-1]
    return (b @ axes[:, ::-1][:, kept]).var(axis=0, ddof=1)


def signal_share(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return the covariance of two repeats as a fraction of their variance, over all units; about 0 for noise alone.

    Raises:
        SpecError: as in ``cross_validated_spectrum``.

    >>> signal_share(np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [-2.0], [1.0]]))
    0.0
    """
    a, b = _pair(first, second)
    return float(2 * (a * b).sum() / (np.square(a).sum() + np.square(b).sum()))


def power_law(eigenvalues: Spectrum, *, first: int = 11, last: int = 500, weights: Weights = "none") -> PowerLaw:
    """Return the exponent over ranks ``first`` to ``last``, both included.

    Args:
        eigenvalues: by rank.
        first: rank, from 1.
        last: rank.
        weights: ``1/n`` counts every factor of n alike, ``none`` every rank.

    Raises:
        SpecError: fewer than three ranks, ranks that do not exist, or eigenvalues that are not above 0 among them.

    >>> law = power_law(np.arange(1, 101.0) ** -1.5, last=100)
    >>> round(law.alpha, 12), round(law.r2, 12)
    (1.5, 1.0)
    """
    check_range(first, last)
    if last > len(eigenvalues):
        raise SpecError(
            f"power_law: expected eigenvalues up to rank {last}; got {len(eigenvalues)}: "
            f"fewer samples or units than that, lower last"
        )
    values = np.asarray(eigenvalues[first - 1 : last], dtype=np.float64)
    if not (values > 0).all():
        rank = first + int(np.argmin(values > 0))
        raise SpecError(
            f"power_law: expected eigenvalues above 0 from rank {first} to {last}; got {values[rank - first]:g} "
            f"at rank {rank}: let the range end before it"
        )
    ranks = np.arange(first, last + 1, dtype=np.float64)
    weight = 1 / ranks if weights == "1/n" else np.ones_like(ranks)
    weight /= weight.sum()
    x, y = np.log(ranks), np.log(values)
    x, y = x - weight @ x, y - weight @ y
    slope = float((weight * x) @ y / ((weight * x) @ x))
    spread = float((weight * y) @ y)
    explained = float(slope * ((weight * x) @ y) / spread) if spread > 0 else 1.0
    return PowerLaw(-slope, explained, first, last, weights)


def check_range(first: int, last: int) -> None:
    """Refuse ranks over which nothing can be fitted.

    >>> check_range(500, 11)
    Traceback (most recent call last):
    unperturbed.records.SpecError: power_law: expected a rank of at least 1 and three ranks or more; got 500 to 11
    """
    if first < 1 or last - first + 1 < FEWEST:
        raise SpecError(f"power_law: expected a rank of at least 1 and three ranks or more; got {first} to {last}")


def positive_ranks(eigenvalues: Spectrum) -> int:
    """Return up to which rank all eigenvalues are above 0.

    >>> positive_ranks(np.array([3.0, 1.0, -0.1, 0.2]))
    2
    """
    return int(np.argmin(np.append(eigenvalues > 0, False)))


def power_laws(eigenvalues: Spectrum, *, weights: Weights = "none") -> list[PowerLaw]:
    """Return the exponents over ranks 5, 11 or 20 to 100, 200, 500 or 800.

    A range ends where the positive eigenvalues do. None is returned twice, nor one of fewer than three ranks.
    """
    exist = positive_ranks(eigenvalues)
    ends = sorted({min(last, exist) for last in LASTS})
    ranges = [(first, last) for first in FIRSTS for last in ends if last - first + 1 >= FEWEST]
    return [power_law(eigenvalues, first=first, last=last, weights=weights) for first, last in ranges]


def participation_ratio(eigenvalues: Spectrum) -> float:
    r"""Return :math:`(\sum\lambda)^2 / \sum\lambda^2`: how many directions carry the variance, 1 to their number.

    Raises:
        SpecError: eigenvalues below 0, or none above it.

    >>> participation_ratio(np.array([2.0, 2.0, 0.0]))
    2.0
    """
    return float(1 / np.square(_shares(eigenvalues)).sum())


def effective_rank(eigenvalues: Spectrum) -> float:
    """Return the exponential of the entropy of the eigenvalues' shares, 1 to their number.

    Raises:
        SpecError: as ``participation_ratio``.

    >>> round(effective_rank(np.array([2.0, 2.0, 0.0])), 12)
    2.0
    """
    return float(np.exp(entr(_shares(eigenvalues)).sum()))


def marchenko_pastur_edges(samples: int, units: int) -> tuple[float, float]:
    """Return the smallest and the largest eigenvalue above 0 of white data of variance 1, for many samples and units.

    >>> marchenko_pastur_edges(101, 25)
    (0.25, 2.25)
    """
    root = np.sqrt(units / (samples - 1))
    return float((1 - root) ** 2), float((1 + root) ** 2)


def marchenko_pastur_spectrum(samples: int, units: int) -> Spectrum:
    r"""Return the spectrum to expect of white data of variance 1, however flat the true one is.

    The eigenvalue of rank n is the quantile at :math:`(n - 1/2)/K` from above. With
    :math:`\lambda = 1 + \gamma + 2 \sqrt\gamma \cos\theta` and :math:`\gamma = K / (M - 1)` the density is
    :math:`2 \sin^2\theta / (\pi \lambda) \, d\theta`.

    Args:
        samples: M; one of its degrees of freedom goes into the means.
        units: K.

    Returns:
        min(M - 1, K) eigenvalues, in falling order.
    """
    ratio = units / (samples - 1)
    theta = (np.arange(ANGLES) + 0.5) * np.pi / ANGLES
    values = 1 + ratio + 2 * np.sqrt(ratio) * np.cos(theta)
    above = np.cumsum(2 * np.sin(theta) ** 2 / values) / ANGLES  # the part of all units above the end of each step
    ends = 1 + ratio + 2 * np.sqrt(ratio) * np.cos(theta + np.pi / (2 * ANGLES))
    ranks = np.arange(min(samples - 1, units))
    return np.interp((ranks + 0.5) / units, above, ends)


def repeats_of_a_power_law(
    alpha: float | int,
    *,
    signal_share: float,
    samples: int = 2800,
    units: int = 2000,
    directions: int = 1500,
    seed: int = 0,
) -> Repeats:
    r"""Return two noisy responses to the same stimuli, whose signal has variances :math:`n^{-\alpha}`.

    Args:
        alpha: the exponent.
        signal_share: part of the variance that is signal; the rest is white noise, other noise in each repeat.
        samples: stimuli.
        units: neurons.
        directions: orthonormal ones, along which the signal varies, at most one for each unit.
        seed: of all numbers.
    """
    random = np.random.default_rng(seed)
    sizes = np.arange(1, directions + 1) ** (-alpha / 2)
    axes = np.linalg.qr(random.standard_normal((units, directions))).Q.T
    signal = (random.standard_normal((samples, directions)) * sizes) @ axes
    noise = np.sqrt(signal.var(axis=0).mean() * (1 / signal_share - 1))
    first, second = (signal + noise * random.standard_normal(signal.shape) for _ in range(2))
    return Repeats(first, second, signal)


def recovery(repeats: Repeats, *, first: int = 11, last: int = 500) -> Recovery:
    """Return what plain and cross-validated spectra of simulated repeats make of the exponent of their signal.

    Over several exponents and shares of the signal this is a calibration curve. A fit ends before the first eigenvalue
    that is not above 0.
    """
    spectra = (
        eigenspectrum(repeats.first),
        cross_validated_spectrum(repeats.first, repeats.second),
        eigenspectrum(repeats.signal),
    )
    ends = (min(last, positive_ranks(values)) for values in spectra)
    laws = (power_law(each, first=first, last=end, weights="1/n") for each, end in zip(spectra, ends, strict=True))
    return Recovery(*(law.alpha for law in laws))


def _centred(activity: NDArray[Any]) -> NDArray[np.float64]:
    table = np.asarray(activity, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 1:
        raise SpecError(f"activity: expected a shape (samples, units), two samples or more; got {table.shape}")
    if not np.isfinite(table).all():
        raise SpecError(f"activity: expected finite numbers; got {int((~np.isfinite(table)).sum())} that are not")
    if (table.max(axis=0) == table.min(axis=0)).all():
        raise SpecError(f"activity: expected units that vary; got constant activations of {len(table)} samples")
    return table - table.mean(axis=0)


def _pair(first: NDArray[Any], second: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if np.shape(first) != np.shape(second):
        raise SpecError(f"repeats: expected two of the same shape; got {np.shape(first)} and {np.shape(second)}")
    return _centred(first), _centred(second)


def _shared(a: NDArray[np.float64], b: NDArray[np.float64], components: int) -> Spectrum:
    """Return u' A' B u / (M - 1) for the leading eigenvectors u of A'A; or w' A B' w, the same, for those w of A A'."""
    samples, units = a.shape
    own, cross = (a.T @ a, a.T @ b) if units <= samples else (a @ a.T, a @ b.T)
    axes = np.linalg.eigh(own).eigenvectors[:, ::-1][:, :components]
    return np.einsum("in,in->n", axes, cross @ axes) / (samples - 1)


def _shares(eigenvalues: Spectrum) -> NDArray[np.float64]:
    values = np.asarray(eigenvalues, dtype=np.float64)
    if values.size == 0 or values.min() < 0 or values.max() == 0:
        got = f"{values.min():g} to {values.max():g}" if values.size else "none"
        raise SpecError(f"eigenvalues: expected some above 0 and none below; got {got}")
    return values / values.sum()
