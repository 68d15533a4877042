"""Mean, standard deviation and number of seeds of every measured cell, and how far it is from the printed one.

The standard deviation has ``n - 1`` degrees of freedom; it is NaN for one seed. A value that is not defined for a seed
(R of a network that classifies nothing) makes its mean NaN too, so that it is seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from unperturbed.records import Measurement, PublishedValue


class Summary(NamedTuple):
    """One measure over the seeds of one cell at one epoch."""

    architecture: str
    condition: str
    epoch: int
    attack: str
    measure: str
    mean: float
    sd: float
    n: int
    unit: str
    better: str


class Comparison(NamedTuple):
    """A summary beside the printed value of the same cell and epoch."""

    ours: Summary
    published: PublishedValue
    difference: float  # ours - published
    deviation: float  # the difference in published standard deviations; NaN where the source prints none above 0


def summarise(measurements: Iterable[Measurement]) -> tuple[Summary, ...]:
    """Return one summary per (architecture, condition, epoch, attack, measure), in the order of first appearance."""
    groups: dict[tuple[str, str, int, str, str], list[Measurement]] = {}
    for row in measurements:
        groups.setdefault((row.architecture, row.condition, row.epoch, row.attack, row.measure), []).append(row)
    return tuple(
        Summary(
            *key,
            mean=float(np.mean([row.value for row in rows])),
            sd=float(np.std([row.value for row in rows], ddof=1)) if len(rows) > 1 else float("nan"),
            n=len(rows),
            unit=rows[0].unit,
            better=rows[0].better,
        )
        for key, rows in groups.items()
    )


def compare(summaries: Iterable[Summary], published: Sequence[PublishedValue]) -> tuple[Comparison, ...]:
    """Return each summary for which the source prints a value at the same epoch, beside that value.

    Whether the two may be set side by side is for the study to say (``Study.comparable``).
    """
    printed = {(row.architecture, row.condition, row.epoch, row.attack, row.measure): row for row in published}
    comparisons: list[Comparison] = []
    for ours in summaries:
        theirs = printed.get((ours.architecture, ours.condition, ours.epoch, ours.attack, ours.measure))
        if theirs is not None:
            difference = ours.mean - theirs.mean
            deviation = difference / theirs.sd if theirs.sd else float("nan")
            comparisons.append(Comparison(ours, theirs, difference=difference, deviation=deviation))
    return tuple(comparisons)
