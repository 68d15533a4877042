"""Classes tried at once give what they give one after the other: the first that succeeds decides."""

import pytest
import torch

from unperturbed.attacks.apgd import apgd_targeted
from unperturbed.attacks.classifier import Losses
from unperturbed.attacks.fab import fab_targeted
from unperturbed.attacks.problem import Problem
from unperturbed.tensors.norms import length


@pytest.fixture
def exact(digits):
    network, images, labels = digits
    weights = {name: weight.detach().double() for name, weight in network.named_parameters()}
    return lambda x: torch.func.functional_call(network, weights, (x,)), images[:24].double(), labels[:24]


CASES = [
    (apgd_targeted, {"eps": 0.05, "steps": 12}),
    (apgd_targeted, {"eps": 0.03, "steps": 12, "restarts": 2}),
    (apgd_targeted, {"eps": 0.5, "steps": 12, "norm": "l2"}),
    (apgd_targeted, {"eps": 3.0, "steps": 20, "norm": "l1"}),
    (apgd_targeted, {"eps": 0.05, "steps": 12, "decide": "last"}),
    (fab_targeted, {"steps": 8}),
    (fab_targeted, {"steps": 8, "within": 0.05}),
    (fab_targeted, {"steps": 8, "within": 0.5, "norm": "l2"}),
    (fab_targeted, {"steps": 4, "restarts": 2}),
    (apgd_targeted, {"eps": 0.05, "steps": 12, "loss": "margin", "mask": torch.eye(16).view(1, 1, 16, 16)}),
    (fab_targeted, {"steps": 8, "mask": (torch.arange(16) % 3 > 0).double().expand(1, 1, 16, 16)}),
]


@pytest.mark.parametrize(("attack", "settings"), CASES)
def test_together_or_one_after_the_other(exact, counter, attack, settings):
    classifier, images, labels = exact
    one, all_ = counter(classifier), counter(classifier)
    apart = attack(one, images, labels, at_once=1, **settings)
    together = attack(all_, images, labels, at_once=9 * len(images), **settings)
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-9)  # float64; another order of sums
    assert (length(apart - images, norm="linf") > 0).any()
    fewer = settings.get("restarts", 1) == 1 or attack is apgd_targeted
    assert (len(all_.seen) < len(one.seen) / 3) == fewer


@pytest.mark.parametrize("attack", [apgd_targeted, fab_targeted])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_one_class_no_radius_and_a_coarse_type(exact, attack, dtype):
    classifier, images, labels = exact
    typed = lambda x: classifier(x.double()).to(dtype)  # noqa: E731
    images = images.to(dtype)
    budget = {"eps": 0.1} if attack is apgd_targeted else {"within": 0.1}
    settings = {**budget, "steps": 6, "target_classes": 1}
    one = attack(typed, images, labels, at_once=1, **settings)
    assert torch.equal(attack(typed, images, labels, at_once=500, **settings), one)
    if attack is apgd_targeted:
        assert torch.equal(attack(typed, images, labels, eps=0, at_once=500), images)
    wrong = (labels + 1) % 10  # all are broken from the start: nothing is left to be tried together
    right = classifier(images.double()).argmax(dim=1) == labels
    assert torch.equal(attack(typed, images, wrong, at_once=500, **settings)[right], images[right])


def test_a_row_without_a_number_does_not_hide_the_one_that_broke_its_image():
    def classifier(images):  # towards class 1 nothing is a number; class 2 is one step away
        x = images.flatten(1)[:, 0]
        broken = torch.where(x > 0.5, torch.nan, 0.0)
        return torch.stack([x * 0, 1e-3 * broken - 1, x - 0.55], dim=1)

    problem = Problem(classifier, torch.full((1, 1, 1, 1), 0.5), torch.tensor([0]), seed=0, loss="margin")
    split = problem.split(2)
    points = torch.tensor([0.52, 0.6]).view(2, 1, 1, 1)
    split.keep(points, Losses(torch.tensor([torch.nan, 0.05]), torch.tensor([False, True])))
    problem.join(split)
    assert problem.finished
    assert float(problem.images) == pytest.approx(0.6)


def test_rows_behind_a_broken_one_leave_and_rows_before_it_stay(exact, counter):
    classifier, images, labels = exact
    watched = counter(classifier)
    apgd_targeted(watched, images, labels, eps=0.1, steps=12, at_once=9 * len(images))
    sizes = [len(seen) for seen in watched.seen]
    assert sizes[1] > sizes[4] > sizes[-1] > 0
    assert sizes[4] % 9 > 0  # of some images only the rows before the broken one are left
    assert max(sizes) <= 9 * len(images)
    alone = counter(classifier)
    apgd_targeted(alone, images, labels, eps=0.05, steps=12)  # as many rows as images, once some of these are broken
    assert max(len(seen) for seen in alone.seen) == len(images)
