import pytest
import torch

from unperturbed.attacks import judge
from unperturbed.records import SpecError


def darker(images):
    """Class 0 where the mean is below 0.5, else class 1."""
    mean = images.flatten(1).mean(dim=1)
    return torch.stack([0.5 - mean, mean - 0.5], dim=1)


IMAGES = torch.full((5, 1, 2, 2), 0.4)
LABELS = torch.zeros(5, dtype=torch.int64)


def _moved(*by):
    return IMAGES + torch.tensor(by).view(5, 1, 1, 1)


def test_success_is_misclassified_in_the_ball_and_in_the_box():
    adversarial = _moved(0.05, 0.2, 0.3, 0.7, -0.1)  # right; broken; broken but too far; too far and outside; right
    verdict = judge(darker, IMAGES, LABELS, adversarial, norm="linf", eps=0.2)
    assert verdict.prediction.tolist() == [0, 1, 1, 1, 0]
    assert verdict.in_ball.tolist() == [True, True, False, False, True]
    assert verdict.in_box.tolist() == [True, True, True, False, True]
    assert verdict.success.tolist() == [False, True, False, False, False]


def test_distances_are_those_of_the_images():
    offset = torch.zeros(5, 1, 2, 2)
    offset[:, 0, 0] = torch.tensor([0.3, -0.4])
    verdict = judge(darker, IMAGES, LABELS, IMAGES + offset, norm="l2", eps=0.5)
    torch.testing.assert_close(verdict.linf, torch.full((5,), 0.4, dtype=torch.float64), rtol=0, atol=1e-7)
    torch.testing.assert_close(verdict.l2, torch.full((5,), 0.5, dtype=torch.float64), rtol=0, atol=1e-7)
    assert verdict.in_ball.all()
    assert not judge(darker, IMAGES, LABELS, IMAGES + offset, norm="linf", eps=0.39).in_ball.any()
    assert not judge(darker, IMAGES, LABELS, IMAGES + offset, norm="l2", eps=0.49).in_ball.any()


@pytest.mark.parametrize(("beyond", "inside"), [(5e-7, True), (5e-6, False)])
def test_ball_and_box_are_held_to_a_millionth(beyond, inside):
    images = torch.full((1, 1, 2, 2), 0.9, dtype=torch.float64)
    verdict = judge(darker, images, LABELS[:1], images + 0.05 + beyond, norm="linf", eps=0.05)
    assert verdict.in_ball.tolist() == [inside]
    verdict = judge(darker, images, LABELS[:1], images * 0 + 1 + beyond, norm="linf", eps=0.2)
    assert verdict.in_box.tolist() == [inside]
    verdict = judge(darker, images, LABELS[:1], images * 0 - beyond, norm="linf", eps=1.0)
    assert verdict.in_box.tolist() == [inside]


def test_without_a_ball_only_the_box_binds_and_without_a_box_only_the_ball():
    adversarial = _moved(0.05, 0.2, 0.6, 0.7, -0.1)
    assert judge(darker, IMAGES, LABELS, adversarial, norm="linf", eps=None).success.tolist() == [0, 1, 1, 0, 0]
    unboxed = judge(darker, IMAGES, LABELS, adversarial, norm="linf", eps=0.7, box=False)
    assert unboxed.success.tolist() == [0, 1, 1, 1, 0]


def test_the_prediction_is_made_outside_autocast():
    seen = []

    def classifier(images):
        seen.append((torch.is_autocast_enabled("cpu"), torch.is_grad_enabled()))
        return darker(images)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        judge(classifier, IMAGES, LABELS, IMAGES, norm="linf", eps=0.1)
    assert seen == [(False, False)]


def test_adversarial_images_of_another_shape_are_refused():
    message = r"^judge: expected adversarial images of shape \(5, 1, 2, 2\); got \(4, 1, 2, 2\)$"
    with pytest.raises(SpecError, match=message):
        judge(darker, IMAGES, LABELS, IMAGES[:4], norm="linf", eps=0.1)
