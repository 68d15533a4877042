"""Which published claims survive: contrasts become outcomes, and outcomes a verdict, by a rule that can be printed.

The rule is `rule`'s text. Beside it:

* The family of Holm's correction is every primary row of the study that was computed; all secondary rows that were
  computed are a second family. Intervals are not adjusted.
* A claim is reported by one row, its decisive one: the weakest (largest adjusted p, then largest p) among the primary
  rows whose outcome is the verdict; among all primary rows if none has it.
* "No difference" is supported by an interval, never by a large p alone (two one-sided tests, Schuirmann 1987, Journal
  of Pharmacokinetics and Biopharmaceutics 15, 657-680). A difference that is found, although smaller than the margin,
  leaves it undecided: the same numbers never support both "greater" and "no difference".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from unperturbed.records import Claim, Measurement, Outcome, SpecError, Study
from unperturbed.statistics.contrasts import Arm, Published, Row, Settings, Values, measure
from unperturbed.statistics.intervals import RESAMPLES, Interval
from unperturbed.statistics.significance import holm

# A network that classifies every test image and not one perturbed image has R = 0.0208 on the published grid: less than
# this is not a difference in robustness. Three quarters of the published standard deviations over seeds are smaller.
MARGIN = 0.02


@dataclass(frozen=True)
class ClaimResult:
    """What became of a claim; its numbers are those of its decisive row, ``None`` where there is no such number."""

    id: str
    says: str
    verdict: Outcome
    decisive: Row | None
    reason: str  # what stands in the way of support; empty for a claim supported by all seeds
    rows: tuple[Row, ...]  # primary rows first

    @property
    def effect(self) -> float | None:
        """Mean left - mean right in the unit of the measure (R); not standardised."""
        return None if self.decisive is None else self.decisive.difference

    @property
    def interval(self) -> Interval | None:
        """The interval of the effect, confidence 1 - alpha, not adjusted."""
        row = self.decisive
        return None if row is None or math.isnan(row.interval.low) else row.interval

    @property
    def p(self) -> float | None:
        """Two-sided p of the effect."""
        return None if self.decisive is None else _number(self.decisive.p)

    @property
    def p_adjusted(self) -> float | None:
        """The same after Holm's correction over the primary rows of the study."""
        return None if self.decisive is None else _number(self.decisive.p_adjusted)

    @property
    def n(self) -> int:
        """Seeds per cell, the smaller number where they differ; 0 without a row."""
        return 0 if self.decisive is None else self.decisive.n

    @property
    def published(self) -> Published | None:
        """What the source prints for the two cells."""
        return None if self.decisive is None else self.decisive.published

    def plain(self) -> dict[str, Any]:
        """Return what ``--json`` prints: numbers, texts, lists and ``None`` only."""
        published, interval = self.published, self.interval
        return {
            "id": self.id,
            "says": self.says,
            "verdict": self.verdict,
            "effect": self.effect,
            "interval": None if interval is None else list(interval),
            "p": self.p,
            "p_adjusted": self.p_adjusted,
            "n": self.n,
            "published": None
            if published is None
            else {"left": _plain(published.left), "right": _plain(published.right), "p": _number(published.p)},
        }


@dataclass(frozen=True)
class Decisions:
    """All claims of a study, the rule by which they were decided, and its constants."""

    claims: tuple[ClaimResult, ...]
    rule: str
    alpha: float
    margin: float

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows of all claims, in the order of the claims."""
        return tuple(row for claim in self.claims for row in claim.rows)


def rule(*, alpha: float = 0.05, margin: float = MARGIN) -> str:
    """Return the rule in words."""
    return (
        "A contrast is the difference of two means over seeds at one epoch. It is tested by a paired t test on matched "
        "seeds (Welch's test where the two cells share no initial weights), two-sided, with p adjusted by Holm over "
        "all primary contrasts of the study that were run. "
        f"A contrast claimed to be greater or less is supported when its adjusted p is below {alpha:g} in the claimed "
        f"direction, contradicted when it is below {alpha:g} in the opposite direction, and undecided otherwise. "
        f"A claimed absence of difference is supported when the {1 - 2 * alpha:.0%} interval of the difference lies "
        f"inside -{margin:g} to {margin:g} and no difference is found (adjusted p not below {alpha:g}), contradicted "
        f"when a difference is found and that interval lies wholly beyond {margin:g} on one side, and undecided "
        "otherwise. "
        "A claim is supported when all its primary contrasts are, contradicted when any of them is, and undecided "
        "otherwise. A contrast that was not run, has fewer than two seeds or no spread among them supports and "
        "contradicts nothing. The numbers shown for a claim are those of the weakest contrast that has its verdict, "
        "the one with the largest adjusted p."
    )


def decide(
    study: Study,
    measurements: Sequence[Measurement],
    *,
    alpha: float = 0.05,
    margin: float = MARGIN,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Decisions:
    """Return the verdict on each claim of a study.

    Args:
        study: the claims, their contrasts and the published values.
        measurements: what was measured; rows of other measures or attacks than a claim's are no part of it.
        alpha: level of the tests after correction, in (0, 0.5); intervals have confidence 1 - alpha.
        margin: largest difference that counts as none, in the unit of the claims' measure (R), above 0.
        resamples: of each bootstrap interval.
        seed: of each bootstrap interval.

    Raises:
        SpecError: alpha or margin out of range; two values of the same measure of one network.
    """
    if not 0 < alpha < 0.5:
        raise SpecError(f"alpha: expected a number between 0 and 0.5, got {alpha}; 0.05 is usual.")
    if not margin > 0:
        raise SpecError(f"margin: expected a difference above 0, got {margin}; for R, {MARGIN} is the default.")
    values = Values(measurements)
    settings = Settings(alpha=alpha, resamples=resamples, seed=seed)
    rows: list[Row] = []
    gaps: dict[str, list[str]] = {claim.id: [] for claim in study.claims}
    for claim in study.claims:
        for contrast in claim.contrasts:
            measured = measure(study, claim, contrast, values, settings=settings)
            rows += measured.rows
            gaps[claim.id] += measured.gaps if contrast.primary else ()
    decided = [
        *_decide_family([row for row in rows if row.primary], alpha=alpha, margin=margin),
        *_decide_family([row for row in rows if not row.primary], alpha=alpha, margin=margin),
    ]
    return Decisions(
        claims=tuple(
            _result(claim, tuple(row for row in decided if row.claim == claim.id), gaps[claim.id])
            for claim in study.claims
        ),
        rule=rule(alpha=alpha, margin=margin),
        alpha=alpha,
        margin=margin,
    )


def _decide_family(rows: Sequence[Row], *, alpha: float, margin: float) -> list[Row]:
    decided: list[Row] = []
    for row, p_adjusted in zip(rows, holm([row.p for row in rows]), strict=True):
        detected: Literal["greater", "less"] | None = None
        if p_adjusted < alpha:
            detected = "greater" if row.difference > 0 else "less"
        decided.append(replace(row, p_adjusted=p_adjusted, detected=detected, outcome=_outcome(row, detected, margin)))
    return decided


def _outcome(row: Row, detected: Literal["greater", "less"] | None, margin: float) -> Outcome:
    if row.equivalence is None:
        if detected is None:
            return "undecided"
        return "supported" if detected == row.expect else "contradicted"
    low, high = row.equivalence
    if detected is None and -margin < low and high < margin:
        return "supported"
    if detected is not None and (low > margin or high < -margin):
        return "contradicted"
    return "undecided"


def _result(claim: Claim, rows: tuple[Row, ...], gaps: Sequence[str]) -> ClaimResult:
    primary = [row for row in rows if row.primary]
    outcomes = {row.outcome for row in primary}
    verdict: Outcome = "undecided"
    if "contradicted" in outcomes:
        verdict = "contradicted"
    elif outcomes == {"supported"} and not gaps:
        verdict = "supported"
    having = [row for row in primary if row.outcome == verdict]
    return ClaimResult(
        id=claim.id,
        says=claim.says,
        verdict=verdict,
        decisive=max(having or primary, key=_weakness, default=None),
        reason=_reason(primary, verdict, gaps),
        rows=rows,
    )


def _weakness(row: Row) -> tuple[float, float]:
    """Return a key that is largest for the least certain row; a test that is not defined is the least certain."""
    return (2.0, 2.0) if math.isnan(row.p) else (row.p_adjusted, row.p)


def _reason(primary: Sequence[Row], verdict: Outcome, gaps: Sequence[str]) -> str:
    parts = list(dict.fromkeys(gaps))
    for row in primary:
        problems = [row.reason] if row.reason else []
        if row.outcome == verdict != "supported" and not math.isnan(row.p):
            problems.insert(0, _shortfall(row))
        if problems:
            parts.append(f"{_pair(row)}: {', '.join(problems)}")
    if not primary and not gaps:
        parts.append("the study names no primary contrast for it")
    return "; ".join(parts)


def _shortfall(row: Row) -> str:
    if row.expect == "none" and row.outcome == "undecided":
        if row.detected is None:
            return "no difference found, but one larger than the margin is not excluded"
        return f"found {row.detected}, but not shown to be larger than the margin"
    words = {"none": "no difference", None: "no difference"}
    return f"expected {words.get(row.expect, row.expect)}, found {words.get(row.detected, row.detected)}"


def _pair(row: Row) -> str:
    left, right = row.left, row.right
    if (left.architecture, left.epoch) == (right.architecture, right.epoch):
        return f"{left.architecture} {left.what} vs {right.what} at epoch {left.epoch}"
    sides = (f"{arm.architecture} {arm.what} at epoch {arm.epoch}" for arm in (left, right))
    return " vs ".join(sides)


def _plain(arm: Arm) -> dict[str, Any]:
    return {**arm._asdict(), "sd": _number(arm.sd)}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
