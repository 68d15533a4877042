r"""Variants: differentiable stand-ins for the gradient of a deployed classifier, found, tested and put in order.

Source: Athalye, Carlini & Wagner (2018), arXiv:1802.00420, section 4 (BPDA, expectation over transformation); the sweep
over surrogates that randomised networks call for.
A variant is attacked in place of the classifier, and its images are judged by the classifier. It is kept if it still
classifies, and if its gradients exist, agree between draws and are not those of another one. How good it is shows in
one step of the fast gradient sign method along its gradient, judged by the deployed classifier: that decides the order,
then the coherence, then the clean accuracy.
"""

import math
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from unperturbed.attacks.classifier import Classifier
from unperturbed.audit.candidates import Candidate, candidates, has_cause
from unperturbed.audit.coherence import Coherence, chance_agreement, measure
from unperturbed.audit.inspection import inspect
from unperturbed.audit.knobs import modules_in
from unperturbed.audit.softening import Seen
from unperturbed.tensors.streams import undisturbed

IMAGES = 48  # looked at, at most
DRAWN = 16  # of these, for the coherence
DRAWS = 4  # of a random classifier, for its gradient and for its decision, for every image
CANDIDATES = 48  # tried, at most
PARALLEL = 0.999  # cosine from which two gradients are the same
NO_GRADIENT = Coherence(0.0, 0.0, chance_agreement(20), 0.0, zero_fraction=1.0, deterministic=True)


@dataclass(frozen=True)
class Variant:
    """A stand-in, and what is known of it."""

    name: str
    says: str  # one sentence: what was changed
    kind: str  # expectation, gradient, both, optimisation, saturation, logits, precision, layer, knob, given, deployed
    classifier: Classifier
    clean_accuracy: float
    coherence: Coherence
    after: float  # accuracy of the deployed classifier after one step along this gradient


@dataclass(frozen=True)
class Found:
    """What a search found."""

    seen: Seen
    variants: tuple[Variant, ...]  # the most promising first
    dropped: tuple[tuple[str, str], ...]  # name of a candidate and why it was dropped
    deployed: Variant  # the classifier itself, by the same measures


class Dropped(Exception):
    """A candidate is of no use; the message says why."""


class Idle(Dropped):
    """A knob that changes nothing."""


def find(
    classifier: Classifier,
    images: Float[Tensor, "batch channel height width"],
    labels: Integer[Tensor, " batch"],
    *,
    given: Classifier | Mapping[str, Classifier] | None = None,
    seed: int = 0,
    limit: int = 12,
    step: float = 8 / 255,
) -> Found:
    """Return the stand-ins through which the classifier is worth attacking.

    A plain network of convolutions, ReLU, pooling and batch norm in evaluation mode has none. Global random numbers,
    knobs and ``.grad`` are afterwards as they were.

    Args:
        classifier: images in [0, 1] to logits, in the mode in which it is deployed.
        images: the first 48 are used.
        labels: the true classes.
        given: one surrogate, or several by name, that the user names; they are tested as all others are.
        seed: of the global random numbers during the search.
        limit: variants returned, at most.
        step: length of the one step that decides the order, as a fraction of full scale.

    Returns:
        Variants, each with a gradient that agrees between draws and is not that of the classifier. The first
        one promises to break the classifier most.

    Raises:
        Exception: whatever the classifier itself raises on these images.
    """
    images, labels = images[:IMAGES].detach(), labels[:IMAGES].long()
    named = {} if given is None else given if isinstance(given, Mapping) else {"the given surrogate": given}
    with _gradients_put_back(classifier):
        seen = inspect(classifier, images[:DRAWN], seed=seed)
        exam = Exam(classifier, images, labels, random=seen.random, seed=seed, step=step)
        deployed = exam.measures(Candidate("the model itself", "As it is deployed.", "deployed", lambda: classifier))
        zeros = deployed.coherence.zero_fraction > 0
        every = candidates(classifier, images, seen, named, zeros=zeros)
        kept, dropped = _sift(every, exam, deployed, quiet=not zeros and not has_cause(seen))
    kept.sort(key=lambda each: (round(each.after, 3), -round(each.coherence.cosine, 3), -each.clean_accuracy))
    dropped += [(variant.name, f"more than {limit} are worth an attack") for variant in kept[limit:]]
    return Found(seen, tuple(kept[:limit]), tuple(dropped), deployed)


def _sift(
    every: Iterator[Candidate], exam: "Exam", deployed: Variant, *, quiet: bool
) -> tuple[list[Variant], list[tuple[str, str]]]:
    """Return the candidates that are of use, and the others with the reason; ``quiet``: nothing called for any."""
    idle: set[str] = set()
    kept: list[Variant] = []
    dropped: list[tuple[str, str]] = []
    for number, candidate in enumerate(every):
        if candidate.group in idle:
            continue
        try:
            if number >= CANDIDATES:
                raise Dropped(f"not tried: {CANDIDATES} candidates are the limit")
            variant = exam.passed(candidate, deployed)
            gain = (deployed.after - variant.after) / math.sqrt(0.5 / len(exam.images))  # in standard errors
            if quiet and candidate.kind == "knob" and gain < 2:
                raise Dropped("no better than the model's own gradient, in which nothing is wrong")
            if deployed.coherence.zero_fraction == 0 and deployed.coherence.coherent and gain < -3:
                raise Dropped("far worse than the model's own gradient")
        except Dropped as reason:
            if isinstance(reason, Idle):
                idle.add(candidate.group)
            dropped.append((candidate.name, str(reason)))
        else:
            kept.append(variant)
    return kept, dropped


@contextmanager
def _gradients_put_back(classifier: Classifier) -> Generator[None]:
    """Keep ``.grad`` of the weights from a classifier that calls ``backward`` itself."""
    weights = [each for module in modules_in(classifier) for each in module.parameters(recurse=False)]
    gradients = [weight.grad for weight in weights]
    for weight in weights:
        weight.grad = None
    try:
        yield
    finally:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient


class Exam:
    """The measures that every candidate takes, and what earlier ones answered.

    Args:
        deployed: the classifier that judges.
        images: on which.
        labels: the true classes.
        random: whether two answers of ``deployed`` differ.
        seed: of the global random numbers, the same for every candidate.
        step: see ``find``.
    """

    def __init__(
        self, deployed: Classifier, images: Tensor, labels: Tensor, *, random: bool, seed: int, step: float
    ) -> None:
        self.deployed, self.images, self.labels = deployed, images, labels
        self.draws = DRAWS if random else 1
        self.seed, self.step = seed, step
        self.logits: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}

    def passed(self, candidate: Candidate, deployed: Variant) -> Variant:
        """Return a candidate that is of use.

        Raises:
            Dropped: it is not.
        """
        try:
            variant = self.measures(candidate, least=self._least_accuracy(deployed.clean_accuracy))
        except Dropped:
            raise
        except Exception as error:  # the user's code may raise anything under other operations or settings
            text = str(error).strip().splitlines()
            raise Dropped(f"fails: {type(error).__name__}: {text[0][:200] if text else ''}") from error
        found = variant.coherence
        if found.zero_fraction == 1:
            raise Dropped("its gradient is 0 for every image")
        if not found.coherent:
            raise Dropped(
                f"its gradients are noise: sign agreement {found.sign_agreement:.3f}, chance {found.chance:.3f}"
            )
        return variant

    def measures(self, candidate: Candidate, *, least: float = 0.0) -> Variant:
        """Return what is known of a candidate after it was measured.

        Raises:
            Dropped: its clean accuracy is below ``least``, or it is the same as an earlier one.
        """
        classifier = candidate.build()
        logits = self._logits(classifier, self.images, 0)
        if not bool(logits.isfinite().all()):
            raise Dropped("its logits are not finite")
        accuracy = self._accuracy(logits)
        if accuracy < least:
            raise Dropped(f"its clean accuracy is {accuracy:.2f}, less than {least:.2f}")
        for name, other in self.logits.items():
            if candidate.kind == "knob" and torch.equal(logits, other):
                raise Idle(f"the same as: {name}")
        try:
            coherence, gradient = self._gradient(classifier)
        except Exception:
            if candidate.kind != "deployed":
                raise
            coherence, gradient = NO_GRADIENT, torch.zeros_like(self.images)
        for name, other in self.gradients.items():
            if _parallel(gradient, other):
                raise Dropped(f"the same gradient as: {name}")
        self.logits[candidate.name], self.gradients[candidate.name] = logits, gradient
        return Variant(
            name=candidate.name,
            says=candidate.says,
            kind=candidate.kind,
            classifier=classifier,
            clean_accuracy=accuracy,
            coherence=coherence,
            after=self._after((self.images + self.step * gradient.sign()).clamp(0, 1)),
        )

    def _gradient(self, classifier: Classifier) -> tuple[Coherence, Tensor]:
        coherence, gradient = measure(classifier, self.images[:DRAWN], self.labels[:DRAWN], seed=self.seed)
        if len(self.images) > DRAWN:
            draws = 1 if coherence.deterministic else DRAWS
            gradient = measure(classifier, self.images, self.labels, draws=draws, seed=self.seed)[1]
        return coherence, gradient

    def _after(self, moved: Tensor) -> float:
        drawn = [self._logits(self.deployed, moved, draw) for draw in range(self.draws)]
        return sum(map(self._accuracy, drawn)) / self.draws

    def _logits(self, classifier: Classifier, images: Tensor, draw: int) -> Tensor:
        with undisturbed("variants", self.seed, draw, device=images.device), torch.no_grad():
            return classifier(images.clone()).detach().double()

    def _accuracy(self, logits: Tensor) -> float:
        return float((logits.argmax(dim=1) == self.labels).double().mean())

    def _least_accuracy(self, deployed: float) -> float:
        """Return twice chance or half of what is deployed; with few classes, or near chance, a little less."""
        chance = 1 / next(iter(self.logits.values())).shape[1]
        return min(max(min(2 * chance, (1 + chance) / 2), deployed / 2), 0.9 * deployed)


def _parallel(gradient: Tensor, other: Tensor) -> bool:
    """Return whether both point the same way for every image: an attack cannot tell them apart, whatever the scale."""
    a, b = (each.flatten(1).double() for each in (gradient, other))
    lengths = a.norm(dim=1), b.norm(dim=1)
    if not torch.equal(lengths[0] > 0, lengths[1] > 0):
        return False
    alive = lengths[0] > 0
    cosines = (a * b).sum(dim=1)[alive] / (lengths[0] * lengths[1])[alive]
    return bool((cosines > PARALLEL).all())
