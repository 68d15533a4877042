"""The tables of measures as text: the main one by epoch, and all of them at the last epochs."""

from __future__ import annotations

from unperturbed.report import tables
from unperturbed.report.content import Content
from unperturbed.report.eeg import gains_view
from unperturbed.report.numbers import MISSING, decimals, percent, signed, whole
from unperturbed.report.numbers import spread as with_spread
from unperturbed.report.views import Column, Group, Line, Measures, Text, View, per, texts


def robustness_views(content: Content) -> list[Group]:
    """Return, per architecture, one table per condition in the layout of the paper's tables."""
    rows = tables.robustness_rows(content)
    numbered = {
        (row["architecture"], row["condition"]): row["published_table"] for row in rows if row["published_table"]
    }
    groups: dict[str, list[View]] = {}
    images: dict[str, set[int]] = {}
    for architecture, condition in tables.cells(content):
        own = [row for row in rows if (row["architecture"], row["condition"]) == (architecture, condition)]
        beside = any(row["published_mean"] is not None for row in own)
        heads = (Column("epoch", "number"), Column("mean", "number"), Column("SD", "number"), Column("n", "number"),
                 Column("f(ε₀)", "number"))  # fmt: skip
        heads += (Column("published", "number"), Column("deviation", "number")) if beside else ()
        lines: list[Line] = []
        for row in own:
            cells = texts(str(row["epoch"]), decimals(row["mean"]), decimals(row["sd"]), whole(row["n"]),
                          percent(row["clean"]))  # fmt: skip
            if beside:
                cells += (
                    Text(
                        decimals(row["published_mean"])
                        if row["published_sd"] is None
                        else with_spread(row["published_mean"], row["published_sd"])
                    ),
                    Text(signed(row["deviation"], 1), kind="far" if row["far"] else ""),
                )
            lines.append(Line(cells))
        table = numbered.get((architecture, condition))
        remark = f"(paper: Table {table})" if table else "(control)" if condition in content.study.controls else ""
        if not lines:
            lines = [Line(texts(*[MISSING] * len(heads)))]
        groups.setdefault(architecture, []).append(View(heads, lines, caption=condition, remark=remark))
        images.setdefault(architecture, set()).update(row["images"] for row in own if row["images"])
    return [Group(name, views, per(images[name])) for name, views in groups.items()]


def measures_view(content: Content) -> Measures:
    """Return all measures at the last epochs, one table per attack and examination, a column per measure."""
    rows = tables.measure_rows(content)
    views: dict[str, View] = {}
    for attack in ["", *tables.labels(content)]:
        own = [row for row in rows if row["attack"] == attack]
        names = list(dict.fromkeys(row["measure"] for row in own))
        if not names:
            continue
        columns = (Column("condition", "whole"), Column("epoch", "number"), Column("n", "number"),
                   *(Column(heading(name, own), "number") for name in names))  # fmt: skip
        lines: list[Line] = []
        architecture = None
        for cell in tables.cells(content):
            found = {row["measure"]: row for row in own if (row["architecture"], row["condition"]) == cell}
            if cell[0] != architecture:
                architecture = cell[0]
                lines.append(Line(texts(architecture), kind="group"))
            some = next(iter(found.values()), None)
            lines.append(
                Line(
                    (
                        *texts(
                            cell[1],
                            str(some["epoch"]) if some else MISSING,
                            whole(max(row["n"] for row in found.values())) if found else MISSING,
                        ),
                        *(
                            Text(measured(row["mean"], row), below=spread_below(row, content))
                            if (row := found.get(name))
                            else Text(MISSING)
                            for name in names
                        ),
                    )
                )
            )
        caption, remark = caption_of(content, attack)
        views[attack] = View(columns, lines, caption=caption, remark=remark)
    main = views.pop(tables.main_attack(content), View((Column("condition"),), []))
    gains = gains_view(content)
    return Measures(main, [*views.values(), *([gains] if gains else [])])


def caption_of(content: Content, label: str) -> tuple[str, str]:
    """Return what stands over the table of one attack or examination; the latter's function where it is named apart."""
    plan = tables.examination_plans(content).get(label)
    if plan is None:
        return (f"Under {label}" if label else "Without an attack"), ""
    name = plan.examination.name
    return f"Examination: {label}", "" if name in (label, label.replace("-", "_")) else f"({name})"


def heading(measure: str, rows: list[tables.Row]) -> str:
    """Return the name of a measure with its unit and, where there is one, the better direction."""
    row = next(row for row in rows if row["measure"] == measure)
    arrow = {"higher": " ↑", "lower": " ↓"}.get(row["better"], "")
    return tables.name_of(measure) + (f" ({row['unit']})" if row["unit"] not in ("", "fraction") else "") + arrow


def measured(value: float | None, row: tables.Row) -> str:
    """Return a measured number: fractions of images as percentages, all else with four decimals."""
    return percent(value) if row["unit"] == "fraction" else decimals(value)


def spread_below(row: tables.Row, content: Content) -> tuple[str, ...]:
    """Return the standard deviation and, where a measure is not defined for every seed, for how many it is."""
    few = row["n"] < len(content.study.seeds)
    return (f"± {measured(row['sd'], row)}", *((f"n = {row['n']}",) if few else ()))
