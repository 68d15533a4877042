"""What goes with what over all networks of a study: the table of the networks, and the figures drawn from it."""

from __future__ import annotations

import altair as alt

from unperturbed.records import Variable
from unperturbed.report import tables
from unperturbed.report.content import Content
from unperturbed.report.drawing import CONDITIONS, SHAPES, Figure, across, condition_colour, configured, slim
from unperturbed.report.verdicts import called, sentence
from unperturbed.statistics import Relation


def network_rows(content: Content) -> list[tables.Row]:
    """Return one row per association and network; ``held`` is held constant, ``rival`` is what x is compared with."""
    return [row for found in content.decisions.relations for row in rows_of(found)]


def rows_of(found: Relation) -> list[tables.Row]:
    """Return the networks of one association."""
    asked = found.association
    rival = str(asked.rival) if asked.rival else None
    return [
        {
            "claim": found.claim,
            "x_measure": str(asked.x),
            "y_measure": str(asked.y),
            "held_measure": str(asked.control) if asked.control else None,
            "architecture": point.architecture,
            "condition": point.condition,
            "seed": point.seed,
            "epoch": point.epoch,
            "x": point.values[0],
            "y": point.values[1],
            "held": point.values[2] if asked.control else None,
            "subject": point.subject or None,
            "rival_measure": rival,
            "rival": point.values[2] if rival else None,
        }
        for point in found.points
    ]


def scatter(content: Content, found: Relation) -> alt.TopLevelMixin:
    """Draw the networks of an association: a colour per condition, a shape per architecture where there are several.

    Of one architecture, the shape tells conditions apart that share a colour.
    """
    rows = slim(rows_of(found), "architecture", "condition", "x", "y")
    architectures, conditions = across(content, rows)
    field, present, listed, alike = "architecture", architectures, architectures, 1
    if len(architectures) == 1:
        field, present, alike = "condition", conditions, len(CONDITIONS)
        listed = tables.ordered(content.study.conditions, conditions)
    shapes = [SHAPES[listed.index(name) // alike % len(SHAPES)] for name in present]

    def title(variable: Variable) -> str:
        return f"{called(content, variable)} ({tables.unit_of(content, variable.measure)})"

    asked, whole = found.association, alt.Scale(zero=False)
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_point(filled=True, size=46, opacity=0.85)
        .encode(
            x=alt.X("x:Q", title=title(asked.x), scale=whole),
            y=alt.Y("y:Q", title=title(asked.y), scale=whole),
            color=condition_colour(content, rows),
            shape=alt.Shape(f"{field}:N", title=None, scale=alt.Scale(domain=present, range=shapes)),
        )
    )
    return chart.properties(width=520, height=320)


def association_figures(content: Content) -> list[Figure]:
    """Return one figure per association that was measured; those of the same points, one with a control, share it."""
    shared: dict[tuple[object, ...], list[Relation]] = {}
    for found in content.decisions.relations:
        asked = found.association
        networks = tuple(point[:4] for point in found.points)
        shared.setdefault((asked.x, asked.y, asked.rival, networks), []).append(found)
    return [
        Figure(
            f"association-{number}",
            f"Networks by {called(content, group[0].association.x)} and {called(content, group[0].association.y)}",
            "One point per network. " + " ".join(f"{found.claim}: {sentence(content, found)}" for found in group),
            ("networks",),
            configured(scatter(content, group[0])),
        )
        for number, group in enumerate(shared.values(), start=1)
    ]
