r"""Calibration: is a class that gets the probability p the right one in a fraction p of the cases?

Source: Guo, Pleiss, Sun & Weinberger (2017), arXiv:1706.04599, equation (3): images are sorted into M bins of equal
width by the probability of their predicted class, and

.. math:: \mathrm{ECE} = \sum_{m=1}^{M} \frac{|B_m|}{n} \left| \mathrm{acc}(B_m) - \mathrm{conf}(B_m) \right|,

with :math:`B_m` the images whose probability is in :math:`(\frac{m-1}{M}, \frac{m}{M}]`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturbed.records import SpecError

BINS = 15  # as published
ROUNDED = 5e-3  # how far the probabilities of ten classes in half precision may be from 1 in all


def expected_calibration_error(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], *, bins: int = BINS
) -> float:
    """Return the expected calibration error, a fraction, 0 or larger, lower is better.

    Few images make it too large, because in each bin chance counts as error.

    Args:
        probabilities: (N, C) of every class, N at least 1; rows sum to 1.
        labels: (N,) the true classes.
        bins: of equal width, for the probability of the predicted class.

    Raises:
        SpecError: an argument is not as described.

    >>> expected_calibration_error(np.array([[0.75, 0.25], [0.25, 0.75]]), np.array([0, 0]))
    0.25
    """
    if bins < 1:
        raise SpecError(f"bins: expected at least 1; got {bins}")
    confidence, right = predicted(probabilities, labels)
    surplus = np.bincount(bin_of(confidence, bins=bins), weights=confidence - right, minlength=bins)
    return float(np.abs(surplus).sum() / len(confidence))


def bin_of(confidence: NDArray[np.float64], *, bins: int = BINS) -> NDArray[np.intp]:
    """Return the number of the bin of each probability, from 0; one at an edge belongs to the bin below it.

    >>> bin_of(np.array([0.0, 0.25, 0.26, 1.0]), bins=4).tolist()
    [0, 0, 1, 3]
    """
    return np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")


def predicted(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the probability of the most probable class of every image, and whether it is the right one.

    Of several equally probable classes the first one counts.

    Raises:
        SpecError: an argument is not as in ``expected_calibration_error``.

    >>> confidence, right = predicted(np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([0, 0]))
    >>> confidence.tolist(), right.tolist()
    ([0.9, 0.7], [True, False])
    """
    table = np.asarray(probabilities, dtype=np.float64)
    if table.ndim != 2 or table.size == 0:
        raise SpecError(f"probabilities: expected a shape (images, classes); got {table.shape}")
    if labels.shape != (len(table),):
        raise SpecError(f"labels: expected {len(table)}, one for each image; got a shape of {labels.shape}")
    sums = table.sum(axis=1)
    if not (np.abs(sums - 1) <= ROUNDED).all() or table.min() < 0:
        raise SpecError(
            "probabilities: expected none below 0 and a sum of 1 for every image; "
            f"got {table.min():g} and sums of {sums.min():g} to {sums.max():g}: are they logits?"
        )
    return table.max(axis=1), table.argmax(axis=1) == labels
