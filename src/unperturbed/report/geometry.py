"""The geometry of the networks: eigenvalues of a layer over their rank, and the classes on a plane around an image.

Eigenvalues are drawn as they are, not divided by the first one: of two spectra with the same exponent one may carry a
thousand times the variance. A power law is a straight line. Its exponent depends on the ranks that are fitted, and
white data of as many samples has one, too (Marchenko and Pastur 1967): both are drawn beside it.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from unperturbed.report import tables
from unperturbed.report.confidence import described
from unperturbed.report.content import Content
from unperturbed.report.drawing import (
    ATTACKS,
    INK,
    SHAPES,
    Figure,
    across,
    condition_colour,
    configured,
    grid,
    palette,
    side_by_side,
    slim,
)

SPECTRUM, BOUNDARY = "spectrum", "boundary"  # the examinations that keep what is drawn here
RANKS = 60  # drawn of a spectrum, evenly over the logarithm
CELLS = 21  # drawn along each side of a plane
FITTED, ELSEWHERE, WHITE = "ranks of the study", "other ranks", "white data"  # what an exponent is of


def spectrum_rows(content: Content) -> list[tables.Row]:
    """Return one row per network, examination and rank with the eigenvalue, where it is above 0."""
    return [
        described(content, found) | {"rank": rank, "eigenvalue": float(found.arrays["eigenvalues"][rank - 1])}
        for found in content.drawn
        if found.examination == SPECTRUM and "eigenvalues" in found.arrays
        for rank in ranks(found.arrays["eigenvalues"])
    ]


def ranks(eigenvalues: NDArray[Any]) -> list[int]:
    """Return the ranks from 1 whose eigenvalues are drawn.

    >>> ranks(np.array([2.0, 1.0, 0.5, 0.0]))
    [1, 2, 3]
    """
    last = int((eigenvalues > 0).sum())
    return sorted({int(rank) for rank in np.geomspace(1, last, RANKS).round()}) if last else []


def exponent_rows(content: Content) -> list[tables.Row]:
    """Return one row per network, examination and exponent, with the ranks from ``first`` to ``last`` that it is of.

    ``of`` tells the ranks that the study names from other ones, and from white data of as many samples and units over
    the ranks of the study.
    """
    fitted = {
        (row.architecture, row.condition, row.attack, row.seed, row.epoch): row.value
        for row in content.measurements
        if row.measure == "spectrum_alpha"
    }
    rows: list[tables.Row] = []
    for found in content.drawn:
        if found.examination != SPECTRUM or "range" not in found.arrays:
            continue
        arrays, about = found.arrays, described(content, found)
        first, last = (int(end) for end in arrays["range"])
        network = (found.architecture, found.condition, found.label, found.seed, found.epoch)
        exponents: list[tuple[str, int, int, float]] = []
        if network in fitted:
            exponents.append((FITTED, first, last, fitted[network]))
        if "white_alpha" in arrays:
            exponents.append((WHITE, first, last, float(arrays["white_alpha"])))
        for (start, end), alpha in zip(arrays.get("ranges", ()), arrays.get("range_alphas", ()), strict=True):
            if (start, end) != (first, last):
                exponents.append((ELSEWHERE, int(start), int(end), float(alpha)))
        rows += [about | {"of": of, "first": start, "last": end, "alpha": alpha} for of, start, end, alpha in exponents]
    return rows


def plane_rows(content: Content) -> list[tables.Row]:
    """Return one row per network and cell of the plane around its first image, with the class that it has there."""
    rows: list[tables.Row] = []
    for found in content.drawn:
        if found.examination != BOUNDARY:
            continue
        positions, classes = found.arrays["positions"], found.arrays["classes"][0]
        chosen = sorted({round(place) for place in np.linspace(0, len(positions) - 1, CELLS)})
        names = content.study.classes.get(found.condition, ())
        for row in chosen:
            for column in chosen:
                number = int(classes[row, column])
                rows.append(
                    described(content, found)
                    | {
                        "steepest": float(positions[column]),
                        "across": float(positions[row]),
                        "class": names[number] if number < len(names) else str(number),
                    }
                )
    return rows


def spectra(content: Content, found: list[tables.Row]) -> alt.TopLevelMixin:
    """Draw the eigenvalues that one examination found over their rank, both on logarithmic scales."""
    rows = [
        {**row, "eigenvalue": wanted["eigenvalue"]}  # tiny ones would be rounded to 0
        for row, wanted in zip(slim(found, "architecture", "condition", "rank", "eigenvalue"), found, strict=True)
    ]
    logarithmic = alt.Scale(type="log", nice=False)
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_line(strokeWidth=1.6)
        .encode(
            x=alt.X("rank:Q", title="rank (no unit)", scale=logarithmic, axis=alt.Axis(grid=False, format="~g")),
            y=alt.Y("eigenvalue:Q", title="eigenvalue (variance)", scale=logarithmic,
                    axis=alt.Axis(tickCount=6, format="~e")),
            color=condition_colour(content, rows),
            detail="architecture:N",
        )
        .properties(width=520, height=300)
    )  # fmt: skip


def exponents(content: Content, found: list[tables.Row]) -> alt.TopLevelMixin:
    """Draw the exponents that one examination found over all ranges of ranks, a row per condition."""
    rows = slim(found, "architecture", "condition", "of", "first", "last", "alpha")
    kinds, conditions = (FITTED, ELSEWHERE, WHITE), across(content, rows)[1]
    shapes = alt.Scale(domain=list(kinds), range=[SHAPES[0], SHAPES[1], SHAPES[2]])
    points = (
        alt.Chart()
        .mark_point(filled=True, opacity=0.8)
        .encode(
            y=alt.Y("condition:N", title=None, sort=conditions, axis=alt.Axis(grid=True)),
            x=alt.X("alpha:Q", title="exponent (no unit)", axis=alt.Axis(tickCount=6)),
            color=alt.Color("of:N", title=None, scale=palette(kinds, (ATTACKS[0], ATTACKS[6], ATTACKS[8]))),
            shape=alt.Shape("of:N", title=None, scale=shapes),
            size=alt.condition(f"datum.of === '{FITTED}'", alt.value(70), alt.value(26)),
            order=alt.condition(f"datum.of === '{FITTED}'", alt.value(1), alt.value(0)),  # above the others
        )
    )
    return side_by_side(content, rows, [points], height=22 * len(conditions))


def planes(content: Content, found: list[tables.Row]) -> alt.TopLevelMixin:
    """Draw the classes on the plane around the first image, a panel per cell, with a ring where the image is."""
    rows: list[tables.Row] = []
    for cell in dict.fromkeys((row["architecture"], row["condition"]) for row in found):
        own = [row for row in found if (row["architecture"], row["condition"]) == cell]
        rows += [dict(zip(("architecture", "condition"), cell, strict=True)) | area for area in areas(own)]
    areas_of = slim(rows, "architecture", "condition", "left", "right", "bottom", "top", "class")
    axis = alt.Axis(tickCount=3, grid=False)
    rectangles = (
        alt.Chart()
        .mark_rect(strokeWidth=0)
        .encode(
            x=alt.X("left:Q", title="steepest (L2)", axis=axis, scale=alt.Scale(nice=False, zero=False)),
            x2="right",
            y=alt.Y("bottom:Q", title="across (L2)", axis=axis, scale=alt.Scale(nice=False, zero=False)),
            y2="top",
            color=alt.Color("class:N", title="class", scale=alt.Scale(scheme="tableau10")),
        )
    )
    middle = (
        alt.Chart()
        .mark_point(size=36, strokeWidth=1.5, color=INK, opacity=1)
        .encode(x=alt.datum(0, type="quantitative"), y=alt.datum(0, type="quantitative"))
    )
    return grid(content, areas_of, [rectangles, middle])


def areas(cells: list[tables.Row]) -> list[tables.Row]:
    """Return rectangles of one class each that cover the cells of a plane, as large as they come row by row.

    >>> cells = [{"steepest": x, "across": y, "class": "8" if x > 0 else "1"} for y in (-1.0, 1.0) for x in (-1.0, 1.0)]
    >>> [tuple(area.values()) for area in areas(cells)]
    [(-2.0, 0.0, -2.0, 2.0, '1'), (0.0, 2.0, -2.0, 2.0, '8')]
    """
    columns = sorted({row["steepest"] for row in cells})
    half = (columns[1] - columns[0]) / 2
    lines: dict[float, list[tuple[float, float, str]]] = {}
    for row in cells:
        runs = lines.setdefault(row["across"], [])
        left = row["steepest"] - half
        if runs and runs[-1][2] == row["class"]:
            left = runs.pop()[0]
        runs.append((left, row["steepest"] + half, row["class"]))
    found: list[tables.Row] = []
    growing: dict[tuple[float, float, str], tables.Row] = {}
    for across_it, runs in lines.items():
        growing = {run: growing[run] for run in runs if run in growing}
        for run in runs:
            if run in growing:
                growing[run]["top"] = across_it + half
            else:
                left, right, name = run
                growing[run] = {
                    "left": left, "right": right, "bottom": across_it - half, "top": across_it + half, "class": name,
                }  # fmt: skip
                found.append(growing[run])
    return found


def geometry_figures(content: Content) -> list[Figure]:
    """Return the figures of geometry, none where it was not examined."""
    eigenvalues, fits, cells = spectrum_rows(content), exponent_rows(content), plane_rows(content)
    whose = "of the first seed of each cell"
    figures: list[Figure] = []
    for label in dict.fromkeys(row["label"] for row in eigenvalues):
        text = (
            f"Eigenvalues of the covariance of a layer over their rank, {whose}, not normalised. "
            "A power law is a straight line; where it ends, the rest is 0."
        )
        drawn = configured(spectra(content, [row for row in eigenvalues if row["label"] == label]))
        figures.append(Figure(f"spectrum-{label}", f"Eigenvalues, {label}", text, ("spectra",), drawn))
        if own := [row for row in fits if row["label"] == label]:
            text = (
                f"Minus the slope of log eigenvalue over log rank, {whose}: over {_ranges(own, FITTED)}, and over "
                f"{_ranges(own, ELSEWHERE)}; an exponent that moves with them is no property of the network. White "
                "data of as many samples and units, whose true spectrum is flat, has the exponent of the diamond "
                "(Marchenko and Pastur)."
            )
            drawn = configured(exponents(content, own))
            figures.append(Figure(f"exponents-{label}", f"Exponents, {label}", text, ("exponents",), drawn))
    if cells:
        text = (
            f"The class that each network {whose} gives to points around one test image, which lies at the ring: "
            "to the right along the steepest descent of its margin, upwards along a direction at random. Intensities "
            "may leave [0, 1] here."
        )
        figures.append(
            Figure("planes", "Classes around an image", text, ("planes",), configured(planes(content, cells)))
        )
    return figures


def _ranges(rows: list[tables.Row], of: str) -> str:
    """Return which ranks the exponents are of, as a reader writes it."""
    found = sorted({(row["first"], row["last"]) for row in rows if row["of"] == of})
    return f"the {of} ({', '.join(f'{first} to {last}' for first, last in found)})" if found else f"no {of}"
