"""Every check fires where its threshold is passed and is silent where it is not, on classifiers whose answer is known."""

import math
from types import SimpleNamespace

import pytest
import torch

from unperturbed.attacks import Passes
from unperturbed.audit import doubts
from unperturbed.audit.actions import FROZEN, Followed
from unperturbed.audit.answers import doubts as doubts_of_answers
from unperturbed.audit.behaviour import Behaviour, behaviour
from unperturbed.audit.budgets import BUDGETS
from unperturbed.audit.case import Case, Guide
from unperturbed.audit.coherence import Coherence
from unperturbed.audit.curve import curve
from unperturbed.audit.doubts import Ladder
from unperturbed.audit.examination import _black_box, _frozen, _more, _transfer
from unperturbed.audit.findings import definitions
from unperturbed.audit.record import Flag, Randomness, Standing
from unperturbed.audit.softening import Seen
from unperturbed.audit.verdict import CLEARED, decide, resolve

QUICK = BUDGETS["quick"]
N = 40
DRAWN = torch.rand(N, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
IMAGES = DRAWN.index_fill(2, torch.tensor([2, 3]), 0.5)  # the lower half is grey
WEIGHT = torch.randn(16, generator=torch.Generator().manual_seed(1)).index_fill(0, torch.arange(8, 16), 0.0)
MARGIN = (IMAGES.flatten(1) - 0.5) @ WEIGHT
LABELS = (MARGIN > 0).long()
EXACT = MARGIN.abs() / WEIGHT.abs().sum()  # the smallest change in linf that breaks each image; the box never binds
EPS = float(EXACT.median()) + 1e-4


def linear(images):
    """Two classes divided by a plane; every image is right."""
    margin = (images.flatten(1) - 0.5) @ WEIGHT.to(images.dtype)
    return torch.stack([-margin, margin], dim=1) / 2


def decided(images):
    """The same decisions without a gradient, and without a way to climb."""
    return (linear(images).detach() > 0).to(images.dtype) + 0 * images.sum()


def case_of(classifier, *, eps=EPS, votes=1):
    return Case(Passes(classifier), IMAGES, LABELS, "linf", eps, 0, votes, None)


def left_at(radius):
    return float(torch.gt(EXACT, radius).double().mean())


# What attacks say


@pytest.mark.parametrize(
    ("accuracy", "broken", "fired"),
    [
        ((0.6, 0.3, 0.1, 0.0, 0.0), 1.0, set()),
        ((0.6, 0.3, 0.42, 0.0, 0.0), 1.0, set()),  # two standard errors of 64 images are 12.5 points
        ((0.6, 0.3, 0.43, 0.0, 0.0), 1.0, {"C2"}),
        ((0.9, 0.9, 0.9, 0.73, 0.0), 1.0, {"C3"}),  # chance is 0.5, three standard errors are 18.75 points
        ((0.9, 0.9, 0.9, 0.72 - 0.05, 0.0), 1.0, set()),
        ((0.6, 0.3, 0.1, 0.0, 0.009), 1.0, set()),
        ((0.6, 0.3, 0.1, 0.0, 0.011), 1.0, {"C4"}),
        ((0.6, 0.3, 0.1, 0.0, 0.0), 0.991, set()),
        ((0.6, 0.3, 0.1, 0.0, 0.0), 0.98, {"I6"}),
    ],
)
def test_a_ladder_of_radii_is_doubted_by_four_checks(accuracy, broken, fired):
    case = SimpleNamespace(norm="linf", chance=0.5)
    found = doubts.of_the_ladder(case, Ladder((0.1, 0.2, 0.4, 0.5, 1.0), accuracy, 64, broken), "the model itself")
    assert [flag.id for flag in found] == ["C2", "C3", "C4", "I6"]
    assert {flag.id for flag in found if flag.fired} == fired
    assert all(flag.evidence and flag.remedy for flag in found)
    for flag in found:  # what is shown as the threshold is what decides
        assert flag.fired == (flag.value < flag.threshold if flag.id == "C4" else flag.value > flag.threshold)


def test_the_ladder_of_a_linear_classifier_is_its_closed_form():
    found = doubts.ladder(case_of(linear), None, subset=N)
    assert found.eps == (EPS / 2, EPS, 2 * EPS, 0.5, 1.0)
    assert found.accuracy == pytest.approx([left_at(EPS / 2), left_at(EPS), left_at(2 * EPS), 0, 0], abs=1e-9)
    assert (found.images, found.broken_somewhere) == (N, 1.0)


def test_without_a_gradient_not_even_the_unbounded_attack_works():
    assert doubts.ladder(case_of(decided), None, subset=10).images == 10
    found = doubts.ladder(case_of(decided), None, subset=N)
    fired = {flag.id for flag in doubts.of_the_ladder(case_of(decided), found, "the model itself") if flag.fired}
    assert fired == {"C4", "I6"}  # at 0.5 the random start alone is enough for half


def test_one_step_is_held_against_the_plain_attack():
    assert EXACT[EXACT < EPS].numel() == N / 2
    for plain, fired in ((left_at(EPS) + 0.02, True), (left_at(EPS) + 0.005, False)):
        flag = doubts.one_step(case_of(linear), plain)
        assert (flag.id, flag.fired) == ("C5", fired)
        assert flag.value == pytest.approx(plain - left_at(EPS), abs=1e-9)


def test_another_loss_is_doubted_where_the_usual_one_is_rounded():
    honest = doubts.losses(case_of(linear), QUICK)
    assert (honest.id, honest.fired, honest.value) == ("C12", False, 0.0)
    rounded = doubts.losses(case_of(lambda images: 1e5 * linear(images)), QUICK)
    assert rounded.fired
    assert rounded.value == pytest.approx(1 - left_at(EPS), abs=0.1)  # a random start breaks a few
    assert all(f"{name} " in rounded.evidence for name in ("rounded_ce", "ce", "margin", "dlr", "mse"))


class Scripted:
    """A case in which every attack lowers the accuracy as told."""

    labels, norm, random = LABELS, "linf", False

    def __init__(self, **falls):
        self.accuracy, self.falls, self.asked = 0.8, falls, []

    def standing(self, limit=None):
        return torch.arange(32)[:limit]

    def attempt(self, name, **settings):
        self.asked.append((name, settings))
        self.accuracy -= self.falls.get(name, 0.0)


@pytest.mark.parametrize(("apgd", "pgd", "fired"), [(0.01, 0.005, set()), (0.02, 0.0, {"C1"}), (0.0, 0.006, {"C8"})])
def test_twice_the_steps_and_ten_restarts_must_not_help(apgd, pgd, fired):
    case = Scripted(apgd=apgd, pgd=pgd)
    spent = SimpleNamespace(suite=QUICK.suite, subset=16)  # half of what stands, so that what falls there counts twice
    found = _more(case, spent)
    assert {flag.id for flag in found if flag.fired} == fired
    assert [flag.id for flag in found] == ["C1", "C8"]
    assert [flag.value for flag in found] == pytest.approx([apgd, 2 * pgd])
    assert case.asked[0][1]["steps"] == 2 * 50
    assert case.asked[1][1]["restarts"] == 10


@pytest.mark.parametrize(("square", "noise", "fired"), [(0.01, 0.0, False), (0.02, 0.0, True), (0.0, 0.02, True)])
def test_the_black_box_and_random_points_must_not_find_more(square, noise, fired):
    case = Scripted(square=square, noise_search=noise)
    flag = _black_box(case, QUICK)
    assert (flag.id, flag.fired) == ("C6", fired)
    assert [settings.get("queries", settings.get("draws")) for _, settings in case.asked] == [300, 100]


def test_transfer_from_a_twin_must_not_find_more():
    asked = SimpleNamespace(twin=None)
    assert not _transfer(case_of(decided), asked).applies
    flag = _transfer(case_of(decided), SimpleNamespace(twin=linear))
    assert (flag.id, flag.fired) == ("C7", True)
    assert flag.value == pytest.approx(1 - left_at(EPS), abs=1e-9)
    # A twin that gives way sooner: its own success is not where the attack ends.
    biased = case_of(decided)
    lopsided = SimpleNamespace(twin=lambda images: linear(images) + 0.5 * MARGIN.abs().max() * torch.tensor([1.0, 0.0]))
    assert _transfer(biased, lopsided).value == pytest.approx(1 - left_at(EPS), abs=1e-9)
    white = case_of(linear)
    white.attempt("pgd", stage="plain", loss="margin")
    assert not _transfer(white, SimpleNamespace(twin=linear)).fired


def jittering(images):
    return linear(images) + 1e-4 * torch.randn(len(images), 2)


def test_frozen_draws_must_not_be_much_weaker():
    case = case_of(jittering, votes=5)
    for expected, fired in ((left_at(EPS) + 0.2, True), (left_at(EPS) + 0.02, False)):
        flag = doubts.freeze(case, QUICK, expected)
        assert (flag.id, flag.fired) == ("C10", fired)
        assert flag.value == pytest.approx(expected - left_at(EPS), abs=0.051)  # noise moves two images
    assert not doubts.freeze(case_of(linear), QUICK, 1.0).applies


@pytest.mark.parametrize(("after", "fired"), [(0.60, True), (0.695, False)])
def test_an_attack_through_frozen_draws_is_held_against_what_stood(after, fired):
    standing = Standing(FROZEN, "", 1.0, None, None, None, False, after)
    flag = _frozen(SimpleNamespace(random=True), Followed((standing,), None, before=0.7))
    assert (flag.id, flag.fired, flag.value) == ("E4", fired, pytest.approx(0.7 - after))
    assert not _frozen(SimpleNamespace(random=False), Followed((standing,), None, before=0.7)).applies


def misled(images):
    """Right on clean images, by the upper half; the lower half, of which the deployed one knows nothing, decides soon."""
    lower = images[:, 0, 2:].flatten(1).sum(dim=1) - 4
    sign = linear(images).detach().sign()
    return 0.01 * sign + torch.stack([-lower, lower], dim=1)


def test_a_variant_that_falls_alone_is_doubted():
    flag = doubts.untransferred(case_of(linear), Guide("misled", misled, alone=True))
    assert (flag.id, flag.fired, flag.value) == ("I5", True, 1.0)
    flag = doubts.untransferred(case_of(linear, eps=2 * float(EXACT.max())), Guide("itself", linear, alone=True))
    assert (flag.fired, flag.value) == (False, 0.0)
    assert not doubts.untransferred(case_of(linear), None).applies


def test_the_path_of_the_loss_of_a_linear_classifier_is_finished_and_its_successes_last():
    silent, late = doubts.trace(case_of(linear))
    assert (silent.id, silent.fired, silent.value) == ("I3", False, 0.0)
    assert (late.id, late.fired) == ("I4", False)
    assert late.value == pytest.approx(0.0, abs=1e-6)


def test_a_loss_that_never_moves_is_not_finished():
    late = doubts.trace(case_of(lambda images: linear(images).sign() + 0 * images.sum()))[1]
    assert (late.fired, late.value) == (True, 1.0)


def test_successes_by_luck_do_not_last():
    def lucky(images):
        wrong = torch.rand(len(images), 1) < 0.1
        return torch.where(wrong, -1, 1) * linear(images)

    silent = doubts.trace(case_of(lucky, eps=EPS / 100, votes=21))[0]
    assert silent.fired
    assert silent.value > 0.8  # in 100 draws nearly every image is wrong once


# What answers say

ORDINARY = Behaviour(
    images=20,
    classes=10,
    deviation=0.0,
    neighbours=0.0,
    probabilities=False,
    no_gradient=None,
    zero_rounded=0.0,
    zero_exact=0.0,
    mismatch=0.1,
    unstable=0.05,
)
AGREEING = Coherence(0.5, 0.5, 0.1762, 0.01, 0.0, deterministic=False)
NOISE = Coherence(0.0, 0.205, 0.1762, 0.01, 0.0, deterministic=False)  # below three standard errors above chance


@pytest.mark.parametrize(
    ("id", "changed", "seen", "agreement"),
    [
        ("P1", {"probabilities": True}, Seen(), None),
        ("R1", {"deviation": 2e-4}, Seen(), AGREEING),
        ("B1", {"neighbours": 2e-4}, Seen(), None),
        ("O1", {}, Seen(optimises=True), None),
        ("I1", {"zero_exact": 0.06}, Seen(), None),
        ("I1", {"zero_rounded": 0.06}, Seen(), None),
        ("I1", {"no_gradient": "detached"}, Seen(), None),
        ("I2", {"unstable": 0.11}, Seen(), None),
        ("C11", {"mismatch": 0.51}, Seen(), None),
        ("E1", {}, Seen(), NOISE),
    ],
)
def test_what_is_seen_in_the_answers_fires_its_own_check_alone(id, changed, seen, agreement):
    quiet = doubts_of_answers(ORDINARY, Seen(), AGREEING)
    assert [flag.id for flag in quiet] == ["P1", "R1", "B1", "O1", "I1", "I2", "C11", "E1"]
    assert not any(flag.fired for flag in quiet)
    assert "rugged" not in " ".join(flag.says for flag in quiet)
    found = doubts_of_answers(Behaviour(**{**vars(ORDINARY), **changed}), seen, agreement)
    assert [flag.id for flag in found if flag.fired] == [id]
    flag = next(flag for flag in found if flag.fired)
    assert flag.says.endswith(".")
    assert flag.evidence
    assert flag.remedy


def _ahead(images):
    return linear(images) + 0.1 * linear(images.roll(1, 0))


def _torn(images):
    """The right derivative nearly nowhere: a saw in each intensity."""
    return linear(images + 0.5 * torch.remainder(images.detach() * 1000, 1))


@pytest.mark.parametrize(
    ("classifier", "expected"),
    [
        (linear, {}),
        (lambda images: linear(images).softmax(dim=1), {"probabilities": True}),
        (jittering, {"random": True, "neighbours": None}),
        (_ahead, {"looks_aside": True}),
        (lambda images: 1e5 * linear(images), {"zero_rounded": 1.0}),
        (lambda images: linear(images).sign() + 0 * images.sum(), {"zero_rounded": 1.0, "zero_exact": 1.0, "blind": True}),
        (lambda images: linear(torch.from_numpy(images.numpy())), {"blind": True}),
    ],
)  # fmt: skip
def test_answers_are_measured(classifier, expected):
    found = behaviour(classifier, IMAGES, LABELS, seed=0)
    usual = {"probabilities": False, "random": False, "looks_aside": False, "blind": False}
    if not expected.get("blind"):
        usual |= {"zero_rounded": 0.0, "zero_exact": 0.0}
    for name, value in (usual | expected).items():
        assert getattr(found, name) == value, name
    assert (found.images, found.classes) == (N, 2)


def test_a_derivative_is_held_against_differences():
    assert behaviour(linear, IMAGES, LABELS, seed=0).mismatch == pytest.approx(0.0, abs=0.01)
    assert behaviour(_torn, IMAGES, LABELS, seed=0).mismatch > 0.5


def test_an_unstable_margin_is_measured():
    assert behaviour(linear, IMAGES[EXACT > 0.05], LABELS[EXACT > 0.05], seed=0).unstable < 0.1
    assert behaviour(_torn, IMAGES, LABELS, seed=0).unstable > 0.1


def test_the_definitions_of_the_accuracy_of_a_random_classifier_are_told_apart():
    case = SimpleNamespace(accuracy=0.2, votes=21)
    found = definitions(case, Randomness(50, 0.9, 0.01, 0.95, 0.25, 0.02, 0.31, (0.2, 0.3)))
    assert [flag.id for flag in found] == ["E3", "E5"]
    assert [flag.value for flag in found] == pytest.approx([0.06, 0.05])


# What becomes of them


def _flag(id, *, fired=True, resolved=False):
    return Flag(id, "a doubt", "Says.", 1.0, 0.5, fired, "seen", "do", resolved=resolved)


@pytest.mark.parametrize(
    ("flags", "plain", "robust", "verdict"),
    [
        ([], 0.5, 0.48, "trustworthy"),
        ([_flag("C1", fired=False)], 0.5, 0.48, "trustworthy"),
        ([_flag("C1", resolved=True)], 0.5, 0.3, "trustworthy"),
        ([_flag("C1")], 0.5, 0.48, "suspect"),
        ([], 0.8, 0.41, "trustworthy"),
        ([], 0.8, 0.4, "illusory"),
        ([_flag("C1")], 0.8, 0.1, "illusory"),
        ([], 0.08, 0.0, "trustworthy"),  # there was hardly any robustness to believe in
        ([], 0.12, 0.0, "illusory"),
    ],
)
def test_the_verdict_follows_from_what_is_left(flags, plain, robust, verdict):
    found, reasons = decide(flags, plain=plain, robust=robust)
    assert found == verdict
    assert f"{robust:.1%}" in " ".join(reasons)
    assert ("Doubts are left" in " ".join(reasons)) == any(flag.left for flag in flags)


def test_a_doubt_is_answered_by_an_attack_that_works_and_only_where_its_own_check_is_silent():
    flags = [_flag("C1"), _flag("C6"), _flag("I3", fired=False), _flag("E3")]
    assert [flag.resolved for flag in resolve(flags, works=True, still={"C6"})] == [True, False, False, False]
    assert not any(flag.resolved for flag in resolve(flags, works=False, still=set()))
    assert not {"C9", "E3", "E5"} & CLEARED


# The case


def test_what_an_attack_returns_is_judged_and_only_what_is_worse_is_kept():
    case = case_of(linear)
    opposite = IMAGES - EPS * (2 * LABELS - 1).view(-1, 1, 1, 1) * WEIGHT.sign().view(1, 1, 4, 4)
    rows = torch.arange(N)
    outside = IMAGES + 2 * (opposite - IMAGES)
    assert case.take(rows, outside, "too far", None) == 0
    assert case.accuracy == 1.0
    assert case.take(rows, opposite, "optimal", None) == N / 2
    assert case.accuracy == left_at(EPS)
    assert case.take(rows, IMAGES.clone(), "nothing", None) == 0
    assert case.accuracy == left_at(EPS)
    assert torch.equal(case.worst[EXACT < EPS], opposite[EXACT < EPS])
    assert {case.broken_by[row] for row in (EXACT < EPS).nonzero().squeeze(1).tolist()} == {"optimal"}


def test_of_a_random_classifier_lucky_draws_do_not_lower_the_accuracy():
    def lucky(images):
        wrong = torch.rand(len(images), 1) < 0.3
        return torch.where(wrong, -1, 1) * linear(images)

    case = case_of(lucky, votes=21)
    for number in range(10):
        case.take(torch.arange(N), IMAGES.clone(), f"attack {number}", None)
    # The luckiest of 11 times 21 draws would say 0.53: what seems worse is asked again, and that answer counts (0.59).
    assert case.accuracy > 0.56
    case.refresh()
    assert case.accuracy == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / (21 * N)))


def test_the_curve_of_a_linear_classifier_is_its_closed_form():
    case = case_of(linear)
    found = curve(case, None)
    assert found.critical == pytest.approx(EXACT.tolist(), rel=2e-3, abs=1e-5)
    assert [point.eps for point in found.points] == pytest.approx(
        [EPS * part for part in (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4)]
    )
    assert [point.accuracy for point in found.points] == pytest.approx(
        [left_at(point.eps) for point in found.points], abs=1e-9
    )


def test_where_the_smallest_attack_finds_nothing_every_radius_is_attacked():
    case = case_of(linear)
    whole = case.perturb
    case.perturb = lambda name, rows, **settings: case.images[rows] if name == "fmn" else whole(name, rows, **settings)
    found = [point.accuracy for point in curve(case, None).points if point.eps != EPS]  # there the audit has tried all
    radii = [EPS * part for part in (0, 0.25, 0.5, 0.75, 1.5, 2, 3, 4)]
    assert found == pytest.approx([left_at(radius) for radius in radii], abs=1e-9)
