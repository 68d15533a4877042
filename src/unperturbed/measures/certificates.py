r"""Certificates of randomised smoothing: a radius within which the smoothed classifier provably keeps its answer.

Source: Cohen, Rosenfeld and Kolter (2019), arXiv:1902.02918, theorem 1 and section 3.2: with k of n noisy copies in
class c, :math:`p_A` the one-sided lower bound of Clopper and Pearson (1934) at level alpha, and :math:`p_A > 1/2`, the
answer is c within :math:`R = \sigma \Phi^{-1}(p_A)` (Euclidean); else it abstains. The class is chosen by draws of its
own. Nothing that certifies can exceed :math:`\sigma \Phi^{-1}(\alpha^{1/n})`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import beta, norm
from torch import Tensor

from unperturbed.records import SpecError
from unperturbed.tensors.streams import generator

AT_ONCE = 512  # noisy copies in a batch


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
        seed: of the noise, for each image apart.

    Raises:
        SpecError: sigma, draws or alpha are not as described.
    """
    if not sigma > 0 or min(n, n0) < 1 or not 0 < alpha < 1:
        raise SpecError(
            f"certify: expected sigma above 0, n and n0 of at least 1 and alpha in (0, 1); "
            f"got {sigma:g}, {n}, {n0} and {alpha:g}"
        )
    predicted, counts = [], []
    for number, image in enumerate(images):
        random = generator("certify", seed, number, device=image.device)
        chosen = int(_votes(classifier, image, n0, sigma, random).argmax())
        counts.append(int(_votes(classifier, image, n, sigma, random)[chosen]))
        predicted.append(chosen)
    count = np.array(counts, dtype=np.int64)
    radius = certified_radius(count, n, sigma=sigma, alpha=alpha)
    return Certificates(np.where(radius > 0, np.array(predicted, dtype=np.int64), -1), radius, count)


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
    classifier: Callable[[Tensor], Tensor], image: Tensor, draws: int, sigma: float, random: torch.Generator
) -> Tensor:
    votes = torch.zeros(0, dtype=torch.int64)
    with torch.no_grad():
        for start in range(0, draws, AT_ONCE):
            shape = (min(AT_ONCE, draws - start), *image.shape)
            noise = torch.randn(shape, generator=random, device=image.device, dtype=image.dtype)
            logits = classifier(image + sigma * noise)
            found = torch.bincount(logits.argmax(dim=1).cpu(), minlength=logits.shape[1])
            votes = found if len(votes) == 0 else votes + found
    return votes
