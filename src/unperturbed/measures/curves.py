r"""Robustness from a curve of accuracy over eps: one number, and what to read beside it.

Source: Kunhardt, Deza & Poggio (2021), arXiv:2102.10534, equation (1) and the relative change below it:

.. math:: R = \frac{1}{f(\epsilon_0)(\epsilon_1 - \epsilon_0)} \int_{\epsilon_0}^{\epsilon_1} f(\epsilon)\,d\epsilon,
   \qquad C(\epsilon) = \frac{f(\epsilon) - f(\epsilon_0)}{f(\epsilon_0)},

by the trapezoid rule, so that the mean of C over the interval is R - 1. Departs from the source: the interval may be
cut (the published one puts 87.5 % of the weight on eps of 0.05 and more, far outside the usual 8/255), and R is offered
above chance and for the running minimum, because a network at chance has R near 1, and FGSM accuracy may rise again at
large eps.

All functions work on the last axis, so that rows may be seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturbed.records import SpecError

Numbers = NDArray[Any] | Sequence[Any] | float

SAME_EPS = 1e-9  # two values of eps that differ by less are one


def robustness(
    eps: Numbers, accuracy: Numbers, *, grid: Numbers | None = None, upto: float | int | None = None
) -> np.float64 | NDArray[np.float64]:
    """Return R, the mean accuracy over ``eps`` as a fraction of the accuracy at the smallest ``eps``.

    No unit, 0 or larger, higher is better; at most 1 unless the accuracy rises. It says nothing without f(eps0) beside
    it: a network at chance has R near 1. Where f(eps0) is 0, R is not defined, and an error rather than NaN: leave the
    network out and say so.

    Args:
        eps: E increasing values, 0 or larger, two at least.
        accuracy: (..., E) fractions in [0, 1].
        grid: the values of ``eps`` to use; ``None``: all.
        upto: the end of the interval; ``None``: the largest eps. The accuracy there is interpolated linearly.

    Returns:
        One number for each curve, (...).

    Raises:
        SpecError: an argument is not as described, or the accuracy at the smallest eps is 0.

    >>> float(robustness([0.0, 0.1, 0.2], [0.8, 0.4, 0.0]))
    0.5
    """
    radii, curve = _curve(eps, accuracy, grid, upto)
    return _area(radii, curve, curve[..., 0])


def chance_corrected_robustness(
    eps: Numbers,
    accuracy: Numbers,
    *,
    chance: float | int,
    grid: Numbers | None = None,
    upto: float | int | None = None,
) -> np.float64 | NDArray[np.float64]:
    """Return R of max(f - chance, 0), the accuracy above that of guessing.

    No unit, 0 or larger, higher is better. Not defined where the accuracy at the smallest eps is not above chance.

    Args:
        eps: as in ``robustness``.
        accuracy: as in ``robustness``.
        chance: accuracy of guessing, 1 / classes for balanced classes.
        grid: as in ``robustness``.
        upto: as in ``robustness``.

    Raises:
        SpecError: as ``robustness``; or the accuracy at the smallest eps is not above chance.

    >>> float(chance_corrected_robustness([0.0, 0.1, 0.2], [0.9, 0.5, 0.1], chance=0.1))
    0.5
    """
    if not 0 <= chance < 1:
        raise SpecError(f"chance: expected a fraction, 0 or larger and below 1; got {chance:g}")
    radii, curve = _curve(eps, accuracy, grid, upto)
    return _area(radii, np.maximum(curve - chance, 0.0), curve[..., 0], chance)


def running_minimum(accuracy: Numbers) -> NDArray[np.float64]:
    """Return the smallest accuracy up to every eps, (..., E): what an attack that may also move less would leave.

    >>> running_minimum([0.9, 0.1, 0.3]).tolist()
    [0.9, 0.1, 0.1]
    """
    return np.minimum.accumulate(_accuracy(accuracy), axis=-1)


def relative_change(accuracy: Numbers) -> NDArray[np.float64]:
    """Return C, the change of accuracy from the smallest eps as a fraction of the accuracy there, (..., E).

    No unit, -1 or larger, higher is better.

    Raises:
        SpecError: accuracy outside [0, 1], or 0 at the smallest eps.

    >>> relative_change([0.8, 0.4, 0.0]).tolist()
    [0.0, -0.5, -1.0]
    """
    curve = _accuracy(accuracy)
    start = curve[..., :1]
    _check_start(start, "the smallest eps")
    return (curve - start) / start


def critical_eps_quartiles(critical_eps: Numbers) -> tuple[float, float, float]:
    """Return the eps at which a quarter, half and three quarters of the images are broken.

    Fractions of full scale, higher is better. Each is the critical eps of an image and not interpolated, because it is
    infinite where too few images were ever broken.

    Args:
        critical_eps: (N,) the smallest eps that broke each image; 0 if wrong when clean, inf if never broken.

    >>> critical_eps_quartiles([0.0, 0.1, 0.2, np.inf])
    (0.0, 0.1, 0.2)
    """
    critical = np.sort(np.asarray(critical_eps, dtype=np.float64))
    if critical.ndim != 1 or critical.size == 0:
        raise SpecError(f"critical_eps: expected one value for each image; got a shape of {critical.shape}")
    if np.isnan(critical).any() or critical[0] < 0:
        raise SpecError(f"critical_eps: expected values of 0 or larger; got {critical[0]:g} to {critical[-1]:g}")
    lower, middle, upper = (
        float(critical[-(-critical.size * quarter // 4) - 1])
        for quarter in (1, 2, 3)  # at least that part is broken
    )
    return lower, middle, upper


def _curve(
    eps: Numbers, accuracy: Numbers, grid: Numbers | None, upto: float | int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    radii, curve = np.asarray(eps, dtype=np.float64), _accuracy(accuracy)
    if radii.ndim != 1 or radii.size != curve.shape[-1]:
        raise SpecError(f"accuracy: expected one value for each of {radii.size} eps; got {curve.shape[-1]}")
    if radii.size < 2:
        raise SpecError(f"eps: expected at least two values; got {radii.size}")
    if not np.isfinite(radii).all() or radii[0] < 0:
        raise SpecError(f"eps: expected finite values, 0 or larger; got {radii.min():g} to {radii.max():g}")
    falls = np.flatnonzero(np.diff(radii) <= 0)
    if falls.size:
        raise SpecError(f"eps: expected increasing values; got {radii[falls[0] + 1]:g} after {radii[falls[0]]:g}")
    if grid is not None:
        return _curve(*_subset(radii, curve, grid), None, upto)
    if upto is None:
        return radii, curve
    if not radii[0] < upto <= radii[-1] + SAME_EPS:
        raise SpecError(
            f"upto: expected a value above {radii[0]:g} and up to {radii[-1]:g}, the range of eps; got {upto:g}"
        )
    inside = int(np.searchsorted(radii, upto - SAME_EPS))  # the first point at or beyond the end
    weight = min((upto - radii[inside - 1]) / (radii[inside] - radii[inside - 1]), 1.0)
    end = curve[..., inside - 1 : inside] * (1 - weight) + curve[..., inside : inside + 1] * weight
    return np.append(radii[:inside], upto), np.concatenate([curve[..., :inside], end], axis=-1)


def _subset(
    radii: NDArray[np.float64], curve: NDArray[np.float64], grid: Numbers
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    wanted = np.asarray(grid, dtype=np.float64)
    gaps = np.abs(wanted[:, None] - radii)
    missing = wanted[gaps.min(axis=1) > SAME_EPS]
    if missing.size:
        raise SpecError(f"grid: expected values of eps ({_listed(radii)}); got also {_listed(missing)}")
    return wanted, curve[..., gaps.argmin(axis=1)]


def _accuracy(accuracy: Numbers) -> NDArray[np.float64]:
    curve = np.asarray(accuracy, dtype=np.float64)
    if curve.ndim == 0 or curve.size == 0:
        raise SpecError(f"accuracy: expected a curve; got a shape of {curve.shape}")
    if np.isnan(curve).any():
        raise SpecError(f"accuracy: expected fractions in [0, 1]; got NaN at {int(np.isnan(curve).sum())} points")
    if curve.min() < 0 or curve.max() > 1:
        raise SpecError(f"accuracy: expected fractions in [0, 1]; got {curve.min():g} to {curve.max():g}")
    return curve


def _area(
    radii: NDArray[np.float64], curve: NDArray[np.float64], start: NDArray[np.float64], chance: float | int = 0
) -> np.float64 | NDArray[np.float64]:
    _check_start(start, f"eps={radii[0]:g}", chance)
    trapezoids = (curve[..., :-1] + curve[..., 1:]) / 2 * np.diff(radii)
    return trapezoids.sum(axis=-1) / ((start - chance) * (radii[-1] - radii[0]))


def _check_start(start: NDArray[np.float64], where: str, chance: float | int = 0) -> None:
    if (start <= chance).any():
        raise SpecError(
            f"accuracy: expected more than {chance:g} at {where}, as a fraction of it is measured; got {start.min():g}"
        )


def _listed(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:g}" for value in values)
