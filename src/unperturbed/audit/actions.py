"""What is done about a doubt: the ways on which the deployed classifier may still be broken, tried and followed.

Source: the remedies of Athalye, Carlini & Wagner (2018), arXiv:1802.00420, sections 4.1 to 4.3, and of Tramer et al.
(2020), arXiv:2002.08347: attack the whole defence, with the simplest objective, through whatever gradient leads there.
Every way is tried on a few images that stand; those that break something are followed with full strength, and with more
steps as long as the number falls. Whatever a variant promises, the deployed classifier decides.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from unperturbed.attacks.classifier import Classifier
from unperturbed.audit.behaviour import Behaviour
from unperturbed.audit.budgets import Budget
from unperturbed.audit.case import Case, Guide
from unperturbed.audit.record import Flag, Standing
from unperturbed.audit.stand_ins import estimated, frozen, logarithm, smoothed
from unperturbed.audit.variants import Variant
from unperturbed.records import SpecError

POINT = 0.01
TRIAL_IMAGES = 48
FROZEN = "frozen draws"
TRIAL_STEPS = 20
RUGGED = {"I2", "C2", "C3", "C4", "C5", "C6", "C11", "E1", "I4", "I6"}  # doubts that averaging over noise may remove
BLIND = {"I1", "C4", "I6", "C6", "C11"}  # doubts about whether the gradient leads anywhere


class Route(NamedTuple):
    """A guide, what a trial through it left, and the variant that it came from."""

    guide: Guide
    after: float
    variant: Variant | None


@dataclass(frozen=True)
class Followed:
    """What the adaptive attacks found."""

    standings: tuple[Standing, ...]
    winner: Guide | None  # through which the number fell furthest; None: nothing beat the model's own gradient
    before: float = 0.0  # accuracy on the trial images before any trial


def adapt(
    case: Case,
    behaviour: Behaviour,
    flags: list[Flag],
    variants: tuple[Variant, ...],
    *,
    twin: Classifier | None,
    budget: Budget,
) -> Followed:
    """Try every way that the doubts suggest, follow the best ones, and ask the black box for more."""
    fired = {flag.id for flag in flags if flag.fired}
    rows = case.standing(TRIAL_IMAGES)
    routes = [_route(case, *pair, rows) for pair in _guides(case, behaviour, fired, variants, twin)]
    before = float(case.right[rows].mean()) if len(rows) else 0.0
    if fired & BLIND and min((route.after for route in routes), default=before) > before / 2:
        differences = estimated(case.deployed, sigma=_sigma(case), directions=32)
        guide = Guide("differences of logits", differences, says="gradient estimated from forwards alone")
        after = _trial(case, guide, rows)
        if after < min((route.after for route in routes), default=before):  # it costs 65 forwards a step
            routes.append(Route(guide, after, None))
    promising = sorted((route for route in routes if route.after < before - POINT), key=lambda route: route.after)
    # A trial is too short for a mean over draws to show what it is worth.
    followed = promising[: budget.routes] or [route for route in routes if route.guide.eot > 1]
    for route in followed:
        _follow(case, route.guide, budget)
    winner = followed[0].guide if followed else None
    for number in range(budget.rounds):
        case.refresh()
        start = case.accuracy
        if case.random:
            for route in followed[:1]:
                _follow(case, route.guide, budget)
        _insist(case, winner, budget, number)
        if start - case.accuracy <= POINT:
            break
    case.refresh()
    if fired & (BLIND | {"R1"}):
        case.attempt("square", stage="adaptive", queries=4 * budget.queries, label="square, more queries")
    chosen = {id(route) for route in followed}
    return Followed(tuple(_standing(route, id(route) in chosen) for route in routes), winner, before)


def _guides(
    case: Case, behaviour: Behaviour, fired: set[str], variants: tuple[Variant, ...], twin: Classifier | None
) -> list[tuple[Guide, Variant | None]]:
    guides: list[tuple[Guide, Variant | None]] = [
        (Guide(variant.name, variant.classifier, says=variant.says), variant) for variant in variants
    ]
    if behaviour.probabilities:
        says = "logarithm of the probabilities"
        guides.append((Guide("logarithm", logarithm(case.deployed), says=says), None))
    if twin is not None:
        guides.append((Guide("the undefended twin", twin, says="given: the same without the defence"), None))
    if case.random:
        guides.append(
            (Guide("mean over 16 draws", None, says="the model's own gradient, averaged (EOT)", eot=16), None)
        )
        guides.append((Guide(FROZEN, frozen(case.deployed, case.seed), says="the same draws at all passes"), None))
    if fired & RUGGED and behaviour.no_gradient is None and behaviour.zero_exact < 1:
        mean = smoothed(case.deployed, sigma=_sigma(case), draws=8)
        guides.append((Guide("mean over noise at the input", mean, says="nine points around the image"), None))
    return guides


def _sigma(case: Case) -> float:
    """Return the scale of noise at the input that is about half as long as the radius."""
    return case.eps / 2 if case.norm == "linf" else case.eps / 2 / case.images[0].numel() ** 0.5


def _route(case: Case, guide: Guide, variant: Variant | None, rows: Tensor) -> Route:
    """Return the guide, or the same alone if that leads further."""
    route = Route(guide, _trial(case, guide, rows), variant)
    if guide.passes is None or case.random or route.after == 0:
        return route
    alone = guide.by_itself()
    after = _trial(case, alone, rows)
    return Route(alone, after, variant) if after < route.after else route


def _trial(case: Case, guide: Guide, rows: Tensor) -> float:
    if len(rows) == 0:
        return 0.0
    try:
        found = case.perturb("pgd", rows, guide=guide, steps=TRIAL_STEPS, loss="margin", persist=_persists(case, guide))
    except SpecError:
        return 1.0
    right, _ = case.fraction_right(rows, found, "trial", guide.name)
    return float(right.mean())


def _follow(case: Case, guide: Guide, budget: Budget) -> None:
    for loss in ("margin", "ce"):
        start = case.accuracy
        if len(case.standing()):
            case.attempt(
                "pgd",
                stage="adaptive",
                guide=guide,
                steps=budget.steps,
                restarts=1 if case.random else budget.restarts,
                loss=loss,
                persist=_persists(case, guide),
                **_steadily(case, budget.steps),
            )
        if start - case.accuracy <= POINT:
            return


def _steadily(case: Case, steps: int) -> dict[str, Any]:
    """Return the settings with which PGD averages over the draws of a random classifier; none for another one."""
    return {"shrinking": True, "step_size": 10 * case.eps / steps} if case.random else {}


def _persists(case: Case, guide: Guide | None) -> bool:
    """Return whether an attack goes on to the largest loss: by luck, or alone, a first success may not be one."""
    return case.random or (guide is not None and guide.alone)


def _insist(case: Case, winner: Guide | None, budget: Budget, number: int) -> None:
    """Go on through the best guide: APGD, towards classes, and PGD with larger steps, longer every time."""
    steps = 2**number * budget.steps
    settings: dict[str, Any] = {"stage": "adaptive", "guide": winner}
    if len(case.standing()):
        case.attempt("apgd", steps=2 * steps, loss="ce", **settings)
    if len(case.standing()) and not case.random:
        case.attempt("apgd_targeted", steps=steps // 2, **settings)
    if len(case.standing()):
        large = {"steps": steps, "step_size": 10 * case.eps / steps, "shrinking": True}
        restarts = 1 if winner is not None and winner.eot > 1 else 4  # a mean over draws has cost enough
        case.attempt(
            "pgd",
            label="pgd, larger steps",
            loss="margin",
            restarts=restarts,
            persist=_persists(case, winner),
            **large,
            **settings,
        )


def _standing(route: Route, attacked: bool) -> Standing:
    variant = route.variant
    coherence = variant.coherence if variant is not None else None
    return Standing(
        name=route.guide.name,
        says=route.guide.says,
        clean_accuracy=variant.clean_accuracy if variant is not None else float("nan"),
        cosine=coherence.cosine if coherence is not None else None,
        sign_agreement=coherence.sign_agreement if coherence is not None else None,
        chance=coherence.chance if coherence is not None else None,
        attacked=attacked,
        after=route.after,
    )
