"""Maps over channels and times, scalps and courses of similarity: their tables, and the figures drawn of them."""

import csv
import dataclasses
import json
import sys
import warnings

import numpy as np
import pytest

from unperturbed import report
from unperturbed.data.recordings.things_eeg2 import CHANNELS, OCCIPITAL, PARIETO_OCCIPITAL
from unperturbed.examinations import eeg_prediction as examination
from unperturbed.records import Cell, Claim, Contrast, ExaminationPlan, Measurement, Spec
from unperturbed.report import drawing, eeg, figures
from unperturbed.report.content import Drawn
from unperturbed.report.measure_views import measures_view
from unperturbed.report.numbers import MISSING, decimals, interval
from unperturbed.report.scalp import POSITIONS
from unperturbed.report.similarity import similarity_figures, similarity_rows
from unperturbed.report.verdicts import answer
from unperturbed.statistics import cluster_bootstrap, correlation_map, decide, group_difference, spearman

TIMES = np.arange(-10, 50) / 100
CONTROLS = ("shuffled", "white", "phase-randomised", "gaussian")  # named as their responses are
CONDITIONS = dict.fromkeys(("real", "real-rnn", *CONTROLS), "")
SEEDS = 3
AT_100 = 20
GAIN = "robustness_gain"


def plan(name):
    return ExaminationPlan(examination=Spec(name=name), images=10)


def trained_on(condition):
    responses = condition if condition in CONTROLS else "real"
    return Spec(name="eeg-cotraining", settings={"responses": responses})


PLANS = {
    "eeg": plan("eeg-prediction"),
    "gain": plan("robustness-gain"),
    "gain-linf": plan("robustness-gain"),
    "cortex": plan("representational-similarity"),
    "course": plan("representational-similarity"),
}


@pytest.fixture(scope="module")
def predicted(small):
    """Six conditions of three seeds; the gain is that of the parieto-occipital r at 100 ms, and of two conditions in Linf."""
    rng = np.random.default_rng(0)
    rows = [CHANNELS.index(channel) for channel in PARIETO_OCCIPITAL]
    trial = small.study.trials[0].model_copy(update={"examinations": PLANS, "architecture": "network"})
    trials = tuple(
        trial.model_copy(update={"condition": name, "mechanisms": (trained_on(name),)}) for name in CONDITIONS
    )
    changed = {"conditions": CONDITIONS, "controls": CONTROLS, "trials": trials, "claims": (), "published": ()}
    study = small.study.model_copy(update=changed)
    found, measured = [], []
    for number, condition in enumerate(CONDITIONS):
        for seed in range(SEEDS):
            gain = number + 0.1 * rng.normal()
            r = 0.1 * rng.normal(size=(len(CHANNELS), len(TIMES)))
            r[rows, AT_100] = gain / 10
            arrays = {
                "r": r, "lower_ceiling": np.full_like(r, 0.5), "upper_ceiling": np.full_like(r, 0.75),
                "channels": np.array(CHANNELS), "times": TIMES,
            }  # fmt: skip
            found.append(Drawn("network", condition, "eeg", eeg.PREDICTION, seed, 20, arrays))
            for label in ("gain", "gain-linf") if number < 2 else ("gain",):
                place = "network", condition, seed, 20, label
                measured.append(Measurement(*place, "robustness_gain", gain, "", "higher", 10))
                measured.append(Measurement(*place, "f0", rng.random(), "fraction", "higher", 10))
            it = {"human": 0.1 * number, "monkey": 0.2, "ceiling_lower": 0.37, "ceiling_upper": 0.67}
            for name, value in it.items() if number < 3 else ():
                measured.append(
                    Measurement("network", condition, seed, 20, "cortex", f"similarity_it_{name}", value, "", "", 92)
                )
    curve = 0.5 * np.exp(-(((TIMES - 0.1) / 0.03) ** 2))
    course = {"r": curve, "p": curve * 0, "p_largest": np.where(curve > 0.2, 0.01, 0.9), "times": TIMES}
    course |= {"lower_ceiling": curve + 0.1, "upper_ceiling": curve + 0.3}
    drawn = (
        Drawn("network", "real", "course", "representational-similarity", 0, 20, course),
        Drawn("network", "white", "course", "representational-similarity", 0, 20, {"dissimilarities": curve}),
    )
    return dataclasses.replace(
        small, study=study, measurements=measured, curves=[], costs=[], pictures=(), drawn=drawn,
        decisions=decide(study, measured), predictions=tuple(found), maps=eeg.gain_maps(study, measured, found),
    )  # fmt: skip


def values_of(figure):
    return json.loads(figure.specification())


def test_groups_and_moment_are_those_of_the_examination():
    assert (eeg.OCCIPITAL, eeg.PARIETO_OCCIPITAL) == (OCCIPITAL, PARIETO_OCCIPITAL)
    assert eeg.PUBLISHED == sys.modules[examination.__module__].PUBLISHED


def test_the_mean_over_networks_is_a_row_for_each_channel_and_time(predicted):
    rows = eeg.prediction_rows(predicted)
    assert len(rows) == len(CONDITIONS) * len(CHANNELS) * len(TIMES)
    own = [found.arrays["r"] for found in predicted.predictions if found.condition == "white"]
    row = next(r for r in rows if (r["condition"], r["channel"], r["time"]) == ("white", "P7", 0.3))
    assert row["r"] == pytest.approx(np.mean([r[CHANNELS.index("P7"), 40] for r in own]), abs=1e-15)
    assert (row["n"], row["epoch"], row["control"]) == (SEEDS, 20, True)
    assert (row["lower_ceiling"], row["upper_ceiling"]) == (0.5, 0.75)


def test_maps_are_of_all_networks_and_of_those_of_unrelated_eeg_alone(predicted):
    whole, controls = predicted.maps  # none in Linf: two conditions
    assert [(m.gain, m.over, m.networks, m.conditions) for m in predicted.maps] == [
        ("gain", "all networks", 18, 6),
        ("gain", "unrelated EEG", 12, 4),
    ]
    gains = [m.value for m in predicted.measurements if (m.attack, m.measure) == ("gain", "robustness_gain")]
    by_name = sorted(range(18), key=lambda place: predicted.predictions[place].condition)  # as associations have them
    for found, some in ((whole, by_name), (controls, [place for place in by_name if place >= 6])):
        r = np.stack([predicted.predictions[place].arrays["r"] for place in some])
        y = [gains[place] for place in some]
        clusters = [("network", predicted.predictions[place].condition) for place in some]
        expected = correlation_map(r, y, clusters)
        np.testing.assert_allclose(found.rho, expected.rho, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.p, expected.p, rtol=0, atol=1e-12)
        groups = [r[:, np.isin(CHANNELS, group), AT_100] for group in (PARIETO_OCCIPITAL, OCCIPITAL)]
        together = r[:, :, AT_100].mean(axis=1)
        assert found.mean == pytest.approx(spearman(together, y), abs=1e-12)
        assert tuple(found.interval) == pytest.approx(
            tuple(cluster_bootstrap(together, y, clusters, seed=0)), abs=1e-12
        )
        assert found.groups.first == pytest.approx(1.0, abs=1e-12)
        expected = group_difference(*groups, y, clusters)
        assert found.groups.difference == pytest.approx(expected.difference, abs=1e-12)
        assert tuple(found.groups.interval) == pytest.approx(tuple(expected.interval), abs=1e-12)
        assert found.groups.interval.low > 0
    assert np.isin(np.argwhere(whole.p == whole.p.min())[:, 1], AT_100).all()
    assert whole.p.min() == pytest.approx(1 / 720)  # no other order has a correlation of 1
    assert controls.p.min() == pytest.approx(1 / 24)


def test_subjects_that_cross_conditions_are_resampled_in_maps_too(predicted):
    """Two groups of three people, each in every other condition."""
    trials = tuple(
        trial.model_copy(
            update={"seeds": (0, 1, 2), "subjects": tuple(f"{'ab'[number % 2]}{seed}" for seed in range(3))}
        )
        for number, trial in enumerate(predicted.study.trials)
    )
    study = predicted.study.model_copy(update={"trials": trials})
    whole, _ = eeg.gain_maps(study, predicted.measurements, predicted.predictions)
    subject = {(trial.condition, seed): trial.subjects[seed] for trial in trials for seed in trial.seeds}
    found = sorted(predicted.predictions, key=lambda each: (each.condition, each.seed))
    gains = {(m.condition, m.seed): m.value for m in predicted.measurements if m.attack == "gain"
             and m.measure == "robustness_gain"}  # fmt: skip
    y = [gains[each.condition, each.seed] for each in found]
    r = np.stack([each.arrays["r"] for each in found])
    clusters, people = [each.condition for each in found], [subject[each.condition, each.seed] for each in found]
    together = r[:, :, AT_100].mean(axis=1)
    expected = cluster_bootstrap(together, y, clusters, crossed=people, seed=0)
    assert tuple(whole.interval) == pytest.approx(tuple(expected), abs=1e-12)
    assert tuple(whole.interval) != pytest.approx(tuple(predicted.maps[0].interval), abs=1e-3)
    groups = [r[:, np.isin(CHANNELS, group), AT_100] for group in (PARIETO_OCCIPITAL, OCCIPITAL)]
    expected = group_difference(*groups, y, clusters, crossed=people).interval
    assert tuple(whole.groups.interval) == pytest.approx(tuple(expected), abs=1e-12)


def test_conditions_that_differ_in_their_seeds_have_a_map_without_p(predicted):
    moved = [
        dataclasses.replace(found, seed=7) if (found.condition, found.seed) == ("white", 2) else found
        for found in predicted.predictions
    ]
    measured = [m._replace(seed=7) if (m.condition, m.seed) == ("white", 2) else m for m in predicted.measurements]
    (whole, _), (expected, _) = eeg.gain_maps(predicted.study, measured, moved), predicted.maps
    assert np.isnan(whole.p).all()
    np.testing.assert_allclose(whole.rho, expected.rho, rtol=0, atol=1e-12)
    content = dataclasses.replace(predicted, maps=(whole,))
    assert "no p, since conditions differ in their seeds" in eeg.in_words(content.maps)
    assert {row["p"] for row in eeg.gain_map_rows(content)} == {None}


@pytest.mark.parametrize("change", ["few conditions", "other times", "no gain", "class told"])
def test_there_is_no_map_of_what_cannot_be_compared(predicted, change):
    study, measured, found = predicted.study, predicted.measurements, list(predicted.predictions)
    if change == "few conditions":
        found = [each for each in found if each.condition in ("real", "white", "gaussian")]
    if change == "other times":
        found[0] = dataclasses.replace(found[0], arrays=found[0].arrays | {"times": TIMES + 0.1})
    if change == "no gain":
        measured = [m._replace(value=np.nan) for m in measured]
    if change == "class told":  # a control, and yet its responses say something of the images
        (told,) = (trial for trial in study.trials if trial.condition == "white")
        others = tuple(trial for trial in study.trials if trial != told)
        told = told.model_copy(
            update={"mechanisms": (Spec(name="eeg-cotraining", settings={"responses": "shuffled-within-class"}),)}
        )
        study = study.model_copy(update={"trials": (*others, told)})
    maps = eeg.gain_maps(study, measured, found)
    assert [m.over for m in maps] == {"other times": ["unrelated EEG"], "class told": ["all networks"]}.get(change, [])


def test_other_electrodes_have_maps_and_no_groups(predicted):
    names = np.array([f"E{number}" for number in range(len(CHANNELS))])
    found = [dataclasses.replace(each, arrays=each.arrays | {"channels": names}) for each in predicted.predictions]
    maps = eeg.gain_maps(predicted.study, predicted.measurements, found)
    assert [each.groups for each in maps] == [None, None]
    content = dataclasses.replace(predicted, predictions=tuple(found), maps=maps)
    assert {row["difference"] for row in eeg.channel_group_rows(content)} == {None}
    assert [figure.name for figure in eeg.eeg_figures(content)] == ["eeg-channels", "gain-maps"]  # no scalp


def test_the_difference_of_channels_is_a_row_for_each_map(predicted):
    rows = eeg.channel_group_rows(predicted)
    assert [(row["gain"], row["over"], row["conditions"]) for row in rows] == [
        ("gain", "all networks", 6),
        ("gain", "unrelated EEG", 4),
    ]
    assert [rows[0][name] for name in ("rho", "rho_low", "rho_high")] == [
        predicted.maps[0].mean,
        *predicted.maps[0].interval,
    ]
    groups = predicted.maps[0].groups
    assert [rows[0][name] for name in ("parieto_occipital", "occipital", "difference", "low", "high")] == [
        groups.first, groups.second, groups.difference, *groups.interval
    ]  # fmt: skip


def test_maps_are_drawn_with_what_survives_outlined(predicted):
    drawn = {figure.name: figure for figure in eeg.eeg_figures(predicted)}
    assert list(drawn) == ["eeg-channels", "eeg-scalp", "gain-maps", "gain-scalp"]
    shown = values_of(drawn["gain-maps"])["data"]["values"]
    assert {row["panel"] for row in shown} == {"gain, all networks", "gain, unrelated EEG"}
    assert len({row["from"] for row in shown}) == 30  # every second time
    surviving = {(row["panel"], row["channel"], row["from"]) for row in shown if row["surviving"]}
    expected = {
        (f"gain, {found.over}", CHANNELS[c], round(1000 * TIMES[t]))
        for found in predicted.maps
        for c, t in np.argwhere(found.p <= 0.05)
        if t % 2 == 0
    }
    assert surviving == expected
    assert {channel for _, channel, _ in surviving} == set(PARIETO_OCCIPITAL)
    value = next(
        r["value"] for r in shown if (r["panel"], r["channel"], r["from"]) == ("gain, unrelated EEG", "Oz", 300)
    )
    assert value == pytest.approx(predicted.maps[1].rho[CHANNELS.index("Oz"), 40], abs=5e-4)
    whole = predicted.maps[0]
    count = (whole.p <= 0.05).sum()
    assert (
        f"gain, all networks (18 networks of 6 conditions): {count} of {whole.p.size} places"
        in drawn["gain-maps"].caption
    )
    assert f"{whole.groups.difference:+.2f} [" in drawn["gain-maps"].caption


def test_predictions_are_drawn_beside_both_ceilings_without_controls(predicted):
    found = {figure.name: figure for figure in eeg.eeg_figures(predicted)}
    description = values_of(found["eeg-channels"])
    shown = description["data"]["values"]
    assert description["facet"]["sort"] == ["lower noise ceiling", "upper noise ceiling", "real", "real-rnn"]
    assert {row["panel"] for row in shown} == set(description["facet"]["sort"])
    assert {row["value"] for row in shown if row["panel"] == "upper noise ceiling"} == {0.75}
    for figure in found.values():
        assert drawing.svg(figure).startswith("<svg")
        assert len(drawing.svg(figure)) < 800_000  # of a page that opens at once


def test_scalps_have_discs_where_the_electrodes_are(predicted):
    found = {figure.name: figure for figure in eeg.eeg_figures(predicted)}
    description = values_of(found["gain-scalp"])
    shown = description["data"]["values"]
    assert description["facet"]["column"]["sort"] == ["50 ms", "100 ms", "150 ms", "200 ms", "300 ms"]
    assert len(shown) == 2 * 5 * len(CHANNELS)
    assert {(row["channel"], (row["right"], row["front"])) for row in shown} == set(POSITIONS.items())
    rims = {(row["time"], row["channel"]) for row in shown if row["surviving"] and row["panel"] == "gain, all networks"}
    assert rims == {("100 ms", channel) for channel in PARIETO_OCCIPITAL}


def test_positions_are_those_of_mne():
    mne = pytest.importorskip("mne")
    assert set(POSITIONS) == set(CHANNELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MNE 1.13 renames the montage to colin27_1020
        name = next(name for name in ("standard_1020", "colin27_1020") if name in mne.channels.get_builtin_montages())
        places = mne.channels.make_standard_montage(name).get_positions()["ch_pos"]
    points = np.array(list(places.values()))
    *twice, _ = np.linalg.lstsq(np.c_[points, np.ones(len(points))], (points**2).sum(axis=1), rcond=None)[0]
    for channel, position in POSITIONS.items():
        x, y, z = places[channel] - np.array(twice) / 2
        polar, azimuth = np.arccos(z / np.linalg.norm([x, y, z])) / (np.pi / 2), np.arctan2(y, x)
        assert position == pytest.approx((polar * np.cos(azimuth), polar * np.sin(azimuth)), abs=6e-4)  # three digits


def test_the_course_of_similarity_is_drawn_between_its_ceilings(predicted):
    rows = similarity_rows(predicted)
    assert [row["condition"] for row in rows] == ["real"] * len(TIMES)  # what is not over time is no row
    assert rows[AT_100]["r"] == pytest.approx(0.5)
    assert (rows[AT_100]["lower_ceiling"], rows[AT_100]["p_largest"]) == (pytest.approx(0.6), 0.01)
    _, figure = similarity_figures(predicted)
    assert (figure.name, figure.tables) == ("similarity-course", ("similarity",))
    description = values_of(figure)
    assert description["layer"][0]["data"]["values"][AT_100]["upper_ceiling"] == pytest.approx(0.8)
    assert description["layer"][1]["data"]["values"][AT_100] == pytest.approx(
        {"architecture": "network", "condition": "real", "time": 100, "r": 0.5, "p": 0.0, "p_largest": 0.01,
         "lower_ceiling": 0.6, "upper_ceiling": 0.8}
    )  # fmt: skip
    assert drawing.svg(figure).startswith("<svg")


def test_both_cortices_are_drawn_for_each_condition_between_the_ceilings(predicted):
    figure, _ = similarity_figures(predicted)
    assert (figure.name, figure.tables) == ("similarity-cortex", ("measures",))
    shown = values_of(figure)["data"]["values"]
    assert [(row["condition"], row["whose"]) for row in shown] == [
        (condition, whose) for condition in ("real", "real-rnn", "shuffled") for whose in ("human", "monkey")
    ]
    assert [row["mean"] for row in shown if row["whose"] == "human"] == pytest.approx([0.0, 0.1, 0.2])
    assert {(row["lower"], row["upper"]) for row in shown} == {(0.37, 0.67)}
    assert drawing.svg(figure).startswith("<svg")


def test_the_page_and_the_tables_have_them_and_those_of_other_studies_do_not(predicted, content, tmp_path):
    path = report.write(tmp_path, predicted, formats=("html",))
    text = path.read_text(encoding="utf-8")
    for name in ("eeg-prediction", "gain-maps", "channel-groups", "similarity"):
        assert f'href="tables/{name}.csv"' in text
        with (tmp_path / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as source:
            assert list(csv.DictReader(source))
        assert not report.OPTIONAL[name](content)
    assert not [figure for figure in figures.draw(content) if "scalp" in figure.name or "map" in figure.name]


def test_the_catch_names_every_examination_that_has_measured_the_gain(predicted):
    sides = [Cell(architecture="network", condition=name) for name in ("real-rnn", "real")]
    contrast = Contrast(left=sides[0], right=sides[1], expect="greater")
    claim = Claim(id="D", says="it gains more", attack="gain", measure="robustness_gain", contrasts=(contrast,))
    study = predicted.study.model_copy(update={"claims": (claim,)})
    content = dataclasses.replace(predicted, study=study, decisions=decide(study, predicted.measurements))
    _, main, catch = answer(content)
    assert main.startswith("The main contrast is network real-rnn vs real")
    left, right = (
        decimals(
            np.mean(
                [
                    m.value
                    for m in predicted.measurements
                    if (m.condition, m.attack, m.measure) == (name, "gain-linf", GAIN)
                ]
            )
        )
        for name in ("real-rnn", "real")
    )
    assert f"the same two cells reach {left} and {right} under gain-linf (the same order); before any" in catch


def test_the_gain_of_each_network_stands_beside_what_resampling_its_images_says(predicted):
    assert eeg.gain_rows(predicted) == []
    assert eeg.gains_view(predicted) is None
    kept = [
        Drawn("network", "real", label, eeg.GAIN, 1, 20, {"interval": np.array(ends), "images": np.arange(7)})
        for label, ends in (("gain", (-0.25, 0.5)), ("gain-linf", (np.nan, np.nan)))
    ]
    content = dataclasses.replace(predicted, gains=tuple(kept))
    value = next(m.value for m in predicted.measurements if m[:5] == ("network", "real", 1, 20, "gain"))
    first, second = eeg.gain_rows(content)
    assert (first["gain"], first["low"], first["high"], first["images"]) == (value, -0.25, 0.5, 7)
    assert (second["low"], second["high"]) == (None, None)  # a censored image: no interval
    (line, other) = eeg.gains_view(content).rows
    assert [cell.text for cell in line.cells][:3] == ["real", "gain", "1"]
    assert [cell.text for cell in line.cells][4:] == [interval(-0.25, 0.5), "7"]
    assert other.cells[4].text == MISSING
    assert measures_view(content).rest[-1] == eeg.gains_view(content)
