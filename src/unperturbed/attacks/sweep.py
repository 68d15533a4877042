"""One attack at increasing radii: the curve of accuracy over eps, image by image, with nothing attacked twice.

Source: the published curve is that of Kunhardt, Deza & Poggio (2021), arXiv:2102.10534. Departs from the source: an
image that broke at a smaller radius is carried over to the larger ones, whose balls contain it, and is not attacked
again, except where the published form attacks every image at every radius (FGSM). An attack that looks for the smallest
perturbation runs once, and every radius is read off its distances.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from unperturbed.attacks.batches import in_batches
from unperturbed.attacks.classifier import IN_PLACE, Classifier, Passes, predict, slope, succeeded
from unperturbed.attacks.evidence import Evidence
from unperturbed.attacks.fgsm import along, fgsm
from unperturbed.attacks.inputs import (
    ROUND_OFF,
    check_images,
    check_labels,
    check_mask,
    check_radii,
    check_targets,
)
from unperturbed.attacks.judge import Judgement, judge, majority, predictions, quantise
from unperturbed.attacks.noise import gaussian_noise
from unperturbed.attacks.objectives import fallback
from unperturbed.records import Spec, SpecError
from unperturbed.registry import complete
from unperturbed.tensors.norms import check_norm, steepest
from unperturbed.tensors.streams import seed_for, undisturbed

Attack = Callable[..., Tensor]
"""``attack(classifier, images, labels, seed, *, norm, eps, ...) -> images``, as every function of this package; one
that looks for the smallest perturbation has no ``eps``."""

PLUGS = ("eps", "targets", "mask", "at_once")  # what an attack is given apart from its settings

AS_PUBLISHED = (fgsm, gaussian_noise)  # attack every image at every radius, whatever happened at a smaller one
UNCONFINED = (gaussian_noise,)  # eps is a scale and not the radius of a ball


def within_budget(attack: Attack) -> bool:
    """Return whether the attack works within a ball of radius ``eps``, and does not look for the smallest one.

    >>> within_budget(fgsm)
    True
    """
    return takes(attack, "eps")


def takes(attack: Attack, plug: str) -> bool:
    """Return whether the attack has an argument of this name."""
    return plug in inspect.signature(attack).parameters


def sweep(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    attack: Attack,
    *,
    eps: Sequence[float | int],
    seed: int = 0,
    norm: str = "linf",
    inherit: bool | None = None,
    batch_size: int | None = None,
    votes: int = 1,
    levels: int | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    surrogate: Classifier | None = None,
    targets: Tensor | None = None,
    mask: Tensor | None = None,
    keep: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Evidence:
    """Return what ``attack`` does to every image at every radius, as the judge finds it.

    At ``eps = 0`` nothing is attacked: the accuracy there is the clean accuracy. FGSM takes one gradient for all radii:
    1 backward and 1 forward at the clean image, and 1 forward of the judge for every radius above 0. Any other attack
    takes 1 forward of the clean image, and at every radius above 0, for every image not yet broken, its own passes and
    1 forward of the judge. One that looks for the smallest perturbation takes its own passes and 1 forward of the judge
    for all radii together.

    Args:
        classifier: images in ``bounds`` to logits, in the mode to be attacked in; not modified.
        images: floating-point intensities in ``bounds``.
        labels: the true classes, whole numbers.
        attack: a function of this package, see ``ATTACKS``.
        eps: radii, increasing, 0 or larger, in units of the images (8/255 = 0.0314 of those in [0, 1]).
        seed: decides all random numbers, for each image apart, whatever the batch. Only what a random classifier draws
            depends on the batch.
        norm: ``linf``, ``l2`` or ``l1``, as far as the attack has it.
        inherit: whether an image that broke at a smaller radius counts as broken at the larger ones and is left alone,
            so that accuracy cannot rise with eps; an image misclassified from the start then is never attacked.
            ``None``: yes, except for FGSM and Gaussian noise.
        batch_size: images that are attacked at once; ``None``: found while the work is done.
        votes: forwards of the judge, clean and attacked; the majority is the prediction of a random classifier.
        levels: intensities that a file can hold, 256 for 8 bits: adversarial images are rounded before they are judged.
        bounds: lowest and highest intensity of the data set.
        surrogate: attacked in place of ``classifier``, which is asked when the attack is over (transfer); ``None``:
            the classifier itself. What just misleads the surrogate seldom misleads the classifier, so ``pgd`` goes on
            to the largest loss unless told ``persist=False``. For its gradient alone at every step, attack
            ``guided(classifier, surrogate)``.
        targets: the classes that the images shall be taken for; ``None``: any but the true one. ``correct`` then means
            that the attack has not succeeded.
        mask: 1 where an intensity may change, else 0; broadcast to the images.
        keep: how many of the first images are kept as pictures.
        progress: called with the number of (image, radius) pairs done and their total.
        settings: further settings of the attack.

    Returns:
        The evidence. What the judge refuses (outside the ball or the bounds) is counted there, and the image before
        that attack stands in its place.

    Raises:
        SpecError: an argument is not as described.
    """
    low, high = bounds
    if not high > low:
        raise SpecError(f"sweep: expected bounds of a lowest and a larger highest intensity; got {low:g} and {high:g}")
    scale = high - low
    if bounds != (0.0, 1.0):
        images, original, led = (images - low) / scale, classifier, surrogate
        classifier = lambda rescaled: original(rescaled * scale + low)  # noqa: E731
        surrogate = None if led is None else lambda rescaled: led(rescaled * scale + low)
    check_images(images)
    check_labels(labels, len(images))
    check_radii(eps)
    check_norm(norm)
    if batch_size is not None and batch_size < 1:
        raise SpecError(f"sweep: expected batch_size of at least 1; got {batch_size}")
    for plug, given in (("targets", targets), ("mask", mask)):
        if given is not None and not takes(attack, plug):
            raise SpecError(f"sweep: {attack.__name__} takes no {plug}; leave them out")
    if targets is not None:
        check_targets(targets, labels)
    if mask is not None:
        check_mask(mask, images)
    if surrogate is not None and takes(attack, "persist"):
        settings = {"persist": True, **settings}
    spec = Spec(name=attack.__name__, settings={"norm": norm, **settings})
    written_out = complete("attack", {attack.__name__: attack}, spec, apart=PLUGS).settings
    step_size = written_out.get("step_size")
    if isinstance(step_size, float):
        written_out = {**written_out, "step_size": step_size / scale}
    deployed = Passes(classifier)
    attacked = deployed if surrogate is None else Passes(surrogate)
    job = _Job(deployed, attacked, attack, written_out, norm, seed, votes, levels)
    inherit = attack not in AS_PUBLISHED if inherit is None else inherit
    tables = _Tables(len(eps), images, min(keep, len(images)))
    radii = [radius / scale for radius in eps]
    mask = None if mask is None else mask.expand_as(images)

    def work(part: slice) -> int:
        before, untouched = sum(job.counted), images[part].clone()
        batch = _Batch(
            images[part],
            labels[part],
            None if targets is None else targets[part],
            None if mask is None else mask[part],
        )
        here = job._replace(draws=seed_for("judge", seed, part.start), keep=part.start < keep)
        for row, front in enumerate(_fronts(here, batch, radii, inherit)):
            if row == 0 and not torch.equal(batch.images, untouched):
                raise SpecError(IN_PLACE)
            tables.enter(row, part, front)
            if progress is not None:
                progress(part.start * len(eps) + (row + 1) * len(batch.labels), len(images) * len(eps))
        return sum(job.counted) - before

    with undisturbed("sweep", seed, device=images.device):
        in_batches(len(images), work, batch_size=batch_size)
    return tables.evidence(eps, labels, targets, job, scale=scale, low=low)


class _Job(NamedTuple):
    """What is done to every batch."""

    passes: Passes  # of the classifier that decides
    attacked: Passes  # of the one that is attacked, the same as a rule
    attack: Attack
    settings: dict[str, Any]
    norm: str
    seed: int
    votes: int
    levels: int | None
    draws: int = 0  # seed of the judge's draws of a random classifier, others for every batch
    keep: bool = False  # whether pictures of this batch are kept

    @property
    def counted(self) -> tuple[int, int]:
        """Forwards and backwards so far."""
        both = {id(each): each for each in (self.passes, self.attacked)}.values()
        return sum(each.forwards for each in both), sum(each.backwards for each in both)

    @property
    def box(self) -> bool:
        return self.settings.get("clip", True) is True

    def judged(self, batch: "_Batch", found: Tensor, eps: float | int | None) -> Judgement:
        return judge(
            self.passes,
            batch.images,
            batch.labels,
            found,
            norm=self.norm,
            eps=eps,
            box=self.box,
            targets=batch.targets,
            votes=self.votes,
            seed=self.draws,
        )

    def filed(self, batch: "_Batch", found: Tensor) -> Tensor:
        return found if self.levels is None else quantise(found, batch.images, levels=self.levels)


class _Batch(NamedTuple):
    images: Tensor
    labels: Tensor
    targets: Tensor | None
    mask: Tensor | None

    def __getitem__(self, rows: Tensor) -> "_Batch":  # pyright: ignore[reportIncompatibleMethodOverride]
        if len(rows) == len(self.labels):
            return self
        return _Batch(*(None if each is None else each[rows] for each in self._asdict().values()))  # pyright: ignore[reportArgumentType]

    def plugs(self, attack: Attack, *, at_once: int) -> dict[str, Any]:
        """Return what the attack is given of these; ``at_once`` is the size of the batch they were chosen from."""
        given = {name: each for name in ("targets", "mask") if (each := getattr(self, name)) is not None}
        return {**given, "at_once": at_once} if takes(attack, "at_once") else given


class _Front(NamedTuple):
    """What stands for every image of a batch at the radius reached."""

    images: Tensor | None  # None where no pictures are kept
    prediction: Tensor
    broken: Tensor
    linf: Tensor
    l2: Tensor
    refused: Tensor
    clean: Tensor  # the prediction on the clean image
    confidence: Tensor  # in the true class, on the clean image
    classes: int
    smallest: Tensor | None = None  # distance that broke it, where the attack looked for the smallest

    def advance(self, rows: Tensor, found: Tensor, verdict: Judgement, accepted: Tensor, broken: Tensor) -> "_Front":
        into = rows[accepted]
        refused = torch.zeros_like(self.refused)
        refused[rows[~accepted]] = True
        return self._replace(
            images=None if self.images is None else self.images.index_copy(0, into, found[accepted]),
            prediction=self.prediction.index_copy(0, into, verdict.prediction[accepted]),
            broken=self.broken.index_copy(0, into, broken[accepted]),
            linf=self.linf.index_copy(0, into, verdict.linf[accepted]),
            l2=self.l2.index_copy(0, into, verdict.l2[accepted]),
            refused=refused,
        )


def _fronts(job: _Job, batch: _Batch, eps: Sequence[float | int], inherit: bool) -> Iterator[_Front]:
    """Yield what stands for every image at each radius in turn."""
    if not within_budget(job.attack):
        yield from _from_smallest(job, batch, eps)
        return
    untouched, perturb = _prepare(job, batch)
    front = untouched
    for radius in eps:
        front = front._replace(refused=torch.zeros_like(front.refused)) if inherit else untouched
        rows = (~front.broken).nonzero().squeeze(1) if inherit else torch.arange(len(batch.labels))
        rows = rows.to(batch.images.device)
        if radius > 0 and len(rows) > 0:
            part = batch[rows]
            found = job.filed(part, perturb(rows, radius))
            verdict = job.judged(part, found, None if job.attack in UNCONFINED else radius)
            accepted = verdict.in_ball & verdict.in_box if job.box else verdict.in_ball
            front = front.advance(rows, found, verdict, accepted, _succeeded(verdict, batch, rows))
        yield front


def _succeeded(verdict: Judgement, batch: _Batch, rows: Tensor) -> Tensor:
    return succeeded(verdict.prediction, batch.labels[rows], None if batch.targets is None else batch.targets[rows])


def _from_smallest(job: _Job, batch: _Batch, eps: Sequence[float | int]) -> Iterator[_Front]:
    untouched = _untouched(job, batch, predict(job.passes, batch.images, batch.labels))
    rows = (~untouched.broken).nonzero().squeeze(1)
    untouched = untouched._replace(smallest=torch.where(untouched.broken, 0.0, torch.inf).double())
    if len(rows) == 0:
        yield from (untouched for _ in eps)
        return
    part = batch[rows]
    plugs = part.plugs(job.attack, at_once=len(batch.labels))
    found = job.attack(job.attacked, part.images, part.labels, job.seed, **job.settings, **plugs)
    found = job.filed(part, found)
    verdict = job.judged(part, found, None)
    distance = torch.where(verdict.success, verdict.distance, torch.inf)
    smallest = untouched.smallest.index_copy(0, rows, distance) if untouched.smallest is not None else None
    refused = untouched.refused.index_copy(0, rows, ~verdict.in_box)
    for radius in eps:
        inside = distance <= radius + ROUND_OFF
        front = untouched.advance(rows, found, verdict, inside, inside)
        yield front._replace(refused=refused, smallest=smallest)


def _untouched(job: _Job, batch: _Batch, logits: Tensor) -> _Front:
    prediction = logits.argmax(dim=1)
    if job.votes > 1:
        drawn = predictions(job.passes, batch.images, batch.labels, votes=job.votes, seed=job.draws)
        prediction = majority(drawn)
    nowhere = torch.zeros(len(logits), dtype=torch.float64, device=logits.device)
    confidence = logits.softmax(dim=1).gather(1, batch.labels.long().unsqueeze(1)).squeeze(1)
    broken = succeeded(prediction, batch.labels, batch.targets)
    refused = torch.zeros_like(broken)
    classes = logits.shape[1]
    pictures = batch.images if job.keep else None
    return _Front(pictures, prediction, broken, nowhere, nowhere, refused, prediction, confidence, classes)


def _prepare(job: _Job, batch: _Batch) -> tuple[_Front, Callable[[Tensor, float], Tensor]]:
    """Return the untouched images, and a function from some rows of the batch and a radius to adversarial images."""
    if job.attack is fgsm:
        exact, clip = job.settings["exact"], job.settings["clip"]
        loss = "ce" if exact else "rounded_ce"
        seen = slope(job.attacked, batch.images, batch.labels, loss=loss, targets=batch.targets)
        gradient = seen.gradient() if batch.mask is None else seen.gradient() * batch.mask
        direction = steepest(gradient, norm=job.norm)
        own = job.attacked is job.passes
        untouched = _untouched(job, batch, seen.logits if own else predict(job.passes, batch.images, batch.labels))

        def step(rows: Tensor, eps: float) -> Tensor:
            chosen = direction if len(rows) == len(direction) else direction[rows]
            return along(batch[rows].images, chosen, eps=eps, clip=clip)

        return untouched, step
    untouched = _untouched(job, batch, predict(job.passes, batch.images, batch.labels))

    def perturb(rows: Tensor, eps: float) -> Tensor:
        part = batch[rows]
        plugs = part.plugs(job.attack, at_once=len(batch.labels))
        return job.attack(job.attacked, part.images, part.labels, job.seed, eps=eps, **job.settings, **plugs)

    return untouched, perturb


class _Tables:
    """The arrays of the evidence, filled batch by batch."""

    def __init__(self, radii: int, images: Tensor, keep: int) -> None:
        count = len(images)
        self.prediction = np.empty((radii, count), dtype=np.int16)
        self.broken = np.empty((radii, count), dtype=np.bool_)
        self.linf = np.empty((radii, count), dtype=np.float32)
        self.l2 = np.empty((radii, count), dtype=np.float32)
        self.refused = np.zeros((radii, count), dtype=np.bool_)
        self.clean = np.empty(count, dtype=np.int16)
        self.confidence = np.empty(count, dtype=np.float32)
        self.originals = images[:keep].float().cpu().numpy().copy()
        self.adversarial = np.empty((radii, keep, *images.shape[1:]), dtype=np.float32)
        self.smallest: np.ndarray[Any, Any] | None = None
        self.classes = 0

    def enter(self, row: int, part: slice, front: _Front) -> None:
        self.prediction[row, part] = front.prediction.cpu().numpy()
        self.broken[row, part] = front.broken.cpu().numpy()
        self.linf[row, part], self.l2[row, part] = front.linf.cpu().numpy(), front.l2.cpu().numpy()
        self.refused[row, part] = front.refused.cpu().numpy()
        self.clean[part] = front.clean.cpu().numpy()
        self.confidence[part] = front.confidence.cpu().numpy()
        self.classes = front.classes
        if front.smallest is not None:
            self.smallest = np.empty(len(self.clean)) if self.smallest is None else self.smallest
            self.smallest[part] = front.smallest.cpu().numpy()
        keep = self.adversarial.shape[1]
        if front.images is not None:
            self.adversarial[row, part] = front.images[: keep - part.start].float().cpu().numpy()

    def evidence(
        self,
        eps: Sequence[float | int],
        labels: Tensor,
        targets: Tensor | None,
        job: _Job,
        *,
        scale: float,
        low: float,
    ) -> Evidence:
        classes = labels.cpu().numpy().astype(np.int16)
        at_start = self.clean != classes if targets is None else self.clean == targets.cpu().numpy()
        broken = np.vstack([at_start, self.broken])
        first = np.where(broken.any(axis=0), np.array([0.0, *eps])[broken.argmax(axis=0)], np.inf)
        towards = targets is not None or "target_classes" in job.settings
        remark = fallback(str(job.settings.get("loss")), self.classes, towards=towards)
        return Evidence(
            eps=np.array(eps, dtype=np.float64),
            labels=classes,
            prediction=self.prediction,
            correct=~self.broken,
            linf=self.linf * np.float32(scale),
            l2=self.l2 * np.float32(scale),
            confidence=self.confidence,
            critical_eps=first if self.smallest is None else self.smallest * scale,
            refused=self.refused,
            forwards=job.counted[0],
            backwards=job.counted[1],
            originals=self.originals * np.float32(scale) + np.float32(low),
            adversarial=self.adversarial * np.float32(scale) + np.float32(low),
            remarks=(remark,) if remark else (),
        )
