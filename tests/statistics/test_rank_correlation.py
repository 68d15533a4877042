"""Spearman's correlation over networks in clusters: its value, its interval and its p."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unperturbed.records import SpecError
from unperturbed.statistics import cluster_bootstrap, cluster_permutation, rank_correlation, spearman

EXACT = 1e-12  # float64, a few hundred operations


def networks(rng, clusters, seeds, correlations, share):
    """Normal measures of networks; ``share`` of their variance is their cluster's, and that part correlates."""
    effects = rng.multivariate_normal(np.zeros(len(correlations)), correlations, size=clusters)
    own = rng.normal(size=(clusters, seeds, len(correlations)))
    values = np.sqrt(share) * effects[:, None] + np.sqrt(1 - share) * own
    return values.reshape(clusters * seeds, -1).T


def residual(values, held):
    """What least squares leave of the ranks of ``values`` beside a line in ``held``."""
    design = np.stack([np.ones(len(held)), held], axis=1)
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


@pytest.mark.parametrize("levels", [3, 10, 10**6])
def test_equals_scipy_with_and_without_ties(levels):
    rng = np.random.default_rng(levels)
    for n in (3, 10, 57):
        x, y = rng.integers(0, levels, size=(2, n))
        if len(set(x)) > 1 < len(set(y)):
            assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=EXACT)


def test_partial_equals_the_closed_form_and_the_correlation_of_residual_ranks():
    rng = np.random.default_rng(0)
    x, y, z = rng.integers(0, 12, size=(3, 40)) + rng.integers(0, 12, size=40)
    xy, xz, yz = (stats.spearmanr(*pair).statistic for pair in ((x, y), (x, z), (y, z)))
    found = spearman(x, y, control=z)
    assert found == pytest.approx((xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2)), abs=EXACT)
    left, right, held = (stats.rankdata(values) for values in (x, y, z))
    assert found == pytest.approx(np.corrcoef(residual(left, held), residual(right, held))[0, 1], abs=EXACT)
    assert abs(found) < abs(xy) - 0.15  # what the three share is gone


def test_what_does_not_vary_has_no_correlation():
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0]
    for found in (
        spearman([0.1] * 5, y),
        spearman(x, [0.1] * 5),
        spearman([1.0], [2.0]),
        spearman(x, y, control=np.exp(x)),  # the ranks of x are those of the control: nothing is left of x
        spearman(x, y, control=y),
        spearman(x, y, control=[0.1] * 5),
    ):
        assert math.isnan(found)
    for control in (None, [0.1] * 5, x, y):
        constant = cluster_permutation([0.1] * 5 if control is None else x, y, range(5), control=control)
        assert math.isnan(constant)


CLUSTERS = ["a", "b", "b", "c", "c", "c", "d", "e", "e"]


@pytest.mark.parametrize("partial", [False, True])
def test_the_interval_is_that_of_resampled_clusters_whole_and_of_any_size(partial):
    """The same draws, each resample written out network by network and given to SciPy."""
    rng = np.random.default_rng(3)
    columns = rng.integers(0, 6, size=(3 if partial else 2, 9)) + rng.integers(0, 4, size=9)
    x, y, *control = columns
    found = cluster_bootstrap(x, y, CLUSTERS, control=control[0] if control else None, resamples=200, seed=9)
    members = [np.flatnonzero(np.array(CLUSTERS) == name) for name in "abcde"]
    z = []
    for counts in np.random.default_rng(9).multinomial(5, [0.2] * 5, size=200):
        drawn = np.concatenate([members[cluster] for cluster, count in enumerate(counts) for _ in range(count)])
        resample = [values[drawn] for values in columns]
        if any(np.ptp(values) == 0 for values in resample):
            continue
        r = stats.spearmanr(*resample[:2]).statistic
        if partial:
            with_x, with_y = (stats.spearmanr(values, resample[2]).statistic for values in resample[:2])
            if not max(abs(with_x), abs(with_y)) < 1 - 1e-9:
                continue
            r = (r - with_x * with_y) / math.sqrt((1 - with_x**2) * (1 - with_y**2))
        if abs(r) < 1 - 1e-9:
            z.append(math.atanh(r))
    centre = math.atanh(spearman(x, y, control=control[0] if control else None))
    reach = stats.t.ppf(0.975, 4) * np.std(z, ddof=1)
    assert len(z) < 200  # some resamples have no correlation, or one of 1
    assert found == pytest.approx((math.tanh(centre - reach), math.tanh(centre + reach)), abs=1e-9)


TRIALS = 1_000
# The central 99.9 % of the number of covering intervals, if each covers with probability 0.95: 0.926 to 0.971 of TRIALS.
COVERS = stats.binom.ppf([0.0005, 0.9995], TRIALS, 0.95)


@pytest.mark.parametrize(
    ("clusters", "correlations"),
    [
        (6, [[1.0, 0.8], [0.8, 1.0]]),
        (12, [[1.0, 0.0], [0.0, 1.0]]),
        (12, [[1.0, 0.7, 0.5], [0.7, 1.0, 0.5], [0.5, 0.5, 1.0]]),
    ],
)
def test_the_interval_covers_at_its_rate_and_one_of_networks_as_if_independent_does_not(clusters, correlations):
    share = 0.9
    normal = 6 / math.pi * np.arcsin(share * np.array(correlations) / 2)  # Spearman's, of normal measures
    truth = normal[0, 1]
    if len(correlations) == 3:
        truth = (normal[0, 1] - normal[0, 2] * normal[1, 2]) / math.sqrt(
            (1 - normal[0, 2] ** 2) * (1 - normal[1, 2] ** 2)
        )
    rng = np.random.default_rng(clusters)
    whole = naive = 0
    for trial in range(TRIALS):
        x, y, *control = networks(rng, clusters, 5, correlations, share)
        given = {"control": control[0] if control else None, "resamples": 199, "seed": trial}
        low, high = cluster_bootstrap(x, y, np.repeat(np.arange(clusters), 5), **given)
        whole += low <= truth <= high
        low, high = cluster_bootstrap(x, y, range(x.size), **given)
        naive += low <= truth <= high
    assert COVERS[0] <= whole <= COVERS[1]
    assert naive < 0.85 * TRIALS < COVERS[0]


def crossed(rng, clusters, subjects, cluster_share, subject_share):
    """Two measures of networks, one per cluster and subject, that have nothing to do with each other."""
    shape = (clusters, subjects)
    return [
        (
            math.sqrt(cluster_share) * rng.normal(size=(clusters, 1))
            + math.sqrt(subject_share) * rng.normal(size=subjects)
            + math.sqrt(1 - cluster_share - subject_share) * rng.normal(size=shape)
        ).ravel()
        for _ in range(2)
    ]


@pytest.mark.parametrize(("shares", "conditions_alone"), [((0.9, 0.0), 0.90), ((0.45, 0.45), 0.75), ((0.2, 0.7), 0.45)])
def test_the_interval_covers_at_its_rate_where_subjects_cross_clusters(shares, conditions_alone):
    """At least: the central 99.9 % of the number of covering intervals, if each covers with probability 0.95."""
    rng = np.random.default_rng(11)
    cluster, subject = np.repeat(np.arange(12), 6), np.tile(np.arange(6), 12)
    both = alone = 0
    for trial in range(400):
        x, y = crossed(rng, 12, 6, *shares)
        for counted in (subject, None):
            low, high = cluster_bootstrap(x, y, cluster, crossed=counted, resamples=99, seed=trial)
            both += counted is not None and low <= 0 <= high
            alone += counted is None and low <= 0 <= high
    assert both >= stats.binom.ppf(0.0005, 400, 0.95)  # 0.91 of them
    assert conditions_alone - 0.1 < alone / 400 < conditions_alone + 0.1


def test_the_variances_of_clusters_and_subjects_are_added_and_the_fewer_ones_count():
    x, y = crossed(np.random.default_rng(12), 6, 5, 0.4, 0.4)
    cluster, subject = np.repeat(np.arange(6), 5), np.tile(np.arange(5), 6)

    def half_width(groups, df, **more):
        low, high = np.arctanh(cluster_bootstrap(x, y, groups, resamples=300, seed=3, **more))
        return (high - low) / 2 / stats.t.ppf(0.975, df)

    one, other = half_width(cluster, 5), half_width(subject, 4)
    assert half_width(cluster, 4, crossed=subject) == pytest.approx(math.hypot(one, other), rel=1e-9)
    assert half_width(subject, 4, crossed=cluster) == pytest.approx(math.hypot(one, other), rel=1e-9)
    for few in (subject % 3, subject * 0):
        assert math.isnan(cluster_bootstrap(x, y, cluster, crossed=few, seed=3).low)
    assert math.isfinite(cluster_bootstrap(x, y, cluster, crossed=subject % 4, seed=3).low)
    with pytest.raises(SpecError, match=r"expected the cluster of each of 30 networks, got 29"):
        cluster_bootstrap(x, y, cluster, crossed=subject[1:], seed=3)


def test_fewer_than_four_clusters_and_a_perfect_order_have_no_interval():
    x = np.arange(12.0)
    y = np.random.default_rng(0).permutation(12)
    for clusters, defined in ((np.arange(12) % 3, False), (np.arange(12) % 4, True)):
        assert math.isfinite(cluster_bootstrap(x, y, clusters, seed=0).low) == defined
    assert math.isnan(cluster_bootstrap(x, x**2, range(12), seed=0).low)
    # Of four networks, more than half of the resamples are in perfect order: they do not tell how far rho may be from 1.
    y = [1.0, 3.0, 2.0, 4.0, 5.0, 8.0, 6.0, 7.0]
    assert math.isnan(cluster_bootstrap(x[:4], y[:4], range(4), seed=0).low)
    assert math.isfinite(cluster_bootstrap(x[:8], y, range(8), seed=0).low)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=8, max_size=20), st.integers(0, 5))
def test_only_the_order_of_values_counts_and_a_mirror_image_has_mirrored_numbers(pairs, seed):
    x, y = np.array(pairs, dtype=float).T
    clusters = np.arange(x.size) % 5
    rho, interval = spearman(x, y), cluster_bootstrap(x, y, clusters, resamples=99, seed=seed)
    assert math.isnan(rho) or -1 - EXACT <= rho <= 1 + EXACT
    assert math.isnan(interval.low) or -1 <= interval.low <= rho <= interval.high <= 1
    assert spearman(np.exp(x), y**3) == pytest.approx(rho, abs=EXACT, nan_ok=True)
    assert cluster_bootstrap(np.exp(x), y**3, clusters, resamples=99, seed=seed) == pytest.approx(interval, nan_ok=True)
    assert spearman(-x, y) == pytest.approx(-rho, abs=EXACT, nan_ok=True)
    mirrored = cluster_bootstrap(-x, y, clusters, resamples=99, seed=seed)
    assert mirrored == pytest.approx((-interval.high, -interval.low), nan_ok=True)


@pytest.mark.parametrize("partial", [False, True])
def test_p_is_the_share_of_orders_of_the_clusters(partial):
    """All 24 orders by hand; with a control what is left of y is exchanged and the partial correlation taken again."""
    rng = np.random.default_rng(1)
    x, y, held = (stats.rankdata(values) for values in rng.normal(size=(3, 12)) + rng.normal(size=12))
    left = [residual(values, held) if partial else values - values.mean() for values in (x, y)]
    blocks = left[1].reshape(4, 3)
    found = []
    for order in permutations(range(4)):
        exchanged = blocks[list(order)].ravel()
        exchanged = residual(exchanged, held) if partial else exchanged
        found.append(abs(np.corrcoef(left[0], exchanged)[0, 1]))
    p = cluster_permutation(np.exp(x), y**3, np.repeat(list("abcd"), 3), control=-1 / held if partial else None)
    assert p == np.mean(np.array(found) >= found[0] - EXACT)
    assert 1 / 24 < p < 1


def test_networks_keep_their_seed_when_clusters_are_exchanged():
    """Whatever the order of the rows: within a cluster it is the order of the seeds."""
    x, y = np.random.default_rng(2).normal(size=(2, 4, 5))
    by_cluster = cluster_permutation(x.ravel(), y.ravel(), np.repeat(np.arange(4), 5))
    by_seed = cluster_permutation(x.T.ravel(), y.T.ravel(), np.tile(np.arange(4), 5))
    assert by_cluster == by_seed
    # a seed that is good in every cluster and in both measures is no evidence of anything: every order has it
    good = np.arange(5.0) * 10
    shared = cluster_permutation((x / 100 + good).ravel(), (y / 100 + good).ravel(), np.repeat(np.arange(4), 5))
    assert spearman((x / 100 + good).ravel(), (y / 100 + good).ravel()) > 0.9
    assert shared > 1 / 24


def test_clusters_of_unequal_size_have_no_p():
    assert math.isnan(cluster_permutation(np.arange(9.0), np.arange(9.0)[::-1], CLUSTERS))


def test_many_clusters_are_exchanged_at_random_and_the_observed_order_counts():
    x = np.arange(20.0)
    assert cluster_permutation(x, x, range(20), samples=99) == 1 / 100
    y = np.random.default_rng(0).permutation(20)
    assert cluster_permutation(x, y, range(20), seed=1) == cluster_permutation(x, y, range(20), seed=1)
    assert cluster_permutation(x, y, range(20), seed=1) != cluster_permutation(x, y, range(20), seed=2)


def test_all_orders_of_eight_and_some_of_them_agree(monkeypatch):
    x, y = np.arange(8.0), [2.0, 1.0, 5.0, 3.0, 4.0, 8.0, 6.0, 7.0]
    exact = cluster_permutation(x, y, range(8))
    assert exact == 620 / 40_320  # SciPy's permutation_test of all pairings, which takes seven seconds
    monkeypatch.setattr(rank_correlation, "MOST_PERMUTED", 7)
    low, high = stats.binom.ppf([0.0005, 0.9995], 9_999, exact)
    assert low <= 10_000 * cluster_permutation(x, y, range(8)) - 1 <= high


NULLS = 2_000


@pytest.mark.parametrize(("clusters", "partial"), [(4, False), (10, False), (20, True)])
def test_p_is_uniform_under_the_null_of_clusters(clusters, partial):
    """Counts below each of nine levels: the central 99.99 % of a binomial; the exact p has steps and is no larger."""
    rng = np.random.default_rng(clusters)
    correlations = [[1.0, 0.49, 0.7], [0.49, 1.0, 0.7], [0.7, 0.7, 1.0]] if partial else np.eye(2)
    p_values = []
    for _ in range(NULLS):
        x, y, *held = networks(rng, clusters, 3, correlations, 0.999 if partial else 0.9)
        labels = np.repeat(np.arange(clusters), 3)
        p_values.append(cluster_permutation(x, y, labels, control=held[0] if held else None, samples=199))
    step = 1 / 24 if clusters == 4 else 1 / 200
    for level in np.arange(0.1, 1.0, 0.1):
        level = math.floor(level / step + EXACT) * step
        count = np.count_nonzero(np.array(p_values) <= level + EXACT)
        low, high = stats.binom.ppf([5e-5, 1 - 5e-5], NULLS, level)
        assert low <= count <= high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spearman([1, 2, 3], [1, 2]), r"expected as many values of each measure, got 3, 2; give one per network"),
        (lambda: spearman([1, 2], [1, 2], control=[1]), r"got 2, 2, 1;"),
        (lambda: spearman([1, math.nan], [1, 2]), r"x: expected finite numbers, got nan at position 1"),
        (lambda: cluster_bootstrap([1, 2], [1, 2], "abc", seed=0), r"the cluster of each of 2 networks, got 3"),
        (lambda: cluster_bootstrap([1, 2], [1, 2], "ab", confidence=95, seed=0), r"between 0 and 1, got 95"),
    ],
)  # fmt: skip
def test_refuses_what_is_no_sample(call, message):
    with pytest.raises(SpecError, match=message):
        call()
