"""AutoAttack, by version: attacks, order, numbers and decisions exactly as its authors define them, and nothing else.

Source: Croce & Hein (2020), arXiv:2003.01690, section 5, and for ``l1`` Croce & Hein (2021), arXiv:2103.01208; numbers
as in the code that they released: 100 iterations, 9 target classes (5 of APGD-T in ``l1``), 5,000 queries, 20 draws
(EOT). Each attack meets only the images that the earlier ones have left, and every success is found again by the judge
in a fresh forward.
Departs from the source: an image that is broken leaves at once, which changes no outcome of a deterministic classifier;
random numbers belong to the image, not to the batch; with too few classes the margin stands in for the ratio of
differences, and the result says so. What else differs inside an attack is said in its own file.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from unperturbed.attacks.apgd import apgd, apgd_targeted
from unperturbed.attacks.batches import in_batches
from unperturbed.attacks.classifier import Classifier, Passes, predict
from unperturbed.attacks.expectation import Expectation, expectation
from unperturbed.attacks.fab import fab, fab_targeted
from unperturbed.attacks.inputs import check_eps, check_images, check_labels
from unperturbed.attacks.judge import judge
from unperturbed.attacks.objectives import fallback
from unperturbed.attacks.square import square
from unperturbed.attacks.sweep import PLUGS, Attack, takes
from unperturbed.records import Record, Spec, SpecError
from unperturbed.registry import complete
from unperturbed.tensors.streams import seed_for, undisturbed

REVISION = 1  # of what stands below; it goes into the digest
FUNCTIONS: dict[str, Attack] = {each.__name__: each for each in (apgd, apgd_targeted, fab, fab_targeted, square)}
VERSIONS = {"linf": ("standard", "plus", "rand"), "l2": ("standard", "plus", "rand"), "l1": ("standard",)}

AT_ONCE = 256  # so many images are not worth a search for the best batch size
# The authors' test of randomness, but for the change of the logits relative to their length, not of their direction: of
# two classes the direction often has only two values.
RANDOM_DRAWS, RANDOM_CHANGE = 5, 1e-4
SQUARE_GAIN = 0.002  # what Square may break after the attacks with gradients before the authors doubt these


class Member(Record):
    """One attack of a protocol: the authors' name for it, and ours with every setting."""

    name: str
    attack: Spec


class Protocol(Record):
    """Everything that decides the outcome; its digest is what a result is known by."""

    name: Literal["AutoAttack"] = "AutoAttack"
    revision: int = REVISION
    version: str
    norm: str
    eps: float
    seed: int
    members: tuple[Member, ...]


class Row(NamedTuple):
    """What one attack of a protocol did."""

    name: str
    attacked: int  # images that were still classified correctly
    broke: int  # of these, by the judge
    accuracy: float  # of all images, after it
    forwards: int
    backwards: int
    seconds: float


@dataclass(frozen=True, eq=False)
class ProtocolResult:
    """What a protocol found, image by image and attack by attack."""

    protocol: Protocol
    digest: str
    images: Float[Tensor, "batch channel height width"]  # what broke each image; the image itself where nothing did
    robust: Bool[Tensor, " batch"]
    clean_accuracy: float
    robust_accuracy: float
    attacks: tuple[Row, ...]
    fresh: Expectation | None  # ``rand`` only: accuracy over fresh draws at the worst images that were returned
    remarks: tuple[str, ...]
    forwards: int
    backwards: int
    seconds: float


def protocol(version: str = "standard", *, norm: str = "linf", eps: float | int, seed: int = 0) -> Protocol:
    """Return what AutoAttack of this version is, with every setting written out.

    >>> [member.name for member in protocol("standard", eps=8 / 255).members]
    ['apgd-ce', 'apgd-t', 'fab-t', 'square']

    Raises:
        SpecError: the authors define no such version for this norm, or eps is not a radius.
    """
    if norm not in VERSIONS or version not in VERSIONS[norm]:
        defined = "; ".join(f"{name}: {', '.join(versions)}" for name, versions in VERSIONS.items())
        raise SpecError(f"AutoAttack: version {version!r} is not defined for norm {norm!r}. There are {defined}.")
    check_eps(eps)
    members = tuple(
        Member(name=name, attack=complete("attack", FUNCTIONS, Spec(name=function, settings=settings), apart=PLUGS))
        for name, function, settings in _members(version, norm, eps)
    )
    return Protocol(version=version, norm=norm, eps=float(eps), seed=seed, members=members)


def _members(version: str, norm: str, eps: float | int) -> list[tuple[str, str, dict[str, Any]]]:
    climbing: dict[str, Any] = {"norm": norm, "steps": 100, "rho": 0.75}
    nearest: dict[str, Any] = {"norm": norm, "steps": 100, "within": eps, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9}
    search = ("square", "square", {"norm": norm, "queries": 5000, "p_init": 0.8, "rescale": False, "restarts": 1})
    if version == "rand":
        drawn = {**climbing, "eot": 20, "decide": "last", "restarts": 1}
        return [("apgd-ce", "apgd", {**drawn, "loss": "ce"}), ("apgd-dlr", "apgd", {**drawn, "loss": "dlr"})]
    restarts = 5 if version == "plus" or norm == "l1" else 1
    ce = ("apgd-ce", "apgd", {**climbing, "loss": "ce", "restarts": restarts})
    targeted = ("apgd-t", "apgd_targeted", {**climbing, "target_classes": 5 if norm == "l1" else 9, "restarts": 1})
    fab_t = ("fab-t", "fab_targeted", {**nearest, "target_classes": 9, "restarts": 1})
    if version == "standard":
        return [ce, targeted, fab_t, search]
    dlr = ("apgd-dlr", "apgd", {**climbing, "loss": "dlr", "restarts": restarts})
    return [ce, dlr, ("fab", "fab", {**nearest, "restarts": restarts}), search, targeted, fab_t]


def autoattack(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    *,
    version: Literal["standard", "plus", "rand"] = "standard",
    norm: Literal["linf", "l2", "l1"] = "linf",
    eps: float | int,
    seed: int = 0,
    draws: int = 20,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **changed: Any,
) -> ProtocolResult:
    """Return what AutoAttack leaves of the accuracy of a classifier.

    Args:
        classifier: images in [0, 1] to logits; not modified, not switched to another mode.
        images: floating-point intensities in [0, 1].
        labels: the true classes, whole numbers.
        version: ``standard``; ``plus``, with more attacks and restarts; ``rand``, for classifiers with randomness.
        norm: of the ball; the authors define ``l1`` for ``standard`` only.
        eps: radius of the ball, as a fraction of full scale (8/255 = 0.0314).
        seed: decides all random numbers, for each image apart.
        draws: ``rand`` only: fresh draws over which the accuracy is reported beside the authors' number.
        batch_size: images that are attacked at once; ``None``: found while the work is done.
        progress: called with the number of (image, attack) pairs done and their total.
        changed: refused: with other numbers it would not be AutoAttack.

    Raises:
        SpecError: an argument or the classifier's logits are not as described.
    """
    if changed:
        name, value = next(iter(changed.items()))
        raise SpecError(
            f"autoattack has no setting {name!r}; got {value!r}. Its numbers are its authors': with others it is not "
            "AutoAttack. Call the attacks by their names, or sweep"
        )
    if draws < 2:
        raise SpecError(f"autoattack: expected draws of at least 2; got {draws}")
    began = time.perf_counter()
    plan = protocol(version, norm=norm, eps=eps, seed=seed)
    check_images(images)
    check_labels(labels, len(images))
    run = _Run(plan, Passes(classifier), images, labels, batch_size, progress)
    clean_accuracy = run.accuracy
    rows = tuple(run.attack(place, member) for place, member in enumerate(plan.members))
    fresh = run.fresh(draws) if version == "rand" else None
    return ProtocolResult(
        protocol=plan,
        digest=plan.digest(),
        images=run.found,
        robust=run.robust,
        clean_accuracy=clean_accuracy,
        robust_accuracy=run.accuracy,
        attacks=rows,
        fresh=fresh,
        remarks=(*_few_classes(plan, run.classes), *run.remarks(), *_doubts(run, rows, fresh)),
        forwards=run.passes.forwards,
        backwards=run.passes.backwards,
        seconds=time.perf_counter() - began,
    )


class _Run:
    """The images, and what has become of them so far."""

    def __init__(
        self,
        plan: Protocol,
        passes: Passes,
        images: Tensor,
        labels: Tensor,
        batch_size: int | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.plan, self.passes, self.images, self.labels = plan, passes, images, labels
        self.batch_size, self.progress = batch_size, progress
        self.found = images.clone()
        self.robust = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self.classes = 0
        self.random = False
        # What the attacks returned, broken or not: a random classifier is judged at the worst of them.
        self._returned = [images.clone() for _ in plan.members] if plan.version == "rand" else []
        in_batches(len(images), self._look, batch_size=batch_size)

    @property
    def accuracy(self) -> float:
        return float(self.robust.double().mean())

    def _look(self, part: slice) -> int:
        with undisturbed("autoattack", self.plan.seed, part.start, device=self.images.device):
            logits = predict(self.passes, self.images[part], self.labels[part])
            self.robust[part] = logits.argmax(dim=1) == self.labels[part]
            self.classes = logits.shape[1]
            if part.start == 0:
                self.random = self._differs(logits, part)
        return len(logits)

    def _differs(self, logits: Tensor, part: slice) -> bool:
        others = [predict(self.passes, self.images[part], self.labels[part]) for _ in range(RANDOM_DRAWS - 1)]
        change = torch.stack([(other - logits).norm(dim=1) for other in others]).amax(dim=0)
        return bool((change > RANDOM_CHANGE * logits.norm(dim=1)).any())

    def attack(self, place: int, member: Member) -> Row:
        began, forwards, backwards = time.perf_counter(), self.passes.forwards, self.passes.backwards
        rows = self.robust.nonzero().squeeze(1) if self.plan.eps > 0 else self.robust.new_zeros(0, dtype=torch.long)
        done = place * len(self.images) + len(self.images) - len(rows)

        tried = -1

        def work(part: slice) -> int:
            nonlocal tried
            before = self.passes.forwards + self.passes.backwards
            # Called again with the same start when memory ran out: no more at once then than there are images.
            at_once = part.stop - part.start if part.start == tried else self.batch_size or AT_ONCE
            tried = part.start
            self._attack(place, member.attack, rows[part], part.start, at_once)
            if self.progress is not None:
                self.progress(done + part.stop, len(self.plan.members) * len(self.images))
            return self.passes.forwards + self.passes.backwards - before

        few = AT_ONCE if len(rows) <= AT_ONCE else None
        in_batches(len(rows), work, batch_size=self.batch_size or few)
        return Row(
            name=member.name,
            attacked=len(rows),
            broke=int((~self.robust[rows]).sum()),
            accuracy=self.accuracy,
            forwards=self.passes.forwards - forwards,
            backwards=self.passes.backwards - backwards,
            seconds=time.perf_counter() - began,
        )

    def _attack(self, place: int, attack: Spec, rows: Tensor, start: int, at_once: int) -> None:
        images, labels, plan = self.images[rows], self.labels[rows], self.plan
        budget = {} if "within" in attack.settings else {"eps": plan.eps}
        plugs = {"at_once": at_once} if takes(FUNCTIONS[attack.name], "at_once") else {}
        found = FUNCTIONS[attack.name](self.passes, images, labels, plan.seed, **budget, **attack.settings, **plugs)
        draw = seed_for("autoattack", plan.seed, place, start)
        verdict = judge(self.passes, images, labels, found, norm=plan.norm, eps=plan.eps, seed=draw)
        self.found[rows[verdict.success]] = found[verdict.success]
        self.robust[rows[verdict.success]] = False
        if self._returned:
            fair = verdict.in_ball & verdict.in_box
            self._returned[place][rows[fair]] = found[fair]

    def fresh(self, draws: int) -> Expectation:
        """Return the accuracy at the worst images, chosen by draws of their own."""
        worst, lowest = self.images, None
        for place, returned in enumerate(self._returned):
            seen = self._expectation(returned, draws, "choice", place)
            accuracy = torch.from_numpy(seen.per_image).to(self.images.device)
            better = torch.ones_like(self.robust) if lowest is None else accuracy < lowest
            worst = torch.where(better.view(-1, 1, 1, 1), returned, worst)
            lowest = accuracy if lowest is None else torch.minimum(accuracy, lowest)
        return self._expectation(worst, draws, "report")

    def _expectation(self, images: Tensor, draws: int, *purpose: int | str) -> Expectation:
        seed = seed_for("autoattack", self.plan.seed, *purpose)
        return expectation(self.passes, images, self.labels, draws=draws, seed=seed, batch_size=self.batch_size)

    def remarks(self) -> list[str]:
        if self.random and self.plan.version != "rand":
            return ["the classifier is random: version 'rand' is the one that its authors ask for"]
        if not self.random and self.plan.version == "rand":
            return ["the classifier is not random: version 'standard' is the one that its authors ask for"]
        return []


def _few_classes(plan: Protocol, classes: int) -> list[str]:
    said: list[str] = []
    for member in plan.members:
        settings = member.attack.settings
        wanted = settings.get("target_classes")
        sentence = fallback(str(settings.get("loss")), classes, towards=wanted is not None)
        if sentence is not None:
            said.append(f"{member.name}: {sentence}")
        if isinstance(wanted, int) and wanted > classes - 1:
            said.append(
                f"{member.name}: {wanted} target classes are asked for and there are {classes - 1}: all of them"
            )
    return said


def _doubts(run: _Run, rows: tuple[Row, ...], fresh: Expectation | None) -> list[str]:
    said: list[str] = []
    for row in rows:
        if row.name == "square" and row.broke > SQUARE_GAIN * len(run.images):
            said.append(
                f"square broke {row.broke} images that the attacks with gradients had left before it: gradients may "
                "mislead, and the robust accuracy may be too high"
            )
    if fresh is not None:
        low, high = fresh.interval
        said.append(
            f"one draw decides in version 'rand', so that {run.accuracy:.4f} is biased down; {fresh.draws} fresh draws "
            f"give {fresh.mean:.4f} (95 % interval {low:.4f} to {high:.4f})"
        )
    return said
