"""The zoo itself: every planted illusion is one, and every honest network is what it says."""

import copy
import random

import pytest
import torch

_ROBUST = {  # lowest and highest accuracy that a strong attack leaves
    "undefended": (0.0, 0.1),
    "pgd_trained": (0.35, 0.75),
    "noise_off": (0.35, 0.75),
    "l2_regularised": (0.0, 0.15),
    "linear": (0.0, 0.2),
}


def test_a_usual_evaluation_leaves_far_more_than_an_attack_that_knows_the_trick(zoo, illusion):
    clean = zoo.vote(illusion.classifier, illusion.images, illusion.labels, votes=25 if illusion.random else 1)
    plain = zoo.plain(illusion.classifier, illusion.images, illusion.labels)
    knowing = illusion.knowing()
    assert clean > 0.8
    assert plain - knowing >= 0.25
    assert knowing <= 0.2


@pytest.mark.parametrize("honest", [(name, 0) for name in _ROBUST], indirect=True, ids=str)
def test_a_strong_attack_confirms_the_usual_evaluation_of_an_honest_network(zoo, honest):
    on = honest.classifier, honest.images, honest.labels
    clean, plain = zoo.accuracy(*on), zoo.plain(*on)
    robust = zoo.robust(*on, surrogate=honest.classifier, rounds=(25, 100))
    assert clean > 0.85
    assert plain - robust <= 0.1  # the margin as a loss finds a little more than the cross-entropy
    lowest, highest = _ROBUST[honest.name]
    assert lowest <= robust <= highest


def test_noise_that_is_switched_off_changes_nothing(zoo):
    network = zoo.HONEST["noise_off"](0)
    torch.testing.assert_close(
        network.classifier(network.images), network.classifier[1](network.images), rtol=0, atol=0
    )


def test_winners_drawn_at_the_deployed_temperature_have_gradients_of_noise(zoo):
    illusion = zoo.ILLUSIONS["stochastic_lwta"]()
    warm = copy.deepcopy(illusion.classifier)
    for layer in warm:
        if hasattr(layer, "temperature"):
            layer.temperature = 0.67
    assert _agreement(illusion.classifier, illusion) < 0.2  # chance: 0.176
    assert _agreement(warm, illusion) > 0.5


def _agreement(classifier, illusion):
    """Mean over pixels of |mean sign| of 20 gradients."""
    images, labels = illusion.images[:20], illusion.labels[:20]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        signs = []
        for _ in range(20):
            moved = images.clone().requires_grad_()
            loss = torch.nn.functional.cross_entropy(classifier(moved), labels, reduction="sum")
            signs.append(torch.autograd.grad(loss, moved)[0].sign())
    return torch.stack(signs).mean(dim=0).abs().mean().item()


def test_the_same_seed_gives_the_same_accuracy_and_disturbs_no_global_generator(zoo):
    illusion = zoo.ILLUSIONS["random_resize"]()
    before = torch.get_rng_state(), random.getstate()
    accuracies = {zoo.plain(illusion.classifier, illusion.images, illusion.labels) for _ in range(2)}
    assert len(accuracies) == 1
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_images_have_8_bits_and_no_network_was_trained_on_them(zoo):
    images, labels = zoo.audited()
    assert images.shape == (200, 1, 16, 16)
    assert labels.shape == (200,)
    torch.testing.assert_close((images * 255).round() / 255, images, rtol=0, atol=0)
    assert 0 <= images.min() < images.max() <= 1
