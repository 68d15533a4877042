import copy

import pytest
import torch

from unperturbed.attacks import fgsm, sweep


@pytest.mark.parametrize("eps", [0.01, 0.1, 0.3])
def test_linf_reaches_the_closed_form_optimum_on_a_linear_classifier(two_classes, eps):
    classifier, images, labels = two_classes
    weight = classifier.weight.detach()
    optimum = images + eps * (weight[1 - labels] - weight[labels]).sign().view_as(images)
    torch.testing.assert_close(fgsm(classifier, images, labels, eps=eps), optimum, rtol=0, atol=1e-12)


def test_l2_reaches_the_closed_form_optimum_on_a_linear_classifier(two_classes):
    classifier, images, labels = two_classes
    slope = (classifier.weight[1 - labels] - classifier.weight[labels]).detach()
    optimum = images + 0.2 * (slope / slope.norm(dim=1, keepdim=True)).view_as(images)
    torch.testing.assert_close(fgsm(classifier, images, labels, norm="l2", eps=0.2), optimum, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_agrees_with_the_gradient_of_the_cross_entropy(digits, norm):
    network, images, labels = digits
    images = images.double()
    network = copy.deepcopy(network).double()
    leaf = images.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(network(leaf), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, leaf)
    if norm == "linf":
        step = 0.1 * gradient.sign()
    else:
        step = 0.1 * gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    expected = (images + step).clamp(0, 1)
    torch.testing.assert_close(fgsm(network, images, labels, norm=norm, eps=0.1), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e3, 1e6])
def test_neither_a_confident_nor_a_faint_classifier_hides_its_gradient(two_classes, linear, scale):
    """In float32 the cross-entropy has gradient 0 once the logits differ by 104, and a wrong one from 17 on."""
    classifier, images, labels = two_classes
    plain = fgsm(classifier, images, labels, eps=0.1)
    scaled = linear(classifier.weight.detach().float() * scale, classifier.bias.detach().float() * scale)
    adversarial = fgsm(scaled, images.float(), labels, eps=0.1)
    torch.testing.assert_close(adversarial, plain.float(), rtol=0, atol=1e-6)


def test_is_right_for_confident_classifiers_with_three_classes(linear):
    """With p_y - 1 rounded to 0, the gradient would be that of the other logits alone and point the other way here."""
    weight = torch.tensor([[2.0], [1.0], [-1.0]])
    classifier = linear(weight, torch.tensor([40.0, 0.0, 0.0]))
    images, labels = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    assert float(fgsm(classifier, images, labels, eps=0.1)) == pytest.approx(0.4)


def test_the_rounded_gradient_is_that_of_the_cross_entropy_with_its_defect(digits):
    """Logits ten times as large: a fifth of the images has no gradient at all in float32, and accuracy seems higher."""
    network, images, labels = digits

    def confident(images):
        return 10 * network(images)

    leaf = images.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(confident(leaf), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, leaf)
    expected = (images + 0.1 * gradient.sign()).clamp(0, 1)
    rounded = fgsm(confident, images, labels, eps=0.1, exact=False)
    torch.testing.assert_close(rounded, expected, rtol=0, atol=1e-6)
    accuracy = {
        exact: sweep(confident, images, labels, fgsm, eps=[0.1], exact=exact).accuracy[0] for exact in (True, False)
    }
    assert accuracy[False] > accuracy[True] + 0.2
    assert sweep(network, images, labels, fgsm, eps=[0.1]).accuracy[0] == pytest.approx(accuracy[True], abs=0.03)


def test_negative_logits_are_attacked_like_any(two_classes, linear):
    classifier, images, labels = two_classes
    lowered = linear(classifier.weight.detach(), classifier.bias.detach() - 50.0)
    assert (lowered(images) < 0).all()
    expected = fgsm(classifier, images, labels, eps=0.1)
    torch.testing.assert_close(fgsm(lowered, images, labels, eps=0.1), expected, rtol=0, atol=1e-12)


def test_black_and_white_pixels_move_inwards(linear):
    weight = torch.tensor([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]])
    images = torch.tensor([1.0, 0.0, 0.0, 1.0]).view(1, 1, 2, 2)
    adversarial = fgsm(linear(weight), images, torch.tensor([0]), eps=0.25)
    torch.testing.assert_close(adversarial.flatten(), torch.tensor([0.75, 0.25, 0.0, 1.0]), rtol=0, atol=0)


def test_unclipped_images_leave_the_box(linear):
    weight = torch.tensor([[1.0], [-1.0]])
    images = torch.zeros(1, 1, 1, 1)
    assert float(fgsm(linear(weight), images, torch.tensor([0]), eps=0.25, clip=False)) == -0.25


def test_a_misclassified_image_is_attacked_with_its_true_label(tent, pixel):
    images, labels = pixel
    assert float(fgsm(tent, images, 1 - labels, eps=0.1)) == pytest.approx(0.4)


def test_a_constant_network_leaves_the_images_as_they_are(linear):
    images = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    adversarial = fgsm(linear(torch.zeros(2, 4)), images, torch.tensor([0, 1, 0]), eps=0.3)
    torch.testing.assert_close(adversarial, images, rtol=0, atol=0)
