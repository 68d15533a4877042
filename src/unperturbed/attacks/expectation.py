r"""Accuracy of a random classifier, as an expectation over its draws with an interval, and by majority vote.

One evaluation of a random classifier is one draw: it differs from the next, and where an attack went on until a draw
was wrong, that draw is not a fair one. Here every draw is fresh.

Source of the design: Athalye, Carlini & Wagner (2018), arXiv:1802.00420, section 4.1.2, who ask for the expectation
over the classifier's own randomness. Of the interval: images and draws are crossed random effects (Searle, Casella &
McCulloch 1992, *Variance Components*). With :math:`n` images, :math:`K` draws, :math:`s_n^2` the variance
of the means of the images, :math:`s_K^2` that of the means of the draws and :math:`s_r^2` what is left of both,

.. math:: \mathrm{var}(\hat\mu) = \frac{s_n^2}{n} + \max\left(\frac{s_K^2}{K} - \frac{s_r^2}{nK}, 0\right).

The limits are those of Wilson (1927), doi:10.1080/01621459.1927.10502953, for as many images as would give this
variance (Korn & Graubard 1998, Survey Methodology 24, 193-201) but never for more than there are, with a quantile of
Student's t, whose degrees of freedom are those of Satterthwaite (1946), doi:10.2307/3002019. Not narrower than for a
classifier without randomness, because a variance that is found from a few wrong answers is too often too small.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor

from unperturbed.attacks.batches import in_batches
from unperturbed.attacks.classifier import Classifier, predict
from unperturbed.attacks.inputs import check_images, check_labels
from unperturbed.attacks.judge import majority
from unperturbed.records import SpecError
from unperturbed.tensors.streams import seed_for, undisturbed


@dataclass(frozen=True, eq=False)
class Expectation:
    """What a number of fresh draws of a classifier say about N images."""

    draws: int
    mean: float  # accuracy expected of one draw
    interval: tuple[float, float]  # of the mean, for other images and other draws
    vote: float  # accuracy of the majority of the draws
    single_sd: float  # standard deviation of the accuracy of one draw, on these images
    deterministic: bool  # all draws gave the same logits, bit by bit
    per_image: NDArray[np.float64]  # (N,) fraction of the draws in which each image is right


def expectation(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    *,
    draws: int = 20,
    seed: int = 0,
    confidence: float = 0.95,
    batch_size: int | None = None,
) -> Expectation:
    """Return the accuracy over fresh draws of a classifier, ``draws`` forwards for each image.

    Clean and attacked images are compared by two calls with the same number of draws; a vote of more draws is another
    classifier.

    Args:
        classifier: images in [0, 1] to logits; what is random in it draws from the global generators, which are seeded
            for the time being and put back.
        images: floating-point intensities in [0, 1], clean or attacked.
        labels: the true classes.
        draws: forwards of each image, 2 or more.
        seed: decides the draws; other words than any attack's or the judge's, so that no attack has seen them.
        confidence: coverage of the interval, above 0 and below 1.
        batch_size: images at once; ``None``: found while the work is done.

    Returns:
        Mean, interval, vote and spread. The interval covers which images and which draws were taken.

    Raises:
        SpecError: an argument or the classifier's logits are not as described.
    """
    check_images(images)
    check_labels(labels, len(images))
    if draws < 2:
        raise SpecError(f"expectation: expected draws of at least 2; got {draws}")
    if not 0 < confidence < 1:
        raise SpecError(f"expectation: expected a confidence above 0 and below 1, for example 0.95; got {confidence:g}")
    right = np.empty((draws, len(images)), dtype=np.bool_)
    voted = np.empty(len(images), dtype=np.bool_)
    same = True

    def work(part: slice) -> int:
        nonlocal same
        with undisturbed("expectation", seed, seed_for(part.start), device=images.device):
            logits = [predict(classifier, images[part], labels[part]) for _ in range(draws)]
        classes = torch.stack([each.argmax(dim=1) for each in logits])
        right[:, part] = (classes == labels[part]).cpu().numpy()
        voted[part] = (majority(classes) == labels[part]).cpu().numpy()
        same = same and all(torch.equal(each, logits[0]) for each in logits[1:])
        return draws * len(classes[0])

    in_batches(len(images), work, batch_size=batch_size)
    return Expectation(
        draws=draws,
        mean=float(right.mean()),
        interval=crossed_interval(right, confidence=confidence),
        vote=float(voted.mean()),
        single_sd=float(right.mean(axis=1).std(ddof=1)),
        deterministic=same,
        per_image=right.mean(axis=0),
    )


def crossed_interval(right: NDArray[np.bool_], *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of the mean of ``right`` (draws, images), for other draws and other images.

    A classifier without randomness gets Wilson's interval for its images.

    >>> low, high = crossed_interval(np.array([[True, True, False, True]] * 2))
    >>> round(low, 3), round(high, 3)
    (0.301, 0.954)
    """
    draws, images = right.shape
    mean = right.mean()
    # Over the number of images, and not one less, so that without randomness there are as many images as there are.
    between_images = right.mean(axis=0).var() / images
    between_draws = right.mean(axis=1).var(ddof=1) / draws
    left = right - right.mean(axis=0) - right.mean(axis=1, keepdims=True) + mean
    residual = (left**2).sum() / ((draws - 1) * max(images - 1, 1)) / (draws * images)
    excess = max(between_draws - residual, 0.0)
    variance = between_images + excess
    effective, freedom = float(images), np.inf
    if variance > 0:
        effective = min(mean * (1 - mean) / variance, effective)
    if excess > 0:
        freedom = (variance / excess) ** 2 * (draws - 1)  # that of the images is known from the mean
    return _wilson(mean, effective, float(student.ppf((1 + confidence) / 2, freedom)))


def _wilson(mean: float, count: float, quantile: float) -> tuple[float, float]:
    shrink = 1 + quantile**2 / count
    centre = (mean + quantile**2 / (2 * count)) / shrink
    half = quantile / shrink * np.sqrt(mean * (1 - mean) / count + quantile**2 / (4 * count**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
