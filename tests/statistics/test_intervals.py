import math

import numpy as np
import pytest
from scipy import stats

from unperturbed.records import SpecError
from unperturbed.statistics import paired_bootstrap, unpaired_bootstrap

TRIALS = 1_000


def coverage(interval, draw, truth) -> int:
    covered = 0
    for trial in range(TRIALS):
        low, high = interval(*draw(), resamples=999, seed=trial)
        covered += low <= truth <= high
    return covered


def bounds(rate):
    """The central 99.9 % of the number of covering intervals out of TRIALS, if each covers with probability rate."""
    return stats.binom.ppf([0.0005, 0.9995], TRIALS, rate)


@pytest.mark.parametrize(
    ("n", "shape", "rate"), [(5, "normal", 0.941), (5, "exponential", 0.932), (20, "normal", 0.949)]
)
def test_paired_interval_covers_at_its_documented_rate(n, shape, rate):
    rng = np.random.default_rng(n)
    shared = rng.normal(0, 3, n)  # what a seed gives to both cells cancels

    def draw():
        difference = rng.normal(size=n) if shape == "normal" else rng.exponential(size=n) - 1
        return shared + difference, shared

    covered = coverage(paired_bootstrap, draw, 0)
    low, high = bounds(rate)  # at n = 5 the percentile interval covers 0.78 to 0.84: outside
    assert low <= covered <= high


@pytest.mark.parametrize(("n", "ratio", "rate"), [(5, 1, 0.953), (5, 5, 0.936)])
def test_unpaired_interval_covers_at_its_documented_rate(n, ratio, rate):
    rng = np.random.default_rng(10 * n + ratio)
    covered = coverage(unpaired_bootstrap, lambda: (rng.normal(2, 1, n), rng.normal(0, ratio, n)), 2)
    low, high = bounds(rate)
    assert low <= covered <= high


def test_a_skewed_sample_has_the_longer_arm_on_the_side_of_its_tail():
    """The interval of a sample with a tail to the right reaches further to the right than to the left of the mean."""
    difference = np.array([0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.5, 4.0])
    low, high = paired_bootstrap(difference, np.zeros(8), seed=0)
    mean = difference.mean()
    assert high - mean > 2 * (mean - low) > 0
    mirrored = paired_bootstrap(-difference, np.zeros(8), seed=0)
    assert mirrored == pytest.approx((-high, -low), rel=0.05)  # 9,999 resamples and quantiles that are not interpolated


def test_intervals_move_and_scale_with_the_data():
    left, right = np.array([0.52, 0.49, 0.55, 0.51, 0.53]), np.array([0.50, 0.44, 0.54, 0.53, 0.49])
    for interval in (paired_bootstrap, unpaired_bootstrap):
        low, high = interval(left, right, seed=4)
        assert interval(3 * left + 1, 3 * right, seed=4) == pytest.approx((3 * low + 1, 3 * high + 1), rel=1e-9)
        narrow = interval(left, right, confidence=0.9, seed=4)
        assert low < narrow.low < narrow.high < high


@pytest.mark.parametrize("n", [2, 3])
def test_few_pairs_get_students_interval(n):
    difference = np.array([0.1, 0.4, 0.2])[:n]
    expected = stats.t.interval(0.95, n - 1, difference.mean(), stats.sem(difference))
    assert paired_bootstrap(difference, np.zeros(n), seed=0) == pytest.approx(expected, rel=1e-12)


def test_two_and_two_get_welchs_interval():
    left, right = [0.1, 0.4], [0.0, 0.1]
    expected = stats.ttest_ind(left, right, equal_var=False).confidence_interval(0.95)
    assert unpaired_bootstrap(left, right, seed=0) == pytest.approx(tuple(expected), rel=1e-12)


def test_many_equal_differences_get_students_interval():
    """One of eight differs: a third of the resamples have no spread, more than any quantile can pass over."""
    difference = np.array([0.1] * 7 + [0.2])
    expected = stats.t.interval(0.95, 7, difference.mean(), stats.sem(difference))
    assert paired_bootstrap(difference, np.zeros(8), seed=0) == pytest.approx(expected, rel=1e-12)


def test_no_spread_and_single_seeds_have_no_interval():
    for interval in (
        paired_bootstrap([0.3], [0.1], seed=0),
        paired_bootstrap([0.3, 0.5, 0.7], [0.1, 0.3, 0.5], seed=0),
        unpaired_bootstrap([0.3], [0.1, 0.2], seed=0),
        unpaired_bootstrap([0.3, 0.3], [0.1, 0.1], seed=0),
    ):
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)


def test_one_sample_without_spread_is_a_constant():
    low, high = unpaired_bootstrap([0.5] * 6, [0.1, 0.2, 0.15, 0.12, 0.18, 0.11], seed=0)
    assert low < 0.5 - np.mean([0.1, 0.2, 0.15, 0.12, 0.18, 0.11]) < high


def test_equal_seeds_give_equal_intervals():
    left, right = [0.5, 0.6, 0.4, 0.55, 0.45], [0.4, 0.41, 0.39, 0.42, 0.38]
    assert paired_bootstrap(left, right, seed=1) == paired_bootstrap(left, right, seed=1)
    assert paired_bootstrap(left, right, seed=1) != paired_bootstrap(left, right, seed=2)


def test_refuses_a_confidence_that_is_none():
    with pytest.raises(SpecError, match=r"confidence: expected a number between 0 and 1, got 95"):
        paired_bootstrap([1, 2, 4], [0, 0, 0], confidence=95, seed=0)
