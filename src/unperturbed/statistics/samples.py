"""What every estimate here starts from: finite numbers, one per seed, and whether they differ at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unperturbed.records import SpecError

# Numbers computed in float64 that differ by less than this, relative to their size, differ by rounding only: a
# variance estimated from them would turn rounding into certainty.
ROUNDING = 1e-12


def sample(values: ArrayLike, *, name: str) -> NDArray[np.float64]:
    """Return ``values`` as a vector of float64.

    Raises:
        SpecError: no values, more than one dimension, or a value that is not finite.
    """
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or vector.size == 0:
        raise SpecError(f"{name}: expected a list of at least one number, got shape {vector.shape}; give one per seed.")
    if not np.isfinite(vector).all():
        place = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise SpecError(f"{name}: expected finite numbers, got {vector[place]} at position {place}; leave it out.")
    return vector


def differences(left: ArrayLike, right: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """Return ``left - right`` seed by seed, and the standard deviation of these differences as `spread` defines it.

    Raises:
        SpecError: the two do not have the same number of values.
    """
    left, right = sample(left, name="left"), sample(right, name="right")
    if left.size != right.size:
        raise SpecError(
            f"paired samples: expected as many values left as right, got {left.size} and {right.size}; match the seeds."
        )
    scale = float(max(np.abs(left).max(), np.abs(right).max()))
    return left - right, spread(left - right, scale=scale)


def all_equal(left: NDArray[np.float64], right: NDArray[np.float64]) -> bool:
    """Return whether two samples of one size are equal seed by seed, except for rounding.

    >>> all_equal(np.array([0.1 + 0.2, 0.5]), np.array([0.3, 0.5]))
    True
    >>> all_equal(np.array([0.3, 0.5]), np.array([0.3, 0.6]))
    False
    """
    scale = float(max(np.abs(left).max(), np.abs(right).max()))
    return bool((np.abs(left - right) <= ROUNDING * scale).all())


def spread(values: NDArray[np.float64], *, scale: float | None = None) -> float:
    """Return the standard deviation with ``n - 1`` degrees of freedom: NaN for one value, 0 for equal ones.

    Args:
        values: one number per seed.
        scale: size of the numbers that ``values`` were computed from, in their unit; ``None`` takes the largest of
            ``values``. Standard deviations below ``1e-12 * scale`` are rounding and count as 0.
    """
    if values.size < 2:
        return float("nan")
    deviation = float(values.std(ddof=1))
    return deviation if deviation > ROUNDING * (float(np.abs(values).max()) if scale is None else scale) else 0.0
