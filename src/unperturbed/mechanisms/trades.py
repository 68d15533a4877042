r"""TRADES: the clean loss, and how far the prediction moves inside the ball.

Source: Zhang et al. (2019), arXiv:1901.08573, equation 5 with the divergence of Kullback and Leibler for the second
term: :math:`L = CE(f(x), y) + \beta\, KL(p(x) \Vert p(x'))` with :math:`x' = \arg\max_{B(x, \varepsilon)}
KL(p(x) \Vert p(x'))`; beta = 6, 10 steps of 0.007 at 0.031 on CIFAR-10, from :math:`x + 0.001\,N(0, 1)`.
Matched control: ``adversarial_training`` with the same ball and steps.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from unperturbed.mechanisms.contract import ATTACKS, Loss, Mechanism, Tools, check_positive
from unperturbed.records import SpecError

START = 0.001


def trades(*, beta: float = 6.0, eps: float = 0.031, steps: int = 10, step_size: float = 0.007) -> Mechanism:
    """Return the loss of TRADES in the Linf ball.

    Args:
        beta: weight of the divergence, 1/lambda in the source.
        eps: radius of the ball, as a fraction of full scale.
        steps: gradients per image and step of training.
        step_size: change of intensity per step.

    Raises:
        SpecError: a ball or step that is not above 0, a negative weight or number of steps.
    """
    check_positive("trades", eps=eps, step_size=step_size)
    if not beta >= 0 or steps < 0:
        raise SpecError(f"trades: expected beta and steps of at least 0, got {beta:g} and {steps}")

    def objective(loss: Loss, tools: Tools) -> Loss:
        def traded(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            moved = _furthest(network, images, tools, eps=eps, steps=steps, step_size=step_size)
            here, there = F.log_softmax(network(images), dim=1), F.log_softmax(network(moved), dim=1)
            divergence = F.kl_div(there, here, reduction="none", log_target=True).sum(dim=1)
            return loss(network, images, labels) + beta * divergence

        return traded

    return Mechanism(objective=objective, alone=ATTACKS)


def _furthest(network: nn.Module, images: Tensor, tools: Tools, *, eps: float, steps: int, step_size: float) -> Tensor:
    """Return the images whose prediction a projected gradient has moved furthest from that at ``images``."""
    with tools.attacking(network):
        with torch.no_grad():
            expected = F.softmax(network(images), dim=1)
        moved = tools.noisy(images, "trades", START)
        for _ in range(steps):
            moved = moved.detach().requires_grad_()
            divergence = F.kl_div(F.log_softmax(network(moved), dim=1), expected, reduction="sum")
            (gradient,) = torch.autograd.grad(divergence, moved)
            moved = moved.detach() + step_size * gradient.sign()
            moved = (images + (moved - images).clamp(-eps, eps)).clamp(0, 1)
        return moved.detach()
