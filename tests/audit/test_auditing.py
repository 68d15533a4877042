"""The audit as a whole, on small classifiers: what it records, what it leaves alone, what it says of the unusual."""

import dataclasses
import inspect
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from unperturbed.attacks import Passes, fgsm
from unperturbed.audit import audit
from unperturbed.audit.actions import _follow
from unperturbed.audit.budgets import BUDGETS
from unperturbed.audit.case import Case, Guide
from unperturbed.cli.audit import AuditChoice
from unperturbed.records import SpecError

pytestmark = pytest.mark.usefixtures("unchecked")

N = 40
IMAGES = torch.rand(N, 1, 6, 6, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
CHECKS = {*(f"C{number}" for number in range(1, 13)), *("I1", "I2", "I3", "I4", "I6", "P1", "R1", "B1", "O1", "E1")}


def plain_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.Tanh(), nn.Linear(24, 4)).eval()


@pytest.fixture(autouse=True)
def _same_weights():
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


def labels_of(classifier):
    with torch.no_grad():
        return classifier(IMAGES).argmax(dim=1)


def test_every_check_is_recorded_and_nothing_is_disturbed():
    network = plain_network()
    seen = []

    def watched(images):
        seen.append(len(images))
        return network(images)

    labels = labels_of(network)
    weights = [weight.detach().clone() for weight in network.parameters()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    found = audit(watched, IMAGES, labels, eps=0.05, budget="quick")
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002
    assert all(weight.grad is None for weight in network.parameters())
    assert all(map(torch.equal, network.parameters(), weights))
    assert not network.training
    assert {flag.id for flag in found.flags} >= CHECKS
    plain = found.plain()
    assert {"clean_accuracy", "robust_accuracy", "interval", "curve", "R", "attacks", "flags", "verdict"} <= set(plain)
    assert {"forwards", "backwards", "seconds"} <= set(plain)
    assert set(plain["curve"][0]) == {"eps", "accuracy"}
    assert {"id", "says", "value", "threshold", "fired", "evidence", "remedy"} <= set(plain["flags"][0])
    # Beside the attacks there are a few looks at the answers, and those of the stand-ins' own search.
    assert 0 < found.backwards < found.forwards <= sum(seen)
    assert found.clean_accuracy == 1.0
    assert audit(network, IMAGES, labels, eps=0.05, budget="quick").robust_accuracy == found.robust_accuracy


def _with_noise(images):
    return plain_network_once(images + 0.2 * torch.randn_like(images))


plain_network_once = plain_network()


def test_where_nothing_stands_no_doubt_is_left():
    found = audit(_with_noise, IMAGES, labels_of(plain_network_once), eps=0.9, budget="quick")
    assert "R1" in found.fired
    assert found.robust_accuracy < 0.15
    assert [flag.id for flag in found.flags if flag.left] == []
    assert "upper bound" not in " ".join(found.reasons)


def _in_company():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)).train()
    return lambda images: network(images)


def test_what_looks_at_the_batch_is_judged_alone_and_that_is_said():
    classifier = _in_company()
    found = audit(classifier, IMAGES, labels_of(classifier), eps=0.02, budget="quick")
    assert "B1" in found.fired
    modes, company = found.remarks[:2]
    assert modes == (
        "In training mode inside the classifier: BatchNorm2d. If that is not how it is deployed, call .eval()."
    )
    assert company.startswith(
        f"The answers depend on the batch: every image is judged alone, which leaves {found.clean_accuracy:.1%} clean "
    )
    assert "among others it is 100.0%" in company
    # One step is taken in the company in which the plain attack was made.
    labels = labels_of(classifier)
    one_step = classifier(fgsm(classifier, IMAGES, labels, eps=0.02)).argmax(dim=1) == labels
    assert found.flag("C5").value == pytest.approx(found.plain_accuracy - float(one_step.double().mean()), abs=1e-6)


def test_nothing_is_said_of_modes_and_company_where_they_do_not_matter():
    network = plain_network()
    assert audit(network, IMAGES, labels_of(network), eps=0.05, budget="quick").remarks == ()


def test_attacks_that_could_not_run_are_told():
    def lost_off_the_grid(images):
        on_it = (images * 10 - (images * 10).round()).abs().flatten(1).amax(dim=1) < 0.2  # noise of 4/255 stays on it
        return torch.where(on_it.unsqueeze(1), plain_network_once(images), torch.nan)

    images = (IMAGES * 10).round() / 10
    with torch.no_grad():
        labels = plain_network_once(images).argmax(dim=1)
    found = audit(lost_off_the_grid, images, labels, eps=0.04, budget="quick")
    assert found.robust_accuracy == 1.0
    assert found.verdict == "suspect"
    said = found.remarks[-1]
    assert said.endswith(
        f" of {len(found.attacks)} attacks could not run. The first: classifier: expected finite logits; got nan for 40 of 40 images."
    )


def test_an_audit_refuses_what_it_cannot_do():
    network = plain_network()
    labels = labels_of(network)
    for settings, message in (
        ({"eps": 0.1, "batch_size": 0}, r"^batch_size: expected at least 1; got 0$"),
        ({"eps": 0.1, "batch_size": -5}, r"^batch_size: expected at least 1; got -5$"),
        ({"eps": 0}, r"^eps: expected more than 0; got 0: there is nothing to attack$"),
        ({"eps": 0.1, "norm": "l1"}, r"^norm: expected linf or l2, which every attack of an audit has; got 'l1'$"),
        (
            {"eps": 0.1, "traits": ("odd",)},
            r"^traits: expected some of random, vanishing, shattered, optimises; got 'odd'$",
        ),
        ({"eps": 0.1, "budget": "fast"}, r"^budget: expected one of quick, standard, headline; got 'fast'$"),
    ):
        with pytest.raises(SpecError, match=message):
            audit(network, IMAGES, labels, **settings)
    with pytest.raises(
        SpecError, match=r"^classifier: expected it in the mode in which it is deployed; it is in train"
    ):
        audit(network.train(), IMAGES, labels, eps=0.1)


def test_a_random_classifier_is_attacked_through_a_mean_over_draws_whatever_a_short_trial_says():
    torch.manual_seed(1)
    found = audit(_with_noise, IMAGES, labels_of(plain_network_once), eps=0.02, budget="quick")
    assert found.random is not None
    adaptive = [attempt.through for attempt in found.attacks if attempt.stage == "adaptive"]
    assert "mean over 16 draws" in adaptive


def test_the_words_of_the_library_are_those_of_the_command():
    words = set(inspect.signature(audit).parameters)
    assert {"classifier", "images", "labels", "norm", "eps", "budget", "twin", "surrogate", "traits", "seed"} <= words
    # What stands for the classifier, for its images, and for where both are.
    own = {"target", "model", "data", "count", "data_root", "accept_inexact", "device"}
    assert {field.name for field in dataclasses.fields(AuditChoice)} - own <= words


def test_what_leads_alone_goes_on_beyond_its_own_boundary():
    """The deployed network has no gradient; the surrogate is the same network, whose own answers fall much sooner."""
    network = plain_network()
    labels = labels_of(network)
    pull = -0.15 * functional.one_hot(labels.mode().values, 4)  # nearer to the boundary of nearly every image
    case = Case(Passes(lambda images: network(images.detach())), IMAGES, labels, "linf", 0.15, 0, 1, None)
    guide = Guide("surrogate", lambda images: network(images) + pull, alone=True)
    _follow(case, guide, BUDGETS["quick"])
    direct = Case(Passes(network), IMAGES, labels, "linf", 0.15, 0, 1, None)
    direct.attempt("pgd", stage="plain", steps=60, loss="margin")
    assert direct.accuracy < 0.6
    assert case.accuracy <= direct.accuracy + 0.05
