"""Networks whose robustness, much or none, is what a usual evaluation says it is: an audit must not doubt them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from .digits import EPS, NORM, adversarial, audited, cnn, train


@dataclass(frozen=True)
class Honest:
    """A network in eval mode, and what it is to be audited on."""

    name: str
    classifier: nn.Module
    images: Tensor
    labels: Tensor
    norm: str = NORM
    eps: float = EPS


class Jitter(nn.Module):
    """Gaussian noise of standard deviation ``sigma`` on the intensities; the draw is skipped where sigma is 0."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, images: Tensor) -> Tensor:
        return images + self.sigma * torch.randn_like(images) if self.sigma else images


def undefended(seed: int) -> nn.Module:
    return train(cnn, seed=seed, rate=0.1)


def pgd_trained(seed: int) -> nn.Module:
    return train(cnn, seed=seed, epochs=14, objective=adversarial)


def noise_off(seed: int) -> nn.Module:
    network = train(lambda: nn.Sequential(Jitter(0.05), cnn()), seed=seed, epochs=14, objective=adversarial)
    network[0].sigma = 0.0
    return network


def l2_regularised(seed: int) -> nn.Module:
    return train(cnn, seed=seed, rate=0.1, weight_decay=5e-3)


def linear(seed: int) -> nn.Module:
    return train(lambda: nn.Sequential(nn.Flatten(), nn.Linear(256, 10)), seed=seed)


def _member(build: Callable[[int], nn.Module]) -> Callable[[int], Honest]:
    @cache
    def member(seed: int) -> Honest:
        return Honest(build.__name__, build(seed), *audited())

    return member


HONEST: dict[str, Callable[[int], Honest]] = {
    build.__name__: _member(build) for build in (undefended, pgd_trained, noise_off, l2_regularised, linear)
}
