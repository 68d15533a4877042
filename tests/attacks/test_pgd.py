import pytest
import torch

from unperturbed.attacks import fgsm, pgd
from unperturbed.records import SpecError


def _loss(classifier, images, labels):
    with torch.no_grad():
        return torch.nn.functional.cross_entropy(classifier(images), labels, reduction="none")


@pytest.fixture
def stubborn(two_classes, linear):
    """The linear problem with a bias that no perturbation of the tests overcomes, so that every step is taken."""
    classifier, images, labels = two_classes
    images, labels = images[labels == 0], labels[labels == 0]
    return linear(classifier.weight.detach(), torch.tensor([99.0, 0.0], dtype=torch.float64)), images, labels


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("eps", [0.01, 0.3])
def test_linf_reaches_the_closed_form_optimum_on_a_linear_classifier(stubborn, eps, random_start):
    classifier, images, labels = stubborn
    weight = classifier.weight.detach()
    optimum = images + eps * (weight[1 - labels] - weight[labels]).sign().view_as(images)
    adversarial = pgd(classifier, images, labels, eps=eps, steps=20, random_start=random_start)
    torch.testing.assert_close(adversarial, optimum, rtol=0, atol=1e-12)  # float64; the box never binds


@pytest.mark.parametrize("random_start", [False, True])
def test_l2_reaches_the_closed_form_optimum_on_a_linear_classifier(stubborn, random_start):
    classifier, images, labels = stubborn
    slope = (classifier.weight[1 - labels] - classifier.weight[labels]).detach()
    optimum = images + 0.2 * (slope / slope.norm(dim=1, keepdim=True)).view_as(images)
    adversarial = pgd(classifier, images, labels, norm="l2", eps=0.2, steps=200, random_start=random_start)
    # From a random start the part across the gradient shrinks by 1.05 a step: 2e-4 of 0.2 is left.
    torch.testing.assert_close(adversarial, optimum, rtol=0, atol=1e-4 if random_start else 1e-12)


def test_one_step_from_the_image_is_scored_and_is_fgsm(stubborn):
    classifier, images, labels = stubborn
    expected = fgsm(classifier, images, labels, eps=0.1)
    assert not torch.equal(expected, images)
    adversarial = pgd(classifier, images, labels, eps=0.1, steps=1, step_size=0.1, random_start=False)
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-12)


def _waves(images):
    """Cross-entropy that rises and falls many times within the ball, and never reaches the other class."""
    x = images.flatten(1)
    margin = torch.sin(40 * x).sum(dim=1) - 5
    return torch.stack([torch.zeros_like(margin), margin], dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_best_iterate_is_returned_on_a_wavy_classifier(counter, norm):
    images = 0.2 + 0.6 * torch.rand(30, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.zeros(30, dtype=torch.int64)
    watched = counter(_waves)
    adversarial = pgd(watched, images, labels, norm=norm, eps=0.2, steps=20)
    iterates = torch.stack([_loss(_waves, seen, labels) for seen in watched.seen])
    assert len(iterates) == 22  # the image, 20 with a gradient, and the last
    torch.testing.assert_close(_loss(_waves, adversarial, labels), iterates.amax(dim=0), rtol=0, atol=1e-12)
    assert (iterates[-1] < iterates.amax(dim=0) - 0.001).float().mean() > 0.3  # the last one would not do
    assert (iterates[0] == iterates.amin(dim=0)).float().mean() < 1  # nor is every step an ascent
    assert (_loss(_waves, adversarial, labels) >= _loss(_waves, images, labels)).all()


def test_no_image_gets_a_lower_loss_than_it_had():
    images = torch.full((8, 1, 1, 1), (torch.pi / 80), dtype=torch.float64)  # a crest: every step leads down
    labels = torch.zeros(8, dtype=torch.int64)
    adversarial = pgd(_waves, images, labels, eps=0.03, steps=3)
    assert (_loss(_waves, adversarial, labels) >= _loss(_waves, images, labels)).all()


def test_a_band_that_the_steps_cross_is_not_lost(tent, pixel):
    """0.5 -> 0.62 is in the band; going on to 0.74, 0.62, 0.74 the attack would end beyond it."""
    images, labels = pixel
    adversarial = pgd(tent, images, labels, eps=0.3, steps=4, step_size=0.12, random_start=False)
    assert float(adversarial) == pytest.approx(0.62)


def test_a_misclassified_iterate_beats_one_with_larger_loss():
    """Eight near rivals make a larger loss at 0.5, where the class is right, than one winner does at 0.6."""

    def classifier(images):
        x = images.flatten(1)
        rivals = torch.where(x < 0.55, x + 0.4, -5.0).expand(len(x), 8)
        winner = torch.where(x < 0.55, x + 0.4, 1.1)
        return torch.cat([torch.ones_like(x), winner, rivals], dim=1)

    images, labels = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64), torch.tensor([0])
    adversarial = pgd(classifier, images, labels, eps=0.1, steps=1, step_size=0.1, random_start=False)
    assert float(adversarial) == pytest.approx(0.6)
    assert _loss(classifier, adversarial, labels) < _loss(classifier, images, labels)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_iterate_is_in_the_ball_and_in_the_box(digits, counter, norm):
    network, images, labels = digits
    watched = counter(network)
    eps = {"linf": 0.03, "l2": 0.3}[norm]
    right = network(images).argmax(dim=1) == labels
    images, labels = images[right][:1], labels[right][:1]
    pgd(watched, images, labels, norm=norm, eps=eps, steps=15)
    assert len(watched.seen) == 17
    order = {"linf": torch.inf, "l2": 2}[norm]
    reached = [float(torch.linalg.vector_norm((seen - images).double(), ord=order)) for seen in watched.seen]
    assert max(reached) <= eps + 1e-6
    assert max(reached) > 0.9 * eps
    assert all(float(seen.min()) >= 0 and float(seen.max()) <= 1 for seen in watched.seen)


@pytest.mark.parametrize(("random_start", "forwards"), [(False, 8), (True, 9)])
def test_an_unbroken_image_costs_the_passes_that_are_promised(stubborn, counter, random_start, forwards):
    classifier, images, labels = stubborn
    watched = counter(classifier)
    pgd(watched, images, labels, eps=0.1, steps=7, random_start=random_start)
    assert watched.forwards == forwards * len(images)
    assert watched.backwards == 7 * len(images)


def test_solved_images_leave_the_batch_at_once(linear, counter):
    """Image k is broken after exactly k steps of 0.01: by its margin, a multiple of the step."""
    watched = counter(linear(torch.tensor([[1.0], [-1.0]], dtype=torch.float64)))
    images = torch.tensor([-0.005, 0.005, 0.015, 0.025], dtype=torch.float64).view(4, 1, 1, 1) + 0.5
    watched.classifier.bias.data = torch.tensor([-0.5, 0.5], dtype=torch.float64)
    labels = torch.zeros(4, dtype=torch.int64)
    adversarial = pgd(watched, images, labels, eps=0.1, steps=10, step_size=0.01, random_start=False)
    moved = (images - adversarial).flatten()
    torch.testing.assert_close(moved, torch.tensor([0.0, 0.01, 0.02, 0.03], dtype=torch.float64), rtol=0, atol=1e-12)
    assert [len(seen) for seen in watched.seen] == [4, 3, 2, 1]
    assert watched.backwards == 4 + 3 + 2  # none once all are broken


def test_a_random_start_leaves_a_point_without_gradient(tent, pixel):
    images, labels = pixel

    def flat_at_first(images):
        return tent(torch.where((images - 0.5).abs() < 0.01, images * 0 + 0.5, images))

    assert float(pgd(flat_at_first, images, labels, eps=0.2, random_start=False)) == 0.5
    adversarial = pgd(flat_at_first, images, labels, eps=0.2, restarts=10)  # one that starts below is caught by it
    assert flat_at_first(adversarial).argmax(dim=1) == 1


def test_a_schedule_that_cannot_reach_the_edge_is_refused_unless_it_is_published(stubborn):
    classifier, images, labels = stubborn
    message = r"^pgd: 3 steps of 0.01 move at most 0.03, less than eps=0.3; .* published=True$"
    with pytest.raises(SpecError, match=message):
        pgd(classifier, images, labels, eps=0.3, steps=3, step_size=0.01)
    with pytest.raises(SpecError, match=r"^pgd: 29 steps of 0.01 move at most 0.29, less than eps=0.3;"):
        pgd(classifier, images, labels, eps=0.3, steps=29, step_size=0.01)
    adversarial = pgd(classifier, images, labels, eps=0.3, steps=3, step_size=0.01, published=True, random_start=False)
    assert float((adversarial - images).abs().max()) == pytest.approx(0.03)


def test_a_schedule_that_just_reaches_the_edge_is_accepted(stubborn):
    classifier, images, labels = stubborn
    settings = {"steps": 3, "step_size": 0.1, "random_start": False}  # 0.1 * 3 > 0.3 in binary
    adversarial = pgd(classifier, images, labels, eps=0.3, **settings)
    assert float((adversarial - images).abs().max()) == pytest.approx(0.3)
    pgd(classifier, images, labels, eps=0.7, steps=7, step_size=0.1 - 1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, r"^pgd: expected steps of at least 1; got 0$"),
        ({"step_size": 0.0}, r"^pgd: expected step_size above 0; got 0$"),
        ({"step_size": -0.1}, r"^pgd: expected step_size above 0; got -0.1$"),
        ({"norm": "l1"}, r"^pgd: norm must be one of linf, l2; got 'l1'$"),
        ({"loss": "hinge"}, r"^pgd: loss must be one of ce, rounded_ce, margin, dlr, mse; got 'hinge'$"),
        ({"restarts": 0}, r"^pgd: expected restarts and eot of at least 1; got 0 and 1$"),
        ({"eot": 0}, r"^pgd: expected restarts and eot of at least 1; got 1 and 0$"),
        ({"restarts": 3, "random_start": False}, r"^pgd: 3 restarts without a random start are all the same; set"),
    ],
)
def test_settings_without_meaning_are_refused(pixel, tent, settings, message):
    with pytest.raises(SpecError, match=message):
        pgd(tent, *pixel, eps=0.1, **settings)


def test_neither_forwards_nor_gradients_are_computed_in_autocast(tent, pixel):
    """In bfloat16 an attack would be led by rounded logits and judged by others."""
    seen = []

    def classifier(images):
        seen.append((torch.is_autocast_enabled("cpu"), torch.is_grad_enabled()))
        return tent(images)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        pgd(classifier, *pixel, eps=0.01, steps=2)
    assert seen == [(False, False), (False, True), (False, True), (False, False)]
