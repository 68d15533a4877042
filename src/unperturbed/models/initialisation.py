r"""PyTorch's default initial weights, drawn from a generator that is passed in.

Source: ``torch.nn`` 2.x, ``reset_parameters`` of ``Linear``, ``Conv2d`` and ``BatchNorm2d``: weights and biases uniform
in :math:`\pm 1/\sqrt{\text{fan in}}`; batch normalisation starts as the identity. ``he-out`` follows He et al. (2015),
arXiv:1502.01852, equation 14 with the fan out, as torchvision's ResNets do; ``he-in`` its equation 10, with the fan in.
"""

import math

import torch
from torch import nn


def initialise(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """Return ``network``, moved off the meta device, with initial weights from ``generator``, layer by layer.

    In a network with the attribute ``start = "he-out"`` the weights of convolutions are normal, variance 2 / fan out;
    with ``start = "he-in"`` those of full layers without bias, variance 2 / fan in.

    Raises:
        TypeError: a layer with parameters of its own that has no rule here.
    """
    network = network.to_empty(device="cpu")
    start = getattr(network, "start", "default")
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            fan_in = layer.weight[0].numel()
            if start == "he-out" and isinstance(layer, nn.Conv2d):
                fan_out = layer.weight.shape[0] * layer.weight[0, 0].numel()
                nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / fan_out), generator=generator)
            elif start == "he-in" and len(list(layer.parameters())) == 1:  # no bias
                nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / fan_in), generator=generator)
            else:
                nn.init.uniform_(layer.weight, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif next(layer.parameters(recurse=False), None) is not None:
            raise TypeError(f"No rule for the initial weights of {type(layer).__name__}.")
    return network
