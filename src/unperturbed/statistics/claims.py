"""Which published claims survive: contrasts become outcomes, and outcomes a verdict, by a rule that can be printed.

The rule is `rule`'s text. Beside it:

* The family of Holm's correction is every primary row of the study that was computed; all secondary rows that were
  computed are a second family. Intervals are not adjusted.
* A claim is reported by one row, its decisive one: the weakest (largest adjusted p, then largest p) among the primary
  rows whose outcome is the verdict; among all primary rows if none has it.
* "No difference" is supported by an interval, never by a large p alone (two one-sided tests, Schuirmann 1987, Journal
  of Pharmacokinetics and Biopharmaceutics 15, 657-680). A difference that is found, although smaller than the margin,
  leaves it undecided: the same numbers never support both "greater" and "no difference".
* Equal numbers at every seed have no interval, and their spread of 0 is no measure of how certain they are: two
  networks may be equal by chance where accuracies are coarse or at their floor. What n equal seeds do show is a sign
  test: if at least half of all networks differed, n of them would all be equal with a chance of 2^-n at most.
* A claim said to be exact is about a number without chance, such as the exponent of the spectrum of the images: where
  all seeds have the same one, there is nothing to test. Where they do not, it is tested as any other.
* An association is decided by its interval alone: of 5 conditions no p by permutation is below 1 / 120, and Holm's
  correction would leave nothing of a few such associations. Neither its interval nor its p is adjusted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from unperturbed.records import Claim, Measurement, Outcome, SpecError, Study
from unperturbed.statistics.associations import Relation, relate
from unperturbed.statistics.contrasts import Arm, Published, Row, Settings, measure
from unperturbed.statistics.intervals import RESAMPLES, Interval
from unperturbed.statistics.significance import holm
from unperturbed.statistics.subjects import subjects_of
from unperturbed.statistics.values import Values

# A network that classifies every test image and not one perturbed image has R = 0.0208 on the published grid: less than
# this is not a difference in robustness. Three quarters of the published standard deviations over seeds are smaller.
MARGIN = 0.02


@dataclass(frozen=True)
class ClaimResult:
    """What became of a claim; its numbers are those of its decisive part, ``None`` where there is no such number."""

    id: str
    says: str
    verdict: Outcome
    decisive: Row | Relation | None
    reason: str  # what stands in the way of support, or how else than by its interval it came; else empty
    margin: float | None  # the largest difference that counts as none; ``None`` where a direction is claimed
    rows: tuple[Row, ...]  # of its contrasts, primary rows first
    relations: tuple[Relation, ...] = ()  # of its associations

    @property
    def effect(self) -> float | None:
        """Mean left - mean right in the unit of the measure (R); not standardised. Of an association Spearman's rho."""
        return None if self.decisive is None else _number(self.decisive.effect)

    @property
    def interval(self) -> Interval | None:
        """The interval of the effect, confidence 1 - alpha, not adjusted."""
        row = self.decisive
        return None if row is None or math.isnan(row.interval.low) else row.interval

    @property
    def p(self) -> float | None:
        """Two-sided p of the effect, of an association by permutation."""
        return None if self.decisive is None else _number(self.decisive.p)

    @property
    def p_adjusted(self) -> float | None:
        """The same after Holm's correction over the primary rows of the study; ``None`` of an association."""
        return None if self.decisive is None else _number(self.decisive.p_adjusted)

    @property
    def n(self) -> int:
        """Seeds per cell, the smaller number where they differ; of an association networks; 0 without a row."""
        return 0 if self.decisive is None else self.decisive.n

    @property
    def published(self) -> Published | None:
        """What the source prints for the two cells."""
        return None if self.decisive is None else self.decisive.published

    def plain(self) -> dict[str, Any]:
        """Return what ``--json`` prints: numbers, texts, lists and ``None`` only."""
        published, interval = self.published, self.interval
        plain = {
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
            "margin": self.margin,
        }
        if isinstance(self.decisive, Relation):
            plain |= {"conditions": self.decisive.clusters, "subjects": self.decisive.subjects}
        return plain


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

    @property
    def relations(self) -> tuple[Relation, ...]:
        """All associations of all claims, in the order of the claims."""
        return tuple(relation for claim in self.claims for relation in claim.relations)


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
        "otherwise. Where two cells are equal at every matched seed there is no interval; that they do not differ is "
        f"then supported by {enough(alpha)} seeds or more: if half of all networks differed, n of them would all be "
        f"equal with a chance of 2^-n, which is below {alpha:g} for so many. "
        "A claim is supported when all its primary contrasts are, contradicted when any of them is, and undecided "
        "otherwise. A contrast that was not run, has fewer than two seeds or, but for that, no spread among them "
        "supports and contradicts nothing. The numbers shown for a claim are those of the weakest contrast that has "
        "its verdict, the one with the largest adjusted p."
    )


# What `rule` says besides of a study that has such contrasts, or associations.
EXACT = "A number without chance, which is the same at every seed, decides by itself and is no part of the correction."
MATCHED = (
    "A sweep stands for the value that it has, at each seed, where it equals the other network in the matching measure "
    "(interpolated between two neighbours along it); a seed whose network lies beyond its ends is left out."
)
OWN_MARGINS = "A margin that a claim names takes the place of this one: {margins}."
ASSOCIATED = (
    "An association is Spearman's correlation over all networks, partial where it has a control, and counts as a "
    "contrast of its claim. It is supported when its {confidence:.0%} interval, from resampling whole conditions, lies "
    "on the expected side of 0, contradicted when it lies on the other side, and undecided otherwise. Neither the "
    "interval nor the p, from exchanging whole conditions, is adjusted for the number of associations."
)
CROSSED = (
    "Where networks of several conditions share a subject, and there are at least 4 subjects, these are resampled as "
    "well as conditions, so that an interval is about other subjects too."
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
        margin: largest difference that counts as none where a claim names no margin of its own, in the unit of its
            measure (R), above 0.
        resamples: of each bootstrap interval.
        seed: of each bootstrap interval.

    Raises:
        SpecError: alpha or margin out of range; two values of the same measure of one network.
    """
    if not 0 < alpha < 0.5:
        raise SpecError(f"alpha: expected a number between 0 and 0.5, got {alpha}; 0.05 is usual.")
    if not margin > 0:
        raise SpecError(f"margin: expected a difference above 0, got {margin}; for R, {MARGIN} is the default.")
    values, subjects = Values(measurements), subjects_of(study)
    settings = Settings(alpha=alpha, resamples=resamples, seed=seed)
    rows: list[Row] = []
    relations: dict[str, list[Relation]] = {claim.id: [] for claim in study.claims}
    gaps: dict[str, list[str]] = {claim.id: [] for claim in study.claims}
    for claim in study.claims:
        for contrast in claim.contrasts:
            measured = measure(study, claim, contrast, values, settings=settings)
            rows += measured.rows
            gaps[claim.id] += measured.gaps if contrast.primary else ()
        for association in claim.associations:
            relation, gap = relate(claim, association, values, subjects, settings=settings)
            relations[claim.id] += [relation] if relation else []
            gaps[claim.id] += [gap] if gap and association.primary else []
    margins = {claim.id: claim.margin or margin for claim in study.claims}
    rows = [replace(row, margin=margins[row.claim]) if row.expect == "none" else row for row in rows]
    decided = [
        *_decide_family([row for row in rows if row.primary], alpha=alpha),
        *_decide_family([row for row in rows if not row.primary], alpha=alpha),
    ]
    return Decisions(
        claims=tuple(
            _result(
                claim,
                tuple(row for row in decided if row.claim == claim.id),
                tuple(relations[claim.id]),
                gaps[claim.id],
                margin=margins[claim.id],
            )
            for claim in study.claims
        ),
        rule=_whole_rule(study, alpha=alpha, margin=margin),
        alpha=alpha,
        margin=margin,
    )


def _whole_rule(study: Study, *, alpha: float, margin: float) -> str:
    """Return the rule, with what it says of own margins, matched contrasts and associations where a study has them."""
    parts = [rule(alpha=alpha, margin=margin)]
    if own := [f"{claim.margin:g} in {claim.measure} for {claim.id}" for claim in study.claims if claim.margin]:
        parts.append(OWN_MARGINS.format(margins=", ".join(own)))
    if any(claim.exact for claim in study.claims):
        parts.append(EXACT)
    if any(contrast.right.condition in study.sweeps for claim in study.claims for contrast in claim.contrasts):
        parts.append(MATCHED)
    if any(claim.associations for claim in study.claims):
        parts.append(ASSOCIATED.format(confidence=1 - alpha))
        parts += [CROSSED] if subjects_of(study) else []
    return " ".join(parts)


def enough(alpha: float) -> int:
    """Return how many seeds must be equal to show that most networks are: the least n with 2^-n below alpha.

    >>> enough(0.05), enough(0.01)
    (5, 7)
    """
    return math.floor(-math.log2(alpha)) + 1


def _decide_family(rows: Sequence[Row], *, alpha: float) -> list[Row]:
    decided: list[Row] = []
    tests = [row.p for row in rows if not row.exact]
    adjusted = iter(holm(tests))
    for row in rows:
        p_adjusted = math.nan if row.exact else next(adjusted)
        detected: Literal["greater", "less"] | None = None
        if p_adjusted < alpha or (row.exact and row.difference != 0):
            detected = "greater" if row.difference > 0 else "less"
        outcome, reason = _outcome(row, detected, alpha), row.reason
        if row.tied and row.expect == "none" and outcome == "undecided":
            reason += f", and {enough(alpha)} equal ones would show the absence of a difference"
        decided.append(replace(row, p_adjusted=p_adjusted, detected=detected, outcome=outcome, reason=reason))
    return decided


def _outcome(row: Row, detected: Literal["greater", "less"] | None, alpha: float) -> Outcome:
    if row.exact:
        as_claimed = abs(row.difference) < row.margin if row.expect == "none" else detected == row.expect
        return "supported" if as_claimed else "contradicted"
    if row.equivalence is not None and row.tied:
        return "supported" if row.n >= enough(alpha) else "undecided"
    if row.equivalence is None:
        if detected is None:
            return "undecided"
        return "supported" if detected == row.expect else "contradicted"
    (low, high), margin = row.equivalence, row.margin
    if detected is None and -margin < low and high < margin:
        return "supported"
    if detected is not None and (low > margin or high < -margin):
        return "contradicted"
    return "undecided"


def _result(
    claim: Claim, rows: tuple[Row, ...], relations: tuple[Relation, ...], gaps: Sequence[str], *, margin: float
) -> ClaimResult:
    primary = [part for part in (*rows, *relations) if part.primary]
    outcomes = {part.outcome for part in primary}
    verdict: Outcome = "undecided"
    if "contradicted" in outcomes:
        verdict = "contradicted"
    elif outcomes == {"supported"} and not gaps:
        verdict = "supported"
    having = [part for part in primary if part.outcome == verdict]
    return ClaimResult(
        id=claim.id,
        says=claim.says,
        verdict=verdict,
        decisive=max(having or primary, key=_weakness, default=None),
        reason=_reason(primary, verdict, gaps),
        margin=margin if any(contrast.expect == "none" for contrast in claim.contrasts) else None,
        rows=rows,
        relations=relations,
    )


def _weakness(part: Row | Relation) -> tuple[float, float]:
    """Return a key that is largest for the least certain part; a test that is not defined is the least certain."""
    if math.isnan(part.p):
        return (2.0, 2.0)
    return (part.p if math.isnan(part.p_adjusted) else part.p_adjusted, part.p)


def _reason(primary: Sequence[Row | Relation], verdict: Outcome, gaps: Sequence[str]) -> str:
    parts = list(dict.fromkeys(gaps))
    alike: dict[str, list[Row | Relation]] = {}
    for part in primary:
        problems = [part.reason] if part.reason else []
        if part.outcome == verdict != "supported" and not math.isnan(part.interval.low):
            problems.insert(0, _shortfall(part))
        if problems:
            alike.setdefault(", ".join(problems), []).append(part)
    parts += [f"{words}: {problem}" for problem, those in alike.items() for words in _together(those)]
    if not primary and not gaps:
        parts.append("the study names no primary contrast for it")
    return "; ".join(parts)


def _together(parts: Sequence[Row | Relation]) -> list[str]:
    """Return the words of contrasts, those of one cell with several others at one epoch as one."""
    others: dict[tuple[str, str], list[str]] = {}
    for part in parts:
        start, other, end = part.parts if isinstance(part, Row) else (part.words, "", "")
        others.setdefault((start, end), []).append(other)
    return [
        f"{start}{', '.join(names[:-1])}{' and ' if names[1:] else ''}{names[-1]}{end}"
        for (start, end), names in others.items()
    ]


def _shortfall(part: Row | Relation) -> str:
    words = {"none": "no difference", None: "no difference"}
    if isinstance(part, Relation):
        what = "a correlation" if part.association.rival is None else "a difference of correlations"
        words = {"greater": f"{what} above 0", "less": "one below 0", None: "an interval with 0 inside"}
        return f"expected {words[part.association.expect]}, found {words[part.detected]}"
    if part.expect == "none" and part.outcome == "undecided":
        if part.detected is None:
            return f"no difference found, but one larger than the margin {part.margin:g} is not excluded"
        return f"found {part.detected}, but not shown to be larger than the margin {part.margin:g}"
    return f"expected {words.get(part.expect, part.expect)}, found {words.get(part.detected, part.detected)}"


def _plain(arm: Arm) -> dict[str, Any]:
    return {**arm._asdict(), "sd": _number(arm.sd)}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
