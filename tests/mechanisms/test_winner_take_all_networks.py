"""Winner-take-all in wide residual networks: every mode, the gradient of the relaxation, several draws."""

from typing import get_args

import pytest
import torch

from unperturbed import mechanisms, models
from unperturbed.mechanisms.winner_take_all import Mode, WinnerTakeAll, winner_take_all
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import generator, undisturbed

IMAGES = torch.rand(4, 3, 16, 16, generator=generator("images"))


def _network(depth=10, widen=1, **settings):
    mechanism = winner_take_all(**settings)
    network = models.build(Spec(name="wide-resnet", settings={"depth": depth, "widen": widen}), generator("weights", 0))
    mechanism.install(network)
    return mechanism, network.eval()


def _answer(network, images, word="draws"):
    with undisturbed(word):
        return network(images)


@pytest.mark.parametrize("units", [2, 4])
@pytest.mark.parametrize("mode", get_args(Mode))
def test_every_mode_runs_in_the_published_network(units, mode):
    """WideResNet-34-1: an error of a width shows in the first pass, one of a gradient in the first layer."""
    mechanism, network = _network(depth=34, units=units, mode=mode)
    layers = [layer for layer in network.modules() if isinstance(layer, WinnerTakeAll)]
    assert len(layers) == 31  # two for each of the 15 blocks, and one before the mean
    assert sum(parameter.numel() for parameter in network.parameters()) == 466_714  # competition has none
    images = IMAGES[:2].clone().requires_grad_()
    logits = _answer(network, images)
    assert logits.shape == (2, 10)
    (gradient,) = torch.autograd.grad(logits.logsumexp(dim=1).sum(), images)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    assert torch.equal(logits, _answer(network, images))
    assert torch.equal(logits, _answer(network, images, "other draws")) != mechanism.traits.random


@pytest.mark.parametrize("units", [2, 4])
def test_competition_works_in_full_layers(units):
    network = models.build(Spec(name="fully-connected", settings={"hidden": 16}), generator("weights", 0))
    winner_take_all(units=units, mode="straight-through").install(network)
    found = []
    network.relu.register_forward_hook(lambda layer, arguments, out: found.append((arguments[0], out)))
    _answer(network, torch.rand(5, 3, 32, 32, generator=generator("images")))
    hidden, out = (tensor.unflatten(1, (-1, units)) for tensor in found[0])
    assert ((out != 0).sum(dim=2) == 1).all()
    assert torch.equal(out[out != 0], hidden[out != 0])


@pytest.mark.parametrize("units", [2, 4])
@pytest.mark.parametrize("mode", ["sampled", "expected", "relu-noise"])
def test_the_gradient_of_the_relaxation_is_that_of_finite_differences(units, mode):
    _, network = _network(units=units, mode=mode)
    network = network.double()
    images, way = IMAGES.double().requires_grad_(), torch.randn(IMAGES.shape, generator=generator("way")).double()
    weight = network.blocks[0].conv1.weight
    to = torch.randn(weight.shape, generator=generator("to")).double()

    def loss(images):
        return _answer(network, images).log_softmax(dim=1)[:, 0].sum()

    by_image, by_weight = torch.autograd.grad(loss(images), (images, weight))
    step = 1e-6
    with torch.no_grad():
        difference = (loss(images + step * way) - loss(images - step * way)) / (2 * step)
        ends = []
        for sign in (1, -2):
            weight += sign * step * to
            ends.append(loss(images))
    # The error of a central difference is of the order of step**2 and of rounding / step, 1e-10 of the loss.
    torch.testing.assert_close((by_image * way).sum(), difference, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close((by_weight * to).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-7)


def test_the_hard_choice_has_the_gradient_of_the_relaxation():
    hidden = torch.randn(6, 8, dtype=torch.float64, generator=generator("hidden")).requires_grad_()
    gradients = []
    for mode in ("sampled", "straight-through"):
        with undisturbed("same winners"):
            layer = WinnerTakeAll(2, 0.67, mode)
            blocks = hidden.unflatten(1, (-1, 2))
            gradients.append(torch.autograd.grad((layer._winners(blocks) * blocks.detach()).sum(), hidden)[0])
    torch.testing.assert_close(*gradients)


def test_several_draws_answer_with_their_mean_probability():
    mechanism, network = _network(draws=3, deployed_temperature=0.67)
    one = _network()[1]
    torch.testing.assert_close(_answer(network, IMAGES), _answer(one, IMAGES), rtol=0, atol=0)  # while training: one
    mechanism.finish(network)
    found = _answer(network, IMAGES)
    each = _answer(one, IMAGES.repeat(3, 1, 1, 1)).softmax(dim=1).view(3, 4, 10)
    torch.testing.assert_close(found, each.mean(dim=0).log())
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(4))
    assert (each[0] - each[1]).abs().max() > 1e-3


def test_more_draws_vary_less():
    spread = {}
    for draws in (1, 16):
        mechanism, network = _network(draws=draws)
        mechanism.finish(network)
        with torch.no_grad():
            answers = torch.stack([_answer(network, IMAGES, str(turn)).softmax(dim=1) for turn in range(16)])
        spread[draws] = answers.var(dim=0).mean()
    assert spread[16] < spread[1] / 8  # 1/16, and what 16 turns leave open


def test_one_draw_adds_nothing_to_the_network():
    names = [name for name, _ in _network()[1].named_modules()]
    assert not any("draws" in name for name in names)


def test_draws_of_winners_and_of_noisy_images_average_once_each():
    mechanism = mechanisms.build(
        [
            Spec(name="winner-take-all", settings={"mode": "expected", "draws": 3}),
            Spec(name="randomised-smoothing", settings={"draws": 2, "sigma": 1e-9}),
        ]
    )
    network = models.build(Spec(name="wide-resnet", settings={"depth": 10}), generator("weights", 0))
    mechanism.install(network)
    mechanism.finish(network.eval())
    batches = []
    network.conv1.register_forward_pre_hook(lambda _, arguments: batches.append(len(arguments[0])))
    with torch.no_grad():
        found = _answer(network, IMAGES)
    assert batches == [6 * len(IMAGES)]
    plain = _network(mode="expected", temperature=0.01)[1]
    torch.testing.assert_close(found, _answer(plain, IMAGES).log_softmax(dim=1), rtol=1e-4, atol=1e-4)  # of sigma


def test_widths_that_units_do_not_divide_are_one_line():
    _, network = _network(units=3)
    with pytest.raises(
        SpecError,
        match=r"16 channels cannot be divided into blocks of 3; choose .* every layer, this one: 2, 4, 8, 16$",
    ):
        network(IMAGES)
