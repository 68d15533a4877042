import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from unperturbed.report import drawing, figures, tables


@pytest.fixture(scope="module")
def drawn(content):
    return {figure.name: figure for figure in figures.draw(content)}


def data(figure):
    return json.loads(figure.specification())["data"]["values"]


def titles(node, key="title"):
    if isinstance(node, dict):
        found = [node[key]] if isinstance(node.get(key), str) else []
        return found + [title for value in node.values() for title in titles(value, key)]
    return [title for value in node for title in titles(value, key)] if isinstance(node, list) else []


def test_every_figure_is_drawn_from_the_tables_it_names(drawn):
    assert list(drawn) == [
        "conditions", "robustness", "curves-normalised", "curves-raw", "attacks", "attack-curves", "controls",
    ]  # fmt: skip
    assert {table for figure in drawn.values() for table in figure.tables} == {
        "curves", "robustness", "attacks", "seeds",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "of"), [("curves-normalised", "relative"), ("curves-raw", "accuracy")])
def test_curves_show_the_means_and_the_range_of_the_table(content, drawn, name, of):
    wanted = [row for row in tables.curve_rows(content) if row["attack"] == "fgsm" and not row["control"]]
    shown = data(drawn[name])
    assert len(shown) == len(wanted) == 2 * 6 * 3 * 9
    for row, drawn_row in zip(wanted, shown, strict=True):
        for column in (f"{of}_mean", f"{of}_lowest", f"{of}_highest"):
            assert drawn_row[column] == pytest.approx(row[column], abs=5e-7)


def test_chance_is_drawn_once_per_panel_and_relative_to_the_last_start(content, drawn):
    raw = [row["chance"] for row in data(drawn["curves-raw"]) if row["chance"] is not None]
    assert raw == [0.1] * 12
    last = {
        (row["architecture"], row["condition"]): row["clean"]
        for row in tables.robustness_rows(content)
        if row["epoch"] == 20
    }
    relative = [row for row in data(drawn["curves-normalised"]) if row["chance"] is not None]
    assert len(relative) == 12
    for row in relative:
        assert row["chance"] == pytest.approx(0.1 / last[row["architecture"], row["condition"]], abs=1e-6)
    unknown = replace(content, study=content.study.model_copy(update={"classes": {}}))
    figure = next(f for f in figures.draw(unknown) if f.name == "curves-raw")
    assert {row["chance"] for row in data(figure)} == {None}


def test_robustness_has_bars_of_one_standard_deviation_and_published_means(content, drawn):
    shown = {(row["architecture"], row["condition"], row["epoch"]): row for row in data(drawn["robustness"])}
    wanted = [row for row in tables.robustness_rows(content) if not row["control"]]
    assert len(shown) == len(wanted)
    for row in wanted:
        point = shown[row["architecture"], row["condition"], row["epoch"]]
        assert point["high"] - point["mean"] == pytest.approx(row["sd"], abs=2e-6)
        assert point["mean"] - point["low"] == pytest.approx(row["sd"], abs=2e-6)
        assert point["published_mean"] == row["published_mean"]


def test_attack_curves_have_the_attacks_whose_eps_has_the_same_unit(drawn):
    assert {row["attack"] for row in data(drawn["attack-curves"])} == {
        "fgsm", "pgd-linf", "uniform-noise", "gaussian-noise",
    }  # fmt: skip
    assert "pgd-l2, ε in [0, 4]" in {row["label"] for row in data(drawn["attacks"])}


def test_every_axis_of_a_number_has_a_title_with_a_unit(drawn):
    for figure in drawn.values():
        axes = [
            encoding[channel]
            for encoding in encodings(json.loads(figure.specification()))
            for channel in ("x", "y")
            if encoding.get(channel, {}).get("type") == "quantitative"
        ]
        said = {axis["title"] for axis in axes if "title" in axis}
        assert said, figure.name
        for title in said:
            assert title in ("accuracy", "f(ε) / f(ε₀)", "epochs of training (logarithmic)") or "(" in title
        if "accuracy" in said:
            assert "%" in {axis.get("axis", {}).get("format") for axis in axes}


def encodings(node):
    if isinstance(node, dict):
        own = [node["encoding"]] if "encoding" in node else []
        return own + [found for value in node.values() for found in encodings(value)]
    return [found for value in node for found in encodings(value)] if isinstance(node, list) else []


def test_captions_say_how_many_seeds_and_what_the_bands_are(drawn):
    for figure in drawn.values():
        assert "n = 5 seeds" in figure.caption
    assert "from the smallest to the largest" in drawn["curves-raw"].caption
    assert "± 1 SD" in drawn["robustness"].caption


def test_what_was_not_measured_is_not_drawn(sparse, content):
    names = [figure.name for figure in figures.draw(sparse)]
    assert "objects" not in {row["condition"] for row in data(next(iter(figures.draw(sparse))))}
    assert "controls" in names
    published = [c for c in content.study.conditions if c not in content.study.controls]
    without = replace(
        content,
        curves=[p for p in content.curves if p.attack == "fgsm" and p.condition in published],
        measurements=[m for m in content.measurements if m.condition in published],
    )
    names = [figure.name for figure in figures.draw(without)]
    assert "controls" not in names
    assert "attack-curves" not in names
    assert figures.draw(replace(content, curves=[], measurements=[])) == []


def test_a_drawing_is_well_formed_and_escapes_its_texts(small):
    evil = "<script>alert(1)</script>&"
    curves = [p._replace(condition=evil) if p.condition == "digits" else p for p in small.curves]
    figure = figures.draw(replace(small, curves=curves))[0]
    text = drawing.svg(figure)
    root = ET.fromstring(text)
    assert not [node for node in root.iter() if node.tag.endswith("script")]
    assert evil in "".join(root.itertext())


def test_a_drawing_is_the_same_text_every_time(small):
    first, second = ([drawing.svg(figure) for figure in figures.draw(small)] for _ in range(2))
    assert first == second


def test_drawings_become_files_of_each_kind(drawn):
    text = drawing.svg(drawn["controls"])
    assert drawing.converted(text, "svg").decode() == text
    assert drawing.converted(text, "png").startswith(b"\x89PNG")
    assert drawing.converted(text, "pdf").startswith(b"%PDF")


def test_a_condition_and_an_attack_have_one_colour_in_every_figure(sparse, drawn):
    def colours(figures_by_name):
        found = {}
        for figure in figures_by_name.values():
            for encoding in encodings(json.loads(figure.specification())):
                scale = encoding.get("color", {}).get("scale")
                if scale and encoding["color"]["field"] in ("condition", "attack", "label"):
                    for name, colour in zip(scale["domain"], scale["range"], strict=True):
                        found.setdefault(name.split(",")[0], set()).add(colour)
        return found

    whole, part = colours(drawn), colours({figure.name: figure for figure in figures.draw(sparse)})
    assert set(part) == set(whole) - {"objects"}
    assert all(whole[name] == part[name] and len(part[name]) == 1 for name in part)


def test_a_cell_that_was_not_run_keeps_its_place(content):
    gone = ("lenet", "objects")
    partial = replace(
        content, curves=[point for point in content.curves if (point.architecture, point.condition) != gone]
    )
    for name in ("curves-normalised", "curves-raw", "attack-curves"):
        shown = data(next(figure for figure in figures.draw(partial) if figure.name == name))
        cells = {(row["architecture"], row["condition"]) for row in shown}
        architectures, conditions = ({cell[side] for cell in cells} for side in (0, 1))
        assert len(cells) == len(architectures) * len(conditions), "Vega-Lite misplaces the panels after a missing one"
        assert gone in cells
        assert {row["eps"] for row in shown if (row["architecture"], row["condition"]) == gone} == {None}
