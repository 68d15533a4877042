import math
from dataclasses import replace

import numpy as np
import pytest

from unperturbed.measures import QUANTITIES
from unperturbed.records import CurvePoint, Measurement
from unperturbed.report import claims_rows, tables
from unperturbed.report.claim_views import contrasts_view, explanation, named_in
from unperturbed.report.costs import cost_rows, stage_rows
from unperturbed.report.verdicts import answer, contrast_rows
from unperturbed.statistics import decide


def of(rows, **wanted):
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def values(content, **wanted):
    found = [m for m in content.measurements if all(getattr(m, name) == value for name, value in wanted.items())]
    return [m.value for m in sorted(found, key=lambda m: m.seed)]


def test_curves_are_summarised_over_seeds_raw_and_relative_to_each_seeds_own_start(content):
    content = with_curves(
        content,
        {0: [(0.0, 0.8), (0.1, 0.4)], 1: [(0.0, 0.5), (0.1, 0.5)], 2: [(0.1, 0.3), (0.0, 0.6)]},
    )
    start, later = tables.curve_rows(content)
    assert [start["eps"], later["eps"]] == [0.0, 0.1]
    assert later["accuracy_mean"] == pytest.approx(0.4)
    assert later["accuracy_sd"] == pytest.approx(0.1)  # n - 1
    assert (later["accuracy_lowest"], later["accuracy_highest"]) == (0.3, 0.5)
    assert later["relative_mean"] == pytest.approx((0.5 + 1.0 + 0.5) / 3)
    assert start["relative_mean"] == 1
    assert (later["n"], later["images"]) == (3, 500)


def test_a_network_that_classifies_nothing_has_no_relative_curve(content):
    content = with_curves(content, {0: [(0.0, 0.0), (0.1, 0.1)]})
    assert [row["relative_mean"] for row in tables.curve_rows(content)] == [None, None]
    assert [row["accuracy_mean"] for row in tables.curve_rows(content)] == [0.0, 0.1]


def with_curves(content, by_seed):
    points = [
        CurvePoint("lenet", "digits", seed, 20, "fgsm", eps, accuracy, 500)
        for seed, curve in by_seed.items()
        for eps, accuracy in curve
    ]
    return replace(content, curves=points)


def test_robustness_has_mean_sd_n_and_clean_accuracy_of_every_cell_and_epoch(content):
    rows = tables.robustness_rows(content)
    assert len(rows) == 2 * 8 * 3  # architectures x conditions x epochs
    (row,) = of(rows, architecture="lenet", condition="digits", epoch=20)
    ours = values(content, architecture="lenet", condition="digits", epoch=20, attack="fgsm", measure="R")
    assert row["n"] == len(ours) == 5
    assert row["mean"] == pytest.approx(np.mean(ours), rel=1e-12)
    assert row["sd"] == pytest.approx(np.std(ours, ddof=1), rel=1e-12)
    clean = [
        p.accuracy
        for p in content.curves
        if (p.architecture, p.condition, p.epoch, p.attack, p.eps) == ("lenet", "digits", 20, "fgsm", 0.0)
    ]
    assert row["clean"] == pytest.approx(np.mean(clean), rel=1e-12)
    assert row["images"] == 500
    assert [r["condition"] for r in rows if r["architecture"] == "lenet" and r["epoch"] == 1] == list(
        content.study.conditions
    )


def test_means_more_than_two_published_standard_deviations_away_are_flagged(content):
    rows = tables.robustness_rows(content)
    beside = [row for row in rows if row["published_mean"] is not None]
    assert {(row["condition"], row["epoch"]) for row in beside} == {
        (condition, epoch)
        for condition in ("digits", "objects", "fusion-digit", "fusion-object", "digits-then-objects")
        for epoch in (1, 20)
    }
    for row in beside:
        assert row["deviation"] == pytest.approx((row["mean"] - row["published_mean"]) / 0.02, rel=1e-12)
        assert row["far"] == (abs(row["deviation"]) > 2)
    assert {row["far"] for row in beside} == {True, False}
    assert not any(row["far"] for row in rows if row["published_mean"] is None)
    assert of(rows, architecture="lenet", condition="fusion-digit", epoch=1)[0]["published_table"] == "3"


def test_published_values_stand_beside_comparable_studies_only(sparse, content):
    study = content.study.model_copy(update={"comparable": False})
    rows = tables.robustness_rows(replace(content, study=study))
    assert not any(row["published_mean"] is not None or row["far"] for row in rows)
    assert any(row["published_left"] is not None for row in contrast_rows(content))
    assert all(row["published_left"] is None for row in contrast_rows(sparse))


def test_a_condition_that_was_not_run_keeps_its_rows_without_numbers(sparse):
    rows = of(tables.robustness_rows(sparse), architecture="lenet", condition="objects")
    assert [row["epoch"] for row in rows] == [1, 5, 20]
    for row in rows:
        assert (row["mean"], row["sd"], row["clean"], row["n"]) == (None, None, None, 0)


def test_one_seed_has_a_mean_and_no_standard_deviation(sparse):
    (row,) = of(tables.robustness_rows(sparse), architecture="lenet", condition="digits", epoch=20)
    assert (row["n"], row["sd"]) == (1, None)
    expected = values(sparse, architecture="lenet", condition="digits", epoch=20, attack="fgsm", measure="R")
    assert [row["mean"]] == expected


def test_attacks_stand_side_by_side_at_the_last_epoch_with_norm_and_reach(content):
    rows = of(tables.attack_rows(content), architecture="lenet", condition="digits")
    assert [row["attack"] for row in rows] == ["fgsm", "pgd-linf", "pgd-l2", "uniform-noise", "gaussian-noise"]
    assert [row["norm"] for row in rows] == ["linf", "linf", "l2", "linf", "linf"]
    assert [row["largest_eps"] for row in rows] == [0.3, 0.3, 4.0, 0.3, 0.3]
    assert {row["epoch"] for row in rows} == {20}
    for row in rows:
        ours = values(content, architecture="lenet", condition="digits", epoch=20, attack=row["attack"], measure="R")
        assert row["mean"] == pytest.approx(np.mean(ours), rel=1e-12)


def test_controls_are_marked_and_stand_beside_the_others_seed_by_seed(content):
    rows = tables.seed_rows(content)
    assert len(rows) == 2 * 8 * 5
    assert {row["condition"] for row in rows if row["control"]} == {"digits-half-contrast", "fusion-digit-0.25"}
    cell = of(rows, architecture="lenet", condition="digits-half-contrast")
    assert [row["seed"] for row in cell] == [0, 1, 2, 3, 4]
    assert [row["value"] for row in cell] == values(
        content, architecture="lenet", condition="digits-half-contrast", epoch=20, attack="fgsm", measure="R"
    )


def test_measures_come_in_the_order_of_the_tables_with_unit_and_direction(content):
    rows = of(tables.measure_rows(content), architecture="lenet", condition="objects", attack="fgsm")
    assert [row["measure"] for row in rows] == ["R", "R_minimum", "f0"]
    assert [row["unit"] for row in rows] == ["", "", "fraction"]
    assert {row["better"] for row in rows} == {"higher"}
    plain, minimum, _ = rows
    assert minimum["mean"] < plain["mean"]  # FGSM rebounds on objects


def test_a_measure_without_an_attack_and_one_not_listed_are_kept(content):
    extra = [
        Measurement("lenet", "digits", 0, 20, "", "training_loss", 0.25, "nats", "lower", 1000),
        Measurement("lenet", "digits", 0, 20, "fgsm", "new", 3.0, "", "", 1000),
    ]
    rows = of(tables.measure_rows(replace(content, measurements=content.measurements + extra)), condition="digits")
    rows = of(rows, architecture="lenet")
    assert (rows[0]["measure"], rows[0]["attack"], rows[0]["mean"], rows[0]["sd"]) == ("training_loss", "", 0.25, None)
    assert [row["measure"] for row in rows if row["attack"] == "fgsm"][-1] == "new"


def test_an_undefined_value_is_none_and_not_nan(content):
    spoiled = [
        m._replace(value=math.nan) if m.seed == 3 and m.condition == "digits" else m for m in content.measurements
    ]
    rows = of(tables.robustness_rows(replace(content, measurements=spoiled)), condition="digits")
    assert [row["mean"] for row in rows] == [None] * 6
    assert not any(isinstance(value, float) and math.isnan(value) for row in rows for value in row.values())


def test_costs_are_summed_by_architecture_and_kind(content):
    rows = cost_rows(content)
    assert [row["kind"] for row in of(rows, architecture="lenet")] == [
        "training", "fgsm", "pgd-linf", "pgd-l2", "uniform-noise", "gaussian-noise",
    ]  # fmt: skip
    (training,) = of(rows, architecture="lenet", kind="training")
    assert training == {
        "architecture": "lenet",
        "kind": "training",
        "stages": 8 * 5 * 3,
        "seconds": 180.0,
        "forwards": 12000,
        "backwards": 12000,
        "device": "cpu",
    }
    assert len(stage_rows(content)) == len(content.costs)


def test_claims_repeat_what_was_decided(content):
    rows = claims_rows(content)
    for row, claim in zip(rows, content.decisions.claims, strict=True):
        assert (row["id"], row["verdict"], row["effect"], row["p_adjusted"]) == (
            claim.id, claim.verdict, claim.effect, claim.p_adjusted,
        )  # fmt: skip
        assert row["effect"] == pytest.approx(row["left"] - row["right"], abs=1e-12)
        assert (row["low"], row["high"]) == claim.interval
    assert {row["verdict"] for row in rows} == {"supported", "undecided", "contradicted"}
    assert rows[0]["contrast"] == "fully-connected digits vs objects at epoch 20"


def test_contrasts_have_the_published_means_of_the_same_cells_beside_them(content):
    rows = of(contrast_rows(content), claim="K1", left_architecture="lenet", left_epoch=20)
    assert [(row["published_left"], row["published_right"]) for row in rows] == [(0.52, 0.0972)]
    assert (rows[0]["left_condition"], rows[0]["right_condition"]) == ("digits", "objects")
    assert rows[0]["expected"] == rows[0]["detected"] == "greater"


def test_a_claim_of_no_difference_shows_its_margin_and_no_other_claim_does(content):
    rows = {row["id"]: row for row in claims_rows(content)}
    assert {name: row["margin"] for name, row in rows.items() if row["margin"] is not None} == {"K8": 0.02}
    assert explanation(rows["K8"], content)[-1] == "no difference: none beyond 0.02"
    assert "beyond" not in " ".join(explanation(rows["K1"], content))
    assert {row["margin"] for row in of(contrast_rows(content), claim="K8")} == {0.02}
    assert {row["margin"] for row in of(contrast_rows(content), claim="K1")} == {None}
    cells = [line.cells for line in contrasts_view(content).rows if len(line.cells) > 1]
    assert {cell[1].below for cell in cells if cell[1].text == "no difference"} == {("beyond 0.02",)}
    assert {cell[1].below for cell in cells if cell[1].text != "no difference"} == {()}


def test_the_answer_is_computed_from_the_data(content, sparse):
    verdicts, contrast, catch = answer(content)
    assert verdicts.startswith("Of 5 claims, 2 are supported, 1 is contradicted and 2 are undecided")
    left, right = (
        np.mean(values(content, architecture="lenet", condition=c, epoch=20, attack="fgsm", measure="R"))
        for c in ("digits", "objects")
    )
    assert "lenet digits vs objects at epoch 20" in contrast
    assert f"{left:.4f} ±" in contrast
    assert f"a difference of +{left - right:.4f} (95% interval [" in contrast
    under_pgd = np.mean(
        values(content, architecture="lenet", condition="digits", epoch=20, attack="pgd-linf", measure="R")
    )
    assert f"{under_pgd:.4f} and" in catch
    assert "(the same order)" in catch
    assert "compare directions" not in catch
    assert answer(sparse)[0].startswith("Of 5 claims, 0 are supported, 0 are contradicted and 5 are undecided")
    assert "compare directions" in answer(sparse)[2]


def test_the_answer_names_the_attacks_that_turn_the_order_around(content):
    turned = [
        m._replace(value=1 - m.value) if (m.attack, m.measure) == ("pgd-linf", "R") else m for m in content.measurements
    ]
    assert "(the order is reversed under pgd-linf)" in answer(replace(content, measurements=turned))[2]
    alone = [m for m in content.measurements if m.attack == "fgsm"]
    assert "attacked with fgsm only" in answer(replace(content, measurements=alone))[2]


def test_a_claim_about_another_attack_says_so_and_is_not_the_main_contrast(content):
    claims = content.study.claims
    first = claims[0].model_copy(update={"id": "X1", "attack": "pgd-linf"})
    study = content.study.model_copy(update={"claims": (first, *claims)})
    changed = replace(content, study=study, decisions=decide(study, content.measurements))
    assert [(row["id"], row["attack"]) for row in claims_rows(changed)][:2] == [("X1", "pgd-linf"), ("K1", "fgsm")]
    assert "contrasts of K1 point" in answer(changed)[1]
    assert claims_rows(changed)[0]["left"] < claims_rows(changed)[1]["left"]


def test_every_quantity_has_a_name_for_readers():
    assert set(QUANTITIES) <= set(tables.NAMES)
    assert len(set(tables.NAMES.values())) == len(tables.NAMES)


@pytest.mark.parametrize(
    ("contrast", "named"),
    [("net a vs c at epoch 1", True), ("net a vs d at epoch 1", False), ("net b vs c at epoch 1", False),
     ("net a vs c at epoch 2", False), ("", True)],
)  # fmt: skip
def test_a_contrast_that_a_reason_names_with_others_is_not_said_twice(contrast, named):
    assert named_in("net a vs b and c at epoch 1: expected greater, found less", contrast) is named


def test_clean_accuracy_is_that_of_the_curve_or_else_what_an_examination_measured(small):
    known = tables.clean_accuracy(small)
    (first, *_) = known
    examined = [Measurement(*first[:2], seed, first[2], "gain", "f0", value, "fraction", "higher", 30) for seed, value in ((0, 0.5), (1, 0.7))]  # fmt: skip
    again = Measurement(*first[:2], 0, first[2], first[3], "f0", 0.0, "fraction", "higher", 30)
    found = tables.clean_accuracy(replace(small, measurements=[*small.measurements, *examined, again]))
    added = found.pop((*first[:3], "gain"))
    assert found == known  # a curve is not counted twice
    assert (added["mean"], added["n"], added["images"]) == (pytest.approx(0.6), 2, 30)
