r"""Adversarial training: the loss is taken on the worst images that a projected gradient finds.

Source: Madry et al. (2018), arXiv:1706.06083, equation 2.1:
:math:`\min_\theta E_{(x,y)} \max_{\lVert\delta\rVert_\infty \le \varepsilon} L(f_\theta(x+\delta), y)`; there 10 steps
of 2/255 at 8/255. Departs from the source: the worst iterate is trained on, not the last one; the network is attacked
in evaluation mode, with the running statistics of batch normalisation.
Matched control: ``noise_augmentation``, which moves images as far in a random direction.
"""

from torch import Tensor, nn

from unperturbed.mechanisms.contract import Loss, Mechanism, Tools

EIGHT = 8 / 255


def adversarial_training(
    *, eps: float = EIGHT, steps: int = 10, step_size: float = 2 / 255, norm: str = "linf"
) -> Mechanism:
    """Return training on adversarial images alone.

    Args:
        eps: radius of the ball, as a fraction of full scale.
        steps: gradients per image and step of training.
        step_size: length of a step in ``norm``.
        norm: of the ball, ``linf`` or ``l2``.
    """

    def objective(loss: Loss, tools: Tools) -> Loss:
        def on_the_worst(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            worst = tools.worst(
                network, images, labels, "pgd", eps=eps, steps=steps, step_size=step_size, norm=norm, persist=True
            )
            return loss(network, worst, labels)

        return on_the_worst

    return Mechanism(objective=objective)
