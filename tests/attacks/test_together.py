"""Classes tried at once give what they give one after the other: the first that succeeds decides."""

import pytest
import torch

from unperturbed.attacks.apgd import apgd_targeted
from unperturbed.attacks.fab import fab_targeted
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
