"""Every network that a study of the lab trains can be asked for its geometry: its layers and mechanisms, at small sizes."""

import math

import pytest
import torch

from unperturbed import lab, mechanisms, models
from unperturbed.data import load
from unperturbed.examinations import EXAMINATIONS, Subject
from unperturbed.examinations.spectrum import layer_of
from unperturbed.records import Spec
from unperturbed.tensors.streams import generator

SCALES = {
    "distribution-and-task": ("smoke",),
    "defences": ("smoke", "paper"),
    "local-learning": ("paper",),
    "eeg-cotraining": ("smoke",),
}
SIZES = {
    "hidden-layer": {"hidden": 40},
    "fully-connected": {"hidden": 40},
    "lenet": {},
    "resnet": {"depth": 8, "width": 4},
    "wide-resnet": {"depth": 10},
}
ASKED = {  # settings, images, and what has to be among the measures
    "spectrum": ({}, 30, {"spectrum_alpha", "spectrum_alpha_weighted", "participation_ratio", "effective_rank"}),
    "geometry": ({"steps": 1, "directions": 1}, 2, {"jacobian_spectral", "lipschitz", "local_complexity"}),
    "dimension": ({}, 30, {"dimension_two_nn", "dimension_mle_20", "label_sharpness"}),
    "boundary": ({"images": 1, "cells": 3}, 1, {"plane_share"}),
    "critical-perturbation": ({}, 1, {"f0"}),
}


@pytest.fixture(scope="module")
def networks():
    """Deployed networks by the study and condition that have them first; those made of the same layers once."""
    found = {}
    for study, scales in SCALES.items():
        for trial in (trial for scale in scales for trial in lab.load(study, scale=scale).trials):
            mechanism = mechanisms.build(trial.mechanisms)
            model = Spec(name=trial.model.name, settings={**trial.model.settings, **SIZES[trial.model.name]})
            mechanism.install(outline := models.outline(model))
            if (layers := (str(outline), mechanism.traits.random)) in found:
                continue
            network = models.build(model, generator("weights", 0))
            mechanism.install(network)
            mechanism.settle(network, 0)
            mechanism.finish(network)
            name = f"{study}: {trial.model.name}, {trial.condition}"
            found[layers] = (name, network.eval(), mechanism.traits.random)
    return {name: (network, random) for name, network, random in found.values()}


def test_random_ones_and_every_family_of_networks_are_among_them(networks):
    families = {type(network).__name__ for network, _ in networks.values()}
    assert families == {"LeNet", "ResNet", "WideResNet", "FullyConnectedNet", "HiddenLayerNet"}
    assert sum(random for _, random in networks.values()) >= 4


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("examination", ASKED)
def test_every_one_can_be_asked(examination, networks):
    settings, images, expected = ASKED[examination]
    test = load(Spec(name="digits")).test
    pictures, classes = test.images(test.fixed()[:images]), torch.arange(images) % 3
    missing = {}
    for name, (network, random) in networks.items():
        with torch.no_grad():
            labels = network(pictures).argmax(dim=1) if images == 1 else classes  # its own, so that it is attacked
        found = EXAMINATIONS[examination](Subject(network, pictures, labels, 5, random), **settings)
        measures = {row.measure: row.value for row in found.measures}
        assert found.forwards >= images
        assert all(map(math.isfinite, measures.values()))
        missing |= {name: expected - measures.keys()} if not expected <= measures.keys() else {}
    assert missing == {}


def test_of_a_network_with_another_readout_it_is_still_the_hidden_layer(networks):
    """The readout through a hyperbolic tangent is no full layer of PyTorch's."""
    (name,) = [name for name in networks if "local-tanh" in name]
    network, _ = networks[name]
    assert layer_of(network, None, "spectrum") is network.hidden
