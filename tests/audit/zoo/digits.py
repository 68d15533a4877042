"""The data (scikit-learn's digits, 16 x 16, 8 bits), the threat model, and how the zoo's networks are trained."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

NORM = "linf"
EPS = 0.13  # leaves an undefended network 5 %, one trained with PGD half of its accuracy
_TRAINED = 1300

Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of PyTorch and Python inside, and put back what they were."""
    state = random.getstate()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(state)


@cache
def digits() -> tuple[Tensor, Tensor]:
    """All images (1797, 1, 16, 16), multiples of 1/255, and their labels."""
    raw = load_digits()
    images = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 16
    images = functional.interpolate(images, size=(16, 16), mode="bilinear").clamp(0, 1)
    return (images * 255).round() / 255, torch.tensor(raw.target, dtype=torch.int64)


def audited(n: int = 200) -> tuple[Tensor, Tensor]:
    """The first ``n`` images that no network was trained on, and their labels."""
    images, labels = digits()
    return images[_TRAINED : _TRAINED + n], labels[_TRAINED : _TRAINED + n]


def cnn(*, size: int = 16, channels: int = 8, kernel: int = 5) -> nn.Sequential:
    pooled = (size - kernel + 1) // 2
    return nn.Sequential(
        nn.Conv2d(1, channels, kernel),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(channels * pooled**2, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def cross_entropy(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(network(images), labels)


def adversarial(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy after three steps of projected gradient ascent from a random start (Madry et al. 2018)."""
    network.eval()
    moved = (images + EPS * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    for _ in range(3):
        moved.requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(network, moved, labels), moved)
        moved = (moved.detach() + EPS / 2 * gradient.sign()).clamp(images - EPS, images + EPS).clamp(0, 1)
    network.train()
    return cross_entropy(network, moved, labels)


def train(
    build: Callable[[], nn.Module],
    *,
    seed: int = 0,
    epochs: int = 8,
    rate: float = 0.05,
    batch: int = 50,
    weight_decay: float = 0.0,
    objective: Objective = cross_entropy,
) -> nn.Module:
    """Build a network and train it (SGD, momentum 0.9, one cycle of the learning rate); leaves it in eval mode."""
    images, labels = digits()
    with seeded(seed):
        network = build().train()
        optimiser = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=weight_decay)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * (_TRAINED // batch) + 1)
        for _ in range(epochs):
            for chosen in torch.randperm(_TRAINED).split(batch):
                optimiser.zero_grad()
                objective(network, images[chosen], labels[chosen]).backward()
                nn.utils.clip_grad_norm_(network.parameters(), 2.0)
                optimiser.step()
                cycle.step()
        optimiser.zero_grad()
    return network.eval()
