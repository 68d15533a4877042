"""Critical perturbations of classifiers that are linear where they are looked at."""

import math

import numpy as np
import pytest
import torch

from unperturbed.examinations import Subject
from unperturbed.examinations.critical_perturbation import critical_perturbation, published_perturbation
from unperturbed.models import build
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import generator


def _opposed(bias=0.0):
    """Two hidden units with opposite weights and a readout that copies them: the logits differ by ``w @ v``."""
    network = build(Spec(name="hidden-layer", settings={"hidden": 2, "classes": 2}), generator("weights", 0))
    weight = torch.randn(3072, generator=generator("w"))
    weight -= weight.mean()  # so that images lie on both sides
    with torch.no_grad():
        network.hidden.weight.copy_(torch.stack([weight, -weight]))
        network.readout.weight.copy_(torch.eye(2))
        network.readout.bias.copy_(torch.tensor([bias, 0.0]))
    return network.eval(), weight


def _subject(network, images, labels=None):
    with torch.no_grad():
        own = network(images).argmax(dim=1)
    return Subject(network, images, own if labels is None else labels(own), seed=3)


@pytest.fixture
def images():
    return 0.2 + 0.6 * torch.rand(20, 3, 32, 32, generator=generator("images"))


def test_fgsm_reaches_the_first_grid_point_behind_the_closed_form(images):
    network, weight = _opposed()
    found = published_perturbation(_subject(network, images), attack="fgsm")
    with torch.no_grad():
        margin = (network.inputs(images) @ weight).abs()
    critical = (margin / weight.abs().sum()).double().numpy()  # Linf of a linear classifier
    eps = found.arrays["eps"]
    expected = eps[np.searchsorted(eps, critical)]
    np.testing.assert_allclose(found.arrays["critical_eps"], expected, rtol=1e-12)
    np.testing.assert_allclose(found.arrays["critical_l2"], expected * math.sqrt(3072), rtol=1e-5)  # float32
    still = (found.arrays["critical_eps"][None] > eps[:, None]).mean(axis=1)
    np.testing.assert_array_equal(found.arrays["relative_accuracy"], still)
    assert (len(eps), eps[0], eps[-1]) == (400, pytest.approx(1e-6), pytest.approx(10**-1.5))


def test_pgd_finds_the_same_where_the_box_does_not_bind_and_stays_in_the_ball(images):
    network, _ = _opposed()
    subject = _subject(network, images)
    one, many = (published_perturbation(subject, attack=name, grid=60) for name in ("fgsm", "pgd"))
    # two full steps of a tenth of eps short of twenty: the ball is reached, and on a linear classifier its corner
    np.testing.assert_allclose(many.arrays["critical_eps"], one.arrays["critical_eps"], rtol=1e-12)
    assert many.backwards > 19 * one.backwards


def test_steps_of_pgd_are_a_hundredth_and_in_a_smaller_ball_a_tenth_of_it(images, monkeypatch):
    network, _ = _opposed(bias=80.0)  # farther ahead than any eps undoes, and not so far that the gradient is lost
    signs = published_perturbation.__globals__["_signs"]
    with torch.no_grad():
        centres = network.inputs(images)
    moved = []

    def watched(behind, points, labels):
        moved.append(float((points - centres).abs().max()))
        return signs(behind, points, labels)

    monkeypatch.setitem(published_perturbation.__globals__, "_signs", watched)
    found = published_perturbation(_subject(network, images), attack="pgd", grid=3)
    for number, eps in enumerate(found.arrays["eps"]):
        step = 0.01 if eps >= 0.01 else 0.1 * eps
        reached = [min(turn * step, eps) for turn in range(20)]
        np.testing.assert_allclose(moved[20 * number : 20 * (number + 1)], reached, rtol=1e-3, atol=1e-8)  # float32


def test_pgd_is_cut_to_the_box_once_at_the_end(images):
    """What would fall below 0 stays there, so that the L2 of the perturbation has fewer terms."""
    network, weight = _opposed()
    dark = images * (torch.rand(images.shape, generator=generator("dark")) > 0.5)
    found = published_perturbation(_subject(network, dark), attack="pgd", grid=60)
    with torch.no_grad():
        vectors = network.inputs(dark)
        downhill = -weight.sign() * (vectors @ weight).sign().unsqueeze(1)
    moving = ((vectors > 0) | (downhill > 0)).sum(dim=1).double().numpy()
    assert (moving < 3072).all()
    expected = found.arrays["critical_eps"] * np.sqrt(moving)
    np.testing.assert_allclose(found.arrays["critical_l2"], expected, rtol=0.01)  # some reach 0 on their way


def test_images_that_nothing_breaks_stay_right_at_every_eps(images):
    network, weight = _opposed()
    far = (0.5 + 0.5 * weight.sign()).view(1, 3, 32, 32)  # its margin per length is beyond the grid
    found = published_perturbation(_subject(network, torch.cat([images, far])), attack="fgsm")
    assert np.isinf(found.arrays["critical_eps"]).tolist() == [False] * 20 + [True]
    assert found.arrays["relative_accuracy"][-1] == pytest.approx(1 / 21)


def test_noise_is_not_clipped_and_its_grid_ends_at_two_and_a_half(images):
    network, _ = _opposed()
    found = published_perturbation(_subject(network, images), attack="noise")
    reached = np.isfinite(found.arrays["critical_eps"])
    length = found.arrays["critical_l2"][reached] / found.arrays["critical_eps"][reached]
    np.testing.assert_allclose(length, math.sqrt(3072), rtol=0.1)  # the length of 3,072 normal numbers, 1.3 % off
    assert found.arrays["eps"][-1] == pytest.approx(2.5)
    assert reached.any()


def test_only_images_that_were_right_count(images):
    network, _ = _opposed()
    right = published_perturbation(_subject(network, images))
    half = published_perturbation(
        _subject(network, images, lambda own: torch.where(torch.arange(20) < 10, own, 1 - own))
    )
    values = {row.measure: row.value for row in half.measures}
    assert values["f0"] == 0.5
    assert values["critical_l2_published"] == pytest.approx(np.median(right.arrays["critical_l2"][:10]))
    assert (half.arrays["critical_l2"][10:] == 0).all()


def test_what_is_never_broken_has_no_median(images):
    network, _ = _opposed(bias=1e6)
    found = published_perturbation(_subject(network, images), grid=5)
    assert [row.measure for row in found.measures] == ["f0"]
    assert np.isinf(found.arrays["critical_l2"]).all()


@pytest.mark.parametrize("attack", ["fmn", "ddn"])
def test_the_distance_in_intensities_is_that_of_a_linear_classifier(images, linear, attack):
    weight = torch.randn(3072, generator=generator("w"))
    weight -= weight.mean()
    network = linear(weight)
    found = critical_perturbation(_subject(network, images), attack=attack)
    exact = ((images.flatten(1) @ weight).abs() / weight.norm()).double().numpy()
    np.testing.assert_allclose(found.arrays["critical_l2"], exact, rtol=0.02)  # the attacks end within 2 %
    values = {row.measure: row.value for row in found.measures}
    assert values["critical_l2"] == pytest.approx(np.median(found.arrays["critical_l2"]))


def test_along_the_gradient_it_is_the_first_length_behind_the_distance(images, linear):
    weight = torch.randn(3072, generator=generator("w"))
    weight -= weight.mean()
    found = critical_perturbation(_subject(linear(weight), images), attack="fgsm")
    exact = ((images.flatten(1) @ weight).abs() / weight.norm()).double().numpy()
    grid = np.geomspace(0.01, 100.0, 121)
    inside = exact > 0.01
    assert inside.sum() > 15
    np.testing.assert_allclose(
        found.arrays["critical_l2"][inside], grid[np.searchsorted(grid, exact[inside])], rtol=1e-9
    )


class Watched(torch.nn.Module):
    """A classifier that keeps what it is shown."""

    def __init__(self, network):
        super().__init__()
        self.network, self.shown = network, []

    def forward(self, images):
        self.shown.append(images)
        return self.network(images)


def test_noise_is_the_nearest_of_twenty_rays_that_reach_the_other_class(images, linear):
    weight = torch.randn(3072, generator=generator("w"))
    weight -= weight.mean()
    network = Watched(linear(weight))
    subject = _subject(network, images)
    network.shown.clear()
    found = critical_perturbation(subject, attack="noise")
    batch, *along = network.shown
    assert torch.equal(batch, images)
    rays = (along[0].view(20, 20, 3072).double() - images.flatten(1)[:, None].double()) / 0.1  # the first length
    torch.testing.assert_close(rays.norm(dim=2), torch.ones(20, 20, dtype=torch.float64), rtol=0, atol=1e-4)
    margin = (images.flatten(1) @ weight).double()
    speed = rays @ weight.double()
    reached = torch.where(speed * margin[:, None] < 0, -margin[:, None] / speed, torch.inf).amin(dim=1)
    free = reached < 4  # farther out the box bends the rays
    assert free.sum() >= 5
    ratio = torch.from_numpy(found.arrays["critical_l2"])[free] / reached[free]
    assert ((ratio > 0.97) & (ratio < 1.19)).all()  # the grid is 17 % coarse
    assert found.backwards == 0
    assert found.forwards == sum(map(len, network.shown))
    again = critical_perturbation(subject._replace(seed=4), attack="noise")
    assert not np.array_equal(again.arrays["critical_l2"], found.arrays["critical_l2"])


def test_noise_counts_images_that_were_wrong_as_nothing_and_those_it_cannot_break_as_infinite(images, linear):
    weight = torch.ones(3072)
    subject = _subject(linear(weight, bias=1e5), images, lambda own: torch.where(torch.arange(20) < 6, own, 1 - own))
    found = critical_perturbation(subject, attack="noise")
    assert [row.measure for row in found.measures] == ["f0"]
    assert found.arrays["critical_l2"].tolist() == [math.inf] * 6 + [0.0] * 14


def test_images_that_were_wrong_from_the_start_are_no_part_of_the_median(images, linear):
    weight = torch.randn(3072, generator=generator("w"))
    weight -= weight.mean()
    subject = _subject(linear(weight), images, lambda own: torch.where(torch.arange(20) < 6, own, 1 - own))
    found = critical_perturbation(subject)
    values = {row.measure: row.value for row in found.measures}
    assert values["f0"] == 0.3
    assert values["critical_l2"] == pytest.approx(np.median(found.arrays["critical_l2"][:6]))
    assert (found.arrays["critical_l2"][6:] == 0).all()


def test_as_published_a_perturbation_uses_the_length_and_of_the_image_it_cannot(images):
    """The defect of the published protocol: where the classifier looks at brightness, it is fooled by brightness there."""
    network, weight = _opposed()
    weight = 1 + 0.02 * weight
    with torch.no_grad():
        network.hidden.weight.copy_(torch.stack([weight, -weight]))
        vectors = network.inputs(images)
        network.readout.bias[0] = -(vectors @ weight).median()
        length = images.flatten(1).pow(3).sum(dim=1).pow(1 / 3).double().numpy()
    subject = _subject(network, images)
    published = published_perturbation(subject, attack="fgsm").arrays["critical_l2"] * length  # in intensities
    through = critical_perturbation(subject).arrays["critical_l2"]
    chosen = published > 1e-3  # elsewhere the grid is coarser than the distance
    assert chosen.sum() >= 15
    assert (through[chosen] > 1.5 * published[chosen]).all()


def test_without_a_say_of_the_length_both_protocols_agree(images):
    network, weight = _opposed()
    subject = _subject(network, images)
    with torch.no_grad():
        vectors = network.inputs(images)
        length = images.flatten(1).pow(3).sum(dim=1).pow(1 / 3)
        behind = (vectors @ weight).abs() / weight.norm()
    through = critical_perturbation(subject).arrays["critical_l2"]
    # w is orthogonal to constants, so that the nearest zero of w @ x is the same point, seen at another length
    np.testing.assert_allclose(through, (behind * length).double().numpy(), rtol=0.02)


@pytest.mark.parametrize(
    ("settings", "model", "message"),
    [
        ({"grid": 1}, "hidden-layer", "published-perturbation: expected a grid of at least 2 eps; got 1"),
        ({}, "lenet", "published-perturbation: expected the model hidden-layer, got LeNet"),
    ],
)
def test_wrong_input_is_refused_in_one_line(images, settings, model, message):
    network = build(Spec(name=model), generator("weights", 0)).eval()
    with pytest.raises(SpecError) as caught:
        published_perturbation(_subject(network, images), **settings)
    assert str(caught.value) == message
