r"""A saturating readout and a steep loss, with which Krotov and Hopfield train the layer on top.

Source: Krotov and Hopfield (2019), doi:10.1073/pnas.1820458116, equation 12 as two independent re-implementations quote
it: :math:`c_\alpha = \tanh(\beta \sum_\mu S_{\alpha\mu} h_\mu)`, targets :math:`t_\alpha` of 1 for the class and -1 for
the others, :math:`L = \sum_\alpha |c_\alpha - t_\alpha|^m`, m = 6; no bias.
Departs from the source: :math:`\beta = 1`. Those implementations differ (0.01, 0.1 and 1), and 0.01 belongs to images
that are not scaled to length 1, whose codes are thousands of times as large. The answers c are the logits.
Matched control: the linear readout with the cross-entropy, on the same codes and from the same weights.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from unperturbed.mechanisms.contract import Loss, Mechanism, Tools, check_positive
from unperturbed.mechanisms.installing import hidden_layered
from unperturbed.records import SpecError


class TanhReadout(nn.Module):
    """Codes (batch, units) to answers (batch, classes) between -1 and 1; ``beta`` is a plain attribute."""

    def __init__(self, weight: Tensor, beta: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.beta = beta

    def forward(self, codes: Tensor) -> Tensor:
        """Return the answers."""
        return torch.tanh(self.beta * F.linear(codes, self.weight))


def tanh_readout(*, beta: float = 1.0, m: float = 6.0) -> Mechanism:
    """Return a readout through a hyperbolic tangent, and its loss in place of the cross-entropy.

    Args:
        beta: steepness, above 0.
        m: exponent of the loss, at least 1.

    Raises:
        SpecError: a setting outside its range; when it is installed, if the network has no single hidden layer or no
            linear readout.
    """
    check_positive("tanh-readout", beta=beta)
    if not m >= 1:
        raise SpecError(f"tanh-readout: m must be at least 1, got {m:g}")

    def install(network: nn.Module) -> None:
        layered = hidden_layered(network, "tanh-readout")
        readout = layered.get_submodule("readout")
        if not isinstance(readout, nn.Linear):
            raise SpecError(f"tanh-readout: expected a linear readout, got {type(readout).__name__}: name it first")
        layered.add_module("readout", TanhReadout(readout.weight.detach(), beta))

    def objective(_loss: Loss, _tools: Tools) -> Loss:
        def far_from_targets(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            answers = network(images)
            targets = 2 * F.one_hot(labels, answers.shape[1]).to(answers) - 1
            return (answers - targets).abs().pow(m).sum(dim=1)

        return far_from_targets

    return Mechanism(install=install, objective=objective, own_loss=True)
