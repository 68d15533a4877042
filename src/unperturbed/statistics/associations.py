"""One association over the networks of a study: its points, the rank correlation, and what of it is certain.

A point is a network that has all measures; its cluster is its condition (of its architecture), and the subject whose
responses belong to it crosses these where it has one. It is left out where a measure is missing or not defined. The
interval of the rank correlation decides; beside it stand Pearson's correlation, as studies publish it, and the slope of
a model with mixed effects, where conditions, architectures, seeds and subjects have intercepts of their own. Where two
correlations are compared, their difference and its interval are all there is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from unperturbed.records import Association, Claim, Outcome, Variable
from unperturbed.statistics.contrasts import Settings
from unperturbed.statistics.correlation_maps import group_difference
from unperturbed.statistics.intervals import Interval
from unperturbed.statistics.linear_association import Pearson, Slope, mixed_effects, pearson
from unperturbed.statistics.rank_correlation import (
    FEWEST,
    cluster_bootstrap,
    cluster_permutation,
    seeds_match,
    spearman,
)
from unperturbed.statistics.subjects import Subjects, crossing
from unperturbed.statistics.values import Values, at


class Point(NamedTuple):
    """One network of an association, with its values: x, y and, where there is one, the control or the rival."""

    architecture: str
    condition: str
    seed: int
    epoch: int
    values: tuple[float, ...]
    subject: str = ""  # whose responses belong to it; empty where nothing was recorded

    @property
    def cluster(self) -> tuple[str, str]:
        """The networks that differ from this one in the seed only."""
        return self.architecture, self.condition


@dataclass(frozen=True)
class Relation:
    """An association as it was measured. Numbers that do not exist for it are NaN."""

    claim: str
    association: Association
    points: tuple[Point, ...]
    rho: float  # with a rival: less the rival's
    interval: Interval  # confidence 1 - alpha
    p: float  # by permutation of conditions
    reason: str = ""  # why nothing is decided, or what was left out
    p_adjusted: float = math.nan  # never adjusted: the interval decides
    published: None = None  # nor is a published correlation set beside it
    pearson: Pearson = field(default_factory=Pearson)  # with the p of independent networks
    mixed: Slope = field(default_factory=Slope)  # with the interval of the same confidence

    @property
    def n(self) -> int:
        """The number of networks."""
        return len(self.points)

    @property
    def clusters(self) -> int:
        """The number of conditions that these come from."""
        return len({point.cluster for point in self.points})

    @property
    def subjects(self) -> int:
        """The number of people whose responses belong to them; 0 where nothing was recorded."""
        return len({point.subject for point in self.points} - {""})

    @property
    def crossed(self) -> bool:
        """Whether people were resampled beside conditions."""
        return crossing([point.cluster for point in self.points], [point.subject for point in self.points]) is not None

    @property
    def over(self) -> str:
        """The numbers in words."""
        counts = ((self.clusters, "condition"), (self.subjects, "subject"))
        of = " and ".join(f"{count} {noun}{'s' * (count > 1)}" for count, noun in counts if count)
        return f"{self.n} network{'' if self.n == 1 else 's'} of {of}"

    @property
    def effect(self) -> float:
        """The correlation, or the difference of two."""
        return self.rho

    @property
    def primary(self) -> bool:
        """Whether it decides the claim."""
        return self.association.primary

    @property
    def detected(self) -> Literal["greater", "less"] | None:
        """On which side of 0 the interval lies."""
        if self.interval.low > 0:
            return "greater"
        return "less" if self.interval.high < 0 else None

    @property
    def outcome(self) -> Outcome:
        """Whether the interval lies on the expected side of 0, on the other one, or holds 0."""
        if self.detected is None:
            return "undecided"
        return "supported" if self.detected == self.association.expect else "contradicted"

    @property
    def words(self) -> str:
        """Which measures are related, over what, and when."""
        asked = self.association
        held = "" if asked.control is None else f" given {asked.control}"
        pair = f"{asked.x} with" if asked.rival is None else f"{asked.x} less {asked.rival}, each with"
        epochs = sorted({point.epoch for point in self.points})
        return (
            f"{pair} {asked.y}{held} over {self.over} at epoch{'s' if len(epochs) > 1 else ''} "
            f"{', '.join(map(str, epochs))}"
        )


def relate(
    claim: Claim, association: Association, values: Values, subjects: Subjects, *, settings: Settings
) -> tuple[Relation | None, str]:
    """Return the association as it was measured, or ``None`` and why there is none."""
    cells = values.cells(association.architecture)
    found = [point for cell in cells for point in _points(cell, cells, association, values, subjects)]
    points = tuple(point for point in found if np.isfinite(point.values).all())
    if not points:
        where = f" of {association.architecture}" if association.architecture else ""
        names = ", ".join(map(str, _variables(association)))
        return None, f"no network{where} has all of {names} (epoch: {association.epoch})"
    x, y, *third = zip(*(point.values for point in points), strict=True)
    clusters = [point.cluster for point in points]
    conditions = set(clusters)
    confidence, resampled = 1 - settings.alpha, {"resamples": settings.resamples, "seed": settings.seed}
    remarks: list[str] = []
    if missing := ["/".join(cell) for cell in cells if cell not in conditions]:
        remarks.append(f"conditions without all of these measures are left out: {', '.join(missing)}")
    if undefined := len(found) - len(points):
        remarks.append(f"networks for which one of these is not defined are left out: {undefined}")
    people = [point.subject for point in points]
    crossed = crossing(clusters, people)
    if crossed is None and 0 < (few := len(set(people) - {""})) < FEWEST:
        remarks.append(f"fewer than {FEWEST} subjects ({few}): nothing is inferred about other ones")
    if association.rival is not None:
        one, other = (np.reshape(values, (-1, 1)) for values in (x, third[0]))
        compared = group_difference(one, other, y, clusters, crossed=crossed, confidence=confidence, **resampled)
        remarks += _lacking(compared.difference, compared.interval, len(conditions), certain="both are the same")
        reason = "; ".join(remarks)
        return Relation(claim.id, association, points, compared.difference, compared.interval, math.nan, reason), ""
    control = third[0] if third else None
    rho = spearman(x, y, control=control)
    interval = cluster_bootstrap(x, y, clusters, crossed=crossed, control=control, confidence=confidence, **resampled)
    remarks += _lacking(rho, interval, len(conditions), certain="(nearly) all networks are in perfect order")
    matched = seeds_match(clusters, [point.seed for point in points])
    if not matched:
        remarks.append("conditions differ in their seeds: no p by permutation")
    p = cluster_permutation(x, y, clusters, control=control, seed=settings.seed) if matched else math.nan
    groups = [point.architecture for point in points], [point.seed for point in points], people
    relation = Relation(
        claim.id,
        association,
        points,
        rho,
        interval,
        p,
        reason="; ".join(remarks),
        pearson=pearson(x, y, control=control),
        mixed=mixed_effects(x, y, clusters, others=groups, control=control, confidence=confidence),
    )
    return relation, ""


def _lacking(rho: float, interval: Interval, conditions: int, *, certain: str) -> list[str]:
    """Return why there is no correlation, or none that can be decided about."""
    if math.isnan(rho):
        return ["a measure does not vary: a correlation is not defined"]
    if math.isnan(interval.low):
        why = f"fewer than {FEWEST} conditions" if conditions < FEWEST else certain
        return [f"{why}: no interval, and nothing is decided"]
    return []


def _variables(association: Association) -> list[Variable]:
    asked = association
    return [each for each in (asked.x, asked.y, asked.control, asked.rival) if each is not None]


def _points(
    cell: tuple[str, str],
    cells: Iterable[tuple[str, str]],
    association: Association,
    values: Values,
    subjects: Subjects,
) -> Iterable[Point]:
    """Return the networks of a cell that have all measures, at the epoch among those of its architecture."""
    variables = _variables(association)
    alike = [other for other in cells if other[0] == cell[0]]
    evaluated = {epoch for other in alike for variable in variables for epoch in values.of(variable, *other)}
    for epoch in at(association.epoch, sorted(evaluated)):
        measured = [values.of(variable, *cell).get(epoch, {}) for variable in variables]
        for seed in sorted(set.intersection(*(set(seeds) for seeds in measured))):
            subject = subjects.get((*cell, seed), "")
            yield Point(*cell, seed, epoch, tuple(seeds[seed] for seeds in measured), subject)
