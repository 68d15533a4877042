"""Claims decided on made-up measurements, one for each way to each verdict."""

import json
import math
import random

import numpy as np
import pytest
import scipy.stats
from scipy import stats

from unperturbed.records import Cell, Claim, Contrast, Measurement, PublishedValue, SpecError, Study
from unperturbed.statistics import (
    MARGIN,
    decide,
    hedges_g,
    holm,
    paired_bootstrap,
    paired_power,
    paired_t,
    rule,
    sign_flip,
    unpaired_bootstrap,
    unpaired_power,
    welch,
    welch_from_summary,
)

LOW = [0.10, 0.11, 0.09, 0.105, 0.095]
HIGH = [0.51, 0.50, 0.49, 0.52, 0.515]


def contrast(left, right, expect="greater", **settings) -> Contrast:
    """``architecture/condition`` against another."""
    cells = [Cell(architecture=words.split("/")[0], condition=words.split("/")[1]) for words in (left, right)]
    return Contrast(left=cells[0], right=cells[1], expect=expect, **settings)


def study(*claims, published=(), comparable=False) -> Study:
    """A study with one claim per tuple of contrasts, K1, K2, ..."""
    return Study(
        name="made-up",
        title="",
        question="",
        source="",
        scale="smoke",
        seeds=(0, 1, 2, 3, 4),
        architectures={},
        conditions={},
        trials=(),
        claims=tuple(
            Claim(id=f"K{number}", says=f"claim {number}", contrasts=contrasts)
            for number, contrasts in enumerate(claims, start=1)
        ),
        published=published,
        comparable=comparable,
    )


def measured(cells, *, measure="R", attack="fgsm", first_seed=0) -> list[Measurement]:
    """Measurements in random order from {"architecture/condition": {epoch: values over seeds}}."""
    rows = [
        Measurement(*words.split("/"), seed, epoch, attack, measure, value, "fraction", "higher", 500)
        for words, epochs in cells.items()
        for epoch, values in epochs.items()
        for seed, value in enumerate(values, start=first_seed)
    ]
    random.Random(0).shuffle(rows)
    return rows


def verdict(contrasts, cells):
    decisions = decide(study(contrasts), measured(cells))
    (claim,) = decisions.claims
    return claim


@pytest.mark.parametrize(
    ("left", "right", "expect", "expected"),
    [
        (HIGH, LOW, "greater", "supported"),
        (LOW, HIGH, "less", "supported"),
        (LOW, HIGH, "greater", "contradicted"),
        (HIGH, LOW, "less", "contradicted"),
        (HIGH, [0.50, 0.52, 0.48, 0.53, 0.50], "greater", "undecided"),
    ],
)
def test_a_claimed_direction(left, right, expect, expected):
    claim = verdict((contrast("lenet/a", "lenet/b", expect),), {"lenet/a": {1: left}, "lenet/b": {1: right}})
    assert claim.verdict == expected
    assert claim.effect == pytest.approx(np.mean(left) - np.mean(right), rel=1e-12)
    (row,) = claim.rows
    direction = {"supported": expect, "contradicted": {"greater": "less", "less": "greater"}[expect], "undecided": None}
    assert row.detected == direction[expected]
    assert (claim.reason == "") == (expected == "supported")


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.004, -0.003, 0.002, -0.005, 0.001], "supported"),  # inside the margin
        ([0.04, -0.03, 0.02, -0.05, 0.01], "undecided"),  # no difference found, but one of 0.02 cannot be excluded
        ([0.03, 0.005, 0.02, -0.002, 0.01], "undecided"),  # none found, but one above 0.02 cannot be excluded
        ([-0.03, -0.005, -0.02, 0.002, -0.01], "undecided"),
        ([0.011, 0.012, 0.0105, 0.0115, 0.0125], "undecided"),  # found, although smaller than the margin
        ([0.030, 0.010, 0.020, 0.025, 0.018], "undecided"),  # found, larger or smaller than the margin
        ([0.111, 0.112, 0.1105, 0.1115, 0.1125], "contradicted"),  # found, larger than the margin
        ([-0.111, -0.112, -0.1105, -0.1115, -0.1125], "contradicted"),
    ],
)
def test_a_claimed_absence(differences, expected):
    cells = {"lenet/a": {1: np.add(HIGH, differences)}, "lenet/b": {1: HIGH}}
    claim = verdict((contrast("lenet/a", "lenet/b", "none"),), cells)
    assert claim.verdict == expected
    (row,) = claim.rows
    assert row.equivalence == paired_bootstrap(cells["lenet/a"][1], HIGH, confidence=0.9, seed=0)
    inside = row.equivalence.low > -MARGIN and row.equivalence.high < MARGIN
    assert inside == (max(np.abs(differences)) < MARGIN)


def test_a_claim_has_a_margin_of_its_own():
    """The differences spread over 0.1: 0.2 bounds them and the margin of all claims, 0.02, does not."""
    cells = {"lenet/a": {1: np.add(HIGH, [0.04, -0.03, 0.02, -0.05, 0.01])}, "lenet/b": {1: HIGH}}
    without = study((contrast("lenet/a", "lenet/b", "none"),), (contrast("lenet/a", "lenet/b"),))
    first, second = without.claims
    question = without.model_copy(update={"claims": (first.model_copy(update={"margin": 0.2}), second)})
    own, shared = decide(question, measured(cells)), decide(without, measured(cells))
    assert [claim.verdict for claim in own.claims] == ["supported", "undecided"]
    assert [claim.plain()["margin"] for claim in own.claims] == [0.2, None]
    assert own.rows[0].margin == 0.2
    assert math.isnan(own.rows[1].margin)
    assert own.rule == f"{shared.rule} A margin that a claim names takes the place of this one: 0.2 in R for K1."
    assert [claim.plain()["margin"] for claim in shared.claims] == [0.02, None]
    assert shared.claims[0].verdict == "undecided"
    assert shared.claims[0].reason.endswith("but one larger than the margin 0.02 is not excluded")


def test_a_claim_without_a_margin_is_recorded_as_before_there_were_any():
    claim = Claim(id="K1", says="says")
    assert "margin" not in claim.canonical()
    assert "exact" not in claim.canonical()
    assert '"margin":0.5' in claim.model_copy(update={"margin": 0.5}).canonical()


def test_the_same_numbers_never_support_a_difference_and_none():
    cells = {"lenet/a": {1: np.add(HIGH, [0.011, 0.012, 0.0105, 0.0115, 0.0125])}, "lenet/b": {1: HIGH}}
    greater = contrast("lenet/a", "lenet/b", "greater")
    decisions = decide(study((greater,), (greater.model_copy(update={"expect": "none"}),)), measured(cells))
    assert [claim.verdict for claim in decisions.claims] == ["supported", "undecided"]
    assert decisions.claims[1].reason.endswith("found greater, but not shown to be larger than the margin 0.02")


def test_an_absence_is_contradicted_only_by_a_difference_that_survives_correction():
    different = np.add(HIGH, [0.1, 0.35, 0.05, 0.1, 0.3])
    cells = {"lenet/a": {1: different}, "lenet/b": {1: HIGH}, "lenet/c": {1: [0.50, 0.52, 0.48, 0.53, 0.50]}}
    none = contrast("lenet/a", "lenet/b", "none")
    (alone,) = decide(study((none,)), measured(cells)).claims
    assert alone.verdict == "contradicted"
    assert alone.reason == "lenet a vs b at epoch 1: expected no difference, found greater"
    among_two = decide(study((none,), (contrast("lenet/b", "lenet/c"),)), measured(cells))
    assert among_two.claims[0].verdict == "undecided"
    assert among_two.claims[0].reason.endswith("found, but one larger than the margin 0.02 is not excluded")
    assert among_two.rows[0].equivalence.low > MARGIN  # the interval, which is not adjusted, would contradict


def test_the_margin_is_what_its_comment_says(printed):
    """Just below the R of a network that is right at eps = 0 and wrong everywhere else, on the published grid."""
    first_weight = 0.0125 / 2 / 0.3
    assert 0.95 * first_weight < MARGIN < first_weight
    assert np.mean([sd < MARGIN for _, sd, _ in printed.values()]) == pytest.approx(0.75, abs=0.02)


def test_the_margin_and_alpha_are_settings():
    cells = {"lenet/a": {1: np.add(HIGH, [0.004, -0.003, 0.002, -0.005, 0.001])}, "lenet/b": {1: HIGH}}
    question = study((contrast("lenet/a", "lenet/b", "none"),))
    assert decide(question, measured(cells), margin=0.002).claims[0].verdict == "undecided"
    strict = decide(question, measured(cells), alpha=0.01)
    assert strict.claims[0].interval == paired_bootstrap(cells["lenet/a"][1], HIGH, confidence=0.99, seed=0)
    assert strict.rule == rule(alpha=0.01, margin=MARGIN)
    assert "below 0.01" in strict.rule
    assert "the 98% interval" in strict.rule
    assert f"-{MARGIN:g} to {MARGIN:g}" in strict.rule
    for settings, message in (({"alpha": 0.7}, r"alpha: .* got 0\.7"), ({"margin": 0}, r"margin: .* got 0;")):
        with pytest.raises(SpecError, match=message):
            decide(question, measured(cells), **settings)


CONJUNCTION = (contrast("lenet/a", "lenet/b"), contrast("resnet/a", "resnet/b"))
CELLS = {"lenet/a": {1: HIGH}, "lenet/b": {1: LOW}, "resnet/a": {1: HIGH}, "resnet/b": {1: LOW}}
ALIKE = {1: [0.50, 0.52, 0.48, 0.53, 0.50]}


@pytest.mark.parametrize(
    ("change", "expected", "reason"),
    [
        ({}, "supported", ""),
        ({"resnet/b": ALIKE}, "undecided", "resnet a vs b at epoch 1: expected greater, found no difference"),
        ({"resnet/a": {1: LOW}, "resnet/b": {1: HIGH}}, "contradicted",
         "resnet a vs b at epoch 1: expected greater, found less"),
        ({"lenet/b": ALIKE, "resnet/a": {1: LOW}, "resnet/b": {1: HIGH}}, "contradicted",
         "resnet a vs b at epoch 1: expected greater, found less"),
        ({"resnet/b": None}, "undecided", "resnet/b was not run"),
        ({"lenet/a": {1: LOW}, "lenet/b": {1: HIGH}, "resnet/a": None, "resnet/b": None}, "contradicted",
         "resnet/a was not run; resnet/b was not run; lenet a vs b at epoch 1: expected greater, found less"),
    ],
)  # fmt: skip
def test_a_claim_is_a_conjunction(change, expected, reason):
    cells = {words: values for words, values in {**CELLS, **change}.items() if values is not None}
    claim = verdict(CONJUNCTION, cells)
    assert (claim.verdict, claim.reason) == (expected, reason)


def test_contrasts_of_one_cell_that_fail_alike_are_named_together():
    near = [0.12, 0.09, 0.1, 0.1, 0.1]
    cells = {f"lenet/{name}": {1: values} for name, values in zip("abcd", (LOW, HIGH, HIGH[::-1], near), strict=True)}
    claim = verdict(tuple(contrast("lenet/a", f"lenet/{other}") for other in "bcd"), cells)
    assert claim.verdict == "contradicted"
    assert claim.reason == "lenet a vs b and c at epoch 1: expected greater, found less"
    claim = verdict(tuple(contrast("lenet/a", f"lenet/{other}", "less") for other in "dbe"), cells)
    assert claim.reason == "lenet/e was not run; lenet a vs d at epoch 1: expected less, found no difference"
    cells["lenet/e"] = {1: LOW[::-1]}
    claim = verdict(tuple(contrast("lenet/a", f"lenet/{other}", "less") for other in "dea"), cells)
    assert claim.reason.startswith(
        "lenet a vs d and e at epoch 1: expected less, found no difference; lenet a vs a at epoch 1"
    )


def test_secondary_contrasts_decide_nothing_and_are_a_family_of_their_own():
    second = contrast("lenet/b", "lenet/a", "greater", primary=False)
    third = contrast("lenet/a", "lenet/c", "greater", primary=False)
    cells = {"lenet/a": {1: HIGH}, "lenet/b": {1: LOW}, "lenet/c": ALIKE}
    claim = verdict((contrast("lenet/a", "lenet/b"), second, third), cells)
    assert claim.verdict == "supported"
    primary, contradicting, undecided = claim.rows
    assert primary.p_adjusted == primary.p
    assert (contradicting.p_adjusted, undecided.p_adjusted) == holm([contradicting.p, undecided.p])
    assert contradicting.p_adjusted == 2 * contradicting.p
    assert contradicting.outcome == "contradicted"
    missing = contrast("lenet/a", "lenet/d", primary=False)
    claim = verdict((contrast("lenet/a", "lenet/b"), missing), cells)
    assert (claim.verdict, claim.reason, len(claim.rows)) == ("supported", "", 1)


def test_holm_runs_over_all_claims():
    cells = {"lenet/a": {1: [0.52, 0.49, 0.55, 0.51, 0.53]}, "lenet/b": {1: [0.51, 0.455, 0.545, 0.50, 0.50]}}
    alone = contrast("lenet/a", "lenet/b")
    assert decide(study((alone,)), measured(cells)).claims[0].verdict == "supported"
    both = decide(study((alone,), (alone,)), measured(cells))
    p = paired_t(cells["lenet/a"][1], cells["lenet/b"][1]).p
    assert 0.025 < p < 0.05
    assert [claim.p_adjusted for claim in both.claims] == [2 * p, 2 * p]
    assert [claim.verdict for claim in both.claims] == ["undecided", "undecided"]


def test_the_numbers_of_a_claim_are_those_of_its_weakest_contrast_with_its_verdict():
    weaker = {1: [0.52, 0.49, 0.55, 0.51, 0.53]}
    cells = {**CELLS, "resnet/a": weaker, "resnet/b": {1: np.subtract(weaker[1], [0.10, 0.11, 0.09, 0.14, 0.08])}}
    claim = verdict(CONJUNCTION, cells)
    assert claim.verdict == "supported"
    assert claim.decisive == claim.rows[1]
    assert claim.effect == pytest.approx(0.104, rel=1e-12)
    assert claim.p_adjusted == pytest.approx(claim.rows[1].p)  # the larger of two: times 1
    # a contradiction is reported by what contradicts, not by what is merely weak
    cells = {**CELLS, "lenet/b": ALIKE, "resnet/a": {1: LOW}, "resnet/b": {1: HIGH}}
    assert verdict(CONJUNCTION, cells).decisive.left.architecture == "resnet"


def test_a_row_carries_every_number():
    left, right = [0.52, 0.49, 0.55, 0.51, 0.53], [0.50, 0.44, 0.54, 0.53, 0.49]
    claim = verdict((contrast("lenet/a", "lenet/b"),), {"lenet/a": {1: left}, "lenet/b": {1: right}})
    (row,) = claim.rows
    assert row.left[:3] == ("lenet", "a", 1)
    assert row.left[3:6] == pytest.approx((0.52, np.std(left, ddof=1), 5))
    assert row.interval == paired_bootstrap(left, right, seed=0)
    assert (row.p, row.p_welch, row.p_sign_flip) == (
        paired_t(left, right).p, welch(left, right).p, sign_flip(left, right)
    )  # fmt: skip
    assert row.effect_size == pytest.approx(
        np.mean(np.subtract(left, right)) / np.std(np.subtract(left, right), ddof=1)
    )
    assert row.power is row.published is None


def test_pairing_cancels_what_a_seed_does_to_both_cells():
    good = np.array([0.0, 0.2, 0.1, 0.3, 0.25])
    cells = {"lenet/a": {1: 0.5 + good + [0.02, 0.021, 0.022, 0.02, 0.019]}, "lenet/b": {1: 0.5 + good}}
    paired = verdict((contrast("lenet/a", "lenet/b"),), cells)
    unpaired = verdict((contrast("lenet/a", "lenet/b", paired=False),), cells)
    assert (paired.verdict, unpaired.verdict) == ("supported", "undecided")
    (row,) = unpaired.rows
    assert row.p == row.p_welch == welch(*(cells[words][1] for words in cells)).p
    assert row.p_sign_flip is None
    assert row.effect_size == hedges_g(cells["lenet/a"][1], cells["lenet/b"][1])
    assert row.interval == unpaired_bootstrap(cells["lenet/a"][1], cells["lenet/b"][1], seed=0)


def test_only_shared_seeds_are_paired_and_the_others_are_named():
    rows = [*measured({"lenet/a": {1: HIGH}}), *measured({"lenet/b": {1: LOW}}, first_seed=1)]
    (claim,) = decide(study((contrast("lenet/a", "lenet/b"),)), rows).claims
    assert claim.n == 4
    assert claim.p == paired_t(HIGH[1:], LOW[:4]).p
    assert claim.reason == "lenet a vs b at epoch 1: seeds without a partner are left out: 0, 5"
    (unpaired,) = decide(study((contrast("lenet/a", "lenet/b", paired=False),)), rows).claims
    assert (unpaired.n, unpaired.p) == (5, welch(HIGH, LOW).p)
    rows = [*measured({"lenet/a": {1: HIGH}}), *measured({"lenet/b": {1: LOW}}, first_seed=9)]
    (claim,) = decide(study((contrast("lenet/a", "lenet/b"),)), rows).claims
    assert (claim.verdict, claim.reason) == ("undecided", "lenet/a and lenet/b share no seed at epoch 1")


EPOCHS = {epoch: np.add(HIGH, epoch / 100) for epoch in (1, 10, 25, 50)}


@pytest.mark.parametrize(
    ("position", "expected"),
    [("first", [1]), ("last", [50]), ("early", [1, 10, 25]), ("middle", [10, 25]), (25, [25])],
)
def test_positions_are_among_the_evaluated_epochs(position, expected):
    cells = {"lenet/a": EPOCHS, "lenet/b": dict.fromkeys(EPOCHS, LOW)}
    claim = verdict((contrast("lenet/a", "lenet/b", epoch=position),), cells)
    assert [(row.left.epoch, row.right.epoch) for row in claim.rows] == [(epoch, epoch) for epoch in expected]
    assert [row.left.mean for row in claim.rows] == pytest.approx([0.507 + epoch / 100 for epoch in expected])


def test_positions_differ_between_architectures():
    cells = {"lenet/a": {1: LOW, 300: HIGH}, "resnet/a": {1: HIGH, 125: LOW}}
    for position, epochs in (("last", (300, 125)), ("first", (1, 1))):
        claim = verdict((contrast("lenet/a", "resnet/a", epoch=position, paired=False),), cells)
        (row,) = claim.rows
        assert (row.left.epoch, row.right.epoch) == epochs


@pytest.mark.parametrize(
    ("position", "cells", "reason"),
    [
        ("first", {"lenet/a": {5: HIGH}, "lenet/b": {5: LOW}},
         "lenet/a and lenet/b: no epoch answers to 'first' among those evaluated (5)"),
        (10, {"lenet/a": {5: HIGH}, "lenet/b": {5: LOW}},
         "lenet/a and lenet/b: no epoch answers to 10 among those evaluated (5)"),
        ("last", {"lenet/a": {1: LOW, 5: HIGH}, "lenet/b": {1: LOW}}, "lenet/b was not evaluated at epoch 5"),
        ("last", {"lenet/a": {1: [*HIGH[:4], math.nan]}, "lenet/b": {1: LOW}},
         "R of lenet/a is not defined at epoch 1 for seeds 4"),
        ("last", {}, "lenet/a was not run; lenet/b was not run"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(position, cells, reason):
    claim = verdict((contrast("lenet/a", "lenet/b", epoch=position),), cells)
    assert (claim.verdict, claim.reason, claim.rows) == ("undecided", reason, ())
    plain = claim.plain()
    numbers = {key: plain[key] for key in ("effect", "interval", "p", "p_adjusted", "n", "published")}
    assert numbers == {"effect": None, "interval": None, "p": None, "p_adjusted": None, "n": 0, "published": None}


def test_only_the_measure_and_the_attack_of_the_claim_count():
    rows = [
        *measured({"lenet/a": {1: LOW}, "lenet/b": {1: HIGH}}, measure="R on [0, 8/255]"),
        *measured({"lenet/a": {1: LOW}, "lenet/b": {1: HIGH}}, attack="pgd-linf"),
    ]
    question = study((contrast("lenet/a", "lenet/b"),))
    assert decide(question, rows).claims[0].reason == "lenet/a has no R under fgsm; lenet/b has no R under fgsm"
    rows += measured({"lenet/a": {1: HIGH}, "lenet/b": {1: LOW}})
    assert decide(question, rows).claims[0].verdict == "supported"


@pytest.mark.parametrize(
    ("left", "right", "reason"),
    [
        ([0.5], [0.1], "one seed only: nothing can be tested, run at least 2"),
        ([0.3, 0.5, 0.7], [0.1, 0.3, 0.5], "the 3 seeds do not differ at all: a t test is not defined"),
    ],
)
def test_degenerate_samples_decide_nothing_but_show_their_effect(left, right, reason):
    published = (printed_value("a", 1, 0.5, 0.01), printed_value("b", 1, 0.1, 0.01))
    for expect in ("greater", "none"):
        question = study((contrast("lenet/a", "lenet/b", expect),), published=published)
        (claim,) = decide(question, measured({"lenet/a": {1: left}, "lenet/b": {1: right}})).claims
        assert claim.verdict == "undecided"
        assert claim.reason == f"lenet a vs b at epoch 1: {reason}"
        assert claim.effect == pytest.approx(np.mean(left) - np.mean(right))
        assert (claim.n, claim.p, claim.p_adjusted, claim.interval) == (len(left), None, None, None)
        assert (claim.decisive.power is None) == (len(left) == 1)


@pytest.mark.parametrize(
    ("n", "alpha", "verdict"),
    [
        (2, 0.05, "undecided"),
        (4, 0.05, "undecided"),
        (5, 0.05, "supported"),
        (5, 0.01, "undecided"),
        (7, 0.01, "supported"),
    ],
)
@pytest.mark.parametrize("value", [0.0, 0.1 + 0.2])
def test_seeds_that_are_all_equal_support_no_difference_if_there_are_enough_of_them(n, alpha, verdict, value):
    cells = {
        "lenet/a": {1: [value, 0.5][:n] + [0.4] * (n - 2)},
        "lenet/b": {1: [round(value, 3), 0.5][:n] + [0.4] * (n - 2)},
    }
    decisions = decide(study((contrast("lenet/a", "lenet/b", "none"),)), measured(cells), alpha=alpha)
    (claim,) = decisions.claims
    assert claim.verdict == verdict
    enough = 5 if alpha == 0.05 else 7
    assert 0.5**enough < alpha <= 0.5 ** (enough - 1)
    more = "" if verdict == "supported" else f", and {enough} equal ones would show the absence of a difference"
    assert claim.reason == f"lenet a vs b at epoch 1: equal at all {n} seeds: a t test is not defined{more}"
    assert (claim.effect, claim.interval, claim.p, claim.n) == (pytest.approx(0, abs=1e-15), None, None, n)
    assert f"that they do not differ is then supported by {enough} seeds or more" in decisions.rule


@pytest.mark.parametrize("expect", ["greater", "less"])
def test_seeds_that_are_all_equal_support_no_direction(expect):
    claim = verdict((contrast("lenet/a", "lenet/b", expect),), {"lenet/a": {1: [0.2] * 9}, "lenet/b": {1: [0.2] * 9}})
    assert (claim.verdict, claim.reason) == (
        "undecided",
        "lenet a vs b at epoch 1: equal at all 9 seeds: a t test is not defined",
    )


def test_one_seed_that_differs_asks_for_an_interval_again():
    almost = [0.2] * 9 + [0.9]
    claim = verdict((contrast("lenet/a", "lenet/b", "none"),), {"lenet/a": {1: [0.2] * 10}, "lenet/b": {1: almost}})
    assert claim.verdict == "undecided"
    assert claim.interval is not None


def test_the_same_difference_at_every_seed_supports_nothing():
    for gap in (1e-3, 1e-6):
        left = [0.2, 0.3, 0.4, 0.5, 0.6]
        cells = {"lenet/a": {1: left}, "lenet/b": {1: [value + gap for value in left]}}
        claim = verdict((contrast("lenet/a", "lenet/b", "none"),), cells)
        assert (claim.verdict, claim.interval) == ("undecided", None)
        assert claim.reason.endswith("the 5 seeds do not differ at all: a t test is not defined")


def exact(contrasts, cells):
    """The decisions on one claim about numbers without chance, beside one that is tested."""
    tested = contrast("lenet/low", "lenet/0.5", "less")
    plain = study(contrasts, (tested,))
    claims = (plain.claims[0].model_copy(update={"exact": True}), plain.claims[1])
    return decide(plain.model_copy(update={"claims": claims}), measured({"lenet/low": {1: LOW}, **cells}))


@pytest.mark.parametrize("seeds", [1, 3, 5])
@pytest.mark.parametrize(
    ("right", "expect", "expected"),
    [("1.465", "greater", "supported"), ("1.475", "less", "supported"), ("1.475", "greater", "contradicted"),
     ("1.468", "greater", "contradicted"), ("1.46", "none", "supported"), ("1.4", "none", "contradicted"),
     ("1.468", "none", "supported")],
)  # fmt: skip
def test_a_number_without_chance_decides_by_itself(right, expect, expected, seeds):
    cells = {"lenet/a": {1: [1.468] * seeds}}
    decisions = exact((contrast("lenet/a", f"lenet/{right}", expect),), cells)
    claim, tested = decisions.claims
    assert (claim.verdict, claim.p_adjusted, claim.interval) == (expected, None, None)
    assert tested.p_adjusted == tested.p  # no part of the correction
    assert "A number without chance" in decisions.rule
    assert "A number without chance" not in rule()


def test_numbers_that_differ_between_seeds_are_tested_whatever_is_said_of_them():
    claim, _ = exact((contrast("lenet/a", "lenet/0.49"),), {"lenet/a": {1: [0.49, 0.4901]}}).claims
    assert claim.verdict == "undecided"
    assert claim.p == pytest.approx(0.5)
    assert claim.interval is not None


def test_networks_without_common_seeds_are_not_equal_seed_by_seed():
    unpaired = contrast("lenet/a", "resnet/a", "none", paired=False)
    claim = verdict((unpaired,), {"lenet/a": {1: [0.2] * 9}, "resnet/a": {1: [0.2] * 9}})
    assert claim.verdict == "undecided"


def test_an_undefined_test_keeps_its_place_in_the_family():
    cells = {**CELLS, "resnet/a": {1: np.full(5, 0.5)}, "resnet/b": {1: np.full(5, 0.1)}}
    claim = verdict(CONJUNCTION, cells)
    assert claim.verdict == "undecided"
    assert claim.rows[0].p_adjusted == 2 * claim.rows[0].p
    assert claim.decisive == claim.rows[1]
    claim = verdict(CONJUNCTION, {**cells, "lenet/b": ALIKE})  # both undecided: what cannot be tested is the weaker
    assert claim.decisive == claim.rows[1]


def test_a_claim_without_a_primary_contrast_is_undecided():
    claim = verdict((contrast("lenet/a", "lenet/b", primary=False),), CELLS)
    assert (claim.verdict, claim.reason) == ("undecided", "the study names no primary contrast for it")


def test_refuses_two_values_of_one_network():
    rows = measured({"lenet/a": {1: HIGH}, "lenet/b": {1: LOW}})
    repeated = next(row for row in rows if row.condition == "a" and row.seed == 2)
    message = r"expected one R of lenet/a, seed 2, epoch 1, attack 'fgsm', got two \(0\.49 and 0\.3\)"
    with pytest.raises(SpecError, match=message):
        decide(study((contrast("lenet/a", "lenet/b"),)), [*rows, repeated._replace(value=0.3)])


def printed_value(condition, epoch, mean, sd, architecture="lenet", attack="fgsm") -> PublishedValue:
    return PublishedValue(
        table="1", architecture=architecture, condition=condition, epoch=epoch, mean=mean, sd=sd, n=20, attack=attack
    )


PUBLISHED = tuple(
    printed_value(condition, epoch, mean + epoch / 1000, sd)
    for condition, mean, sd in (("a", 0.11, 0.009), ("b", 0.098, 0.0083))
    for epoch in (1, 10, 300)
)


@pytest.mark.parametrize(
    ("comparable", "position", "expected"),
    [
        (False, "last", 300),
        (False, "first", 1),
        (False, 10, 10),
        (False, "middle", 10),
        (False, 20, None),
        (True, "last", None),  # epoch 30 of a comparable study is epoch 30, and the source prints none
        (True, "first", 1),
        (True, 10, 10),
    ],
)
def test_published_values_are_those_of_the_mapped_epoch(comparable, position, expected):
    cells = {words: dict.fromkeys((1, 10, 20, 30), values) for words, values in (("lenet/a", HIGH), ("lenet/b", LOW))}
    question = study((contrast("lenet/a", "lenet/b", epoch=position),), published=PUBLISHED, comparable=comparable)
    row = decide(question, measured(cells)).rows[0]
    if expected is None:
        assert row.published is row.power is None
        return
    assert row.published.left[:6] == ("lenet", "a", expected, 0.11 + expected / 1000, 0.009, 20)
    assert row.published.p == pytest.approx(welch_from_summary(0.11, 0.009, 20, 0.098, 0.0083, 20).p, rel=1e-9)
    assert row.power == pytest.approx(paired_power(0.012, math.hypot(0.009, 0.0083), 5), rel=1e-9)


def test_power_of_an_unpaired_contrast_and_missing_published_cells():
    cells = {"lenet/a": {1: HIGH}, "lenet/b": {1: LOW[:3]}}
    question = study((contrast("lenet/a", "lenet/b", paired=False),), published=PUBLISHED)
    row = decide(question, measured(cells)).rows[0]
    assert row.power == pytest.approx(unpaired_power(0.012, 0.009, 5, 0.0083, 3), rel=1e-9)
    assert (row.left.n, row.right.n, row.n) == (5, 3, 3)
    swapped = study((contrast("lenet/b", "lenet/a", paired=False),), published=PUBLISHED)
    assert decide(swapped, measured(cells)).rows[0].n == 3
    question = study((contrast("lenet/a", "lenet/b"),), published=PUBLISHED[:3])  # of a only
    assert decide(question, measured(cells)).rows[0].published is None
    other_attack = tuple(value.model_copy(update={"attack": "pgd-linf"}) for value in PUBLISHED)
    question = study((contrast("lenet/a", "lenet/b"),), published=other_attack)
    assert decide(question, measured(cells)).rows[0].published is None


def test_plain_has_the_promised_keys_and_is_json():
    question = study((contrast("lenet/a", "lenet/b"),), published=PUBLISHED)
    (claim,) = decide(question, measured({"lenet/a": {1: HIGH}, "lenet/b": {1: LOW}})).claims
    plain = json.loads(json.dumps(claim.plain(), allow_nan=False))
    keys = ["id", "says", "verdict", "effect", "interval", "p", "p_adjusted", "n", "published", "margin"]
    assert list(plain) == keys
    assert (plain["id"], plain["says"], plain["verdict"], plain["n"]) == ("K1", "claim 1", "supported", 5)
    assert plain["interval"] == list(paired_bootstrap(HIGH, LOW, seed=0))
    assert plain["published"]["right"] == {
        "architecture": "lenet", "condition": "b", "epoch": 300, "mean": 0.398, "sd": 0.0083, "n": 20,
        "attack": "",
    }  # fmt: skip
    expected = welch_from_summary(0.11, 0.009, 20, 0.098, 0.0083, 20)
    assert plain["published"]["p"] == pytest.approx(expected.p, rel=1e-9)


def test_seeds_with_the_published_means_and_deviations_give_the_published_tests(printed):
    """Twenty values with exactly the printed mean and SD: Welch's p of the row is that of the printed summary."""
    quantiles = stats.norm.ppf((np.arange(20) + 0.5) / 20)
    quantiles /= quantiles.std(ddof=1)
    shuffle = np.random.default_rng(0)
    conditions = ("digits", "objects", "digits-then-objects")
    cells = {
        f"lenet/{condition}": {
            epoch: printed["lenet", condition, epoch][0]
            + printed["lenet", condition, epoch][1] * shuffle.permutation(quantiles)
            for epoch in (1, 10, 300)
        }
        for condition in conditions
    }
    published = tuple(
        printed_value(condition, epoch, *printed["lenet", condition, epoch][:2])
        for condition in conditions
        for epoch in (1, 10, 300)
    )
    k1 = (contrast("lenet/digits", "lenet/objects"), contrast("lenet/digits", "lenet/objects", epoch="early"))
    k9 = (
        contrast("lenet/digits-then-objects", "lenet/objects"),
        contrast("lenet/digits-then-objects", "lenet/objects", "less", epoch="first"),
    )
    decisions = decide(study(k1, k9, published=published, comparable=True), measured(cells))
    assert [claim.verdict for claim in decisions.claims] == ["supported", "supported"]
    assert len(decisions.rows) == 5
    for row in decisions.rows:
        assert row.p_welch == pytest.approx(row.published.p, rel=1e-6)  # means near 0.1 subtract to 1e-15
        assert row.outcome == "supported"


def test_a_contrast_between_two_attacks_on_one_cell():
    cells = [Cell(architecture="lenet", condition="a", attack=attack) for attack in ("pgd", None)]
    between = Contrast(left=cells[0], right=cells[1], expect="less")
    rows = measured({"lenet/a": {1: HIGH}}) + measured({"lenet/a": {1: LOW}}, attack="pgd")
    (claim,) = decide(study((between,)), rows).claims
    assert claim.verdict == "supported"
    (row,) = claim.rows
    assert (row.left.what, row.right.what) == ("a under pgd", "a")
    assert row.difference == pytest.approx(np.mean(LOW) - np.mean(HIGH), abs=1e-12)
    (claim,) = decide(study((between,)), measured({"lenet/a": {1: HIGH}})).claims
    assert claim.reason == "lenet/a has no R under pgd"
    (claim,) = decide(study((between,)), [row._replace(n=50) if row.attack == "pgd" else row for row in rows]).claims
    assert claim.rows == ()
    assert claim.reason == "lenet/a under pgd has 50 images and lenet/a has 500: give both attacks the same number"


@pytest.mark.parametrize("paired", [True, False])
def test_published_means_without_a_spread_stand_beside_ours_and_promise_no_power(paired):
    values = [
        PublishedValue(table="1", architecture="lenet", condition=name, epoch=1, mean=mean, sd=sd)
        for name, mean, sd in (("a", 0.5, 0.01), ("b", 0.4, None))
    ]
    question = study((contrast("lenet/a", "lenet/b", paired=paired),), published=tuple(values))
    (claim,) = decide(question, measured({"lenet/a": {1: HIGH}, "lenet/b": {1: LOW}})).claims
    (row,) = claim.rows
    assert row.power is None
    assert claim.published.difference == pytest.approx(0.1)
    plain = claim.plain()["published"]
    assert (plain["left"]["sd"], plain["right"]["sd"], plain["p"]) == (0.01, None, None)
    json.dumps(claim.plain(), allow_nan=False)


def test_a_number_on_the_right_is_a_test_of_one_sample():
    above = contrast("lenet/a", "lenet/0.49")
    (claim,) = decide(study((above,)), measured({"lenet/a": {1: HIGH}})).claims
    (row,) = claim.rows
    expected = scipy.stats.ttest_1samp(HIGH, 0.49)
    assert row.p == pytest.approx(expected.pvalue, rel=1e-12)
    assert row.difference == pytest.approx(np.mean(HIGH) - 0.49, abs=1e-15)
    assert (row.right.sd, row.right.what) == (0.0, "0.49")
    assert row.right.mean == pytest.approx(0.49, rel=1e-15)
    assert claim.verdict == "supported"
    (claim,) = decide(study((contrast("lenet/a", "lenet/0.6"),)), measured({"lenet/a": {1: HIGH}})).claims
    assert claim.verdict == "contradicted"
    (claim,) = decide(study((above,)), []).claims
    assert claim.reason == "lenet/a was not run"
