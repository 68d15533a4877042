import pytest
import torch
from torch import nn

from unperturbed import models
from unperturbed.mechanisms.dropout import Dropout, dropout
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import generator, undisturbed

IMAGES = torch.rand(4, 3, 32, 32, generator=generator("images"))


def _network(**settings):
    mechanism = dropout(**settings)
    network = models.build(Spec(name="lenet"), generator("weights", 0))
    plain = network(IMAGES)
    mechanism.install(network)
    return mechanism, network, plain


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_activations_are_dropped_at_the_rate_and_the_others_grow_to_the_same_mean(rate):
    hidden = torch.full((40_000,), 3.0)
    with undisturbed("drop"):
        left = Dropout(rate)(hidden)
    dropped = (left == 0).double().mean()
    assert (dropped - rate).abs() < 4 * (rate * (1 - rate) / len(hidden)) ** 0.5  # standard errors
    torch.testing.assert_close(left[left != 0], torch.full_like(left[left != 0], 3.0 / (1 - rate)))


def test_the_gradient_is_that_of_what_is_left():
    hidden = torch.randn(50, generator=generator("hidden")).requires_grad_()
    with undisturbed("drop"):
        left = Dropout(0.5)(hidden)
    left.sum().backward()
    torch.testing.assert_close(hidden.grad, torch.where(left == 0, 0.0, 2.0))


@pytest.mark.parametrize("mode", [True, False])
def test_it_ends_with_training_unless_it_is_deployed(mode):
    for deployed in (False, True):
        mechanism, network, plain = _network(deployed=deployed)
        network.train(mode)
        assert not torch.equal(network(IMAGES), network(IMAGES))  # the mode of the module changes nothing
        with mechanism.attacked(network):
            assert torch.equal(network(IMAGES), plain) != deployed
        assert not torch.equal(network(IMAGES), plain)
        mechanism.finish(network)
        assert torch.equal(network(IMAGES), plain) != deployed
        assert mechanism.traits.random == deployed


def test_without_a_rate_nothing_is_dropped():
    mechanism, network, plain = _network(rate=0.0, deployed=True)
    assert torch.equal(network(IMAGES), plain)
    assert not mechanism.traits.random


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(SpecError, match=f"dropout: rate must be at least 0 and below 1, got {rate:g}"):
        dropout(rate=rate)
    with pytest.raises(SpecError, match="expected a network with ReLU modules"):
        dropout().install(nn.Sequential(nn.Linear(2, 2)))
