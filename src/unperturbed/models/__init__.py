"""Networks by name: settings become a classifier from intensities in [0, 1] to logits."""

from collections.abc import Callable

import torch
from torch import nn

from unperturbed.models.fully_connected import fully_connected
from unperturbed.models.hidden_layer import HiddenLayerNet, hidden_layer
from unperturbed.models.imagenet_resnet import imagenet_resnet
from unperturbed.models.initialisation import initialise
from unperturbed.models.lenet import lenet
from unperturbed.models.resnet import resnet
from unperturbed.models.wide_resnet import wide_resnet
from unperturbed.records import Spec
from unperturbed.registry import complete

__all__ = ["MODELS", "HiddenLayerNet", "build", "count_parameters", "outline"]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "lenet": lenet,
    "fully-connected": fully_connected,
    "hidden-layer": hidden_layer,
    "resnet": resnet,
    "imagenet-resnet": imagenet_resnet,
    "wide-resnet": wide_resnet,
}


def build(spec: Spec, generator: torch.Generator) -> nn.Module:
    """Return the named network with initial weights drawn from ``generator``.

    The same generator state gives the same weights whatever the network will be trained on.

    Args:
        spec: a name in ``MODELS`` with settings; defaults are filled in.
        generator: a CPU generator; the global one is not touched.

    Returns:
        A float32 network on the CPU, in training mode: (batch, 3, 32, 32) in [0, 1] to (batch, classes) logits.

    Raises:
        SpecError: unknown name or setting.

    >>> from unperturbed.tensors.streams import generator
    >>> count_parameters(build(Spec(name="lenet"), generator("weights", 0)))
    62006
    """
    return initialise(outline(spec), generator)


def outline(spec: Spec) -> nn.Module:
    """Return the named network without weights, on the meta device: its layers and their shapes, at no cost.

    Raises:
        SpecError: as ``build``.
    """
    full = complete("model", MODELS, spec)
    with torch.device("meta"):
        return MODELS[full.name](**full.settings)


def count_parameters(network: nn.Module) -> int:
    """Return the number of trained values in ``network``."""
    return sum(parameter.numel() for parameter in network.parameters())
