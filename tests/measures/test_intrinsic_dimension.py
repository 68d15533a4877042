import math

import numpy as np
import pytest
from scipy.spatial import KDTree

from unperturbed.measures.intrinsic_dimension import levina_bickel, neighbour_distances, two_nn
from unperturbed.records import SpecError


def _cube(count, dimension, seed=0):
    return np.random.default_rng(seed).random((count, dimension))


def _sphere(count, dimension, seed=0):
    drawn = np.random.default_rng(seed).standard_normal((count, dimension + 1))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def _embedded(points, into, seed=0):
    turned = np.linalg.qr(np.random.default_rng(seed).standard_normal((into, points.shape[1]))).Q
    return points @ turned.T + 7


@pytest.mark.parametrize("dimension", [0.5, 3.0, 13.0])
def test_ratios_at_the_quantiles_of_the_law_give_its_dimension(dimension):
    shares = np.arange(1, 201) / 200
    ratios = (1 - shares[:-1]) ** (-1 / dimension)
    ratios = np.append(ratios, 1e3)  # the last quantile is infinite, and in the tenth that is left out
    distances = np.stack([np.full(200, 0.3), 0.3 * ratios], axis=1)[::-1]
    assert two_nn(distances) == pytest.approx(dimension, rel=1e-12)
    distances[: 200 - 180, 1] *= 50  # nothing of the largest tenth is looked at
    assert two_nn(distances) == pytest.approx(dimension, rel=1e-12)
    distances[200 - 180, 1] *= 1.01
    assert two_nn(distances) != pytest.approx(dimension, rel=1e-6)


def test_three_points_on_a_line_by_hand():
    """Ratios 3, 2 and 3/2, of which the largest is left out."""
    distances = neighbour_distances(np.array([[0.0], [1.0], [3.0]]), k=2)
    x, y = np.log([1.5, 2.0]), -np.log([2 / 3, 1 / 3])
    assert two_nn(distances) == pytest.approx(x @ y / (x @ x), rel=1e-12)


def test_the_likelihood_of_two_points_by_hand_as_defined_and_as_published():
    distances = np.array([[1.0, 2.0, 4.0, 9.0], [1.0, 3.0, 3.0, 9.0]])
    logs = (np.log(4 / 1) + np.log(4 / 2) + np.log(3 / 1) + np.log(3 / 3)) / 2
    assert levina_bickel(distances, k=3) == pytest.approx(2 / logs, rel=1e-12)
    assert levina_bickel(distances, k=3, as_published=True) == pytest.approx(1 / logs, rel=1e-12)
    logs = (np.log(9**3 / (1 * 2 * 4)) + np.log(9**3 / (1 * 3 * 3))) / 2
    assert levina_bickel(distances, k=4) == pytest.approx(3 / logs, rel=1e-12)


def test_distances_are_those_of_all_pairs_sorted():
    points = np.unique(_cube(80, 30), axis=0)  # in the order in which distinct points come
    every = np.sort(np.linalg.norm(points[:, None] - points, axis=2), axis=1)[:, 1:]
    found = neighbour_distances(points, k=6)
    np.testing.assert_allclose(found, every[:, :6], rtol=1e-12)
    assert neighbour_distances(points, k=500).shape == (80, 79)


@pytest.mark.parametrize("places", [[-1e6, 1e6], [1e6, 1e6]])
def test_near_points_far_away_keep_their_distances_and_their_order(places):
    """Clusters at a length of 1e6, where squares, of 16 digits, lose what points differ in by less than 0.01."""
    points = np.unique(1e-3 * _cube(12, 20) + np.repeat(places, 6)[:, None], axis=0)
    every = np.sort(np.linalg.norm(points[:, None] - points, axis=2), axis=1)[:, 1:6]
    np.testing.assert_allclose(neighbour_distances(points, k=5), every, rtol=1e-12)


def test_of_equal_points_one_is_kept():
    points = _cube(100, 4)
    np.testing.assert_array_equal(
        neighbour_distances(np.concatenate([points, points[:30]]), k=5), neighbour_distances(points, k=5)
    )


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_the_dimension_of_a_cube(dimension):
    distances = neighbour_distances(_cube(5000, dimension))
    assert two_nn(distances) == pytest.approx(dimension, rel=0.1)
    for k in (3, 5, 10, 20):
        assert levina_bickel(distances, k=k) == pytest.approx(dimension, rel=0.1)


@pytest.mark.parametrize("dimension", [2, 5, 10])
def test_the_dimension_of_a_cube_without_edges(dimension):
    """Opposite faces of the cube touch, so that no point lacks neighbours."""
    distances = KDTree(_cube(3000, dimension), boxsize=1).query(_cube(3000, dimension), k=21)[0][:, 1:]
    assert two_nn(distances) == pytest.approx(dimension, rel=0.06)
    for k in (3, 5, 10, 20):
        assert levina_bickel(distances, k=k) == pytest.approx(dimension, rel=0.06)


def test_a_cube_of_ten_dimensions_is_nearly_all_edge():
    """Neighbours are missing there: 5,000 points seem to have 8.5 dimensions, 20,000 have 9.0, in three seconds."""
    few, many = (neighbour_distances(_cube(count, 10), k=5) for count in (1000, 5000))
    for found in (two_nn(few), two_nn(many), levina_bickel(few, k=5), levina_bickel(many, k=5)):
        assert 0.78 * 10 < found < 0.9 * 10
    assert levina_bickel(few, k=5) < levina_bickel(many, k=5)


@pytest.mark.parametrize("dimension", [2, 4, 7])
def test_the_dimension_of_a_sphere_does_not_depend_on_where_it_lies(dimension):
    points = _sphere(2000, dimension)
    inside = neighbour_distances(_embedded(points, 60))
    assert two_nn(inside) == pytest.approx(dimension, rel=0.1)
    for k in (3, 5, 10, 20):
        assert levina_bickel(inside, k=k) == pytest.approx(dimension, rel=0.1)
    plain = neighbour_distances(points)
    assert two_nn(5.0 * inside) == pytest.approx(two_nn(plain), rel=1e-8)


@pytest.mark.parametrize("k", [3, 5, 20])
def test_the_published_average_is_too_low_by_a_factor_that_is_one_half_for_three_neighbours(k):
    distances = neighbour_distances(_sphere(2000, 3))
    published = levina_bickel(distances, k=k, as_published=True)
    assert published == pytest.approx((k - 2) / (k - 1) * levina_bickel(distances, k=k), rel=1e-12)
    assert levina_bickel(distances, k=k) == pytest.approx(3, rel=0.05)


def test_equal_distances_have_no_finite_dimension():
    simplex = neighbour_distances(np.eye(6), k=3)
    assert two_nn(simplex) == math.inf
    assert levina_bickel(simplex, k=3) == math.inf


def test_points_without_enough_neighbours_are_refused():
    with pytest.raises(SpecError, match="three distinct ones or more; got 2 among 3"):
        neighbour_distances(np.array([[0.0], [1.0], [1.0]]))
    with pytest.raises(SpecError, match=r"finite numbers of shape \(points, coordinates\); got a shape of \(3,\)"):
        neighbour_distances(np.zeros(3))
    with pytest.raises(SpecError, match="finite numbers"):
        neighbour_distances(np.array([[0.0], [np.nan], [1.0]]))
    distances = neighbour_distances(_cube(10, 2), k=4)
    with pytest.raises(SpecError, match=r"those to 5 neighbours or more; got a shape of \(10, 4\)"):
        levina_bickel(distances, k=5)
    with pytest.raises(SpecError, match=r"those to 2 neighbours or more; got a shape of \(10, 1\)"):
        two_nn(distances[:, :1])
    with pytest.raises(SpecError, match="k of at least 3; got 2"):
        levina_bickel(distances, k=2)
