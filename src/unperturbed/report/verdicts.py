"""What the tests say: the claims and contrasts as rows, and the answer in three sentences, all from the data."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from unperturbed.report import tables
from unperturbed.report.content import Content
from unperturbed.report.numbers import decimals, interval, percent, probability, signed
from unperturbed.report.numbers import spread as with_spread
from unperturbed.statistics import Arm, ClaimResult, Interval, Row

DIRECTIONS = {"greater": "greater", "less": "less", "none": "no difference"}


def claims_rows(content: Content) -> list[dict[str, Any]]:
    """Return one row per claim: verdict, reason, and the numbers of its decisive contrast, ours and published."""
    rows: list[dict[str, Any]] = []
    stated = {claim.id: claim for claim in content.study.claims}
    for claim in content.decisions.claims:
        decisive = decisive_row(claim)
        low, high = bounds(claim.interval)
        rows.append(
            {
                "id": claim.id,
                "says": claim.says,
                "verdict": claim.verdict,
                "attack": stated[claim.id].attack,
                "measure": stated[claim.id].measure,
                "left_attack": decisive.left.attack or stated[claim.id].attack if decisive else None,
                "right_attack": decisive.right.attack or stated[claim.id].attack if decisive else None,
                "reason": claim.reason,
                "contrast": between(decisive) if decisive else None,
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
                "contrast": between(row),
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
            }
        )
    return rows


def decisive_row(claim: ClaimResult) -> Row | None:
    """Return the contrast whose numbers stand for the claim."""
    same = [row for row in claim.rows if row.primary and tables.finite(row.difference) == claim.effect]
    return next((row for row in same if tables.finite(row.p_adjusted) == claim.p_adjusted), None)


def bounds(found: Interval | None) -> tuple[float | None, float | None]:
    """Return the two ends of an interval, None where it does not exist."""
    return (tables.finite(found.low), tables.finite(found.high)) if found else (None, None)


def between(row: Row) -> str:
    """Return which two cells a contrast compares, and when."""
    left, right = row.left, row.right
    if (left.architecture, left.epoch) == (right.architecture, right.epoch):
        return f"{left.architecture} {left.what} vs {right.what} at epoch {left.epoch}"
    return " vs ".join(f"{arm.architecture} {arm.what} at epoch {arm.epoch}" for arm in (left, right))


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
        return "No contrast that would decide a claim has been measured yet."
    claim, row = found
    measure = tables.name_of(tables.main_measure(content))
    under = "" if row.left.attack and row.right.attack else f" under {tables.main_attack(content)}"
    if row.left.attack or row.right.attack:
        under += " where no other attack is named" if under else ""
    text = (
        f"The main contrast is {between(row)}: {measure}{under} is {value(row.left)} against "
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
    if found is None:
        return "The catch: nothing can be said before both cells of a contrast have been trained and attacked."
    _, row = found
    attack = tables.main_attack(content)
    if cell(row.left) == cell(row.right):
        return not_comparable(content, "The catch: both sides are the same networks, so what differs is the attack")
    measured = {(r["architecture"], r["condition"], r["attack"]): r for r in tables.attack_rows(content)}
    others: list[str] = []
    reversed_under: list[str] = []
    for other in tables.attacks(content):
        sides = [measured.get((arm.architecture, arm.condition, other), {}) for arm in (row.left, row.right)]
        left, right = (side.get("mean") for side in sides)
        if other == attack or left is None or right is None:
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
        f"{percent(starts[1].get('mean'))} of the test images, and {tables.name_of(tables.main_measure(content))} is "
        f"{'' if tables.main_measure(content) in tables.RELATIVE else 'not '}relative to that"
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
