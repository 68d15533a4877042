r"""Parametric noise injection: noise whose strength is learned, in weights, activations or the input.

Source: Rakin, He and Fan (2019), arXiv:1811.09310, equations 3 to 5: :math:`\tilde v = v + \alpha\,\eta`,
:math:`\eta \sim N(0, \sigma^2)` with :math:`\sigma` the standard deviation of :math:`v`, taken anew at every pass and
without a gradient; :math:`\alpha` starts at 0.25, is learned, and does not decay. The loss there is half that of clean
and half that of adversarial images (``half_adversarial``). Noise is drawn at inference too, and while the network is
attacked. The names there: PNI-W (``weights``), PNI-A-a (``activations``: behind the rectifier), PNI-A-b
(``block-input``) and PNI-I (``input``); two of them compose.
In the nervous system: synapses release by chance; the release probability differs between synapses and is learned.
Departs from the source: adversarial images are made against the true labels unless ``own_answers`` is set, and no
epochs train on clean images only unless ``clean_start`` says so; there the first 5 of 160 do.
Matched controls: ``learned=False`` (the same noise, fixed), Gaussian noise on the input (``where="input"``),
``dropout`` (noise of another shape), and the same network with the switch off (``active = False``).
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from unperturbed.mechanisms.contract import ATTACKS, DRAWS, Loss, Mechanism, Tools, Traits, check_positive
from unperturbed.mechanisms.installing import behind, in_front, kept_weight, weighted
from unperturbed.records import SpecError

Where = Literal["weights", "activations", "block-input", "input"]
Granularity = Literal["layer", "channel", "element"]


class Noise(nn.Module):
    """A tensor plus Gaussian noise of ``alpha`` times its standard deviation.

    ``active`` is the switch; training and evaluation mode do not change it. ``alpha`` may become negative: its sign
    means nothing.
    """

    def __init__(self, shape: tuple[int, ...], alpha: float, *, learned: bool) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full(shape, alpha), requires_grad=learned)
        self.alpha.decays = False  # pyright: ignore[reportAttributeAccessIssue] - read by the optimiser
        self.active = True

    def forward(self, value: Tensor) -> Tensor:
        """Return the noisy tensor, or the same one where the switch is off."""
        if not self.active:
            return value
        deviation = value.detach().std(correction=0)
        return value + self.alpha * deviation * torch.randn_like(value)


def noise_injection(
    *,
    where: Where = "weights",
    granularity: Granularity = "layer",
    alpha: float = 0.25,
    learned: bool = True,
) -> Mechanism:
    """Return noise in every layer of the network.

    Args:
        where: in the weights of convolutions and full layers, behind every rectifier, on what enters a convolution or
            full layer (into the first one, the image), or on the image alone.
        granularity: one alpha for each layer, each output channel, or each weight; beyond ``layer`` for weights only.
        alpha: its first value, as a fraction of the standard deviation of what is disturbed.
        learned: whether it is trained.

    Raises:
        SpecError: a granularity that is not defined there; when it is installed, if the network has no such layers.
    """
    if granularity != "layer" and where != "weights":
        raise SpecError(f"noise-injection: granularity {granularity!r} is defined for weights; {where} take 'layer'")

    def install(network: nn.Module) -> None:
        if where == "input":
            in_front(network, "input_noise", Noise((1,), alpha, learned=learned))
        elif where == "activations":
            behind(network, nn.ReLU, "noise", lambda: Noise((1,), alpha, learned=learned))
        elif where == "block-input":
            for layer in weighted(network, "noise-injection"):
                in_front(layer, "input_noise", Noise((1,), alpha, learned=learned).to(kept_weight(layer)))
        else:
            for layer in weighted(network, "noise-injection"):
                weight = kept_weight(layer)
                noise = Noise(_shape(weight, granularity), alpha, learned=learned).to(weight)
                parametrize.register_parametrization(layer, "weight", noise, unsafe=True)  # the check would draw

    return Mechanism(install=install, traits=Traits(random=True), alone=DRAWS)


def half_adversarial(
    *,
    eps: float = 8 / 255,
    steps: int = 7,
    step_size: float = 0.01,
    own_answers: bool = False,
    clean_start: float = 0.0,
) -> Mechanism:
    """Return the loss of the source: half that of the clean images, half that of adversarial ones.

    Args:
        eps: radius of the Linf ball, as a fraction of full scale.
        steps: gradients per image and step of training.
        step_size: change of intensity per step.
        own_answers: whether adversarial images lead away from what the network says of the clean ones, as in the
            source, and not from the true labels; the loss is taken at the true labels either way.
        clean_start: share of the training, from 0 to 1, that begins it on clean images only; 5/160 in the source.

    Raises:
        SpecError: a ball, step or number of steps that is not above 0, ``clean_start`` outside 0 to 1.
    """
    check_positive("half-adversarial", eps=eps, steps=steps, step_size=step_size)
    if not 0 <= clean_start <= 1:
        raise SpecError(f"half-adversarial: clean_start must lie between 0 and 1, got {clean_start:g}")

    def objective(loss: Loss, tools: Tools) -> Loss:
        def both(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            if tools.done <= clean_start:
                return loss(network, images, labels)
            aims = _answers(network, images, tools) if own_answers else labels
            worst = tools.worst(network, images, aims, "pgd", eps=eps, steps=steps, step_size=step_size, persist=True)
            return (loss(network, images, labels) + loss(network, worst, labels)) / 2

        return both

    return Mechanism(objective=objective, alone=ATTACKS)


def _answers(network: nn.Module, images: Tensor, tools: Tools) -> Tensor:
    with tools.attacking(network), torch.no_grad():
        return network(images).argmax(dim=1)


def _shape(weight: Tensor, granularity: Granularity) -> tuple[int, ...]:
    if granularity == "layer":
        return (1,) * weight.ndim
    if granularity == "channel":
        return (len(weight), *(1,) * (weight.ndim - 1))
    return tuple(weight.shape)
