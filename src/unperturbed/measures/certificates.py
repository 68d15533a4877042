r"""Certificates of randomised smoothing: a radius within which the smoothed classifier provably keeps its answer.

Source: Cohen, Rosenfeld and Kolter (2019), arXiv:1902.02918, theorem 1 and section 3.2: with k of n noisy copies in
class c, :math:`p_A` the one-sided lower bound of Clopper and Pearson (1934) at level alpha, and :math:`p_A > 1/2`, the
answer is c within :math:`R = \sigma \Phi^{-1}(p_A)` (Euclidean); else it abstains. The class is chosen by draws of its
own. No certificate exceeds :math:`\sigma \Phi^{-1}(\alpha^{1/n})`; there is none unless :math:`\alpha^{1/n} > 1/2`.
Departs from the source: copies of several images go through the classifier together.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import beta, norm
from torch import Tensor

from unperturbed.records import SpecError
from unperturbed.tensors.streams import Streams, generator

AT_ONCE = 512  # noisy copies in a batch, of as many images as they are
DRAWN = 256  # of one image, whose noise is drawn at once; another number draws other noise


class Certificates(NamedTuple):
    """What is certified, for every image."""

    predicted: NDArray[np.int64]  # the class, -1 where it abstains
    radius: NDArray[np.float64]  # Euclidean, 0 where it abstains
    votes: NDArray[np.int64]  # draws that gave the class, of n


def certify(
    classifier: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    sigma: float,
    n: int = 100_000,
    n0: int = 100,
    alpha: float = 0.001,
    seed: int = 0,
) -> Certificates:
    """Return class and radius of every image, each image wrong with a probability of at most ``alpha``.

    Args:
        classifier: images, unclipped, to logits; the one that is smoothed, without noise of its own.
        images: (batch, channel, height, width) in [0, 1].
        sigma: standard deviation of the noise, as a fraction of full scale.
        n: draws that bound the probability.
        n0: draws that choose the class.
        alpha: probability of a wrong certificate.
        seed: of the noise, for each image apart: an image has the same noise in any batch.

    Raises:
        SpecError: sigma, draws or alpha are not as described, or n is too small to certify anything.
    """
    if not sigma > 0:
        raise SpecError(f"certify: expected sigma above 0; got {sigma:g}")
    check_draws(n, n0, alpha=alpha)
    votes = _votes(classifier, images, (n0, n), sigma, seed)
    chosen = votes[:, 0].argmax(axis=1)
    count = votes[np.arange(len(votes)), 1, chosen]
    radius = certified_radius(count, n, sigma=sigma, alpha=alpha)
    return Certificates(np.where(radius > 0, chosen, -1), radius, count)


def check_draws(n: int, n0: int, *, alpha: float) -> None:
    """Refuse numbers of draws that certify nothing.

    >>> check_draws(9, 1, alpha=0.001)
    Traceback (most recent call last):
    unperturbed.records.SpecError: certify: 9 draws cannot certify anything at alpha = 0.001; expected n of at least 10
    """
    if min(n, n0) < 1 or not 0 < alpha < 1:
        raise SpecError(f"certify: expected n and n0 of at least 1 and alpha in (0, 1); got {n}, {n0} and {alpha:g}")
    if n < (enough := fewest(alpha)):
        raise SpecError(
            f"certify: {n} draws cannot certify anything at alpha = {alpha:g}; expected n of at least {enough}"
        )


def fewest(alpha: float) -> int:
    """Return the smallest number of draws that can certify anything, all of them for one class.

    >>> fewest(0.001), fewest(0.25)
    (10, 3)
    """
    return math.floor(-math.log2(alpha)) + 1


def largest_radius(n: int, *, sigma: float, alpha: float) -> float:
    """Return the Euclidean radius that ``n`` draws certify when all of them are for one class.

    >>> round(largest_radius(100_000, sigma=1.0, alpha=0.001), 1)
    3.8
    """
    return float(certified_radius(np.array([n]), n, sigma=sigma, alpha=alpha)[0])


def certified_radius(count: NDArray[np.int64], n: int, *, sigma: float, alpha: float) -> NDArray[np.float64]:
    """Return the Euclidean radius that ``count`` of ``n`` draws certify, 0 where they certify none."""
    # Clopper-Pearson: the bound is a quantile of a beta distribution, 0 for no success at all.
    lower = np.where(count > 0, beta.ppf(alpha, np.maximum(count, 1), n - count + 1), 0.0)
    return np.where(lower > 0.5, sigma * norm.ppf(np.clip(lower, 0.5, None)), 0.0)


def certified_accuracy(
    certificates: Certificates, labels: NDArray[np.int64], radii: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the fraction of images that are right and certified at each radius; abstaining counts as wrong."""
    right = certificates.predicted == labels
    return np.array([float((right & (certificates.radius >= radius)).mean()) for radius in radii])


def average_certified_radius(certificates: Certificates, labels: NDArray[np.int64]) -> float:
    """Return the mean over all images of the radius where the class is right, else 0 (Zhai et al. 2020)."""
    return float(np.where(certificates.predicted == labels, certificates.radius, 0.0).mean())


def _votes(
    classifier: Callable[[Tensor], Tensor], images: Tensor, draws: tuple[int, ...], sigma: float, seed: int
) -> NDArray[np.int64]:
    """Return how often each class was the answer, for each image and each of its groups of draws."""
    votes = np.zeros((len(images) * len(draws), 1), dtype=np.int64)
    with torch.no_grad():
        for groups, copies in _packed(_noisy(images, draws, sigma, seed)):
            logits = classifier(copies)
            classes = logits.shape[1]
            if votes.shape[1] != classes:
                votes = np.zeros((len(votes), classes), dtype=np.int64)
            cells = groups.to(logits.device) * classes + logits.argmax(dim=1)
            votes += torch.bincount(cells, minlength=votes.size).view(votes.shape).cpu().numpy()
    return votes.reshape(len(images), len(draws), -1)


def _noisy(images: Tensor, draws: tuple[int, ...], sigma: float, seed: int) -> Iterator[tuple[int, Tensor]]:
    """Yield noisy copies of one image after another, with the number of the group that they belong to."""
    for number, (image, key) in enumerate(zip(images, Streams.of(images, seed).keys.tolist(), strict=True)):
        random = generator("certify", *key, device=image.device)
        for place, total in enumerate(draws):
            for start in range(0, total, DRAWN):
                shape = (min(DRAWN, total - start), *image.shape)
                noise = torch.randn(shape, generator=random, device=image.device, dtype=image.dtype)
                yield number * len(draws) + place, image + sigma * noise


def _packed(pieces: Iterator[tuple[int, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the copies again in full batches, each row with its group."""
    groups: list[Tensor] = []
    rows: list[Tensor] = []
    held = 0
    for group, copies in pieces:
        groups.append(torch.full((len(copies),), group))
        rows.append(copies)
        held += len(copies)
        while held >= AT_ONCE:
            whole, full = torch.cat(groups), torch.cat(rows)
            yield whole[:AT_ONCE], full[:AT_ONCE]
            groups, rows, held = [whole[AT_ONCE:]], [full[AT_ONCE:]], held - AT_ONCE
    if held:
        yield torch.cat(groups), torch.cat(rows)
