"""Spectra and planes: their tables, and the figures that are drawn of them."""

import dataclasses

import numpy as np
import pytest

from unperturbed.report.content import Drawn
from unperturbed.report.drawing import svg
from unperturbed.report.geometry import CELLS, geometry_figures, plane_rows, ranks, spectrum_rows


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


def test_figures_are_there_where_something_was_examined(content, with_geometry):
    assert geometry_figures(content) == []
    figures = geometry_figures(with_geometry)
    assert [(figure.name, figure.tables) for figure in figures] == [
        ("spectrum-spectrum", ("spectra",)),
        ("planes", ("planes",)),
    ]
    for figure in figures:
        assert svg(figure).startswith("<svg")
