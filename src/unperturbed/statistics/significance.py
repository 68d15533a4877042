r"""Whether two means differ: Welch's test, the paired t test, the sign-flip test, and Holm's correction.

Sources:
    Welch (1947), Biometrika 34, 28-35, with the degrees of freedom of Satterthwaite (1946), Biometrics Bulletin 2,
    110-114: :math:`t = (m_1 - m_2) / \sqrt{v_1 + v_2}`, :math:`v_i = s_i^2 / n_i`,
    :math:`\nu = (v_1 + v_2)^2 / (v_1^2 / (n_1 - 1) + v_2^2 / (n_2 - 1))`.
    Fisher (1935), The Design of Experiments, section 21, for the exact test of paired differences.
    Holm (1979), Scandinavian Journal of Statistics 6, 65-70, as statsmodels computes it.

Departs from the sources: none of the tests can be done with one value per cell, or without any spread among the values
(a difference that is the same in every seed has an estimated standard error of 0). The t tests then return NaN, and
never infinity and p = 0; `holm` counts such a test as p = 1 in its family and returns NaN for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from unperturbed.records import SpecError
from unperturbed.statistics.samples import ROUNDING, differences, sample, spread

MOST_ENUMERATED = 20  # 2**19 sums of float64 are 4 MiB


class TTest(NamedTuple):
    """A t statistic, its degrees of freedom and its two-sided p; all NaN where the test is undefined."""

    t: float
    df: float
    p: float


UNDEFINED = TTest(t=math.nan, df=math.nan, p=math.nan)


def welch(left: ArrayLike, right: ArrayLike) -> TTest:
    """Return Welch's test of the means of two independent samples; the sign of ``t`` is that of left - right.

    >>> [round(number, 6) for number in welch([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])]
    [-1.549193, 2.941176, 0.220881]
    """
    left, right = sample(left, name="left"), sample(right, name="right")
    return welch_from_summary(
        float(left.mean()), spread(left), left.size, float(right.mean()), spread(right), right.size
    )


def welch_from_summary(mean1: float, sd1: float, n1: int, mean2: float, sd2: float, n2: int) -> TTest:
    """Return Welch's test from means, standard deviations (``n - 1`` degrees of freedom) and sizes, as papers print.

    Raises:
        SpecError: a standard deviation is negative or a sample is empty.
    """
    for sd, n in ((sd1, n1), (sd2, n2)):
        if sd < 0 or n < 1:
            raise SpecError(
                f"welch: expected a standard deviation of at least 0 of at least 1 value, got {sd} of {n}; correct it."
            )
    if min(n1, n2) < 2 or sd1 == sd2 == 0:
        return UNDEFINED
    error, df = welch_error(sd1, n1, sd2, n2)
    return _two_sided((mean1 - mean2) / error, df)


def welch_error(sd1: float, n1: int, sd2: float, n2: int) -> tuple[float, float]:
    """Return the standard error of the difference of two independent means and Satterthwaite's degrees of freedom."""
    v1, v2 = sd1**2 / n1, sd2**2 / n2
    return math.sqrt(v1 + v2), (v1 + v2) ** 2 / (v1**2 / (n1 - 1) + v2**2 / (n2 - 1))


def paired_t(left: ArrayLike, right: ArrayLike) -> TTest:
    """Return Student's test that the mean of the differences ``left - right``, seed by seed, is 0.

    >>> [round(number, 6) for number in paired_t([1.0, 2.0, 4.0], [0.0, 1.0, 2.0])]
    [4.0, 2.0, 0.057191]
    """
    difference, sd = differences(left, right)
    if not sd > 0:
        return UNDEFINED
    return _two_sided(float(difference.mean()) / (sd / math.sqrt(difference.size)), float(difference.size - 1))


def sign_flip(left: ArrayLike, right: ArrayLike, *, samples: int = 100_000, seed: int = 0) -> float:
    """Return the two-sided p of the test that each difference is as likely to be negative as positive.

    The share of sign patterns whose sum is at least as far from 0 as the observed one. Up to 20 pairs, all patterns
    are enumerated and the p is exact; beyond, ``samples`` random ones are drawn and the observed one is counted with
    them, so that the test keeps its level. Never below ``2 / 2**n``: with 5 pairs 0.0625, whatever the difference.

    Args:
        left: one value per seed.
        right: as many, of the same seeds.
        samples: random sign patterns beyond 20 pairs.
        seed: seed of these patterns.
    """
    difference, _ = differences(left, right)
    # Patterns that sum to the observed value in real arithmetic must count although they are added in another order.
    observed = abs(float(difference.sum())) - ROUNDING * float(np.abs(difference).sum())
    if difference.size <= MOST_ENUMERATED:
        return float((np.abs(_all_sums(difference)) >= observed).mean())
    signs = np.random.default_rng(seed).integers(0, 2, size=(samples, difference.size), dtype=np.int8) * 2 - 1
    return float((1 + np.count_nonzero(np.abs(signs @ difference) >= observed)) / (1 + samples))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return the p-values adjusted by Holm's step-down rule, in the order given.

    An undefined p (NaN) belongs to a test that was planned: it keeps its place in the family as p = 1, so that it
    makes no other p smaller, and its adjusted p is NaN.

    >>> holm([0.01, 0.04, 0.03])
    (0.03, 0.06, 0.06)
    """
    if not p_values:
        return ()
    given = np.asarray(p_values, dtype=np.float64)
    undefined = np.isnan(given)
    adjusted = np.asarray(multipletests(np.where(undefined, 1.0, given), method="holm")[1])
    return tuple(float(p) for p in np.where(undefined, np.nan, adjusted))


def _two_sided(t: float, df: float) -> TTest:
    return TTest(t=t, df=df, p=float(2 * stats.t.sf(abs(t), df)))


def _all_sums(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = difference[:1]  # the first sign is fixed: a pattern and its mirror image are equally far from 0
    for term in difference[1:]:
        sums = np.concatenate([sums + term, sums - term])
    return sums
