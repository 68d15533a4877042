r"""Randomised smoothing: train with Gaussian noise, and answer with the class that most noisy copies get.

Source: Cohen, Rosenfeld and Kolter (2019), arXiv:1902.02918: :math:`g(x) = \arg\max_c P[f(x + \eta) = c]`,
:math:`\eta \sim N(0, \sigma^2 I)`. Certificates are a measure: ``unperturbed.measures.certificates``.
Departs from the source: the deployed network returns the mean of the probabilities of its draws, as logarithms, which
have the same winner in the limit and a gradient.
Matched control: ``noise_augmentation`` with the same sigma, which trains alike and draws nothing at inference.
"""

import torch
from torch import Tensor, nn

from unperturbed.mechanisms.contract import DRAWS, Mechanism, Traits, check_draws, check_positive
from unperturbed.mechanisms.installing import averaged, in_front, set_draws


class GaussianNoise(nn.Module):
    """Gaussian noise on images, in training and evaluation mode alike."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, images: Tensor) -> Tensor:
        """Return the noisy images."""
        return images + self.sigma * torch.randn_like(images)


def randomised_smoothing(*, sigma: float = 0.25, draws: int = 16) -> Mechanism:
    """Return noise on the image in training and at inference, with a mean over draws there.

    Args:
        sigma: standard deviation, as a fraction of full scale, above 0; noisy intensities are not clipped.
        draws: copies that vote at inference, at least 1.

    Raises:
        SpecError: a sigma or a number of draws that is not positive.
    """
    check_positive("randomised-smoothing", sigma=sigma)
    check_draws("randomised-smoothing", draws)

    def install(network: nn.Module) -> None:
        averaged(network, "smoothing")
        in_front(network, "smoothing_noise", GaussianNoise(sigma))

    def finish(network: nn.Module) -> None:
        set_draws(network, "smoothing", draws)

    return Mechanism(install=install, finish=finish, traits=Traits(random=True), alone=DRAWS)
