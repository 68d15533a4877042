r"""Intrinsic dimension: on a manifold of how many dimensions do points lie, as their nearest neighbours tell?

Sources. TwoNN: Facco et al. (2017), doi:10.1038/s41598-017-11873-y: the ratio :math:`\mu = r_2 / r_1` of the distances
to the two nearest neighbours has the distribution :math:`F(\mu) = 1 - \mu^{-d}`, so that
:math:`-\log(1 - F) = d \log \mu`, a line through the origin. Maximum likelihood: Levina and Bickel (2004), NIPS 17,
equation (8), averaged over points as MacKay and Ghahramani (2005) ask for: with the distance :math:`T_j` to the j-th
neighbour,

.. math:: \hat d = \Big[ \frac{1}{N} \sum_x \frac{1}{k-1} \sum_{j<k} \log \frac{T_k(x)}{T_j(x)} \Big]^{-1}.

Departs from the source: the released code of Pope et al. (2021), arXiv:2104.08894, has :math:`1/(k-2)` for
:math:`1/(k-1)`, which belongs to the mean of the estimates and not to that of their inverses: what it reports is too
low by the factor (k-2)/(k-1), 1/2 at k = 3 and 0.947 at k = 20. ``as_published`` does the same.

Both estimates are too low where a manifold has edges, as neighbours are missing there, and the more so the more
dimensions and the fewer points: of a cube of ten dimensions, 5,000 points seem to have 8.5 and 20,000 have 8.6 to 9.0,
while a cube whose opposite faces touch, and spheres, have their dimension within 6 and 10 %. There is no correction for
it that does not know the manifold: compare dimensions of as many points.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from unperturbed.records import SpecError

FEWEST = 3  # distinct points: each needs two neighbours
DISCARDED = 0.1  # of the ratios, the largest, which lie off the line


def neighbour_distances(points: NDArray[Any], *, k: int = 20) -> NDArray[np.float64]:
    """Return the distances of every point to its ``k`` nearest neighbours, the nearest first.

    Args:
        points: (N, D). Of equal points one is kept.
        k: neighbours; as many as there are, if there are fewer.

    Returns:
        (distinct points, neighbours), all above 0, the points in the order of their coordinates.

    Raises:
        SpecError: fewer than three distinct points, or numbers that are not finite.

    >>> neighbour_distances(np.array([[0.0], [1.0], [3.0], [3.0]]), k=2).tolist()
    [[1.0, 3.0], [1.0, 2.0], [2.0, 3.0]]
    """
    table = np.asarray(points, dtype=np.float64)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise SpecError(f"points: expected finite numbers of shape (points, coordinates); got a shape of {table.shape}")
    distinct = np.unique(table, axis=0)
    if len(distinct) < FEWEST:
        raise SpecError(f"points: expected three distinct ones or more; got {len(distinct)} among {len(table)}")
    count = min(k, len(distinct) - 1)
    nearest = (
        NearestNeighbors(n_neighbors=count).fit(distinct - distinct.mean(axis=0)).kneighbors(return_distance=False)
    )
    # From differences: the search takes squares apart, and loses what near points differ in.
    found = [np.linalg.norm(distinct - distinct[nearest[:, place]], axis=1) for place in range(count)]
    return np.sort(np.stack(found, axis=1), axis=1)


def two_nn(distances: NDArray[np.float64]) -> float:
    """Return the dimension from the two nearest neighbours; the largest tenth of the ratios is left out.

    Args:
        distances: of ``neighbour_distances``, two neighbours or more.

    Returns:
        The dimension, above 0; infinite where all points have both neighbours at the same distance.
    """
    _check(distances, 2)
    ratios = np.sort(distances[:, 1] / distances[:, 0])
    count = len(ratios)
    kept = math.floor(count * (1 - DISCARDED))
    x = np.log(ratios[:kept])
    y = -np.log1p(-np.arange(1, kept + 1) / count)
    return float(x @ y / (x @ x)) if x[-1] > 0 else math.inf


def levina_bickel(distances: NDArray[np.float64], *, k: int = 20, as_published: bool = False) -> float:
    """Return the dimension of largest likelihood from ``k`` neighbours; it is that at their scale.

    Args:
        distances: of ``neighbour_distances``, ``k`` neighbours or more.
        k: neighbours, three or more.
        as_published: as Pope et al. compute it, too low; see above.

    Returns:
        The dimension, above 0; infinite where all neighbours are at the same distance.
    """
    if k < 3:
        raise SpecError(f"levina_bickel: expected k of at least 3; got {k}")
    _check(distances, k)
    logs = np.log(distances[:, k - 1 : k] / distances[:, : k - 1]).sum(axis=1).mean()
    return float((k - 2 if as_published else k - 1) / logs) if logs > 0 else math.inf


def _check(distances: NDArray[np.float64], k: int) -> None:
    if distances.ndim != 2 or distances.shape[1] < k:
        raise SpecError(f"distances: expected those to {k} neighbours or more; got a shape of {distances.shape}")
