r"""What a sweep reaches where it equals another network in one measure: a contrast at equal clean accuracy, say.

Two conditions that differ in how they learn differ in much else, and what else may be why one of them is the more
robust. Here the right side of a contrast is a line instead of a point: conditions along which one setting is swept. Of
each seed, the line through the sweep's networks of that seed is read where it has the value :math:`m` that the left
network of the seed has in the matching measure:
:math:`y = y_k + (m - m_k) (y_{k+1} - y_k) / (m_{k+1} - m_k)`, between two neighbours along the sweep. Which two is
decided by the matching measure alone, never by the outcome.

A condition of the sweep that was not run is left out, as long as two are left, and the line goes past it.

There is no extrapolation: a network beyond both ends of the sweep is not matched. What is matched is the *measured*
value; where that is noisy (an accuracy of few images), so is the match.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from unperturbed.records import Cell, Sweep, Variable
from unperturbed.statistics.values import CellValues, SeedValues, Values


def interpolated(target: float, matches: Sequence[float], outcomes: Sequence[float]) -> float:
    """Return the outcome where a sweep has the match ``target``; NaN where it nowhere has it.

    Of several stretches that hold ``target`` (the sweep turns back) the shortest one counts, the first of equally short
    ones; where both ends of it have the same match, the mean of their outcomes.

    Args:
        target: the value of the matching measure.
        matches: its values along the sweep; NaN where there is none, and no stretch ends there.
        outcomes: as many values of what is compared.

    >>> interpolated(0.5, [0.8, 0.6, 0.4], [1.0, 2.0, 4.0]), interpolated(0.9, [0.8, 0.6, 0.4], [1.0, 2.0, 4.0])
    (3.0, nan)
    """
    found, shortest = math.nan, math.inf
    for (m0, y0), (m1, y1) in pairwise(zip(matches, outcomes, strict=True)):
        if min(m0, m1) <= target <= max(m0, m1) and abs(m1 - m0) < shortest:
            shortest = abs(m1 - m0)
            found = y0 + (y1 - y0) * ((target - m0) / (m1 - m0) if shortest > 0 else 0.5)
    return found


def matched(sweep: Sweep, outcome: Variable, left: Cell, values: Values) -> CellValues:
    """Return the outcome of the sweep matched to each network of ``left``; seeds without a match are left out."""

    def along(variable: Variable, epoch: int, seed: int) -> list[float]:
        cells = (values.of(variable, left.architecture, condition) for condition in sweep.conditions)
        return [cell.get(epoch, {}).get(seed, math.nan) for cell in cells]

    def of_epoch(epoch: int, targets: SeedValues) -> SeedValues:
        read = {
            seed: interpolated(target, along(sweep.match, epoch, seed), along(outcome, epoch, seed))
            for seed, target in targets.items()
        }
        return {seed: value for seed, value in read.items() if math.isfinite(value)}

    targets = values.of(sweep.match, left.architecture, left.condition)
    return {epoch: of_epoch(epoch, seeds) for epoch, seeds in targets.items()}
