"""Coherence: the chance value by enumeration, everything else against all pairs of known gradients."""

import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn

from unperturbed.audit.coherence import chance_agreement, coherence, margin_gradient, measure

N, SHAPE = 6, (1, 3, 3)
IMAGES = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.arange(N) % 2


@pytest.fixture(autouse=True)
def _same_weights():
    torch.manual_seed(0)


def two_classes(gradients):
    """A classifier whose margin has these gradients, one after the other (draw, image, ...), whatever the images."""
    source = itertools.cycle(gradients)

    def classifier(images):
        torch.rand(1)  # a draw, so that no shortcut is taken
        other = (images * next(source)).flatten(1).sum(dim=1)
        return torch.stack([torch.zeros_like(other), other], dim=1) * (1 - 2 * LABELS[: len(images)]).unsqueeze(1)

    return classifier


def random_gradients(draws, seed=1):
    return torch.randn(draws, N, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_all_pairs(gradients):
    flat = gradients.flatten(2)
    flat = flat / flat.norm(dim=2, keepdim=True)
    cosines = [(flat[i] * flat[j]).sum(dim=1) for i, j in itertools.combinations(range(len(flat)), 2)]
    return float(torch.stack(cosines).mean()), float(gradients.sign().mean(dim=0).abs().mean())


@pytest.mark.parametrize("draws", [1, 2, 3, 6, 7])
def test_chance_is_the_mean_over_all_throws(draws):
    throws = [abs(sum(signs)) / draws for signs in itertools.product((-1, 1), repeat=draws)]
    assert chance_agreement(draws) == pytest.approx(sum(throws) / len(throws), rel=1e-12)


def test_chance_of_twenty_is_the_published_value():
    assert chance_agreement(20) == pytest.approx(0.1762, abs=5e-5)


def test_cosine_and_agreement_are_those_of_all_pairs():
    gradients = random_gradients(7)
    found = coherence(two_classes(gradients), IMAGES, LABELS, draws=7)
    cosine, agreement = by_all_pairs(gradients)
    assert found.cosine == pytest.approx(cosine, abs=1e-12)
    assert found.sign_agreement == pytest.approx(agreement, abs=1e-12)
    assert found.chance == chance_agreement(7)
    assert found.zero_fraction == 0
    assert not found.deterministic


def test_the_mean_gradient_is_that_of_unit_vectors():
    gradients = random_gradients(4)
    mean = measure(two_classes(gradients), IMAGES, LABELS, draws=4)[1]
    lengths = gradients.flatten(2).norm(dim=2).view(4, N, 1, 1, 1)
    torch.testing.assert_close(mean, (gradients / lengths).mean(dim=0), rtol=1e-12, atol=1e-12)


def test_gradients_of_noise_are_at_chance_and_those_with_a_common_part_are_above():
    noise = torch.randn(20, 32, 1, 10, 10, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    images, labels = torch.rand(32, 1, 10, 10, dtype=torch.float64), torch.zeros(32, dtype=torch.long)

    def classifier_of(gradients):
        source = iter(gradients)

        def classifier(images):
            torch.rand(1)
            other = (images * next(source)).flatten(1).sum(dim=1)
            return torch.stack([torch.zeros_like(other), other], dim=1)

        return classifier

    at_chance = coherence(classifier_of(noise), images, labels)
    assert abs(at_chance.sign_agreement - at_chance.chance) < 3 * at_chance.standard_error
    assert not at_chance.coherent
    above = coherence(classifier_of(noise + 0.3), images, labels)
    assert above.coherent
    # The cosine of two vectors with a common part of squared length 0.09 d and own parts of d.
    assert above.cosine == pytest.approx(0.09 / 1.09, abs=0.01)


def test_the_standard_error_is_the_one_over_images():
    found = coherence(two_classes(random_gradients(5)), IMAGES, LABELS, draws=5)
    per_image = random_gradients(5).sign().mean(dim=0).abs().flatten(1).mean(dim=1)
    assert found.standard_error == pytest.approx(float(per_image.std()) / N**0.5, rel=1e-9)


def test_a_draw_without_gradient_is_left_out_and_counted():
    gradients = random_gradients(8)
    gradients[[1, 4, 6]] = 0
    found = coherence(two_classes(gradients), IMAGES, LABELS, draws=8)
    cosine, _ = by_all_pairs(gradients[[0, 2, 3, 5, 7]])
    assert found.cosine == pytest.approx(cosine, abs=1e-12)
    assert found.zero_fraction == pytest.approx(3 / 8)
    assert found.chance == chance_agreement(5)  # five signs of each intensity are left


def test_an_intensity_without_gradient_does_not_count():
    gradients = random_gradients(6)
    gradients[:, :, :, 0] = 0
    found = coherence(two_classes(gradients), IMAGES, LABELS, draws=6)
    assert found.sign_agreement == pytest.approx(by_all_pairs(gradients[:, :, :, 1:])[1], abs=1e-12)


def test_a_gradient_that_is_not_a_number_is_none():
    gradients = random_gradients(4)
    gradients[2] = torch.nan
    classifier = two_classes(gradients)
    found = coherence(classifier, IMAGES, LABELS, draws=4)
    assert found.zero_fraction == pytest.approx(1 / 4)
    assert found.sign_agreement == pytest.approx(by_all_pairs(gradients[[0, 1, 3]])[1], abs=1e-12)


@pytest.mark.parametrize("gradient", [lambda x: x.detach(), lambda x: x.round(), lambda x: x * 0])
def test_no_gradient_at_all_is_not_coherence(gradient):
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).double()
    found = coherence(lambda x: network(gradient(x)), IMAGES, LABELS)
    assert (found.zero_fraction, found.cosine, found.sign_agreement) == (1, 0, 0)


def test_what_is_not_random_takes_two_passes():
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).double()
    passes = []

    def classifier(images):
        passes.append(len(images))
        return network(images)

    found = coherence(classifier, IMAGES, LABELS)
    assert len(passes) == 2
    assert found.deterministic
    assert found.coherent
    assert (found.cosine, found.sign_agreement, found.chance) == (1, 1, chance_agreement(20))


def test_a_random_choice_that_repeats_itself_is_not_taken_for_certain():
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).double() for _ in range(2)]
    for choose in (lambda: random.randrange(2), lambda: int(np.random.randint(2)), lambda: int(torch.randint(2, ()))):  # noqa: NPY002
        found = [coherence(lambda x: networks[choose()](x), IMAGES, LABELS, seed=seed) for seed in range(4)]  # noqa: B023
        assert not any(each.deterministic for each in found)


def test_a_confident_network_has_its_gradient():
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 2))
    gradient = margin_gradient(lambda x: 2.0**20 * network(x), IMAGES.float(), LABELS)[1]
    row = network[1].weight[1 - LABELS] - network[1].weight[LABELS]
    # A power of two loses nothing; of the cross-entropy it would be 0 for every image that is classified rightly.
    torch.testing.assert_close(gradient.flatten(1), 2.0**20 * row.detach(), rtol=1e-6, atol=0.0)


def test_nothing_is_disturbed():
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(9, 2)).double().train()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    images = IMAGES.clone()
    first = coherence(lambda x: network(x) * (1 + random.random() + np.random.rand()), images, LABELS)  # noqa: NPY002
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(images, IMAGES)
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    torch.rand(3)
    again = coherence(lambda x: network(x) * (1 + random.random() + np.random.rand()), images, LABELS)  # noqa: NPY002
    assert first == again
    assert not first.deterministic
