import math
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from unperturbed import report
from unperturbed.records import CurvePoint, Measurement, PublishedValue
from unperturbed.report import OPTIONAL, tables
from unperturbed.report.content import Survivors
from unperturbed.report.numbers import MISSING, percent
from unperturbed.report.overview import asked, deciding, overview_note, overview_rows, overview_view
from unperturbed.report.verdicts import answer
from unperturbed.statistics import decide, wilson

EIGHT = 8 / 255


def of(rows, **wanted):
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def one(rows, **wanted):
    (row,) = of(rows, **wanted)
    return row


def by_seed(content, condition, label, measure):
    return {
        m.seed: m.value
        for m in content.measurements
        if (m.condition, m.attack, m.measure) == (condition, label, measure)
    }


@pytest.fixture(scope="module")
def rows(defences):
    return overview_rows(defences)


def test_columns_are_attacks_at_8_255_or_their_largest_eps_then_what_examinations_found(defences):
    assert [(c.kind, c.label, c.measure, c.norm) for c in asked(defences)] == [
        ("attack", "pgd-source", "A_8_255", "linf"),
        ("attack", "fgsm", "A_8_255", "linf"),
        ("attack", "pgd", "A_8_255", "linf"),
        ("attack", "pgd-eot", "A_8_255", "linf"),
        ("attack", "carlini-wagner", "A_last", "l2"),
        ("attack", "uniform-noise", "A_8_255", "linf"),
        ("examination", "autoattack", "A_eps", "linf"),
        ("examination", "doubts", "A_eps", "linf"),
        ("examination", "doubts", "audit_verdict", "linf"),
        ("examination", "transfer-2", "A_eps", "linf"),
        ("examination", "sureness", "ece", "linf"),
        ("examination", "timing", "ms_per_image", "linf"),
        ("examination", "certificates", "average_certified_radius", "l2"),  # of later conditions only
    ]
    assert next(c.eps for c in asked(defences) if c.label == "carlini-wagner") == 1.0


def test_every_number_has_mean_sd_t_interval_seeds_and_images(defences, rows):
    row = one(rows, condition="trades", label="pgd-eot")
    values = list(by_seed(defences, "trades", "pgd-eot", "A_8_255").values())
    assert (row["n"], row["images"]) == (3, 60)
    assert row["mean"] == pytest.approx(np.mean(values), rel=1e-12)
    assert row["sd"] == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    interval = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (row["low"], row["high"]) == pytest.approx(interval, rel=1e-12)


def test_an_interval_of_a_fraction_stays_between_0_and_1(rows):
    fractions = of(rows, unit="fraction")
    assert min(row["low"] for row in fractions) == 0
    assert max(row["high"] for row in fractions) <= 1


def surviving(content, condition, seed, images=20):
    """The first images of one network, attack by attack."""
    return {
        found.label: found.images[:images]
        for found in content.survivors
        if (found.condition, found.seed) == (condition, seed)
    }


def survivors(*images, condition="trades", architecture="lenet"):
    """What each label leaves of the images of each seed, as texts of 0 and 1."""
    return tuple(
        Survivors(architecture, condition, label, seed, 15, np.array([mark == "1" for mark in marks]))
        for label, seed, marks in images
    )


def test_the_worst_is_what_survives_every_attack_image_by_image(defences, rows):
    below = False
    for condition in defences.study.conditions:
        networks = [surviving(defences, condition, seed) for seed in (0, 1, 2)]
        left = [np.mean([all(marks) for marks in zip(*own.values(), strict=True)]) for own in networks]
        row = one(rows, condition=condition, kind="worst")
        assert row["mean"] == pytest.approx(np.mean(left), rel=1e-12)
        assert row["sd"] == pytest.approx(np.std(left, ddof=1), rel=1e-12)
        assert (row["images"], row["n"]) == (20, 3)
        minima = [min(images.mean() for images in own.values()) for own in networks]
        assert all(value <= minimum for value, minimum in zip(left, minima, strict=True))
        below |= sum(left) < sum(minima)
    assert below


def test_attacks_that_break_different_images_leave_less_than_the_least_accuracy(defences):
    """By hand: of 8 images the three attacks leave 6, 5 and 6 of seed 0, and 3 in common; of seed 1 6, 4, 4, and 2."""
    found = survivors(
        ("pgd", 0, "11111100"), ("fgsm", 0, "0011111011"), ("autoattack", 0, "11101111"),
        ("pgd", 1, "11111100"), ("fgsm", 1, "0011011010"), ("autoattack", 1, "11110000"),
    )  # fmt: skip
    row = one(overview_rows(replace(defences, survivors=found)), condition="trades", kind="worst")
    assert (row["mean"], row["images"], row["n"]) == ((3 / 8 + 2 / 8) / 2, 8, 2)
    assert (row["worst"], row["worst_seeds"]) == (2 / 8, 1)
    assert row["decided_by"] == "fgsm, autoattack"  # the fewest of a network: fgsm of both, autoattack as few of one


def test_what_only_some_seeds_have_is_no_part_of_the_worst(defences):
    found = survivors(
        ("pgd", 0, "1111"), ("fgsm", 0, "0111"), ("autoattack", 0, "00"), ("pgd", 1, "1111"), ("fgsm", 1, "0011"),
    )  # fmt: skip
    row = one(overview_rows(replace(defences, survivors=found)), condition="trades", kind="worst")
    assert (row["mean"], row["images"], row["decided_by"]) == ((3 / 4 + 2 / 4) / 2, 4, "fgsm")


def test_a_network_of_which_no_images_are_known_has_no_worst(defences):
    rows = overview_rows(replace(defences, survivors=survivors(("pgd", 0, "1111"), condition="regular")))
    row = one(rows, condition="trades", kind="worst")
    assert (row["mean"], row["n"], row["images"], row["decided_by"]) == (None, 0, None, "")
    assert one(rows, condition="regular", kind="worst")["mean"] == 1.0
    view = overview_view(rows, seeds=3)
    (line,) = [line for line in view.rows if line.cells[0].text == "trades"]
    assert line.cells[2].text == MISSING


def test_what_is_published_at_the_largest_radius_has_a_column_beside_that_at_eight(defences):
    value = PublishedValue(
        table="1", architecture="lenet", condition="regular", epoch=30, measure="A_last", attack="fgsm", mean=0.1
    )
    study = defences.study.model_copy(update={"published": (value,)})
    last = [m._replace(measure="A_last") for m in defences.measurements if (m.attack, m.measure) == ("fgsm", "A_8_255")]
    rows = overview_rows(replace(defences, study=study, measurements=defences.measurements + last))
    row = one(rows, condition="regular", label="fgsm", measure="A_last")
    assert row["published_mean"] == 0.1
    assert one(rows, condition="regular", label="fgsm", measure="A_8_255")["published_mean"] is None


def test_other_norms_and_radii_decide_nothing_about_the_worst(defences):
    labels = ["pgd-source", "fgsm", "pgd", "pgd-eot", "uniform-noise", "autoattack", "doubts"]
    assert [column.label for column in deciding(defences)] == labels
    other = survivors(("carlini-wagner", 0, "0000"), ("transfer-2", 0, "0000"), ("pgd", 0, "1111"), ("fgsm", 0, "1111"))
    row = one(overview_rows(replace(defences, survivors=other)), condition="trades", kind="worst")
    assert (row["mean"], row["decided_by"]) == (1.0, "pgd, fgsm")


def changed(content, label, **settings):
    """The study with other settings of an examination or attack, its function too."""

    def of(trial):
        plans = {}
        for field, spec in (("attacks", "attack"), ("examinations", "examination")):
            own = dict(getattr(trial, field))
            if label in own:
                was = getattr(own[label], spec)
                name = settings.get("name", was.name)
                more = {key: value for key, value in settings.items() if key != "name"}
                own[label] = own[label].model_copy(
                    update={spec: was.model_copy(update={"name": name, "settings": {**was.settings, **more}})}
                )
            plans[field] = own
        return trial.model_copy(update=plans)

    return replace(content, study=content.study.model_copy(update={"trials": tuple(map(of, content.study.trials))}))


def test_a_protocol_in_another_norm_decides_nothing_about_the_worst(defences):
    assert "autoattack" not in [column.label for column in deciding(changed(defences, "autoattack", norm="l2"))]


def test_noise_that_leaves_the_ball_decides_nothing_about_the_worst(defences):
    gaussian = changed(defences, "uniform-noise", name="gaussian_noise")
    assert "uniform-noise" not in [column.label for column in deciding(gaussian)]
    assert "uniform-noise" in [column.label for column in asked(gaussian)]


@pytest.mark.parametrize(("label", "expected"), [("pgd-eot", "pgd-eot"), ("sureness", "pgd-source")])
def test_clean_accuracy_is_of_the_attack_with_the_most_images(defences, rows, label, expected):
    """An examination may decide otherwise about a random network, and its images do not count."""
    assert {row["label"] for row in of(rows, kind="clean")} == {"pgd-source"}
    more = [m._replace(n=1000) if m.attack == label else m for m in defences.measurements]
    assert {row["label"] for row in of(overview_rows(replace(defences, measurements=more)), kind="clean")} == {expected}


def test_a_verdict_is_that_of_the_worst_seed(defences, rows):
    assert [one(rows, condition=c, measure="audit_verdict")["worst"] for c in ("regular", "trades")] == [2, 1]
    view = overview_view(rows, seeds=3)
    column = [c.below[0] for c in view.columns[1:]].index("verdict") + 1
    words = {line.cells[0].text: line.cells[column] for line in view.rows if not line.kind}
    assert (words["regular"].text, words["regular"].badge, words["regular"].below) == (
        "illusory", "illusory", ("2 of 3 seeds",),
    )  # fmt: skip
    assert (words["trades"].text, words["trades"].below) == ("suspect", ("1 of 3 seeds",))


def test_published_values_stand_below_ours_whether_or_not_they_are_comparable(rows, make_defences):
    assert {
        (row["condition"], row["kind"], row["label"]): (row["published_mean"], row["published_sd"])
        for row in rows
        if row["published_mean"] is not None
    } == {
        ("regular", "clean", "pgd-source"): (0.941, None),
        ("regular", "attack", "pgd-eot"): (0.0, None),
        ("pgd-training", "attack", "pgd"): (0.362, None),
        ("pgd-training", "attack", "pgd-eot"): (0.351, None),
        ("trades", "examination", "autoattack"): (0.3, 0.01),
    }
    view = overview_view(rows, seeds=3)
    cells = {text for line in view.rows for cell in line.cells for text in cell.below}
    assert {"published 94.1%", "published 0.0%", "published 36.2%", "published 30.0%"} <= cells
    assert "the two are not comparable" in overview_note(make_defences(), rows)
    assert "not comparable" not in overview_note(make_defences(comparable=True), rows)


def test_the_published_value_of_the_same_epoch_comes_first_and_else_the_last_one(defences):
    def value(epoch, mean):
        return PublishedValue(table="9", architecture="lenet", condition="trades", epoch=epoch, measure="A_8_255",
                              attack="pgd", mean=mean)  # fmt: skip

    for printed, expected in (
        ([value(10, 0.1), value(15, 0.2), value(200, 0.3)], 0.2),
        ([value(10, 0.1), value(200, 0.3)], 0.3),
    ):
        study = defences.study.model_copy(update={"published": tuple(printed)})
        row = one(overview_rows(replace(defences, study=study)), condition="trades", label="pgd")
        assert row["published_mean"] == expected


def test_what_was_not_measured_is_missing_and_fewer_seeds_are_said(defences):
    kept = [
        m
        for m in defences.measurements
        if (m.condition, m.attack) != ("trades", "fgsm") and (m.condition, m.attack, m.seed) != ("trades", "pgd", 2)
    ]
    rows = overview_rows(replace(defences, measurements=kept))
    row = one(rows, condition="trades", label="fgsm")
    assert (row["mean"], row["sd"], row["low"], row["n"], row["images"]) == (None, None, None, 0, None)
    view = overview_view(rows, seeds=3)
    (line,) = [line for line in view.rows if line.cells[0].text == "trades"]
    cells = dict(zip((column.title for column in view.columns), line.cells, strict=True))
    assert cells["fgsm"].text == MISSING
    assert "n = 2" in cells["pgd"].below


def test_a_value_that_is_not_defined_leaves_no_mean(defences):
    spoiled = [m._replace(value=math.nan) if m.attack == "fgsm" and m.seed == 1 else m for m in defences.measurements]
    rows = overview_rows(replace(defences, measurements=spoiled))
    assert {row["mean"] for row in of(rows, label="fgsm", measure="A_8_255")} == {None}
    assert not any(isinstance(value, float) and math.isnan(value) for row in rows for value in row.values())


def test_an_accuracy_of_one_seed_has_an_interval_over_its_images_and_nothing_else_has_one(make_defences):
    content = make_defences(seeds=1)
    rows = overview_rows(content)
    assert {row["sd"] for row in rows} == {None}
    accuracies = [
        row for row in rows if row["mean"] is not None and row["measure"] in ("f0", "A_8_255", "A_last", "A_eps")
    ]
    assert {row["kind"] for row in accuracies} == {"clean", "attack", "examination", "worst"}
    for row in accuracies:
        assert (row["low"], row["high"]) == wilson(row["mean"], row["images"])
    others = [row for row in rows if row not in accuracies]
    assert {row["measure"] for row in others} >= {"ece", "ms_per_image"}
    assert {(row["low"], row["high"]) for row in others} == {(None, None)}
    row = one(rows, condition="trades", label="pgd")
    (line,) = [line for line in overview_view(rows, seeds=1).rows if line.cells[0].text == "trades"]
    texts = [text for cell in line.cells for text in cell.below]
    assert f"[{percent(row['low'])}, {percent(row['high'])}]" in texts
    assert not [text for text in texts if text.startswith("±")]
    said = "Where one seed has an accuracy, the interval is over its images (Wilson)"
    assert said in overview_note(content, rows)
    both = make_defences(seeds=2)
    assert said not in overview_note(both, overview_rows(both))


def test_architectures_are_group_lines_over_their_conditions(make_defences):
    view = overview_view(overview_rows(make_defences(architectures=("lenet", "resnet"))), seeds=3)
    groups = [(number, line.cells[0].text) for number, line in enumerate(view.rows) if line.kind == "group"]
    assert groups == [(0, "lenet"), (13, "resnet")]
    assert len(view.rows) == 2 * (1 + 12)
    assert {len(line.cells) for line in view.rows if not line.kind} == {len(view.columns)}


def test_headings_name_radius_norm_and_images(rows):
    heads = {(column.title, column.below) for column in overview_view(rows, seeds=3).columns}
    assert {
        ("condition", ()),
        ("clean", ("100 images",)),
        ("worst", ("all at 8/255, image by image", "20 images")),
        ("pgd-eot", ("ε = 8/255", "60 images")),
        ("carlini-wagner", ("ε = 1, l2", "100 images")),
        ("transfer-2", ("ε = 2/255", "100 images")),
        ("timing", ("ms per image and pass",)),
    } <= heads


def test_a_study_about_r_alone_has_no_overview_however_many_attacks_it_has(content, tmp_path):
    eight = [
        Measurement(*m[:4], m.attack, "A_8_255", m.value, "fraction", "higher", 500)
        for m in content.measurements
        if m.measure == "f0"
    ]
    assert overview_rows(replace(content, measurements=content.measurements + eight)) == []
    assert deciding(replace(content, measurements=content.measurements + eight)) == []
    report.write(tmp_path, content, formats=())
    assert not [name for name in OPTIONAL if (tmp_path / "tables" / f"{name}.csv").exists()]


def test_few_attacks_need_no_overview(defences):
    few = {"pgd", "fgsm", "autoattack"}
    kept = [m for m in defences.measurements if m.attack in few]
    assert overview_rows(replace(defences, measurements=kept)) == []
    more = [m for m in defences.measurements if m.attack in few | {"timing"}]
    assert overview_rows(replace(defences, measurements=more))


def test_the_overview_is_on_the_page_and_beside_it(defences, rows, tmp_path):
    page = report.write(tmp_path, defences, formats=("html",))
    text = " ".join(re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8")).split())
    assert "What is left" in text
    row = one(rows, condition="trades", kind="worst")
    ends = f"[{100 * row['low']:.1f}%, {100 * row['high']:.1f}%]"
    assert f"{100 * row['mean']:.1f}% ± {100 * row['sd']:.1f}% {ends} by {row['decided_by'].split(', ')[0]}" in text
    assert "0.26 ± 0.01" in text  # ms per image
    assert "published 36.2%" in text
    lines = (tmp_path / "tables" / "overview.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(rows)


def test_captions_tell_examinations_from_attacks(defences, tmp_path):
    text = report.write(tmp_path, defences, formats=("html",)).read_text(encoding="utf-8")
    captions = [re.sub(r"<[^>]+>", "", found) for found in re.findall(r"<caption>(.*?)</caption>", text)]
    assert "Under pgd" in captions
    assert "Examination: sureness (calibration)" in captions
    assert "Examination: autoattack" in captions
    assert "Under sureness" not in text
    assert "Under every attack and in every examination" in text
    assert "through a copy with temperature=0.67" in text


def test_attacks_are_apart_from_examinations(defences):
    attacks = ["pgd-eot", "pgd-source", "fgsm", "pgd", "carlini-wagner", "uniform-noise"]
    assert tables.attacks(defences) == attacks
    examinations = ["autoattack", "doubts", "transfer-2", "sureness", "timing", "certificates"]
    assert tables.labels(defences) == attacks + examinations
    assert {row["attack"] for row in tables.attack_rows(defences)} == set(attacks)
    assert {row["attack"] for row in tables.curve_rows(defences)} == {*attacks, *examinations} - {"sureness", "timing"}
    point = CurvePoint("lenet", "trades", 0, 15, "unplanned", 0.0, 0.5, 100)
    assert "unplanned" in tables.attacks(replace(defences, curves=[*defences.curves, point]))


def test_the_main_attack_is_no_examination_unless_claims_are_about_nothing_else(defences):
    claims = tuple(
        claim.model_copy(update={"attack": "autoattack", "measure": "A_eps"}) for claim in defences.study.claims
    )
    mixed = defences.study.model_copy(update={"claims": (*claims, defences.study.claims[2])})
    assert (tables.main_attack(replace(defences, study=mixed)), tables.main_measure(replace(defences, study=mixed))) == (
        "pgd", "A_8_255",
    )  # fmt: skip
    alone = replace(defences, study=defences.study.model_copy(update={"claims": claims}))
    assert (tables.main_attack(alone), tables.main_measure(alone)) == ("autoattack", "A_eps")
    assert report.OPTIONAL["overview"](alone)


def test_the_main_attack_is_one_that_was_measured(defences):
    """As at a scale that leaves out what most claims are about."""
    first, *_ = defences.study.claims
    claims = [
        first.model_copy(update={"id": name, "attack": "left-out"}) for name in ("one", "two", "three", "four", "five")
    ]
    study = defences.study.model_copy(update={"claims": (*claims, first)})
    content = replace(defences, study=study, decisions=decide(study, defences.measurements))
    assert (tables.main_attack(content), tables.main_measure(content)) == (first.attack, first.measure)
    assert "The main contrast is" in answer(content)[1]


@pytest.mark.parametrize("measure", ["R", "A_8_255"])
def test_what_is_relative_to_clean_accuracy_is_said_to_be(content, defences, measure):
    catch = answer(content if measure == "R" else defences)[2]
    assert ("is not relative to that" in catch) == (measure == "A_8_255")


def test_the_note_says_how_random_networks_are_judged(defences, rows):
    assert "draws decides" not in overview_note(defences, rows)
    assert "image by image, then the mean over seeds; over the first test images" in overview_note(defences, rows)
    assert "its AutoAttack is no part of it" not in overview_note(defences, rows)
    first, *others = defences.study.trials
    random = first.model_copy(
        update={"attacks": {label: plan.model_copy(update={"votes": 9}) for label, plan in first.attacks.items()}}
    )
    study = defences.study.model_copy(update={"trials": (random, *others)})
    note = overview_note(replace(defences, study=study), rows)
    assert "Of a random network the majority of 9 draws decides" in note
    assert "its AutoAttack is no part of it" in note
