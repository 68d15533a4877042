"""How steep and how kinked a network is around the images: Jacobian, margin's gradient, Lipschitz constant, kinks.

See :mod:`unperturbed.measures.jacobians` and :mod:`unperturbed.measures.local_complexity`. A random network is looked
at in one draw, the same wherever it is asked.
"""

import numpy as np
from torch import Tensor, nn

from unperturbed.attacks import Passes
from unperturbed.attacks.classifier import predict
from unperturbed.examinations.contract import BATCH_SIZE, Found, Subject, measured
from unperturbed.examinations.spectrum import layer_of
from unperturbed.measures.activity import activity
from unperturbed.measures.jacobians import lipschitz, slopes
from unperturbed.measures.local_complexity import local_complexity
from unperturbed.records import SpecError
from unperturbed.tensors.streams import undisturbed


def geometry(
    subject: Subject,
    *,
    radius: float = 0.25,
    steps: int = 20,
    layer: str | None = None,
    hull: float = 0.005,
    directions: int = 20,
) -> Found:
    """Return the slopes of the logits at the images and what changes around them.

    A backward for each class, and ``steps`` with their forwards, of every image; and two forwards for each direction.
    Of more than 200 classes the norms of the Jacobian are estimates, in one to four hundred backwards.

    Args:
        subject: what is examined.
        radius: of the Euclidean ball of the Lipschitz constant; full scale of one intensity is 1.
        steps: gradients of the search in it.
        layer: whose units are counted, by name; ``None``: the last convolution or full layer before the readout.
        hull: distance of the vertices at which they are looked at, Euclidean.
        directions: of the vertices, each taken forwards and backwards.

    Returns:
        Means of ``jacobian_frobenius``, ``jacobian_spectral``, ``margin_gradient`` (Euclidean) and
        ``local_complexity``, the median of ``lipschitz``, the share of ``zero_gradients``, exactly 0 everywhere, and
        the median ``first_order_distance`` of the images that are classified correctly, left out where it is infinite
        or none is. The arrays have every image.

    Raises:
        SpecError: a setting that is not as described, a layer that there is not, or answers that are no logits.
    """
    if not radius > 0 or not hull > 0 or steps < 0:
        raise SpecError(
            f"geometry: expected radius and hull above 0 and steps of at least 0; got {radius:g}, {hull:g} and {steps}"
        )
    passes, part = Passes(subject.network), layer_of(subject.network, layer, "geometry")
    batches = [
        _batch(subject, passes, part, start, radius, steps, hull, directions)
        for start in range(0, len(subject.labels), BATCH_SIZE)
    ]
    arrays = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    right = arrays["margin"] > 0
    values = {
        "jacobian_frobenius": arrays["jacobian_frobenius"].mean(),
        "jacobian_spectral": arrays["jacobian_spectral"].mean(),
        "margin_gradient": arrays["margin_gradient"].mean(),
        "zero_gradients": (arrays["margin_gradient"] == 0).mean(),
        "lipschitz": np.median(arrays["lipschitz"]),
        "local_complexity": arrays["local_complexity"].mean(),
    }
    if right.any() and np.isfinite(median := np.median(arrays["distance_l2"][right])):
        values["first_order_distance"] = median
    return Found(
        measured(values, len(subject.labels)),
        arrays=arrays,
        forwards=passes.forwards,
        backwards=passes.backwards,
    )


def _batch(
    subject: Subject,
    passes: Passes,
    part: nn.Module,
    start: int,
    radius: float,
    steps: int,
    hull: float,
    directions: int,
) -> dict[str, np.ndarray]:
    images, labels = subject.images[start : start + BATCH_SIZE], subject.labels[start : start + BATCH_SIZE]

    def drawn_once(points: Tensor) -> Tensor:
        subject.look()
        with undisturbed("geometry", subject.seed, start, device=points.device):
            return passes(points)

    predict(drawn_once, images, labels)  # refuses what are no logits
    found = slopes(drawn_once, images, labels, seed=subject.seed)
    steepest = lipschitz(drawn_once, images, radius=radius, steps=steps, seed=subject.seed)
    kinks = local_complexity(
        lambda points: activity(drawn_once, part, points),
        images,
        radius=hull,
        directions=directions,
        seed=subject.seed,
    )
    columns: dict[str, Tensor] = {
        "jacobian_frobenius": found.frobenius,
        "jacobian_spectral": found.spectral,
        "margin": found.margin,
        "margin_gradient": found.gradient_l2,
        "margin_gradient_l1": found.gradient_l1,
        "distance_l2": found.distance_l2,
        "distance_linf": found.distance_linf,
        "lipschitz": steepest,
        "local_complexity": kinks,
    }
    return {name: column.cpu().numpy() for name, column in columns.items()}
