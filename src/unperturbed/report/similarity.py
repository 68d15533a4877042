"""How alike networks and a brain find the images: inferior temporal cortex, and EEG from one time to the next."""

from __future__ import annotations

import altair as alt

from unperturbed.report import tables
from unperturbed.report.confidence import described
from unperturbed.report.content import Content
from unperturbed.report.drawing import (
    CONDITIONS,
    INK,
    LEVEL,
    Figure,
    across,
    condition_colour,
    configured,
    palette,
    side_by_side,
    slim,
)
from unperturbed.report.numbers import RHO

SIMILARITY = "representational-similarity"  # the examination that keeps what is drawn here
TITLE = f"{RHO} of dissimilarities (Spearman)"
CORTICES = {"similarity_it_human": "human", "similarity_it_monkey": "monkey"}
DASHES = {"lower": [1, 0], "upper": [4, 3]}  # of the ceilings
COLUMNS = ("r", "p", "p_largest", "lower_ceiling", "upper_ceiling")


def similarity_rows(content: Content) -> list[tables.Row]:
    """Return one row per network and time, with the ceilings of the recordings; none of what is not over time."""
    return [
        described(content, found)
        | {"time": float(time)}
        | {name: tables.finite(float(found.arrays[name][number])) for name in COLUMNS}
        for found in content.drawn
        if found.examination == SIMILARITY and "times" in found.arrays
        for number, time in enumerate(found.arrays["times"])
    ]


def courses(content: Content, found: list[tables.Row]) -> alt.TopLevelMixin:
    """Draw the similarity over time between the ceilings; points are times that survive the correction."""
    rows = slim(found, "architecture", "condition", "time", *COLUMNS)
    for row in rows:
        row["time"] = round(1000 * row["time"])
    first = rows[0]["architecture"], rows[0]["condition"]
    ceilings = [row for row in rows if (row["architecture"], row["condition"]) == first]
    x = alt.X("time:Q", title="time after onset (ms)", axis=alt.Axis(grid=False))
    colour = condition_colour(content, rows)
    chart, bounds = alt.Chart(alt.Data(values=rows)), alt.Chart(alt.Data(values=ceilings))
    layers = [
        *(
            bounds.mark_line(color=INK, opacity=0.55, strokeWidth=1.2, strokeDash=dash).encode(
                x=x, y=alt.Y(f"{side}_ceiling:Q", title=TITLE)
            )
            for side, dash in DASHES.items()
        ),
        chart.mark_line(strokeWidth=1.6).encode(
            x=x, y=alt.Y("r:Q", title=TITLE), color=colour, detail="architecture:N"
        ),
        chart.mark_circle(size=26, opacity=1)
        .transform_filter(f"datum.p_largest <= {LEVEL}")
        .encode(x=x, y="r:Q", color=colour),
    ]
    return alt.layer(*layers).properties(width=560, height=280)


def cortices(content: Content, found: list[tables.Row]) -> alt.TopLevelMixin:
    """Draw the similarity of each cell to both cortices, with SD, between the ceilings of the human one."""
    means = {(row["architecture"], row["condition"], row["measure"]): row["mean"] for row in found}
    rows: list[tables.Row] = []
    for row in found:
        if row["measure"] in CORTICES and row["mean"] is not None:
            cell, sd = (row["architecture"], row["condition"]), row["sd"] or 0
            numbers = {"mean": row["mean"], "low": row["mean"] - sd, "high": row["mean"] + sd}
            numbers |= {side: means.get((*cell, f"similarity_it_ceiling_{side}")) for side in ("lower", "upper")}
            rows.append({"architecture": cell[0], "condition": cell[1], "whose": CORTICES[row["measure"]]} | numbers)
    conditions = across(content, rows)[1]
    y = alt.Y("condition:N", title=None, sort=conditions, axis=alt.Axis(grid=True))
    offset = alt.YOffset("whose:N")
    colour = alt.Color("whose:N", title=None, scale=palette(CORTICES.values(), CONDITIONS))
    chart = alt.Chart()
    layers = [
        *(
            chart.mark_rule(color=INK, opacity=0.55, strokeDash=dash).encode(x=f"mean({side}):Q")
            for side, dash in DASHES.items()
        ),
        chart.mark_rule(strokeWidth=1.4).encode(y=y, yOffset=offset, x="low:Q", x2="high:Q", color=colour),
        chart.mark_circle(size=42, opacity=1).encode(y=y, yOffset=offset, x=alt.X("mean:Q", title=TITLE), color=colour),
    ]
    names = ("architecture", "condition", "whose", "mean", "low", "high", *DASHES)
    return side_by_side(content, slim(rows, *names), layers, height=24 * len(conditions))


def similarity_figures(content: Content) -> list[Figure]:
    """Return a figure for each examination against a cortex or over time, none where there is none."""
    found, measured = similarity_rows(content), tables.measure_rows(content)
    figures: list[Figure] = []
    for label in tables.examination_plans(content):
        own = [row for row in measured if row["attack"] == label]
        if any(row["measure"] in CORTICES and row["mean"] is not None for row in own):
            text = (
                "Spearman's correlation of a network's dissimilarities of 92 objects with those of human (mean over "
                "four people) and monkey inferior temporal cortex, mean over seeds at the last epoch ± 1 SD. Grey: the "
                "noise ceilings of the human one, the upper one dashed; p is in the table."
            )
            title = f"Representational similarity to inferior temporal cortex, {label}"
            figures.append(
                Figure(f"similarity-{label}", title, text, ("measures",), configured(cortices(content, own)))
            )
        over_time = [row for row in found if row["label"] == label]
        if over_time:
            text = (
                "Spearman's correlation of a network's dissimilarities of the images with those of the EEG, of the "
                "first seed of each cell. Grey: the noise ceilings; the upper one (dashed) is 0.5 where four parts of "
                f"the recordings have nothing in common. Points: p ≤ {LEVEL:g} after correction for all times, by "
                "permutation of the images."
            )
            title = f"Representational similarity over time, {label}"
            figures.append(
                Figure(f"similarity-{label}", title, text, ("similarity",), configured(courses(content, over_time)))
            )
    return figures
