"""Maps of correlations over channels and times, with p corrected by their largest, and differences of channels."""

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from unperturbed.records import SpecError
from unperturbed.statistics import correlation_map, correlation_maps, group_difference, spearman

EXACT = 1e-12  # float64, a few hundred operations
SHAPE = (3, 5)  # channels and times


def clustered(rng, clusters, seeds, shape=(), share=0.9):
    """Normal measures of networks; ``share`` of their variance is that of the conditions, neighbours are alike."""
    effects, own = rng.normal(size=(2, clusters, seeds, *shape))
    values = np.sqrt(share) * effects[:, :1] + np.sqrt(1 - share) * own
    if shape:
        values = values + values.mean(axis=-1, keepdims=True)
    return values.reshape(clusters * seeds, *shape)


def test_each_place_has_its_rank_correlation_and_the_p_of_all_orders_of_the_conditions():
    rng = np.random.default_rng(0)
    predictions, gains = np.round(clustered(rng, 5, 2, SHAPE), 1), np.round(clustered(rng, 5, 2), 1)
    predictions[:, 1] += 0.5 * np.arange(5) * gains[:, None]
    found = correlation_map(predictions, gains, np.repeat(list("abcde"), 2))
    blocks, largest = gains.reshape(5, 2), []
    for order in permutations(range(5)):
        exchanged = blocks[list(order)].ravel()
        largest.append(max(abs(spearman(predictions[:, c, t], exchanged)) for c, t in np.ndindex(SHAPE)))
    for c, t in np.ndindex(SHAPE):
        rho = stats.spearmanr(predictions[:, c, t], gains).statistic
        assert found.rho[c, t] == pytest.approx(rho, abs=EXACT)
        assert found.p[c, t] == pytest.approx(np.mean(np.array(largest) >= abs(rho) - EXACT), abs=EXACT)
    assert len(set(found.p.ravel())) > 3


def test_networks_keep_their_seed_whatever_the_order_of_the_rows():
    rng = np.random.default_rng(1)
    predictions, gains = rng.normal(size=(4, 5, *SHAPE)), rng.normal(size=(4, 5))
    by_cluster = correlation_map(predictions.reshape(20, *SHAPE), gains.ravel(), np.repeat(np.arange(4), 5))
    turned = np.swapaxes(predictions, 0, 1).reshape(20, *SHAPE)
    by_seed = correlation_map(turned, gains.T.ravel(), np.tile(np.arange(4), 5))
    np.testing.assert_allclose(by_seed.p, by_cluster.p, rtol=0, atol=EXACT)
    np.testing.assert_allclose(by_seed.rho, by_cluster.rho, rtol=0, atol=EXACT)
    # what is good at one seed is so in every order of the conditions, and no evidence
    good = np.arange(5.0) * 10
    shared = correlation_map(
        (predictions + good[:, None, None]).reshape(20, *SHAPE),
        (gains + good).ravel(),
        np.repeat(np.arange(4), 5),
    )
    assert shared.rho.min() > 0.8
    assert shared.p.min() > 1 / 24


TRIALS, CONDITIONS, SEEDS = 600, 10, 3


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_the_probability_of_any_place_is_that_of_the_level(share):
    """Counts of the least p of a map below each of four levels: the central 99.99 % of a binomial."""
    rng = np.random.default_rng(int(10 * share))
    condition = np.repeat(np.arange(CONDITIONS), SEEDS)
    least, single, networks = [], [], []
    for trial in range(TRIALS):
        predictions, gains = (clustered(rng, CONDITIONS, SEEDS, shape, share) for shape in (SHAPE, ()))
        found = correlation_map(predictions, gains, condition, samples=199, seed=trial)
        least.append(found.p.min())
        if trial < TRIALS // 3:
            networks.append(correlation_map(predictions, gains, range(gains.size), samples=99, seed=trial).p.min())
            places = [stats.spearmanr(predictions[:, c, t], gains).pvalue for c, t in np.ndindex(SHAPE)]
            single.append(min(places))
    for level in (0.05, 0.1, 0.3, 0.7):
        low, high = stats.binom.ppf([5e-5, 1 - 5e-5], TRIALS, level)
        assert low <= np.count_nonzero(np.array(least) <= level + EXACT) <= high
    assert np.mean(np.array(single) <= 0.05) > 0.2  # uncorrected
    assert (np.mean(np.array(networks) <= 0.05) > 0.2) == (share > 0)  # exchanged one by one


def test_a_planted_place_is_found_and_others_are_not():
    rng = np.random.default_rng(2)
    found, elsewhere = 0, 0
    condition = np.repeat(np.arange(16), SEEDS)
    for trial in range(40):
        predictions, gains = clustered(rng, 16, SEEDS, SHAPE), clustered(rng, 16, SEEDS)
        predictions[:, 1, 3] = gains + 0.4 * rng.normal(size=gains.size)
        p = correlation_map(predictions, gains, condition, samples=199, seed=trial).p
        found += p[1, 3] <= 0.05
        elsewhere += (np.delete(p.ravel(), 1 * SHAPE[1] + 3) <= 0.05).any()
    assert found >= 38
    assert elsewhere <= stats.binom.ppf(1 - 1e-4, 40, 0.05)


def test_the_sign_does_not_count_and_only_the_order_of_values_does():
    rng = np.random.default_rng(3)
    predictions, gains, condition = rng.normal(size=(12, *SHAPE)), rng.normal(size=12), np.repeat(np.arange(4), 3)
    found = correlation_map(predictions, gains, condition)
    mirrored = correlation_map(-np.exp(predictions), gains**3, condition)
    np.testing.assert_allclose(mirrored.rho, -found.rho, rtol=0, atol=EXACT)
    np.testing.assert_array_equal(mirrored.p, found.p)


def test_a_place_that_is_not_defined_takes_no_part():
    rng = np.random.default_rng(4)
    predictions, gains, condition = rng.normal(size=(12, *SHAPE)), rng.normal(size=12), np.repeat(np.arange(4), 3)
    whole = correlation_map(predictions[:, 1:], gains, condition)
    predictions[3, 0, 0], predictions[:, 0, 1:] = np.nan, 0.1
    found = correlation_map(predictions, gains, condition)
    assert np.isnan([found.rho[0], found.p[0]]).all()
    np.testing.assert_array_equal(found.p[1:], whole.p)
    nothing = correlation_map(predictions, np.ones(12), condition)
    assert np.isnan([nothing.rho, nothing.p]).all()


def test_conditions_of_unequal_size_have_correlations_and_no_p():
    rng = np.random.default_rng(5)
    predictions, gains = rng.normal(size=(7, *SHAPE)), rng.normal(size=7)
    found = correlation_map(predictions, gains, "aabbccc")
    assert np.isfinite(found.rho).all()
    assert np.isnan(found.p).all()


def test_permutations_in_parts_are_the_same(monkeypatch):
    rng = np.random.default_rng(6)
    predictions, gains = rng.normal(size=(10, *SHAPE)), rng.normal(size=10)
    found = correlation_map(predictions, gains, range(10), samples=99, seed=1)
    monkeypatch.setattr(correlation_maps, "TOGETHER", 7)
    np.testing.assert_array_equal(correlation_map(predictions, gains, range(10), samples=99, seed=1).p, found.p)
    assert found.p.min() >= 1 / 100
    other = correlation_map(predictions, gains, range(10), samples=99, seed=2)
    assert (other.p != found.p).any()


def with_channels(rng, correlations, *, clusters=12, seeds=3, share=0.9):
    """Gains, and a channel for each of the correlations that it has with them."""
    gains, *noise = (clustered(rng, clusters, seeds, share=share) for _ in range(1 + len(correlations)))
    channels = [r * gains + np.sqrt(1 - r**2) * other for r, other in zip(correlations, noise, strict=True)]
    return np.stack(channels, axis=1), gains, np.repeat(np.arange(clusters), seeds)


def test_the_difference_is_that_of_mean_correlations_and_its_interval_that_of_resampled_conditions():
    rng = np.random.default_rng(7)
    channels, gains, condition = with_channels(rng, (0.2, 0.8, 0.5), clusters=5, seeds=2)
    found = group_difference(channels[:, :2], channels[:, 2:], gains, condition, resamples=150, seed=3)
    rho = [stats.spearmanr(channel, gains).statistic for channel in channels.T]
    assert found.first == pytest.approx(np.mean(rho[:2]), abs=EXACT)
    assert found.second == pytest.approx(rho[2], abs=EXACT)
    assert found.difference == pytest.approx(np.mean(rho[:2]) - rho[2], abs=EXACT)
    drawn = []
    for counts in np.random.default_rng(3).multinomial(5, [0.2] * 5, size=150):
        rows = np.concatenate([[2 * c, 2 * c + 1] for c, count in enumerate(counts) for _ in range(count)])
        r = [stats.spearmanr(channel[rows], gains[rows]).statistic for channel in channels.T]
        drawn.append(np.mean(r[:2]) - r[2])
    reach = stats.t.ppf(0.975, 4) * np.std(drawn, ddof=1)
    assert found.interval == pytest.approx((found.difference - reach, found.difference + reach), abs=1e-10)


@pytest.mark.parametrize("correlations", [(0.3, 0.3, 0.3), (0.6, 0.6, 0.2)])
def test_the_interval_of_a_difference_covers_at_its_rate_and_one_of_networks_does_not(correlations):
    """The central 99.9 % of a binomial about 0.95, less the 3 points that the docstring gives away."""
    rng = np.random.default_rng(8)
    normal = 6 / np.pi * np.arcsin(np.array(correlations) / 2)  # Spearman's, of normal measures
    truth = normal[:2].mean() - normal[2]
    trials, whole, naive = 300, 0, 0
    for trial in range(trials):
        channels, gains, condition = with_channels(rng, correlations)
        given = channels[:, :2], channels[:, 2:], gains
        low, high = group_difference(*given, condition, resamples=149, seed=trial).interval
        whole += low <= truth <= high
        low, high = group_difference(*given, range(gains.size), resamples=149, seed=trial).interval
        naive += low <= truth <= high
    assert stats.binom.ppf(5e-4, trials, 0.92) <= whole <= stats.binom.ppf(1 - 5e-4, trials, 0.97)
    assert naive < 0.88 * trials


def test_a_difference_that_is_not_determined_has_no_interval():
    rng = np.random.default_rng(9)
    channels, gains, condition = with_channels(rng, (0.5, 0.5), clusters=4)
    for first, second, groups in (
        (channels[:, :1], channels[:, 1:], condition % 3),  # three conditions
        (channels[:, :1], channels[:, :1], condition),  # the same channel: no spread
        (np.ones((12, 1)), channels, condition),  # one that does not vary
    ):
        assert np.isnan(group_difference(first, second, gains, groups, resamples=50).interval).all()
    assert np.isfinite(
        group_difference(channels[:, :1], channels[:, 1:], gains, condition, resamples=50).interval
    ).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: correlation_map(np.ones((3, 2)), [1, 2, 3], "abc"), r"of 3 networks, as the gains; got \(3, 2\)"),
        (lambda: correlation_map(np.ones((2, 1, 1)), [1, 2, 3], "abc"), r"of 3 networks, as the gains; got \(2, 1, 1\)"),
        (lambda: correlation_map(np.ones((2, 1, 1)), [1, np.inf], "ab"), r"gains: expected finite numbers, got inf"),
        (lambda: correlation_map(np.ones((2, 1, 1)), [1, 2], "abc"), r"the cluster of each of 2 networks, got 3"),
        (lambda: group_difference([[np.nan]], [[1]], [1], "a"), r"first: expected finite numbers, got nan"),
        (lambda: group_difference([[1]], [[1]], [1], "a", confidence=2), r"between 0 and 1, got 2"),
    ],
)  # fmt: skip
def test_refuses_what_is_no_map(call, message):
    with pytest.raises(SpecError, match=message):
        call()
