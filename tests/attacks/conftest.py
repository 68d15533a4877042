"""Classifiers whose optimum is known, and a small network trained on digits."""

import inspect

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from unperturbed.attacks import ATTACKS
from unperturbed.attacks.sweep import UNCONFINED, within_budget

RADIUS = {"linf": 0.05, "l2": 0.5, "l1": 4.0}
# Settings that make a run short, for every attack that has a setting of this name.
CHEAP = {"steps": 6, "queries": 40, "draws": 6, "binary_search_steps": 3, "target_classes": 2}
LONGER = {"carlini_wagner": {"steps": 25}}  # of 0.01 each


class Linear(nn.Module):
    """Logits ``weight @ images + bias``; the weights are parameters, so that gradients could reach them."""

    def __init__(self, weight, bias=None):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias)

    def forward(self, images):
        return images.flatten(1) @ self.weight.T + self.bias


class Counter(nn.Module):
    """Counts passes by itself, and keeps every batch that it was shown."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier
        self.forwards = 0
        self.backwards = 0
        self.seen = []

    def forward(self, images):
        self.forwards += len(images)
        self.seen.append(images.detach().clone())
        return _Tap.apply(self.classifier(images), self)


class _Tap(torch.autograd.Function):
    @staticmethod
    def forward(context, logits, counter):
        context.counter = counter
        return logits.view_as(logits)

    @staticmethod
    def backward(context, gradient):
        context.counter.backwards += len(gradient)
        return gradient, None


def _tent(images):
    """One intensity x: class 1 where |x - 0.65| < 0.05, else class 0. The slope at 0.5 points to the band."""
    x = images.flatten(1)[:, 0]
    margin = 0.05 - (x - 0.65).abs()
    return torch.stack([torch.zeros_like(margin), margin], dim=1)


class Attack:
    """Runs an attack by name with few steps, at a radius that breaks some of the digits."""

    radius = RADIUS

    def __call__(self, name, classifier, images, labels, seed=0, *, norm, eps=None, **settings):
        if within_budget(ATTACKS[name]):
            settings["eps"] = RADIUS[norm] if eps is None else eps
        return ATTACKS[name](classifier, images, labels, seed, norm=norm, **{**self.cheap(name), **settings})

    def confined(self, name, norm):
        """The radius of the ball that the result is in, if it is in one."""
        return RADIUS[norm] if within_budget(ATTACKS[name]) and ATTACKS[name] not in UNCONFINED else None

    def cheap(self, name):
        taken = inspect.signature(ATTACKS[name]).parameters
        return {setting: value for setting, value in CHEAP.items() if setting in taken} | LONGER.get(name, {})


@pytest.fixture(scope="session")
def attack():
    return Attack()


@pytest.fixture
def linear():
    return Linear


@pytest.fixture
def counter():
    return Counter


@pytest.fixture
def tent():
    return _tent


@pytest.fixture
def pixel():
    """One grey image of one intensity, of class 0 for the tent."""
    return torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64), torch.tensor([0])


@pytest.fixture
def two_classes():
    """A linear problem with two classes in float64, far enough from the box for eps up to 0.3."""
    random = torch.Generator().manual_seed(3)
    weight = torch.randn(2, 12, generator=random, dtype=torch.float64)
    images = 0.4 + 0.2 * torch.rand(40, 3, 2, 2, generator=random, dtype=torch.float64)
    classifier = Linear(weight, -0.5 * weight.sum(dim=1))  # the boundary passes through the middle
    labels = classifier(images).argmax(dim=1)
    assert 10 < int(labels.sum()) < 30
    return classifier, images, labels


@pytest.fixture(scope="session")
def digits():
    """A convolutional network trained on 1,300 digits for six epochs, and the 497 others, 16 x 16."""
    raw = load_digits()
    images = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 16
    images = nn.functional.interpolate(images, size=(16, 16), mode="bilinear").clamp(0, 1)
    labels = torch.tensor(raw.target, dtype=torch.int64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 8, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(288, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )
        optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
        for _ in range(6):
            for batch in torch.randperm(1300).split(50):
                optimiser.zero_grad()
                nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
                optimiser.step()
        optimiser.zero_grad()
    return network.eval(), images[1300:], labels[1300:]
