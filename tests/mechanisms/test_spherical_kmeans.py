import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from unperturbed.mechanisms import Lesson
from unperturbed.mechanisms.spherical_kmeans import spherical_kmeans
from unperturbed.models.hidden_layer import HiddenLayerNet, Synapses
from unperturbed.records import SpecError
from unperturbed.tensors.streams import generator

INPUTS = torch.rand(2300, 9, generator=generator("inputs"), dtype=torch.float64)  # three batches
UNITS = 15


def _network(mechanism, units=UNITS):
    network = HiddenLayerNet(units, 3, 0.0, grey=True)
    network.hidden = Synapses(9, units)
    mechanism.install(network.double())
    return network


def _learn(mechanism, networks, seeds, epochs, inputs=INPUTS, look=lambda _: None):
    for epoch in epochs:
        mechanism.learning.epoch(networks, Lesson(inputs, seeds, epoch, look))


def _lloyd(directions, inputs):
    """One iteration, input by input; a direction that none belongs to stays."""
    inputs = inputs / np.linalg.norm(inputs, axis=1, keepdims=True)
    sums = np.zeros_like(directions)
    for x in inputs:
        sums[np.argmax(directions @ x)] += x
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(lengths > 0, sums / np.where(lengths > 0, lengths, 1), directions)


def test_it_begins_at_different_images_of_its_seed_and_iterates_as_lloyd_did():
    mechanism = spherical_kmeans(epochs=3)
    network, looked = _network(mechanism), []
    begun = torch.randperm(len(INPUTS), generator=generator("directions", 4))[:UNITS]
    assert len(begun.unique()) == UNITS
    expected = F.normalize(INPUTS[begun], dim=1).numpy()
    for epoch in (1, 2, 3):
        _learn(mechanism, [network], [4], [epoch], look=looked.append)
        expected = _lloyd(expected, INPUTS.numpy())
        np.testing.assert_allclose(network.hidden.raw().numpy(), expected, rtol=0, atol=1e-12)
    assert looked == [1000, 1000, 300] * 3


def test_images_come_closer_to_their_direction_in_every_iteration():
    mechanism = spherical_kmeans()
    network, near = _network(mechanism), []
    for epoch in range(1, 21):
        _learn(mechanism, [network], [0], [epoch])
        near.append(network.hidden(F.normalize(INPUTS, dim=1)).amax(dim=1).mean().item())
    assert all(after >= before - 1e-12 for before, after in itertools.pairwise(near))
    assert near[-1] > near[0] + 0.005


def test_matched_networks_learn_together_as_they_do_one_by_one():
    mechanism = spherical_kmeans()
    together = [_network(mechanism) for _ in range(2)]
    _learn(mechanism, together, [1, 2], (1, 2))
    for seed, network in zip((1, 2), together, strict=True):
        alone = _network(mechanism)
        _learn(mechanism, [alone], [seed], (1, 2))
        torch.testing.assert_close(network.hidden.weight, alone.hidden.weight, rtol=0, atol=1e-12)
    assert not torch.equal(together[0].hidden.weight, together[1].hidden.weight)


def test_a_unit_that_no_image_belongs_to_keeps_its_direction_and_black_images_change_nothing():
    mechanism = spherical_kmeans()
    network = _network(mechanism)
    directions = F.normalize(INPUTS[:UNITS], dim=1)
    directions[3] *= -1  # all images are positive
    for inputs in (INPUTS, torch.cat([INPUTS, torch.zeros(5, 9, dtype=torch.float64)])):
        network.hidden.put(directions)
        _learn(mechanism, [network], [0], [2], inputs=inputs)
        assert torch.equal(network.hidden.raw()[3], directions[3])
        np.testing.assert_allclose(
            network.hidden.raw().numpy(), _lloyd(directions.numpy(), INPUTS.numpy()), rtol=0, atol=1e-12
        )


def test_bad_settings_are_refused():
    with pytest.raises(SpecError, match=r"^spherical-kmeans: epochs must be above 0, got 0$"):
        spherical_kmeans(epochs=0)
    mechanism = spherical_kmeans()
    network = _network(mechanism)
    with pytest.raises(
        SpecError, match=r"^spherical-kmeans: expected at least as many images as the 15 units, got 14$"
    ):
        _learn(mechanism, [network], [0], [1], inputs=INPUTS[:14])
