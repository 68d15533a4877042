"""The figures of the report: each is drawn by Altair from one table of ``tables.py`` and from nothing else.

One description gives SVG, PDF and PNG through vl-convert, without a browser and without a network. Colours are of
middle lightness, so that they are read on white and on dark paper; everything else is ``INK``, which the page replaces
by the colour of its text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import altair as alt
import vl_convert

from unperturbed.report import tables
from unperturbed.report.content import Content
from unperturbed.report.numbers import radius

INK = "#1b1f24"
GOLD = "#c99700"  # chance, as in the paper
CONDITIONS = (
    "#3b82c4", "#d65f3c", "#2a9d8f", "#b5588f", "#7a6bd6", "#8a8f3a",
    "#5aa9e6", "#e08a5b", "#5fbf9f", "#d084b5", "#a59be8", "#b0a24a",
)  # fmt: skip
EPOCHS = ("#3aa99f", "#3f8fd0", "#7a6bd6", "#b455a0", "#d6496b", "#b0562a")
ATTACKS = ("#3b82c4", "#d6453c", "#b5588f", "#2a9d8f", "#8a8f3a", "#7a6bd6")
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down")
FONT = "Arial, 'Liberation Sans', Helvetica, sans-serif"  # as wide as what vl-convert measures texts with
WIDTH = 840  # of a whole figure, in pixels of the screen
ACROSS = 6  # most panels side by side


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


def across(content: Content, rows: list[tables.Row]) -> tuple[list[str], list[str]]:
    """Return the architectures and the conditions that ``rows`` have, in the order of the study."""
    present = {row["architecture"] for row in rows}, {row["condition"] for row in rows}
    return (
        [name for name in tables.ordered(content.study.architectures, present[0]) if name in present[0]],
        [name for name in tables.ordered(content.study.conditions, present[1]) if name in present[1]],
    )


def grid(content: Content, rows: list[tables.Row], layers: list[alt.Chart]) -> alt.TopLevelMixin:
    """Return small multiples of ``layers``, architecture by condition, conditions downwards when they are many.

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


def reach(content: Content, attack: str) -> str:
    """Return the interval that an attack's eps covers, in words."""
    plan = tables.attack_plans(content).get(attack)
    radii = (plan.grid or plan.eps) if plan else ()
    return f"ε in [{radius(radii[0])}, {radius(radii[-1])}]" if radii else "ε as measured"


def curves(content: Content, *, of: str, colour: alt.Color, title: str, attack: str) -> list[alt.Chart]:
    """Return band, line and chance of accuracy over eps; ``of`` is ``accuracy`` or ``relative``."""
    axis, vertical = eps_axis(content, attack), alt.Axis(tickCount=4, format="%" if of == "accuracy" else "~g")
    chart = alt.Chart()
    band = chart.mark_area(opacity=0.22).encode(
        x=axis, y=alt.Y(f"{of}_lowest:Q"), y2=alt.Y2(f"{of}_highest:Q"), color=colour
    )
    line = chart.mark_line(strokeWidth=1.8, point=alt.OverlayMarkDef(size=14)).encode(
        x=axis, y=alt.Y(f"{of}_mean:Q", title=title, axis=vertical), color=colour
    )
    chance = (
        chart.mark_rule(color=GOLD, strokeWidth=1.5)
        .transform_filter("isValid(datum.chance)")
        .encode(y=alt.Y("chance:Q"))
    )
    return [band, line, chance]


def slim(rows: list[tables.Row], *names: str) -> list[tables.Row]:
    """Return ``rows`` with the named columns only, numbers to six digits: drawings need no more."""
    return [
        {name: round(row[name], 6) if isinstance(row[name], float) else row[name] for name in names} for row in rows
    ]


def curve_table(content: Content, measured: list[tables.Row], *, of: str) -> list[tables.Row]:
    """Return the ``measured`` curves to draw as ``of`` and, once per panel, the height of the line of chance.

    Chance relative to f(eps0) depends on f(eps0); drawn is its value at the last epoch of the panel.
    """
    least: dict[tuple[str, str], tables.Row] = {}
    rows = [dict(row) for row in measured]
    for row in rows:
        start = least.setdefault((row["architecture"], row["condition"]), row)
        if row["eps"] < start["eps"] or (row["eps"] == start["eps"] and row["epoch"] > start["epoch"]):
            least[row["architecture"], row["condition"]] = row
    marked = {id(row) for row in least.values()}
    for row in rows:
        clean = row["accuracy_mean"] if of == "relative" else 1.0
        classes = len(content.study.classes.get(row["condition"], ()))
        row["chance"] = 1 / classes / clean if id(row) in marked and clean and classes else None
    return slim(
        rows, "architecture", "condition", "control", "epoch", "attack", "eps",
        f"{of}_mean", f"{of}_lowest", f"{of}_highest", "chance",
    )  # fmt: skip


def epoch_curves(content: Content, measured: list[tables.Row], *, of: str) -> alt.TopLevelMixin | None:
    """Draw accuracy over eps under the main attack, a panel per architecture and condition, a colour per epoch."""
    attack = tables.main_attack(content)
    rows = [row for row in curve_table(content, measured, of=of) if row["attack"] == attack and not row["control"]]
    if not rows:
        return None
    epochs = sorted({row["epoch"] for row in rows})
    colour = alt.Color("epoch:O", title="epoch", scale=palette(epochs, EPOCHS))
    title = "f(ε) / f(ε₀)" if of == "relative" else "accuracy"
    return grid(content, rows, curves(content, of=of, colour=colour, title=title, attack=attack))


def condition_curves(content: Content, measured: list[tables.Row]) -> alt.TopLevelMixin | None:
    """Draw normalised accuracy over eps under the main attack at the last epochs, a colour per condition."""
    attack = tables.main_attack(content)
    last = {cell: tables.last_epoch(content, *cell) for cell in tables.cells(content)}
    rows = [
        row
        for row in curve_table(content, measured, of="relative")
        if row["attack"] == attack
        and not row["control"]
        and row["epoch"] == last[row["architecture"], row["condition"]]
    ]
    if not rows:
        return None
    colour = alt.Color("condition:N", title=None, scale=condition_palette(content, rows))
    layers = curves(content, of="relative", colour=colour, title="f(ε) / f(ε₀)", attack=attack)
    return side_by_side(content, rows, layers[:2], height=250)


def attack_curves(content: Content, measured: list[tables.Row]) -> alt.TopLevelMixin | None:
    """Draw accuracy over eps under every attack in the norm of the main one at the last epochs."""
    main = tables.main_attack(content)
    norm = tables.norm_of(content, main)
    last = {cell: tables.last_epoch(content, *cell) for cell in tables.cells(content)}
    rows = [
        row
        for row in curve_table(content, measured, of="accuracy")
        if tables.norm_of(content, row["attack"]) == norm
        and not row["control"]
        and row["epoch"] == last[row["architecture"], row["condition"]]
    ]
    labels = [label for label in tables.attacks(content) if any(row["attack"] == label for row in rows)]
    if len(labels) < 2:
        return None
    colour = alt.Color("attack:N", title="attack", scale=palette(labels, ATTACKS, among=tables.attacks(content)))
    return grid(content, rows, curves(content, of="accuracy", colour=colour, title="accuracy", attack=main))


def robustness_over_epochs(content: Content) -> alt.TopLevelMixin | None:
    """Draw the main measure over epochs, a colour per condition, with SD; published means as open symbols."""
    rows = [row for row in tables.robustness_rows(content) if not row["control"] and row["mean"] is not None]
    if not rows:
        return None
    for row in rows:
        row["low"], row["high"] = (row["mean"] - (row["sd"] or 0), row["mean"] + (row["sd"] or 0))
    epochs = sorted({row["epoch"] for row in rows})
    rows = slim(rows, "architecture", "condition", "epoch", "mean", "low", "high", "published_mean")
    colour = alt.Color("condition:N", title=None, scale=condition_palette(content, rows))
    x = alt.X(
        "epoch:Q", title="epochs of training (logarithmic)", scale=alt.Scale(type="log", nice=False, padding=12),
        axis=alt.Axis(values=epochs, grid=False, format="d"),
    )  # fmt: skip
    chart = alt.Chart()
    label = f"{tables.main_measure(content)} (no unit)"
    layers = [
        chart.mark_rule(strokeWidth=1.2, opacity=0.7).encode(x=x, y="low:Q", y2="high:Q", color=colour),
        chart.mark_line(strokeWidth=1.8, point=alt.OverlayMarkDef(size=36)).encode(
            x=x, y=alt.Y("mean:Q", title=label), color=colour
        ),
        chart.mark_point(filled=False, shape="diamond", size=90, strokeWidth=1.6)
        .transform_filter("isValid(datum.published_mean)")
        .encode(x=x, y="published_mean:Q", color=colour),
    ]
    return side_by_side(content, rows, layers, height=250)


def robustness_by_attack(content: Content) -> alt.TopLevelMixin | None:
    """Draw the main measure of every cell under every attack at the last epochs, with SD."""
    rows = [row for row in tables.attack_rows(content) if row["mean"] is not None]
    if not rows:
        return None
    for row in rows:
        row["low"], row["high"] = (row["mean"] - (row["sd"] or 0), row["mean"] + (row["sd"] or 0))
        row["label"] = f"{row['attack']}, {reach(content, row['attack'])}"
    labels = list(dict.fromkeys(f"{attack}, {reach(content, attack)}" for attack in tables.attacks(content)))
    conditions = across(content, rows)[1]
    rows = slim(rows, "architecture", "condition", "label", "mean", "low", "high")
    legend = alt.Legend(columns=3)
    colour = alt.Color("label:N", title=None, scale=palette(labels, ATTACKS), legend=legend)
    shapes = alt.Scale(domain=labels, range=[SHAPES[index % len(SHAPES)] for index in range(len(labels))])
    y = alt.Y("condition:N", title=None, sort=conditions, axis=alt.Axis(grid=True, tickBand="extent"))
    offset = alt.YOffset("label:N", sort=labels)
    chart = alt.Chart()
    layers = [
        chart.mark_rule(strokeWidth=1.4).encode(y=y, yOffset=offset, x="low:Q", x2="high:Q", color=colour),
        chart.mark_point(filled=True, size=42, opacity=1).encode(
            y=y, yOffset=offset, color=colour, shape=alt.Shape("label:N", title=None, scale=shapes, legend=legend),
            x=alt.X("mean:Q", title=f"{tables.main_measure(content)} (no unit)", axis=alt.Axis(tickCount=5)),
        ),
    ]  # fmt: skip
    return side_by_side(content, rows, layers, height=len(conditions) * (7 * len(labels) + 8))


def robustness_of_controls(content: Content) -> alt.TopLevelMixin | None:
    """Draw the main measure of every single network at the last epochs, controls among the published conditions."""
    rows = tables.seed_rows(content)
    if not any(row["control"] for row in rows):
        return None
    conditions = across(content, rows)[1]
    for row in rows:
        row["kind"] = "control" if row["control"] else "published condition"
    rows = slim(rows, "architecture", "condition", "kind", "value")
    colour = alt.Color("kind:N", title=None, scale=palette(("published condition", "control"), CONDITIONS))
    y = alt.Y("condition:N", title=None, sort=conditions, axis=alt.Axis(grid=True))
    attack, measure = tables.main_attack(content), tables.main_measure(content)
    chart = alt.Chart()
    layers = [
        chart.mark_tick(thickness=2.5, size=16).encode(y=y, x="mean(value):Q", color=colour),
        chart.mark_point(filled=False, size=30, opacity=0.8).encode(
            y=y,
            color=colour,
            x=alt.X("value:Q", title=f"{measure} under {attack} (no unit)", axis=alt.Axis(tickCount=5)),
        ),
    ]
    return side_by_side(content, rows, layers, height=22 * len(conditions))


def draw(content: Content) -> list[Figure]:
    """Return the figures that the rows allow, in the order of the page."""
    attack, measure = tables.main_attack(content), tables.main_measure(content)
    measured = tables.curve_rows(content)
    seeds = len(content.study.seeds)
    over = f"n = {seeds} seeds" if seeds != 1 else "n = 1 seed"
    band = f"Lines are means over seeds, bands reach from the smallest to the largest network ({over})."
    chance = "The gold line is chance"
    drawn: list[tuple[str, str, str, tuple[str, ...], Callable[[], alt.TopLevelMixin | None]]] = [
        (
            "conditions",
            "Conditions side by side",
            f"Normalised accuracy under {attack} at the last epoch of each cell. {band}",
            ("curves",),
            lambda: condition_curves(content, measured),
        ),
        (
            "robustness",
            f"{measure} over epochs",
            f"Mean {measure} under {attack}, {reach(content, attack)}; bars are ± 1 SD over seeds ({over})."
            + (" Open diamonds are the published means." if tables.published_values(content) else ""),
            ("robustness",),
            lambda: robustness_over_epochs(content),
        ),
        (
            "curves-normalised",
            "Normalised accuracy",
            f"f(ε) / f(ε₀) under {attack}. {band} {chance} divided by f(ε₀) at the last epoch.",
            ("curves",),
            lambda: epoch_curves(content, measured, of="relative"),
        ),
        (
            "curves-raw",
            "Raw accuracy",
            f"Accuracy under {attack}, not normalised. {band} {chance}.",
            ("curves",),
            lambda: epoch_curves(content, measured, of="accuracy"),
        ),
        (
            "attacks",
            f"{measure} under each attack",
            f"Mean {measure} at the last epoch, each attack over its own interval of ε; bars are ± 1 SD over "
            f"seeds ({over}).",
            ("attacks",),
            lambda: robustness_by_attack(content),
        ),
        (
            "attack-curves",
            "Accuracy under each attack",
            f"Last epoch, attacks in the norm of {attack}. {band} {chance}. Where an attack carries what broke at a "
            "smaller ε to the larger ones, its curve is also the share of images whose critical ε is larger than ε.",
            ("curves",),
            lambda: attack_curves(content, measured),
        ),
        (
            "controls",
            "Controls beside the published conditions",
            f"{measure} under {attack} at the last epoch: circles are single networks, ticks their mean ({over}).",
            ("seeds",),
            lambda: robustness_of_controls(content),
        ),
    ]
    figures: list[Figure] = []
    for name, title, caption, sources, make in drawn:
        chart = make()
        if chart is not None:
            figures.append(Figure(name, title, caption, sources, configured(chart)))
    return figures


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
