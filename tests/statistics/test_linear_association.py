"""Pearson's correlation as published, and the slope of a model with mixed effects."""

import math
import warnings

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

from unperturbed.records import SpecError
from unperturbed.statistics import mixed_effects, pearson

EXACT = 1e-12  # float64, a few hundred operations
CLUSTERS, SEEDS = 12, 5
CONDITION, SEED = np.repeat(np.arange(CLUSTERS), SEEDS), np.tile(np.arange(SEEDS), CLUSTERS)


def standardised(values):
    return (values - values.mean()) / values.std()


def ordinary(x, y, *held):
    """statsmodels' least squares of standardised measures; the slope comes first."""
    columns = [standardised(values) for values in (x, *held)]
    return sm.OLS(standardised(y), np.column_stack([*columns, np.ones(len(x))])).fit()


def clustered(rng, share, *, clusters=CLUSTERS, seeds=SEEDS):
    """One measure of networks; ``share`` of its variance is that of the conditions."""
    own = rng.normal(size=(clusters, seeds))
    return (np.sqrt(share) * rng.normal(size=(clusters, 1)) + np.sqrt(1 - share) * own).ravel()


def without_groups(rng):
    """A measure whose means over each condition and over each seed are 0: there is no variance between them."""
    values = rng.normal(size=(CLUSTERS, SEEDS))
    values -= values.mean(axis=0)
    return (values - values.mean(axis=1, keepdims=True)).ravel()


def test_pearson_equals_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 9))
    assert pearson(x, x + y) == pytest.approx(tuple(stats.pearsonr(x, x + y)), abs=EXACT)
    assert pearson(x + 1e6, y).r == pytest.approx(pearson(x, y).r, abs=1e-8)  # 1e6 costs ten digits


def test_the_partial_correlation_has_the_p_of_the_slope_beside_the_control():
    x, y, held = np.random.default_rng(1).normal(size=(3, 14))
    found, fit = pearson(x, y, control=held), ordinary(x, y, held)
    assert found.p == pytest.approx(fit.pvalues[0], abs=EXACT)
    xy, xz, yz = (np.corrcoef(*pair)[0, 1] for pair in ((x, y), (x, held), (y, held)))
    assert found.r == pytest.approx((xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2)), abs=EXACT)


@pytest.mark.parametrize("partial", [False, True])
def test_without_variance_between_groups_it_is_least_squares(partial):
    rng = np.random.default_rng(2)
    x, noise, *held = (without_groups(rng) for _ in range(3 if partial else 2))
    y = 0.5 * x + noise + (held[0] if partial else 0)
    found = mixed_effects(x, y, CONDITION, others=[SEED], control=held[0] if partial else None)
    fit = ordinary(x, y, *held)
    assert found.slope == pytest.approx(fit.params[0], abs=EXACT)
    assert found.error == pytest.approx(fit.bse[0], abs=EXACT)
    if not partial:
        assert found.slope == pytest.approx(np.corrcoef(x, y)[0, 1], abs=EXACT)
    df = CLUSTERS - (3 if partial else 2)  # of conditions, not of networks
    reach = stats.t.ppf(0.975, df) * fit.bse[0]
    assert found.interval == pytest.approx((found.slope - reach, found.slope + reach), abs=EXACT)
    assert found.p == pytest.approx(2 * stats.t.sf(found.slope / fit.bse[0], df), abs=EXACT)


def test_conditions_of_one_network_are_least_squares_too():
    x, y = np.random.default_rng(3).normal(size=(2, 9))
    assert mixed_effects(x, y, range(9)).slope == pytest.approx(np.corrcoef(x, y)[0, 1], abs=EXACT)
    assert mixed_effects(x, y, range(9)).p == pytest.approx(pearson(x, y).p, abs=EXACT)


def test_a_balanced_design_has_the_closed_form_of_its_analysis_of_variance():
    """Where x differs within conditions only, the slope is that of the deviations from the condition means."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(CLUSTERS, SEEDS))
    x -= x.mean(axis=1, keepdims=True)
    y = 3 * rng.normal(size=(CLUSTERS, 1)) + 0.5 * x + rng.normal(size=(CLUSTERS, SEEDS))
    within = y - y.mean(axis=1, keepdims=True)
    slope = (x * within).sum() / (x**2).sum()
    residual = ((within - slope * x) ** 2).sum() / (CLUSTERS * SEEDS - CLUSTERS - 1)
    unit = x.std() / y.std()
    found = mixed_effects(x.ravel(), y.ravel(), CONDITION)
    assert found.slope == pytest.approx(slope * unit, abs=EXACT)
    # The search ends where the likelihood changes by less than 1e-9 of it: the variances have four digits.
    assert found.error == pytest.approx(math.sqrt(residual / (x**2).sum()) * unit, rel=1e-4)


def test_equals_statsmodels_where_that_converges():
    rng = np.random.default_rng(5)
    indicators = [np.eye(count)[labels] for count, labels in ((CLUSTERS, CONDITION), (SEEDS, SEED))]
    names = [[str(number) for number in range(each.shape[1])] for each in indicators]
    parts = VCSpec(["condition", "seed"], [[each] for each in names], [[each] for each in indicators])
    compared = 0
    for _ in range(8):
        x = clustered(rng, 0.5)
        y = clustered(rng, 0.7) + 0.3 * x + 0.7 * rng.normal(size=SEEDS)[SEED]
        design = np.column_stack([standardised(x), np.ones(x.size)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = MixedLM(standardised(y), design, groups=np.ones(x.size), exog_vc=parts).fit(reml=True)
        if not fit.converged or min(fit.vcomp) < 0.01:
            continue
        compared += 1
        variance = fit.scale * np.eye(x.size) + sum(
            size * each @ each.T for size, each in zip(fit.vcomp, indicators, strict=True)
        )
        error = np.linalg.inv(design.T @ np.linalg.solve(variance, design))[0, 0] ** 0.5
        found = mixed_effects(x, y, CONDITION, others=[SEED])
        # Both stop where their likelihood is flat: the slope differs by less than a ten-thousandth of its error.
        assert found.slope == pytest.approx(fit.fe_params[0], abs=1e-4 * error)
        assert found.error == pytest.approx(error, rel=1e-3)
    assert compared >= 4


def test_recovers_a_known_slope_that_pearson_understates():
    """Conditions differ in y for reasons of their own, and rise with x inside and between conditions."""
    rng = np.random.default_rng(6)
    x = np.repeat(rng.normal(size=40), 10) + rng.normal(size=400)
    y = 0.5 * x + np.repeat(2 * rng.normal(size=40), 10) + 0.3 * rng.normal(size=400)
    found = mixed_effects(x, y, np.repeat(np.arange(40), 10))
    in_units = found.slope * y.std() / x.std()
    # The error is that of the slope inside conditions: 0.3 / sqrt(400) / 1 = 0.015; four of them.
    assert in_units == pytest.approx(0.5, abs=0.06)
    assert found.error * y.std() / x.std() == pytest.approx(0.015, rel=0.2)
    low, high = found.interval
    assert low < found.slope < high


TRIALS = 200


@pytest.mark.parametrize(("clusters", "architectures"), [(8, 1), (12, 2)])
def test_p_is_uniform_under_the_null_of_clusters_and_that_of_pearson_is_not(clusters, architectures):
    """Counts below each of five levels: the central 99.99 % of a binomial."""
    rng = np.random.default_rng(clusters + architectures)
    condition, seed = np.repeat(np.arange(clusters), 3), np.tile(np.arange(3), clusters)
    architecture = condition % architectures
    p_values, published = [], []
    for _ in range(TRIALS):
        x, y = (
            clustered(rng, 0.9, clusters=clusters, seeds=3)
            + (architectures - 1) * rng.normal(size=architectures)[architecture]
            for _ in range(2)
        )
        p_values.append(mixed_effects(x, y, condition, others=[architecture, seed]).p)
        published.append(pearson(x, y).p)
    for level in (0.05, 0.1, 0.25, 0.5, 0.75):
        low, high = stats.binom.ppf([5e-5, 1 - 5e-5], TRIALS, level)
        assert low <= np.count_nonzero(np.array(p_values) <= level) <= high
    assert np.mean(np.array(published) <= 0.05) > 0.15  # of 4,000: 0.26 and 0.41


def test_p_is_uniform_under_the_null_of_subjects_that_cross_conditions():
    """Half of each variance is that of the subjects; without them the test rejects too often."""
    rng = np.random.default_rng(3)
    condition, subject = np.repeat(np.arange(12), 5), np.tile(np.arange(5), 12)
    p_values, without = [], []
    for _ in range(TRIALS):
        x, y = (clustered(rng, 0.6) + rng.normal(size=5)[subject] for _ in range(2))
        p_values.append(mixed_effects(x, y, condition, others=[subject]).p)
        without.append(mixed_effects(x, y, condition).p)
    for level in (0.05, 0.1, 0.25, 0.5, 0.75):
        low, high = stats.binom.ppf([5e-5, 1 - 5e-5], TRIALS, level)
        assert low <= np.count_nonzero(np.array(p_values) <= level) <= high
    assert np.mean(np.array(without) <= 0.05) > 0.2


def test_a_slope_that_is_there_is_found():
    rng = np.random.default_rng(7)
    found = 0
    for _ in range(40):
        x = clustered(rng, 0.9)
        found += mixed_effects(x, 1.5 * x + clustered(rng, 0.9), CONDITION, others=[SEED]).p < 0.05
    assert found >= 36


@pytest.mark.parametrize("turned", [1, -1])
def test_units_and_the_order_of_networks_do_not_count(turned):
    rng = np.random.default_rng(8)
    x, y = clustered(rng, 0.6), clustered(rng, 0.6)
    found = mixed_effects(x, y, CONDITION, others=[SEED])
    order = rng.permutation(x.size)
    again = mixed_effects(turned * (7 + 1e3 * x[order]), y[order] / 9, CONDITION[order], others=[SEED[order]])
    assert again.slope == pytest.approx(turned * found.slope, abs=1e-4)  # the search begins from other roundings
    assert again.p == pytest.approx(found.p, abs=1e-4)


def degenerate():
    rng = np.random.default_rng(9)
    x, y = clustered(rng, 0.5), clustered(rng, 0.5)
    level = rng.normal(size=CLUSTERS)[CONDITION]
    yield "a measure that does not vary", (np.full(x.size, 0.1), y, CONDITION), {}
    yield "nor y", (x, np.full(x.size, 0.1), CONDITION), {}
    yield "nor the control", (x, y, CONDITION), {"control": np.full(x.size, 0.1)}
    yield "x is the control", (x, y, CONDITION), {"control": 3 - 2 * x}
    yield "y is x", (x, 2 * x + 1, CONDITION), {}
    yield "conditions leave no residual", (level, rng.normal(size=CLUSTERS)[CONDITION], CONDITION), {}
    yield "three conditions", (x, y, CONDITION % 3), {}
    yield "one condition", (x, y, CONDITION * 0), {}
    yield "one network", ([1.0], [2.0], ["a"]), {}
    yield (
        "as many coefficients as conditions",
        (x[:20], y[:20], CONDITION[:20]),
        {"control": x[20:40], "others": [CONDITION[:20] % 2]},
    )
    yield "conditions and seeds leave nothing", (x[:8], y[:8], [0, 0, 1, 1, 2, 2, 3, 3]), {"others": [[0, 1, 2, 3, 4, 5, 6, 7][::-1], [0, 1, 1, 2, 2, 3, 3, 4]]}  # fmt: skip


@pytest.mark.parametrize(("arguments", "given"), [pytest.param(a, g, id=name) for name, a, g in degenerate()])
def test_what_cannot_be_estimated_is_said_without_a_warning(arguments, given):
    found = mixed_effects(*arguments, **given)
    assert not found.estimable
    assert all(math.isnan(value) for value in (found.error, *found.interval, found.p))


def test_a_correlation_that_does_not_exist_has_no_p():
    x = [1.0, 2.0, 4.0, 3.0]
    for found in (pearson(x, [0.1] * 4), pearson([1.0, 2.0], [1.0, 3.0]), pearson(x, [2, 1, 0, 5], control=x)):
        assert math.isnan(found.r)
        assert math.isnan(found.p)
    assert pearson(x, x).r == 1.0


def test_groups_that_tell_nothing_apart_change_nothing():
    rng = np.random.default_rng(10)
    x, y = clustered(rng, 0.6), clustered(rng, 0.6)
    plain = mixed_effects(x, y, CONDITION)
    assert mixed_effects(x, y, CONDITION, others=[CONDITION * 0, [f"net {c}" for c in CONDITION]]) == plain
    # subjects that are the seeds under another name are no further group
    named = [f"subject {seed + 1}" for seed in SEED]
    assert mixed_effects(x, y, CONDITION, others=[SEED, named]) == mixed_effects(x, y, CONDITION, others=[SEED])
    # an architecture that encloses conditions takes a degree of freedom from them
    two = mixed_effects(x, y, CONDITION, others=[CONDITION % 2])
    assert stats.t.sf(abs(two.slope / two.error), CLUSTERS - 3) * 2 == pytest.approx(two.p, abs=EXACT)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mixed_effects([1, 2, 3], [1, 2], "abc"), r"got 3, 2; give one per network"),
        (lambda: mixed_effects([1, 2], [1, 2], "abc"), r"the cluster of each of 2 networks, got 3"),
        (lambda: mixed_effects([1, 2], [1, 2], "ab", confidence=95), r"between 0 and 1, got 95"),
        (lambda: pearson([1, math.nan], [1, 2]), r"x: expected finite numbers, got nan at position 1"),
    ],
)
def test_refuses_what_is_no_sample(call, message):
    with pytest.raises(SpecError, match=message):
        call()
