import pytest
import torch

from unperturbed import models
from unperturbed.mechanisms.rectified_power import rectified_power
from unperturbed.models.hidden_layer import RectifiedPower
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import generator

IMAGES = torch.rand(6, 3, 32, 32, generator=generator("images"), dtype=torch.float64)


@pytest.mark.parametrize("power", [1.0, 1.5, 4.5, 10.0])
def test_activity_is_the_power_of_the_rectified_current(power):
    network = models.build(Spec(name="hidden-layer", settings={"hidden": 40}), generator("weights", 0)).double()
    currents = network.hidden(network.inputs(IMAGES))
    assert (currents < 0).any()
    rectified_power(power=power).install(network)
    expected = torch.where(currents > 0, currents.abs() ** power, 0)
    torch.testing.assert_close(network.code(IMAGES), expected, rtol=1e-12, atol=0)  # rounding of a power


@pytest.mark.parametrize("power", [1.0, 1.5, 4.5])
def test_silent_units_have_no_gradient_and_not_one_that_is_no_number(power):
    activation = RectifiedPower()
    activation.power = power
    currents = torch.tensor([-1.0, 0.0, 2.0]).requires_grad_()
    activation(currents).sum().backward()
    torch.testing.assert_close(currents.grad, torch.tensor([0.0, 0.0, power * 2 ** (power - 1)]))


def test_without_a_value_it_is_the_published_power():
    network = models.build(Spec(name="hidden-layer", settings={"hidden": 4}), generator("weights", 0))
    rectified_power().install(network)
    assert network.activation.power == 4.5


@pytest.mark.parametrize("power", [0.9, -1.0, float("nan")])
def test_a_power_that_is_none_is_refused(power):
    with pytest.raises(SpecError, match=rf"^rectified-power: power must be at least 1, got {power:g}$"):
        rectified_power(power=power)
