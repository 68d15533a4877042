r"""Label sharpness: how near to each other points of different classes lie.

Source: Konz and Mazurowski (2024), arXiv:2401.08865, section 3.2: over pairs of a sample,

.. math:: \hat K_F = \max_{j,k} \frac{|y_j - y_k|}{\|x_j - x_k\|_2},

for classes 0 and 1. Here any two different classes are at a distance of 1, so that :math:`\hat K_F` is the inverse of
the smallest distance between points of different classes. Being an extreme it moves with every sample: beside it stand
the inverse of the distance that 1 % of such pairs undercut, and a bootstrap interval.

Departs from the source: all pairs of the sample count. The released code pairs each point with a few others, those that
stand at the same place of another shuffled batch, and takes every data set for one of many classes, where it counts
pairs of the same class; a point that meets itself makes the result infinite: see ``label_sharpness_as_coded``.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from unperturbed.records import SpecError

NEAR = 0.01  # of the pairs of different classes


class LabelSharpness(NamedTuple):
    """Inverse distances, 0 or larger; infinite where equal points have different classes."""

    value: float
    quantile: float  # of the pairs of different classes 1 % are nearer
    low: float  # of the value: 95 % of the bootstrap, which cannot exceed it
    high: float
    pairs: int  # of different classes


def label_sharpness(
    points: NDArray[Any], labels: NDArray[np.integer[Any]], *, resamples: int = 200, seed: int = 0
) -> LabelSharpness:
    """Return the label sharpness of all pairs of points of different classes; time and memory grow as their square.

    Args:
        points: (N, D), images or representations.
        labels: (N,) two classes or more.
        resamples: of the points, for the interval.
        seed: of the bootstrap.

    Raises:
        SpecError: shapes are not as described, or all points are of one class.

    >>> label_sharpness(np.array([[0.0], [4.0], [9.0]]), np.array([0, 1, 0])).value
    0.25
    """
    table = _table(points, labels)
    pieces: list[NDArray[Any]] = []
    lefts: list[NDArray[np.intp]] = []
    rights: list[NDArray[np.intp]] = []
    for each in np.unique(labels)[:-1]:
        own, later = np.flatnonzero(labels == each), np.flatnonzero(labels > each)
        pieces.append(cdist(table[own], table[later]).ravel())
        lefts.append(own.repeat(len(later)))
        rights.append(np.tile(later, len(own)))
    if not pieces:
        raise SpecError(f"labels: expected two classes or more; got {len(labels)} points of one")
    distances = np.concatenate(pieces)
    smallest = _resampled(distances, np.concatenate(lefts), np.concatenate(rights), len(table), resamples, seed)
    # Of distances, turned round: an infinite inverse has no place between others.
    high, low = np.quantile(smallest, [0.025, 0.975], method="inverted_cdf")
    return LabelSharpness(
        value=_inverse(distances.min()),
        quantile=_inverse(np.quantile(distances, NEAR)),
        low=_inverse(low),
        high=_inverse(high),
        pairs=len(distances),
    )


def label_sharpness_as_coded(
    points: NDArray[Any], labels: NDArray[np.integer[Any]], *, batch_size: int = 500, seed: int = 0
) -> float:
    """Return what the released code computes, for comparison with published numbers only.

    Args:
        points: as in ``label_sharpness``.
        labels: as in ``label_sharpness``.
        batch_size: of the two shuffled passes, whose batches are paired place by place.
        seed: of the shuffles.
    """
    table, random = _table(points, labels), np.random.default_rng(seed)

    def batches() -> list[NDArray[np.intp]]:
        order = random.permutation(len(table))
        return [order[start : start + batch_size] for start in range(0, len(table), batch_size)]

    largest = 0.0
    for first in batches():
        for second in batches():  # shuffled again for every first one
            met = min(len(first), len(second))
            i, j = first[:met], second[:met]
            same = labels[i] == labels[j]
            distances = np.linalg.norm(table[i] - table[j], axis=1)[same]
            largest = max(largest, _inverse(distances.min(initial=math.inf)))
    return largest


def _resampled(
    distances: NDArray[np.float64],
    lefts: NDArray[np.intp],
    rights: NDArray[np.intp],
    count: int,
    resamples: int,
    seed: int,
) -> NDArray[np.float64]:
    """Return the smallest distance of each resample: that of the nearest pair of which both were drawn."""
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    present = np.zeros((resamples, count), dtype=np.bool_)
    np.put_along_axis(present, drawn, True, axis=1)
    smallest = np.full(resamples, math.inf)
    for pair in np.argsort(distances, kind="stable"):
        waiting = np.isinf(smallest)
        if not waiting.any():
            break
        smallest[waiting & present[:, lefts[pair]] & present[:, rights[pair]]] = distances[pair]
    return smallest


def _inverse(distance: float) -> float:
    return float(1 / distance) if distance > 0 else math.inf


def _table(points: NDArray[Any], labels: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    table = np.asarray(points, dtype=np.float64)
    if table.ndim != 2 or labels.shape != (len(table),):
        raise SpecError(
            f"points: expected a shape (points, coordinates) and a label for each; got {table.shape} and {labels.shape}"
        )
    return table
