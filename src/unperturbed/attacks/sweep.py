"""One attack at increasing radii: the curve of accuracy over eps, image by image, with nothing attacked twice.

Source: the published curve is that of Kunhardt, Deza & Poggio (2021), arXiv:2102.10534. Departs from the source: an
image that broke at a smaller radius is carried over to the larger ones, whose balls contain it, and is not attacked
again, except where the published form attacks every image at every radius (FGSM).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from unperturbed.attacks.classifier import Classifier, Passes, predict, slope
from unperturbed.attacks.evidence import Evidence
from unperturbed.attacks.fgsm import along, fgsm
from unperturbed.attacks.inputs import check_images, check_labels, check_radii
from unperturbed.attacks.judge import Judgement, judge
from unperturbed.attacks.noise import gaussian_noise
from unperturbed.records import Spec, SpecError
from unperturbed.registry import complete
from unperturbed.tensors.norms import check_norm, steepest

Attack = Callable[..., Tensor]
"""``attack(classifier, images, labels, generator, *, norm, eps, ...) -> images``, as every function of this package."""

AS_PUBLISHED = (fgsm, gaussian_noise)  # attack every image at every radius, whatever happened at a smaller one
UNCONFINED = (gaussian_noise,)  # eps is a scale and not the radius of a ball


def sweep(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    attack: Attack,
    *,
    eps: Sequence[float | int],
    generator: torch.Generator | None = None,
    norm: str = "linf",
    inherit: bool | None = None,
    batch_size: int = 500,
    keep: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Evidence:
    """Return what ``attack`` does to every image at every radius, as the judge finds it.

    At ``eps = 0`` nothing is attacked: the accuracy there is the clean accuracy. FGSM takes one gradient for all radii:
    1 backward and 1 forward at the clean image, and 1 forward of the judge for every radius above 0. Any other attack
    takes 1 forward of the clean image, and at every radius above 0, for every image not yet broken, its own passes and
    1 forward of the judge.

    Args:
        classifier: images in [0, 1] to logits, in the mode to be attacked in; not modified.
        images: floating-point intensities in [0, 1].
        labels: the true classes, whole numbers.
        attack: a function of this package, see ``ATTACKS``.
        eps: radii, increasing, 0 or larger, as fractions of full scale (8/255 = 0.0314).
        generator: source of random numbers; the same state and batch size give the same evidence.
        norm: ``linf`` or ``l2``.
        inherit: whether an image that broke at a smaller radius counts as broken at the larger ones and is left alone,
            so that accuracy cannot rise with eps; an image misclassified from the start then is never attacked.
            ``None``: yes, except for FGSM and Gaussian noise.
        batch_size: images that are attacked at once.
        keep: how many of the first images are kept as pictures.
        progress: called with the number of (image, radius) pairs done and their total.
        settings: further settings of the attack.

    Returns:
        The evidence. What the judge refuses (outside the ball or [0, 1]) is counted there, and the image before that
        attack stands in its place.

    Raises:
        SpecError: an argument is not as described.
    """
    check_images(images)
    check_labels(labels, len(images))
    check_radii(eps)
    check_norm(norm)
    if batch_size < 1:
        raise SpecError(f"sweep: expected batch_size of at least 1; got {batch_size}")
    spec = Spec(name=attack.__name__, settings={"norm": norm, **settings})
    written_out = complete("attack", {attack.__name__: attack}, spec, apart=("eps",)).settings
    box = written_out.get("clip", True) is True
    inherit = attack not in AS_PUBLISHED if inherit is None else inherit
    passes = Passes(classifier)
    count, keep = len(images), min(keep, len(images))
    prediction = np.empty((len(eps), count), dtype=np.int16)
    linf = np.empty((len(eps), count), dtype=np.float32)
    l2 = np.empty((len(eps), count), dtype=np.float32)
    refused = np.zeros((len(eps), count), dtype=np.bool_)
    clean_prediction = np.empty(count, dtype=np.int16)
    confidence = np.empty(count, dtype=np.float32)
    adversarial = np.empty((len(eps), keep, *images.shape[1:]), dtype=np.float32)

    for start in range(0, count, batch_size):
        part = slice(start, min(start + batch_size, count))
        clean, truth = images[part], labels[part]
        logits, perturb = _prepare(passes, clean, truth, attack, generator, written_out)
        clean_prediction[part] = logits.argmax(dim=1).cpu().numpy()
        confidence[part] = logits.softmax(dim=1).gather(1, truth.long().unsqueeze(1)).squeeze(1).cpu().numpy()
        untouched = _Front.start(clean, logits.argmax(dim=1))
        front = untouched
        for row, radius in enumerate(eps):
            if not inherit:
                front = untouched
            rows = torch.nonzero(front.prediction == truth if inherit else torch.ones_like(truth, dtype=torch.bool))
            rows = rows.squeeze(1)
            if radius > 0 and len(rows) > 0:
                found = perturb(rows, radius)
                ball = None if attack in UNCONFINED else radius
                verdict = judge(passes, clean[rows], truth[rows], found, norm=norm, eps=ball, box=box)
                accepted = verdict.in_ball & verdict.in_box if box else verdict.in_ball
                front = front.advance(rows[accepted], found[accepted], verdict, accepted)
                refused[row, start + rows[~accepted].cpu().numpy()] = True
            prediction[row, part] = front.prediction.cpu().numpy()
            linf[row, part], l2[row, part] = front.linf.cpu().numpy(), front.l2.cpu().numpy()
            if start < keep:
                adversarial[row, start : part.stop] = front.images[: keep - start].float().cpu().numpy()
            if progress is not None:
                progress(start * len(eps) + (row + 1) * len(clean), count * len(eps))

    classes = labels.cpu().numpy().astype(np.int16)
    broken = np.vstack([clean_prediction != classes, prediction != classes])
    return Evidence(
        eps=np.array(eps, dtype=np.float64),
        labels=classes,
        prediction=prediction,
        correct=prediction == classes,
        linf=linf,
        l2=l2,
        confidence=confidence,
        critical_eps=np.where(broken.any(axis=0), np.array([0.0, *eps])[broken.argmax(axis=0)], np.inf),
        refused=refused,
        forwards=passes.forwards,
        backwards=passes.backwards,
        originals=images[:keep].float().cpu().numpy().copy(),
        adversarial=adversarial,
    )


class _Front(NamedTuple):
    """What stands for every image of a batch at the radius reached."""

    images: Tensor
    prediction: Tensor
    linf: Tensor
    l2: Tensor

    @classmethod
    def start(cls, images: Tensor, prediction: Tensor) -> "_Front":
        nowhere = torch.zeros(len(images), dtype=torch.float64, device=images.device)
        return cls(images, prediction, nowhere, nowhere)

    def advance(self, rows: Tensor, images: Tensor, verdict: Judgement, accepted: Tensor) -> "_Front":
        return _Front(
            self.images.index_copy(0, rows, images),
            self.prediction.index_copy(0, rows, verdict.prediction[accepted]),
            self.linf.index_copy(0, rows, verdict.linf[accepted]),
            self.l2.index_copy(0, rows, verdict.l2[accepted]),
        )


def _prepare(
    passes: Passes,
    images: Tensor,
    labels: Tensor,
    attack: Attack,
    generator: torch.Generator | None,
    settings: dict[str, Any],
) -> tuple[Tensor, Callable[[Tensor, float], Tensor]]:
    """Return the clean logits, and a function from some rows of the batch and a radius to adversarial images."""
    if attack is fgsm:
        seen = slope(passes, images, labels, exact=settings["exact"])
        direction = steepest(seen.gradient(), norm=settings["norm"])
        clip = settings["clip"]
        return seen.logits, lambda rows, eps: along(images[rows], direction[rows], eps=eps, clip=clip)
    logits = predict(passes, images, labels)
    return logits, lambda rows, eps: attack(passes, images[rows], labels[rows], generator, eps=eps, **settings)
