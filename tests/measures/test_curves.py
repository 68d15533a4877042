import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unperturbed.measures import (
    chance_corrected_robustness,
    critical_eps_quartiles,
    relative_change,
    robustness,
    running_minimum,
)
from unperturbed.records import SpecError

PUBLISHED = np.array([0, 0.0125, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        (np.ones(9), 1.0),
        (np.full(9, 0.37), 1.0),
        (np.array([1.0] + [0.0] * 8), 0.0208333),
        (1 - PUBLISHED / 0.3, 0.5),
        (np.array([0.8] + [0.1] * 8), 0.143229),
        (np.array([0.99] + [0.1] * 8), 0.119739),
    ],
)
def test_equation_1_on_the_published_grid(accuracy, expected):
    assert float(robustness(PUBLISHED, accuracy)) == pytest.approx(expected, abs=5e-7)


def test_is_the_weighted_sum_that_the_trapezoid_rule_gives():
    f = np.random.default_rng(0).uniform(0.1, 0.9, 9)
    weights = [0.00625, 0.0125, 0.01875, 0.0375, 0.05, 0.05, 0.05, 0.05, 0.025]
    assert float(robustness(PUBLISHED, f)) == pytest.approx(np.dot(weights, f) / (0.3 * f[0]), rel=1e-12)


def test_rows_are_seeds():
    curves = np.random.default_rng(0).uniform(0.1, 0.9, (3, 5, 9))
    together = robustness(PUBLISHED, curves)
    assert together.shape == (3, 5)
    assert together[2, 4] == pytest.approx(float(robustness(PUBLISHED, curves[2, 4])), rel=1e-12)
    assert isinstance(robustness(PUBLISHED, curves[0, 0]), float)


@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=9), st.floats(0.1, 1.0))
def test_does_not_depend_on_the_scale_of_accuracy(accuracy, scale):
    eps = PUBLISHED[: len(accuracy)]
    expected = float(robustness(eps, accuracy))
    assert float(robustness(eps, np.multiply(accuracy, scale))) == pytest.approx(expected, rel=1e-9)
    assert expected > 0


@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=9))
def test_mean_relative_change_is_robustness_minus_1(accuracy):
    eps = PUBLISHED[: len(accuracy)]
    change = relative_change(accuracy)
    mean = np.sum((change[1:] + change[:-1]) / 2 * np.diff(eps)) / eps[-1]
    assert mean == pytest.approx(float(robustness(eps, accuracy)) - 1, abs=1e-9)
    assert float(robustness(eps, running_minimum(accuracy))) <= min(1.0, float(robustness(eps, accuracy))) + 1e-12


def test_starts_at_the_smallest_eps_whatever_it_is():
    assert float(robustness([0.1, 0.2, 0.3], [0.8, 0.4, 0.0])) == pytest.approx(0.5)


def test_an_interval_may_end_on_or_between_the_points():
    eps, accuracy = [0.0, 0.1, 0.2, 0.3], [0.8, 0.4, 0.4, 0.0]
    assert float(robustness(eps, accuracy, upto=0.1)) == pytest.approx(0.6 / 0.8)
    assert float(robustness(eps, accuracy, upto=0.05)) == pytest.approx(0.7 / 0.8)
    assert float(robustness(eps, accuracy, upto=0.25)) == pytest.approx((0.06 + 0.04 + 0.015) / (0.25 * 0.8))
    whole = float(robustness(eps, accuracy))
    assert float(robustness(eps, accuracy, upto=0.3)) == pytest.approx(whole, rel=1e-12)
    assert float(robustness(eps, accuracy, upto=0.1 + 0.2)) == pytest.approx(whole, rel=1e-12)  # 0.30000000000000004
    rows = robustness(eps, [accuracy, [1.0, 1.0, 1.0, 1.0]], upto=0.25)
    assert rows.tolist() == pytest.approx([0.575, 1.0])


def test_a_finer_curve_gives_the_published_number_on_the_published_grid():
    fine = np.unique(np.concatenate([PUBLISHED, np.linspace(0, 0.06, 13)]))
    accuracy = np.exp(-fine / 0.02)
    on_grid = float(robustness(PUBLISHED, np.exp(-PUBLISHED / 0.02)))
    assert float(robustness(fine, accuracy, grid=PUBLISHED.tolist())) == pytest.approx(on_grid, rel=1e-12)
    assert float(robustness(fine, accuracy)) != pytest.approx(on_grid, rel=1e-3)
    corrected = chance_corrected_robustness(fine, accuracy, chance=0.1, grid=PUBLISHED.tolist())
    expected = chance_corrected_robustness(PUBLISHED, np.exp(-PUBLISHED / 0.02), chance=0.1)
    assert float(corrected) == pytest.approx(float(expected), rel=1e-12)


def test_above_chance_a_network_at_chance_has_nothing():
    curve = np.array([0.8] + [0.1] * 8)
    assert float(chance_corrected_robustness(PUBLISHED, curve, chance=0.1)) == pytest.approx(0.0208333, abs=5e-7)
    below = np.array([0.8] + [0.02] * 8)  # worse than chance counts as chance, not as negative
    assert float(chance_corrected_robustness(PUBLISHED, below, chance=0.1)) == pytest.approx(0.0208333, abs=5e-7)
    assert float(chance_corrected_robustness(PUBLISHED, curve, chance=0.0)) == pytest.approx(0.143229, abs=5e-7)
    assert float(chance_corrected_robustness(PUBLISHED, np.full(9, 0.4), chance=0.1)) == pytest.approx(1.0)


def test_a_rebound_adds_to_robustness_but_not_to_that_of_the_running_minimum():
    rebound = [0.9, 0.1, 0.5, 0.6]
    assert running_minimum([rebound, rebound[::-1]]).tolist() == [[0.9, 0.1, 0.1, 0.1], [0.6, 0.5, 0.1, 0.1]]
    assert robustness(range(4), rebound) > robustness(range(4), running_minimum(rebound))
    assert float(robustness([0, 1], [0.2, 0.8])) == pytest.approx(2.5)  # not bounded by 1


def test_quartiles_of_critical_eps_are_those_of_images():
    assert critical_eps_quartiles([0.3, np.inf, 0.1, 0.2]) == (0.1, 0.2, 0.3)
    assert critical_eps_quartiles([0.1, np.inf, np.inf, np.inf]) == (0.1, np.inf, np.inf)
    assert critical_eps_quartiles([0.25]) == (0.25, 0.25, 0.25)
    assert critical_eps_quartiles([0.0, 0.1, 0.2, 0.3, 0.4]) == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("eps", "accuracy", "message"),
    [
        ([0, 0.1, 0.2], [1, 0.5], r"^accuracy: expected one value for each of 3 eps; got 2$"),
        ([0.1], [0.5], r"^eps: expected at least two values; got 1$"),
        ([0, 0.2, 0.1], [1, 0.5, 0.4], r"^eps: expected increasing values; got 0.1 after 0.2$"),
        ([0, 0.1, 0.1], [1, 0.5, 0.4], r"^eps: expected increasing values; got 0.1 after 0.1$"),
        ([-0.1, 0.1], [1, 0.5], r"^eps: expected finite values, 0 or larger; got -0.1 to 0.1$"),
        ([0, np.inf], [1, 0.5], r"^eps: expected finite values, 0 or larger; got 0 to inf$"),
        ([0, 0.1], [100, 50], r"^accuracy: expected fractions in \[0, 1\]; got 50 to 100$"),
        ([0, 0.1], [0.5, -0.25], r"^accuracy: expected fractions in \[0, 1\]; got -0.25 to 0.5$"),
        ([0, 0.1], [0.5, np.nan], r"^accuracy: expected fractions in \[0, 1\]; got NaN at 1 points$"),
        ([0, 0.1], 0.5, r"^accuracy: expected a curve; got a shape of \(\)$"),
        ([0, 0.1], [0.0, 0.5], r"^accuracy: expected more than 0 at eps=0, as a fraction of it is measured; got 0$"),
        (
            [0, 0.1],
            [[0.5, 0.5], [0.0, 0.5]],
            r"^accuracy: expected more than 0 at eps=0, as a fraction of it is measured; got 0$",
        ),
    ],
)
def test_bad_curves_are_refused(eps, accuracy, message):
    with pytest.raises(SpecError, match=message):
        robustness(eps, accuracy)


def test_bad_settings_are_refused():
    eps, accuracy = [0, 0.1, 0.2], [0.5, 0.4, 0.3]
    with pytest.raises(SpecError, match=r"^upto: expected a value above 0 and up to 0.2, the range of eps; got 0.25$"):
        robustness(eps, accuracy, upto=0.25)
    with pytest.raises(SpecError, match=r"^upto: expected a value above 0 and up to 0.2, the range of eps; got 0$"):
        robustness(eps, accuracy, upto=0.0)
    with pytest.raises(SpecError, match=r"^grid: expected values of eps \(0, 0.1, 0.2\); got also 0.15, 0.3$"):
        robustness(eps, accuracy, grid=[0, 0.15, 0.3])
    with pytest.raises(SpecError, match=r"^chance: expected a fraction, 0 or larger and below 1; got 10$"):
        chance_corrected_robustness(eps, accuracy, chance=10)
    message = r"^accuracy: expected more than 0.6 at eps=0, as a fraction of it is measured; got 0.5$"
    with pytest.raises(SpecError, match=message):
        chance_corrected_robustness(eps, accuracy, chance=0.6)
    with pytest.raises(SpecError, match=r"^accuracy: expected more than 0 at the smallest eps, .*; got 0$"):
        relative_change([0.0, 0.5])
    with pytest.raises(SpecError, match=r"^critical_eps: expected one value for each image; got a shape of \(0,\)$"):
        critical_eps_quartiles([])
    with pytest.raises(SpecError, match=r"^critical_eps: expected values of 0 or larger; got -1 to 2$"):
        critical_eps_quartiles([2, -1])
