"""Associations over the networks of a study, and the claims that they decide."""

import json
import math
import random

import numpy as np
import pytest

from unperturbed.records import (
    Association,
    Cell,
    Claim,
    Contrast,
    Measurement,
    Recipe,
    Spec,
    Study,
    Trial,
    Variable,
)
from unperturbed.statistics import (
    cluster_bootstrap,
    cluster_permutation,
    decide,
    group_difference,
    mixed_effects,
    pearson,
    rule,
    spearman,
)
from unperturbed.statistics.claims import ASSOCIATED, CROSSED
from unperturbed.statistics.subjects import crossing

ALPHA = Variable(measure="spectrum_alpha", attack="spectrum")
R = Variable(measure="R", attack="fgsm")
CLEAN = Variable(measure="f0", attack="fgsm")
SEEDS = 3


def values(seed=0, *, clusters=8, shared=0.95):
    """R, clean accuracy and alpha of each network: alpha rises with R; clean accuracy with neither."""
    rng = np.random.default_rng(seed)
    strength = rng.permutation(clusters).astype(float)[:, None]
    noise = rng.normal(size=(3, clusters, SEEDS))
    return {
        R: strength + noise[0],
        CLEAN: rng.permutation(clusters).astype(float)[:, None] + noise[1],
        ALPHA: shared * strength + noise[2],
    }


def rows(found, *, architecture="network", epoch=20):
    measured = [
        Measurement(architecture, f"c{c}", seed, epoch, variable.attack, variable.measure, float(value), "", "", 100)
        for variable, grid in found.items()
        for (c, seed), value in np.ndenumerate(grid)
    ]
    random.Random(0).shuffle(measured)
    return measured


def association(expect="greater", x=ALPHA, y=R, **more):
    return Association(x=x, y=y, expect=expect, **more)


def study(*associations, contrasts=()):
    return Study(
        name="made-up", title="", question="", source="", scale="smoke", seeds=(0, 1, 2), architectures={},
        conditions={}, trials=(), claims=(Claim(id="SP7", says="", contrasts=contrasts, associations=associations),),
    )  # fmt: skip


def decided(measured, *associations, **more):
    (claim,) = decide(study(*associations, **more), measured).claims
    return claim


@pytest.mark.parametrize(
    ("shared", "expect", "verdict", "reason"),
    [
        (1.0, "greater", "supported", ""),
        (-1.0, "less", "supported", ""),
        (1.0, "less", "contradicted", "expected one below 0, found a correlation above 0"),
        (-1.0, "greater", "contradicted", "expected a correlation above 0, found one below 0"),
        (0.0, "greater", "undecided", "expected a correlation above 0, found an interval with 0 inside"),
    ],
)
def test_the_interval_decides(shared, expect, verdict, reason):
    claim = decided(rows(values(shared=shared)), association(expect))
    assert claim.verdict == verdict
    low, high = claim.interval
    assert (low > 0, high < 0) == (shared > 0, shared < 0)
    words = "spectrum_alpha[spectrum] with R[fgsm] over 24 networks of 8 conditions at epoch 20"
    assert claim.relations[0].words == words
    assert claim.reason == (f"{words}: {reason}" if reason else "")


def test_its_numbers_are_those_of_all_networks_with_their_condition_as_cluster():
    found = values()
    claim = decided(rows(found), association(), association(control=CLEAN, primary=False))
    x, y, z = (found[variable].ravel() for variable in (ALPHA, R, CLEAN))
    clusters = np.repeat(np.arange(8), SEEDS)
    plain, partial = claim.relations
    for relation, control in ((plain, None), (partial, z)):
        assert relation.rho == spearman(x, y, control=control)
        assert relation.interval == cluster_bootstrap(x, y, clusters, control=control, seed=0)
        assert relation.p == cluster_permutation(x, y, clusters, control=control)
        assert (relation.n, relation.clusters) == (24, 8)
        assert relation.pearson == pearson(x, y, control=control)
        seeds = np.tile(np.arange(SEEDS), 8)
        assert relation.mixed == mixed_effects(x, y, clusters, others=[seeds], control=control)
    assert partial.rho != plain.rho
    assert partial.words.startswith("spectrum_alpha[spectrum] with R[fgsm] given f0[fgsm] over 24 networks")
    assert (claim.decisive, claim.effect, claim.p, claim.n) == (plain, plain.rho, plain.p, 24)
    assert (claim.p_adjusted, claim.published, claim.rows) == (None, None, ())
    assert [point.values for point in plain.points] == list(zip(x, y, strict=True))


def recorded(*associations, subjects):
    """A study whose networks of seed s belong to the subject ``subjects[s]``."""
    trials = tuple(
        Trial(
            architecture="network", condition=f"c{c}", model=Spec(name="lenet"), data=Spec(name="simulated-eeg"),
            recipe=Recipe(epochs=20), epochs=(20,), attacks={}, seeds=tuple(range(len(subjects))), subjects=subjects,
        )
        for c in range(8)
    )  # fmt: skip
    return study(*associations).model_copy(update={"trials": trials})


@pytest.mark.parametrize("rival", [None, CLEAN])
def test_subjects_that_cross_conditions_are_resampled_too(rival):
    rng = np.random.default_rng(2)
    found = {
        variable: np.arange(8.0)[:, None] + 4 * rng.normal(size=(8, 6)) + 6 * rng.normal(size=5)[[0, 1, 2, 3, 4, 0]]
        for variable in (ALPHA, R, CLEAN)
    }
    people = ("one", "two", "three", "four", "five", "one")
    decisions = decide(recorded(association(rival=rival), subjects=people), rows(found))
    (relation,) = decisions.relations
    assert (relation.clusters, relation.subjects, relation.crossed) == (8, 5, True)
    assert "over 48 networks of 8 conditions and 5 subjects at epoch 20" in relation.words
    x, y, *third = np.transpose([point.values for point in relation.points])
    clusters, crossed = ([getattr(point, name) for point in relation.points] for name in ("cluster", "subject"))
    assert crossed[:6] == list(people)
    if rival is None:
        assert relation.interval == cluster_bootstrap(x, y, clusters, crossed=crossed, seed=0)
        assert relation.mixed == mixed_effects(x, y, clusters, others=[[p.seed for p in relation.points], crossed])
        assert relation.mixed != mixed_effects(x, y, clusters, others=[[p.seed for p in relation.points]])
    else:
        groups = x[:, None], third[0][:, None]
        assert relation.interval == group_difference(*groups, y, clusters, crossed=crossed).interval
        assert relation.interval != group_difference(*groups, y, clusters).interval
    (plain,) = (claim.plain() for claim in decisions.claims)
    assert (plain["conditions"], plain["subjects"]) == (8, 5)
    assert decisions.rule.endswith(CROSSED)


@pytest.mark.parametrize(("people", "words"), [(("one",) * 3, "1 subject"), (("one", "two", "three"), "3 subjects")])
def test_few_subjects_are_not_resampled_and_that_is_said(people, words):
    measured = rows(values())
    (relation,) = decide(recorded(association(), subjects=people), measured).relations
    assert relation.interval == decided(measured, association()).relations[0].interval
    assert not relation.crossed
    assert relation.over == f"24 networks of 8 conditions and {words}"
    assert relation.reason == f"fewer than 4 subjects ({words[0]}): nothing is inferred about other ones"


def test_subjects_of_one_condition_each_do_not_cross():
    labels = [f"subject {number}" for number in range(4)]
    assert crossing("aabbccdd", [label for label in labels for _ in range(2)]) is None
    assert crossing("aabbccdd", labels * 2) == labels * 2
    assert crossing("aabbccdd", [*labels, *labels[:3], ""]) is None  # a network without recordings


def test_the_level_is_that_of_the_interval():
    measured = rows(values())
    (claim,) = decide(study(association()), measured, alpha=0.2).claims
    points = claim.relations[0].points
    x, y = zip(*(point.values for point in points), strict=True)
    clusters = [point.condition for point in points]
    assert claim.interval == cluster_bootstrap(x, y, clusters, confidence=0.8, seed=0)
    assert claim.interval.low > decided(measured, association()).interval.low
    seeds = [point.seed for point in points]
    assert claim.relations[0].mixed == mixed_effects(x, y, clusters, others=[seeds], confidence=0.8)


@pytest.mark.parametrize("turned", [False, True])
def test_the_weakest_of_several_associations_stands_for_the_claim(turned):
    found = values(shared=1.0)
    found[CLEAN] = found[R] + 4 * np.random.default_rng(1).normal(size=found[R].shape)
    asked = (association(), association(x=CLEAN))
    claim = decided(rows(found), *(asked[::-1] if turned else asked))
    weak, strong = sorted(claim.relations, key=lambda relation: str(relation.association.x))
    assert (claim.verdict, weak.outcome, strong.outcome) == ("supported",) * 3
    assert weak.p > strong.p
    assert claim.decisive == weak


def test_plain_is_json_and_says_how_many_conditions():
    claim = decided(rows(values()), association())
    plain = json.loads(json.dumps(claim.plain(), allow_nan=False))
    assert plain["effect"] == pytest.approx(claim.effect)
    assert (plain["p_adjusted"], plain["n"], plain["conditions"], plain["subjects"]) == (None, 24, 8, 0)
    alike = {ALPHA: np.ones((8, SEEDS)), R: values()[R]}
    plain = json.loads(json.dumps(decided(rows(alike), association()).plain(), allow_nan=False))
    assert [plain[key] for key in ("effect", "interval", "p", "n")] == [None, None, None, 24]


def test_a_control_that_explains_both_takes_the_association_away():
    rng = np.random.default_rng(5)
    strength = np.arange(8.0)[:, None]
    measured = rows({variable: 3 * strength + 4 * rng.normal(size=(8, SEEDS)) for variable in (ALPHA, R)} | {
        CLEAN: strength + np.zeros((8, SEEDS))
    })  # fmt: skip
    assert decided(measured, association()).verdict == "supported"
    assert decided(measured, association(control=CLEAN)).verdict == "undecided"


def test_few_conditions_decide_nothing():
    claim = decided(rows(values(clusters=3)), association())
    assert (claim.verdict, claim.interval, claim.n) == ("undecided", None, 9)
    assert claim.effect is not None
    assert claim.reason == f"{claim.relations[0].words}: fewer than 4 conditions: no interval, and nothing is decided"


@pytest.mark.parametrize(
    ("clusters", "seeds", "words"),
    [(1, 1, "1 network of 1 condition"), (1, 2, "2 networks of 1 condition"), (2, 1, "2 networks of 2 conditions")],
)
def test_the_smallest_studies_have_an_association_that_decides_nothing(clusters, seeds, words):
    measured = [row for row in rows(values(clusters=clusters)) if row.seed < seeds]
    claim = decided(measured, association(), association(control=CLEAN))
    assert claim.verdict == "undecided"
    assert [relation.over for relation in claim.relations] == [words, words]


def test_what_is_left_out_is_said():
    measured = [
        row._replace(value=math.nan) if (row.condition, row.measure, row.seed) == ("c1", "R", 2) else row
        for row in rows(values())
        if not (row.condition == "c5" and row.measure == "spectrum_alpha")
    ]
    claim = decided(measured, association())
    (relation,) = claim.relations
    assert (relation.n, relation.clusters) == (20, 7)
    assert math.isnan(relation.p)
    assert relation.reason == (
        "conditions without all of these measures are left out: network/c5; networks for which one of these is not defined are "
        "left out: 1; conditions differ in their seeds: no p by permutation"
    )
    assert relation.interval.low == pytest.approx(
        cluster_bootstrap(
            *zip(*(point.values for point in relation.points), strict=True),
            [point.condition for point in relation.points],
            seed=0,
        ).low
    )


def test_seeds_that_are_as_many_but_not_the_same_are_not_exchanged():
    measured = [row for row in rows(values()) if row.seed != (0 if row.condition == "c1" else 1)]
    relation = decided(measured, association()).relations[0]
    assert (relation.n, relation.clusters) == (16, 8)
    assert math.isnan(relation.p)


def test_a_perfect_order_is_no_certainty_about_other_conditions():
    strength = np.arange(24.0).reshape(8, SEEDS)
    claim = decided(rows({ALPHA: strength, R: strength**2}), association())
    assert (claim.verdict, claim.effect, claim.interval) == ("undecided", pytest.approx(1.0), None)
    assert claim.reason.endswith("(nearly) all networks are in perfect order: no interval, and nothing is decided")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (association(), "no network has all of spectrum_alpha[spectrum], R[fgsm] (epoch: last)"),
        (
            association(architecture="resnet", control=CLEAN, epoch=3),
            "no network of resnet has all of spectrum_alpha[spectrum], R[fgsm], f0[fgsm] (epoch: 3)",
        ),
    ],
)
def test_nothing_measured_is_a_gap(asked, reason):
    measured = [row for row in rows(values()) if row.measure != "spectrum_alpha"]
    claim = decided(measured, asked)
    assert (claim.verdict, claim.reason, claim.relations, claim.n) == ("undecided", reason, (), 0)
    secondary = asked.model_copy(update={"primary": False})
    assert decided(rows(values()), association(), secondary).verdict == "supported"


def test_networks_of_one_architecture_or_of_all_each_at_its_own_epoch():
    other = rows(values(1), architecture="other", epoch=5) + rows(values(2), architecture="other", epoch=1)
    measured = rows(values()) + other
    both, one, first, early = (
        decided(measured, association(**asked)).relations
        for asked in ({}, {"architecture": "other"}, {"epoch": "first"}, {"epoch": 1})
    )
    assert (both[0].n, both[0].clusters) == (48, 16)
    assert {(point.architecture, point.epoch) for point in both[0].points} == {("network", 20), ("other", 5)}
    assert both[0].words.endswith("at epochs 5, 20")
    x, y = zip(*(point.values for point in both[0].points), strict=True)
    groups = [[getattr(point, name) for point in both[0].points] for name in ("architecture", "seed")]
    clusters = [point.cluster for point in both[0].points]
    assert both[0].mixed == mixed_effects(x, y, clusters, others=groups)
    assert both[0].mixed != mixed_effects(x, y, clusters, others=groups[1:])
    assert (one[0].n, {point.epoch for point in one[0].points}) == (24, {5})
    # there is no first epoch where there is only one
    assert {(point.architecture, point.epoch) for point in first[0].points} == {("other", 1)}
    assert early[0].points == first[0].points


def test_a_claim_of_contrasts_and_associations_is_a_conjunction_and_reports_the_weakest():
    cells = [Cell(architecture="network", condition=name) for name in ("c0", "c1")]
    found = values()
    found[R][:2] = [[9.0, 9.1, 9.3], [1.0, 1.1, 1.29]]
    found[ALPHA] = found[R] + np.random.default_rng(1).normal(size=(8, SEEDS))
    contrast = Contrast(left=cells[0], right=cells[1], expect="greater")
    claim = decided(rows(found), association(), contrasts=(contrast,))
    (row,), (relation,) = claim.rows, claim.relations
    assert (row.outcome, relation.outcome, claim.verdict) == ("supported",) * 3
    assert relation.p > row.p
    assert claim.decisive == relation
    opposite = decided(rows(found), association("less"), contrasts=(contrast,))
    assert (opposite.verdict, opposite.decisive) == ("contradicted", opposite.relations[0])
    # associations are no part of the family of contrasts
    assert row.p_adjusted == row.p
    both = decided(rows(values()), association(), association(x=CLEAN))
    assert both.verdict == "undecided"
    assert both.decisive == both.relations[1]


@pytest.mark.parametrize(("expect", "verdict"), [("greater", "supported"), ("less", "contradicted")])
def test_two_correlations_are_compared_by_the_interval_of_their_difference(expect, verdict):
    found = values(clusters=12)
    claim = decided(rows(found), association(expect, rival=CLEAN))
    (relation,) = claim.relations
    expected = spearman(found[ALPHA].ravel(), found[R].ravel()) - spearman(found[CLEAN].ravel(), found[R].ravel())
    assert relation.rho == pytest.approx(expected, abs=1e-12)
    alpha, r, clean = np.transpose([point.values for point in relation.points])
    clusters = [point.cluster for point in relation.points]
    assert relation.interval == group_difference(alpha[:, None], clean[:, None], r, clusters).interval
    assert claim.verdict == verdict
    assert math.isnan(relation.p)
    assert not relation.mixed.estimable
    assert relation.words.startswith("spectrum_alpha[spectrum] less f0[fgsm], each with R[fgsm] over 36 networks")


def test_a_measure_compared_with_itself_decides_nothing():
    claim = decided(rows(values()), association(rival=ALPHA))
    assert (claim.verdict, claim.relations[0].rho) == ("undecided", 0)
    assert claim.reason.endswith("both are the same: no interval, and nothing is decided")


def test_the_rule_says_what_an_association_needs_only_where_there_is_one():
    measured = rows(values())
    assert decide(study(association()), measured, alpha=0.1).rule.endswith(ASSOCIATED.format(confidence=0.9))
    assert "90% interval" in decide(study(association()), measured, alpha=0.1).rule
    assert decide(study(), measured).rule == rule()
