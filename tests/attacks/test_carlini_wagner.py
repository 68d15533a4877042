"""Carlini and Wagner: closed form, the traps of other implementations, and those implementations as referees."""

import math
import warnings

import pytest
import torch
from torch import nn

from unperturbed.attacks import Passes, carlini_wagner, judge
from unperturbed.records import SpecError


def _distance(classifier, images, labels, adversarial):
    verdict = judge(classifier, images, labels, adversarial, norm="l2", eps=None)
    assert verdict.in_box.all()
    return verdict


def test_reaches_the_closed_form_on_a_linear_classifier(two_classes):
    classifier, images, labels = two_classes
    logits = classifier(images)
    margin = (logits[:, 0] - logits[:, 1]).abs().detach()
    expected = margin / (classifier.weight[0] - classifier.weight[1]).detach().norm()
    adversarial = carlini_wagner(classifier, images, labels, steps=300)
    verdict = _distance(classifier, images, labels, adversarial)
    assert verdict.success.all()
    assert (verdict.distance >= expected * (1 - 1e-9)).all()
    # A step of Adam moves 12 intensities by up to 0.005 each, 0.017 in all: what is left is a third of one step.
    torch.testing.assert_close(verdict.distance, expected, rtol=0, atol=0.006)


@pytest.mark.parametrize("shift", [-1000.0, 0.0])
def test_negative_logits_have_a_gradient(two_classes, shift):
    classifier, images, labels = two_classes
    adversarial = carlini_wagner(lambda x: classifier(x) + shift, images, labels, steps=100)
    assert _distance(classifier, images, labels, adversarial).success.all()


def test_saturated_intensities_move_within_a_hundred_steps():
    def brightness(images):
        mean = images.flatten(1).mean(dim=1)
        return torch.stack([0.9 - mean, mean - 0.9], dim=1)

    white = torch.ones(1, 1, 4, 4)
    adversarial = carlini_wagner(brightness, white, torch.tensor([1]), steps=100)
    verdict = _distance(brightness, white, torch.tensor([1]), adversarial)
    assert verdict.success.all()
    assert float(verdict.distance) < 1.1 * 0.1 * math.sqrt(16)  # the nearest point darkens all by 0.1


def test_the_result_does_not_depend_on_the_batch_or_the_order(digits):
    network, images, labels = digits
    network, images, labels = nn.Sequential(network).double(), images[:24].double(), labels[:24]
    try:
        together = carlini_wagner(network, images, labels, steps=30)
        order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
        apart = torch.cat([carlini_wagner(network, images[part], labels[part], steps=30) for part in order.split(5)])
    finally:
        network.float()
    # float64 sums differ by rounding, which hundreds of steps of Adam amplify
    torch.testing.assert_close(apart, together[order], rtol=0, atol=1e-6)


def test_targets_and_masks_are_kept(digits):
    network, images, labels = digits
    images, labels = images[:16], labels[:16]
    targets = (labels + 1) % 10
    mask = torch.zeros_like(images[:1])
    mask[..., 8:] = 1
    adversarial = carlini_wagner(network, images, labels, steps=100, targets=targets, mask=mask)
    changed = (adversarial != images).flatten(1).any(dim=1)
    assert torch.equal(adversarial[..., :8], images[..., :8])
    assert (network(adversarial).argmax(dim=1) == targets)[changed].all()
    assert changed.sum() >= 8


def test_a_constant_classifier_returns_the_images(linear):
    images = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    constant = linear(torch.zeros(3, 4), torch.tensor([1.0, 0.0, 0.0]))
    assert torch.equal(carlini_wagner(constant, images, torch.zeros(3, dtype=torch.int64), steps=10), images)


def test_confidence_is_reached(digits):
    network, images, labels = digits
    images, labels = images[:16], labels[:16]
    adversarial = carlini_wagner(network, images, labels, steps=200, confidence=1.0)
    logits = network(adversarial).detach()
    true = logits.gather(1, labels[:, None])[:, 0]
    other = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    attacked = network(images).argmax(dim=1) == labels
    assert ((other - true)[attacked] >= 1.0 - 1e-4).all()


def test_settings_out_of_range_are_refused(digits):
    network, images, labels = digits
    with pytest.raises(SpecError, match=r"initial_const above 0, or None; got -1"):
        carlini_wagner(network, images[:1], labels[:1], initial_const=-1.0)
    with pytest.raises(SpecError, match=r"steps of at least 1, .*; got 9, 0, 0\.01 and 0"):
        carlini_wagner(network, images[:1], labels[:1], steps=0)


def _foolbox(network, images, labels):
    import foolbox

    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=9, steps=100)
    _, found, success = attack(model, images, labels, epsilons=None)
    return torch.where(success[:, None, None, None], found, images)  # what it did not break comes back black


def _torchattacks(network, images, labels):
    import torchattacks

    return torchattacks.CW(network, c=10, steps=900, lr=0.01)(images, labels)


def _art(network, images, labels):
    from art.attacks.evasion import CarliniL2Method
    from art.estimators.classification import PyTorchClassifier

    wrapped = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), tuple(images.shape[1:]), 10, clip_values=(0.0, 1.0), device_type="cpu"
    )
    attack = CarliniL2Method(wrapped, binary_search_steps=9, max_iter=100, batch_size=len(images), verbose=False)
    return torch.tensor(attack.generate(images.numpy(), labels.numpy()))


@pytest.mark.parametrize("peer", [_foolbox, _torchattacks, _art])
def test_no_peer_is_nearer_at_nine_times_a_hundred(digits, peer):
    network, images, labels = digits
    count = 4 if peer is _art else 24  # ART searches the step size as well, at some thousand passes an image
    images, labels = images[:count], labels[:count]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the peers
        theirs = peer(network, images, labels)
    for parameter in network.parameters():
        parameter.grad = None  # some of them write it
    other = _distance(network, images, labels, theirs)
    for initial_const in (1e-3, None):
        passes = Passes(network)
        ours = carlini_wagner(passes, images, labels, steps=100, initial_const=initial_const)
        mine = _distance(network, images, labels, ours)
        assert mine.success.double().mean() >= other.success.double().mean()
        both = mine.success & other.success
        assert float(mine.distance[both].mean()) <= float(other.distance[both].mean())
        assert passes.backwards <= 9 * 100 * len(images)
