"""FAB and FAB-T, and the step onto a boundary within the box."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, linprog

from unperturbed.attacks.fab import fab, fab_targeted
from unperturbed.attacks.nearest import onto
from unperturbed.records import SpecError
from unperturbed.tensors.norms import length

fab_pt = pytest.importorskip("pyautoattack.fab_pt", reason="the referee comes with the extra 'bench'")

NORMS = ("linf", "l2", "l1")
DUAL = {"linf": 1, "l2": 2, "l1": torch.inf}
BOTH = pytest.mark.parametrize("attack", [fab, fab_targeted])


@pytest.fixture
def five_classes(linear):
    """A linear problem in float64, far from the box, and the distance of every image to the nearest other class."""
    random = torch.Generator().manual_seed(5)
    weight = torch.randn(5, 48, generator=random, dtype=torch.float64)
    images = 0.4 + 0.2 * torch.rand(30, 3, 4, 4, generator=random, dtype=torch.float64)
    classifier = linear(weight, -0.5 * weight.sum(dim=1))
    logits = classifier(images).detach()
    labels = logits.argmax(dim=1)

    def exact(norm):
        margins = logits.gather(1, labels.unsqueeze(1)) - logits
        slopes = (weight[labels].unsqueeze(1) - weight).norm(p=DUAL[norm], dim=2)
        distances = (margins / slopes).scatter(1, labels.unsqueeze(1), torch.inf)
        return distances.amin(dim=1)

    return classifier, images, labels, exact


@BOTH
@pytest.mark.parametrize("norm", NORMS)
def test_reaches_the_closed_form_on_a_linear_classifier(five_classes, attack, norm):
    classifier, images, labels, exact = five_classes
    adversarial = attack(classifier, images, labels, norm=norm, steps=30)
    assert (classifier(adversarial).argmax(dim=1) != labels).all()
    ratio = length(adversarial - images, norm=norm) / exact(norm)
    assert float(ratio.min()) > 1 - 1e-12
    assert float(ratio.max()) < 1 + 1e-3


def _smallest(point, gradient, value, norm):
    """By linear programs, and for l2 by a root search over the multiplier."""
    numbers = len(point)
    if norm == "l2":

        def cut(multiplier):
            return np.clip(multiplier * gradient, -point, 1 - point)

        sign = -np.sign(value)
        multiplier = sign * brentq(lambda m: gradient @ cut(sign * m) + value, 0, 1e3, xtol=1e-15, rtol=1e-14)
        return float(np.linalg.norm(cut(multiplier)))
    if norm == "l1":  # up and down apart
        up_and_down = [(0, 1 - x) for x in point] + [(0, x) for x in point]
        constraint = {"A_eq": np.concatenate([gradient, -gradient])[None], "b_eq": [-value]}
        return linprog(np.ones(2 * numbers), **constraint, bounds=up_and_down).fun
    below = np.hstack([np.vstack([np.eye(numbers), -np.eye(numbers)]), -np.ones((2 * numbers, 1))])
    return linprog(
        np.append(np.zeros(numbers), 1),
        A_ub=below,
        b_ub=np.zeros(2 * numbers),
        A_eq=np.append(gradient, 0)[None],
        b_eq=[-value],
        bounds=[(-x, 1 - x) for x in point] + [(0, None)],
    ).fun


def _near_the_edge(linear):
    """Most intensities are at or near 0 or 1, so that the box binds."""
    random = torch.Generator().manual_seed(7)
    weight = torch.randn(2, 12, generator=random, dtype=torch.float64)
    images = (1.6 * torch.rand(20, 3, 2, 2, generator=random, dtype=torch.float64) - 0.3).clamp(0, 1)
    classifier = linear(weight, -0.5 * weight.sum(dim=1))
    logits = classifier(images).detach()
    gradient = (weight[1] - weight[0]).view(1, 3, 2, 2).expand_as(images)
    return classifier, images, logits.argmax(dim=1), gradient, logits[:, 1] - logits[:, 0]


@pytest.mark.parametrize("norm", NORMS)
def test_the_step_onto_a_boundary_is_the_smallest_one_in_the_box(linear, norm):
    _, images, _, gradient, value = _near_the_edge(linear)
    offset = onto(images, gradient, value, norm=norm)
    moved = images + offset
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    assert float((value + (gradient * offset).flatten(1).sum(dim=1)).abs().max()) < 1e-12
    freely = value.abs() / gradient[:1].norm(p=DUAL[norm])
    reached = length(offset, norm=norm)
    assert int((reached > 1.01 * freely).sum()) >= 5  # the box binds
    expected = [
        _smallest(*(each.flatten().numpy() for each in (x, g)), float(v), norm)
        for x, g, v in zip(images, gradient, value, strict=True)
    ]
    assert reached.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_a_boundary_out_of_reach_takes_all_room_and_no_gradient_no_step(norm):
    points = torch.tensor([0.2, 0.9, 0.0, 0.5], dtype=torch.float64).view(1, 1, 2, 2).repeat(2, 1, 1, 1)
    gradient = torch.tensor([1.0, -1.0, 2.0, 0.0], dtype=torch.float64).view(1, 1, 2, 2).repeat(2, 1, 1, 1)
    gradient[1] = 0
    offset = onto(points, gradient, torch.tensor([-10.0, -10.0], dtype=torch.float64), norm=norm).flatten(1)
    torch.testing.assert_close(offset[0], torch.tensor([0.8, -0.9, 1.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-12)
    assert not offset[1].any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_step_does_not_depend_on_the_scale_of_the_logits(norm, scale):
    random = torch.Generator().manual_seed(0)
    points, gradient = torch.rand(4, 1, 3, 3, generator=random), torch.randn(4, 1, 3, 3, generator=random)
    value = torch.tensor([-0.3, 0.2, -1.0, 0.5], dtype=torch.float64)
    expected = onto(points, gradient, value, norm=norm)
    torch.testing.assert_close(onto(points, gradient * scale, value * scale, norm=norm), expected, rtol=1e-5, atol=1e-7)


@BOTH
@pytest.mark.parametrize("norm", NORMS)
def test_saturated_intensities_move_and_the_box_holds(linear, attack, norm):
    classifier, images, labels, gradient, value = _near_the_edge(linear)
    adversarial = attack(classifier, images, labels, norm=norm)
    assert float(adversarial.min()) >= 0
    assert float(adversarial.max()) <= 1
    assert (classifier(adversarial).argmax(dim=1) != labels).all()
    smallest = length(onto(images, gradient, value, norm=norm), norm=norm)
    ratio = length(adversarial - images, norm=norm) / smallest
    assert float(ratio.min()) > 1 - 1e-9
    # A point that was moved back lost part of what the box had stopped: 100 steps bring most of it back.
    assert float(ratio.max()) < 1.005
    assert float(ratio.mean()) < 1.001


@BOTH
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_tiny_and_huge_logits_change_nothing(digits, attack, scale):
    network, images, labels = digits
    images, labels = images[:6], labels[:6]
    expected = length(attack(network, images, labels, steps=5) - images, norm="linf")
    scaled = attack(lambda x: network(x).double() * scale, images, labels, steps=5)
    torch.testing.assert_close(length(scaled - images, norm="linf"), expected, rtol=1e-2, atol=1e-6)


@BOTH
@pytest.mark.parametrize("norm", NORMS)
def test_a_mask_leaves_the_closed_form_of_the_rest(two_classes, attack, norm):
    classifier, images, labels = two_classes
    mask = (torch.arange(12) % 3 > 0).double().view(1, 3, 2, 2)
    slope = ((classifier.weight[0] - classifier.weight[1]).detach() * mask.flatten()).norm(p=DUAL[norm])
    margin = (classifier(images)[:, 0] - classifier(images)[:, 1]).detach().abs()
    near = margin / slope < {"linf": 0.3, "l2": 0.3, "l1": 0.3}[norm]
    images, labels, exact = images[near], labels[near], (margin / slope)[near]
    assert len(images) > 3
    adversarial = attack(classifier, images, labels, norm=norm, steps=30, mask=mask)
    assert torch.equal(adversarial[(mask == 0).expand_as(images)], images[(mask == 0).expand_as(images)])
    ratio = length(adversarial - images, norm=norm) / exact
    assert ratio.tolist() == pytest.approx([1.0] * len(images), abs=1e-3)


def test_the_goal_is_the_nearest_point_of_its_class(five_classes):
    classifier, images, labels, exact = five_classes
    targets = (labels + 1) % 5
    adversarial = fab(classifier, images, labels, norm="l2", targets=targets)
    assert (classifier(adversarial).argmax(dim=1) == targets).all()
    margins = (
        classifier(images).gather(1, labels.unsqueeze(1)) - classifier(images).gather(1, targets.unsqueeze(1))
    ).squeeze(1)
    between = margins.detach() / (classifier.weight[labels] - classifier.weight[targets]).detach().norm(dim=1)
    reached = length(adversarial - images, norm="l2")
    assert (reached >= between * (1 - 1e-9)).all()  # no nearer than the boundary of the two
    alone = reached < between * 1.001  # where no third class is in between, it is that one
    assert alone.double().mean() > 0.3
    assert (reached >= exact("l2") * (1 - 1e-9)).all()


@BOTH
def test_a_constant_classifier_returns_the_images(attack):
    images, labels = (
        torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0)),
        torch.zeros(3, dtype=torch.int64),
    )
    logits = torch.tensor([1.0, 0.0, -1.0], requires_grad=True)
    assert torch.equal(attack(lambda x: logits.expand(len(x), 3), images, labels, steps=3), images)


@pytest.mark.parametrize(("attack", "backwards"), [(fab, 4 * 7), (fab_targeted, 2 * 7)])
def test_an_image_costs_the_passes_that_are_promised(five_classes, counter, attack, backwards):
    classifier, images, labels, _ = five_classes
    watched = counter(classifier)
    settings = {"target_classes": 2} if attack is fab_targeted else {}
    attack(watched, images, labels, steps=7, **settings)
    runs = settings.get("target_classes", 1)
    assert watched.backwards == backwards * len(images)
    assert watched.forwards == (1 + runs * 14 + 10) * len(images)
    watched = counter(classifier)
    wrong = (labels + 1) % 5
    assert torch.equal(attack(watched, images, wrong), images)
    assert (watched.forwards, watched.backwards) == (len(images), 0)


@BOTH
def test_an_image_broken_within_the_radius_costs_nothing_more(five_classes, counter, attack):
    classifier, images, labels, exact = five_classes
    radius = 1.01 * float(exact("linf").median())
    watched = counter(classifier)
    adversarial = attack(watched, images, labels, steps=20, within=radius, restarts=2)
    distance = length(adversarial - images, norm="linf")
    assert torch.equal(distance <= radius, exact("linf") <= radius)
    gone = set()
    for seen in watched.seen:
        which = (seen.unsqueeze(1) - images.unsqueeze(0)).abs().amax(dim=(2, 3, 4)).argmin(dim=1)
        assert gone.isdisjoint(which.tolist())
        inside = (seen - images[which]).abs().amax(dim=(1, 2, 3)) <= radius
        broken = classifier(seen).argmax(dim=1) != labels[which]
        gone |= set(which[inside & broken].tolist())
    assert len(gone) == int((distance <= radius).sum())


@BOTH
def test_random_starts_belong_to_the_image(digits, counter, attack):
    network, images, labels = digits
    network, images, labels = network.double(), images[:5].double(), labels[:5]
    try:
        settings = {
            "steps": 3,
            "restarts": 2,
            "norm": "l2",
            **({"target_classes": 2} if attack is fab_targeted else {}),
        }
        whole = attack(network, images, labels, 1, **settings)
        order = torch.tensor([3, 0, 4])
        torch.testing.assert_close(
            attack(network, images[order], labels[order], 1, **settings), whole[order], rtol=0, atol=1e-9
        )
        shown = [counter(network) for _ in range(3)]
        for seed, watched in zip((1, 1, 2), shown, strict=True):
            attack(watched, images, labels, seed, **settings)
        # The image, twice at each of 3 steps, and then the start of the second time.
        first, again, other = (watched.seen[7] for watched in shown)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        once = attack(network, images, labels, 1, **{**settings, "restarts": 1})
        assert (length(whole - images, norm="l2") <= length(once - images, norm="l2") * 1.02).all()
    finally:
        network.float()


@pytest.mark.parametrize(("norm", "theirs"), [("linf", "Linf"), ("l2", "L2")])
def test_fab_is_at_least_as_near_as_that_of_autoattack(digits, norm, theirs):
    network, images, labels = digits
    right = (network(images).argmax(dim=1) == labels).nonzero().squeeze(1)[:30]
    images, labels = images[right], labels[right]
    peer = fab_pt.FABAttack_PT(network, norm=theirs, n_iter=40, device="cpu")
    expected = length(peer.attack_single_run(images, labels).detach() - images, norm=norm)
    network.zero_grad(set_to_none=True)
    adversarial = fab(network, images, labels, norm=norm, steps=40)
    reached = length(adversarial - images, norm=norm)
    assert (network(adversarial).argmax(dim=1) != labels).all()
    assert (expected > 0).all()
    assert float(reached.mean()) <= 1.02 * float(expected.mean())


def test_fab_t_is_at_least_as_near_as_that_of_autoattack(digits):
    network, images, labels = digits
    right = (network(images).argmax(dim=1) == labels).nonzero().squeeze(1)[:30]
    images, labels = images[right], labels[right]
    peer = fab_pt.FABAttack_PT(network, norm="Linf", n_iter=30, device="cpu")
    expected = torch.full((30,), torch.inf, dtype=torch.float64)
    for rank in (2, 3, 4):
        peer.target_class = rank
        found = peer.attack_single_run(images, labels, is_targeted=True).detach()
        distance = length(found - images, norm="linf")
        expected = torch.where(distance > 0, torch.minimum(expected, distance), expected)
    network.zero_grad(set_to_none=True)
    reached = length(fab_targeted(network, images, labels, steps=30, target_classes=3) - images, norm="linf")
    assert (reached > 0).all()
    assert float(reached.mean()) <= 1.02 * float(expected.mean())


@pytest.mark.parametrize(
    ("attack", "settings", "message"),
    [
        (fab, {"steps": 0}, r"^fab: expected steps and restarts of at least 1; got 0 and 1$"),
        (fab_targeted, {"restarts": 0}, r"^fab_targeted: expected steps and restarts of at least 1; got 100 and 0$"),
        (fab, {"eta": 0.9}, r"^fab: expected alpha_max from 0 to 1, eta of at least 1 and .*; got 0.1, 0.9 and 0.9$"),
        (fab, {"beta": 1.0}, r"^fab: expected alpha_max from 0 to 1, .* beta between 0 and 1; got 0.1, 1.05 and 1$"),
        (fab, {"within": -0.1}, r"^eps: expected a finite number, 0 or larger; got -0.1$"),
        (fab_targeted, {"target_classes": 0}, r"^fab_targeted: expected target_classes of at least 1; got 0$"),
    ],
)
def test_settings_without_meaning_are_refused(two_classes, attack, settings, message):
    with pytest.raises(SpecError, match=message):
        attack(*two_classes, **settings)
