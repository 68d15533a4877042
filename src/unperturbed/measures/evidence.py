"""The quantities that are reported for one network under one attack, from what happened to every image."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unperturbed.measures.curves import (
    SAME_EPS,
    Numbers,
    chance_corrected_robustness,
    critical_eps_quartiles,
    relative_change,
    robustness,
    running_minimum,
)
from unperturbed.measures.quantities import OF_CURVES, Measured

EIGHT = 8 / 255
INTERVALS = {"R_8_255": EIGHT, "R_16_255": 2 * EIGHT}
POINTS_INSIDE = 3  # an interval with fewer radii says nothing that f0 and its end do not


@runtime_checkable
class CurveEvidence(Protocol):
    """What is needed of an attack's evidence: E radii, N images."""

    @property
    def eps(self) -> NDArray[Any]:
        """Increasing radii, (E,)."""
        ...

    @property
    def correct(self) -> NDArray[Any]:
        """Whether each image is classified correctly at each radius, (E, N)."""
        ...

    @property
    def critical_eps(self) -> NDArray[Any]:
        """Smallest radius that broke each image, (N,)."""
        ...


def measure_evidence(evidence: CurveEvidence, *, chance: float | int, grid: Numbers | None = None) -> list[Measured]:
    """Return the quantities of ``OF_CURVES`` that are defined for this evidence.

    A quantity that is not defined is left out, never NaN or infinite: R and C where nothing is classified correctly at
    the smallest eps; R_chance where that accuracy is not above chance; R_8_255 and R_16_255 where fewer than three
    radii, 0 among them, lie in the interval or none reaches its end; the median critical eps where more than half of
    the images were never broken.

    Args:
        evidence: what the attack did.
        chance: accuracy of guessing.
        grid: the radii on which R, R_minimum, R_chance and C_last are computed (as published); ``None``: all. The
            intervals up to 8/255 and 16/255 and the critical eps use all radii.

    Raises:
        SpecError: as ``robustness`` and ``chance_corrected_robustness``; not for the undefined cases above.
    """
    accuracy = np.asarray(evidence.correct, dtype=np.float64).mean(axis=1)
    radii = np.asarray(evidence.eps, dtype=np.float64)
    kept = np.isin(radii.round(9), np.round(grid, 9)) if grid is not None else np.ones(radii.shape, dtype=np.bool_)
    values = {"f0": float(accuracy[0]), "A_last": float(accuracy[-1])}
    usual = np.abs(radii - EIGHT) <= SAME_EPS
    if usual.any():
        values["A_8_255"] = float(accuracy[usual][0])
    if accuracy[0] > 0:
        values["R"] = float(robustness(radii, accuracy, grid=grid))
        values["R_minimum"] = float(robustness(radii[kept], running_minimum(accuracy[kept])))
        values["C_last"] = float(relative_change(accuracy[kept])[-1])
        for name, end in INTERVALS.items():
            inside = int((radii <= end + SAME_EPS).sum())
            if radii[0] == 0 and inside >= POINTS_INSIDE and radii[-1] >= end - SAME_EPS:
                values[name] = float(robustness(radii, accuracy, upto=end))
    if accuracy[0] > chance:
        values["R_chance"] = float(chance_corrected_robustness(radii, accuracy, chance=chance, grid=grid))
    median = critical_eps_quartiles(evidence.critical_eps)[1]
    if np.isfinite(median):
        values["critical_eps_median"] = median
    images = evidence.correct.shape[1]
    return [
        Measured(name, values[name], quantity.unit, quantity.better, images)
        for name, quantity in OF_CURVES.items()
        if name in values
    ]
