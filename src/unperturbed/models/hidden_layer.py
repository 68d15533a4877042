r"""One hidden layer between images of unit length and a linear readout, the network in which local learning is studied.

Source: Holzhausen et al. (2024), arXiv:2405.00679, and its code: every image is divided by its own :math:`L^3` norm,
2,000 hidden units without bias, rectified, and a linear readout to ten classes. With the metric of Krotov and Hopfield
(2019), arXiv:1806.10181, the current into unit :math:`\mu` is
:math:`\sum_i \mathrm{sgn}(W_{\mu i}) |W_{\mu i}|^{p-1} v_i`; for :math:`p = 2` that is :math:`W v`.

Departs from the source: the norm is taken inside the network, so that an attack changes intensities and the length
stays 1; an image that is black everywhere stays 0.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unperturbed.records import SpecError


class UnitLength(nn.Module):
    """Images (batch, 3, 32, 32) to vectors (batch, 3072), or (batch, 1024) of grey, of ``order``-norm 1."""

    def __init__(self, order: float, *, grey: bool) -> None:
        super().__init__()
        self.order = order
        self.grey = grey
        self.width = 32 * 32 * (1 if grey else 3)

    def forward(self, images: Float[Tensor, "batch 3 32 32"]) -> Float[Tensor, "batch inputs"]:
        """Return the vectors; ``order`` 0 leaves their length as it is."""
        vectors = torch.flatten(images.mean(dim=1) if self.grey else images, 1)
        if not self.order:
            return vectors
        tiny = torch.finfo(vectors.dtype).tiny
        # The largest intensity is taken out first: the cube of a dark image would vanish in single precision.
        scaled = vectors / vectors.detach().abs().amax(dim=1, keepdim=True).clamp_min(tiny)
        length = scaled.abs().pow(self.order).sum(dim=1, keepdim=True).clamp_min(tiny).pow(1 / self.order)
        return scaled / length


class Synapses(nn.Linear):
    r"""A full layer without bias whose ``weight`` is what acts on an input, :math:`\mathrm{sgn}(W)|W|^{p-1}`."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__(inputs, units, bias=False)
        self.p = 2.0

    def raw(self) -> Tensor:
        """Return W, of which local rules speak, (units, inputs)."""
        weight = self.weight.detach()
        return weight.clone() if self.p == 2 else weight.sign() * weight.abs().pow(1 / (self.p - 1))

    def put(self, synapses: Tensor) -> None:
        """Let the layer have the synapses W."""
        with torch.no_grad():
            self.weight.copy_(synapses if self.p == 2 else synapses.sign() * synapses.abs().pow(self.p - 1))


class RectifiedPower(nn.Module):
    """``max(current, 0) ** power``; the exponent is what Krotov and Hopfield call n."""

    def __init__(self) -> None:
        super().__init__()
        self.power = 1.0

    def forward(self, currents: Tensor) -> Tensor:
        """Return the activity of the units, not below 0."""
        rectified = torch.relu(currents)
        return rectified if self.power == 1 else rectified.pow(self.power)


class HiddenLayerNet(nn.Module):
    """Images (batch, 3, 32, 32) to logits (batch, classes)."""

    start = "he-in"

    def __init__(self, hidden: int, classes: int, order: float, *, grey: bool) -> None:
        super().__init__()
        self.inputs = UnitLength(order, grey=grey)
        self.hidden = Synapses(self.inputs.width, hidden)
        self.activation = RectifiedPower()
        self.readout = nn.Linear(hidden, classes)

    def code(self, images: Float[Tensor, "batch 3 32 32"]) -> Float[Tensor, "batch units"]:
        """Return the activity of the hidden units."""
        return self.activation(self.hidden(self.inputs(images)))

    def forward(self, images: Float[Tensor, "batch 3 32 32"]) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        return self.readout(self.code(images))


def hidden_layer(*, hidden: int = 2000, order: float = 3.0, grey: bool = False, classes: int = 10) -> nn.Module:
    """Return an untrained network.

    Args:
        hidden: units.
        order: of the norm that is 1 for every input; 0 leaves the intensities as they are.
        grey: the mean of the three colours enters, 1,024 values and not 3,072.
        classes: logits.

    Raises:
        SpecError: no units, or an order below 1 that is not 0.
    """
    if hidden < 1:
        raise SpecError(f"hidden-layer: hidden must be at least 1, got {hidden}")
    if order != 0 and order < 1:
        raise SpecError(f"hidden-layer: order must be 0 or at least 1, got {order:g}")
    return HiddenLayerNet(hidden, classes, order, grey=grey)
