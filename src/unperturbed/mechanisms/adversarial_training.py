r"""Adversarial training: the loss is taken on the worst images that a projected gradient finds.

Source: Madry et al. (2018), arXiv:1706.06083, equation 2.1:
:math:`\min_\theta E_{(x,y)} \max_{\lVert\delta\rVert_\infty \le \varepsilon} L(f_\theta(x+\delta), y)`; there 10 steps
of 2/255 at 8/255. Departs from the source: the worst iterate is trained on, not the last one; the network is attacked
in evaluation mode, with the running statistics of batch normalisation.
Matched control: ``noise_augmentation``, which moves images as far in a random direction.
"""

from torch import Tensor, nn

from unperturbed.mechanisms.contract import ATTACKS, Loss, Mechanism, Tools, check_positive
from unperturbed.records import SpecError

EIGHT = 8 / 255


def adversarial_training(
    *, eps: float = EIGHT, steps: int = 10, step_size: float = 2 / 255, norm: str = "linf", warm_up: float = 0.0
) -> Mechanism:
    """Return training on adversarial images alone.

    Args:
        eps: radius of the ball, as a fraction of full scale.
        steps: gradients per image and step of training.
        step_size: length of a step in ``norm``.
        norm: of the ball, ``linf`` or ``l2``.
        warm_up: share of the training, from 0 to 1, over which radius and step grow evenly to their size. Some initial
            weights of small networks never leave chance at the full radius.

    Raises:
        SpecError: a ball, step or number of steps that is not above 0, ``warm_up`` outside 0 to 1.
    """
    check_positive("adversarial-training", eps=eps, steps=steps, step_size=step_size)
    if not 0 <= warm_up <= 1:
        raise SpecError(f"adversarial-training: warm_up must lie between 0 and 1, got {warm_up:g}")

    def objective(loss: Loss, tools: Tools) -> Loss:
        def on_the_worst(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            part = min(tools.done / warm_up, 1.0) if warm_up > 0 else 1.0
            settings = {"eps": part * eps, "steps": steps, "step_size": part * step_size, "norm": norm}
            return loss(network, tools.worst(network, images, labels, "pgd", persist=True, **settings), labels)

        return on_the_worst

    return Mechanism(objective=objective, alone=ATTACKS)
