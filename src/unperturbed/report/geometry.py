"""The geometry of the networks: eigenvalues of a layer over their rank, and the classes on a plane around an image.

Eigenvalues are drawn as they are, not divided by the first one: of two spectra with the same exponent one may carry a
thousand times the variance. A power law is a straight line.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from unperturbed.report import tables
from unperturbed.report.confidence import described
from unperturbed.report.content import Content
from unperturbed.report.drawing import Figure, condition_colour, configured, grid, slim

SPECTRUM, BOUNDARY = "spectrum", "boundary"  # the examinations that keep what is drawn here
RANKS = 60  # drawn of a spectrum, evenly over the logarithm
CELLS = 21  # drawn along each side of a plane


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


def planes(content: Content, found: list[tables.Row]) -> alt.TopLevelMixin:
    """Draw the classes on the plane around the first image, a panel per cell."""
    rows = slim(found, "architecture", "condition", "steepest", "across", "class")
    squares = (
        alt.Chart()
        .mark_square(opacity=1)
        .encode(
            x=alt.X("steepest:Q", title="steepest (L2)", axis=alt.Axis(tickCount=3, grid=False)),
            y=alt.Y("across:Q", title="across (L2)", axis=alt.Axis(tickCount=3, grid=False)),
            color=alt.Color("class:N", title=None, scale=alt.Scale(scheme="tableau10")),
            size=alt.value(80),
        )
    )
    return grid(content, rows, [squares])


def geometry_figures(content: Content) -> list[Figure]:
    """Return the figures of geometry, none where it was not examined."""
    eigenvalues, cells = spectrum_rows(content), plane_rows(content)
    whose = "of the first seed of each cell"
    figures = [
        Figure(
            f"spectrum-{label}",
            f"Eigenvalues, {label}",
            f"Eigenvalues of the covariance of a layer over their rank, {whose}, not normalised. "
            "A power law is a straight line; where it ends, the rest is 0.",
            ("spectra",),
            configured(spectra(content, [row for row in eigenvalues if row["label"] == label])),
        )
        for label in dict.fromkeys(row["label"] for row in eigenvalues)
    ]
    if cells:
        text = (
            f"The class that each network {whose} gives to points around one test image, which lies in the middle: "
            "to the right along the steepest descent of its margin, upwards along a direction at random. Intensities "
            "may leave [0, 1] here."
        )
        figures.append(
            Figure("planes", "Classes around an image", text, ("planes",), configured(planes(content, cells)))
        )
    return figures
