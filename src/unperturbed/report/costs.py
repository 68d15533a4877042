"""What stages took: summed as rows, each as rows, and as the table of the page."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from unperturbed.report import tables
from unperturbed.report.content import Content
from unperturbed.report.numbers import duration, whole
from unperturbed.report.views import Column, Line, View, texts


def cost_rows(content: Content) -> list[tables.Row]:
    """Return what the stages took, summed per architecture and kind, with the number of stages and the devices."""
    groups: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
    for cost in content.costs:
        groups[cost.architecture, cost.kind].append(cost)
    kinds = list(dict.fromkeys(["training", *tables.labels(content), *(cost.kind for cost in content.costs)]))
    architectures = tables.ordered(content.study.architectures, (cost.architecture for cost in content.costs))
    return [
        {
            "architecture": architecture,
            "kind": kind,
            "stages": len(group),
            "seconds": math.fsum(cost.seconds for cost in group),
            "forwards": sum(cost.forwards for cost in group),
            "backwards": sum(cost.backwards for cost in group),
            "device": ", ".join(sorted({cost.device for cost in group})),
        }
        for architecture in architectures
        for kind in kinds
        if (group := groups.get((architecture, kind)))
    ]


def stage_rows(content: Content) -> list[tables.Row]:
    """Return what each single stage took."""
    names = ("architecture", "condition", "seed", "epoch", "kind", "seconds", "forwards", "backwards", "device")
    return [{name: getattr(cost, name) for name in names} for cost in content.costs]


def costs_view(content: Content) -> View:
    """Return what training and each attack took, per architecture, with totals."""
    columns = (Column("architecture", "whole"), Column("stage", "whole"), Column("stages", "number"),
               Column("time", "number"), Column("forward passes", "number"), Column("backward passes", "number"),
               Column("device", "whole"))  # fmt: skip
    rows = cost_rows(content)

    def line(name: str, kind: str, chosen: list[tables.Row], device: str) -> Line:
        sums = {key: sum(row[key] for row in chosen) for key in ("stages", "seconds", "forwards", "backwards")}
        return Line(texts(name, kind, whole(sums["stages"]), duration(sums["seconds"]), whole(sums["forwards"]),
                          whole(sums["backwards"]), device))  # fmt: skip

    lines = [line(row["architecture"], row["kind"], [row], row["device"]) for row in rows]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        lines.append(line("all", kind, [row for row in rows if row["kind"] == kind], ""))
    lines.append(line("all", "all", rows, "")._replace(kind="total"))
    return View(columns, lines)
