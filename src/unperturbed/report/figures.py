"""The figures of the report: each is drawn by Altair from one table of the report and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable

import altair as alt

from unperturbed.report import tables
from unperturbed.report.associations import association_figures
from unperturbed.report.confidence import confidence_figures
from unperturbed.report.content import Content
from unperturbed.report.drawing import (
    ATTACKS,
    CONDITIONS,
    EPOCHS,
    GOLD,
    SHAPES,
    Figure,
    across,
    condition_colour,
    configured,
    eps_axis,
    grid,
    palette,
    side_by_side,
    slim,
)
from unperturbed.report.eeg import eeg_figures
from unperturbed.report.geometry import geometry_figures
from unperturbed.report.numbers import radius
from unperturbed.report.similarity import similarity_figures

CURVE = 3  # radii that make an examination's accuracies a curve


def reach(content: Content, attack: str) -> str:
    """Return the interval that an attack's eps covers, in words."""
    plan = tables.attack_plans(content).get(attack)
    radii = (plan.grid or plan.eps) if plan else ()
    return f"ε in [{radius(radii[0])}, {radius(radii[-1])}]" if radii else "ε as measured"


def measured_axis(content: Content) -> str:
    """Return the title of an axis of the main measure, with its unit."""
    measure = tables.main_measure(content)
    return f"{tables.name_of(measure)} ({tables.unit_of(content, measure)})"


def named(content: Content, attack: str) -> str:
    """Return an attack, with its interval of eps where the main measure is over the whole of it."""
    return f"{attack}, {reach(content, attack)}" if tables.main_measure(content) in tables.WHOLE else attack


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
    colour = condition_colour(content, rows)
    layers = curves(content, of="relative", colour=colour, title="f(ε) / f(ε₀)", attack=attack)
    return side_by_side(content, rows, layers[:2], height=250)


def attack_curves(content: Content, measured: list[tables.Row]) -> alt.TopLevelMixin | None:
    """Draw accuracy over eps under every attack in the norm of the main one at the last epochs, as far as it goes."""
    main = tables.main_attack(content)
    norm, known = tables.norm_of(content, main), tables.attacks(content)
    furthest = max((row["eps"] for row in measured if row["attack"] == main), default=math.inf)
    last = {cell: tables.last_epoch(content, *cell) for cell in tables.cells(content)}
    rows = [
        row
        for row in curve_table(content, measured, of="accuracy")
        if row["attack"] in known
        and row["eps"] <= furthest
        and tables.norm_of(content, row["attack"]) == norm
        and not row["control"]
        and row["epoch"] == last[row["architecture"], row["condition"]]
    ]
    labels = [label for label in tables.attacks(content) if any(row["attack"] == label for row in rows)]
    if len(labels) < 2:
        return None
    colour = alt.Color("attack:N", title="attack", scale=palette(labels, ATTACKS, among=tables.attacks(content)))
    return grid(content, rows, curves(content, of="accuracy", colour=colour, title="accuracy", attack=main))


def examination_curves(content: Content, measured: list[tables.Row], label: str) -> alt.TopLevelMixin | None:
    """Draw accuracy over eps as an examination found it at the last epochs, a colour per condition."""
    last = {cell: tables.last_epoch(content, *cell) for cell in tables.cells(content)}
    rows = [
        row
        for row in curve_table(content, measured, of="accuracy")
        if row["attack"] == label and row["epoch"] == last[row["architecture"], row["condition"]]
    ]
    if len({row["eps"] for row in rows}) < CURVE:
        return None
    colour = condition_colour(content, rows)
    title = "certified accuracy" if tables.certifies(content, label) else "accuracy"
    layers = curves(content, of="accuracy", colour=colour, title=title, attack=label)
    return side_by_side(content, rows, layers[:2], height=220)


def robustness_over_epochs(content: Content) -> alt.TopLevelMixin | None:
    """Draw the main measure over epochs, a colour per condition, with SD; published means as open symbols.

    One epoch is no course, and the other figures show it.
    """
    rows = [row for row in tables.robustness_rows(content) if not row["control"] and row["mean"] is not None]
    if len({row["epoch"] for row in rows}) < 2:
        return None
    for row in rows:
        row["low"], row["high"] = (row["mean"] - (row["sd"] or 0), row["mean"] + (row["sd"] or 0))
    epochs = sorted({row["epoch"] for row in rows})
    rows = slim(rows, "architecture", "condition", "epoch", "mean", "low", "high", "published_mean")
    colour = condition_colour(content, rows)
    x = alt.X(
        "epoch:Q", title="epochs of training (logarithmic)", scale=alt.Scale(type="log", nice=False, padding=12),
        axis=alt.Axis(values=epochs, grid=False, format="d"),
    )  # fmt: skip
    chart = alt.Chart()
    label = measured_axis(content)
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
        row["label"] = named(content, row["attack"])
    present = {row["label"] for row in rows}
    labels = [label for attack in tables.attacks(content) if (label := named(content, attack)) in present]
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
            x=alt.X("mean:Q", title=measured_axis(content), axis=alt.Axis(tickCount=5)),
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
    title = f"{tables.name_of(measure)} under {attack} ({tables.unit_of(content, measure)})"
    chart = alt.Chart()
    layers = [
        chart.mark_tick(thickness=2.5, size=16).encode(y=y, x="mean(value):Q", color=colour),
        chart.mark_point(filled=False, size=30, opacity=0.8).encode(
            y=y,
            color=colour,
            x=alt.X("value:Q", title=title, axis=alt.Axis(tickCount=5)),
        ),
    ]
    return side_by_side(content, rows, layers, height=22 * len(conditions))


def draw(content: Content) -> list[Figure]:
    """Return the figures that the rows allow, in the order of the page."""
    attack, measure = tables.main_attack(content), tables.name_of(tables.main_measure(content))
    heading = tables.heading_of(measure)
    over_all = tables.main_measure(content) in tables.WHOLE
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
            f"{heading} over epochs",
            f"Mean {measure} under {attack}{f', {reach(content, attack)}' if over_all else ''}; "
            f"bars are ± 1 SD over seeds ({over})."
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
            f"{heading} under each attack",
            f"Mean {measure} at the last epoch{', each attack over its own interval of ε' if over_all else ''}; "
            f"bars are ± 1 SD over seeds ({over}).",
            ("attacks",),
            lambda: robustness_by_attack(content),
        ),
        (
            "attack-curves",
            "Accuracy under each attack",
            f"Last epoch, attacks in the norm of {attack}, as far as that goes. {band} {chance}. Where an attack "
            "carries what broke at a smaller ε to the larger ones, its curve is also the share of images whose "
            "critical ε is larger than ε.",
            ("curves",),
            lambda: attack_curves(content, measured),
        ),
        (
            "controls",
            "Controls beside the published conditions",
            f"{heading} under {attack} at the last epoch: circles are single networks, ticks their mean ({over}).",
            ("seeds",),
            lambda: robustness_of_controls(content),
        ),
    ]
    for label in tables.examination_plans(content):
        norm = {"linf": "L∞", "l2": "L2", "l1": "L1"}.get(tables.norm_of(content, label), "")
        drawn.append(
            (
                f"examination-{label}",
                "Certified accuracy" if tables.certifies(content, label) else f"Accuracy in the examination {label}",
                f"Accuracy within each radius ({norm}) as the examination {label} found it at the last epoch. {band}",
                ("curves",),
                lambda label=label: examination_curves(content, measured, label),
            )
        )
    figures = [
        Figure(name, title, caption, sources, configured(chart))
        for name, title, caption, sources, make in drawn
        if (chart := make()) is not None
    ]
    return [
        *figures,
        *association_figures(content),
        *eeg_figures(content),
        *similarity_figures(content),
        *geometry_figures(content),
        *confidence_figures(content),
    ]
