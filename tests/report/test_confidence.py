import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from unperturbed import report
from unperturbed.report import drawing, figures
from unperturbed.report.confidence import calibration_error, confidence_rows, counted, reliability_rows
from unperturbed.report.content import Bin, Confidence
from unperturbed.report.overview import overview_rows


@pytest.fixture(scope="module")
def drawn(defences):
    return {figure.name: figure for figure in figures.draw(defences)}


def data(figure):
    return json.loads(figure.specification())["data"]["values"]


def test_all_class_probabilities_are_counted_and_those_of_correctly_classified_images_apart():
    probabilities = np.array([[0.97, 0.02, 0.01], [0.36, 0.33, 0.31], [0.0, 0.0, 1.0]], dtype=np.float32)
    every, correct, _ = counted(probabilities, np.array([0, 1, 2]))
    assert (len(every), sum(every)) == (20, 9)
    assert (every[0], every[6], every[7], every[19]) == (4, 2, 1, 2)  # 0.33 and 0.31 lie in [0.3, 0.35)
    assert (sum(correct), correct[0], correct[19]) == (6, 4, 2)


def test_bins_hold_mean_confidence_accuracy_and_number_of_images():
    probabilities = np.array([[0.98, 0.02], [0.96, 0.04], [0.1, 0.9], [0.6, 0.4], [0.4, 0.6]])
    bins = counted(probabilities, np.array([0, 1, 1, 0, 0]))[2]
    assert len(bins) == 15
    assert bins[14] == (pytest.approx(0.97), 0.5, 2)
    assert bins[13] == (pytest.approx(0.9), 1.0, 1)
    assert bins[8] == (pytest.approx(0.6), 0.5, 2)  # an edge, 9/15, belongs to the bin below it
    assert {found for number, found in enumerate(bins) if number not in (8, 13, 14)} == {Bin(None, None, 0)}


def test_the_calibration_error_is_the_mean_distance_of_accuracy_from_confidence():
    bins = (Bin(None, None, 0), Bin(0.5, 0.75, 4), Bin(0.9, 0.8, 16))
    assert calibration_error(bins) == pytest.approx((4 * 0.25 + 16 * 0.1) / 20)
    assert calibration_error((Bin(None, None, 0),)) is None


def test_probabilities_a_rounding_error_beyond_1_are_counted():
    every, _, bins = counted(np.array([[1.0000001, 0.0]], dtype=np.float32), np.array([0]))
    assert (every[0], every[19], bins[14].images) == (1, 1, 1)


def test_nothing_is_correct_where_nothing_is(defences):
    wrong = counted(np.array([[0.9, 0.1]]), np.array([1]))
    network = Confidence("lenet", "regular", "sureness", 0, 15, *wrong)
    rows = confidence_rows(replace(defences, confidences=(network,)))
    assert {row["share"] for row in rows if row["images"] == "correctly classified"} == {None}
    assert figures.draw(replace(defences, confidences=(network,)))


def test_tables_have_a_row_per_network_and_interval(defences):
    histograms, reliability = confidence_rows(defences), reliability_rows(defences)
    assert len(histograms) == 12 * 2 * 20
    assert len(reliability) == 12 * 15
    for condition in defences.study.conditions:
        for images in ("all images", "correctly classified"):
            own = [row for row in histograms if (row["condition"], row["images"]) == (condition, images)]
            assert sum(row["share"] for row in own) == pytest.approx(1)
            assert [row["high"] for row in own[:-1]] == [row["low"] for row in own[1:]]
    assert {row["label"] for row in reliability} == {"sureness"}


def test_drawings_show_the_tables(defences, drawn):
    shown = data(drawn["confidence"])
    assert [row["share"] for row in shown] == [pytest.approx(r["share"], abs=1e-6) for r in confidence_rows(defences)]
    points = [row for row in data(drawn["reliability"]) if row["accuracy"] is not None]
    wanted = [row for row in reliability_rows(defences) if row["accuracy"] is not None]
    for point, row in zip(points, wanted, strict=True):
        assert (point["confidence"], point["accuracy"], point["count"]) == (
            pytest.approx(row["confidence"], abs=1e-6), pytest.approx(row["accuracy"], abs=1e-6), row["count"],
        )  # fmt: skip


def test_each_panel_has_one_diagonal_and_one_calibration_error(defences, drawn):
    errors = [row["text"] for row in data(drawn["reliability"]) if row["text"]]
    assert errors == [f"ECE {100 * calibration_error(found.bins):.1f}%" for found in defences.confidences]
    assert sum(row["to"] == 1 for row in data(drawn["reliability"])) == 12


@pytest.mark.parametrize("architectures", [("lenet",), ("lenet", "resnet")])
def test_drawings_name_every_condition_and_are_well_formed(make_defences, architectures):
    content = make_defences(architectures=architectures)
    for figure in figures.draw(content):
        if figure.name in ("confidence", "reliability"):
            text = " ".join(ET.fromstring(drawing.svg(figure)).itertext())
            assert all(condition in text for condition in content.study.conditions)
            assert all(architecture in text for architecture in architectures if len(architectures) > 1)
            assert "seed 0" in figure.caption


def test_without_the_examination_there_is_no_figure_and_no_table(defences, content, tmp_path):
    without = replace(defences, confidences=())
    assert not {"confidence", "reliability"} & {figure.name for figure in figures.draw(without)}
    assert not {"confidence", "reliability"} & {figure.name for figure in figures.draw(content)}
    report.write(tmp_path, without, formats=())
    assert (tmp_path / "tables" / "overview.csv").exists()
    assert not (tmp_path / "tables" / "reliability.csv").exists()


def test_certificates_have_a_figure_of_their_own_and_short_curves_have_none(defences, drawn):
    figure = drawn["examination-certificates"]
    assert figure.title == "Certified accuracy"
    assert {row["condition"] for row in data(figure)} == {"noise-augmentation", "noise-injection"}
    assert {row["eps"] for row in data(figure)} == {0.0, 0.125, 0.25, 0.5}
    assert "ε (l2, full scale = 1)" in figure.specification()
    assert [name for name in drawn if name.startswith("examination-")] == ["examination-certificates"]
    assert {row["attack"] for row in data(drawn["attack-curves"])} == {
        "pgd-eot", "pgd-source", "fgsm", "pgd", "uniform-noise",
    }  # fmt: skip


def test_curves_reach_as_far_as_the_main_attack(drawn):
    assert max(row["eps"] for row in data(drawn["attack-curves"])) == pytest.approx(16 / 255, abs=1e-6)


def test_one_epoch_is_no_course_and_accuracies_have_their_unit(drawn):
    assert "robustness" not in drawn
    assert drawn["attacks"].title == "Accuracy at 8/255 under each attack"
    assert {row["label"] for row in data(drawn["attacks"])} == {"pgd-eot", "pgd-source", "fgsm", "pgd", "uniform-noise"}
    assert "accuracy at 8/255 (fraction of the images)" in drawn["attacks"].specification()


def test_every_figure_of_the_page_names_a_table_that_is_written(defences, drawn, tmp_path):
    report.write(tmp_path, defences, formats=())
    for figure in drawn.values():
        for table in figure.tables:
            assert (tmp_path / "tables" / f"{table}.csv").stat().st_size > 0
    assert len((tmp_path / "tables" / "overview.csv").read_text().splitlines()) == 1 + len(overview_rows(defences))
