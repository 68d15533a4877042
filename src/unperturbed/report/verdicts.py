"""What the tests say: claims, contrasts and associations as rows, and the answer in three sentences, from the data."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from unperturbed.records import Variable
from unperturbed.report import tables
from unperturbed.report.content import Content
from unperturbed.report.numbers import RHO, decimals, interval, percent, probability, signed
from unperturbed.report.numbers import spread as with_spread
from unperturbed.statistics import Arm, ClaimResult, Interval, Relation, Row

DIRECTIONS = {"greater": "greater", "less": "less", "none": "no difference"}
SIDES = {"greater": "above 0", "less": "below 0", None: "neither"}  # where a correlation lies


def claims_rows(content: Content) -> list[dict[str, Any]]:
    """Return one row per claim: verdict, reason, and the numbers of its decisive contrast, ours and published.

    Of an association the effect is the correlation and n the number of networks; it has no attack, measure or sides.
    """
    rows: list[dict[str, Any]] = []
    stated = {claim.id: claim for claim in content.study.claims}
    for claim in content.decisions.claims:
        own, decisive = stated[claim.id], claim.decisive if isinstance(claim.decisive, Row) else None
        about = own if own.contrasts and not isinstance(claim.decisive, Relation) else None
        low, high = bounds(claim.interval)
        rows.append(
            {
                "id": claim.id,
                "says": claim.says,
                "verdict": claim.verdict,
                "attack": about.attack if about else None,
                "measure": about.measure if about else None,
                "left_attack": decisive.left.attack or own.attack if decisive else None,
                "right_attack": decisive.right.attack or own.attack if decisive else None,
                "reason": claim.reason,
                "contrast": claim.decisive.words if claim.decisive else None,
                "effect": claim.effect,
                "low": low,
                "high": high,
                "p": claim.p,
                "p_adjusted": claim.p_adjusted,
                "n": claim.n,
                "left": decisive.left.mean if decisive else None,
                "right": decisive.right.mean if decisive else None,
                "published_left": claim.published.left.mean if claim.published else None,
                "published_right": claim.published.right.mean if claim.published else None,
                "published_epoch": claim.published.left.epoch if claim.published else None,
                "published_p": tables.finite(claim.published.p) if claim.published else None,
                "margin": claim.margin,
            }
        )
    return rows


def contrast_rows(content: Content) -> list[dict[str, Any]]:
    """Return one row per contrast and epoch, primary ones first within a claim, with the published values beside."""
    rows: list[dict[str, Any]] = []
    stated = {claim.id: claim for claim in content.study.claims}
    for row in content.decisions.rows:
        (low, high), (narrow_low, narrow_high) = bounds(row.interval), bounds(row.equivalence)
        published = row.published
        rows.append(
            {
                "claim": row.claim,
                "primary": row.primary,
                "contrast": row.words,
                "left_architecture": row.left.architecture,
                "left_condition": row.left.condition,
                "right_architecture": row.right.architecture,
                "right_condition": row.right.condition,
                "left_attack": row.left.attack or stated[row.claim].attack,
                "right_attack": row.right.attack or stated[row.claim].attack,
                "measure": stated[row.claim].measure,
                "left_epoch": row.left.epoch,
                "right_epoch": row.right.epoch,
                "expected": DIRECTIONS[row.expect],
                "detected": DIRECTIONS[row.detected or "none"],
                "outcome": row.outcome,
                "left_mean": tables.finite(row.left.mean),
                "left_sd": tables.finite(row.left.sd),
                "left_n": row.left.n,
                "right_mean": tables.finite(row.right.mean),
                "right_sd": tables.finite(row.right.sd),
                "right_n": row.right.n,
                "n": row.n,
                "paired": row.paired,
                "difference": tables.finite(row.difference),
                "low": low,
                "high": high,
                "equivalence_low": narrow_low,
                "equivalence_high": narrow_high,
                "p": tables.finite(row.p),
                "p_adjusted": tables.finite(row.p_adjusted),
                "p_welch": tables.finite(row.p_welch),
                "p_sign_flip": tables.finite(row.p_sign_flip),
                "effect_size": tables.finite(row.effect_size),
                "power": tables.finite(row.power),
                "published_left": published.left.mean if published else None,
                "published_left_sd": tables.finite(published.left.sd) if published else None,
                "published_right": published.right.mean if published else None,
                "published_right_sd": tables.finite(published.right.sd) if published else None,
                "published_epoch": published.left.epoch if published else None,
                "published_p": tables.finite(published.p) if published else None,
                "reason": row.reason,
                "margin": tables.finite(row.margin),
            }
        )
    return rows


def association_rows(content: Content) -> list[dict[str, Any]]:
    """Return one row per association of the claims, in their order.

    ``pearson`` has the p of networks that are independent, which they are not; ``slope`` is that of the model with
    mixed effects, in standard deviations, None where it is not estimable. Neither decides. With a ``rival``, ``rho`` is
    the difference of two correlations, and there is nothing beside its interval. ``subjects`` are people whose
    responses belong to the networks, None where nothing was recorded.
    """
    rows: list[dict[str, Any]] = []
    for found in content.decisions.relations:
        asked = found.association
        low, high = bounds(found.interval)
        slope_low, slope_high = bounds(found.mixed.interval)
        rows.append(
            {
                "claim": found.claim,
                "primary": found.primary,
                "association": found.words,
                "x": str(asked.x),
                "y": str(asked.y),
                "held": str(asked.control) if asked.control else None,
                "architecture": asked.architecture,
                "expected": SIDES[asked.expect],
                "detected": SIDES[found.detected],
                "outcome": found.outcome,
                "rho": tables.finite(found.rho),
                "low": low,
                "high": high,
                "p": tables.finite(found.p),
                "networks": found.n,
                "conditions": found.clusters,
                "reason": found.reason,
                "pearson": tables.finite(found.pearson.r),
                "p_pearson": tables.finite(found.pearson.p),
                "slope": tables.finite(found.mixed.slope),
                "slope_low": slope_low,
                "slope_high": slope_high,
                "p_slope": tables.finite(found.mixed.p),
                "rival": str(asked.rival) if asked.rival else None,
                "subjects": found.subjects or None,
                "resampled": "conditions and subjects" if found.crossed else "conditions",
            }
        )
    return rows


def called(content: Content, variable: Variable) -> str:
    """Return a variable as a reader writes it: attacks are under, examinations are by."""
    word = "by" if variable.attack in tables.examination_plans(content) else "under"
    return f"{tables.name_of(variable.measure)} {word} {variable.attack}"


def sentence(content: Content, found: Relation) -> str:
    """Return an association in words: the correlation, its interval, and of how many networks and conditions."""
    asked = found.association
    held = f", with {called(content, asked.control)} held constant," if asked.control else ""
    p = f", p {equals(found.p)} by exchanging conditions" if tables.finite(found.p) is not None else ""
    says = {"greater": "they rise together", "less": "one falls as the other rises", None: "no direction is shown"}
    if asked.rival is not None:
        more = {"greater": "the first is greater", "less": "the second is greater", None: "no difference is shown"}
        return (
            f"Over {found.over}, Spearman's {RHO} of {called(content, asked.x)} and {called(content, asked.y)}, less "
            f"that of {called(content, asked.rival)} and the same, is {signed(found.rho, 2)} "
            f"({1 - content.decisions.alpha:.0%} interval {interval(*bounds(found.interval), 2)}): "
            f"{more[found.detected]}."
        )
    return (
        f"Over {found.over}, Spearman's {RHO} of {called(content, asked.x)} and "
        f"{called(content, asked.y)}{held} is {signed(found.rho, 2)} ({1 - content.decisions.alpha:.0%} interval "
        f"{interval(*bounds(found.interval), 2)}{p}): {says[found.detected]}."
    )


def bounds(found: Interval | None) -> tuple[float | None, float | None]:
    """Return the two ends of an interval, None where it does not exist."""
    return (tables.finite(found.low), tables.finite(found.high)) if found else (None, None)


def answer(content: Content) -> tuple[str, str, str]:
    """Return the answer: how the claims fared, the main contrast with its numbers, and the catch."""
    return tally(content), main_contrast(content), catch(content)


def tally(content: Content) -> str:
    """Return how many claims are supported, contradicted and undecided."""
    claims = content.decisions.claims
    counts = Counter(claim.verdict for claim in claims)
    noun = "claim" if len(claims) == 1 else "claims"
    parts = [
        f"{counts[verdict]} {'is' if counts[verdict] == 1 else 'are'} {verdict}"
        for verdict in ("supported", "contradicted", "undecided")
    ]
    return (
        f"Of {len(claims)} {noun}, {parts[0]}, {parts[1]} and {parts[2]} (tests at level {content.decisions.alpha:g} "
        f"after Holm's correction, {seeds(content)} per cell)."
    )


def seeds(content: Content) -> str:
    """Return how many seeds the study has, in words; how many a test could use is said beside the test."""
    count = len(content.study.seeds)
    return f"{count} seed{'' if count == 1 else 's'}"


def main_row(content: Content) -> tuple[ClaimResult, Row] | None:
    """Return the first primary contrast of the main measure under the main attack that was measured, with its claim."""
    main = tables.main_attack(content), tables.main_measure(content)
    about_it = {claim.id for claim in content.study.claims if (claim.attack, claim.measure) == main}
    results = (claim for claim in content.decisions.claims if claim.id in about_it)
    return next(((claim, row) for claim in results for row in claim.rows if row.primary), None)


def main_contrast(content: Content) -> str:
    """Return the main contrast in words: both means, the difference with its interval and p, and its company."""
    found = main_row(content)
    if found is None:
        related = next((relation for relation in content.decisions.relations if relation.primary), None)
        return sentence(content, related) if related else "No contrast that would decide a claim has been measured yet."
    claim, row = found
    measure = tables.name_of(tables.main_measure(content))
    under = "" if row.left.attack and row.right.attack else f" under {tables.main_attack(content)}"
    if row.left.attack or row.right.attack:
        under += " where no other attack is named" if under else ""
    text = (
        f"The main contrast is {row.words}: {measure}{under} is {value(row.left)} against "
        f"{value(row.right)}, a difference of {signed(row.difference)} ({1 - content.decisions.alpha:.0%} interval "
        f"{interval(*bounds(row.interval))}, adjusted p {equals(row.p_adjusted)}, n = {row.n}"
        f"{' pairs' if row.paired else ''})"
    )
    primary = [other for other in claim.rows if other.primary]
    alike = sum(math.copysign(1, other.difference) == math.copysign(1, row.difference) for other in primary)
    if len(primary) > 1:
        text += f"; {alike} of the {len(primary)} primary contrasts of {claim.id} point this way"
    return text + "."


def equals(p: float | None) -> str:
    """Return a p-value as it stands in a sentence."""
    text = probability(p)
    return text if text.startswith("<") else f"= {text}"


def value(arm: Arm) -> str:
    """Return mean and standard deviation of one side."""
    return with_spread(tables.finite(arm.mean), tables.finite(arm.sd))


def catch(content: Content) -> str:
    """Return what limits the main contrast: other attacks on the same cells, accuracy to begin with, the recipe."""
    found = main_row(content)
    if found is None and any(relation.primary for relation in content.decisions.relations):
        return not_comparable(content, "The catch: what goes with robustness over conditions need not be its cause")
    if found is None:
        return "The catch: nothing can be said before both cells of a contrast have been trained and attacked."
    _, row = found
    attack = tables.main_attack(content)
    if cell(row.left) == cell(row.right):
        return not_comparable(content, "The catch: both sides are the same networks, so what differs is the attack")
    if row.match is not None:
        text = f"The catch: {row.right.what} stands for what its networks reach at equal {row.match.on}, interpolated "
        return not_comparable(
            content, text + f"between two of them; {row.match.seeds} of {row.match.of} seeds have a match"
        )
    if row.right.condition not in content.study.conditions:
        text = f"The catch: {row.right.what} is a number that was published or asked for, which has no error of its own"
        return not_comparable(content, text)
    found_by, measure = tables.summaries(content), tables.main_measure(content)
    others: list[str] = []
    reversed_under: list[str] = []
    for other in tables.labels(content):
        keys = [(arm.architecture, arm.condition, arm.epoch, other, measure) for arm in (row.left, row.right)]
        left, right = (found_by[key].mean if key in found_by else math.nan for key in keys)
        if other == attack or not math.isfinite(left - right):
            continue
        others.append(f"{decimals(left)} and {decimals(right)} under {other}")
        if (left - right) * row.difference < 0:
            reversed_under.append(other)
    if others:
        text = f"The catch: {attack} is one attack, and the same two cells reach {', '.join(others)}"
        text += f" (the order is reversed under {', '.join(reversed_under)})" if reversed_under else " (the same order)"
    else:
        text = f"The catch: these cells were attacked with {attack} only"
    clean = tables.clean_accuracy(content)
    starts = [clean.get((arm.architecture, arm.condition, arm.epoch, attack), {}) for arm in (row.left, row.right)]
    text += (
        f"; before any perturbation they classify {percent(starts[0].get('mean'))} and "
        f"{percent(starts[1].get('mean'))} of the test images, and {tables.name_of(measure)} is "
        f"{'' if measure in tables.RELATIVE else 'not '}relative to that"
    )
    return not_comparable(content, text)


def cell(arm: Arm) -> tuple[str, str, int]:
    """Return which networks one side of a contrast is about."""
    return arm.architecture, arm.condition, arm.epoch


def not_comparable(content: Content, text: str) -> str:
    """Return the sentence, ended by what keeps the numbers from being compared with the published ones."""
    if content.study.comparable:
        return text + "."
    return (
        text + "; recipe, data or epochs are not the published ones, so compare directions with the source, not sizes."
    )
