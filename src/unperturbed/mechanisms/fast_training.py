r"""Adversarial training with a single step from a random start, and a watch for the day on which it stops working.

Source: Wong, Rice and Kolter (2020), arXiv:2001.03994, algorithm 3: start uniform in the ball, one step of
:math:`\alpha = 1.25\,\varepsilon`, projected. Catastrophic overfitting is what they name the moment at which such a
network withstands one step and no longer several; here it is called when FGSM accuracy exceeds PGD accuracy by more
than 20 points on a batch.
Matched control: ``adversarial_training`` with steps that reach the ball.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unperturbed.mechanisms.contract import ATTACKS, Loss, Mechanism, Tools, check_positive
from unperturbed.records import SpecError

GAP = 0.2


def fast_training(*, eps: float = 8 / 255, stride: float = 1.25, watch_every: int = 50) -> Mechanism:
    """Return training on images one random start and one step away.

    The buffer ``overfitting`` keeps what the watch saw: how often it looked, how often the gap was above 20 points, and
    the last gap (a fraction of the batch). The share of such looks and the last gap are recorded with the training.

    Args:
        eps: radius of the Linf ball, as a fraction of full scale.
        stride: length of the step, as a multiple of ``eps``.
        watch_every: steps between two looks, each as dear as 10 gradients; 0: never.

    Raises:
        SpecError: a ball or step that is not above 0, a negative number of steps between looks.
    """
    check_positive("fast-training", eps=eps, stride=stride)
    if watch_every < 0:
        raise SpecError(f"fast-training: watch_every must be at least 0, got {watch_every}")

    def install(network: nn.Module) -> None:
        network.register_buffer("overfitting", torch.zeros(3))
        network.register_buffer("fast_steps", torch.zeros((), dtype=torch.int64))

    def objective(loss: Loss, tools: Tools) -> Loss:
        def one_step_away(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            steps = network.get_buffer("fast_steps")
            steps += 1
            if watch_every and int(steps) % watch_every == 0:
                _look(network, images, labels, tools, eps)
            moved = tools.worst(network, images, labels, "pgd", eps=eps, steps=1, step_size=stride * eps, persist=True)
            return loss(network, moved, labels)

        return one_step_away

    return Mechanism(install=install, objective=objective, alone=ATTACKS, facts=_seen)


def _seen(weights: Mapping[str, Tensor]) -> dict[str, float]:
    looks, fallen, gap = weights["overfitting"].tolist()
    return {"overfitting_looks": fallen / looks, "overfitting_gap": gap} if looks else {}


def _look(network: nn.Module, images: Tensor, labels: Tensor, tools: Tools, eps: float) -> None:
    """Compare one step with ten on this batch, and write down what was seen."""
    one = tools.worst(network, images, labels, "fgsm", eps=eps)
    many = tools.worst(network, images, labels, "pgd", eps=eps, steps=10)
    with tools.attacking(network), torch.no_grad():
        right = [(network(moved).argmax(dim=1) == labels).double().mean() for moved in (one, many)]
    gap = float(right[0] - right[1])
    seen = network.get_buffer("overfitting")
    seen += torch.tensor([1.0, float(gap > GAP), 0.0]).to(seen)
    seen[2] = gap
