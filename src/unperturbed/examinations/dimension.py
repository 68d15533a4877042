"""On how many dimensions a layer's representation lies, and how near to each other it lets different classes lie.

See :mod:`unperturbed.measures.intrinsic_dimension` and :mod:`unperturbed.measures.label_sharpness`.
"""

import math

import numpy as np
from numpy.typing import NDArray

from unperturbed.attacks import Passes
from unperturbed.examinations.contract import Found, Subject, measured
from unperturbed.examinations.spectrum import representation
from unperturbed.measures.intrinsic_dimension import FEWEST, levina_bickel, neighbour_distances, two_nn
from unperturbed.measures.label_sharpness import label_sharpness

NEIGHBOURS = (3, 5, 10, 20)  # the estimate changes with the scale


def dimension(subject: Subject, *, layer: str | None = None) -> Found:
    """Return the intrinsic dimension and the label sharpness of a representation; one forward for each image.

    Time and memory grow as the square of the images.

    Args:
        subject: what is examined; a random network in one draw.
        layer: as in ``spectrum``.

    Returns:
        ``dimension_two_nn``, ``dimension_mle_3`` to ``_20``, ``label_sharpness`` and ``label_sharpness_quantile``. What
        is not defined is left out: a dimension from more neighbours than there are, from equal distances, or of fewer
        than three different representations; a sharpness of one class only, or where two classes are represented
        alike. The arrays have the distances of the neighbours and the bootstrap interval of the sharpness.

    Raises:
        SpecError: a layer that there is not, or a representation that is not finite.
    """
    passes = Passes(subject.network)
    seen = representation(subject, passes, subject.images, layer=layer, examination="dimension")
    labels = subject.labels.cpu().numpy()
    subject.look()
    values: dict[str, float] = {}
    arrays: dict[str, NDArray[np.float64]] = {}
    if len(np.unique(seen, axis=0)) >= FEWEST:
        distances = arrays["distances"] = neighbour_distances(seen, k=max(NEIGHBOURS))
        values["dimension_two_nn"] = two_nn(distances)
        values |= {f"dimension_mle_{k}": levina_bickel(distances, k=k) for k in NEIGHBOURS if k <= distances.shape[1]}
    subject.look()
    if len(np.unique(labels)) > 1:
        sharpness = label_sharpness(seen, labels, seed=subject.seed)
        values |= {"label_sharpness": sharpness.value, "label_sharpness_quantile": sharpness.quantile}
        arrays["label_sharpness_interval"] = np.array([sharpness.low, sharpness.high])
    return Found(
        measured({name: value for name, value in values.items() if math.isfinite(value)}, len(labels)),
        arrays=arrays,
        forwards=passes.forwards,
    )
