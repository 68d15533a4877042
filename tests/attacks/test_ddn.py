"""DDN: the closed form of linear classifiers, and no further than Foolbox's."""

import warnings

import pytest
import torch

from unperturbed.attacks.ddn import ddn
from unperturbed.attacks.nearest import onto
from unperturbed.records import SpecError
from unperturbed.tensors.norms import length

with warnings.catch_warnings():
    # Foolbox 3.3.4 imports eagerpy and GitPython with what they deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    import foolbox


def test_reaches_the_closed_form_on_a_linear_classifier(two_classes):
    classifier, images, labels = two_classes
    logits = classifier(images).detach()
    exact = (logits[:, 0] - logits[:, 1]).abs() / (classifier.weight[0] - classifier.weight[1]).detach().norm()
    adversarial = ddn(classifier, images, labels)
    assert (classifier(adversarial).argmax(dim=1) != labels).all()
    torch.testing.assert_close(length(adversarial - images, norm="l2"), exact, rtol=1e-6, atol=0)


def test_saturated_intensities_move_and_the_box_holds(linear):
    random = torch.Generator().manual_seed(7)
    weight = torch.randn(2, 12, generator=random, dtype=torch.float64)
    images = (1.6 * torch.rand(20, 3, 2, 2, generator=random, dtype=torch.float64) - 0.3).clamp(0, 1)
    classifier = linear(weight, -0.5 * weight.sum(dim=1))
    logits = classifier(images).detach()
    gradient = (weight[1] - weight[0]).view(1, 3, 2, 2).expand_as(images)
    exact = length(onto(images, gradient, logits[:, 1] - logits[:, 0], norm="l2"), norm="l2")
    adversarial = ddn(classifier, images, logits.argmax(dim=1))
    assert float(adversarial.min()) >= 0
    assert float(adversarial.max()) <= 1
    assert (classifier(adversarial).argmax(dim=1) != logits.argmax(dim=1)).all()
    torch.testing.assert_close(length(adversarial - images, norm="l2"), exact, rtol=1e-3, atol=0)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_tiny_and_huge_logits_change_little(digits, scale):
    network, images, labels = digits
    images, labels = images[:10], labels[:10]
    expected = length(ddn(network, images, labels, loss="margin", steps=20) - images, norm="l2")
    scaled = ddn(lambda x: network(x).double() * scale, images, labels, loss="margin", steps=20)
    torch.testing.assert_close(length(scaled - images, norm="l2"), expected, rtol=0.02, atol=1e-6)


def test_an_image_costs_the_passes_that_are_promised(two_classes, counter):
    classifier, images, labels = two_classes
    watched = counter(classifier)
    ddn(watched, images, labels, steps=30)
    assert (watched.forwards, watched.backwards) == ((30 + 12) * len(images), 30 * len(images))
    watched = counter(classifier)
    assert torch.equal(ddn(watched, images, 1 - labels), images)
    assert (watched.forwards, watched.backwards) == (len(images), 0)


def test_a_constant_classifier_returns_the_images(two_classes):
    _, images, labels = two_classes
    logits = torch.tensor([1.0, 0.0], requires_grad=True)
    assert torch.equal(ddn(lambda x: logits.expand(len(x), 2), images, torch.zeros_like(labels), steps=3), images)


def test_is_as_near_as_that_of_foolbox(digits):
    network, images, labels = digits
    right = (network(images).argmax(dim=1) == labels).nonzero().squeeze(1)[:60]
    images, labels = images[right], labels[right]
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    _, found, broken = foolbox.attacks.DDNAttack(steps=50)(model, images, labels, epsilons=None)
    network.zero_grad(set_to_none=True)
    assert broken.all()
    adversarial = ddn(network, images, labels, steps=50)
    assert (network(adversarial).argmax(dim=1) != labels).all()
    theirs, ours = (float(length(each - images, norm="l2").mean()) for each in (found, adversarial))
    assert ours <= 1.02 * theirs


@pytest.mark.parametrize("settings", [{"steps": 0}, {"gamma": 0.0}, {"initial_eps": 0.0}])
def test_settings_without_meaning_are_refused(two_classes, settings):
    with pytest.raises(
        SpecError, match=r"^ddn: expected steps of at least 1, gamma between 0 and 1 and initial_eps above"
    ):
        ddn(*two_classes, **settings)
