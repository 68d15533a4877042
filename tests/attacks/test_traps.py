"""Traps that published attacks have fallen into, each of which looks like robustness."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from unperturbed.attacks import fgsm, judge, noise_search, pgd, sweep
from unperturbed.attacks.expectation import expectation


@pytest.fixture(scope="module")
def dense(digits):
    """A second network: fully connected, trained on 300 of the images that the first one was tested on."""
    _, images, labels = digits
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = nn.Sequential(
            nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
        )
        optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(40):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images[:300]), labels[:300]).backward()
            optimiser.step()
        optimiser.zero_grad()
    return network.eval(), images, labels


def _accuracy(classifier, images, labels, attack, *, eps, **settings):
    return float(sweep(classifier, images, labels, attack, eps=[eps], batch_size=len(images), **settings).accuracy[0])


# Logits


@pytest.mark.parametrize("attack", [fgsm, pgd])
@pytest.mark.parametrize("shift", [-1e3, 1e3])
def test_logits_that_are_all_negative_or_all_positive(digits, attack, shift):
    """Carlini and Wagner with a mask by multiplication takes 0 for the largest wrong logit, and has no gradient."""
    network, images, labels = copy.deepcopy(digits[0]).double(), digits[1][:60].double(), digits[2][:60]
    settings = {} if attack is fgsm else {"steps": 10}
    for loss in ["ce"] if attack is fgsm else ["ce", "margin", "dlr"]:
        chosen = settings if attack is fgsm else {**settings, "loss": loss}
        expected = attack(network, images, labels, eps=0.05, **chosen)
        found = attack(lambda images: network(images) + shift, images, labels, eps=0.05, **chosen)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("loss", ["margin", "dlr"])
@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e3, 1e8])
def test_the_scale_of_the_logits_hides_nothing(digits, loss, scale, dtype):
    network, images, labels = copy.deepcopy(digits[0]).to(dtype), digits[1][:60].to(dtype), digits[2][:60]
    settings = {"norm": "l2", "eps": 0.7, "steps": 10, "loss": loss}
    plain = _accuracy(network, images, labels, pgd, **settings)
    scaled = _accuracy(lambda images: network(images) * scale, images, labels, pgd, **settings)
    assert plain < 0.6
    assert scaled == pytest.approx(plain, abs=2.01 / 60)  # rounding decides for the nearest images


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_the_cross_entropy_has_limits_for_faint_and_for_confident_networks(digits, attack, dtype):
    """Its weights of the wrong classes depend on the scale: equal for faint logits, all on the nearest for large ones."""
    network, images, labels = copy.deepcopy(digits[0]).to(dtype), digits[1][:60].to(dtype), digits[2][:60]
    settings = {"norm": "linf", "eps": 0.1, **({} if attack is fgsm else {"steps": 10})}
    left = {
        scale: _accuracy(lambda images: network(images) * scale, images, labels, attack, **settings)  # noqa: B023
        for scale in (1e-8, 1e-3, 1e3, 1e8)
    }
    clean = float((network(images).argmax(dim=1) == labels).float().mean())
    assert max(left.values()) < clean - 0.15
    assert left[1e-8] == pytest.approx(left[1e-3], abs=2.01 / 60)
    assert left[1e8] == pytest.approx(left[1e3], abs=2.01 / 60)


@pytest.mark.parametrize("loss", ["ce", "rounded_ce", "margin", "dlr"])
def test_every_loss_breaks_an_undefended_network(digits, loss):
    network, images, labels = digits[0], digits[1][:100], digits[2][:100]
    assert _accuracy(network, images, labels, pgd, eps=0.15, steps=15, loss=loss) < 0.1


def test_the_cross_entropy_as_usual_code_has_it_loses_what_the_exact_one_finds(digits):
    network, images, labels = digits[0], digits[1][:100], digits[2][:100]

    def confident(images):
        return 100 * network(images)

    usual, exact = (
        _accuracy(confident, images, labels, pgd, eps=0.05, steps=10, loss=loss, random_start=False)
        for loss in ("rounded_ce", "ce")
    )
    assert usual > exact + 0.2


# FGSM


def test_fgsm_does_something_where_the_gradient_of_usual_code_is_zero(digits):
    """Captum 0.8 returns the images of a confident network as they are: the rounded gradient has no sign."""
    network, images, labels = digits[0], digits[1][:100], digits[2][:100]

    def confident(images):
        return 1000 * network(images)

    right = confident(images).argmax(dim=1) == labels
    leaf = images.clone().requires_grad_()
    loss = nn.functional.cross_entropy(confident(leaf), labels, reduction="sum")
    (usual,) = torch.autograd.grad(loss, leaf)
    without = (usual.flatten(1) == 0).all(dim=1) & right
    assert int(without.sum()) > 80
    found = fgsm(confident, images, labels, eps=0.05)
    assert ((found - images).abs().flatten(1).amax(dim=1)[without] > 0.0499).all()
    assert judge(confident, images, labels, found, norm="linf", eps=0.05).success[without].float().mean() > 0.2


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_fgsm_does_something_to_every_image(digits, norm):
    network, images, labels = digits
    found = fgsm(network, images, labels, norm=norm, eps=0.03)
    assert (found != images).flatten(1).any(dim=1).float().mean() > 0.99


# Pixels at the edge of the box


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_black_and_white_pixels_can_change(linear, norm):
    """As tanh(w) they could not: the inverse is infinite there, and its gradient 0."""
    weight = torch.tensor([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]])
    images = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 1, 2, 2)
    eps = {"linf": 0.25, "l2": 0.5}[norm]
    for attack in (fgsm, pgd):
        found = attack(linear(weight, torch.tensor([9.0, 0.0])), images, torch.tensor([0]), norm=norm, eps=eps)
        expected = torch.tensor([0.75, 0.25, 0.75, 0.25])
        # A random start leaves a part across the gradient: 40 steps shorten it by 1.25 each.
        torch.testing.assert_close(found.flatten(), expected, rtol=0, atol=1e-3)


def test_a_picture_of_black_and_white_alone_is_broken(digits):
    network, images, labels = digits[0], (digits[1][:100] > 0.5).float(), digits[2][:100]
    clean = float((network(images).argmax(dim=1) == labels).float().mean())
    for norm, eps in (("linf", 0.3), ("l2", 3.0)):
        assert clean > 0.8
        assert _accuracy(network, images, labels, pgd, norm=norm, eps=eps, steps=20) < 0.05


# Starts


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("linf", 0.1), ("l2", 0.5), ("l2", 1.0)])
@pytest.mark.parametrize("which", ["digits", "dense"])
def test_a_random_start_is_not_worse_than_none(request, which, norm, eps):
    """torchattacks and others are weaker with one. Which local maximum is found differs: means over two seeds."""
    network, images, labels = request.getfixturevalue(which)
    images, labels = images[300:450], labels[300:450]
    settings = {"norm": norm, "eps": eps, "steps": 20}
    none = _accuracy(network, images, labels, pgd, random_start=False, **settings)
    seeds = [_accuracy(network, images, labels, pgd, seed=seed, **settings) for seed in (0, 1)]
    assert 0 < none < 0.95
    assert np.mean(seeds) <= none + 0.02  # three images of 150


def test_restarts_only_help(digits):
    network, images, labels = digits[0], digits[1][:150], digits[2][:150]
    one, three = (
        sweep(network, images, labels, pgd, eps=[0.08], steps=10, restarts=restarts, batch_size=150)
        for restarts in (1, 3)
    )
    assert (three.correct <= one.correct).all()  # the first is the same
    none = _accuracy(network, images, labels, pgd, eps=0.08, steps=10, random_start=False)
    assert three.accuracy[0] <= min(none, one.accuracy[0])


def test_restarts_start_elsewhere():
    """One flat image with a small hole: the chance to start in it is a tenth each time."""

    def hole(images):
        x = images.flatten(1)[:, 0]
        inside = ((x - 0.6).abs() < 0.02).to(x.dtype)
        return torch.stack([1 - inside, 2 * inside], dim=1) + 0 * x.unsqueeze(1)  # so that there is a gradient, of 0

    images = torch.full((40, 1, 1, 2), 0.5)
    images[:, 0, 0, 1] = torch.arange(40) / 40  # not seen by the classifier, but it gives streams of their own
    labels = torch.zeros(40, dtype=torch.int64)
    broken = [
        judge(hole, images, labels, pgd(hole, images, labels, eps=0.2, steps=1, restarts=restarts, loss="margin",
              step_size=1e-9, published=True), norm="linf", eps=0.2).success.float().mean()
        for restarts in (1, 20)
    ]  # fmt: skip
    assert broken[0] < 0.4
    assert broken[1] > 0.7  # 1 - 0.9^20 = 0.88


# Iterates


def test_the_last_iterate_would_not_do(tent, pixel):
    """Steps of 0.12 cross a band of 0.1: at 0.62 the image is broken, at 0.74 and at 0.5 it is not."""
    images, labels = pixel
    found = pgd(tent, images, labels, eps=0.3, steps=4, step_size=0.12, random_start=False)
    assert judge(tent, images, labels, found, norm="linf", eps=0.3).success.all()
    last = 0.5
    for _ in range(4):
        last += 0.12 if last < 0.65 else -0.12
    assert tent(torch.tensor([[[[last]]]])).argmax(dim=1) == 0


def test_the_best_of_a_wavy_loss_is_kept():
    """Sums of sines rise and fall many times within the ball; the last iterate is the best one for few images only."""

    def waves(images):
        margin = torch.sin(40 * images.flatten(1)).sum(dim=1)
        return torch.stack([torch.zeros_like(margin) + 3.8, margin], dim=1)

    random = torch.Generator().manual_seed(0)
    images = 0.2 + 0.6 * torch.rand(200, 1, 2, 2, generator=random, dtype=torch.float64)
    labels = torch.zeros(200, dtype=torch.int64)
    keep = waves(images).argmax(dim=1) == 0
    images, labels = images[keep], labels[keep]
    seen = []

    def watched(points):
        seen.append(points.detach().clone())
        return waves(points)

    found = pgd(watched, images, labels, eps=0.1, steps=20, persist=True)
    margins = torch.stack([waves(points)[:, 1] for points in seen])
    best = waves(found)[:, 1]
    torch.testing.assert_close(best, margins.amax(dim=0), rtol=0, atol=1e-12)
    broken = (best > 3.8).float().mean()
    assert broken > (margins[-1] > 3.8).float().mean() + 0.1


@pytest.mark.parametrize("attack", [fgsm, pgd, noise_search])
def test_a_radius_of_zero_changes_nothing_and_costs_no_accuracy(digits, attack):
    network, images, labels = digits[0], digits[1][:50], digits[2][:50]
    settings = {pgd: {"steps": 3}, noise_search: {"draws": 3}}.get(attack, {})
    assert torch.equal(attack(network, images, labels, eps=0.0, **settings), images)
    clean = float((network(images).argmax(dim=1) == labels).float().mean())
    assert _accuracy(network, images, labels, attack, eps=0.0, **settings) == pytest.approx(clean)


@pytest.mark.parametrize("attack", [fgsm, pgd, noise_search])
def test_a_constant_network_keeps_its_accuracy_at_any_radius(digits, attack):
    """Foolbox's minimisation attacks return black images for it, and count those."""
    _, images, labels = digits
    images, labels = images[:50], labels[:50]
    settings = {pgd: {"steps": 3}, noise_search: {"draws": 3}}.get(attack, {})

    def constant(images):
        return torch.eye(10)[3].expand(len(images), 10) + 0 * images.sum(dim=(1, 2, 3)).unsqueeze(1)

    expected = float((labels == 3).float().mean())
    for eps in (0.1, 1.0):
        assert _accuracy(constant, images, labels, attack, eps=eps, **settings) == pytest.approx(expected)


# Few classes


@pytest.mark.parametrize(
    ("classes", "targeted", "remark"),
    [
        (2, False, "dlr needs 3 classes and the classifier has 2: the margin stood in for it"),
        (3, False, None),
        (3, True, "dlr towards a class needs 4 classes and the classifier has 3: the margin stood in for it"),
        (4, True, None),
    ],
)
def test_too_few_classes_for_dlr_are_attacked_by_the_margin_and_said(linear, classes, targeted, remark):
    random = torch.Generator().manual_seed(0)
    classifier = linear(torch.randn(classes, 12, generator=random, dtype=torch.float64))
    images = 0.4 + 0.2 * torch.rand(30, 3, 2, 2, generator=random, dtype=torch.float64)
    labels = classifier(images).argmax(dim=1)
    plugs = {"targets": (labels + 1) % classes} if targeted else {}
    by_dlr, by_margin = (
        sweep(classifier, images, labels, pgd, eps=[0.3], loss=loss, steps=20, **plugs) for loss in ("dlr", "margin")
    )
    assert by_dlr.remarks == (() if remark is None else (remark,))
    assert by_margin.remarks == ()
    assert by_dlr.accuracy[0] < 0.5
    assert by_dlr.accuracy[0] == pytest.approx(by_margin.accuracy[0], abs=0.07)  # two images of 30


# Files and ranges


@pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("linf", 0.03), ("l2", 0.5), ("l1", 3.0)])
def test_rounding_to_a_file_keeps_the_ball_and_the_box(digits, norm, eps):
    network, images, labels = digits[0], (digits[1][:80] * 255).round() / 255, digits[2][:80]
    attack, settings = (noise_search, {"draws": 20}) if norm == "l1" else (pgd, {"steps": 10})
    plain, filed = (
        sweep(network, images, labels, attack, eps=[eps], norm=norm, levels=levels, keep=80, **settings)
        for levels in (None, 256)
    )
    assert not filed.refused.any()
    stored = torch.from_numpy(filed.adversarial[0])
    torch.testing.assert_close(stored * 255, (stored * 255).round(), rtol=0, atol=1e-4)
    verdict = judge(network, images, labels, stored, norm=norm, eps=eps)
    assert verdict.in_ball.all()
    assert verdict.in_box.all()
    assert verdict.prediction.tolist() == filed.prediction[0].tolist()
    assert plain.accuracy[0] <= filed.accuracy[0] + 1 / 80
    assert filed.accuracy[0] < 1


@pytest.mark.parametrize("bounds", [(0.0, 255.0), (-1.0, 1.0), (-0.5, 3.5)])
@pytest.mark.parametrize(
    ("attack", "settings"), [(fgsm, {}), (pgd, {"steps": 8}), (pgd, {"steps": 8, "step_size": 0.02})]
)
def test_images_in_another_range_are_as_robust(digits, attack, settings, bounds):
    network, images, labels = copy.deepcopy(digits[0]).double(), digits[1][:60].double(), digits[2][:60]
    low, high = bounds
    scale = high - low
    theirs = images * scale + low
    settings_there = {**settings, "step_size": 0.02 * scale} if "step_size" in settings else settings
    here = sweep(network, images, labels, attack, eps=[0.0, 0.05, 0.1], keep=5, **settings)
    there = sweep(
        *(lambda shown: network((shown - low) / scale), theirs, labels, attack),
        eps=[0.0, 0.05 * scale, 0.1 * scale],
        bounds=bounds,
        keep=5,
        **settings_there,
    )
    # Rescaled images are not those to the last digit, and so have other random starts.
    assert there.accuracy.tolist() == pytest.approx(here.accuracy.tolist(), abs=2.01 / 60)
    if attack is fgsm:
        assert there.correct.tolist() == here.correct.tolist()
        np.testing.assert_allclose(there.critical_eps, here.critical_eps * scale, rtol=1e-12)
    np.testing.assert_allclose(there.originals, theirs[:5], rtol=0, atol=1e-5 * scale)
    assert (there.linf <= np.array([0.0, 0.05, 0.1])[:, None] * scale * (1 + 1e-5)).all()
    assert there.linf[2].max() > 0.09 * scale
    assert there.adversarial.min() >= low - 1e-5 * scale
    assert there.adversarial.max() <= high + 1e-5 * scale


# Random classifiers


@pytest.fixture
def noisy(digits):
    network = digits[0]
    return lambda images: network(images + 0.5 * torch.randn_like(images)), digits[1][:80], digits[2][:80]


def test_gradients_over_many_draws_beat_those_of_one(noisy):
    settings = {"eps": 0.1, "steps": 10, "persist": True}
    left = []
    for eot in (1, 16):
        adversarial = pgd(*noisy, eot=eot, **settings)
        left.append(expectation(noisy[0], adversarial, noisy[2], draws=20, seed=5).mean)
    assert left[1] < left[0] - 0.03


def test_the_judge_draws_what_no_attack_has_seen(noisy):
    """The draws of judge and attack differ, and those of clean and attacked images too."""
    classifier, images, labels = noisy
    drawn = []

    def recording(images):
        drawn.append(torch.randn(3).tolist())
        return classifier(images)

    found = pgd(recording, images, labels, eps=0.0, steps=5, persist=True)
    by_attack = [tuple(each) for each in drawn]
    drawn.clear()
    judge(recording, images, labels, found, norm="linf", eps=0.0, votes=9)
    by_judge = [tuple(each) for each in drawn]
    assert len(by_judge) == len(set(by_judge)) == 9
    assert set(by_attack).isdisjoint(by_judge)


def test_a_majority_of_votes_is_judged(noisy):
    classifier, images, labels = noisy
    one, many = (
        sweep(classifier, images, labels, pgd, eps=[0.0, 0.03], steps=3, votes=votes, batch_size=80)
        for votes in (1, 25)
    )
    votes = expectation(classifier, images, labels, draws=25)
    assert many.accuracy[0] == pytest.approx(votes.vote, abs=0.08)  # other draws: three standard errors of 80 images
    assert many.accuracy[0] > votes.mean
    assert many.forwards > one.forwards
    assert one.accuracy[0] == pytest.approx(votes.mean, abs=0.12)


def test_the_seed_decides_what_a_random_classifier_draws_in_a_sweep(noisy):
    state = torch.get_rng_state()
    for attack in (fgsm, pgd):
        settings = {} if attack is fgsm else {"steps": 3}
        runs = []
        for seed in (0, 0, 1):
            torch.manual_seed(len(runs))
            before = torch.get_rng_state()
            runs.append(sweep(*noisy, attack, eps=[0.0, 0.05], seed=seed, batch_size=40, **settings))
            assert torch.equal(torch.get_rng_state(), before)
        assert runs[0].prediction.tolist() == runs[1].prediction.tolist()
        assert runs[0].prediction.tolist() != runs[2].prediction.tolist()
    torch.set_rng_state(state)


def test_two_batches_are_not_judged_by_the_same_draw(digits):
    """What is drawn once for a whole batch would count twice."""
    labels = torch.zeros(64, dtype=torch.int64)

    def coin(images):
        side = torch.rand(()) - 0.5
        return torch.stack([side.expand(len(images)), -side.expand(len(images))], dim=1) + 0 * images.sum()

    found = [
        sweep(coin, digits[1][:64], labels, fgsm, eps=[0.0], batch_size=1, votes=3, seed=seed).accuracy[0]
        for seed in range(3)
    ]
    assert all(0.2 < accuracy < 0.8 for accuracy in found)  # all or none, were they the same
