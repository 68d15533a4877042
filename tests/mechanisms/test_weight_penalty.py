import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from unperturbed import mechanisms, models
from unperturbed.mechanisms import NOTHING, Tools
from unperturbed.mechanisms.weight_penalty import weight_penalty
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import generator

IMAGES = torch.rand(5, 3, 32, 32, generator=generator("images"), dtype=torch.float64)
LABELS = torch.arange(5)
TOOLS = Tools(lambda *_, **__: None, 0, NOTHING.attacked)


def _cross_entropy(network, images, labels):
    return F.cross_entropy(network(images), labels, reduction="none")


def _network():
    return models.build(Spec(name="hidden-layer", settings={"hidden": 8}), generator("weights", 0)).double()


def test_every_loss_grows_by_the_squares_of_all_parameters():
    network = _network()
    losses = weight_penalty(strength=0.3).objective(_cross_entropy, TOOLS)(network, IMAGES, LABELS)
    squares = sum((each**2).sum().item() for each in network.parameters())
    assert squares > 1
    expected = _cross_entropy(network, IMAGES, LABELS) + 0.3 * squares
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=0)


def test_its_gradient_is_that_of_a_weight_decay_twice_as_strong():
    network = _network()
    weight_penalty(strength=0.05).objective(_cross_entropy, TOOLS)(network, IMAGES, LABELS).mean().backward()
    with_penalty = [each.grad.clone() for each in network.parameters()]
    network.zero_grad()
    _cross_entropy(network, IMAGES, LABELS).mean().backward()
    for found, each in zip(with_penalty, network.parameters(), strict=True):
        torch.testing.assert_close(found, each.grad + 2 * 0.05 * each.detach(), rtol=1e-10, atol=1e-14)  # float64


def test_what_is_frozen_does_not_count():
    network = _network()
    both = mechanisms.build([Spec(name="random-features"), Spec(name="weight-penalty", settings={"strength": 1.0})])
    both.install(network)
    losses = both.objective(_cross_entropy, TOOLS)(network, IMAGES, LABELS)
    squares = network.readout.weight.square().sum() + network.readout.bias.square().sum()
    torch.testing.assert_close(losses, _cross_entropy(network, IMAGES, LABELS) + squares, rtol=1e-12, atol=0)


def test_a_strength_that_is_none_is_refused():
    with pytest.raises(SpecError, match=r"^weight-penalty: strength must be above 0, got -1$"):
        weight_penalty(strength=-1.0)
