"""What all figures share: colours, panels, axes and the way from a description to a file.

One description gives SVG, PDF and PNG through vl-convert, without a browser and without a network. Colours are of
middle lightness, so that they are read on white and on dark paper; everything else is ``INK``, which the page replaces
by the colour of its text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import altair as alt
import vl_convert

from unperturbed.report import tables
from unperturbed.report.content import Content

INK = "#1b1f24"
GOLD = "#c99700"  # chance, as in the paper
CONDITIONS = (
    "#3b82c4", "#d65f3c", "#2a9d8f", "#b5588f", "#7a6bd6", "#8a8f3a",
    "#5aa9e6", "#e08a5b", "#5fbf9f", "#d084b5", "#a59be8", "#b0a24a",
)  # fmt: skip
EPOCHS = ("#3aa99f", "#3f8fd0", "#7a6bd6", "#b455a0", "#d6496b", "#b0562a")
ATTACKS = (
    "#3b82c4", "#d6453c", "#b5588f", "#2a9d8f", "#8a8f3a", "#7a6bd6",
    "#c98a2b", "#5aa9e6", "#6f7782", "#d084b5",
)  # fmt: skip
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "triangle-right", "triangle-left")
FONT = "Arial, 'Liberation Sans', Helvetica, sans-serif"  # as wide as what vl-convert measures texts with
LEVEL = 0.05  # p up to which a figure marks something
WIDTH = 840  # of a whole figure, in pixels of the screen
ACROSS = 6  # most panels side by side
WRAPPED = 4  # panels side by side where they are wrapped


class Figure(NamedTuple):
    """A drawing with what is said below it and the tables that it was drawn from."""

    name: str
    title: str
    caption: str
    tables: tuple[str, ...]
    chart: alt.TopLevelMixin

    def specification(self) -> str:
        """Return the Vega-Lite description with its data, as JSON."""
        return self.chart.to_json(indent=None)


def configured(chart: alt.TopLevelMixin) -> alt.TopLevelMixin:
    """Return ``chart`` with the look that all figures share."""
    config = {
        "aria": False,
        "background": "white",
        "padding": {"left": 18, "right": 12, "top": 5, "bottom": 5},
        "font": FONT,
        "view": {"stroke": INK, "strokeOpacity": 0.25},
        "axis": {
            "labelColor": INK, "titleColor": INK, "domain": False, "tickColor": INK, "tickOpacity": 0.3,
            "gridColor": INK, "gridOpacity": 0.1, "labelFontSize": 11, "titleFontSize": 11.5,
            "titleFontWeight": "normal", "titlePadding": 8, "tickSize": 4,
        },
        "header": {
            "labelColor": INK, "titleColor": INK, "labelFontSize": 12, "labelFontWeight": 600, "labelPadding": 6,
        },
        "legend": {
            "labelColor": INK, "titleColor": INK, "labelFontSize": 11.5, "titleFontSize": 11.5, "orient": "top",
            "titleFontWeight": 600, "titleOrient": "left", "symbolSize": 90, "labelLimit": 260,
            "columnPadding": 24, "titlePadding": 14,
            "symbolStrokeWidth": 2, "symbolOpacity": 1,
        },
        "facet": {"spacing": 14},
    }  # fmt: skip
    return chart.properties(config=config)  # pyright: ignore[reportAttributeAccessIssue]


def palette(
    names: Iterable[str | int], colours: tuple[str, ...], *, among: Iterable[str | int] | None = None
) -> alt.Scale:
    """Return the colour of each of ``names``: that of its place ``among`` all, so that all figures agree.

    Colours come again when there are more names than colours.
    """
    domain = list(names)
    places = {name: place for place, name in enumerate(among or domain)}
    return alt.Scale(domain=domain, range=[colours[places[name] % len(colours)] for name in domain])


def condition_palette(content: Content, rows: list[tables.Row]) -> alt.Scale:
    """Return the colour of each condition in ``rows``, the same in every figure of the study."""
    present = across(content, rows)[1]
    return palette(present, CONDITIONS, among=tables.ordered(content.study.conditions, present))


def condition_colour(content: Content, rows: list[tables.Row]) -> alt.Color:
    """Return the colours of the conditions in ``rows`` with a legend that is no wider than a figure."""
    names = across(content, rows)[1]
    legend = alt.Legend(columns=WRAPPED) if len(names) > ACROSS else alt.Undefined
    return alt.Color("condition:N", title=None, scale=condition_palette(content, rows), legend=legend)


def across(content: Content, rows: list[tables.Row]) -> tuple[list[str], list[str]]:
    """Return the architectures and the conditions that ``rows`` have, in the order of the study."""
    present = {row["architecture"] for row in rows}, {row["condition"] for row in rows}
    return (
        [name for name in tables.ordered(content.study.architectures, present[0]) if name in present[0]],
        [name for name in tables.ordered(content.study.conditions, present[1]) if name in present[1]],
    )


def grid(content: Content, rows: list[tables.Row], layers: list[alt.Chart]) -> alt.TopLevelMixin:
    """Return small multiples of ``layers``, architecture by condition, conditions downwards when they are many.

    Many conditions of a single architecture are wrapped.

    A cell that was not run gets an empty row: Vega-Lite lays the panels out in their order of appearance and would put
    those after a missing one under the wrong headings.
    """
    architectures, conditions = across(content, rows)
    present = {(row["architecture"], row["condition"]) for row in rows}
    empty = dict.fromkeys(rows[0])
    rows = [
        *rows,
        *(
            {**empty, "architecture": architecture, "condition": condition}
            for architecture in architectures
            for condition in conditions
            if (architecture, condition) not in present
        ),
    ]
    if len(architectures) == 1 and len(conditions) > ACROSS:
        wrapped = (
            alt.layer(*layers, data=alt.Data(values=rows))
            .properties(width=WIDTH // WRAPPED - 24, height=130, title=architectures[0])
            .facet(facet=alt.Facet("condition:N", sort=conditions, title=None), columns=WRAPPED)
        )
        # A last row that is not full would leave the axes of the other columns far below their panels.
        return wrapped.resolve_axis(x="independent") if len(conditions) % WRAPPED else wrapped
    row, column = ("architecture", "condition") if len(conditions) <= ACROSS else ("condition", "architecture")
    names = {"architecture": architectures, "condition": conditions}
    width = min(260, WIDTH // len(names[column]) - 14)
    return (
        alt.layer(*layers, data=alt.Data(values=rows))
        .properties(width=width, height=min(150, max(100, width)))
        .facet(
            row=alt.Row(f"{row}:N", sort=names[row], title=None),
            column=alt.Column(f"{column}:N", sort=names[column], title=None),
        )
    )


def side_by_side(
    content: Content, rows: list[tables.Row], layers: list[alt.Chart], *, height: int
) -> alt.TopLevelMixin:
    """Return one panel of ``layers`` per architecture."""
    architectures, _ = across(content, rows)
    return (
        alt.layer(*layers, data=alt.Data(values=rows))
        .properties(width=min(560, WIDTH // len(architectures) - 14), height=height)
        .facet(column=alt.Column("architecture:N", sort=architectures, title=None))
    )


def eps_axis(content: Content, attack: str) -> alt.X:
    """Return the horizontal axis of accuracy curves, with the unit of the attack's eps."""
    return alt.X("eps:Q", title=f"ε ({unit(tables.norm_of(content, attack))})", axis=alt.Axis(tickCount=4, grid=False))


def unit(norm: str) -> str:
    """Return in which unit an eps in ``norm`` is."""
    return "full scale = 1" if norm == "linf" else f"{norm}, full scale = 1"


def slim(rows: list[tables.Row], *names: str) -> list[tables.Row]:
    """Return ``rows`` with the named columns only, numbers to six digits: drawings need no more."""
    return [
        {name: round(row[name], 6) if isinstance(row[name], float) else row[name] for name in names} for row in rows
    ]


def svg(figure: Figure) -> str:
    """Return the drawing as SVG text."""
    return vl_convert.vegalite_to_svg(figure.specification())


def converted(drawing: str, kind: str) -> bytes:
    """Return an SVG as a file of ``kind`` svg, png (twice the pixels of the screen) or pdf."""
    if kind == "png":
        return vl_convert.svg_to_png(drawing, scale=2)
    if kind == "pdf":
        return vl_convert.svg_to_pdf(drawing)
    return drawing.encode()
