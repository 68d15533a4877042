import math

import numpy as np
import pytest

from unperturbed.measures.label_sharpness import label_sharpness, label_sharpness_as_coded
from unperturbed.records import SpecError


def _classes(count, classes, seed=0):
    random = np.random.default_rng(seed)
    return random.standard_normal((count, 5)), random.integers(classes, size=count)


@pytest.mark.parametrize("classes", [2, 5])
def test_it_is_the_inverse_of_the_smallest_distance_between_classes(classes):
    points, labels = _classes(90, classes)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    pairs = distances[(labels[:, None] != labels) & np.triu(np.ones((90, 90), dtype=bool))]
    found = label_sharpness(points, labels)
    assert found.value == pytest.approx(1 / pairs.min(), rel=1e-12)
    assert found.quantile == pytest.approx(1 / np.quantile(pairs, 0.01), rel=1e-12)
    assert found.pairs == len(pairs)
    assert found.low <= found.high <= found.value
    assert found.quantile < found.value


def test_by_hand():
    points, labels = np.array([[0.0, 0.0], [0.1, 0.0], [3.0, 4.0]]), np.array([2, 2, 7])
    found = label_sharpness(points, labels)
    assert found.value == pytest.approx(1 / np.hypot(2.9, 4), rel=1e-12)
    assert found.pairs == 2


def test_the_interval_is_that_of_every_resample():
    """The nearest pair is missing in 1 - (1 - 1/e)^2 = 0.6 of them."""
    points, labels = _classes(60, 3)
    found = label_sharpness(points, labels, resamples=2000, seed=4)
    drawn = np.random.default_rng(4).integers(60, size=(2000, 60))
    values = [label_sharpness(points[rows], labels[rows], resamples=1).value for rows in drawn[:300]]
    several = label_sharpness(points, labels, resamples=300, seed=4)
    # The first 300 draws of a larger table are those of a smaller one.
    high, low = 1 / np.quantile(1 / np.array(values), [0.025, 0.975], method="inverted_cdf")
    assert (several.low, several.high) == (pytest.approx(low, rel=1e-12), pytest.approx(high, rel=1e-12))
    assert several.low < found.value == found.high
    assert np.mean(np.array(values) < found.value) == pytest.approx(0.6, abs=0.12)


def test_equal_points_of_different_classes_are_infinitely_sharp():
    points, labels = np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([0, 1, 0, 1])
    assert label_sharpness(points, labels).value == math.inf
    assert label_sharpness(points, np.array([0, 0, 1, 1])).value == 1


def test_the_released_code_counts_pairs_of_the_same_class():
    """Two tight classes far apart: as defined, the gap between them; as coded, what is inside one, or a point itself."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 20)
    points = 0.01 * random.standard_normal((40, 3)) + 100.0 * labels[:, None]
    assert label_sharpness(points, labels).value == pytest.approx(1 / (100 * 3**0.5), rel=1e-2)
    seen = [label_sharpness_as_coded(points, labels, batch_size=10, seed=seed) for seed in range(40)]
    assert min(seen) > 1
    # 4 x 4 batches of 10 pairs are 160 of 1,600, each a point with itself in one case of 40: hardly a run has none.
    assert np.mean(np.isinf(seen)) > 0.9


def test_the_released_code_sees_the_pairs_that_stand_side_by_side_only():
    """Of 300 points of one class, the nearest pair is among the 300 aligned ones of one batch in one case of 150."""
    points = np.random.default_rng(1).random((300, 4))
    labels = np.zeros(300, dtype=int)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    nearest = 1 / distances[np.triu_indices(300, 1)].min()
    seen = np.array([label_sharpness_as_coded(points, labels, batch_size=300, seed=seed) for seed in range(60)])
    finite = seen[np.isfinite(seen)]
    assert 10 < len(finite) < 35  # no point meets itself with a probability of 1/e
    assert np.mean(finite < 0.999 * nearest) > 0.8
    inverses = 1 / distances[np.triu_indices(300, 1)]
    assert all(np.isclose(inverses, value, rtol=1e-12).any() for value in finite)


def test_what_has_no_two_classes_is_refused():
    with pytest.raises(SpecError, match="two classes or more; got 3 points of one"):
        label_sharpness(np.zeros((3, 2)), np.array([4, 4, 4]))
    with pytest.raises(SpecError, match=r"a label for each; got \(3, 2\) and \(2,\)"):
        label_sharpness(np.zeros((3, 2)), np.array([0, 1]))
