import pytest
import torch
from torch import nn

from unperturbed import models
from unperturbed.mechanisms.random_features import random_features
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import generator


def test_the_hidden_layer_keeps_the_weights_that_the_undefended_network_begins_with():
    spec = Spec(name="hidden-layer", settings={"hidden": 200})
    network = models.build(spec, generator("weights", 3))
    plain = models.build(spec, generator("weights", 3))
    mechanism = random_features()
    mechanism.install(network)
    assert mechanism.frozen
    assert mechanism.learning is None
    assert not network.hidden.weight.requires_grad
    assert network.hidden.p == 2
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), plain.parameters(), strict=True))
    spread = network.hidden.weight.std() * (3072 / 2) ** 0.5  # variance 2 / inputs
    assert abs(spread - 1) < 4 / (2 * 200 * 3072) ** 0.5  # standard errors


def test_another_model_is_refused():
    with pytest.raises(SpecError, match=r"^random-features: expected the model hidden-layer, got Linear$"):
        random_features().install(nn.Linear(3, 2))
