r"""Representational similarity: do two systems find the same images alike?

Source: Kriegeskorte, Mur and Bandettini (2008), Frontiers in Systems Neuroscience 2:4, doi:10.3389/neuro.06.004.2008;
tests and ceilings: Nili et al. (2014), PLoS Computational Biology 10:e1003553, doi:10.1371/journal.pcbi.1003553.

A matrix of dissimilarities is kept as the vector of its pairs of images, row by row above the diagonal, as SciPy's
``squareform`` has it. Two of them are compared by the rank correlation of their pairs: Spearman's, or Kendall's
:math:`\tau_a = (\text{concordant} - \text{discordant}) / \binom{m}{2}` over all m pairs, which, other than
:math:`\tau_b`, does not favour models that predict ties.

*Test.* If the images had nothing to do with each other, exchanging those of one matrix would change nothing. p is the
share of permutations of the images, the observed one included, with a correlation at least as large.

*Ceilings.* How well can dissimilarities agree with those of several subjects? Let :math:`\rho_i` be the ranks of the
pairs of subject i. The lower ceiling is the mean of Spearman's correlation of each subject with the mean ranks of the
others. The upper one is the mean of Pearson's correlation of each :math:`\rho_i` with the mean of all, standardised
first. No model can pass it, since no vector has a larger mean correlation with standardised ones than their mean.

So what is compared with these ceilings is the mean of a model's correlations with each subject. Its test exchanges the
images of the model for all subjects at once.

Departs from the source: its upper ceiling ranks the mean once more, and is then no bound. There is no ceiling for
Kendall's correlation, which has no closed form.
"""

from collections.abc import Iterator
from itertools import chain, islice, permutations
from math import factorial
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray
from scipy.spatial.distance import pdist
from scipy.stats import kendalltau, rankdata

from unperturbed.records import SpecError

Metric = Literal["correlation", "euclidean"]
Rank = Literal["spearman", "kendall"]

ROUNDING = 1e-12
TOGETHER = 50  # permutations that are computed at a time


class Similarity(NamedTuple):
    """How alike two systems find the images, and how likely so much is by chance; higher ``r`` is better."""

    r: Float64[ndarray, "*more"]  # -1 to 1
    p: Float64[ndarray, "*more"]  # of each place by itself, one-sided
    p_largest: Float64[ndarray, "*more"]  # of the largest of all places: corrected for looking at all of them


class Ceilings(NamedTuple):
    """What a perfect model would reach: between ``lower`` and ``upper``."""

    lower: Float64[ndarray, "*more"]
    upper: Float64[ndarray, "*more"]


def dissimilarities(
    patterns: Float[ndarray, "images features *times"], *, metric: Metric = "correlation"
) -> Float64[ndarray, "*times pairs"]:
    """Return how unlike the patterns of each two images are, at each time if there are several.

    Args:
        patterns: what each image evokes: units of a network, or channels.
        metric: 1 - Pearson's r over features, from 0 to 2, or the Euclidean distance.

    Raises:
        SpecError: fewer than 3 images, numbers that are not finite, or, for ``correlation``, a pattern of equal ones.
    """
    if patterns.ndim not in (2, 3) or len(patterns) < 3 or not np.isfinite(patterns).all():
        raise SpecError(
            f"patterns: expected finite (images, features) or (images, features, times) of 3 images or more; "
            f"got {patterns.shape}, {int((~np.isfinite(patterns)).sum())} of them not finite"
        )
    numbers = patterns.astype(np.float64)
    flat = np.ptp(numbers, axis=1) == 0
    if metric == "correlation" and flat.any():
        raise SpecError(
            f"patterns: expected features that differ, to correlate them; got image {np.argwhere(flat)[0][0]} with all "
            "features equal: use metric='euclidean'"
        )
    if numbers.ndim == 2:
        return pdist(numbers, metric)
    return np.stack([pdist(numbers[:, :, time], metric) for time in range(numbers.shape[2])])


def similarity(
    dissimilarity: Float[ndarray, "*more pairs"], reference: Float[ndarray, " pairs"], *, rank: Rank = "spearman"
) -> Float64[ndarray, "*more"]:
    """Return the rank correlation of dissimilarities with those of a reference, from -1 to 1; NaN where all are equal.

    Args:
        dissimilarity: of each pair of images; several, such as one for each time, along the first axes.
        reference: of the same pairs.
        rank: Spearman's correlation or Kendall's tau-a.

    Raises:
        SpecError: the numbers of pairs differ or are not those of any number of images, or a number is not finite.
    """
    rows, (target,) = _ranked(dissimilarity, reference, rank)
    return _correlated(rows, target[None], rank).reshape(dissimilarity.shape[:-1])


def similarity_test(
    dissimilarity: Float[ndarray, "*more pairs"],
    reference: Float[ndarray, " pairs"],
    *,
    rank: Rank = "spearman",
    samples: int = 1000,
    seed: int = 0,
) -> Similarity:
    """Return the rank correlation with a reference, and its p by permutation of the images of the reference.

    Where there are no more permutations than ``samples`` (6 images: 720), all are taken and p is exact. Otherwise
    ``samples`` random ones are drawn and the observed one is counted with them. A time-resolved comparison is one call:
    the same permutations serve all times, and ``p_largest`` is right for the time that was picked because it is best.

    Args:
        dissimilarity: as in ``similarity``.
        reference: as in ``similarity``.
        rank: Spearman's correlation or Kendall's tau-a, which takes a hundred times as long.
        samples: random permutations.
        seed: decides them.

    Raises:
        SpecError: as ``similarity``, a NaN correlation, or no samples.
    """
    rows, (target,) = _ranked(dissimilarity, reference, rank)
    return _tested(rows, target, dissimilarity.shape[:-1], rank, samples, seed)


def mean_similarity_test(
    subjects: Float[ndarray, "subjects *more pairs"],
    model: Float[ndarray, " pairs"],
    *,
    samples: int = 1000,
    seed: int = 0,
) -> Similarity:
    """Return the mean over subjects of Spearman's correlation with a model, and its p by permutation of the images.

    It is this mean that lies below the upper of the ``noise_ceilings`` of the subjects.

    Args:
        subjects: dissimilarities of each of them, at several times if there are any.
        model: of the same pairs.
        samples: as in ``similarity_test``.
        seed: decides the permutations.

    Raises:
        SpecError: as ``similarity_test``.
    """
    rows, (target,) = _ranked(subjects, model, "spearman")
    mean = rows.reshape(len(subjects), -1, model.size).mean(axis=0)
    return _tested(mean, target, subjects.shape[1:-1], "spearman", samples, seed)


def _tested(
    rows: np.ndarray, target: np.ndarray, more: tuple[int, ...], rank: Rank, samples: int, seed: int
) -> Similarity:
    """Return the correlations of ``rows`` with ``target``, in the shape ``more``, with their p."""
    (observed,) = _correlated(rows, target[None], rank)
    if samples < 1 or np.isnan(observed).any():
        raise SpecError(
            f"similarity_test: expected 1 sample or more and dissimilarities that differ; got {samples} and "
            f"{int(np.isnan(observed).sum())} correlations that are undefined"
        )
    images = _images(target.size)
    square = np.zeros((images, images))
    above = np.triu_indices(images, 1)
    square[above] = target
    square += square.T
    at_least, largest, total = np.zeros(observed.size), np.zeros(observed.size), 0
    orders = _orders(images, samples, seed)
    while some := list(islice(orders, TOGETHER)):
        exchanged = np.stack([square[order[above[0]], order[above[1]]] for order in some])
        by_chance = _correlated(rows, exchanged, rank)
        at_least += (by_chance >= observed - ROUNDING).sum(axis=0)
        largest += (by_chance.max(axis=1, keepdims=True) >= observed - ROUNDING).sum(axis=0)
        total += len(some)
    return Similarity(observed.reshape(more), (at_least / total).reshape(more), (largest / total).reshape(more))


def noise_ceilings(subjects: Float[ndarray, "subjects *more pairs"]) -> Ceilings:
    """Return the ceilings of Spearman's correlation with the dissimilarities of ``subjects``.

    Args:
        subjects: dissimilarities of each of at least two people, at several times if there are any.

    Raises:
        SpecError: one subject only, or a number that is not finite.
    """
    if len(subjects) < 2 or not np.isfinite(subjects).all():
        raise SpecError(
            f"noise_ceilings: expected finite dissimilarities of 2 subjects or more; got {len(subjects)}, "
            f"{int((~np.isfinite(subjects)).sum())} numbers not finite"
        )
    ranks = rankdata(subjects, axis=-1)
    each = _standardised(ranks)
    upper = (each * _standardised(each.mean(axis=0))).sum(axis=-1).mean(axis=0)
    others = ranks.sum(axis=0) - ranks  # whole or half numbers, so that equal sums are exactly equal
    lower = (each * _standardised(rankdata(others, axis=-1))).sum(axis=-1).mean(axis=0)
    return Ceilings(np.asarray(lower), np.asarray(upper))


def _images(pairs: int) -> int:
    images = round((1 + (1 + 8 * pairs) ** 0.5) / 2)
    if images < 3 or images * (images - 1) // 2 != pairs:
        raise SpecError(f"dissimilarity: expected n (n - 1) / 2 pairs of n images, 3 or more; got {pairs}")
    return images


def _ranked(dissimilarity: np.ndarray, reference: np.ndarray, rank: Rank) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of ``dissimilarity`` and the one row of ``reference``, ready to be correlated."""
    _images(reference.size)
    if dissimilarity.shape[-1:] != reference.shape:
        raise SpecError(
            f"dissimilarity: expected {reference.size} pairs, as the reference has; got {dissimilarity.shape[-1]}"
        )
    if not (np.isfinite(dissimilarity).all() and np.isfinite(reference).all()):
        raise SpecError("dissimilarity: expected finite numbers, of the reference too; got some that are not")
    both = (dissimilarity.reshape(-1, reference.size), reference[None])
    rows, target = (rankdata(side, axis=-1) for side in both)
    return (_standardised(rows), _standardised(target)) if rank == "spearman" else (rows, target)


def _correlated(rows: np.ndarray, targets: np.ndarray, rank: Rank) -> np.ndarray:
    """Return the correlation of each target (first axis) with each row."""
    if rank == "spearman":
        return targets @ rows.T
    return np.array([[_tau_a(row, target) for row in rows] for target in targets])


def _standardised(values: np.ndarray) -> np.ndarray:
    """Return ``values`` with mean 0 and length 1 over the pairs; NaN where all are equal."""
    centred = values - values.mean(axis=-1, keepdims=True)
    length = np.sqrt((centred**2).sum(axis=-1, keepdims=True))
    return centred / np.where(length > ROUNDING, length, np.nan)


def _tau_a(one: np.ndarray, other: np.ndarray) -> float:
    """Return Kendall's tau-a, which is tau-b times the shares of pairs that are not tied."""
    every = one.size * (one.size - 1) / 2
    untied = [
        every - sum(count * (count - 1) / 2 for count in np.unique(side, return_counts=True)[1])
        for side in (one, other)
    ]
    return float(cast(Any, kendalltau(one, other)).statistic) * (untied[0] * untied[1]) ** 0.5 / every


def _orders(images: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    if images <= 20 and factorial(images) <= samples:
        return (np.array(order) for order in permutations(range(images)))
    random = np.random.default_rng(seed)
    drawn = (random.permutation(images) for _ in range(samples))
    return chain([np.arange(images)], drawn)
