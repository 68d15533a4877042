"""What the estimators of spectra make of data whose right answer is known, on the machine that ran the study.

Nothing here depends on the network: a study asks it of one condition, so that its report says how far its exponents can
be trusted. Source of the simulation: Stringer et al. (2019), doi:10.1038/s41586-019-1346-5, who show that the plain
spectrum of noisy responses falls too slowly and that of what two repeats share does not. Departs from it: a signal of
half the variance (theirs has a sixth, where cross-validation is too low as well), and sizes of a few seconds.
"""

from __future__ import annotations

import numpy as np

from unperturbed.examinations.contract import Found, Subject, measured
from unperturbed.measures.spectra import (
    Spectrum,
    check_range,
    eigenspectrum,
    marchenko_pastur_spectrum,
    power_law,
    recovery,
    repeats_of_a_power_law,
    signal_share,
)
from unperturbed.records import SpecError
from unperturbed.tensors.streams import seed_for


def estimators(
    subject: Subject,
    *,
    draws: int = 5,
    alpha: float = 1.0,
    share: float = 0.5,
    samples: int = 1400,
    units: int = 1000,
    first: int = 11,
    last: int = 250,
) -> Found:
    """Return how far the estimators are from what they should find, at worst.

    Args:
        subject: does not count, nor does its seed: the data are the same ones for every network.
        draws: data sets of each kind.
        alpha: exponent of the simulated signal, along three quarters as many directions as units.
        share: of the variance of a response that is signal, above 0, at most 1.
        samples: stimuli.
        units: that respond.
        first: rank at which a fit begins, from 1.
        last: rank at which it ends.

    Returns:
        ``fit_error``, the largest error of both fits to exact power laws with exponents from 0.5 to 3;
        ``recovery_gap``, the exponent that cross-validated PCA finds in two noisy repeats less that of the signal
        without noise, where it is farthest from 0, and ``recovery_gap_plain``, the same of plain PCA, where it is
        nearest to 0; of white data ``white_share``, what two repeats share, where it is farthest from 0, and
        ``white_rank_gap``, by how many ranks, as a part of all, eigenvalues lie off Marchenko and Pastur's law at most.
        Arrays: every draw of each.

    Raises:
        SpecError: no draws, a range that does not exist, or fewer samples than units: white data would have no full
            spectrum.
    """
    check_range(first, last)
    if draws < 1 or not 0 < share <= 1 or last > units * 3 // 4 or samples <= units:
        raise SpecError(
            "estimators: expected draws of at least 1, a share above 0 and at most 1, more samples than units, and "
            f"last within three quarters of the units; got {draws}, {share:g}, {samples} samples, {units} units and "
            f"last = {last}"
        )
    found: dict[str, list[float]] = {}
    for draw in range(draws):
        subject.look()
        repeats = repeats_of_a_power_law(
            alpha, signal_share=share, samples=samples, units=units, directions=units * 3 // 4,
            seed=seed_for("estimators", "signal", draw),
        )  # fmt: skip
        exponents = recovery(repeats, first=first, last=last)
        subject.look()
        random = np.random.default_rng(seed_for("estimators", draw))
        values = _of_exact_laws(random.uniform(0.5, 3.0), first, last) | _of_white_data(random, samples, units)
        values["recovery_gap"] = exponents.cross_validated - exponents.noise_free
        values["recovery_gap_plain"] = exponents.plain - exponents.noise_free
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    worst = {name: max(values, key=abs) for name, values in found.items()}
    worst["recovery_gap_plain"] = min(found["recovery_gap_plain"], key=abs)
    return Found(measured(worst, samples), arrays={name: np.array(values) for name, values in found.items()})


def _of_exact_laws(true: float, first: int, last: int) -> dict[str, float]:
    law: Spectrum = np.arange(1, last + 1, dtype=np.float64) ** -true
    fits = [power_law(law, first=first, last=last, weights=weights).alpha for weights in ("none", "1/n")]
    return {"fit_error": max(abs(fit - true) for fit in fits)}


def _of_white_data(random: np.random.Generator, samples: int, units: int) -> dict[str, float]:
    white = [random.standard_normal((samples, units)) for _ in range(2)]
    ranks = np.interp(-eigenspectrum(white[0]), -marchenko_pastur_spectrum(samples, units), np.arange(units))
    return {
        "white_share": signal_share(*white),
        "white_rank_gap": float(np.abs(ranks - np.arange(units)).max()) / units,
    }
