"""The checks that attack: is the number that an attack left a property of the classifier, or of the attack?

Sources: Carlini et al. (2019), arXiv:1902.06705 (C1 to C12); Pintor et al. (2022), arXiv:2106.09947 (I3, I4, I6);
Athalye, Carlini & Wagner (2018), arXiv:1802.00420 (frozen randomness). Departs from Pintor et al.: I4 takes the trace
of 100 steps that shrink to 0, and counts an image whose loss never moves as incomplete, where theirs divides 0 by 0.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unperturbed.attacks.classifier import Passes, predict, slope
from unperturbed.attacks.problem import Problem
from unperturbed.audit.budgets import Budget
from unperturbed.audit.case import Case, Guide
from unperturbed.audit.record import Flag
from unperturbed.audit.stand_ins import frozen
from unperturbed.records import SpecError
from unperturbed.tensors.norms import project, steepest

POINT = 0.01
UNBOUNDED = 0.99
INCOMPLETE = 0.05
SWITCH = (
    0.10  # how much another loss may gain over the usual one; margins gain 6 to 7 points on networks trained with PGD
)
FROZEN = 0.10
LARGE = {"linf": 0.5, "l2": 9.0}
SANITY_STEPS = 50
TRACED = 32
UNTRANSFERRED = 0.05


@dataclass(frozen=True)
class Ladder:
    """Accuracy of a subset at increasing radii, every radius attacked on its own."""

    eps: tuple[float, ...]
    accuracy: tuple[float, ...]
    images: int
    broken_somewhere: float  # fraction that any radius broke


def ladder(case: Case, guide: Guide | None, *, subset: int) -> Ladder:
    """Attack the first correct images at half, once and twice eps, at a very large eps and without bound."""
    rows = case.correct(subset)
    whole = 1.0 if case.norm == "linf" else math.sqrt(case.images[0].numel())
    radii = sorted({case.eps / 2, case.eps, min(2 * case.eps, whole), min(LARGE[case.norm], whole), whole} - {0.0})
    accuracy: list[float] = []
    ever = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    for radius in radii:
        right = torch.ones(len(rows), dtype=torch.float64, device=rows.device)
        for loss in ("ce", "margin"):
            left = (right > 0.5).nonzero().squeeze(1)
            if len(left) == 0:
                break
            try:
                found = case.perturb(
                    "pgd",
                    rows[left],
                    guide=guide,
                    eps=radius,
                    steps=SANITY_STEPS,
                    loss=loss,
                    persist=case.random,
                    random_start=loss != "ce",
                )
            except SpecError:
                break
            again, _ = case.fraction_right(rows[left], found, "ladder", loss, eps=radius)
            right[left] = torch.minimum(right[left], again)
        ever |= right <= 0.5
        accuracy.append(float(right.mean()) if case.random else float((right > 0.5).double().mean()))
    return Ladder(tuple(radii), tuple(accuracy), len(rows), float(ever.double().mean()) if len(rows) else 1.0)


def of_the_ladder(case: Case, steps: Ladder, through: str) -> list[Flag]:
    """Return C2, C3, C4 and I6."""
    n = max(steps.images, 1)
    error = math.sqrt(0.25 / n)
    pairs = list(zip(steps.accuracy, steps.accuracy[1:], strict=False))
    rise = max((after - before for before, after in pairs), default=0.0)
    large = next(a for e, a in zip(steps.eps, steps.accuracy, strict=True) if e >= min(LARGE[case.norm], steps.eps[-1]))
    success = 1 - steps.accuracy[-1]
    told = ", ".join(f"{a:.1%} at {e:.3g}" for e, a in zip(steps.eps, steps.accuracy, strict=True))
    evidence = f"PGD-{SANITY_STEPS} on {steps.images} images through {through}, each eps on its own: {told}"
    allowed = min(case.chance + 3 * error, 1.0)
    failing = 1 - steps.broken_somewhere
    return [
        Flag(
            id="C2",
            name="accuracy does not fall with eps",
            says=f"The largest rise of accuracy from one eps to the next is {max(rise, 0):.1%}.",
            value=rise,
            threshold=2 * error,
            fired=rise > 2 * error,
            evidence=evidence,
            remedy="larger steps, other losses, a gradient that is not masked",
        ),
        Flag(
            id="C3",
            name="a very large eps leaves accuracy",
            says=f"At eps = {min(LARGE[case.norm], steps.eps[-1]):g} the attack leaves {large:.1%}; chance is "
            f"{case.chance:.1%}.",
            value=large,
            threshold=allowed,
            fired=large > allowed,
            evidence=evidence,
            remedy="the attack does not work: find a gradient that does",
        ),
        Flag(
            id="C4",
            name="the unbounded attack fails",
            says=f"Without a bound {success:.1%} of the images are broken.",
            value=success,
            threshold=UNBOUNDED,
            fired=success < UNBOUNDED,
            evidence=evidence,
            remedy="the attack does not work: find a gradient that does",
        ),
        Flag(
            id="I6",
            name="images that no radius breaks",
            says=f"{failing:.1%} of the images were broken at none of the radii.",
            value=failing,
            threshold=1 - UNBOUNDED,
            fired=failing > 1 - UNBOUNDED,
            evidence=evidence,
            remedy="the attack does not work: find a gradient that does",
        ),
    ]


def one_step(case: Case, plain_accuracy: float) -> Flag:
    """C5: a single step must not beat many."""
    rows = case.correct()
    try:
        right, _ = case.fraction_right(rows, case.perturb("fgsm", rows), "fgsm")
    except SpecError as error:
        return skipped("C5", "one step beats many", str(error))
    accuracy = float(right.sum() / len(case.labels)) if len(rows) else 0.0
    value = plain_accuracy - accuracy
    return Flag(
        id="C5",
        name="one step beats many",
        says=f"FGSM leaves {accuracy:.1%}, PGD {plain_accuracy:.1%}.",
        value=value,
        threshold=POINT,
        fired=value > POINT,
        evidence=f"both at eps = {case.eps:.4g} on {len(rows)} images, through the model itself",
        remedy="the steps follow a masked gradient: smooth it, go through variants",
    )


def fell(case: Case, id: str, name: str, before: float, *, after: float, what: str, remedy: str) -> Flag:
    """Return the flag for an attack that should not have found anything new: C1, C6, C7, C8."""
    value = before - after
    return Flag(
        id=id,
        name=name,
        says=f"{what} brings the accuracy from {before:.1%} to {after:.1%}.",
        value=value,
        threshold=POINT,
        fired=value > POINT + 1e-9,
        evidence=f"on the images that stood; {len(case.labels)} images in all",
        remedy=remedy,
    )


def losses(case: Case, budget: Budget) -> Flag:
    """C12: the usual loss against the others, the same steps on the same images."""
    rows = case.correct(budget.subset)
    left: dict[str, float] = {}
    for loss in ("rounded_ce", "ce", "margin", "dlr", "mse"):
        try:
            found = case.perturb("pgd", rows, steps=20, loss=loss)
        except SpecError as error:
            return skipped("C12", "another loss breaks more", str(error))
        right, _ = case.fraction_right(rows, found, "losses")
        left[loss] = float(right.mean()) if len(rows) else 0.0
    best = min(left, key=lambda name: left[name])
    value = left["rounded_ce"] - left[best]
    return Flag(
        id="C12",
        name="another loss breaks more",
        says=f"The usual cross-entropy leaves {left['rounded_ce']:.1%}, {best} {left[best]:.1%}.",
        value=value,
        threshold=SWITCH,
        fired=value > SWITCH,
        evidence=f"PGD-20 on {len(rows)} images: " + ", ".join(f"{name} {value:.1%}" for name, value in left.items()),
        remedy="climb several losses and take the minimum, as the suite does",
    )


def freeze(case: Case, budget: Budget, expected: float) -> Flag:
    """C10: with its randomness frozen, a random classifier must not be much weaker."""
    if not case.random:
        return skipped("C10", "frozen randomness is much weaker", "the answers are not random")
    rows = case.correct(budget.subset)
    still = frozen(case.deployed, case.seed)
    copy = Case(Passes(still), case.images[rows], case.labels[rows], case.norm, case.eps, case.seed, 1, 64)
    standing = copy.standing()
    try:
        found = copy.perturb("pgd", standing, steps=SANITY_STEPS, loss="margin")
    except SpecError as error:
        return skipped("C10", "frozen randomness is much weaker", str(error))
    right, _ = copy.fraction_right(standing, found, "frozen")
    accuracy = float((right > 0.5).sum() / max(len(rows), 1))
    value = expected - accuracy
    return Flag(
        id="C10",
        name="frozen randomness is much weaker",
        says=f"With the same draws at every pass PGD leaves {accuracy:.1%}; the random classifier kept {expected:.1%}.",
        value=value,
        threshold=FROZEN,
        fired=value > FROZEN,
        evidence=f"PGD-{SANITY_STEPS} on {len(rows)} images",
        remedy="the randomness hides the way: average over it, take its expectation, transfer from the frozen model",
    )


def untransferred(case: Case, guide: Guide | None) -> Flag:
    """I5: what fools the variant that led must fool the deployed classifier."""
    name = "the variant falls and the deployed classifier does not"
    rows = case.standing(TRACED)
    if guide is None or guide.passes is None or len(rows) == 0:
        return skipped("I5", name, "no variant led, or nothing is left to lead to")
    try:
        found = case.perturb("pgd", rows, guide=guide, steps=20, loss="margin", persist=case.random)
    except SpecError as error:
        return skipped("I5", name, str(error))
    right, _ = case.fraction_right(rows, found, "transfer", guide.name)
    fooled = predict(guide.passes, found, case.labels[rows]).argmax(dim=1) != case.labels[rows]
    value = float((fooled & (right > 0.5)).double().mean() * len(case.standing()) / len(case.labels))
    return Flag(
        id="I5",
        name=name,
        says=f"{value:.1%} of all images are misclassified by {guide.name} and not by the deployed classifier.",
        value=value,
        threshold=UNTRANSFERRED,
        fired=value > UNTRANSFERRED,
        evidence=f"PGD-20 on {len(rows)} of the images that still stand, scaled up",
        remedy="look for a variant that is nearer to the deployed classifier",
    )


def trace(case: Case) -> list[Flag]:
    """I3 and I4, from the plain path of a projected gradient, step by step."""
    rows = case.standing(TRACED)
    rows = rows if len(rows) else case.correct(TRACED)
    names = ("successes that do not last", "optimisation not finished")
    if len(rows) == 0:
        return [skipped(id, name, "no image is left") for id, name in zip(("I3", "I4"), names, strict=True)]
    try:
        values, once, unconfirmed = _path(case, rows)
    except (SpecError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        return [skipped(id, name, reason) for id, name in zip(("I3", "I4"), names, strict=True)]
    best = torch.cummax(values, dim=0).values
    spread = best[-1] - best[0]
    late = (best[-1] - best[-11]) / spread.clamp_min(1e-300)
    incomplete = float(torch.where(spread > 0, late, 1.0).mean())
    stuck = float((spread <= 0).double().mean())
    silent = float(unconfirmed.double().mean())
    return [
        Flag(
            id="I3",
            name=names[0],
            says=f"{silent:.1%} of the images were broken on the way and not any more when asked again; "
            f"{float(once.double().mean()):.1%} were broken on the way at all.",
            value=silent,
            threshold=POINT,
            fired=silent > POINT,
            evidence=f"100 steps on {len(rows)} images; every first success asked again, alone and afresh",
            remedy="keep the best point, confirm it by fresh draws",
        ),
        Flag(
            id="I4",
            name=names[1],
            says=f"The last 10 of 100 steps still bring {incomplete:.1%} of all that the loss gained."
            + (f" It never moved for {stuck:.0%} of the images, which counts as 100 %." if stuck else ""),
            value=incomplete,
            threshold=INCOMPLETE,
            fired=incomplete > INCOMPLETE,
            evidence=f"best loss so far along 100 shrinking steps on {len(rows)} images",
            remedy="more steps, larger steps, a loss and a gradient that rise",
        ),
    ]


def _path(case: Case, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the losses (steps, batch), which images were broken on the way, and which of those were not confirmed."""
    images, labels = case.images[rows], case.labels[rows]
    problem = Problem(case.deployed, images, labels, seed=case.seed, loss="margin")
    offset = problem.nowhere()
    once = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    first = images.clone()
    values: list[Tensor] = []
    for step in range(100):
        seen = slope(case.deployed, problem.at(offset), labels, loss="margin")
        values.append(seen.losses.value.double())
        new = seen.losses.broken & ~once
        first[new] = seen.images.detach()[new]
        once |= seen.losses.broken
        size = 2 * case.eps * (1 - step / 100) / 10
        offset = project(offset + size * steepest(seen.gradient(), norm=case.norm), norm=case.norm, eps=case.eps)
        offset = problem.in_box(offset)
    right, _ = case.fraction_right(rows, first, "confirm")
    return torch.stack(values), once, once & (right > 0.5)


def skipped(id: str, name: str, why: str) -> Flag:
    """Return a check that does not apply, and why."""
    return Flag(id, name, f"Not measured: {why}.", None, None, False, "", "", applies=False)
