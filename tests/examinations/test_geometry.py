import math

import numpy as np
import pytest
import torch
from torch import nn

from unperturbed.examinations import EXAMINATIONS, Subject
from unperturbed.measures.jacobians import slopes
from unperturbed.models import build
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import generator

geometry = EXAMINATIONS["geometry"]

WEIGHT = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
IMAGES = torch.rand(30, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def _linear(**rest):
    """A linear classifier in two layers: the hidden one is as it stands, and all its units are far from 0."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Identity(), nn.Linear(4, 4, bias=False))
    network[1].weight.data, network[1].bias.data = WEIGHT, torch.full((4,), 100.0)
    network[3].weight.data = torch.eye(4)
    labels = network(IMAGES).argmax(dim=1)
    return Subject(network.eval(), IMAGES, labels, seed=0)._replace(**rest)


def test_of_a_linear_network_everything_is_known(values):
    found = geometry(_linear(), radius=0.4, steps=30, directions=12)
    expected = slopes(_linear().network, IMAGES, _linear().labels)
    measures = values(found)
    assert measures == {
        "jacobian_frobenius": pytest.approx(float(WEIGHT.norm()), rel=1e-5),
        "jacobian_spectral": pytest.approx(float(torch.linalg.svdvals(WEIGHT)[0]), rel=1e-5),
        "margin_gradient": pytest.approx(float(expected.gradient_l2.mean()), rel=1e-6),
        "zero_gradients": 0.0,
        "lipschitz": pytest.approx(float(torch.linalg.svdvals(WEIGHT)[0]), rel=1e-3),
        "local_complexity": 0.0,
        "first_order_distance": pytest.approx(float(np.median(expected.distance_l2.numpy())), rel=1e-6),
    }
    np.testing.assert_allclose(found.arrays["distance_linf"], expected.distance_linf.numpy(), rtol=1e-6)
    np.testing.assert_allclose(found.arrays["margin_gradient_l1"], expected.gradient_l1.numpy(), rtol=1e-6)
    assert all(array.shape == (30,) for array in found.arrays.values())
    # One to look at the answers, one for the Jacobian, one and 31 for the ball, two for each of twelve directions.
    assert found.forwards == 30 * (1 + 1 + 1 + 31 + 24)
    assert found.backwards == 30 * (4 + 30)


def test_the_distance_is_the_median_of_what_is_right(values):
    subject = _linear()
    wrong = subject.labels.clone()
    wrong[:10] = (wrong[:10] + 1) % 4
    found = geometry(subject._replace(labels=wrong), steps=0, directions=1)
    right = slopes(subject.network, IMAGES, subject.labels).distance_l2[10:]
    assert values(found)["first_order_distance"] == pytest.approx(float(np.median(right.numpy())), rel=1e-6)
    assert (found.arrays["distance_l2"][:10] < 0).all()
    none = geometry(subject._replace(labels=(subject.labels + 1) % 4), steps=0, directions=1)
    assert "first_order_distance" not in values(none)


def test_without_a_gradient_there_is_no_distance(values):
    """A step has no slope but at the step: two of three images."""

    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(12, 2), nn.Linear(2, 2)

        def forward(self, images):
            bright = images.flatten(1).mean(dim=1)
            slope = torch.where(bright > 0.7, bright, bright.detach())
            return torch.stack([slope, -slope], dim=1) + 0 * self.two(self.one(images.flatten(1)))

    images = torch.tensor([0.2, 0.3, 0.9]).view(3, 1, 1, 1).expand(3, 3, 2, 2).contiguous()
    found = geometry(Subject(Steps(), images, torch.zeros(3, dtype=torch.long), seed=0), steps=1, directions=1)
    assert values(found)["zero_gradients"] == pytest.approx(2 / 3)
    assert found.arrays["distance_l2"].tolist()[:2] == [math.inf, math.inf]
    assert "first_order_distance" not in values(found)


def test_the_units_that_switch_are_those_of_the_layer_that_is_named(values):
    """One unit at the image itself switches however near the vertices are."""
    subject = _linear()
    subject.network[1].bias.data[2] = -float(WEIGHT[2] @ IMAGES[0].flatten())
    at = subject._replace(images=IMAGES[:1], labels=subject.labels[:1])
    assert values(geometry(at, hull=1e-3, steps=0, directions=6))["local_complexity"] == 1
    assert values(geometry(at, hull=1e-3, steps=0, directions=6, layer="0"))["local_complexity"] == 0
    assert values(geometry(at, hull=1e3, steps=0, directions=12))["local_complexity"] == 4


def test_random_starts_and_directions_belong_to_the_seed():
    subject = _linear()
    subject.network[1].bias.data.zero_()
    one, same, other = (
        geometry(subject._replace(seed=seed), steps=0, hull=0.3, directions=2).arrays for seed in (0, 0, 1)
    )
    for name in ("lipschitz", "local_complexity"):
        np.testing.assert_array_equal(one[name], same[name])
        assert not np.array_equal(one[name], other[name])


def test_a_random_network_is_one_function_wherever_it_is_asked(values):
    """Noise of the size of the logits, drawn anew, would be a slope of hundreds at such distances."""

    class Noisy(nn.Module):
        def __init__(self, whole):
            super().__init__()
            self.whole = whole

        def forward(self, images):
            logits = self.whole(images)
            return logits + torch.randn_like(logits)

    plain = _linear()
    noisy = plain._replace(network=Noisy(plain.network), random=True)
    settings = {"radius": 0.05, "steps": 30, "directions": 2}
    one, other = (values(geometry(subject, **settings)) for subject in (plain, noisy))
    for name in ("jacobian_frobenius", "jacobian_spectral", "lipschitz"):
        assert other[name] == pytest.approx(one[name], rel=1e-2)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("model", ["lenet", "fully-connected", "hidden-layer"])
def test_networks_of_the_lab(model, values):
    settings = {} if model == "lenet" else {"hidden": 40}
    network = build(Spec(name=model, settings=settings), generator("weights", 0)).eval()
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    subject = Subject(network, images, network(images).argmax(dim=1), seed=0)
    found = geometry(subject, steps=5, directions=3)
    measures = values(found)
    assert measures["lipschitz"] == np.median(found.arrays["lipschitz"]) < found.arrays["lipschitz"].max()
    assert measures["jacobian_spectral"] <= measures["jacobian_frobenius"]
    assert measures["jacobian_frobenius"] <= 10**0.5 * measures["jacobian_spectral"]
    assert measures["first_order_distance"] > 0
    assert measures["zero_gradients"] == 0


@pytest.mark.parametrize("wrong", [{"radius": 0.0}, {"hull": 0.0}, {"steps": -1}])
def test_settings_without_a_meaning_are_refused(wrong):
    settings = {"radius": 0.25, "hull": 0.005, "steps": 20} | wrong
    said = "radius and hull above 0 and steps of at least 0; got {radius:g}, {hull:g} and {steps}".format(**settings)
    with pytest.raises(SpecError, match=said):
        geometry(_linear(), **settings)
    with pytest.raises(SpecError, match="directions: expected 1 to 12, the numbers of an image; got 13"):
        geometry(_linear(), directions=13, steps=0)
    with pytest.raises(SpecError, match=r"labels: expected 0 to 3, as the classifier has 4 classes"):
        geometry(_linear(labels=torch.full((30,), 7)))
