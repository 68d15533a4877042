r"""Bootstrap intervals of a difference of means that cover at their rate with few seeds.

Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, section 12.5, equation 12.22 (bootstrap-t):
:math:`[\hat d - \hat{se}\, t^*_{1 - a}, \hat d - \hat{se}\, t^*_a]`, where :math:`t^* = (d^* - \hat d) / se^*` over
resamples, each with its own standard error. Pairs are resampled together, independent samples each on its own.

The form was chosen by simulation: 4,000 samples per cell, 1,999 resamples, share of the nominal 95 % intervals that
contain the true mean difference (standard error 0.004), for differences that are normal, exponential, Student's with 3
degrees of freedom and uniform:

=========================  ======  ===========  =======  =======
form                       normal  exponential  t, 3 df  uniform
=========================  ======  ===========  =======  =======
n = 5, percentile          0.832   0.779        0.840    0.845
n = 5, BCa                 0.834   0.792        0.820    0.865
n = 5, Student's t         0.945   0.880        0.964    0.940
n = 5, **studentised**     0.941   0.932        0.948    0.961
n = 20, percentile         0.928   0.903        0.917    0.929
n = 20, BCa                0.928   0.910        0.886    0.943
n = 20, Student's t        0.950   0.918        0.955    0.946
n = 20, **studentised**    0.949   0.953        0.927    0.972
=========================  ======  ===========  =======  =======

Its price at n = 5 is width: the median one is 1.35 times as wide as Student's (normal differences). Of two independent
samples, the studentised form covered 0.953 (n = 5) and 0.947 (n = 20) when both were normal, 0.936 and 0.952 when one
had five times the standard deviation of the other, and 0.903 and 0.938 when, besides, both were exponential (Welch's
interval: 0.884 and 0.922; percentile: 0.791 and 0.907).

Departs from the source: a resample in which no values differ has :math:`se^* = 0` and an infinite :math:`t^*`. Where a
quantile that is needed is infinite (always with two pairs, and with three at 90 % or more), the bootstrap does not
determine the interval and the t interval (Student's or Welch's) takes its place. Values without any spread, or a
single one, have no interval: both limits are NaN.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from unperturbed.records import SpecError
from unperturbed.statistics.samples import ROUNDING, differences, sample, spread
from unperturbed.statistics.significance import welch_error

RESAMPLES = 9_999


class Interval(NamedTuple):
    """Limits of a confidence interval in the unit of the data; both NaN where there is none."""

    low: float
    high: float


UNDEFINED = Interval(low=math.nan, high=math.nan)


def paired_bootstrap(
    left: ArrayLike, right: ArrayLike, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int
) -> Interval:
    """Return the studentised bootstrap interval of the mean of ``left - right`` over matched seeds.

    Args:
        left: one value per seed.
        right: as many, of the same seeds.
        confidence: the share of such intervals that is to contain the true difference, in (0, 1).
        resamples: how often the pairs are drawn with replacement.
        seed: seed of these draws; equal seeds give equal intervals.
    """
    difference, sd = differences(left, right)
    if not sd > 0:
        return UNDEFINED
    drawn = _draw(difference, resamples, np.random.default_rng(seed))
    root = math.sqrt(difference.size)
    return _studentised(
        float(difference.mean()),
        sd / root,
        drawn.mean(axis=1),
        drawn.std(axis=1, ddof=1) / root,
        df=difference.size - 1,
        confidence=confidence,
    )


def unpaired_bootstrap(
    left: ArrayLike, right: ArrayLike, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int
) -> Interval:
    """Return the studentised bootstrap interval of mean(left) - mean(right), two independent samples of any sizes."""
    left, right = sample(left, name="left"), sample(right, name="right")
    sd1, sd2 = spread(left), spread(right)
    if math.isnan(sd1) or math.isnan(sd2) or sd1 == sd2 == 0:
        return UNDEFINED
    rng = np.random.default_rng(seed)
    drawn1, drawn2 = _draw(left, resamples, rng), _draw(right, resamples, rng)
    error, df = welch_error(sd1, left.size, sd2, right.size)
    return _studentised(
        float(left.mean() - right.mean()),
        error,
        drawn1.mean(axis=1) - drawn2.mean(axis=1),
        np.sqrt(drawn1.var(axis=1, ddof=1) / left.size + drawn2.var(axis=1, ddof=1) / right.size),
        df=df,
        confidence=confidence,
    )


def tail_of(confidence: float) -> float:
    """Return the probability beyond one limit of a two-sided interval.

    Raises:
        SpecError: the confidence is none.
    """
    if not 0 < confidence < 1:
        raise SpecError(f"confidence: expected a number between 0 and 1, got {confidence}; 0.95 is usual.")
    return (1 - confidence) / 2


def _draw(values: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return values[rng.integers(0, values.size, size=(resamples, values.size))]


def _studentised(
    centre: float,
    error: float,
    centres: NDArray[np.float64],
    errors: NDArray[np.float64],
    *,
    df: float,
    confidence: float,
) -> Interval:
    tail = tail_of(confidence)
    # Infinity where the resample has no spread: it lies beyond every other value on the side of its mean.
    t = np.where(centres == centre, 0.0, np.where(centres > centre, np.inf, -np.inf))
    spreads = errors > ROUNDING * error
    t[spreads] = (centres[spreads] - centre) / errors[spreads]
    low, high = np.quantile(t, [tail, 1 - tail], method="inverted_cdf")
    if not (np.isfinite(low) and np.isfinite(high)):
        high = float(stats.t.isf(tail, df))
        low = -high
    return Interval(low=centre - float(high) * error, high=centre - float(low) * error)
