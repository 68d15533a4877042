import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from unperturbed.records import SpecError
from unperturbed.statistics import holm, paired_t, sign_flip, welch, welch_from_summary

LEFT = [0.52, 0.49, 0.55, 0.51, 0.53]
RIGHT = [0.50, 0.44, 0.54, 0.53, 0.49]


def test_welch_matches_hand_computation():
    # means 2 and 4, variances 1 and 4: t = -2 / sqrt(5/3), df = (5/3)^2 / ((1/9 + 16/9) / 2) = 50/17
    test = welch([1, 2, 3], [2, 4, 6])
    assert test.t == pytest.approx(-2 / math.sqrt(5 / 3), rel=1e-14)
    assert test.df == pytest.approx(50 / 17, rel=1e-14)


@pytest.mark.parametrize("sizes", [(5, 5), (5, 20), (2, 3)])
def test_welch_and_its_summary_form_match_scipy(sizes):
    rng = np.random.default_rng(3)
    left, right = rng.normal(0, 1, sizes[0]), rng.normal(1, 3, sizes[1])
    reference = stats.ttest_ind(left, right, equal_var=False)
    for test in (
        welch(left, right),
        welch_from_summary(left.mean(), left.std(ddof=1), left.size, right.mean(), right.std(ddof=1), right.size),
    ):
        assert tuple(test) == pytest.approx((reference.statistic, reference.df, reference.pvalue), rel=1e-12)


def test_paired_t_matches_scipy():
    reference = stats.ttest_rel(LEFT, RIGHT)
    assert tuple(paired_t(LEFT, RIGHT)) == pytest.approx((reference.statistic, 4, reference.pvalue), rel=1e-12)
    assert paired_t(RIGHT, LEFT).t == -paired_t(LEFT, RIGHT).t


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ([0.3], [0.1]),  # one seed
        ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),  # no difference, no spread
        ([0.3, 0.5, 0.7], [0.1, 0.3, 0.5]),  # differences of 0.2 that rounding makes unequal
        ([0.1 + 0.2, 0.5, 0.7], [0.3, 0.5, 0.7]),  # differences of 0 that rounding makes unequal
    ],
)
def test_paired_t_is_undefined_without_spread(left, right):
    assert all(math.isnan(number) for number in paired_t(left, right))


def test_welch_is_undefined_without_spread_or_with_one_value():
    for test in (
        welch([0.1 + 0.2, 0.3, 0.3], [0.1, 0.1]),
        welch([0.3], [0.1, 0.2]),
        welch_from_summary(1, 0, 5, 2, 0, 5),
    ):
        assert all(math.isnan(number) for number in test)
    assert welch([0.3, 0.3, 0.3], [0.1, 0.2, 0.3]).df == pytest.approx(2)  # one sample without spread is a constant


def test_sign_flip_matches_enumeration_by_hand():
    difference = np.subtract(LEFT, RIGHT)
    sums = [abs(float(np.dot(signs, difference))) for signs in product([1, -1], repeat=5)]
    assert sign_flip(LEFT, RIGHT) == np.mean([total >= abs(difference.sum()) - 1e-12 for total in sums])


@pytest.mark.parametrize("n", [1, 2, 7, 12])
def test_sign_flip_matches_scipy_exact(n):
    difference = np.random.default_rng(n).normal(0.4, 1, n)
    if n == 1:
        assert sign_flip(difference, [0.0]) == 1
        return
    reference = stats.permutation_test(
        (difference, np.zeros(n)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert sign_flip(difference, np.zeros(n)) == pytest.approx(reference.pvalue, rel=1e-12)


def test_sign_flip_counts_ties_and_is_never_below_its_floor():
    # 0.1 + 0.2 - 0.3 + 0.1 and -0.1 - 0.2 + 0.3 + 0.1 are the same number, but not the same float
    assert sign_flip([0.1, 0.2, -0.3, 0.1], np.zeros(4)) == sign_flip([1, 2, -3, 1], np.zeros(4)) == 1
    assert sign_flip([0.1, 0.2, -0.3], [0, 0, 0]) == 1
    assert sign_flip(np.arange(1, 6), np.zeros(5)) == 2 / 32
    assert sign_flip([0.2, 0.2], [0.2, 0.2]) == 1
    assert sign_flip(np.arange(1, 21), np.zeros(20)) == 2 / 2**20


def test_sign_flip_beyond_enumeration_agrees_with_the_exact_value():
    difference = np.full(21, 1.0)
    difference[:6] = -1  # 15 of 21 positive: the test is the two-sided binomial test
    exact = stats.binomtest(6, 21).pvalue
    found = sign_flip(difference, np.zeros(21), samples=40_000, seed=5)
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 40_000))  # 4 standard errors
    assert found == sign_flip(difference, np.zeros(21), samples=40_000, seed=5)
    assert found != sign_flip(difference, np.zeros(21), samples=40_000, seed=6)
    # the observed pattern counts as one of the samples: p is never 0
    assert sign_flip(np.full(40, 1.0), np.zeros(40), samples=99) == 1 / 100


TRIALS = 2_000
# The Kolmogorov-Smirnov distance of 2,000 uniform p-values exceeds this in 1 of 1,000 runs; the seeds are fixed.
KS_BOUND = stats.kstwo.isf(1e-3, TRIALS)


def distance_from_uniform(p_values) -> float:
    return float(stats.kstest(p_values, "uniform").statistic)


def test_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(7)
    samples = rng.normal(size=(TRIALS, 2, 8))
    assert distance_from_uniform([paired_t(left, right).p for left, right in samples]) < KS_BOUND
    assert distance_from_uniform([welch(left, right).p for left, right in samples]) < KS_BOUND


def test_welch_keeps_its_level_when_variances_differ():
    rng = np.random.default_rng(8)
    rejected = sum(welch(rng.normal(0, 5, 5), rng.normal(0, 1, 10)).p < 0.05 for _ in range(TRIALS))
    # central 99.9 % of Binomial(2000, 0.05): 68 to 133; the pooled t test would reject about 330 times
    assert stats.binom.ppf(0.0005, TRIALS, 0.05) <= rejected <= stats.binom.ppf(0.9995, TRIALS, 0.05)


def test_sign_flip_p_is_uniform_on_its_steps_under_a_skewed_symmetric_null():
    rng = np.random.default_rng(9)
    p_values = np.array([sign_flip(rng.standard_t(2, 6), np.zeros(6)) for _ in range(TRIALS)])
    for step in range(1, 33):  # P(p <= 2k/64) = 2k/64 exactly
        level = 2 * step / 64
        count = int((p_values <= level + 1e-12).sum())
        low, high = stats.binom.ppf([1e-5, 1 - 1e-5], TRIALS, level)
        assert low <= count <= high


def test_holm_matches_hand_computation():
    # sorted .005 .01 .03 .04: times 4, 3, 2, 1 = .02 .03 .06 .04, made monotone: .02 .03 .06 .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02), rel=1e-14)
    assert holm([0.7, 0.6]) == (1.0, 1.0)
    assert holm([]) == ()


def test_holm_keeps_the_place_of_an_undefined_p():
    adjusted = holm([0.01, math.nan, 0.02])
    assert adjusted[0] == pytest.approx(0.03)  # times 3, not 2
    assert adjusted[2] == pytest.approx(0.04)
    assert math.isnan(adjusted[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_t([1, 2, 3], [1, 2]), r"got 3 and 2; match the seeds"),
        (lambda: sign_flip([1, 2], [1, math.inf]), r"right: expected finite numbers, got inf at position 1"),
        (lambda: welch([], [1, 2]), r"left: expected a list of at least one number, got shape \(0,\)"),
        (lambda: welch_from_summary(1, -0.5, 20, 1, 1, 20), r"got -0\.5 of 20"),
        (lambda: welch_from_summary(1, 0.5, 20, 1, 1, 0), r"got 1 of 0"),
    ],
)
def test_refuses_what_is_no_sample(call, message):
    with pytest.raises(SpecError, match=message):
        call()
