r"""A penalty on the size of all weights, written into the loss.

Source: Holzhausen et al. (2024), arXiv:2405.00679, the condition "L2" of its code:
:math:`L + \alpha \sum_P \lVert P \rVert^2` over all parameters, biases too, :math:`\alpha` = 5e-4. With stochastic
gradient descent it is what a weight decay of :math:`2\alpha` is.
Departs from the source: parameters that are not trained are left out, which changes no gradient.
It is a control itself, of mechanisms that shrink weights, such as ``jacobian_regularisation`` as published. Matched
control: the network without the penalty.
"""

import torch
from torch import Tensor, nn

from unperturbed.mechanisms.contract import Loss, Mechanism, Tools, check_positive


def weight_penalty(*, strength: float = 5e-4) -> Mechanism:
    """Return the loss with the squares of all trained parameters added.

    Args:
        strength: alpha, above 0.

    Raises:
        SpecError: another strength.
    """
    check_positive("weight-penalty", strength=strength)

    def objective(loss: Loss, _tools: Tools) -> Loss:
        def with_penalty(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            squares = [each.square().sum() for each in network.parameters() if each.requires_grad]
            return loss(network, images, labels) + strength * torch.stack(squares).sum()

        return with_penalty

    return Mechanism(objective=objective)
