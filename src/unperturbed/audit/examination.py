"""The questions that an audit asks of a case, in their order: the suite, the doubts, and the doubts once more.

Sources: as in :mod:`unperturbed.audit.auditing`.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from unperturbed.attacks import Classifier
from unperturbed.attacks.protocols import autoattack
from unperturbed.audit import doubts
from unperturbed.audit.actions import FROZEN, Followed
from unperturbed.audit.budgets import Budget
from unperturbed.audit.case import Case, Guide
from unperturbed.audit.record import ITSELF, Attempt, Flag, Norm
from unperturbed.audit.verdict import resolve

OnUpdate = Callable[[str, float, float | None], None]
"""Told what is being done, which fraction of the work is done, and the seconds left if they can be told."""


class Asked(NamedTuple):
    """What an audit was asked."""

    classifier: Classifier
    images: Tensor
    labels: Tensor
    norm: Norm
    eps: float
    budget: Budget
    twin: Classifier | None
    surrogate: Classifier | None
    traits: tuple[str, ...]
    seed: int
    batch_size: int | None


class Clock:
    """Tells how far the audit is."""

    def __init__(self, on_update: OnUpdate) -> None:
        self._tell = on_update
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time since the audit began."""
        return time.perf_counter() - self._began

    def __call__(self, words: str, fraction: float) -> None:
        """Say what comes now, and which fraction of the work is done."""
        left = self.seconds / fraction * (1 - fraction) if fraction >= 0.1 else None
        self._tell(words, fraction, left)


def run_suite(case: Case, asked: Asked, clock: Clock, *, blind: bool) -> list[str]:
    """Run the attacks of the budget, each on what the earlier ones left; return remarks.

    Without a gradient only the first: the others would walk at random, too. Towards nine classes in turn, with many
    draws at every step, is no way to attack a random classifier.
    """
    eot: dict[str, Any] = {"eot": 4 if asked.budget.name == "quick" else 20} if case.random else {}
    suite = [member for member in asked.budget.suite if not (case.random and member[0] == "apgd_targeted")]
    for number, (attack, settings) in enumerate(suite[: 1 if blind else None]):
        clock(f"the suite: {attack}", 0.10 + 0.25 * number / len(asked.budget.suite))
        case.attempt(attack, stage="suite", **settings, **eot)
    if asked.budget.protocol is None:
        return []
    rows = case.correct()
    clock("AutoAttack", 0.3)
    protocol = "rand" if case.random else asked.budget.protocol
    result = autoattack(
        case.deployed,
        case.images[rows],
        case.labels[rows],
        version=protocol,
        norm=case.norm,
        eps=case.eps,
        seed=case.seed,
    )
    share = len(rows) / len(case.labels)
    before = share
    for row in result.attacks:
        case.attempts.append(
            Attempt(
                f"autoattack {protocol}: {row.name}",
                "suite",
                ITSELF,
                {},
                before,
                row.accuracy * share,
                row.attacked,
                row.broke,
                row.forwards,
                row.backwards,
                row.seconds,
            )
        )
        before = row.accuracy * share
    case.take(rows, result.images, f"autoattack {protocol}", None)
    return [
        f"AutoAttack {protocol}: {result.robust_accuracy * share:.1%} robust accuracy, settings {result.digest[:12]}.",
        *result.remarks,
    ]


def doubt(case: Case, asked: Asked, *, usual: Case, plain: float, clock: Clock, blind: bool) -> list[Flag]:
    """Return the checks that attack, of the number that the suite left.

    Args:
        case: what they look at.
        asked: what the audit was asked.
        usual: where the plain attack was made; another case where the answers depend on the batch.
        plain: the accuracy that it left.
        clock: told how far the work is.
        blind: whether the model's own gradient leads nowhere.
    """
    spent = asked.budget
    clock("doubting: one step, losses", 0.36)
    flags = [doubts.one_step(usual, plain), doubts.losses(case, spent)]
    clock("doubting: large eps", 0.40)
    flags += doubts.of_the_ladder(case, doubts.ladder(case, None, subset=spent.subset), "the model itself")
    clock("doubting: more steps, more restarts", 0.44)
    if not blind:
        flags += _more(case, spent)
    clock("doubting: black box", 0.50)
    flags.append(_black_box(case, spent))
    flags.append(_transfer(case, asked))
    clock("doubting: the path of the loss", 0.56)
    flags += doubts.trace(case)
    flags.append(doubts.freeze(case, spent, case.accuracy))
    flags.append(
        Flag(
            "C9",
            "the worst case of every image",
            f"What is reported is the worst image over {len(case.attempts)} attacks, not the mean of one.",
            float(len(case.attempts)),
            None,
            False,
            "by construction: every attack starts from what the others left",
            "",
        )
    )
    return flags


def _more(case: Case, spent: Budget, guide: Guide | None = None) -> list[Flag]:
    start = case.accuracy
    longest = max((int(settings.get("steps", 0)) for _, settings in spent.suite), default=50)
    case.attempt("apgd", stage="check", guide=guide, steps=2 * longest, loss="ce", label="apgd, twice the steps")
    more_steps = doubts.fell(
        case, "C1", "more steps still help", start, after=case.accuracy, what="Twice the steps", remedy="more steps"
    )
    start, rows = case.accuracy, case.standing(spent.subset)
    standing = len(case.standing())
    case.attempt("pgd", stage="check", guide=guide, rows=rows, steps=20, restarts=10, label="pgd, ten restarts")
    share = standing / max(len(rows), 1)  # what the subset would mean for all that stand
    restarts = doubts.fell(
        case,
        "C8",
        "more restarts still help",
        start,
        after=start - share * (start - case.accuracy),
        what=f"Ten restarts on {len(rows)} of {standing} images, scaled up,",
        remedy="more restarts",
    )
    return [more_steps, restarts]


def _black_box(case: Case, spent: Budget) -> Flag:
    start = case.accuracy
    case.attempt("square", stage="check", queries=spent.queries)
    case.attempt("noise_search", stage="check", draws=spent.noise)
    return doubts.fell(
        case,
        "C6",
        "the black box beats the gradient",
        start,
        after=case.accuracy,
        what=f"Square with {spent.queries} queries and {spent.noise} random points",
        remedy="the gradient is masked: go through variants, average it, ask the black box for more",
    )


def _transfer(case: Case, asked: Asked) -> Flag:
    if asked.twin is None:
        return doubts.skipped("C7", "transfer beats the white box", "no undefended twin was given")
    start = case.accuracy
    twin = Guide("the undefended twin", asked.twin, alone=True)
    # To the largest loss: what just fools the twin is still far from fooling the deployed classifier.
    case.attempt("pgd", stage="check", guide=twin, steps=50, loss="margin", persist=True, label="transfer")
    return doubts.fell(
        case,
        "C7",
        "transfer beats the white box",
        start,
        after=case.accuracy,
        what="Transfer from the undefended twin",
        remedy="the gradient is masked: go through the twin and other variants",
    )


def doubt_again(
    case: Case, asked: Asked, flags: list[Flag], followed: Followed, *, suite: float, clock: Clock
) -> list[Flag]:
    """Check the final adversary as the first one was checked, and say which doubts it removed."""
    winner = followed.winner
    clock("doubting the final attack", 0.78)
    through = winner.name if winner is not None else "the model itself"
    again = doubts.of_the_ladder(case, doubts.ladder(case, winner, subset=asked.budget.subset), through)
    again += _more(case, asked.budget, guide=winner)
    again.append(_black_box(case, asked.budget))
    still = {flag.id for flag in again if flag.fired}
    asked_before = {flag.id for flag in flags}
    value = suite - case.accuracy
    fired = winner is not None and value > doubts.POINT
    flags = [
        *flags,
        *(flag for flag in again if flag.id not in asked_before),
        doubts.untransferred(case, winner),
        _frozen(case, followed),
        Flag(
            "E2",
            "another way in breaks more",
            f"Through {through} the accuracy falls from {suite:.1%} to {case.accuracy:.1%}."
            if fired
            else "No variant and no other way led further than the model's own gradient.",
            value,
            doubts.POINT,
            fired,
            "all ways tried on the images that stood; decided by the deployed classifier",
            "report the minimum over all ways in",
        ),
    ]
    return resolve(flags, works=not still, still=still)


def _frozen(case: Case, followed: Followed) -> Flag:
    name = "frozen draws lead further"
    after = next((standing.after for standing in followed.standings if standing.name == FROZEN), None)
    if not case.random or after is None:
        return doubts.skipped("E4", name, "the answers are not random")
    value = followed.before - after
    return Flag(
        "E4",
        name,
        f"Of the images on trial {followed.before:.1%} stood; after an attack through frozen draws {after:.1%}.",
        value,
        doubts.POINT,
        value > doubts.POINT,
        "PGD-20 through the classifier with the same draws at every pass",
        "follow it to the end",
    )
