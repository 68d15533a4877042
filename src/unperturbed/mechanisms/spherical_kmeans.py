r"""Spherical k-means: every hidden unit is the mean direction of the images that it answers to most strongly.

Source: Dhillon and Modha (2001), doi:10.1023/A:1007612920971: Lloyd's iteration on the unit sphere, with
:math:`x_b` of Euclidean length 1, :math:`\mu(b) = \arg\max_\mu \langle w_\mu, x_b \rangle` and then
:math:`w_\mu = \sum_{b: \mu(b) = \mu} x_b / \lVert \sum_{b: \mu(b) = \mu} x_b \rVert`.
Begins at images drawn without replacement. A unit that no image belongs to keeps its direction.
It is a control itself, of ``krotov_hopfield``: for p = 2 and Delta = 0 both have the same fixed point, so that what
that rule does beyond it is due to the punished unit, to p, or to learning in small steps. Matched control:
``random_features``.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from unperturbed.mechanisms.contract import OWN_CODES, Learning, Lesson, Mechanism, check_positive
from unperturbed.mechanisms.installing import hidden_layered
from unperturbed.records import SpecError
from unperturbed.tensors.streams import generator

NAME = "spherical-kmeans"
AT_ONCE = 1000  # inputs in a step


def spherical_kmeans(*, epochs: int = 20) -> Mechanism:
    """Return a hidden layer of mean directions, which is frozen; gradient descent trains the readout alone.

    Args:
        epochs: iterations of Lloyd, each over all training images.

    Raises:
        SpecError: no epochs; when it is installed, if the network has no single hidden layer; when it learns, if there
            are more units than images.
    """
    check_positive(NAME, epochs=epochs)

    def install(network: nn.Module) -> None:
        hidden = hidden_layered(network, NAME).hidden
        hidden.p = 2.0
        hidden.weight.requires_grad_(False)

    def begin(_network: nn.Module, _seed: int) -> None:
        """Nothing: where it begins is among the images, which the first epoch has."""

    def epoch(networks: Sequence[nn.Module], lesson: Lesson) -> None:
        layers = [hidden_layered(network, NAME).hidden for network in networks]
        inputs = F.normalize(lesson.inputs.to(layers[0].weight), dim=1)
        directions = [layer.raw() for layer in layers]
        if lesson.epoch == 1:
            directions = [
                _begun(inputs, layer.out_features, seed) for layer, seed in zip(layers, lesson.seeds, strict=True)
            ]
        sums = [torch.zeros_like(each) for each in directions]
        for batch in inputs.split(AT_ONCE):
            for each, total in zip(directions, sums, strict=True):
                total.index_add_(0, (batch @ each.T).argmax(dim=1), batch)
            lesson.look(len(batch))
        for layer, each, total in zip(layers, directions, sums, strict=True):
            length = torch.linalg.vector_norm(total, dim=1, keepdim=True)
            layer.put(torch.where(length > 0, F.normalize(total, dim=1), each))

    def facts(_network: nn.Module) -> Mapping[str, float]:
        return {}

    return Mechanism(install=install, alone=OWN_CODES, learning=Learning(epochs, begin, epoch, facts), frozen=True)


def _begun(inputs: Tensor, units: int, seed: int) -> Tensor:
    """Return the images at which the iteration begins, (units, inputs)."""
    if units > len(inputs):
        raise SpecError(f"{NAME}: expected at least as many images as the {units} units, got {len(inputs)}")
    drawn = torch.randperm(len(inputs), generator=generator("directions", seed))[:units]
    return inputs[drawn.to(inputs.device)]
