import re
from itertools import combinations, permutations

import numpy as np
import pytest
from scipy.spatial.distance import squareform
from scipy.stats import binom, chi2, spearmanr

from unperturbed.measures.similarity import (
    dissimilarities,
    mean_similarity_test,
    noise_ceilings,
    similarity,
    similarity_test,
)
from unperturbed.records import SpecError

RANDOM = np.random.default_rng(0)


def pairs_of(images, *, random=RANDOM, features=2):
    """Dissimilarities with the dependence of real ones: distances of points in a plane."""
    return dissimilarities(random.standard_normal((images, features)), metric="euclidean")


def tau_a(one, other):
    """Kendall's correlation by its definition."""
    places = list(combinations(range(len(one)), 2))
    agreements = [np.sign(one[a] - one[b]) * np.sign(other[a] - other[b]) for a, b in places]
    return sum(agreements) / len(places)


def test_dissimilarities_are_those_of_each_two_images():
    patterns = RANDOM.standard_normal((4, 6))
    correlation = [1 - np.corrcoef(patterns[a], patterns[b])[0, 1] for a, b in combinations(range(4), 2)]
    distance = [np.linalg.norm(patterns[a] - patterns[b]) for a, b in combinations(range(4), 2)]
    np.testing.assert_allclose(dissimilarities(patterns), correlation, rtol=1e-12)
    np.testing.assert_allclose(dissimilarities(patterns, metric="euclidean"), distance, rtol=1e-12)
    assert squareform(dissimilarities(patterns))[1, 3] == pytest.approx(correlation[4])


def test_each_time_has_dissimilarities_of_its_own():
    patterns = RANDOM.standard_normal((4, 6, 5))
    found = dissimilarities(patterns)
    assert found.shape == (5, 6)
    for time in range(5):
        np.testing.assert_array_equal(found[time], dissimilarities(patterns[:, :, time].copy()))


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_are_those_of_their_definitions(ties):
    one, other = RANDOM.standard_normal((2, 15))
    if ties:
        one, other = np.round(one), np.round(other * 2)
    assert float(similarity(one, other)) == pytest.approx(spearmanr(one, other).statistic, abs=1e-14)
    assert float(similarity(one, other, rank="kendall")) == pytest.approx(tau_a(one, other), abs=1e-14)


@pytest.mark.parametrize("rank", ["spearman", "kendall"])
def test_several_are_compared_each_by_itself(rank):
    reference, many = pairs_of(6), np.stack([pairs_of(6) for _ in range(6)]).reshape(2, 3, 15)
    found = similarity(many, reference, rank=rank)
    assert found.shape == (2, 3)
    for place in np.ndindex(2, 3):
        assert found[place] == pytest.approx(float(similarity(many[place], reference, rank=rank)), abs=1e-14)
    assert float(similarity(reference, np.exp(reference), rank=rank)) == pytest.approx(1, abs=1e-14)
    assert np.isnan(float(similarity(np.ones(15), reference, rank=rank)))


def test_ties_cost_tau_a_something():
    reference = np.arange(15.0)
    found = similarity((reference > 7).astype(float), reference, rank="kendall")
    assert float(found) == pytest.approx(8 * 7 / 105, abs=1e-14)


@pytest.mark.parametrize("rank", ["spearman", "kendall"])
def test_p_is_that_of_all_permutations_of_the_images(rank):
    """Five images: 120 permutations, counted here one by one, of the other matrix."""
    reference, many = pairs_of(5), np.stack([pairs_of(5) for _ in range(3)])
    found = similarity_test(many, reference, rank=rank)
    compare = tau_a if rank == "kendall" else lambda one, other: spearmanr(one, other).statistic
    by_chance = np.array(
        [
            [compare(squareform(squareform(one)[np.ix_(order, order)]), reference) for one in many]
            for order in permutations(range(5))
        ]
    )
    observed = by_chance[0] - 1e-12
    np.testing.assert_array_equal(found.r, similarity(many, reference, rank=rank))
    np.testing.assert_array_equal(found.p, (by_chance >= observed).mean(axis=0))
    np.testing.assert_array_equal(found.p_largest, (by_chance.max(axis=1)[:, None] >= observed).mean(axis=0))


def test_p_is_uniform_under_the_null():
    """1,000 pairs of unrelated matrices of 9 images, 99 permutations: p is one of 100 equally likely numbers."""
    random = np.random.default_rng(1)
    p = np.array(
        [
            float(similarity_test(pairs_of(9, random=random), pairs_of(9, random=random), samples=99, seed=seed).p)
            for seed in range(1000)
        ]
    )
    assert set(np.round(p * 100).astype(int)) <= set(range(1, 101))
    counts = np.bincount(np.ceil(p * 10 - 1e-9).astype(int) - 1, minlength=10)
    assert ((counts - 100) ** 2 / 100).sum() < chi2.isf(1e-3, 9)
    assert binom.ppf(1e-3, 1000, 0.05) <= (p < 0.055).sum() <= binom.isf(1e-3, 1000, 0.05)


def test_the_largest_of_several_times_is_corrected_for_the_choice():
    """400 series of 5 unrelated matrices: their smallest p is too small too often, the corrected one is not."""
    random = np.random.default_rng(2)
    tests = [
        similarity_test(
            np.stack([pairs_of(8, random=random) for _ in range(5)]), pairs_of(8, random=random), samples=99, seed=seed
        )
        for seed in range(400)
    ]
    most = binom.isf(1e-3, 400, 0.05)
    corrected = sum(found.p_largest.min() < 0.055 for found in tests)
    assert binom.ppf(1e-3, 400, 0.05) <= corrected <= most
    assert sum(found.p.min() < 0.055 for found in tests) > most
    assert all((found.p_largest >= found.p).all() for found in tests)


def test_a_planted_likeness_is_found_and_its_opposite_is_not():
    points = RANDOM.standard_normal((20, 3))
    reference = dissimilarities(points, metric="euclidean")
    noisy = dissimilarities(points + 0.5 * RANDOM.standard_normal((20, 3)), metric="euclidean")
    found = similarity_test(np.stack([noisy, -noisy]), reference)
    assert found.p[0] == 1 / 1001
    assert found.p[1] > 0.99


def test_the_seed_decides_p():
    one, other = pairs_of(9), pairs_of(9)
    p = [float(similarity_test(one, other, samples=50, seed=seed).p) for seed in (0, 0, 1, 2, 3)]
    assert p[0] == p[1]
    assert len(set(p)) > 1


def test_two_subjects_have_ceilings_in_closed_form():
    one, other = RANDOM.permutation(45.0 * np.arange(45)), np.arange(45.0)
    r = spearmanr(one, other).statistic
    lower, upper = noise_ceilings(np.stack([one, other]))
    assert float(lower) == pytest.approx(r, abs=1e-14)
    assert float(upper) == pytest.approx(((1 + r) / 2) ** 0.5, abs=1e-14)


def test_subjects_that_agree_can_be_predicted_wholly():
    both = noise_ceilings(np.stack([pairs_of(6)] * 3))
    assert [float(ceiling) for ceiling in both] == pytest.approx([1, 1], abs=1e-14)


def test_the_lower_ceiling_is_the_mean_agreement_with_the_others():
    subjects = np.round(2 * np.stack([pairs_of(7) for _ in range(4)]))  # with ties
    ranks = np.stack([np.argsort(np.argsort(s)) for s in subjects])  # only to be sure that there are ties
    assert len(np.unique(subjects[0])) < ranks.shape[1]
    expected = [
        spearmanr(subjects[k], np.mean([_rank(s) for s in np.delete(subjects, k, axis=0)], axis=0)).statistic
        for k in range(4)
    ]
    assert float(noise_ceilings(subjects).lower) == pytest.approx(np.mean(expected), abs=1e-13)


def _rank(values):
    """Mean ranks by counting."""
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


def test_no_model_passes_the_upper_ceiling():
    for _ in range(20):
        truth = pairs_of(6)
        subjects = np.stack([truth + RANDOM.normal(0, 0.5, 15) for _ in range(4)])
        lower, upper = noise_ceilings(subjects)
        ranks = np.stack([_rank(subject) for subject in subjects])
        models = [truth, *subjects, subjects.mean(axis=0), ranks.mean(axis=0), *RANDOM.standard_normal((20, 15))]
        reached = [np.mean([similarity(subject, model) for subject in subjects]) for model in models]
        assert max(reached) <= upper + 1e-12
        assert lower <= upper


def test_each_time_has_ceilings_of_its_own():
    subjects = np.stack([[pairs_of(6) for _ in range(3)] for _ in range(4)])
    found = noise_ceilings(subjects)
    for time in range(3):
        alone = noise_ceilings(subjects[:, time].copy())
        assert (found.lower[time], found.upper[time]) == pytest.approx([float(x) for x in alone], abs=1e-14)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: dissimilarities(np.zeros((2, 5))), "of 3 images or more; got (2, 5), 0 of them not finite"),
        (lambda: dissimilarities(np.full((3, 5), np.nan)), "got (3, 5), 15 of them not finite"),
        (lambda: dissimilarities(np.eye(4)[:, 1:]), "got image 0 with all features equal: use metric='euclidean'"),
        (lambda: similarity(np.zeros(4), np.zeros(4)), "n (n - 1) / 2 pairs of n images, 3 or more; got 4"),
        (lambda: similarity(np.zeros(1), np.zeros(1)), "pairs of n images, 3 or more; got 1"),
        (lambda: similarity(np.zeros(6), np.zeros(3)), "expected 3 pairs, as the reference has; got 6"),
        (lambda: similarity(np.full(3, np.inf), np.arange(3.0)), "expected finite numbers"),
        (lambda: similarity_test(pairs_of(4), pairs_of(4), samples=0), "expected 1 sample or more"),
        (lambda: similarity_test(np.ones(6), pairs_of(4)), "got 1000 and 1 correlations that are undefined"),
        (lambda: noise_ceilings(np.zeros((1, 6))), "of 2 subjects or more; got 1, 0 numbers not finite"),
        (lambda: noise_ceilings(np.full((2, 6), np.nan)), "got 2, 12 numbers not finite"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_one_line(act, says):
    with pytest.raises(SpecError, match=re.escape(says)) as error:
        act()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("times", [(), (4,)])
def test_the_mean_over_subjects_is_what_has_ceilings_and_its_p_that_of_all_permutations(times):
    """Five images: 120 permutations of the model, each subject by SciPy."""
    places = list(np.ndindex(3, *times))
    model, subjects = pairs_of(5), np.reshape([pairs_of(5) for _ in places], (3, *times, 10))
    found = mean_similarity_test(subjects, model)
    by_chance = np.array(
        [
            np.mean([
                [spearmanr(one, squareform(squareform(model)[np.ix_(order, order)])).statistic for one in each.reshape(-1, 10)]
                for each in subjects
            ], axis=0).reshape(times)
            for order in permutations(range(5))
        ]
    )  # fmt: skip
    largest = by_chance.reshape(120, -1).max(axis=1)
    np.testing.assert_allclose(found.r, by_chance[0], rtol=0, atol=1e-14)
    np.testing.assert_array_equal(found.p, (by_chance >= by_chance[0] - 1e-12).mean(axis=0))
    for place in np.ndindex(times):
        assert found.p_largest[place] == (largest >= by_chance[0][place] - 1e-12).mean()


def test_no_model_passes_the_upper_ceiling_and_the_best_one_reaches_it():
    subjects = np.stack([pairs_of(7) for _ in range(4)])
    upper = float(noise_ceilings(subjects).upper)
    ranks = np.stack([np.argsort(np.argsort(each)) for each in subjects]).mean(axis=0)  # no ties among distances
    best = float(mean_similarity_test(subjects, ranks, samples=1).r)
    assert all(float(mean_similarity_test(subjects, pairs_of(7), samples=1).r) < upper for _ in range(50))
    assert best <= upper
    assert best == pytest.approx(upper, abs=0.03)  # the ceiling is of the mean ranks themselves, the model's are ranked
    alike = np.stack([subjects[0]] * 3)
    assert float(mean_similarity_test(alike, np.exp(subjects[0]), samples=1).r) == pytest.approx(1, abs=1e-12)


def test_a_mean_of_subjects_that_do_not_vary_is_refused():
    subjects = np.stack([np.ones(10), pairs_of(5)])
    with pytest.raises(SpecError, match=r"got 1000 and 1 correlations that are undefined"):
        mean_similarity_test(subjects, pairs_of(5))
