import math

import pytest
import torch

from unperturbed.attacks import judge
from unperturbed.attacks.apgd import apgd, apgd_targeted, checkpoints, project_l1_in_box
from unperturbed.records import SpecError
from unperturbed.tensors.norms import length
from unperturbed.tensors.streams import undisturbed

BOTH = (apgd, apgd_targeted)


def _accuracy(classifier, images, labels, adversarial, *, norm, eps):
    verdict = judge(classifier, images, labels, adversarial, norm=norm, eps=eps)
    assert verdict.in_ball.all()
    assert verdict.in_box.all()
    return 1 - verdict.success.double().mean()


def _margin(classifier, images, labels):
    """How far the best wrong class is ahead; above 0: misclassified."""
    with torch.no_grad():
        logits = classifier(images)
    return logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1) - logits.gather(1, labels[:, None])[:, 0]


# Closed forms


@pytest.fixture
def stubborn(two_classes, linear):
    """The linear problem with a bias that no perturbation of the tests overcomes, so that every step is taken."""
    classifier, images, labels = two_classes
    images, labels = images[labels == 0], labels[labels == 0]
    return linear(classifier.weight.detach(), torch.tensor([99.0, 0.0], dtype=torch.float64)), images, labels


def _optimum(norm, slope, images, eps):
    """Where a linear function with this slope is largest in the ball and the box."""
    if norm == "linf":
        return images + eps * slope.sign().view_as(images)
    if norm == "l2":
        return images + eps * (slope / slope.norm(dim=1, keepdim=True)).view_as(images)
    best = images.flatten(1).clone()  # the steepest intensity as far as the box allows it, then the next one
    for image, gains in zip(best, slope, strict=True):
        left = eps
        for index in gains.abs().argsort(descending=True).tolist():
            room = float(1 - image[index] if gains[index] > 0 else image[index])
            image[index] += gains[index].sign() * min(left, room)
            left -= min(left, room)
    return best.view_as(images)


# Across the gradient an l2 start shrinks only by eps / (eps + step) at every step, and the step halves in time. A sparse
# l1 step is never smaller than a tenth of the radius.
REACHED = {"linf": 1e-12, "l2": 1e-3, "l1": 0.02}


@pytest.mark.parametrize("attack", BOTH)
@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.01), ("linf", 0.3), ("l2", 0.2), ("l1", 0.4), ("l1", 1.5)])
def test_the_optimum_of_a_linear_classifier_is_reached(stubborn, attack, norm, eps, random_start):
    classifier, images, labels = stubborn
    slope = (classifier.weight[1 - labels] - classifier.weight[labels]).detach()
    best = _margin(classifier, _optimum(norm, slope, images, eps), labels)
    adversarial = attack(classifier, images, labels, norm=norm, eps=eps, random_start=random_start)
    assert _accuracy(classifier, images, labels, adversarial, norm=norm, eps=eps) == 1
    reached = _margin(classifier, adversarial, labels)
    gained = (reached - _margin(classifier, images, labels)) / (best - _margin(classifier, images, labels))
    assert gained.min() > 1 - REACHED[norm]
    assert gained.max() < 1 + 1e-9


@pytest.mark.parametrize("attack", BOTH)
@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2), ("l1", math.inf)])
def test_a_linear_classifier_breaks_exactly_where_its_margin_is_too_small(two_classes, attack, norm, dual):
    classifier, images, labels = two_classes
    slope = (classifier.weight[1] - classifier.weight[0]).detach()
    critical = -_margin(classifier, images, labels) / torch.linalg.vector_norm(slope, ord=dual)
    eps = float(critical.sort().values[19:21].mean())
    assert (critical - eps).abs().min() > 0.002 * eps  # none is on the edge
    adversarial = attack(classifier, images, labels, norm=norm, eps=eps)
    verdict = judge(classifier, images, labels, adversarial, norm=norm, eps=eps)
    assert verdict.success.tolist() == (critical < eps).tolist()


@pytest.mark.parametrize("eps", [0.3, 2.0])
def test_the_l1_projection_is_the_nearest_point_of_ball_and_box(eps):
    random = torch.Generator().manual_seed(0)
    centres = torch.rand(50, 1, 3, 4, generator=random, dtype=torch.float64).mul(1.4).sub(0.2).clamp(0, 1)
    offset = torch.randn(50, 1, 3, 4, generator=random, dtype=torch.float64)
    nearest = project_l1_in_box(offset, centres, eps=eps)
    assert length(nearest, norm="l1").max() <= eps + 1e-12
    assert ((centres + nearest) >= -1e-15).all()
    assert ((centres + nearest) <= 1 + 1e-15).all()
    # A point of a convex set is the nearest exactly if no other one is on the far side of the plane through it.
    for _ in range(200):
        other = torch.randn(50, 1, 3, 4, generator=random, dtype=torch.float64)
        other = (centres + other * torch.rand(50, 1, 1, 1, generator=random)).clamp(0, 1) - centres
        other = other * (eps / length(other, norm="l1").view(-1, 1, 1, 1)).clamp_max(1)
        assert ((offset - nearest) * (other - nearest)).flatten(1).sum(dim=1).max() <= 1e-9
    inside = 0.1 * eps * nearest
    torch.testing.assert_close(project_l1_in_box(inside, centres, eps=eps), inside, rtol=0, atol=1e-15)


# The algorithm, step by step


def _waves(images):
    """A margin that rises and falls many times within the ball, and never reaches the other class."""
    x = images.flatten(1)
    margin = (torch.sin(40 * x) + 0.3 * torch.sin(130 * x + 1)).sum(dim=1) - 20
    return torch.stack([torch.zeros_like(margin), margin], dim=1)


def _algorithm_1(value, slope, x0, start, eps, steps):
    """Croce & Hein (2020), algorithm 1, for one number; returns every point that is evaluated."""
    near = lambda z: min(max(z, x0 - eps, 0.0), x0 + eps, 1.0)  # noqa: E731
    sign = lambda z: (z > 0) - (z < 0)  # noqa: E731
    eta, x, before = 2 * eps, start, start
    best = (value(x), x)
    points, values = [x], [value(x)]
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    marks = [math.ceil(round(share * steps, 9)) for share in shares if share < 1]
    halved, best_then, risen, mark = False, best[0], 0, 0
    for k in range(1, steps + 1):
        z = near(x + eta * sign(slope(x)))
        new = z if k == 1 else near(x + 0.75 * (z - x) + 0.25 * (x - before))
        before, x = x, new
        points.append(x)
        risen += value(x) > values[-1]
        values.append(value(x))
        best = max(best, (value(x), x), key=lambda pair: pair[0])
        if k in marks[1:]:
            few = risen < 0.75 * (k - mark)
            stuck = not halved and best[0] == best_then
            halved, best_then, risen, mark = few or stuck, best[0], 0, k
            if halved:
                eta, x = eta / 2, best[1]
                values[-1] = best[0]
    return points


@pytest.mark.parametrize("steps", [7, 50, 100])
def test_every_point_is_that_of_the_published_algorithm(counter, steps):
    images = torch.linspace(0.05, 0.95, 30, dtype=torch.float64).view(30, 1, 1, 1)
    watched = counter(_waves)
    adversarial = apgd(watched, images, torch.zeros(30, dtype=torch.int64), eps=0.2, steps=steps, loss="margin")
    visited = torch.stack([seen.flatten() for seen in watched.seen[1:]])  # the first is the image itself
    value = lambda x: math.sin(40 * x) + 0.3 * math.sin(130 * x + 1)  # noqa: E731
    slope = lambda x: 40 * math.cos(40 * x) + 39 * math.cos(130 * x + 1)  # noqa: E731
    for image in range(30):
        start = float(visited[0, image])
        assert abs(start - float(images[image])) == pytest.approx(0.2) or start in (0, 1)  # on the surface of the ball
        expected = _algorithm_1(value, slope, float(images[image]), start, 0.2, steps)
        assert visited[:, image].tolist() == pytest.approx(expected, rel=0, abs=1e-9)
        assert value(float(adversarial[image])) == pytest.approx(max(map(value, [float(images[image]), *expected])))
    last = torch.tensor([value(float(x)) for x in visited[-1]])
    best = torch.tensor([value(float(x)) for x in adversarial.flatten()])
    assert (last < best - 0.001).double().mean() > 0.2  # the last point would not do


def test_checkpoints_of_other_budgets():
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)  # arXiv:2003.01690, section 3: p = 0.22, 0.41, 0.57 ...
    assert checkpoints(50) == (11, 21, 29, 35, 40, 44, 47, 50)
    assert checkpoints(1) == (1,)


def test_a_band_that_the_last_step_has_left_is_not_lost(tent, pixel):
    """Steps of 2 eps leap over the band between 0.6 and 0.7; momentum and halving find it."""
    adversarial = apgd(tent, *pixel, eps=0.4)
    assert tent(adversarial).argmax(dim=1) == 1


def test_a_class_that_only_a_target_leads_to():
    """The way to class 1 is steep and ends below class 0; the way to class 2 is flat and goes on."""

    def classifier(images):
        x = images.flatten(1)[:, 0] - 0.5
        steep, flat = 0.9 * torch.tanh(20 * x) + 0.1 * x, -5 * x - 0.5
        return torch.stack([torch.ones_like(x), steep, flat, torch.full_like(x, -9)], dim=1)

    images, labels = torch.full((20, 1, 1, 1), 0.5, dtype=torch.float64), torch.zeros(20, dtype=torch.int64)
    images += torch.linspace(0, 0.02, 20, dtype=torch.float64).view(20, 1, 1, 1)
    settings = {"eps": 0.4, "random_start": False, "loss": "margin"}
    assert (classifier(apgd(classifier, images, labels, **settings)).argmax(dim=1) == 0).all()
    towards_one = apgd_targeted(classifier, images, labels, target_classes=1, **settings)
    assert (classifier(towards_one).argmax(dim=1) == 0).all()
    assert (
        classifier(apgd_targeted(classifier, images, labels, target_classes=2, **settings)).argmax(dim=1) == 2
    ).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_targets_are_what_the_images_are_taken_for(digits, norm):
    network, images, labels = digits[0], digits[1][:60], digits[2][:60]
    targets = (labels + 1) % 10
    eps = {"linf": 0.2, "l2": 2.0, "l1": 12.0}[norm]
    adversarial = apgd(network, images, labels, norm=norm, eps=eps, steps=40, targets=targets)
    assert (network(adversarial).argmax(dim=1) == targets).double().mean() > 0.8
    assert (network(apgd(network, images, labels, norm=norm, eps=eps)).argmax(dim=1) == targets).double().mean() < 0.5


# Passes, order, batch


@pytest.mark.parametrize(("norm", "restarts", "forwards"), [("linf", 1, 102), ("l2", 3, 304), ("l1", 1, 104)])
def test_an_unbroken_image_costs_the_passes_that_are_promised(stubborn, counter, norm, restarts, forwards):
    classifier, images, labels = stubborn
    watched = counter(classifier)
    apgd(watched, images, labels, norm=norm, eps=0.1, restarts=restarts)
    assert watched.forwards == forwards * len(images)
    assert watched.backwards == 100 * restarts * len(images)


def test_towards_classes_costs_as_much_for_each_of_them(digits, counter, linear):
    images, labels = digits[1][:5], torch.zeros(5, dtype=torch.int64)
    watched = counter(linear(torch.zeros(4, 256), torch.tensor([9.0, 2.0, 1.0, 0.0])))
    apgd_targeted(watched, images, labels, eps=0.1, steps=10)  # 9 classes asked for, 3 to have
    assert (watched.forwards, watched.backwards) == ((1 + 3 * 11) * 5, 3 * 10 * 5)
    apgd_targeted(watched, images, labels, eps=0.1, steps=10, target_classes=2, restarts=2)
    assert watched.backwards == (3 + 4) * 10 * 5


@pytest.mark.parametrize("attack", BOTH)
def test_a_broken_image_costs_nothing_more(linear, counter, attack):
    watched = counter(linear(torch.tensor([[1.0], [-1.0]], dtype=torch.float64), torch.tensor([-0.5, 0.5]).double()))
    images = torch.tensor([0.45, 0.52, 0.95], dtype=torch.float64).view(3, 1, 1, 1)
    attack(watched, images, torch.zeros(3, dtype=torch.int64), eps=0.1, steps=30, random_start=False)
    sizes = [len(seen) for seen in watched.seen]
    assert sizes[:4] == ([3, 2, 1, 1] if attack is apgd else [3, 2, 2, 1])  # wrong from the start, after a step, never
    assert set(sizes[4:]) == {1}
    assert len(sizes) == (31 if attack is apgd else 32)


@pytest.mark.parametrize("attack", BOTH)
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_neither_order_nor_batch_matters(digits, attack, norm):
    network, images, labels = digits[0], digits[1][:14].double(), digits[2][:14]
    exact = lambda x: torch.func.functional_call(network, weights, (x,))  # noqa: E731
    weights = {name: weight.detach().double() for name, weight in network.named_parameters()}
    settings = {"norm": norm, "eps": {"linf": 0.05, "l2": 0.5, "l1": 4.0}[norm], "steps": 15}
    settings |= {"target_classes": 2} if attack is apgd_targeted else {}
    together = attack(exact, images, labels, **settings)
    order = torch.randperm(14, generator=torch.Generator().manual_seed(0))
    shuffled = attack(exact, images[order], labels[order], **settings)
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-9)
    parts = [attack(exact, images[part], labels[part], **settings) for part in torch.arange(14).split(5)]
    torch.testing.assert_close(torch.cat(parts), together, rtol=0, atol=1e-9)
    assert not torch.equal(attack(exact, images, labels, 1, **settings), together)


# Random classifiers


def _lucky(images):
    """Class 1 wins every tenth draw, wherever the image is."""
    surprise = torch.where(torch.rand(len(images)) < 0.1, 1.2, 0.0).to(images.dtype)
    flat = images.flatten(1).sum(dim=1)
    return torch.stack([1 + 0 * flat, surprise + 0.001 * flat], dim=1)


def test_the_mean_of_the_draws_is_not_taken_in_by_a_lucky_one(counter):
    images, labels = (
        torch.rand(40, 1, 2, 2, generator=torch.Generator().manual_seed(0)),
        torch.zeros(40, dtype=torch.int64),
    )
    watched = counter(_lucky)
    apgd(watched, images, labels, eps=0.1, steps=10, eot=20)
    assert watched.backwards == 20 * 10 * 40  # none has left
    assert watched.forwards == 20 * 12 * 40


def test_the_last_draw_decides_as_in_the_version_for_random_classifiers(counter):
    """The image stays, and the last point that a last draw got wrong is returned."""
    images, labels = torch.full((40, 1, 1, 1), 0.5), torch.zeros(40, dtype=torch.int64)
    images += torch.linspace(0, 0.001, 40).view(40, 1, 1, 1)
    draws = iter([])

    def scripted(images):
        return torch.stack([torch.zeros(len(images)), images.flatten() + next(draws)], dim=1)

    # Image; start, 3 draws each: wrong in the first draw only; wrong in the last; wrong in the first two; final: right.
    script = [-9, 9, -9, -9, -9, -9, 9, 9, 9, -9, -9]
    draws = iter(script)
    watched = counter(scripted)
    adversarial = apgd(watched, images, labels, eps=0.1, steps=3, eot=3, decide="last")
    assert len(watched.seen) == len(script)
    assert [len(seen) for seen in watched.seen] == [40] * len(script)
    assert torch.equal(adversarial, watched.seen[6])


@pytest.mark.parametrize("decide", ["mean", "last"])
def test_the_gradient_is_the_mean_over_the_draws(decide):
    """In one draw the slope has its true sign with probability 0.63 only; in the mean of 200, with 0.9999988."""
    images, labels = torch.full((50, 1, 1, 1), 0.5), torch.zeros(50, dtype=torch.int64)
    images += torch.linspace(0, 0.001, 50).view(50, 1, 1, 1)

    def classifier(images):
        seen.append(images.detach())
        x = images.flatten()
        return torch.stack([torch.full_like(x, 999.0), x * (1 + 3 * torch.randn(len(x)))], dim=1)

    for eot, low, high in ((1, 0.4, 0.85), (200, 1.0, 1.0)):
        seen = []
        apgd(classifier, images, labels, eps=0.2, steps=1, eot=eot, decide=decide)
        up = ((seen[-1] - images).flatten() > 0.19).double().mean()  # where the first step leads, from anywhere
        assert low <= up <= high


# Traps


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize(("attack", "loss"), [(apgd, "ce"), (apgd, "dlr"), (apgd, "margin"), (apgd_targeted, "dlr")])
def test_rounding_of_tiny_and_huge_logits_does_not_matter(digits, attack, norm, loss):
    network, images, labels = digits[0], digits[1][:60], digits[2][:60]
    weights = {name: weight.detach().double() for name, weight in network.named_parameters()}
    eps = {"linf": 0.08, "l2": 0.8, "l1": 5.0}[norm]
    settings = {"norm": norm, "eps": eps, "steps": 15, "loss": loss}
    settings |= {"target_classes": 2} if attack is apgd_targeted else {}

    def broken(scale, shift, *, exact):
        def classifier(images):
            logits = torch.func.functional_call(network, weights, (images,)) if exact else network(images)
            return scale * logits + shift

        x = images.double() if exact else images
        adversarial = attack(classifier, x, labels, **settings)
        return int(judge(network, images, labels, adversarial.float(), norm=norm, eps=eps).success.sum())

    as_trained = broken(1.0, 0.0, exact=True)
    assert 20 < as_trained < 58
    # The cross-entropy of tiny logits is another one: its gradient leads away from the true class, not to the next.
    tiny = broken(1e-6, 0.0, exact=True) if loss == "ce" else as_trained
    assert broken(1e-6, 0.0, exact=False) == pytest.approx(tiny, abs=1)
    assert broken(1e6, 0.0, exact=False) == pytest.approx(broken(1e6, 0.0, exact=True), abs=1)
    assert broken(1.0, -100.0, exact=False) == pytest.approx(as_trained, abs=1)


@pytest.mark.parametrize("attack", BOTH)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("loss", ["dlr", "margin"])
def test_few_classes_are_no_obstacle(linear, attack, classes, loss):
    random = torch.Generator().manual_seed(0)
    classifier = linear(torch.randn(classes, 12, generator=random, dtype=torch.float64))
    images = 0.4 + 0.2 * torch.rand(60, 3, 2, 2, generator=random, dtype=torch.float64)
    with torch.no_grad():
        classifier.bias -= classifier(images).mean(dim=0)
    labels = classifier(images).argmax(dim=1)
    weight = classifier.weight.detach()
    gaps = classifier(images).detach().gather(1, labels[:, None]) - classifier(images).detach()
    critical = (gaps / (weight[labels][:, None] - weight[None]).abs().sum(dim=2)).nan_to_num(torch.inf).amin(dim=1)
    eps = float(critical.sort().values[29:31].mean())
    expected = critical < eps
    adversarial = attack(classifier, images, labels, eps=eps, loss=loss)
    verdict = judge(classifier, images, labels, adversarial, norm="linf", eps=eps)
    assert not (verdict.success & ~expected).any()
    assert int((expected & ~verdict.success).sum()) <= (0 if attack is apgd_targeted or classes == 2 else 2)


@pytest.mark.parametrize("attack", BOTH)
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_constant_network_returns_the_images(linear, attack, norm):
    images = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    constant = linear(torch.zeros(5, 16), torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]))
    adversarial = attack(constant, images, torch.zeros(5, dtype=torch.int64), norm=norm, eps=0.1, steps=20)
    assert torch.equal(adversarial, images)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_saturated_pixels_move(linear, norm):
    """Every intensity is 0 or 1, and each has to leave its wall."""
    random = torch.Generator().manual_seed(0)
    images = (torch.rand(3, 1, 4, 4, generator=random) < 0.5).double()
    inwards = 1 - 2 * images
    labels = torch.zeros(3, dtype=torch.int64)
    for image, way in zip(images.split(1), inwards.split(1), strict=True):
        classifier = linear(torch.stack([torch.zeros(16, dtype=torch.float64), way.flatten()]), torch.tensor([99.0, 0]))
        adversarial = apgd(classifier, image, labels[:1], norm=norm, eps=0.4)
        moved = ((adversarial - image) * way).flatten()
        if norm != "l1":  # where one intensity is as good as another
            assert moved.min() > {"linf": 0.4 - 1e-12, "l2": 0.09}[norm]
        assert moved.sum() > {"linf": 6.4, "l2": 1.59, "l1": 0.399}[norm] - 1e-9


@pytest.mark.parametrize("attack", BOTH)
def test_a_radius_of_zero_looks_once_and_returns_the_images(digits, counter, attack):
    watched = counter(digits[0])
    assert torch.equal(attack(watched, digits[1][:20], digits[2][:20], eps=0), digits[1][:20])
    assert (watched.forwards, watched.backwards) == (20, 0)


@pytest.mark.parametrize("attack", BOTH)
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_mask_is_kept(digits, attack, norm):
    network, images, labels = digits[0], digits[1][:40], digits[2][:40]
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    adversarial = attack(
        network, images, labels, norm=norm, eps={"linf": 0.3, "l2": 2.0, "l1": 8.0}[norm], steps=10, mask=mask
    )
    assert torch.equal(adversarial * (1 - mask), images * (1 - mask))
    assert (network(adversarial).argmax(dim=1) != labels).double().mean() > 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, r"^apgd: expected steps of at least 1; got 0$"),
        ({"steps": 4, "norm": "l1"}, r"^apgd: expected steps of at least 5; got 4$"),
        ({"restarts": 0}, r"^apgd: expected restarts and eot of at least 1; got 0 and 1$"),
        (
            {"restarts": 2, "random_start": False},
            r"^apgd: 2 restarts without a random start are all the same; set random",
        ),
        ({"rho": 1.5}, r"^apgd: expected rho from 0 to 1; got 1.5$"),
        ({"decide": "first"}, r"^apgd: decide must be one of mean, last; got 'first'$"),
        ({"loss": "hinge"}, r"^apgd: loss must be one of ce, rounded_ce, margin, dlr, mse; got 'hinge'$"),
    ],
)
def test_settings_without_meaning_are_refused(pixel, tent, settings, message):
    with pytest.raises(SpecError, match=message):
        apgd(tent, *pixel, eps=0.1, **settings)


def test_targeted_settings_without_meaning_are_refused(pixel, tent):
    with pytest.raises(SpecError, match=r"^apgd_targeted: expected target_classes of at least 1; got 0$"):
        apgd_targeted(tent, *pixel, eps=0.1, target_classes=0)
    with pytest.raises(SpecError, match=r"^apgd_targeted: loss must be one of dlr, margin; got 'ce'$"):
        apgd_targeted(tent, *pixel, eps=0.1, loss="ce")


# Referees: nobody breaks more than half a point more at the same budget


def _pyautoattack(network, images, labels, norm, eps):
    peer = pytest.importorskip("pyautoattack.autopgd_base")
    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    run = peer.APGDAttack(network, n_iter=100, norm=name, eps=eps, seed=0, device="cpu", use_largereps=norm == "l1")
    return run.perturb(images, labels)


def _torchattacks(network, images, labels, norm, eps):
    peer = pytest.importorskip("torchattacks")
    return peer.APGD(network, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, steps=100)(images, labels)


def _art(network, images, labels, norm, eps):
    evasion = pytest.importorskip("art.attacks.evasion")
    from art.estimators.classification import PyTorchClassifier

    estimator = PyTorchClassifier(
        network, torch.nn.CrossEntropyLoss(), (1, 16, 16), 10, clip_values=(0.0, 1.0), device_type="cpu"
    )
    run = evasion.AutoProjectedGradientDescent(
        estimator,
        norm={"linf": math.inf, "l2": 2}[norm],
        eps=eps,
        eps_step=2 * eps,
        max_iter=100,
        nb_random_init=1,
        batch_size=400,
        loss_type="cross_entropy",
        verbose=False,
    )
    return torch.from_numpy(run.generate(images.numpy(), labels.numpy()))


def _foolbox(network, images, labels, norm, eps):
    import foolbox

    kind = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    run = kind(steps=100, rel_stepsize={"linf": 0.025, "l2": 0.1}[norm])
    return run(foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu"), images, labels, epsilons=[eps])[1][0]


@pytest.mark.filterwarnings("ignore")  # of the peers and of what they import
@pytest.mark.parametrize(
    ("norm", "eps", "peers"),
    [
        ("linf", 0.05, (_pyautoattack, _torchattacks, _art, _foolbox)),
        ("linf", 0.1, (_pyautoattack, _foolbox)),
        ("l2", 0.5, (_pyautoattack, _torchattacks)),
        ("l2", 1.0, (_pyautoattack, _foolbox)),
        ("l1", 6.0, (_pyautoattack,)),
    ],
)
def test_no_peer_leaves_a_lower_accuracy(digits, norm, eps, peers):
    network, images, labels = digits[0], digits[1][:400], digits[2][:400]
    theirs = {}
    for peer in peers:
        with undisturbed("referee", 0):
            found = peer(network, images, labels, norm, eps).detach()
        verdict = judge(network, images, labels, found, norm=norm, eps=eps + 1e-5)  # some leave the ball by rounding
        theirs[peer.__name__] = float(1 - verdict.success.double().mean())
    network.zero_grad(set_to_none=True)
    ours = _accuracy(network, images, labels, apgd(network, images, labels, norm=norm, eps=eps), norm=norm, eps=eps)
    assert 0.05 < ours < 0.8
    assert ours <= min(theirs.values()) + 0.005, theirs


@pytest.mark.filterwarnings("ignore")
def test_towards_classes_the_authors_code_leaves_no_lower_accuracy(digits):
    peer = pytest.importorskip("pyautoattack.autopgd_base")
    network, images, labels = digits[0], digits[1][:400], digits[2][:400]
    with undisturbed("referee", 0):
        run = peer.APGDAttack_targeted(network, norm="Linf", eps=0.1, device="cpu", n_iter=100)
        found = run.perturb(images, labels)
    theirs = 1 - judge(network, images, labels, found, norm="linf", eps=0.1 + 1e-5).success.double().mean()
    adversarial = apgd_targeted(network, images, labels, eps=0.1)
    assert _accuracy(network, images, labels, adversarial, norm="linf", eps=0.1) <= theirs + 0.005
