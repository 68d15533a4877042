"""FMN: the closed form of linear classifiers, and no further than Foolbox's."""

import warnings

import pytest
import torch

from unperturbed.attacks.fmn import fmn
from unperturbed.attacks.nearest import onto
from unperturbed.records import SpecError
from unperturbed.tensors.norms import length

with warnings.catch_warnings():
    # Foolbox 3.3.4 imports eagerpy and GitPython with what they deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    import foolbox

NORMS = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
DUAL = {"linf": 1, "l2": 2, "l1": torch.inf}


@NORMS
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_reaches_the_closed_form_on_a_linear_classifier(two_classes, norm, loss):
    classifier, images, labels = two_classes
    logits = classifier(images).detach()
    slope = (classifier.weight[0] - classifier.weight[1]).detach().norm(p=DUAL[norm])
    exact = (logits[:, 0] - logits[:, 1]).abs() / slope
    adversarial = fmn(classifier, images, labels, norm=norm, loss=loss)
    assert (classifier(adversarial).argmax(dim=1) != labels).all()
    torch.testing.assert_close(length(adversarial - images, norm=norm), exact, rtol=1e-6, atol=0)


@NORMS
def test_saturated_intensities_move_and_the_box_holds(linear, norm):
    random = torch.Generator().manual_seed(7)
    weight = torch.randn(2, 12, generator=random, dtype=torch.float64)
    images = (1.6 * torch.rand(20, 3, 2, 2, generator=random, dtype=torch.float64) - 0.3).clamp(0, 1)
    classifier = linear(weight, -0.5 * weight.sum(dim=1))
    logits = classifier(images).detach()
    gradient = (weight[1] - weight[0]).view(1, 3, 2, 2).expand_as(images)
    exact = length(onto(images, gradient, logits[:, 1] - logits[:, 0], norm=norm), norm=norm)
    adversarial = fmn(classifier, images, logits.argmax(dim=1), norm=norm)
    assert float(adversarial.min()) >= 0
    assert float(adversarial.max()) <= 1
    assert (classifier(adversarial).argmax(dim=1) != logits.argmax(dim=1)).all()
    torch.testing.assert_close(length(adversarial - images, norm=norm), exact, rtol=1e-3, atol=0)


@NORMS
def test_an_image_on_the_boundary_still_moves(linear, norm):
    """Two equal logits, of which the label wins by its place: the linearised margin asks for no step at all."""
    classifier = linear(
        torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64), torch.tensor([0.0, -1.5], dtype=torch.float64)
    )
    images, labels = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64), torch.tensor([0])
    assert classifier(images).argmax(dim=1) == labels
    adversarial = fmn(classifier, images, labels, norm=norm, steps=20)
    assert classifier(adversarial).argmax(dim=1) == 1
    assert float(length(adversarial - images, norm=norm)) < 1e-3


@NORMS
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_tiny_and_huge_logits_change_little(digits, norm, scale):
    network, images, labels = digits
    images, labels = images[:10], labels[:10]
    expected = length(fmn(network, images, labels, norm=norm, loss="margin", steps=20) - images, norm=norm)
    scaled = fmn(lambda x: network(x).double() * scale, images, labels, norm=norm, loss="margin", steps=20)
    torch.testing.assert_close(length(scaled - images, norm=norm), expected, rtol=0.02, atol=1e-6)


def test_an_image_costs_the_passes_that_are_promised(two_classes, counter):
    classifier, images, labels = two_classes
    watched = counter(classifier)
    fmn(watched, images, labels, steps=30)
    assert (watched.forwards, watched.backwards) == ((30 + 12) * len(images), 30 * len(images))
    watched = counter(classifier)
    assert torch.equal(fmn(watched, images, 1 - labels), images)
    assert (watched.forwards, watched.backwards) == (len(images), 0)


def test_a_constant_classifier_returns_the_images(two_classes):
    _, images, labels = two_classes
    logits = torch.tensor([1.0, 0.0], requires_grad=True)
    assert torch.equal(fmn(lambda x: logits.expand(len(x), 2), images, torch.zeros_like(labels), steps=3), images)


@NORMS
def test_is_as_near_as_that_of_foolbox(digits, norm):
    network, images, labels = digits
    right = (network(images).argmax(dim=1) == labels).nonzero().squeeze(1)[:60]
    images, labels = images[right], labels[right]
    names = {"linf": "LInfFMNAttack", "l2": "L2FMNAttack", "l1": "L1FMNAttack"}
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    _, found, broken = getattr(foolbox.attacks, names[norm])(steps=50)(model, images, labels, epsilons=None)
    network.zero_grad(set_to_none=True)
    assert broken.double().mean() > 0.5
    adversarial = fmn(network, images, labels, norm=norm, steps=50)
    assert (network(adversarial).argmax(dim=1) != labels).all()
    theirs, ours = (length(each - images, norm=norm)[broken].mean() for each in (found, adversarial))
    assert float(ours) <= 1.02 * float(theirs)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"gamma": 1.0}, {"step_size": 0.0}])
def test_settings_without_meaning_are_refused(two_classes, settings):
    with pytest.raises(
        SpecError, match=r"^fmn: expected steps of at least 1, gamma between 0 and 1 and step_size above 0"
    ):
        fmn(*two_classes, **settings)
