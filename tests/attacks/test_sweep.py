import io
from dataclasses import fields

import numpy as np
import pytest
import torch

from unperturbed.attacks import Evidence, fgsm, gaussian_noise, pgd, sweep, uniform_noise

GRID = (0.0, 0.0125, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_critical_eps_of_a_linear_classifier_is_its_closed_form(two_classes, attack, norm):
    """The distance to the boundary is |margin| over the dual norm of the weights; on a grid, the next point up."""
    classifier, images, labels = two_classes
    labels = torch.where(torch.arange(len(labels)) == 7, 1 - labels, labels)  # one is wrong from the start
    weight = (classifier.weight[0] - classifier.weight[1]).detach()
    margin = (classifier(images)[:, 0] - classifier(images)[:, 1]).detach().abs()
    exact = margin / weight.norm(p={"linf": 1, "l2": 2}[norm])
    exact[7] = 0.0
    grid = np.linspace(0.0, {"linf": 0.03, "l2": 0.09}[norm], 8)
    settings = {} if attack is fgsm else {"steps": 60}
    evidence = sweep(classifier, images, labels, attack, eps=list(grid), norm=norm, **settings)
    # None lies so near to the grid that rounding, or what 60 steps leave of a random start, decides.
    assert np.abs(exact.numpy()[:, None] - grid)[np.arange(len(labels)) != 7].min() > 1e-5
    above = np.searchsorted(grid, exact.numpy())
    expected = np.append(grid, np.inf)[above]
    assert evidence.critical_eps.tolist() == expected.tolist()
    assert len(set(expected.tolist())) > 5
    assert evidence.accuracy.tolist() == (expected[None] > grid[:, None]).mean(axis=1).tolist()


def test_an_image_that_is_never_broken_has_infinite_critical_eps(two_classes):
    classifier, images, labels = two_classes
    evidence = sweep(classifier, images, labels, fgsm, eps=[0.0, 1e-9])
    assert np.isinf(evidence.critical_eps).all()


def test_critical_eps_is_zero_only_for_images_that_were_wrong_without_an_attack(two_classes):
    classifier, images, labels = two_classes
    labels = torch.where(torch.arange(len(labels)) == 7, 1 - labels, labels)
    for inherit in (True, False):
        evidence = sweep(classifier, images, labels, fgsm, eps=[0.1, 0.2], inherit=inherit)
        assert np.flatnonzero(evidence.critical_eps == 0).tolist() == [7]
        assert (evidence.critical_eps == 0.1).sum() > 10


def test_the_published_form_of_fgsm_may_rise_again(tent, pixel):
    images, labels = pixel
    published = sweep(tent, images, labels, fgsm, eps=[0.0, 0.15, 0.3])
    assert published.accuracy.tolist() == [1.0, 0.0, 1.0]
    assert published.critical_eps.tolist() == [0.15]
    inherited = sweep(tent, images, labels, fgsm, eps=[0.0, 0.15, 0.3], inherit=True)
    assert inherited.accuracy.tolist() == [1.0, 0.0, 0.0]
    np.testing.assert_allclose(inherited.linf, [[0.0], [0.15], [0.15]], rtol=1e-6)


def test_published_fgsm_attacks_misclassified_images_with_their_true_label(tent, pixel):
    """At 0.65 the tent is class 1; an attack on label 0 at 0.6 climbs over the top into class 0 again."""
    images = torch.full_like(pixel[0], 0.64)
    evidence = sweep(tent, images, pixel[1], fgsm, eps=[0.0, 0.1])
    assert evidence.accuracy.tolist() == [0.0, 1.0]
    assert evidence.critical_eps.tolist() == [0.0]


@pytest.mark.parametrize("attack", [pgd, uniform_noise])
def test_accuracy_cannot_rise_where_examples_are_carried_over(digits, attack):
    network, images, labels = digits
    settings = {"steps": 10} if attack is pgd else {}
    evidence = sweep(network, images, labels, attack, eps=GRID[::2], **settings)
    assert (np.diff(evidence.correct.astype(int), axis=0) <= 0).all()
    broken_before = ~evidence.correct[:-1]
    for field in (evidence.linf, evidence.prediction):
        assert (field[1:] == field[:-1])[broken_before].all()
    assert (evidence.linf <= evidence.eps[:, None] + 1e-6).all()


def test_what_broke_is_not_attacked_again_and_what_was_wrong_never(digits, counter):
    network, images, labels = digits
    watched = counter(network)
    whole = {"batch_size": len(images), "steps": 10}
    evidence = sweep(watched, images, labels, pgd, eps=(0.0, 0.3, 0.31, 0.32), **whole)
    right = int(evidence.correct[0].sum())
    assert evidence.accuracy[1] == 0.0
    assert right < len(images)
    assert len(watched.seen[0]) == len(images)  # the clean images, and from then on those that were right
    assert max(len(seen) for seen in watched.seen[1:]) == right
    again = counter(network)
    sweep(again, images, labels, pgd, eps=(0.0, 0.3), **whole)
    assert again.forwards == watched.forwards
    assert again.backwards == watched.backwards


def test_fgsm_takes_one_gradient_for_all_radii(digits, counter):
    network, images, labels = digits
    watched = counter(network)
    evidence = sweep(watched, images, labels, fgsm, eps=GRID, batch_size=100)
    assert evidence.backwards == watched.backwards == len(images)
    assert evidence.forwards == watched.forwards == len(GRID) * len(images)
    without_zero = sweep(network, images, labels, fgsm, eps=GRID[1:])
    assert without_zero.forwards == len(GRID) * len(images)
    inherited = sweep(network, images, labels, fgsm, eps=GRID, inherit=True)
    assert inherited.forwards == len(images) + inherited.correct[:-1].sum()


def test_the_curve_of_fgsm_is_fgsm_at_every_radius(digits):
    network, images, labels = digits
    for norm in ("linf", "l2"):
        evidence = sweep(network, images, labels, fgsm, eps=GRID, norm=norm, keep=len(images), batch_size=200)
        for row, eps in enumerate(GRID):
            one = fgsm(network, images, labels, norm=norm, eps=eps)
            # Batches of another size change the gradient's last digits, and so the sign where it is nearly 0.
            assert float((torch.from_numpy(evidence.adversarial[row]) - one).abs().gt(1e-6).float().mean()) < 1e-3


@pytest.mark.parametrize("attack", [pgd, uniform_noise, gaussian_noise])
def test_passes_are_counted_exactly(digits, counter, attack):
    network, images, labels = digits
    images, labels = images[:200], labels[:200]
    watched = counter(network)
    evidence = sweep(watched, images, labels, attack, eps=(0.0, 0.05, 0.1), batch_size=150)
    assert evidence.forwards == watched.forwards > len(images)
    assert evidence.backwards == watched.backwards
    assert (evidence.backwards > 0) is (attack is pgd)
    if attack is gaussian_noise:
        assert evidence.forwards == 3 * len(images)
    if attack is uniform_noise:
        assert evidence.forwards == len(images) + evidence.correct[:-1].sum()


def test_an_attack_that_leaves_its_ball_or_the_box_achieves_nothing(two_classes):
    classifier, images, labels = two_classes

    def too_far(classifier, images, labels, seed, *, norm: str = "linf", eps):
        return fgsm(classifier, images, labels, norm=norm, eps=3 * eps)

    def outside(classifier, images, labels, seed, *, norm: str = "linf", eps):
        return fgsm(classifier, images, labels, norm=norm, eps=eps, clip=False) - 2 * images

    for cheat in (too_far, outside):
        evidence = sweep(classifier, images, labels, cheat, eps=[0.0, 0.3], keep=3)
        assert evidence.accuracy.tolist() == [1.0, 1.0]
        assert evidence.refused.tolist() == [[False] * len(images), [True] * len(images)]
        assert not evidence.linf.any()
        assert evidence.adversarial[1].tolist() == evidence.originals.tolist()
    honest = sweep(classifier, images, labels, fgsm, eps=[0.0, 0.3])
    assert honest.accuracy[1] < 1.0
    assert not honest.refused.any()


def test_what_is_refused_leaves_the_image_before_that_attack(two_classes):
    classifier, images, labels = two_classes

    def cheats_later(classifier, images, labels, seed, *, norm: str = "linf", eps):
        return fgsm(classifier, images, labels, norm=norm, eps=eps if eps < 0.15 else 2 * eps)

    alone = sweep(classifier, images, labels, cheats_later, eps=[0.1, 0.2], inherit=False)
    assert alone.accuracy[0] < alone.accuracy[1] == 1.0
    assert not alone.linf[1].any()
    inherited = sweep(classifier, images, labels, cheats_later, eps=[0.1, 0.2], inherit=True)
    assert inherited.accuracy[1] == inherited.accuracy[0] == alone.accuracy[0]


def test_unclipped_fgsm_is_judged_by_the_ball_alone(digits):
    network, images, labels = digits
    evidence = sweep(network, images, labels, fgsm, eps=[0.0, 0.2], clip=False, keep=20)
    assert not evidence.refused.any()
    assert evidence.adversarial.min() < -0.1
    assert evidence.accuracy[1] < evidence.accuracy[0]


def test_gaussian_noise_is_not_confined_to_a_ball(digits):
    network, images, labels = digits
    evidence = sweep(network, images, labels, gaussian_noise, eps=[0.0, 0.1])
    assert not evidence.refused.any()
    assert (evidence.linf[1] > 0.15).all()


def test_the_seed_decides_the_evidence(digits):
    network, images, labels = digits
    runs = [
        sweep(network, images[:40], labels[:40], pgd, eps=(0.0, 0.05), seed=seed, keep=40, steps=10)
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(runs[0].adversarial, runs[1].adversarial)
    assert not np.array_equal(runs[0].adversarial, runs[2].adversarial)


@pytest.mark.parametrize("batch_size", [1, 7, 40, 1000])
def test_batches_do_not_change_an_attack_without_randomness(two_classes, batch_size):
    classifier, images, labels = two_classes
    whole = sweep(classifier, images, labels, pgd, eps=[0.0, 0.05, 0.1], keep=9, random_start=False)
    parts = sweep(
        classifier, images, labels, pgd, eps=[0.0, 0.05, 0.1], keep=9, random_start=False, batch_size=batch_size
    )
    for name in ("correct", "prediction", "critical_eps", "linf", "l2", "confidence", "adversarial", "originals"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=0, atol=1e-7)


def test_pictures_are_those_that_were_judged(digits):
    network, images, labels = digits
    evidence = sweep(network, images, labels, pgd, eps=(0.0, 0.1), keep=250, batch_size=200)
    assert evidence.adversarial.shape == (2, 250, 1, 16, 16)
    assert np.array_equal(evidence.originals, images[:250].numpy())
    for row in range(2):
        shown = torch.from_numpy(evidence.adversarial[row])
        assert network(shown).argmax(dim=1).tolist() == evidence.prediction[row, :250].tolist()
        reached = (shown - images[:250]).flatten(1)
        np.testing.assert_allclose(evidence.linf[row, :250], reached.abs().amax(dim=1), rtol=0, atol=1e-6)
        np.testing.assert_allclose(evidence.l2[row, :250], reached.norm(dim=1), rtol=0, atol=1e-5)


def test_no_more_pictures_are_kept_than_there_are(two_classes):
    classifier, images, labels = two_classes
    assert sweep(classifier, images, labels, fgsm, eps=[0.0], keep=1000).originals.shape == (40, 3, 2, 2)
    assert sweep(classifier, images, labels, fgsm, eps=[0.0]).adversarial.shape == (1, 0, 3, 2, 2)


def test_confidence_is_the_clean_probability_of_the_true_class(digits):
    network, images, labels = digits
    expected = network(images).softmax(dim=1)[torch.arange(len(labels)), labels].detach().numpy()
    for attack in (fgsm, pgd):
        evidence = sweep(network, images, labels, attack, eps=[0.0], batch_size=120)
        np.testing.assert_allclose(evidence.confidence, expected, rtol=0, atol=1e-6)


def test_evidence_survives_being_written(digits):
    network, images, labels = digits
    evidence = sweep(network, images[:50], labels[:50], pgd, eps=GRID, keep=2)
    file = io.BytesIO()
    np.savez(file, **evidence.arrays())
    file.seek(0)
    again = Evidence.from_arrays(np.load(file))
    for field in fields(Evidence):
        before, after = getattr(evidence, field.name), getattr(again, field.name)
        assert type(after) is type(before)
        np.testing.assert_array_equal(after, before)
        if isinstance(before, np.ndarray):
            assert after.dtype == before.dtype
    assert (evidence.prediction == evidence.labels).tolist() == evidence.correct.tolist()


def test_progress_is_told_and_ends_at_the_total(two_classes):
    classifier, images, labels = two_classes
    told = []
    sweep(classifier, images, labels, fgsm, eps=[0.0, 0.1], batch_size=16, progress=lambda *now: told.append(now))
    assert told == [(16, 80), (32, 80), (48, 80), (64, 80), (72, 80), (80, 80)]


def test_whole_numbers_are_radii_too(two_classes):
    classifier, images, labels = two_classes
    assert sweep(classifier, images, labels, fgsm, eps=[0, 1]).eps.tolist() == [0.0, 1.0]
    assert torch.equal(fgsm(classifier, images, labels, eps=0), images)
    assert torch.equal(pgd(classifier, images, labels, eps=0), images)


def _straight(classifier, images, labels, seed, *, norm: str = "l2", mask=None):
    """The nearest broken image of a linear problem with two classes, in closed form; nothing for every fifth."""
    weight = (classifier.classifier.weight[0] - classifier.classifier.weight[1]).detach()
    logits = classifier(images).detach()
    margin = logits[:, 0] - logits[:, 1]
    offset = -(margin * (1 + 1e-6) / weight.square().sum()).unsqueeze(1) * weight
    offset[torch.arange(len(images)) % 5 == 0] = 0
    return images + offset.view_as(images)


def test_one_run_of_a_smallest_attack_gives_the_whole_curve(two_classes):
    classifier, images, labels = two_classes
    labels = torch.where(torch.arange(40) == 7, 1 - labels, labels)  # one is wrong from the start
    margin = (classifier(images)[:, 0] - classifier(images)[:, 1]).detach().abs()
    exact = (margin / (classifier.weight[0] - classifier.weight[1]).norm()).detach().numpy()
    exact[7] = 0
    attacked = [row for row in range(40) if row != 7]
    exact[[row for place, row in enumerate(attacked) if place % 5 == 0]] = np.inf
    grid = [0.0, 0.02, 0.04, 0.09]
    evidence = sweep(_Bare(classifier), images, labels, _straight, eps=grid, norm="l2", batch_size=40, keep=40)
    np.testing.assert_allclose(evidence.critical_eps, exact, rtol=2e-6)
    assert evidence.accuracy.tolist() == [float((exact > eps).mean()) for eps in grid]
    assert len(set(evidence.accuracy.tolist())) == 4
    for row, eps in enumerate(grid):
        inside = exact <= eps
        reached = evidence.l2[row]
        np.testing.assert_allclose(reached[inside], exact[inside], rtol=1e-5, atol=1e-9)
        assert not reached[~inside].any()
        assert np.array_equal(evidence.adversarial[row][~inside], evidence.originals[~inside])
    # All forwards: the clean images, and for those that are right one of the attack and one of the judge.
    assert evidence.forwards == 40 + 39 + 39
    assert evidence.backwards == 0


class _Bare:
    """A classifier that an attack of a test may look into behind the counter of the sweep."""

    def __init__(self, classifier):
        self.weight = classifier.weight
        self.classifier = classifier

    def __call__(self, images):
        return self.classifier(images)


def test_a_smallest_attack_that_leaves_the_box_is_refused(two_classes):
    classifier, images, labels = two_classes

    def outside(classifier, images, labels, seed, *, norm: str = "l2"):
        return images - 2

    evidence = sweep(classifier, images, labels, outside, eps=[0.0, 50.0], norm="l2")
    assert evidence.refused.all()
    assert np.isinf(evidence.critical_eps).all()
    assert evidence.accuracy.tolist() == [1.0, 1.0]


def test_with_targets_correct_means_that_the_attack_has_not_succeeded(digits):
    network, images, labels = digits
    prediction = network(images).argmax(dim=1)
    right = (prediction == labels).nonzero().squeeze(1)[:60]
    images, labels = images[right], labels[right]
    targets = (labels + 1) % 10
    evidence = sweep(network, images, labels, pgd, eps=[0.0, 0.05, 0.2], targets=targets, steps=15)
    assert evidence.accuracy[0] == 1
    assert evidence.accuracy[2] < 0.5
    assert (evidence.correct == (evidence.prediction != targets.numpy())).all()
    assert (np.diff(evidence.correct.astype(int), axis=0) <= 0).all()
    untargeted = sweep(network, images, labels, pgd, eps=[0.05], steps=15)
    assert untargeted.accuracy[0] < evidence.accuracy[1]
    # Taken for its target from the start: critical at 0, whatever the label.
    reached = sweep(network, images, targets, pgd, eps=[0.1], targets=labels, steps=5)
    assert not reached.critical_eps.any()
    assert reached.backwards == 0


def test_a_mask_is_kept_in_every_batch(digits):
    network, images, labels = digits[0], digits[1][:50], digits[2][:50]
    mask = torch.zeros(50, 1, 16, 16)
    mask[:25, :, :8] = 1
    mask[25:, :, 8:] = 1
    for attack, settings in ((fgsm, {}), (pgd, {"steps": 5})):
        evidence = sweep(network, images, labels, attack, eps=[0.3], mask=mask, keep=50, batch_size=20, **settings)
        changed = torch.from_numpy(evidence.adversarial[0] != evidence.originals)
        assert not changed[mask == 0].any()
        assert changed[:25][mask[:25] == 1].any()
        assert changed[25:][mask[25:] == 1].any()
