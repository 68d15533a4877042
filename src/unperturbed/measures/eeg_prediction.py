r"""How well responses of a brain are predicted, beside how well they can be predicted at all.

Source: Gifford, Dwivedi, Roig and Cichy (2022), NeuroImage 264:119754, doi:10.1016/j.neuroimage.2022.119754, section
2.8, and the authors' code (gifale95/eeg_encoding). For each channel and time, Pearson's r over the test images between
what is predicted and the mean of a random half A of the repetitions. The noise ceilings take the place of the
prediction: the mean of the other half B for the lower, the mean of all repetitions for the upper. Each is averaged over
many random halves. B has one repetition less than A if there is an odd number.

What halves cost is undone by Spearman (1910) and Brown (1910): measurements k times as long as those that correlate
with r correlate with

.. math:: \frac{k r}{1 + (k - 1) r}.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from unperturbed.records import SpecError


class PredictionAccuracy(NamedTuple):
    """Pearson's r over images, from -1 to 1, higher is better; NaN where nothing varies."""

    r: Float64[ndarray, "channels times"]
    lower_ceiling: Float64[ndarray, "channels times"]
    upper_ceiling: Float64[ndarray, "channels times"]


def prediction_accuracy(
    predicted: Float[ndarray, "images channels times"],
    measured: Float[ndarray, "images repetitions channels times"],
    *,
    splits: int = 100,
    seed: int = 0,
) -> PredictionAccuracy:
    """Return how well ``predicted`` correlates with halves of ``measured``, and how well these can be predicted.

    The upper ceiling is no bound: half A is part of the mean that it is compared with. Where images evoke nothing, it
    is about 0.71.

    Args:
        predicted: one response to each image.
        measured: as recorded, every repetition apart; read channel by channel, so that it may be mapped.
        splits: how many random halves.
        seed: decides them.

    Raises:
        SpecError: fewer than 3 images or 2 repetitions, no splits, another number of images, channels or times.
    """
    images, repetitions, channels, times = measured.shape
    if predicted.shape != (images, channels, times):
        raise SpecError(
            f"predicted: expected {(images, channels, times)}, images, channels and times as measured; "
            f"got {predicted.shape}"
        )
    if images < 3 or repetitions < 2 or splits < 1:
        raise SpecError(
            "prediction_accuracy: expected at least 3 images, 2 repetitions and 1 split; "
            f"got {images}, {repetitions} and {splits}"
        )
    halves = _halves(repetitions, splits, seed)
    found = np.empty((3, channels, times))
    for channel in range(channels):
        every = measured[:, :, channel].astype(np.float64)
        a, b = (_standardised(np.einsum("sr,irt->sit", half, every, optimize=True)) for half in halves)
        others = (_standardised(predicted[:, channel].astype(np.float64)), b, _standardised(every.mean(axis=1)))
        for place, other in enumerate(others):
            found[place, channel] = (a * other).sum(axis=1).mean(axis=0)
    return PredictionAccuracy(*found)


def _halves(repetitions: int, splits: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights (splits, repetitions) that take the means of half A and of half B."""
    random = np.random.default_rng(seed)
    order = np.argsort(random.random((splits, repetitions)), axis=1)
    size = repetitions - repetitions // 2
    inside = order < size
    return inside / size, ~inside / (repetitions - size)


def _standardised(values: np.ndarray) -> np.ndarray:
    """Return ``values`` (..., images, times) with mean 0 and length 1 over the images; NaN where nothing varies."""
    centred = values - values.mean(axis=-2, keepdims=True)
    length = np.sqrt((centred**2).sum(axis=-2, keepdims=True))
    rounding = 1e-12 * np.abs(values).max(axis=-2, keepdims=True) * np.sqrt(values.shape[-2])
    return centred / np.where(length > rounding, length, np.nan)


def spearman_brown(r: Any, *, times_as_long: float = 2.0) -> Any:
    """Return the correlation of measurements ``times_as_long`` as those that correlate with ``r``.

    Args:
        r: a number or an array, of halves if the default is taken; above -1.
        times_as_long: how much longer the others are.

    >>> spearman_brown(0.5)
    0.6666666666666666
    """
    return times_as_long * r / (1 + (times_as_long - 1) * r)


def peak_latency(curve: Float[ndarray, "*more times"], times: Float[ndarray, " times"]) -> Any:
    """Return when ``curve`` is largest after onset, in the unit of ``times``; the first time if there are several.

    Args:
        curve: numbers over time, of which the last axis is time: the mean of r over channels, or r itself.
        times: 0 is the onset.

    Raises:
        SpecError: no time after onset, or a curve with a number there that is not finite.

    >>> peak_latency(np.array([9.0, 1.0, 3.0, 2.0]), np.array([-0.1, 0.0, 0.1, 0.2]))
    0.1
    """
    after = times > 0
    if not after.any() or not np.isfinite(curve[..., after]).all():
        raise SpecError(
            f"peak_latency: expected finite numbers after onset; got {int(after.sum())} times after 0 "
            f"and {int((~np.isfinite(curve[..., after])).sum())} numbers that are not finite"
        )
    peaks = times[after][curve[..., after].argmax(axis=-1)]
    return float(peaks) if peaks.ndim == 0 else peaks
