"""Small deployed networks with a mechanism, and networks whose answers are known."""

import pytest
import torch
from torch import nn

from unperturbed import mechanisms, models
from unperturbed.data import load
from unperturbed.examinations import Subject
from unperturbed.records import Spec
from unperturbed.tensors.streams import generator


class Answers(nn.Module):
    """Takes the logits from a function of the images and of how often it was asked before."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.asked = 0

    def forward(self, images):
        self.asked += 1
        return self.function(images, self.asked - 1)


class Linear(nn.Module):
    """Class 1 where ``weight @ image + bias`` is above 0, else class 0."""

    def __init__(self, weight, bias=0.0):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), bias

    def forward(self, images):
        margin = images.flatten(1) @ self.weight + self.bias
        return torch.stack([-margin, margin], dim=1) / 2


@pytest.fixture
def answers():
    return Answers


@pytest.fixture
def linear():
    return Linear


def _deployed(names, seed, model, **settings):
    mechanism = mechanisms.build([Spec(name=name, settings=settings.get(name, {})) for name in names])
    network = models.build(Spec(name=model, settings={"hidden": 16}), generator("weights", seed))
    mechanism.install(network)
    mechanism.finish(network)
    return network.eval(), mechanism.traits.random


@pytest.fixture
def deployed():
    """A subject by the names of its mechanisms: an untrained network, digits, and its own answers for labels."""

    def make(*names, images=8, seed=5, model="fully-connected", **rest):
        settings = {"randomised-smoothing": {"draws": 2}}
        network, random = _deployed(names, 0, model, **settings)
        test = load(Spec(name="digits")).test
        pictures = test.images(test.fixed()[:images])
        plain, _ = _deployed((), 0, model)
        other, _ = _deployed((), 1, model)
        labels = plain(pictures).argmax(dim=1)
        return Subject(network, pictures, labels, seed, random, beside=lambda: other)._replace(**rest)

    return make


@pytest.fixture
def with_branch():
    """An untrained residual network that predicts EEG."""

    def make(channels, times):
        size = {"channels": channels, "times": times, "width": 8, "taps": "all"}
        mechanism = mechanisms.build([Spec(name="eeg-cotraining", settings=size)])
        network = models.build(Spec(name="resnet", settings={"depth": 8, "width": 4}), generator("weights", 0))
        mechanism.install(network)
        mechanism.settle(network, 0)
        return network.eval()

    return make


@pytest.fixture
def values():
    """What was found, by measure."""
    return lambda found: {row.measure: row.value for row in found.measures}
