"""Training on noisy images: the plainest meaning of "smoothing", and the control of adversarial training.

Source: the fourth branch of the mixed scheme that the second study rebuilds; Gaussian noise, clipped to [0, 1]. Its
size is not given there; 0.1 is ours.
"""

import torch
from torch import Tensor, nn

from unperturbed.mechanisms.contract import Loss, Mechanism, Tools
from unperturbed.tensors.streams import generator


def noise_augmentation(*, sigma: float = 0.1) -> Mechanism:
    """Return training on ``images + N(0, sigma^2)``, clipped; nothing is drawn at inference.

    Args:
        sigma: standard deviation, as a fraction of full scale.
    """

    def objective(loss: Loss, tools: Tools) -> Loss:
        def on_noisy(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            noise = torch.randn(images.shape, generator=generator("noise augmentation", tools.seed), dtype=images.dtype)
            return loss(network, (images + sigma * noise.to(images.device)).clamp(0, 1), labels)

        return on_noisy

    return Mechanism(objective=objective)
