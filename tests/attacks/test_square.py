import numpy as np
import pytest
import torch

from unperturbed.attacks import judge
from unperturbed.attacks.square import HALVINGS, _Corners, pyramids, share, square
from unperturbed.records import SpecError
from unperturbed.tensors.norms import length
from unperturbed.tensors.streams import undisturbed


def _waves(images):
    """A margin with many hills that never reaches the other class."""
    x = images.flatten(1)
    margin = (torch.sin(40 * x) * torch.linspace(1, 2, x.shape[1], dtype=x.dtype)).sum(dim=1) - 99 * x.shape[1]
    return torch.stack([torch.zeros_like(margin), margin], dim=1)


def _margin(classifier, images):
    return classifier(images)[:, 1] - classifier(images)[:, 0]


@pytest.fixture
def one_at_a_time(monkeypatch):
    """Every image is asked about its next proposal only."""
    monkeypatch.setattr(_Corners, "rows", 1)


# The published algorithm


def test_the_share_halves_where_it_was_published():
    """Andriushchenko et al. (2020), section 4, for 10,000 queries."""
    assert HALVINGS == (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
    assert [share(query) / 0.8 for query in (50, 51, 200, 201, 4000, 4001, 8000, 8001, 9999)] == [
        *(1 / 2, 1 / 4, 1 / 4, 1 / 8, 1 / 64, 1 / 128, 1 / 256, 1 / 512, 1 / 512)
    ]


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 9, 9), (3, 8, 12)])
def test_the_search_in_linf_is_the_published_one(counter, one_at_a_time, channels, height, width):
    """Stripes first; then squares of the published side, in corners of the ball, kept if the loss falls."""
    random = torch.Generator().manual_seed(0)
    image = 0.3 + 0.4 * torch.rand(1, channels, height, width, generator=random, dtype=torch.float64)
    watched = counter(_waves)
    adversarial = square(watched, image, torch.tensor([0]), eps=0.1, queries=900, p_init=0.5, rescale=True)
    clean, best, *proposals = watched.seen
    assert torch.equal(clean, image)
    stripes = best - image
    assert torch.equal(stripes.sign(), stripes.sign()[:, :, :1].expand_as(stripes))
    torch.testing.assert_close(stripes.abs(), torch.full_like(stripes, 0.1), rtol=0, atol=1e-15)
    assert 0 < int((stripes > 0).sum()) < stripes.numel()
    largest = 0
    sides, edges = [], set()
    for proposal in proposals:
        torch.testing.assert_close((proposal - image).abs(), torch.full_like(image, 0.1), rtol=0, atol=1e-15)
        where = (proposal != best).nonzero()
        reach = where.amax(dim=0) - where.amin(dim=0) + 1
        sides.append(int(max(reach[2:])))
        edges |= {(2, int(place)) for place in where[:, 2]} | {(3, int(place)) for place in where[:, 3]}
        for channel in range(channels):  # one sign for each channel of the square
            moved = (proposal - image)[0, channel][(proposal != best)[0, channel]]
            assert len(set(moved.sign().tolist())) <= 1
        if _margin(_waves, proposal) > _margin(_waves, best):
            best = proposal
            largest += 1
    assert largest > 10
    assert torch.equal(adversarial, best)
    assert edges == {(2, row) for row in range(height)} | {(3, column) for column in range(width)}  # the last ones too
    # 0.5 of the image at first, halved nine times at the published places; what changed nothing was not looked at.
    first, last = round((0.5 * height * width) ** 0.5), 1
    assert max(sides) == first
    assert set(sides[-100:]) == {last}
    assert len(proposals) < 900


@pytest.mark.parametrize("offset", [99.0, 0.75])
@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_proposals_that_are_looked_at_together_find_what_one_after_another_finds(counter, monkeypatch, offset, count):
    """No image breaks, or most do; with 20 images one query at a time is what pays."""

    def waves(images):
        margin = (_waves(images)[:, 1] + 99 * images[0].numel()) / images[0].numel() - offset
        return torch.stack([torch.zeros_like(margin), margin], dim=1)

    images = 0.2 + 0.6 * torch.rand(count, 2, 7, 8, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    labels = torch.zeros(count, dtype=torch.int64)
    together, apart = counter(waves), counter(waves)
    ahead = square(together, images, labels, eps=0.05, queries=500, rescale=True)
    monkeypatch.setattr(_Corners, "rows", 1)
    assert torch.equal(ahead, square(apart, images, labels, eps=0.05, queries=500, rescale=True))
    assert (waves(ahead)[:, 1] > 0).any() == (offset == 0.75)
    if offset == 99:
        assert apart.forwards <= together.forwards <= 1.6 * apart.forwards
        assert (len(together.seen) < 0.9 * len(apart.seen)) == (count <= 5)


def test_in_l2_length_moves_from_one_square_to_another(counter):
    """All of the radius is used, and a proposal differs from the best point in two squares up to a common factor."""
    image = torch.full((1, 2, 20, 20), 0.5, dtype=torch.float64)
    image += 0.01 * torch.rand(image.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    watched = counter(_waves)
    square(watched, image, torch.tensor([0]), norm="l2", eps=1.0, queries=300)
    best, *proposals = watched.seen[1:]
    for query, proposal in enumerate(proposals):
        assert float(length(proposal - image, norm="l2")) == pytest.approx(1, abs=1e-9)
        side = min(max(round((share(query) * 400) ** 0.5), 3) // 2 * 2 + 1, 20)
        ratio = (proposal - image) / (best - image)
        usual = ratio[ratio.isfinite()].flatten().mode().values if side < 13 else torch.tensor(torch.nan)
        other = ((proposal - image) - usual * (best - image)).abs().amax(dim=1)[0] > 1e-9
        if side < 13:
            assert 0 < int(other.sum()) <= 2 * side**2
        if _margin(_waves, proposal) > _margin(_waves, best):
            best = proposal


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 12])
def test_pyramids_are_those_of_the_authors(norm, side):
    peer = pytest.importorskip("pyautoattack.square")
    ours = pyramids(side, norm=norm)
    assert float(torch.linalg.vector_norm(ours, ord=2 if norm == "l2" else 1)) == pytest.approx(1, abs=1e-6)
    if side > 1:  # theirs is 0 / 0
        run = peer.SquareAttack(None, norm=norm.upper(), eps=1, device="cpu")
        with undisturbed("referee", 0):
            theirs = run.eta(side)
        assert torch.allclose(ours, theirs, atol=1e-6) or torch.allclose(ours.T, theirs, atol=1e-6)


# Closed forms


def test_a_linear_classifier_breaks_exactly_where_its_margin_is_too_small(two_classes):
    """Squares of one pixel are enough to find the best corner of 12 intensities."""
    classifier, images, labels = two_classes
    slope = (classifier.weight[1] - classifier.weight[0]).detach()
    critical = _margin(classifier, images).detach().abs() / slope.abs().sum()
    eps = float(critical.sort().values[19:21].mean())
    adversarial = square(classifier, images, labels, eps=eps, queries=1500, rescale=True)
    verdict = judge(classifier, images, labels, adversarial, norm="linf", eps=eps)
    assert verdict.success.tolist() == (critical < eps).tolist()
    left = ~verdict.success
    optimum = images + eps * (slope * (1 - 2 * labels)[:, None]).sign().view_as(images)
    torch.testing.assert_close(adversarial[left], optimum[left], rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_best_point_seen_is_returned(counter, one_at_a_time, norm):
    images = 0.2 + 0.6 * torch.rand(6, 3, 7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    adversarial = square(_waves, images, torch.zeros(6, dtype=torch.int64), norm=norm, eps=0.2, queries=60)
    left = 0
    for image, found in zip(images.split(1), adversarial.split(1), strict=True):
        watched = counter(_waves)
        alone = square(watched, image, torch.tensor([0]), norm=norm, eps=0.2, queries=60)
        torch.testing.assert_close(alone, found, rtol=0, atol=1e-9)
        best = max(float(_margin(_waves, seen)) for seen in watched.seen)
        assert float(_margin(_waves, found)) == pytest.approx(best, abs=1e-9)
        left += best > float(_margin(_waves, watched.seen[-1]))
    assert left > 2  # the last one would not do


# Passes, order, batch


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_search_costs_the_forwards_that_are_promised(counter, one_at_a_time, norm):
    images = torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    watched = counter(_waves)
    square(watched, images, torch.zeros(5, dtype=torch.int64), norm=norm, eps=0.1, queries=30, restarts=2)
    assert watched.backwards == 0
    if norm == "linf":
        # What changes nothing is left out; twice 1 + 30 and the image would be 63.
        assert 40 * 5 < watched.forwards < 63 * 5
    else:
        assert watched.forwards == 63 * 5


def test_broken_images_leave(linear, counter, one_at_a_time):
    watched = counter(linear(torch.tensor([[1.0], [-1.0]], dtype=torch.float64), torch.tensor([-0.5, 0.5]).double()))
    images = torch.tensor([0.45, 0.55, 0.95], dtype=torch.float64).view(3, 1, 1, 1)
    square(watched, images, torch.zeros(3, dtype=torch.int64), eps=0.1, queries=50)
    sizes = [len(seen) for seen in watched.seen]
    assert sizes[:2] == [3, 2]
    assert sorted(sizes, reverse=True) == sizes
    assert sizes[-1] == 1
    assert len(sizes) < 45  # of 52: with one intensity, every second proposal changes nothing


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_neither_order_nor_batch_matters(digits, norm):
    network, images, labels = digits[0], digits[1][:20].double(), digits[2][:20]
    weights = {name: weight.detach().double() for name, weight in network.named_parameters()}
    exact = lambda x: torch.func.functional_call(network, weights, (x,))  # noqa: E731
    settings = {"norm": norm, "eps": {"linf": 0.05, "l2": 0.5, "l1": 4.0}[norm], "queries": 100}
    together = square(exact, images, labels, **settings)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        square(exact, images[order], labels[order], **settings), together[order], rtol=0, atol=1e-9
    )
    parts = [square(exact, images[part], labels[part], **settings) for part in torch.arange(20).split(7)]
    torch.testing.assert_close(torch.cat(parts), together, rtol=0, atol=1e-9)
    assert not torch.equal(square(exact, images, labels, 1, **settings), together)


def test_the_layout_of_the_images_does_not_matter(digits):
    network, images, labels = digits[0], digits[1][:20], digits[2][:20]
    colour = lambda x: network(x.mean(dim=1, keepdim=True))  # noqa: E731
    images = images.expand(-1, 3, -1, -1).contiguous()
    expected = square(colour, images, labels, eps=0.1, queries=50)
    assert not torch.equal(expected, images)
    channels_last = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(square(colour, channels_last, labels, eps=0.1, queries=50), expected, rtol=0, atol=1e-6)


# Traps


def test_no_gradient_is_needed(digits):
    network, images, labels = digits[0], digits[1][:60], digits[2][:60]

    def opaque(images):
        with torch.no_grad():
            return torch.from_numpy(network(images).numpy())

    adversarial = square(opaque, images, labels, eps=0.1, queries=300)
    before, after = ((network(x).argmax(dim=1) == labels).double().mean() for x in (images, adversarial))
    assert after < before - 0.3


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 2), (1, 4, 9), (2, 5, 3)])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_small_and_narrow_images_work(linear, norm, shape):
    random = torch.Generator().manual_seed(0)
    images = 0.3 + 0.4 * torch.rand(4, *shape, generator=random, dtype=torch.float64)
    labels = torch.zeros(4, dtype=torch.int64)
    slope = torch.randn(images[0].numel(), generator=random, dtype=torch.float64)
    classifier = linear(torch.stack([torch.zeros_like(slope), slope]), torch.tensor([99.0, 0.0], dtype=torch.float64))
    adversarial = square(classifier, images, labels, norm=norm, eps=0.1, queries=200, rescale=True)
    verdict = judge(classifier, images, labels, adversarial, norm=norm, eps=0.1)
    assert verdict.in_ball.all()
    assert verdict.in_box.all()
    assert (_margin(classifier, adversarial) > _margin(classifier, images)).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_constant_network_returns_the_images(linear, norm):
    images = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    constant = linear(torch.zeros(2, 36), torch.tensor([1.0, 0.0]))
    assert torch.equal(
        square(constant, images, torch.zeros(5, dtype=torch.int64), norm=norm, eps=0.1, queries=20), images
    )


def test_a_radius_of_zero_looks_once_and_returns_the_images(digits, counter):
    watched = counter(digits[0])
    assert torch.equal(square(watched, digits[1][:20], digits[2][:20], eps=0), digits[1][:20])
    assert watched.forwards == 20


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_targets_and_mask_are_kept(digits, norm):
    network, images, labels = digits[0], digits[1][:30], digits[2][:30]
    targets = (labels + 1) % 10
    mask = torch.ones(1, 1, 16, 16)
    mask[..., :3] = 0
    eps = {"linf": 0.5, "l2": 5.0, "l1": 40.0}[norm]
    adversarial = square(network, images, labels, norm=norm, eps=eps, queries=300, targets=targets, mask=mask)
    assert (network(adversarial).argmax(dim=1) == targets).double().mean() > 0.5
    assert torch.equal(adversarial * (1 - mask), images * (1 - mask))
    assert judge(network, images, labels, adversarial, norm=norm, eps=eps).in_ball.all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 0}, r"^square: expected queries and restarts of at least 1; got 0 and 1$"),
        ({"restarts": 0}, r"^square: expected queries and restarts of at least 1; got 5000 and 0$"),
        ({"p_init": 0.0}, r"^square: expected p_init above 0 and at most 1; got 0$"),
        ({"p_init": 1.5}, r"^square: expected p_init above 0 and at most 1; got 1.5$"),
        ({"loss": "hinge"}, r"^square: loss must be one of ce, rounded_ce, margin, dlr, mse; got 'hinge'$"),
    ],
)
def test_settings_without_meaning_are_refused(pixel, tent, settings, message):
    with pytest.raises(SpecError, match=message):
        square(tent, *pixel, eps=0.1, **settings)


# Referee


@pytest.mark.parametrize(("norm", "eps", "seeds"), [("linf", 0.1, (0,)), ("l2", 1.0, (0, 1))])
def test_the_authors_code_leaves_no_lower_accuracy(digits, norm, eps, seeds):
    """One seed differs from the next by half a point in l2, where both search alike: means are compared."""
    peer = pytest.importorskip("pyautoattack.square")
    network, images, labels = digits[0], digits[1][:400], digits[2][:400]
    ours, theirs = [], []
    for seed in seeds:
        settings = {"norm": {"linf": "Linf", "l2": "L2"}[norm], "eps": eps, "n_queries": 200, "resc_schedule": False}
        run = peer.SquareAttack(network, seed=seed, device="cpu", **settings)
        with undisturbed("referee", seed), torch.no_grad():
            found = {"theirs": run.perturb(images, labels)}
        found["ours"] = square(network, images, labels, seed, norm=norm, eps=eps, queries=200)
        for name, accuracies in (("ours", ours), ("theirs", theirs)):
            verdict = judge(network, images, labels, found[name], norm=norm, eps=eps + 1e-5)
            accuracies.append(1 - float(verdict.success.double().mean()))
    assert 0.1 < np.mean(theirs) < 0.8
    assert np.mean(ours) <= np.mean(theirs) + 0.005
