"""Slopes of classifiers whose Jacobian is known, in float64."""

import math

import pytest
import torch
from torch import nn

from unperturbed.measures import jacobians
from unperturbed.measures.jacobians import jacobian, lipschitz, margin_gradient, slopes, spectral_norm
from unperturbed.models import build
from unperturbed.records import Spec
from unperturbed.tensors.streams import generator

torch.manual_seed(0)
WEIGHT = torch.randn(4, 12, dtype=torch.float64)
BIAS = torch.randn(4, dtype=torch.float64)
IMAGES = torch.rand(7, 3, 2, 2, dtype=torch.float64)
LABELS = torch.arange(7) % 4


def _linear(images):
    return images.flatten(1) @ WEIGHT.T + BIAS


def _exact(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)  # float64: round-off only


@pytest.fixture
def small():
    """A convolution, a rectifier and a smooth unit before the readout."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 5, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(45, 9), nn.Tanh(), nn.Linear(9, 4)
    ).double()


def test_norms_of_a_linear_classifier_are_those_of_its_weights():
    found = slopes(_linear, IMAGES, LABELS)
    _exact(found.frobenius, WEIGHT.norm().expand(7))
    _exact(found.spectral, torch.linalg.svdvals(WEIGHT)[0].expand(7))


def test_the_first_order_distance_of_a_linear_classifier_is_its_distance():
    """Closed form: over the other classes the smallest |margin| / |difference of weights|_q, if one other class is nearest."""
    logits = _linear(IMAGES)
    labels = logits.argmax(dim=1)
    found = slopes(_linear, IMAGES, labels)
    other = logits.scatter(1, labels[:, None], -torch.inf).argmax(dim=1)
    difference = WEIGHT[labels] - WEIGHT[other]
    margin = (logits.gather(1, labels[:, None]) - logits.gather(1, other[:, None])).squeeze(1)
    _exact(found.margin, margin)
    _exact(found.gradient_l2, difference.norm(dim=1))
    _exact(found.gradient_l1, difference.abs().sum(dim=1))
    _exact(found.distance_l2, margin / difference.norm(dim=1))
    _exact(found.distance_linf, margin / difference.abs().sum(dim=1))
    # At that distance the two classes are equal, one way in either norm.
    for step in (
        difference / difference.norm(dim=1, keepdim=True) * found.distance_l2[:, None],
        difference.sign() * found.distance_linf[:, None],
    ):
        moved = _linear(IMAGES - step.view_as(IMAGES))
        _exact(moved.gather(1, labels[:, None]), moved.gather(1, other[:, None]))


def test_the_jacobian_is_that_of_functorch(small):
    logits, found = jacobian(small, IMAGES)
    one = torch.func.jacrev(lambda image: small(image[None])[0])
    expected = torch.func.vmap(one)(IMAGES)
    _exact(logits, small(IMAGES).detach())
    _exact(found, expected)
    norms = slopes(small, IMAGES, LABELS)
    _exact(norms.frobenius, expected.flatten(1).norm(dim=1))
    _exact(norms.spectral, torch.linalg.matrix_norm(expected.flatten(2), ord=2))


def test_power_iteration_finds_the_largest_singular_value_from_below(small):
    exact = torch.linalg.matrix_norm(jacobian(small, IMAGES)[1].flatten(2), ord=2)
    found = spectral_norm(small, IMAGES, seed=3)
    assert (found <= exact * (1 + 1e-12)).all()
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=0)  # it stops where it grows by less than 1e-4 in a step
    linear = spectral_norm(_linear, IMAGES, seed=3)
    torch.testing.assert_close(linear, torch.linalg.svdvals(WEIGHT)[:1].expand(7), rtol=1e-3, atol=0)
    _exact(spectral_norm(_linear, IMAGES[[5, 2]], seed=3), linear[[5, 2]])  # whatever else is in the batch


@pytest.mark.parametrize(
    "spec",
    [
        Spec(name="lenet", settings={"classes": 300}),
        Spec(name="resnet", settings={"depth": 8, "width": 4, "classes": 300}),
        Spec(name="wide-resnet", settings={"depth": 10, "classes": 300}),
        Spec(name="hidden-layer", settings={"hidden": 30, "classes": 300}),
    ],
)
def test_of_many_classes_norms_are_estimated_and_the_margin_is_exact(spec, monkeypatch):
    network = build(spec, generator("weights", 0)).double().eval()
    images = torch.rand(3, 3, 32, 32, generator=generator("images"), dtype=torch.float64)
    labels = torch.tensor([0, 299, 7])
    found = slopes(network, images, labels)
    monkeypatch.setattr(jacobians, "MANY", 300)
    exact = slopes(network, images, labels)
    for name in ("margin", "gradient_l2", "gradient_l1"):
        torch.testing.assert_close(getattr(found, name), getattr(exact, name), rtol=1e-9, atol=0)
    assert (found.spectral <= exact.spectral * (1 + 1e-9)).all()
    torch.testing.assert_close(found.spectral, exact.spectral, rtol=0.02, atol=0)
    # 100 projections of a Jacobian with few large singular values; 3 standard errors of sqrt(2 / 100) / 2 at most
    torch.testing.assert_close(found.frobenius, exact.frobenius, rtol=3 * (2 / 100) ** 0.5 / 2, atol=0)
    assert not torch.equal(found.frobenius, exact.frobenius)


def test_the_gradient_of_the_margin_is_that_of_autograd_and_the_margin_is_negative_where_an_image_is_wrong(small):
    margin, gradient = margin_gradient(*jacobian(small, IMAGES), LABELS)
    leaves = IMAGES.clone().requires_grad_()
    logits = small(leaves)
    true = logits.gather(1, LABELS[:, None]).squeeze(1)
    expected = true - logits.scatter(1, LABELS[:, None], -torch.inf).amax(dim=1)
    _exact(margin, expected.detach())
    _exact(gradient, torch.autograd.grad(expected.sum(), leaves)[0])
    right = small(IMAGES).argmax(dim=1) == LABELS
    assert 0 < int(right.sum()) < 7
    assert ((margin > 0) == right).all()
    found = slopes(small, IMAGES, LABELS)
    assert ((found.distance_l2 > 0) == right).all()


def test_nothing_of_the_network_or_the_images_is_touched(small):
    images = IMAGES.clone()
    slopes(small, images, LABELS)
    lipschitz(small, images, radius=0.3, steps=2)
    assert all(parameter.grad is None for parameter in small.parameters())
    assert images.grad is None
    assert torch.equal(images, IMAGES)


def test_of_many_classes_a_logit_without_a_path_to_the_image_is_no_slope(monkeypatch):
    monkeypatch.setattr(jacobians, "MANY", 2)
    bias = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    found = slopes(lambda images: bias.expand(len(images), 3), IMAGES, LABELS % 3)
    assert found.spectral.tolist() == found.frobenius.tolist() == found.gradient_l2.tolist() == [0] * 7


@pytest.mark.parametrize("path", [True, False])
def test_without_a_gradient_the_distance_is_infinite(path):
    def flat(images):
        logits = torch.tensor([[0.0, 1.0, 0.5]], dtype=images.dtype).expand(len(images), 3)
        return logits + 0 * images.sum() if path else logits

    found = slopes(flat, IMAGES[:3], torch.tensor([1, 0, 2]))
    assert found.distance_l2.tolist() == [math.inf, -math.inf, -math.inf]
    assert found.gradient_l1.tolist() == found.frobenius.tolist() == found.spectral.tolist() == [0, 0, 0]
    assert spectral_norm(flat, IMAGES).tolist() == [0] * 7
    constant = lambda images: torch.ones(len(images), 3, dtype=images.dtype)  # noqa: E731
    assert lipschitz(constant, IMAGES, radius=0.1).tolist() == [0] * 7


def test_the_lipschitz_bound_of_a_linear_classifier_is_its_spectral_norm():
    found = lipschitz(_linear, IMAGES, radius=0.5, steps=40)
    largest = float(torch.linalg.svdvals(WEIGHT)[0])
    assert (found <= largest * (1 + 1e-12)).all()
    assert (found >= 0.999 * largest).all()
    assert (lipschitz(_linear, IMAGES, radius=0.5, steps=0) < 0.9 * largest).any()  # the random start


def test_the_lipschitz_bound_finds_a_steep_place_away_from_the_image():
    """Along one axis a classifier rises by 1, and by 10 from 0.3 on: between 0 and r the quotient is (10 r - 2.7) / r."""

    def steep(images):
        x = images.flatten(1)[:, 0]
        return torch.stack([x + 9 * (x - 0.3).clamp_min(0), 0 * x], dim=1)

    origin = torch.zeros(5, 3, 2, 2, dtype=torch.float64) + torch.linspace(0, 1e-6, 5).view(5, 1, 1, 1)
    near, far = (lipschitz(steep, origin, radius=radius, steps=60) for radius in (0.2, 0.6))
    torch.testing.assert_close(near, torch.ones(5, dtype=torch.float64), rtol=1e-3, atol=0)  # a search, not a formula
    assert (far <= (6 - 2.7) / 0.6 + 1e-4).all()
    assert float(far.max()) > 0.98 * (6 - 2.7) / 0.6


def test_no_pair_is_nearer_than_a_tenth_of_the_radius_or_farther_than_it(small):
    asked = []

    def watched(images):
        asked.append(images.detach().clone())
        return small(images)

    found = lipschitz(watched, IMAGES, radius=0.4, steps=15, seed=2)
    lengths = torch.stack([(points - IMAGES).flatten(1).norm(dim=1) for points in asked[1:]])
    assert len(lengths) == 16
    assert float(lengths.max()) <= 0.4 * (1 + 1e-12)
    assert float(lengths.min()) >= 0.04 * (1 - 1e-12)
    assert float(lengths.min()) < 0.39  # not all of them at the edge
    quotients = [(small(p) - small(IMAGES)).norm(dim=1) / (p - IMAGES).flatten(1).norm(dim=1) for p in asked[1:]]
    _exact(found, torch.stack(quotients).amax(dim=0).detach())  # the best that was seen, not the last


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
def test_what_is_steepest_at_the_image_itself_is_looked_at_from_a_tenth_of_the_radius(steps):
    """The square root of the distance: its quotient is one over that root, and leads straight to the image."""
    for centres in (IMAGES, IMAGES[:, :1, :1, :1]):  # of one pixel, a step of the radius ends exactly on the image

        def root(images, centres=centres):
            return (images - centres).flatten(1).norm(dim=1, keepdim=True).sqrt()

        found = lipschitz(root, centres, radius=0.4, steps=steps)
        assert (found <= 0.04**-0.5 * (1 + 1e-12)).all()
        assert (found >= 0.4**-0.5 * (1 - 1e-12)).all()
        if steps > 2:
            assert (found > 0.1**-0.5).all()  # within a quarter of the radius


def test_an_image_has_the_same_bound_in_any_batch(small):
    whole = lipschitz(small, IMAGES, radius=0.3, seed=5)
    _exact(lipschitz(small, IMAGES[[4, 1]], radius=0.3, seed=5), whole[[4, 1]])
    starts = [lipschitz(small, IMAGES, radius=0.3, steps=0, seed=seed) for seed in (5, 6)]
    assert not torch.allclose(*starts)
