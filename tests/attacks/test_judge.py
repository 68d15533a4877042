import pytest
import torch

from unperturbed.attacks import judge
from unperturbed.attacks.judge import quantise
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


def test_targets_are_what_counts_as_a_success():
    def three(images):
        mean = images.flatten(1).mean(dim=1)
        return torch.stack([0.5 - mean, mean - 0.5, mean * 0 + 0.2], dim=1)  # 0 below 0.3, 2 in the middle, 1 above 0.7

    adversarial = torch.tensor([0.1, 0.5, 0.9]).view(3, 1, 1, 1).expand(-1, 1, 2, 2)
    images, labels = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.int64)
    for targets, expected in ((None, [0, 1, 1]), ([1, 1, 1], [0, 0, 1]), ([2, 2, 2], [0, 1, 0])):
        chosen = None if targets is None else torch.tensor(targets)
        verdict = judge(three, images, labels, adversarial, norm="linf", eps=0.5, targets=chosen)
        assert verdict.prediction.tolist() == [0, 2, 1]
        assert verdict.success.tolist() == expected


def test_the_majority_of_the_votes_is_the_prediction():
    def mostly_right(images):
        wrong = (torch.rand(len(images), 1) < 0.3).to(images.dtype)
        return torch.cat([1 - 2 * wrong, wrong * 0], dim=1)

    images, labels = torch.full((400, 1, 2, 2), 0.4), torch.zeros(400, dtype=torch.int64)
    wrong = [
        int(judge(mostly_right, images, labels, images, norm="linf", eps=0.1, votes=votes).success.sum())
        for votes in (1, 3, 31)
    ]
    assert 80 < wrong[0] < 160  # 0.3 of 400: 120, four standard errors 37
    assert 50 < wrong[1] < 125  # 0.216 of 400: 86
    assert wrong[2] < 15  # 0.015 of 400: 6
    state = torch.get_rng_state()
    first, again = (judge(mostly_right, images, labels, images, norm="linf", eps=0.1, seed=4) for _ in range(2))
    other = judge(mostly_right, images, labels, images, norm="linf", eps=0.1, seed=5)
    assert first.prediction.tolist() == again.prediction.tolist() != other.prediction.tolist()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("levels", [2, 6, 256])
@pytest.mark.parametrize("a_file_itself", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_file_holds_the_nearest_level_that_is_no_further(levels, a_file_itself, dtype):
    random = torch.Generator().manual_seed(0)
    images = torch.rand(50, 3, 8, 8, generator=random, dtype=dtype)
    if a_file_itself:
        images = (images * (levels - 1)).round() / (levels - 1)
    moved = (images + 0.3 * torch.randn(50, 3, 8, 8, generator=random, dtype=dtype)).clamp(0, 1)
    moved[:10] = images[:10]
    stored = quantise(moved, images, levels=levels)
    assert stored.dtype == dtype
    assert ((stored - images).abs() <= (moved - images).abs() + 1.01e-6).all()  # to the round-off of the ball
    steps = stored * (levels - 1)
    of_a_file = (steps - steps.round()).abs() < 1e-4
    if a_file_itself:
        assert of_a_file.all()
        torch.testing.assert_close(stored[:10], images[:10], rtol=0, atol=1e-6)
    else:  # only where there is no level between image and adversarial image, its own intensity stays
        assert torch.equal(stored[~of_a_file], images[~of_a_file])
        low, high = torch.minimum(images, moved) * (levels - 1), torch.maximum(images, moved) * (levels - 1)
        assert (low.ceil() > high)[~of_a_file].float().mean() > 0.99
    # Nowhere is a level both nearer to the adversarial image and allowed.
    for other in range(levels) if levels < 10 else ():
        level = other / (levels - 1)
        allowed = (level - images).abs() <= (moved - images).abs()
        assert ((level - moved).abs() >= (stored - moved).abs() - 1e-6)[allowed].all()


def test_a_level_is_judged_and_not_what_the_attack_returned():
    """Of 0.58 a file of six levels holds 0.6, which is too far, and so 0.4, which is not broken."""
    images, adversarial = torch.full((1, 1, 2, 2), 0.2), torch.full((1, 1, 2, 2), 0.58)
    plain, filed = (
        judge(darker, images, LABELS[:1], adversarial, norm="linf", eps=0.38, levels=levels) for levels in (None, 6)
    )
    assert plain.success.tolist() == [True]
    assert filed.success.tolist() == [False]
    assert float(filed.linf) == pytest.approx(0.2)
