"""The audit: is this robustness real?

Sources: Carlini et al. (2019), arXiv:1902.06705; Athalye, Carlini & Wagner (2018), arXiv:1802.00420; Tramer et al.
(2020), arXiv:2002.08347; Pintor et al. (2022), arXiv:2106.09947; Croce & Hein (2020), arXiv:2003.01690. An audit
measures with a plain attack and with the suite, doubts the number by every check that applies, acts on each doubt
that is founded, and says what is left. Robust accuracy is never more than an upper bound; the verdict says whether
there is a reason to think that it is a loose one.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from unperturbed.attacks import Classifier, Passes
from unperturbed.attacks.batches import check_batch_size
from unperturbed.attacks.classifier import predict
from unperturbed.attacks.expectation import expectation
from unperturbed.attacks.inputs import check_eps, check_images, check_labels
from unperturbed.audit import answers
from unperturbed.audit.actions import Followed, adapt
from unperturbed.audit.behaviour import Behaviour, behaviour
from unperturbed.audit.budgets import budget as budget_of
from unperturbed.audit.case import Case
from unperturbed.audit.coherence import coherence
from unperturbed.audit.curve import Curve, curve
from unperturbed.audit.examination import Asked, Clock, OnUpdate, doubt, doubt_again, run_suite
from unperturbed.audit.findings import company, definitions, failures, modes, pictures, traits_found, versions
from unperturbed.audit.record import Audit, Flag, Norm, Randomness
from unperturbed.audit.stand_ins import alone
from unperturbed.audit.variants import Found, find
from unperturbed.audit.verdict import decide, resolve
from unperturbed.records import SpecError
from unperturbed.statistics import wilson
from unperturbed.tensors.norms import check_norm
from unperturbed.tensors.streams import seed_for, undisturbed

PROBED = 48  # images on which the answers are looked at
TRAITS = ("random", "vanishing", "shattered", "optimises")


def audit(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float | int,
    norm: str = "linf",
    budget: str = "standard",
    twin: Classifier | None = None,
    surrogate: Classifier | None = None,
    traits: Sequence[str] = (),
    seed: int = 0,
    batch_size: int | None = None,
    name: str = "classifier",
    data: str = "images",
    on_update: OnUpdate = lambda _words, _fraction, _left: None,
) -> Audit:
    """Return what is left of the classifier's accuracy within ``eps``, and whether that number can be believed.

    Args:
        classifier: images in [0, 1] to logits, deployed as it is; neither modified nor switched to another mode.
        images: (batch, channel, height, width), floating-point intensities in [0, 1].
        labels: the true classes.
        eps: radius, as a fraction of full scale.
        norm: ``linf`` or ``l2``.
        budget: ``quick`` (a minute for a small network), ``standard`` or ``headline`` (AutoAttack and more).
        twin: the same classifier without the defence, for a transfer attack.
        surrogate: a differentiable stand-in for the backward pass; others are looked for.
        traits: what the classifier is said to be: random, vanishing, shattered, optimises. It is measured all the same.
        seed: decides every random number of the audit; the global generators are left alone.
        batch_size: images at once; ``None``: found while working.
        name: of the classifier, for the record.
        data: what the images are, for the record.
        on_update: told how far the work is.

    Raises:
        SpecError: an argument or the classifier's logits are not as described.
    """
    check_images(images)
    check_labels(labels, len(images))
    check_norm(norm)
    check_eps(eps)
    check_batch_size(batch_size)
    _check(classifier, norm, eps, traits)
    chosen = budget_of(budget)
    clock = Clock(on_update)
    with undisturbed("audit", seed, device=images.device):
        asked = Asked(
            classifier=classifier,
            images=images,
            labels=labels,
            norm=cast(Norm, norm),
            eps=float(eps),
            budget=chosen,
            twin=twin,
            surrogate=surrogate,
            traits=tuple(traits),
            seed=seed,
            batch_size=batch_size,
        )
        return _audited(
            asked,
            name=name,
            data=data,
            clock=clock,
        )


class _Seen(NamedTuple):
    """The classifier before it is attacked."""

    behaviour: Behaviour
    found: Found
    flags: list[Flag]


def _audited(asked: Asked, *, name: str, data: str, clock: Clock) -> Audit:
    clock("looking at the answers", 0.02)
    seen, classifier = _look(asked)
    case = _case(asked, seen, classifier)
    clock("the plain attack", 0.05)
    # In company, if that matters: a plain evaluation shows the images in batches.
    usual = case if classifier is asked.classifier else _case(asked, seen, asked.classifier)
    usual.attempt("pgd", stage="plain", steps=20, loss="rounded_ce", label="plain pgd")
    plain = usual.accuracy
    if usual is not case:
        case.adopt(usual)
    clock("the suite", 0.10)
    remarks = [*modes(asked.classifier), *company(case, usual)]
    remarks += run_suite(case, asked, clock, blind=seen.behaviour.blind)
    suite = case.accuracy
    flags = seen.flags + doubt(case, asked, usual=usual, plain=plain, clock=clock, blind=seen.behaviour.blind)
    followed = Followed((), None)
    given = asked.surrogate is not None or asked.twin is not None
    if len(case.standing()) and (given or seen.found.variants or any(flag.fired for flag in flags)):
        clock("acting on the doubts", 0.60)
        followed = adapt(case, seen.behaviour, flags, seen.found.variants, twin=asked.twin, budget=asked.budget)
        flags = doubt_again(case, asked, flags, followed, suite=suite, clock=clock)
    if not len(case.standing()):  # no attack could leave less
        flags = resolve(flags, works=True, still=set())
    clock("the curve", 0.85)
    line = curve(case, followed.winner)
    clock("the verdict", 0.97)
    randomness = _randomness(case, asked) if case.random else None
    return _record(asked, case, seen, followed, flags, line, randomness, plain, suite, remarks, name, data, clock)


def _case(asked: Asked, seen: _Seen, classifier: Classifier) -> Case:
    votes = asked.budget.votes if seen.behaviour.random else 1
    place = (asked.images, asked.labels, asked.norm, asked.eps, asked.seed)
    return Case(Passes(classifier), *place, votes, asked.batch_size)


def _look(asked: Asked) -> tuple[_Seen, Classifier]:
    logits = predict(asked.classifier, asked.images[:PROBED], asked.labels[:PROBED])
    correct = (logits.argmax(dim=1) == asked.labels[:PROBED]).nonzero().squeeze(1)
    rows = correct if len(correct) >= 8 else torch.arange(min(PROBED, len(asked.images)), device=asked.images.device)
    images, labels = asked.images[rows], asked.labels[rows]
    classifier = asked.classifier
    seen = behaviour(classifier, images, labels, seed=asked.seed)
    if seen.looks_aside:
        classifier = alone(classifier)
    given = None if asked.surrogate is None else {"the given surrogate": asked.surrogate}
    step = asked.eps if asked.norm == "linf" else 8 / 255
    found = find(asked.classifier, images, labels, given=given, seed=asked.seed, step=step)
    agreement = None
    if seen.random and seen.no_gradient is None:
        agreement = coherence(classifier, images, labels, seed=asked.seed)
    flags = answers.doubts(seen, found.seen, agreement)
    return _Seen(seen, found, flags), classifier


def _randomness(case: Case, asked: Asked) -> Randomness:
    draws = asked.budget.fresh
    clean = expectation(
        case.deployed, case.images, case.labels, draws=draws, seed=seed_for("fresh", "clean", case.seed)
    )
    robust = expectation(
        case.deployed, case.worst, case.labels, draws=draws, seed=seed_for("fresh", "worst", case.seed)
    )
    low, high = robust.interval
    return Randomness(
        draws=draws,
        clean_mean=clean.mean,
        clean_sd=clean.single_sd,
        clean_vote=clean.vote,
        robust_mean=robust.mean,
        robust_sd=robust.single_sd,
        robust_vote=robust.vote,
        interval=(low, high),
    )


def _record(
    asked: Asked,
    case: Case,
    seen: _Seen,
    followed: Followed,
    flags: list[Flag],
    line: Curve,
    randomness: Randomness | None,
    plain: float,
    suite: float,
    remarks: list[str],
    name: str,
    data: str,
    clock: Clock,
) -> Audit:
    robust = case.accuracy if randomness is None else randomness.robust_mean
    clean = case.clean_accuracy if randomness is None else randomness.clean_mean
    if randomness is not None:
        flags = [*flags, *definitions(case, randomness)]
    low, high = wilson(robust, len(asked.labels)) if randomness is None else randomness.interval
    verdict, reasons = decide(flags, plain=plain, robust=robust)
    best = max(case.attempts, key=lambda attempt: attempt.before - attempt.after, default=None)
    settings = {**asked._asdict(), "budget": asdict(asked.budget)}
    for each in ("classifier", "images", "labels", "twin", "surrogate"):
        settings.pop(each)
    forwards, backwards = case.passes
    return Audit(
        name=name,
        data=data,
        n=len(asked.labels),
        classes=seen.behaviour.classes,
        norm=asked.norm,
        eps=asked.eps,
        budget=asked.budget.name,
        clean_accuracy=clean,
        robust_accuracy=robust,
        interval=(low, high),
        plain_accuracy=plain,
        suite_accuracy=suite,
        random=randomness,
        curve=line.points,
        R=line.R,
        R_upto=line.upto,
        critical_eps=line.critical,
        attacks=tuple(case.attempts),
        flags=tuple(flags),
        verdict=verdict,
        reasons=tuple(reasons),
        broken_by=None if best is None or best.broke == 0 else f"{best.name} through {best.through}",
        variants=followed.standings,
        pictures=pictures(case),
        remarks=(*remarks, *failures(case), *traits_found(asked.traits, seen.behaviour, seen.found.seen)),
        forwards=forwards,
        backwards=backwards,
        seconds=clock.seconds,
        versions=versions(asked.images.device),
        digest=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
    )


def _check(classifier: Classifier, norm: str, eps: float | int, traits: Sequence[str]) -> None:
    if norm == "l1":
        raise SpecError("norm: expected linf or l2, which every attack of an audit has; got 'l1'")
    if eps == 0:
        raise SpecError("eps: expected more than 0; got 0: there is nothing to attack")
    for trait in traits:
        if trait not in TRAITS:
            raise SpecError(f"traits: expected some of {', '.join(TRAITS)}; got {trait!r}")
    if isinstance(classifier, nn.Module) and classifier.training:
        raise SpecError(
            "classifier: expected it in the mode in which it is deployed; it is in train mode: call .eval() on it"
        )
