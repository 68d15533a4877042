r"""Randomised smoothing: train with Gaussian noise, and answer with the class that most noisy copies get.

Source: Cohen, Rosenfeld and Kolter (2019), arXiv:1902.02918: :math:`g(x) = \arg\max_c P[f(x + \eta) = c]`,
:math:`\eta \sim N(0, \sigma^2 I)`. Certificates are a measure: ``unperturbed.measures.certificates``.
Departs from the source: the deployed network returns the mean of the probabilities of its draws, as logarithms, which
have the same winner in the limit and a gradient.
Matched control: ``noise_augmentation`` with the same sigma, which trains alike and draws nothing at inference.
"""

import torch
from torch import Tensor, nn

from unperturbed.mechanisms.contract import Mechanism, Traits
from unperturbed.mechanisms.installing import in_front


class Draws(nn.Module):
    """Gaussian noise on images: one draw while training, ``draws`` of them when deployed."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma
        self.draws = 1

    def forward(self, images: Tensor) -> Tensor:
        """Return the noisy copies of all images, those of the first draw first."""
        copies = images.repeat(self.draws, 1, 1, 1)
        return copies + self.sigma * torch.randn_like(copies)


def randomised_smoothing(*, sigma: float = 0.25, draws: int = 16) -> Mechanism:
    """Return noise on the image in training and at inference, with a mean over draws there.

    Args:
        sigma: standard deviation, as a fraction of full scale; noisy intensities are not clipped.
        draws: copies that vote at inference.
    """

    def install(network: nn.Module) -> None:
        in_front(network, "smoothing", Draws(sigma))
        network.register_forward_hook(_mean)

    def finish(network: nn.Module) -> None:
        network.get_submodule("smoothing").draws = draws  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]

    return Mechanism(install=install, finish=finish, traits=Traits(random=True))


def _mean(network: nn.Module, _arguments: tuple[Tensor, ...], logits: Tensor) -> Tensor:
    layer = network.get_submodule("smoothing")
    assert isinstance(layer, Draws)
    if layer.draws == 1:
        return logits
    each = torch.log_softmax(logits, dim=1).unflatten(0, (layer.draws, -1))
    return torch.logsumexp(each, dim=0) - torch.tensor(float(layer.draws)).log()
