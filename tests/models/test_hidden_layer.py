"""One hidden layer between vectors of unit length and a readout."""

import math

import pytest
import torch

from unperturbed.models import build, count_parameters
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import generator


def network(**settings):
    return build(Spec(name="hidden-layer", settings={"hidden": 12, **settings}), generator("weights", 0)).double()


def images(count=3):
    return torch.rand(count, 3, 32, 32, generator=generator("images")).double()


@pytest.mark.parametrize("order", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("brightness", [1.0, 1e-3])
def test_every_input_has_length_one_whatever_the_brightness(order, brightness):
    vectors = network(order=order).inputs(brightness * images())
    lengths = vectors.pow(order).sum(dim=1).pow(1 / order)
    torch.testing.assert_close(lengths, torch.ones(3).double(), rtol=0, atol=1e-14)  # float64
    torch.testing.assert_close(vectors, network(order=order).inputs(images()), rtol=0, atol=1e-14)


def test_dark_images_keep_their_length_in_single_precision():
    vectors = network().float().inputs(1e-20 * images().float())  # the cube of an intensity would be 0
    torch.testing.assert_close(vectors.pow(3).sum(dim=1), torch.ones(3), rtol=0, atol=1e-5)
    assert (network().inputs(torch.zeros(1, 3, 32, 32).double()) == 0).all()


def test_the_gradient_goes_through_the_length():
    model = network()
    point = images(1).requires_grad_()
    (slope,) = torch.autograd.grad(model(point)[0, 3], point)
    assert torch.autograd.gradcheck(
        lambda x: model(x)[0, 3], (images(1).requires_grad_(),), nondet_tol=0.0, fast_mode=True
    )
    assert abs(float((slope * images(1)).sum())) < 1e-12  # brightness changes nothing


def test_grey_is_the_mean_of_the_colours():
    model = network(grey=True, order=0)
    assert model.hidden.weight.shape == (12, 1024)
    torch.testing.assert_close(model.inputs(images()), images().mean(dim=1).flatten(1), rtol=0, atol=0)
    assert count_parameters(network()) == 12 * 3072 + 12 * 10 + 10


def test_the_logits_are_those_of_the_equations():
    model = network()
    model.activation.power = 4.5
    vectors = images().flatten(1)
    vectors = vectors / vectors.pow(3).sum(dim=1, keepdim=True).pow(1 / 3)
    currents = vectors @ model.hidden.weight.T
    expected = currents.clamp(min=0).pow(4.5) @ model.readout.weight.T + model.readout.bias
    torch.testing.assert_close(model(images()), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("p", [2.0, 3.0, 4.5])
def test_synapses_are_what_a_rule_with_exponent_p_put_there(p):
    layer = network().hidden
    layer.p = p
    synapses = torch.randn(12, 3072, generator=generator("w"), dtype=torch.float64)
    layer.put(synapses)
    torch.testing.assert_close(layer.weight.detach(), synapses.sign() * synapses.abs() ** (p - 1), rtol=1e-14, atol=0)
    torch.testing.assert_close(layer.raw(), synapses, rtol=1e-13, atol=0)


def test_initial_weights_have_the_variance_of_he():
    weight = build(Spec(name="hidden-layer", settings={"hidden": 400}), generator("weights", 0)).hidden.weight
    # the standard error of the mean square of 1.2 million normal numbers is 0.13 %
    assert float(weight.detach().double().pow(2).mean()) * 3072 / 2 == pytest.approx(
        1.0, abs=5 * math.sqrt(2 / weight.numel())
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 0}, "hidden-layer: hidden must be at least 1, got 0"),
        ({"order": 0.5}, "hidden-layer: order must be 0 or at least 1, got 0.5"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(SpecError) as caught:
        network(**settings)
    assert str(caught.value) == message
