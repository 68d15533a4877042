import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower

from unperturbed.records import SpecError
from unperturbed.statistics import (
    d_z,
    hedges_g,
    paired_detectable,
    paired_power,
    paired_t,
    unpaired_detectable,
    unpaired_power,
    welch,
)


def test_effect_sizes_match_hand_computation():
    assert d_z([1, 2, 4], [0, 1, 2]) == pytest.approx((4 / 3) / math.sqrt(1 / 3), rel=1e-14)
    # means 2 and 4, pooled variance 2.5, J(4) = 1 / (sqrt(2) Gamma(1.5)) = 0.79788
    expected = -2 / math.sqrt(2.5) / (math.sqrt(2) * math.gamma(1.5))
    assert hedges_g([1, 2, 3], [2, 4, 6]) == pytest.approx(expected, rel=1e-12)


def test_hedges_g_is_unbiased():
    rng = np.random.default_rng(1)
    values = [hedges_g(rng.normal(1, 1, 5), rng.normal(0, 1, 5)) for _ in range(4_000)]
    error = np.std(values) / math.sqrt(len(values))
    assert np.mean(values) == pytest.approx(1, abs=4 * error)  # uncorrected it would be 1.11, 7 standard errors away


def test_effect_sizes_are_undefined_without_spread():
    assert math.isnan(d_z([0.3, 0.5, 0.7], [0.1, 0.3, 0.5]))
    assert math.isnan(hedges_g([0.3, 0.3], [0.1, 0.1]))
    assert math.isnan(hedges_g([0.3], [0.1, 0.2]))


def test_power_of_claim_k9_with_five_seeds(printed):
    """LeNet, objects with and without pretraining on digits, epoch 300: about 45 % at n = 5 per arm."""
    (mean1, sd1, _), (mean2, sd2, _) = (printed["lenet", name, 300] for name in ("digits-then-objects", "objects"))
    assert unpaired_power(mean1 - mean2, sd1, 5, sd2, 5) == pytest.approx(0.45, abs=0.05)
    assert unpaired_power(mean1 - mean2, sd1, 20, sd2, 20) > 0.98


@pytest.mark.parametrize(
    "claim", [("digits", "objects"), ("fusion-digit", "fusion-object"), ("digits", "fusion-digit")]
)
def test_five_seeds_always_find_the_large_published_differences(printed, claim):
    (mean1, sd1, _), (mean2, sd2, _) = (printed["lenet", name, 300] for name in claim)
    assert unpaired_power(mean1 - mean2, sd1, 5, sd2, 5) > 0.999


@pytest.mark.parametrize(("difference", "n"), [(0.0, 5), (0.8, 5), (0.8, 20), (-1.5, 3), (6.0, 5)])
def test_power_matches_statsmodels_for_equal_variances(difference, n):
    paired = TTestPower().power(abs(difference), n, 0.05, alternative="two-sided")
    unpaired = TTestIndPower().power(abs(difference), n, 0.05, alternative="two-sided")
    assert paired_power(2 * difference, 2, n) == pytest.approx(paired, abs=1e-9)
    assert unpaired_power(2 * difference, 2, n, 2, n) == pytest.approx(unpaired, abs=1e-9)


def test_power_matches_simulation():
    rng = np.random.default_rng(2)
    trials = 3_000
    left, right = rng.normal(1.5, 1, (trials, 5)), rng.normal(0, 2, (trials, 8))
    found = sum(welch(a, b).p < 0.05 for a, b in zip(left, right, strict=True))
    expected = unpaired_power(1.5, 1, 5, 2, 8)
    low, high = stats.binom.ppf([0.0005, 0.9995], trials, expected)
    slack = 0.02 * trials  # Satterthwaite's approximation
    assert low - slack <= found <= high + slack
    found = sum(paired_t(a, np.zeros(5)).p < 0.01 for a in left)
    low, high = stats.binom.ppf([0.0005, 0.9995], trials, paired_power(1.5, 1, 5, alpha=0.01))
    assert low <= found <= high  # exact: no slack


def test_power_stays_a_probability_for_every_distance():
    for n in (2, 3, 5, 20):
        powers = [paired_power(distance, 1, n) for distance in np.geomspace(1e-3, 1e6, 120)]
        assert all(a <= b + 1e-12 for a, b in pairwise(powers))
        assert powers[0] == pytest.approx(0.05, abs=1e-4)
        assert powers[-1] == 1


@pytest.mark.parametrize(("n", "power", "alpha"), [(2, 0.8, 0.05), (5, 0.8, 0.05), (20, 0.95, 0.001)])
def test_detectable_differences_have_the_power_asked_for(n, power, alpha):
    paired = paired_detectable(0.01, n, power=power, alpha=alpha)
    assert paired_power(paired, 0.01, n, alpha=alpha) == pytest.approx(power, abs=1e-9)
    unpaired = unpaired_detectable(0.01, n, 0.02, n + 1, power=power, alpha=alpha)
    assert unpaired_power(unpaired, 0.01, n, 0.02, n + 1, alpha=alpha) == pytest.approx(power, abs=1e-9)
    assert unpaired_power(-unpaired, 0.01, n, 0.02, n + 1, alpha=alpha) == pytest.approx(power, abs=1e-9)


def test_refuses_designs_without_an_answer():
    with pytest.raises(SpecError, match=r"at least 2 values .* got 1 with 0\.1"):
        paired_power(1, 0.1, 1)
    with pytest.raises(SpecError, match=r"got 5 with 0"):
        unpaired_detectable(0, 5, 0, 6)
    with pytest.raises(SpecError, match=r"above alpha \(0\.05\) and below 1, got 0\.01"):
        paired_detectable(1, 5, power=0.01)
