import numpy as np
import pytest
import torch
from scipy.stats import binom, norm

from unperturbed.measures.certificates import average_certified_radius, certified_accuracy, certified_radius, certify
from unperturbed.records import SpecError


def _linear(weight, bias):
    return lambda images: torch.stack([images.flatten(1) @ weight + bias, torch.zeros(len(images))], dim=1)


def test_the_certificate_of_a_linear_classifier_is_its_distance_and_never_more():
    """Smoothing changes no linear classifier: the radius tends to the distance from below."""
    weight = torch.ones(12)
    images = torch.full((3, 3, 2, 2), 0.5) + torch.tensor([0.02, 0.1, 0.3]).view(3, 1, 1, 1)
    distance = np.array([0.02, 0.1, 0.3]) * 12**0.5
    found = certify(_linear(weight, -6.0), images, sigma=0.5, n=20_000, alpha=0.001)
    assert (found.predicted == 0).all()
    assert (found.radius <= distance).all()
    assert (found.radius[:2] >= 0.75 * distance[:2]).all()


def test_the_largest_radius_is_that_of_the_formula():
    for n, alpha in ((100, 0.001), (100_000, 0.001), (50, 0.05)):
        found = certified_radius(np.array([n]), n, sigma=0.5, alpha=alpha)
        assert found[0] == pytest.approx(0.5 * norm.ppf(alpha ** (1 / n)), rel=1e-9)
    assert certified_radius(np.array([100_000]), 100_000, sigma=1.0, alpha=0.001)[0] == pytest.approx(3.8, abs=0.05)


def test_the_radius_grows_with_the_count_and_is_zero_where_the_bound_is_no_majority():
    counts = np.arange(101)
    radius = certified_radius(counts, 100, sigma=1.0, alpha=0.01)
    assert (np.diff(radius) >= 0).all()
    first = int(np.argmax(radius > 0))
    # The bound exceeds one half exactly where so many successes would be rarer than alpha for a fair coin.
    assert binom.sf(first - 1, 100, 0.5) < 0.01 <= binom.sf(first - 2, 100, 0.5)


def test_a_class_without_a_majority_is_an_abstention():
    three = lambda images: torch.randn(len(images), 3, generator=random)  # noqa: E731
    random = torch.Generator().manual_seed(0)
    found = certify(three, torch.rand(4, 1, 2, 2), sigma=0.1, n=200)
    assert (found.predicted == -1).all()
    assert (found.radius == 0).all()


def test_accuracy_and_mean_radius_count_only_what_is_right():
    found = certify(_linear(torch.ones(4), -2.0), torch.full((2, 1, 2, 2), 0.7), sigma=0.25, n=1000)
    labels = np.array([0, 1])
    curve = certified_accuracy(found, labels, np.array([0.0, 0.1, 5.0]))
    np.testing.assert_allclose(curve, [0.5, 0.5, 0.0])
    assert average_certified_radius(found, labels) == pytest.approx(found.radius[0] / 2)


def test_the_same_seed_gives_the_same_certificate_and_disturbs_no_generator():
    images = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    one, two = (certify(_linear(torch.ones(4), -2.0), images, sigma=0.25, n=500) for _ in range(2))
    np.testing.assert_array_equal(one.votes, two.votes)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("wrong", [{"sigma": 0.0}, {"n": 0}, {"alpha": 1.0}])
def test_bad_settings_are_one_line(wrong):
    with pytest.raises(SpecError, match="expected sigma above 0, n and n0 of at least 1 and alpha in"):
        certify(_linear(torch.ones(4), 0.0), torch.rand(1, 1, 2, 2), **{"sigma": 0.5, **wrong})
