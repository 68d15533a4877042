import math

import pytest
import torch

from unperturbed import mechanisms, models
from unperturbed.mechanisms import NOTHING, Tools
from unperturbed.mechanisms.tanh_readout import tanh_readout
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import generator

CODES = torch.rand(7, 30, generator=generator("codes"), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 2, 1, 0, 1])


def _network():
    spec = Spec(name="hidden-layer", settings={"hidden": 30, "classes": 3})
    return models.build(spec, generator("weights", 0)).double()


def _losses(mechanism, network):
    tools = Tools(lambda *_, **__: None, 0, NOTHING.attacked)
    return mechanism.objective(lambda *_: pytest.fail("the loss that stood there"), tools)(network, CODES, LABELS)


@pytest.mark.parametrize(("beta", "m"), [(1.0, 6.0), (0.01, 6.0), (3.0, 1.0), (2.0, 3.5)])
def test_answers_and_loss_are_those_of_the_equation(beta, m):
    mechanism, network = tanh_readout(beta=beta, m=m), _network()
    weight = network.readout.weight.detach().clone()
    mechanism.install(network)
    losses = _losses(mechanism, network.readout)  # as it is called where the hidden layer is frozen
    for code, label, loss in zip(CODES, LABELS, losses, strict=True):
        answers = [math.tanh(beta * float(row @ code)) for row in weight]
        targets = [1 if alpha == label else -1 for alpha in range(3)]
        expected = sum(abs(c - t) ** m for c, t in zip(answers, targets, strict=True))
        assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_it_begins_with_the_weights_of_the_linear_readout_without_bias():
    mechanism, network = tanh_readout(), _network()
    weight = network.readout.weight.detach().clone()
    mechanism.install(network)
    assert [name for name, _ in network.readout.named_parameters()] == ["weight"]
    assert torch.equal(network.readout.weight, weight)
    assert network.readout.weight.requires_grad
    torch.testing.assert_close(network.readout(CODES), torch.tanh(CODES @ weight.T), rtol=1e-12, atol=0)


def test_the_gradient_is_that_of_the_equation():
    mechanism, network = tanh_readout(beta=0.7), _network()
    mechanism.install(network)
    _losses(mechanism, network.readout).sum().backward()
    c = torch.tanh(0.7 * CODES @ network.readout.weight.detach().T)
    t = 2 * torch.nn.functional.one_hot(LABELS, 3) - 1
    error = 6 * (c - t).abs() ** 5 * (c - t).sign() * (1 - c**2) * 0.7
    torch.testing.assert_close(network.readout.weight.grad, error.T @ CODES, rtol=1e-10, atol=1e-12)  # float64


def test_a_readout_that_is_not_linear_is_refused():
    built = mechanisms.build([Spec(name="spectral-regularisation"), Spec(name="tanh-readout")])
    with pytest.raises(SpecError, match=r"^tanh-readout: expected a linear readout, got Sequential: name it first$"):
        built.install(_network())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, "tanh-readout: beta must be above 0, got 0"),
        ({"m": 0.9}, "tanh-readout: m must be at least 1, got 0.9"),
        ({"m": float("nan")}, "tanh-readout: m must be at least 1, got nan"),
    ],
)
def test_settings_that_are_none_are_refused(settings, message):
    with pytest.raises(SpecError, match=f"^{message}$"):
        tanh_readout(**settings)
