"""A sweep read where it equals another network in one measure, and contrasts with it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unperturbed.records import Cell, Claim, Contrast, Measurement, Study, Sweep, Variable
from unperturbed.statistics import Match, decide, interpolated, paired_bootstrap, paired_t
from unperturbed.statistics.claims import MATCHED

CLEAN = Variable(measure="f0", attack="fgsm")


@pytest.mark.parametrize(
    ("target", "matches", "outcomes", "expected"),
    [
        (0.7, [0.9, 0.8, 0.6], [1.0, 2.0, 4.0], 3.0),
        (0.8, [0.9, 0.8, 0.6], [1.0, 2.0, 4.0], 2.0),  # a point of the sweep
        (0.9, [0.9, 0.8, 0.6], [1.0, 2.0, 4.0], 1.0),  # its end
        (0.91, [0.9, 0.8, 0.6], [1.0, 2.0, 4.0], math.nan),
        (0.59, [0.9, 0.8, 0.6], [1.0, 2.0, 4.0], math.nan),
        (0.7, [0.6, 0.9, 0.65, 0.72], [0.0, 3.0, 5.0, 12.0], 10.0),  # it turns back twice: the last stretch is shortest
        (0.7, [0.72, 0.65, 0.9, 0.6], [12.0, 5.0, 3.0, 0.0], 10.0),
        (0.5, [0.75, 0.25, 0.75], [1.0, 2.0, 5.0], 1.5),  # of two as short the first
        (0.7, [0.7, 0.7, 0.9], [1.0, 3.0, 4.0], 2.0),  # the same accuracy twice
        (0.7, [0.9, math.nan, 0.6], [1.0, 2.0, 4.0], math.nan),  # neighbours only
        (0.7, [math.nan, 0.8, 0.6], [1.0, 2.0, 4.0], 3.0),
        (0.7, [0.9, 0.8, 0.6], [1.0, 2.0, math.nan], math.nan),
        (math.nan, [0.9, 0.8, 0.6], [1.0, 2.0, 4.0], math.nan),
        (0.7, [0.7], [1.0], math.nan),  # a point is no line
    ],
)
def test_a_sweep_is_read_between_neighbours_and_not_beyond_its_ends(target, matches, outcomes, expected):
    assert interpolated(target, matches, outcomes) == pytest.approx(expected, abs=1e-12, nan_ok=True)


NUMBERS = st.floats(-100, 100).map(lambda value: round(value, 3))


@settings(deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=8), NUMBERS)
def test_what_is_read_lies_on_the_sweep(points, target):
    matches, outcomes = zip(*points, strict=True)
    found = interpolated(target, matches, outcomes)
    assert math.isnan(found) == (not min(matches) <= target <= max(matches))
    if not math.isnan(found):
        assert min(outcomes) - 1e-9 <= found <= max(outcomes) + 1e-9
    straight = [3 * match + 1 for match in matches]
    assert interpolated(target, matches, straight) == pytest.approx(
        math.nan if math.isnan(found) else 3 * target + 1, abs=1e-9, nan_ok=True
    )


SEEDS = 5
ACCURACY = {"local": 0.50, "decay-0": 0.62, "decay-1": 0.54, "decay-2": 0.44}
ROBUSTNESS = {"local": 0.40, "decay-0": 0.10, "decay-1": 0.20, "decay-2": 0.35}


def noise(condition, seed):
    return 0.01 * np.random.default_rng([seed, len(condition), ord(condition[-1])]).normal()


def rows(accuracy=ACCURACY, robustness=ROBUSTNESS, *, seeds=SEEDS, epoch=20):
    return [
        Measurement("network", condition, seed, epoch, "fgsm", measure, value, "", "higher", 500)
        for condition in accuracy
        for seed in range(seeds)
        for measure, value in (
            ("f0", accuracy[condition] + noise(condition, seed)),
            ("R", robustness[condition] + noise(condition + "R", seed)),
        )
    ]


def study(*contrasts, match=CLEAN, along=("decay-0", "decay-1", "decay-2")):
    return Study(
        name="made-up", title="", question="", source="", scale="smoke", seeds=tuple(range(SEEDS)), architectures={},
        conditions={}, trials=(), sweeps={"weight-decay": Sweep(conditions=along, match=match)},
        claims=(Claim(id="KH8", says="", contrasts=contrasts),),
    )  # fmt: skip


def contrast(expect="greater", left="local", right="weight-decay", **more):
    cells = [Cell(architecture="network", condition=name) for name in (left, right)]
    return Contrast(left=cells[0], right=cells[1], expect=expect, **more)


def of(measured, condition, measure):
    return [row.value for row in sorted(measured) if (row.condition, row.measure) == (condition, measure)]


def test_a_contrast_with_a_sweep_is_at_equal_match_seed_by_seed():
    measured = rows()
    decisions = decide(study(contrast()), measured)
    (claim,) = decisions.claims
    (row,) = claim.rows
    # by hand: accuracy 0.50 lies between decay-1 and decay-2
    expected = []
    for seed in range(SEEDS):
        (m1, m2), (y1, y2) = (
            [of(measured, name, measure)[seed] for name in ("decay-1", "decay-2")] for measure in ("f0", "R")
        )
        expected.append(y1 + (of(measured, "local", "f0")[seed] - m1) / (m2 - m1) * (y2 - y1))
    left = of(measured, "local", "R")
    assert row.right.mean == pytest.approx(np.mean(expected), abs=1e-12)
    assert row.p == pytest.approx(paired_t(left, expected).p, rel=1e-9)
    assert row.interval == pytest.approx(paired_bootstrap(left, expected, seed=0), abs=1e-9)
    assert (claim.verdict, claim.n, row.match) == ("supported", 5, Match(CLEAN, 5, 5))
    assert row.words == "network local vs weight-decay matched in f0[fgsm] (5 of 5 seeds) at epoch 20"
    assert decisions.rule.endswith(MATCHED)
    # unmatched, the same networks are further ahead of back-propagation without decay
    (unmatched,) = decide(study(contrast(right="decay-0")), measured).claims
    assert unmatched.effect > claim.effect + 0.1
    assert unmatched.rows[0].match is None


def test_matching_can_turn_a_contrast_around():
    """All that the left is ahead by is what it lost in accuracy."""
    robustness = {**ROBUSTNESS, "local": 0.22}
    (claim,) = decide(study(contrast(), contrast(right="decay-0")), rows(robustness=robustness)).claims
    assert claim.rows[0].outcome == "contradicted"
    assert claim.rows[1].outcome == "supported"


def test_a_seed_beyond_the_sweep_is_left_out_and_the_claim_says_so():
    measured = [
        row._replace(value=0.7 if row.seed == 2 else 0.3)
        if (row.condition, row.measure) == ("local", "f0") and row.seed in (2, 4)
        else row
        for row in rows()
    ]
    (claim,) = decide(study(contrast()), measured).claims
    assert claim.n == 3
    assert claim.rows[0].match == Match(CLEAN, 3, 5)
    assert claim.reason == (
        "network local vs weight-decay matched in f0[fgsm] (3 of 5 seeds) at epoch 20: "
        "seeds without a match are left out: 2, 4"
    )
    kept = [row for row in measured if row.seed in (0, 1, 3)]
    assert claim.effect == decide(study(contrast()), kept).claims[0].effect


def test_networks_all_beyond_the_sweep_are_a_gap_with_both_ranges():
    measured = [row._replace(value=0.3 + row.seed / 100) if row.condition == "local" else row for row in rows()]
    (claim,) = decide(study(contrast()), measured).claims
    accuracies = [value for name in ("decay-0", "decay-1", "decay-2") for value in of(measured, name, "f0")]
    assert (claim.verdict, claim.rows) == ("undecided", ())
    assert claim.reason == (
        "network/local has no match in weight-decay at epoch 20: its f0[fgsm] is 0.3 to 0.34, that of the sweep "
        f"{min(accuracies):.4g} to {max(accuracies):.4g}"
    )
    nothing = [row._replace(value=math.nan) if row.measure == "f0" else row for row in rows()]
    (claim,) = decide(study(contrast()), nothing).claims
    assert claim.reason.endswith("its f0[fgsm] is not defined, that of the sweep not defined")


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        (("local", "f0"), "network/local has no f0 under fgsm"),
        (("decay-1", "f0"), "network/decay-1 has no f0 under fgsm"),
        (("decay-1", "R"), "network/decay-1 has no R under fgsm"),
        (("local", None), "network/local was not run"),
    ],
)
def test_what_a_sweep_lacks_is_named(gone, reason):
    measured = [row for row in rows() if not (row.condition == gone[0] and gone[1] in (row.measure, None))]
    (claim,) = decide(study(contrast()), measured).claims
    assert (claim.verdict, claim.reason) == ("undecided", reason)


def test_a_sweep_goes_past_what_was_not_run():
    """Beyond the nearest of those that are left nothing is matched; of fewer than two there is no line."""
    measured = [row for row in rows() if row.condition != "decay-1"]
    (claim,) = decide(study(contrast()), measured).claims
    (same,) = decide(study(contrast(), along=("decay-0", "decay-2")), measured).claims
    assert (claim.effect, claim.verdict) == (same.effect, "supported")
    assert claim.reason == (
        "network local vs weight-decay matched in f0[fgsm] (5 of 5 seeds) at epoch 20: without decay-1, which was not run"
    )
    assert same.reason == ""
    (claim,) = decide(study(contrast()), [row for row in measured if row.condition != "decay-2"]).claims
    assert claim.reason == "network/decay-1 was not run; network/decay-2 was not run"


def test_the_match_is_of_the_epoch_of_the_contrast():
    early = rows({**ACCURACY, "local": 0.58}, epoch=1)
    (claim,) = decide(study(contrast(epoch="first"), contrast()), early + rows()).claims
    first, last = (decide(study(contrast()), measured).claims[0] for measured in (early, rows()))
    assert [row.difference for row in claim.rows] == [first.effect, last.effect]
    assert first.effect > last.effect + 0.05
    # a match by an examination of the last epoch only
    later = [row for row in early if row.measure != "f0"] + rows()
    (claim,) = decide(study(contrast(epoch="first")), later).claims
    assert claim.reason == "network/weight-decay was not evaluated at epoch 1"


def test_the_sweep_is_attacked_as_its_side_of_the_contrast_says():
    other = [row._replace(attack="pgd", value=row.value / 2) for row in rows() if row.measure == "R"]
    sides = (Cell(architecture="network", condition=name, attack=attack) for name, attack in
             (("local", None), ("weight-decay", "pgd")))  # fmt: skip
    question = study(Contrast(left=next(sides), right=next(sides), expect="greater"))
    (claim,), (same,) = (decide(asked, rows() + other).claims for asked in (question, study(contrast())))
    assert claim.rows[0].right.mean == pytest.approx(same.rows[0].right.mean / 2, rel=1e-12)
    assert claim.rows[0].words.startswith("network local vs weight-decay under pgd matched in f0[fgsm]")
    (claim,) = decide(question, rows() + [row._replace(n=100) for row in other]).claims
    assert claim.reason == (
        "network/local has 500 images and network/weight-decay under pgd has 100: give both attacks the same number"
    )
