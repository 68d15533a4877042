"""A report of a study whose claims are associations over all networks, and contrasts with a sweep."""

import csv
import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from unperturbed import report
from unperturbed.records import Association, Cell, Claim, Contrast, Measurement, Spec, Sweep, Variable
from unperturbed.report import drawing, figures, tables
from unperturbed.report.associations import association_figures, network_rows
from unperturbed.report.claim_views import associations_view, claims_view
from unperturbed.report.numbers import MISSING, probability
from unperturbed.report.page import render
from unperturbed.report.verdicts import answer, association_rows, called, claims_rows, contrast_rows, sentence
from unperturbed.report.views import Text
from unperturbed.statistics import Slope, decide

ALPHA = Variable(measure="spectrum_alpha", attack="certificates")  # by an examination of the study
ACCURACY = Variable(measure="A_8_255", attack="pgd-eot")
CLEAN = Variable(measure="f0", attack="pgd-eot")
SWEEP = Sweep(conditions=("half-adversarial", "noise-fixed", "label-smoothing"), match=CLEAN)


def asked(**more):
    return Association(**({"x": ALPHA, "y": ACCURACY, "expect": "greater"} | more))


def with_claims(content, *claims, sweeps=None, measurements=None):
    study = content.study.model_copy(update={"claims": claims, "sweeps": sweeps or {}})
    rows = content.measurements if measurements is None else measurements
    return replace(content, study=study, measurements=rows, decisions=decide(study, rows))


@pytest.fixture(scope="module")
def geometry(defences):
    """The defences with an exponent per network that goes with their accuracy, and three claims about it."""
    rng = np.random.default_rng(0)
    alphas = [
        Measurement(*row[:4], ALPHA.attack, ALPHA.measure, 1 + row.value + 0.2 * rng.normal(), "", "", 100)
        for row in defences.measurements
        if (row.attack, row.measure) == (ACCURACY.attack, ACCURACY.measure)
    ]
    cells = [Cell(architecture="lenet", condition=name) for name in ("winner-take-all", "weight-decay")]
    matched = Contrast(left=cells[0], right=cells[1], expect="greater")
    return with_claims(
        defences,
        Claim(id="SP7", says="A steeper spectrum goes with robustness", associations=(asked(),)),
        Claim(id="SP8", says="Also at equal clean accuracy", associations=(asked(control=CLEAN), asked(x=CLEAN, expect="less", primary=False))),
        Claim(id="KH8", says="It is ahead at equal clean accuracy", attack="pgd-eot", measure="A_8_255", contrasts=(matched,)),
        sweeps={"weight-decay": SWEEP},
        measurements=[*defences.measurements, *alphas],
    )  # fmt: skip


def drawn(content):
    return {figure.name: figure for figure in figures.draw(content)}


def specification(figure):
    return json.loads(figure.specification())


def test_associations_are_rows_with_all_their_numbers(geometry):
    rows = association_rows(geometry)
    assert [(row["claim"], row["primary"], row["x"], row["held"]) for row in rows] == [
        ("SP7", True, "spectrum_alpha[certificates]", None),
        ("SP8", True, "spectrum_alpha[certificates]", "f0[pgd-eot]"),
        ("SP8", False, "f0[pgd-eot]", None),
    ]
    for row, found in zip(rows, geometry.decisions.relations, strict=True):
        assert (row["rho"], row["low"], row["high"], row["p"]) == (found.rho, *found.interval, found.p)
        assert (row["networks"], row["conditions"]) == (36, 12)
        assert (row["pearson"], row["p_pearson"]) == found.pearson
        mixed = found.mixed
        assert (row["slope"], row["slope_low"], row["slope_high"], row["p_slope"]) == (
            mixed.slope,
            *mixed.interval,
            mixed.p,
        )
    assert (rows[0]["expected"], rows[0]["detected"], rows[0]["outcome"]) == ("above 0", "above 0", "supported")
    assert rows[2]["expected"] == "below 0"


def test_a_model_that_is_not_estimable_is_said_and_pearson_stands_beside(geometry):
    first, second, _ = geometry.decisions.relations
    claims = geometry.decisions.claims
    gone = replace(claims[0], relations=(replace(first, mixed=Slope()),))
    content = replace(geometry, decisions=replace(geometry.decisions, claims=(gone, *claims[1:])))
    empty = association_rows(content)[0]
    assert [empty[name] for name in ("slope", "slope_low", "slope_high", "p_slope")] == [None] * 4
    assert empty["pearson"] == first.pearson.r
    lines = [line.cells for line in associations_view(content).rows]
    assert lines[0][-2] == Text("not estimable")
    low, high = second.mixed.interval
    assert lines[1][-2] == Text(
        f"{second.mixed.slope:+.2f}", below=(f"[{low:.2f}, {high:.2f}]", probability(second.mixed.p))
    )
    assert lines[1][-1] == Text(f"{second.pearson.r:+.2f}", below=(probability(second.pearson.p),))


def test_two_correlations_that_are_compared_are_said_as_a_difference(geometry):
    claim = Claim(id="E4", says="More so of the exponent", associations=(asked(rival=CLEAN),))
    content = with_claims(geometry, claim, measurements=geometry.measurements)
    (found,) = content.decisions.relations
    (row,) = association_rows(content)
    assert (row["rival"], row["rho"], row["p"], row["slope"]) == (str(CLEAN), found.rho, None, None)
    (line,) = associations_view(content).rows
    assert line.cells[-2] == Text(MISSING)
    (figure,) = association_figures(content)
    assert f", less that of {called(content, CLEAN)} and the same, is +1.2" in figure.caption
    first = network_rows(content)[0]
    assert (first["rival_measure"], first["rival"], first["held"]) == (str(CLEAN), found.points[0].values[2], None)


def test_subjects_are_counted_beside_conditions(geometry):
    assert {(row["subjects"], row["resampled"]) for row in association_rows(geometry)} == {(None, "conditions")}
    assert {row["subject"] for row in network_rows(geometry)} == {None}
    first = geometry.decisions.relations[0]
    for people, words, resampled in (
        (4, "4 subjects, resampled", "conditions and subjects"),
        (2, "2 subjects", "conditions"),
    ):
        points = tuple(point._replace(subject=f"subject {n % people}") for n, point in enumerate(first.points))
        claim = replace(geometry.decisions.claims[0], relations=(replace(first, points=points),))
        content = replace(geometry, decisions=replace(geometry.decisions, claims=(claim,)))
        (row,) = association_rows(content)
        assert (row["subjects"], row["resampled"]) == (people, resampled)
        assert row["association"].endswith(f"over 36 networks of 12 conditions and {people} subjects at epoch 15")
        (line,) = associations_view(content).rows
        assert line.cells[4] == Text("36", below=("of 12", words))
        assert {row["subject"] for row in network_rows(content)} == {f"subject {n}" for n in range(people)}


def test_networks_are_rows_with_what_was_related(geometry):
    rows = network_rows(geometry)
    assert len(rows) == 3 * 36
    measured = {(m.condition, m.seed, m.measure, m.attack): m.value for m in geometry.measurements}
    for row in rows[36:72]:
        place = row["condition"], row["seed"]
        assert row["x"] == measured[*place, ALPHA.measure, ALPHA.attack]
        assert row["y"] == measured[*place, ACCURACY.measure, ACCURACY.attack]
        assert row["held"] == measured[*place, CLEAN.measure, CLEAN.attack]
    assert {row["held"] for row in rows[:36]} == {None}
    assert (rows[0]["x_measure"], rows[0]["held_measure"], rows[36]["held_measure"]) == (str(ALPHA), None, str(CLEAN))


def test_claims_about_associations_have_a_correlation_and_no_sides(geometry):
    plain, partial, matched = claims_rows(geometry)
    assert (plain["effect"], plain["n"]) == (geometry.decisions.relations[0].rho, 36)
    assert partial["effect"] == geometry.decisions.relations[1].rho
    assert plain["contrast"].startswith(
        "spectrum_alpha[certificates] with A_8_255[pgd-eot] over 36 networks of 12 cond"
    )
    nothing = ("attack", "measure", "left_attack", "right_attack", "left", "right", "p_adjusted", "published_left")
    assert {plain[name] for name in nothing} == {None}
    assert (matched["attack"], matched["measure"]) == ("pgd-eot", "A_8_255")
    assert matched["contrast"] == geometry.decisions.rows[0].words
    assert "vs weight-decay matched in f0[pgd-eot] (2 of 3 seeds) at epoch 15" in matched["contrast"]


def test_a_claim_about_an_association_shows_neither_sides_nor_an_attack(geometry):
    plain, _, matched = (line.cells for line in claims_view(geometry).rows)
    assert plain[6] == Text("\N{EN DASH}")
    assert plain[1].below == (geometry.decisions.relations[0].words,)
    assert matched[6].text.startswith("0.")
    assert matched[6].below[0].startswith("vs 0.")


def test_associations_have_no_part_in_what_most_claims_are_about(geometry):
    assert tables.main_pair(geometry) == ("pgd-eot", "A_8_255")
    only = with_claims(geometry, *geometry.study.claims[:2])
    assert tables.main_pair(only) is None


def test_a_sentence_has_the_correlation_its_interval_and_both_counts(geometry):
    plain, partial, _ = geometry.decisions.relations
    assert sentence(geometry, plain) == (
        "Over 36 networks of 12 conditions, Spearman's \N{GREEK SMALL LETTER RHO} of exponent of the spectrum by certificates and "
        f"accuracy at 8/255 under pgd-eot is +{plain.rho:.2f} (95% interval [{plain.interval.low:.2f}, "
        f"{plain.interval.high:.2f}], p = {probability(plain.p)} by exchanging conditions): they rise together."
    )
    assert "under pgd-eot, with f(ε₀) under pgd-eot held constant, is +" in sentence(geometry, partial)
    for low, high, words in ((-0.5, -0.1, "one falls as the other rises."), (-0.1, 0.5, "no direction is shown.")):
        interval = plain.interval._replace(low=low, high=high)
        assert sentence(geometry, replace(plain, interval=interval)).endswith(words)
    assert "p = " not in sentence(geometry, replace(plain, p=float("nan")))


def test_the_answer_of_a_study_of_associations_is_one(geometry):
    only = with_claims(geometry, *geometry.study.claims[:2])
    tally, main, catch = answer(only)
    assert tally.startswith("Of 2 claims, ")
    assert main == sentence(only, only.decisions.relations[0])
    assert catch.startswith("The catch: what goes with robustness over conditions need not be its cause; recipe,")
    secondary = with_claims(geometry, Claim(id="S", says="", associations=(asked(primary=False),)))
    assert answer(secondary)[1] == "No contrast that would decide a claim has been measured yet."
    assert answer(secondary)[2].startswith("The catch: nothing can be said")


def test_the_answer_of_a_matched_contrast_says_what_stands_on_its_right(geometry):
    _, main, catch = answer(geometry)
    row = geometry.decisions.rows[0]
    assert f"The main contrast is {row.words}: accuracy at 8/255 under pgd-eot is {row.left.mean:.4f}" in main
    assert catch.startswith(
        "The catch: weight-decay stands for what its networks reach at equal f0[pgd-eot], interpolated between two of "
        "them; 2 of 3 seeds have a match; recipe,"
    )
    (contrast,) = contrast_rows(geometry)
    assert (contrast["right_condition"], contrast["published_right"]) == ("weight-decay", None)


def test_each_set_of_points_is_one_figure_drawn_from_the_table(geometry):
    found = drawn(geometry)
    names = [name for name in found if name.startswith("association")]
    assert names == [figure.name for figure in association_figures(geometry)] == ["association-1", "association-2"]
    first, second = (found[name] for name in names)
    rows = network_rows(geometry)
    shown = specification(first)["data"]["values"]
    assert [(row["condition"], row["x"], row["y"]) for row in shown] == [
        (row["condition"], pytest.approx(row["x"], abs=1e-6), pytest.approx(row["y"], abs=1e-6)) for row in rows[:36]
    ]
    assert first.title == "Networks by exponent of the spectrum by certificates and accuracy at 8/255 under pgd-eot"
    # the plain and the partial association are of the same points
    assert first.caption == "One point per network. " + " ".join(
        f"{relation.claim}: {sentence(geometry, relation)}" for relation in geometry.decisions.relations[:2]
    )
    assert [row["x"] for row in specification(second)["data"]["values"]] != [row["x"] for row in shown]
    assert first.tables == ("networks",)
    encoding = specification(first)["encoding"]
    assert encoding["x"]["title"] == "exponent of the spectrum by certificates (no unit)"
    assert encoding["y"]["title"] == "accuracy at 8/255 under pgd-eot (fraction of the images)"
    assert set(encoding["shape"]["scale"]["range"]) == {"circle"}
    colours, elsewhere = (
        dict(zip(*(scale[part] for part in ("domain", "range")), strict=True))
        for scale in (
            encoding["color"]["scale"],
            specification(found["conditions"])["spec"]["layer"][0]["encoding"]["color"]["scale"],
        )
    )
    assert set(colours) == {row["condition"] for row in rows} > set(elsewhere)
    assert {name: colours[name] for name in elsewhere} == elsewhere
    root = ET.fromstring(drawing.svg(first))
    assert "exponent of the spectrum by certificates (no unit)" in "".join(root.itertext())


def test_architectures_have_shapes_where_there_are_several(make_defences):
    content = make_defences(architectures=("lenet", "resnet"))
    asked_of = (asked(x=CLEAN, architecture=architecture) for architecture in (None, "lenet", "resnet"))
    two = with_claims(content, Claim(id="A", says="", associations=tuple(asked_of)))
    both, *each = map(specification, association_figures(two))
    assert both["encoding"]["shape"]["field"] == "architecture"
    assert both["encoding"]["shape"]["scale"] == {"domain": ["lenet", "resnet"], "range": ["circle", "square"]}
    assert [figure["encoding"]["shape"]["field"] for figure in each] == ["condition", "condition"]
    assert each[0]["data"]["values"] + each[1]["data"]["values"] == both["data"]["values"]


def test_conditions_of_one_colour_differ_in_shape(geometry):
    known = geometry.study.conditions
    study = geometry.study.model_copy(update={"conditions": {**known, **{f"other {name}": "" for name in known}}})
    rows = [
        *geometry.measurements,
        *(row._replace(condition=f"other {row.condition}") for row in geometry.measurements),
    ]
    more = with_claims(replace(geometry, study=study), study.claims[0], measurements=rows)
    (figure,) = association_figures(more)
    encoding = specification(figure)["encoding"]
    assert encoding["color"]["scale"]["domain"] == encoding["shape"]["scale"]["domain"]
    looks = list(zip(encoding["color"]["scale"]["range"], encoding["shape"]["scale"]["range"], strict=True))
    assert len(set(looks)) == len(looks) == 24


def lines(path):
    with path.open(encoding="utf-8", newline="") as source:
        return list(csv.DictReader(source))


def test_the_page_shows_associations_and_sweeps(geometry, tmp_path):
    path = report.write(tmp_path, geometry, formats=("html", "svg"))
    text = path.read_text(encoding="utf-8")
    assert text.count('id="figure-association-') == 2
    assert "<h3>Associations</h3>" in text
    for name in ("associations", "networks"):
        assert f'href="tables/{name}.csv"' in text
        assert lines(tmp_path / "tables" / f"{name}.csv")
    assert "half-adversarial, noise-fixed, label-smoothing; matched in f0[pgd-eot]" in text
    assert "n counts networks." in text
    relation = geometry.decisions.relations[0]
    assert f"SP7: {relation.words}" in text
    assert f'<td class="number">+{relation.rho:.4f}<small>[{relation.interval.low:.4f}, ' in text
    assert "None" not in text
    assert (tmp_path / "figures" / "association-2.svg").exists()


def test_a_study_without_them_says_nothing_of_them(defences):
    text = render(defences, [], {}, [])
    assert "ssociation" not in text
    assert "Sweeps" not in text
    assert not [name for name in ("associations", "networks") if report.OPTIONAL[name](defences)]


def test_what_was_not_measured_is_said_and_not_drawn(geometry, defences):
    gone = with_claims(
        geometry, *geometry.study.claims, sweeps=geometry.study.sweeps, measurements=defences.measurements
    )
    rows = claims_rows(gone)
    assert [row["effect"] for row in rows[:2]] == [None, None]
    assert rows[0]["reason"] == "no network has all of spectrum_alpha[certificates], A_8_255[pgd-eot] (epoch: last)"
    assert [figure.name for figure in association_figures(gone)] == ["association-1"]  # of the secondary one
    assert rows[0]["reason"] in render(gone, [], {}, [])


def test_pictures_are_not_chosen_by_what_associations_lack(content):
    from unperturbed.report.gather import pictured

    trials = tuple(
        trial.model_copy(update={"attacks": {
            "pgd-linf": trial.attacks["pgd-linf"],
            "fgsm": trial.attacks["fgsm"].model_copy(update={"attack": Spec(name="pgd")}),
        }})
        for trial in content.study.trials
    )  # fmt: skip
    claims = (
        Claim(id="A", says="", associations=(asked(),)),
        Claim(id="B", says="", associations=(asked(),)),
        content.study.claims[0].model_copy(update={"attack": "pgd-linf"}),
    )
    assert pictured(content.study.model_copy(update={"trials": trials, "claims": claims})) == ["pgd-linf"]
