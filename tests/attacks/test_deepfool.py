"""DeepFool: exact on linear classifiers, cheap on others, and no further than Foolbox's."""

import warnings

import pytest
import torch

from unperturbed.attacks.deepfool import deepfool
from unperturbed.attacks.nearest import onto
from unperturbed.records import SpecError
from unperturbed.tensors.norms import length

with warnings.catch_warnings():
    # Foolbox 3.3.4 imports eagerpy and GitPython with what they deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    import foolbox

NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])
DUAL = {"linf": 1, "l2": 2}


def _exact(classifier, images, norm):
    logits = classifier(images).detach()
    slope = (classifier.weight[0] - classifier.weight[1]).detach().norm(p=DUAL[norm])
    return (logits[:, 0] - logits[:, 1]).abs() / slope


@NORMS
def test_one_step_is_the_closed_form_and_the_overshoot_on_a_linear_classifier(two_classes, counter, norm):
    classifier, images, labels = two_classes
    exact = _exact(classifier, images, norm)
    near = exact < 0.3  # the box does not bind
    images, labels, exact = images[near], labels[near], exact[near]
    watched = counter(classifier)
    adversarial = deepfool(watched, images, labels, norm=norm, draw_in=False)
    assert (classifier(adversarial).argmax(dim=1) != labels).all()
    torch.testing.assert_close(length(adversarial - images, norm=norm), 1.02 * exact, rtol=1e-9, atol=0)
    assert watched.forwards == 3 * len(images)
    assert watched.backwards == len(images)
    adversarial = deepfool(watched, images, labels, norm=norm)
    assert watched.forwards == (3 + 13) * len(images)
    torch.testing.assert_close(length(adversarial - images, norm=norm), exact, rtol=1e-6, atol=0)
    assert (classifier(adversarial).argmax(dim=1) != labels).all()


@NORMS
def test_where_the_box_binds_the_step_goes_on_with_the_other_intensities(linear, norm):
    random = torch.Generator().manual_seed(7)
    weight = torch.randn(2, 12, generator=random, dtype=torch.float64)
    images = (1.6 * torch.rand(20, 3, 2, 2, generator=random, dtype=torch.float64) - 0.3).clamp(0, 1)
    classifier = linear(weight, -0.5 * weight.sum(dim=1))
    logits = classifier(images).detach()
    gradient = (weight[1] - weight[0]).view(1, 3, 2, 2).expand_as(images)
    exact = length(onto(images, gradient, logits[:, 1] - logits[:, 0], norm=norm), norm=norm)
    assert (exact > 1.01 * _exact(classifier, images, norm)).double().mean() > 0.5
    adversarial = deepfool(classifier, images, logits.argmax(dim=1), norm=norm, draw_in=False)
    assert (classifier(adversarial).argmax(dim=1) != logits.argmax(dim=1)).all()
    assert float(adversarial.min()) >= 0
    assert float(adversarial.max()) <= 1
    ratio = length(adversarial - images, norm=norm) / exact
    assert float(ratio.min()) > 1 - 1e-9
    assert float(ratio.max()) < 1.02 + 1e-9


@NORMS
def test_the_nearest_of_several_classes_is_taken_and_candidates_limit_them(linear, counter, norm):
    """Class 1 has the larger logit, class 2 the nearer boundary."""
    weight = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 8.0]], dtype=torch.float64)
    watched = counter(linear(weight, torch.tensor([0.0, -0.35, -4.5], dtype=torch.float64)))
    images, labels = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64), torch.tensor([0])
    found = deepfool(watched, images, labels, norm=norm, draw_in=False)
    assert (found - images).flatten().tolist() == pytest.approx([0.0, 1.02 * 0.5 / 8])
    assert watched.backwards == 2
    found = deepfool(watched, images, labels, norm=norm, candidates=2, draw_in=False)
    assert (found - images).flatten().tolist() == pytest.approx([1.02 * 0.2, 0.0])
    assert watched.backwards == 2 + 1
    found = deepfool(watched, images, labels, norm=norm, targets=torch.tensor([1]), draw_in=False)
    assert (found - images).flatten().tolist() == pytest.approx([1.02 * 0.2, 0.0])


def test_a_broken_image_leaves_at_once(digits, counter):
    network, images, labels = digits
    right = (network(images).argmax(dim=1) == labels).nonzero().squeeze(1)[:30]
    images, labels = images[right], labels[right]
    watched = counter(network)
    deepfool(watched, images, labels, candidates=3, draw_in=False)
    gone = 0
    for looked in watched.seen[2::2]:  # the image; then each time the linearisation and the look
        assert len(looked) == 30 - gone
        gone += int((network(looked).detach().argmax(dim=1) != labels[_which(looked, images)]).sum())
    assert gone == 30
    assert watched.backwards == 2 * (watched.forwards - 30) // 2
    assert watched.forwards < 8 * 30


def _which(points, images):
    return torch.cdist(points.flatten(1), images.flatten(1)).argmin(dim=1)


@NORMS
def test_no_image_depends_on_the_others_or_on_the_scale_of_the_logits(digits, norm):
    network, images, labels = digits
    images, labels = images[:10].double(), labels[:10]

    def classifier(images, scale=1.0):
        return (
            torch.func.functional_call(network, {k: v.double() for k, v in network.named_parameters()}, images) * scale
        )

    whole = deepfool(classifier, images, labels, norm=norm)
    order = torch.tensor([7, 2, 5, 0])
    again = deepfool(classifier, images[order], labels[order], norm=norm)
    torch.testing.assert_close(again, whole[order], rtol=0, atol=1e-9)
    for scale in (1e-30, 1e30):
        scaled = deepfool(lambda x, scale=scale: classifier(x, scale), images, labels, norm=norm)
        torch.testing.assert_close(scaled, whole, rtol=0, atol=1e-6)


def test_a_constant_classifier_returns_the_images_and_a_wrong_class_costs_one_forward(two_classes, counter):
    classifier, images, labels = two_classes
    logits = torch.tensor([1.0, 0.0], requires_grad=True)
    zeros = torch.zeros_like(labels)
    assert torch.equal(deepfool(lambda x: logits.expand(len(x), 2), images, zeros, steps=3), images)
    watched = counter(classifier)
    assert torch.equal(deepfool(watched, images, 1 - labels), images)
    assert (watched.forwards, watched.backwards) == (len(images), 0)


@NORMS
def test_is_as_near_as_that_of_foolbox_at_a_third_of_its_passes(digits, counter, norm):
    network, images, labels = digits
    right = (network(images).argmax(dim=1) == labels).nonzero().squeeze(1)[:60]
    images, labels = images[right], labels[right]
    kind = {"linf": foolbox.attacks.LinfDeepFoolAttack, "l2": foolbox.attacks.L2DeepFoolAttack}[norm]
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    _, found, broken = kind(steps=50, overshoot=0.02)(model, images, labels, epsilons=None)
    network.zero_grad(set_to_none=True)
    assert broken.all()
    theirs = float(length(found - images, norm=norm).mean())
    watched = counter(network)
    adversarial = deepfool(watched, images, labels, norm=norm)
    assert (network(adversarial).argmax(dim=1) != labels).all()
    assert float(length(adversarial - images, norm=norm).mean()) <= 1.02 * theirs
    assert watched.forwards + watched.backwards <= (57 + 55) / 3 * len(images)


@pytest.mark.parametrize(
    ("settings", "got"),
    [({"steps": 0}, "0, 10 and 0.02"), ({"candidates": 1}, "50, 1 and 0.02"), ({"overshoot": -0.1}, "50, 10 and -0.1")],
)
def test_settings_without_meaning_are_refused(two_classes, settings, got):
    with pytest.raises(SpecError, match=rf"^deepfool: expected steps of at least 1, candidates of .*; got {got}$"):
        deepfool(*two_classes, **settings)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_crosses_the_boundary_of_every_image(digits, norm):
    network, images, labels = digits
    images, labels = images[:200], labels[:200]
    adversarial = deepfool(network, images, labels, norm=norm)
    assert (network(adversarial).argmax(dim=1) != labels).all()
