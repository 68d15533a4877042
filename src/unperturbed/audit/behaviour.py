"""How a classifier answers before anything attacks it: is it random, does it look aside, can its logits be climbed?

Sources: the automatic checks of AutoAttack (Croce & Hein 2020, arXiv:2003.01690, ``checks.py``): five runs of a random
model, probabilities, gradients of zero. Pintor et al. (2022), arXiv:2106.09947: unavailable gradients (I1) and unstable
predictions (I2). Departs from them: I2 is taken on the margin, because the relative change of a cross-entropy near 0
says nothing; a gradient of zero is looked for both in the cross-entropy as float32 rounds it, which is what most tools
climb, and in the exact margin.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unperturbed.attacks.classifier import Classifier, predict, slope
from unperturbed.attacks.objectives import objective
from unperturbed.audit.stand_ins import alone, frozen
from unperturbed.records import SpecError
from unperturbed.tensors.streams import Streams, undisturbed

RUNS = 5
DIFFERENT = 1e-4  # of normalised logits; float32 rounding of another order of sums stays below 1e-5
NOISE = 4 / 255  # half the width of the box in which predictions shall be stable
STEP = 0.25 / 255  # of the finite differences that the gradient is held against
DRAWS = 20
BLIND = 0.9


@dataclass(frozen=True)
class Behaviour:
    """Measured on a few images; fractions of them, unless said otherwise."""

    images: int
    classes: int
    deviation: float  # largest distance of normalised logits between runs
    neighbours: float | None  # the same between an image alone and in its batch; None: not measured on a random one
    probabilities: bool
    no_gradient: str | None  # why there is none, in the classifier's or PyTorch's words
    zero_rounded: float  # gradient of the rounded cross-entropy exactly 0
    zero_exact: float  # gradient of the margin exactly 0
    mismatch: float | None  # median relative error of the gradient against finite differences
    unstable: float  # mean relative change of the margin in a small box, capped at 1

    @property
    def random(self) -> bool:
        """Whether equal images get unequal answers."""
        return self.deviation > DIFFERENT

    @property
    def blind(self) -> bool:
        """Whether the model's own gradient leads nowhere for nearly all images."""
        return self.no_gradient is not None or self.zero_exact > BLIND

    @property
    def looks_aside(self) -> bool:
        """Whether the answer depends on the other images of the batch."""
        return self.neighbours is not None and self.neighbours > DIFFERENT


def behaviour(classifier: Classifier, images: Tensor, labels: Tensor, *, seed: int) -> Behaviour:
    """Return how ``classifier`` behaves on these images, (batch, channel, height, width) in [0, 1]; a few dozen do.

    Raises:
        SpecError: its logits are not as an attack needs them.
    """
    first = _logits(classifier, images, labels, seed, 0)
    runs = [_logits(classifier, images, labels, seed, run) for run in range(1, RUNS)]
    deviation = max(_apart(first, run) for run in runs)
    neighbours = None
    if deviation <= DIFFERENT:
        single = _logits(alone(classifier), images, labels, seed, 0)
        turned = _logits(classifier, images.flip(0), labels.flip(0), seed, 0).flip(0)
        neighbours = max(_apart(first, single), _apart(first, turned))
    still = frozen(classifier, seed) if deviation > DIFFERENT else classifier
    sums = first.sum(dim=1)
    zero_rounded, zero_exact, reason = 1.0, 1.0, None
    mismatch = None
    try:
        zero_rounded = _zero(still, images, labels, "rounded_ce", seed)
        zero_exact = _zero(still, images, labels, "margin", seed)
        mismatch = _mismatch(still, images, labels, seed) if zero_exact < 1 else None
    except (SpecError, RuntimeError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
    return Behaviour(
        images=len(images),
        classes=first.shape[1],
        deviation=deviation,
        neighbours=neighbours,
        probabilities=bool((first >= 0).all() and ((sums - 1).abs() < 1e-3).all()),
        no_gradient=reason,
        zero_rounded=zero_rounded,
        zero_exact=zero_exact,
        mismatch=mismatch,
        unstable=_unstable(still, images, labels, seed),
    )


def _logits(classifier: Classifier, images: Tensor, labels: Tensor, seed: int, run: int) -> Tensor:
    with undisturbed("behaviour", seed, run, device=images.device):
        return predict(classifier, images, labels)


def _apart(one: Tensor, other: Tensor) -> float:
    scale = torch.linalg.vector_norm(one, dim=1).clamp_min(torch.finfo(one.dtype).tiny)
    return float((torch.linalg.vector_norm(one - other, dim=1) / scale).max())


def _gradient(classifier: Classifier, images: Tensor, labels: Tensor, loss: str, seed: int) -> Tensor:
    with undisturbed("behaviour", seed, device=images.device):
        return slope(classifier, images, labels, loss=loss).gradient()


def _zero(classifier: Classifier, images: Tensor, labels: Tensor, loss: str, seed: int) -> float:
    gradient = _gradient(classifier, images, labels, loss, seed)
    return float((gradient.flatten(1) == 0).all(dim=1).double().mean())


def _margin(classifier: Classifier, images: Tensor, labels: Tensor, seed: int) -> Tensor:
    with undisturbed("behaviour", seed, device=images.device):
        return objective(predict(classifier, images, labels), labels, loss="margin").double()


def _mismatch(classifier: Classifier, images: Tensor, labels: Tensor, seed: int) -> float:
    """Return the median of |difference quotient - derivative| over the sum of their sizes, along random signs."""
    inside = images.clamp(STEP, 1 - STEP)
    gradient = _gradient(classifier, inside, labels, "margin", seed).double()
    errors: list[Tensor] = []
    for number in range(3):
        signs = Streams.of(inside, seed).uniform(tuple(images.shape[1:]), "direction", number, dtype=images.dtype)
        direction = (signs - 0.5).sign()
        rise = _margin(classifier, inside + STEP * direction, labels, seed)
        fall = _margin(classifier, inside - STEP * direction, labels, seed)
        measured = (rise - fall) / (2 * STEP)
        told = (gradient * direction).sum(dim=(1, 2, 3))
        errors.append((measured - told).abs() / (measured.abs() + told.abs()).clamp_min(1e-300))
    return float(torch.cat(errors).median())


def _unstable(classifier: Classifier, images: Tensor, labels: Tensor, seed: int) -> float:
    margin = _margin(classifier, images, labels, seed)
    total = torch.zeros_like(margin)
    for draw in range(DRAWS):
        noise = Streams.of(images, seed).uniform(tuple(images.shape[1:]), "box", draw, dtype=images.dtype)
        moved = (images + NOISE * (2 * noise - 1)).clamp(0, 1)
        change = (_margin(classifier, moved, labels, seed) - margin).abs() / margin.abs().clamp_min(1e-300)
        total += change.clamp_max(1)
    return float((total / DRAWS).mean())
