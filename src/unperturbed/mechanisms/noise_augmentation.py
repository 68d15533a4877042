"""Training on noisy images: the plainest meaning of "smoothing", and the control of adversarial training.

Source: the fourth branch of the mixed scheme that the second study rebuilds; Gaussian noise, clipped to [0, 1]. Its
size is not given there; 0.1 is ours.
Matched control: the network trained on the images as they are.
"""

from torch import Tensor, nn

from unperturbed.mechanisms.contract import DRAWS, Loss, Mechanism, Tools, check_positive


def noise_augmentation(*, sigma: float = 0.1) -> Mechanism:
    """Return training on ``images + N(0, sigma^2)``, clipped; nothing is drawn at inference.

    Args:
        sigma: standard deviation, as a fraction of full scale; above 0.
    """
    check_positive("noise-augmentation", sigma=sigma)

    def objective(loss: Loss, tools: Tools) -> Loss:
        def on_noisy(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            return loss(network, tools.noisy(images, "noise augmentation", sigma).clamp(0, 1), labels)

        return on_noisy

    return Mechanism(objective=objective, alone=DRAWS)
