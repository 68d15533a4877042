"""Spectra and planes: their tables, and the figures that are drawn of them."""

import dataclasses

import numpy as np
import pytest

from unperturbed.records import Measurement
from unperturbed.report.content import Drawn
from unperturbed.report.drawing import svg
from unperturbed.report.geometry import (
    CELLS,
    areas,
    exponent_rows,
    geometry_figures,
    plane_rows,
    ranks,
    spectrum_rows,
)


def drawn(examination, condition="digits", **arrays):
    return Drawn("lenet", condition, examination, examination, 0, 3, arrays)


@pytest.fixture
def with_geometry(content):
    plane = np.zeros((2, 41, 41), dtype=np.int64)
    plane[0, :, 30:] = 1  # the class changes along the first axis, that of the margin
    kept = (
        drawn("spectrum", eigenvalues=np.array([4.0, 2.0, 1.0, 0.0])),
        drawn("spectrum", condition="objects", alive=np.array([False])),  # a collapsed layer keeps no spectrum
        drawn("boundary", classes=plane, positions=np.linspace(-2, 2, 41)),
    )
    return dataclasses.replace(content, drawn=kept)


def test_eigenvalues_above_zero_are_rows_as_they_are(with_geometry):
    rows = spectrum_rows(with_geometry)
    assert [(row["condition"], row["rank"], row["eigenvalue"]) for row in rows] == [
        ("digits", 1, 4.0),
        ("digits", 2, 2.0),
        ("digits", 3, 1.0),
    ]


def test_many_ranks_are_thinned_evenly_over_the_logarithm():
    chosen = ranks(np.ones(2000))
    assert (chosen[0], chosen[-1]) == (1, 2000)
    assert len(chosen) <= 60
    steps = np.diff(np.log(chosen))
    assert steps[-20:].max() < 1.05 * steps[-20:].min()  # rounded to whole ranks
    assert ranks(np.zeros(3)) == []


def test_the_first_plane_becomes_cells_with_the_names_of_classes(with_geometry):
    rows = plane_rows(with_geometry)
    assert len(rows) == CELLS**2
    names = with_geometry.study.classes["digits"]
    assert {row["class"] for row in rows if row["steepest"] < 1.0} == {names[0]}
    assert {row["class"] for row in rows if row["steepest"] >= 1.0} == {names[1]}


@pytest.fixture
def with_exponents(content):
    """Two networks, one with a fit over ranks 11 to 50 and two others, and one with too few ranks for that."""
    found = (
        drawn(
            "spectrum",
            eigenvalues=np.arange(1, 61.0) ** -2,
            range=np.array([11, 50]),
            white_alpha=np.array(0.4),
            ranges=np.array([[5, 50], [11, 50], [20, 50]]),
            range_alphas=np.array([1.8, 2.0, 2.3]),
        ),
        drawn(
            "spectrum",
            condition="objects",
            eigenvalues=np.ones(9),
            range=np.array([0, 0]),
            ranges=np.array([[5, 9]]),
            range_alphas=np.array([0.7]),
        ),
    )
    measured = Measurement("lenet", "digits", 0, 3, "spectrum", "spectrum_alpha", 2.0, "", "", 100)
    others = [measured._replace(seed=1, value=9.0), measured._replace(attack="spectrum-noise", value=9.0)]
    return dataclasses.replace(content, drawn=found, measurements=[*content.measurements, measured, *others])


def test_exponents_over_all_ranks_stand_beside_that_of_white_data(with_exponents):
    rows = exponent_rows(with_exponents)
    assert [(row["condition"], row["of"], row["first"], row["last"], row["alpha"]) for row in rows] == [
        ("digits", "ranks of the study", 11, 50, 2.0),
        ("digits", "white data", 11, 50, 0.4),
        ("digits", "other ranks", 5, 50, 1.8),
        ("digits", "other ranks", 20, 50, 2.3),
        ("objects", "other ranks", 5, 9, 0.7),
    ]
    figures = {figure.name: figure for figure in geometry_figures(with_exponents)}
    assert list(figures) == ["spectrum-spectrum", "exponents-spectrum"]
    figure = figures["exponents-spectrum"]
    assert figure.tables == ("exponents",)
    assert (
        "over the ranks of the study (11 to 50), and over the other ranks (5 to 9, 5 to 50, 20 to 50)" in figure.caption
    )
    assert {"white data", "digits", "objects"} <= set(svg(figure).replace("<", ">").split(">"))


def test_rectangles_cover_every_cell_of_a_plane_with_its_class(with_geometry):
    random = np.random.default_rng(0)
    cells = [
        {"steepest": float(x), "across": float(y), "class": str(random.integers(2))} for y in range(6) for x in range(6)
    ]
    for plane in (cells, plane_rows(with_geometry)):
        found = areas(plane)
        step = plane[1]["steepest"] - plane[0]["steepest"]
        size = sum((area["right"] - area["left"]) * (area["top"] - area["bottom"]) for area in found)
        assert size == pytest.approx(len(plane) * step**2)
        for cell in plane:
            (own,) = [
                area
                for area in found
                if area["left"] < cell["steepest"] < area["right"] and area["bottom"] < cell["across"] < area["top"]
            ]
            assert own["class"] == cell["class"]
    assert len(found) == 2  # of the plane that changes along one axis


def test_figures_are_there_where_something_was_examined(content, with_geometry):
    assert geometry_figures(content) == []
    figures = geometry_figures(with_geometry)
    assert [(figure.name, figure.tables) for figure in figures] == [
        ("spectrum-spectrum", ("spectra",)),
        ("planes", ("planes",)),
    ]
    for figure in figures:
        assert svg(figure).startswith("<svg")


@pytest.mark.parametrize(("panels", "apart"), [(6, False), (7, True), (8, False)])
def test_panels_of_a_last_row_that_is_not_full_have_axes_of_their_own(content, panels, apart):
    """Four panels stand in a row where they are wrapped, beyond six; otherwise the columns share their axes."""
    plane = np.zeros((1, 41, 41), dtype=np.int64)
    kept = [
        drawn("boundary", condition, classes=plane, positions=np.linspace(-2, 2, 41))
        for condition in list(content.study.conditions)[:panels]
    ]
    (figure,) = geometry_figures(dataclasses.replace(content, drawn=tuple(kept)))
    assert ('"resolve": {"axis": {"x": "independent"}}' in figure.specification()) == apart
