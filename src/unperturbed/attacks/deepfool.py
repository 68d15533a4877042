r"""DeepFool: steps onto the nearest boundary as it looks from where one is, until an image is broken.

Source: Moosavi-Dezfooli, Fawzi & Frossard (2016), arXiv:1511.04599, algorithm 2: with :math:`f_k = z_k - z_y` and
:math:`w_k = \nabla f_k`, the step goes to the boundary of the class with the smallest
:math:`|f_k| / \lVert w_k \rVert_q` (q the dual of the norm). For ``l2`` the step is :math:`|f_k| w_k / \lVert w_k
\rVert_2^2`, for ``linf`` :math:`|f_k| \mathrm{sgn}(w_k) / \lVert w_k \rVert_1` (section 3.4). What is shown to the
classifier is the sum of the steps times 1 plus the overshoot, as in the code that the authors released.
Departs from the source: a step is the smallest one within the box, the above where the box does not bind, instead of
being cut off by it; an image that is broken leaves at once, and in the end is drawn to its original along the straight
line, unless told otherwise.
"""

import copy
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unperturbed.attacks.classifier import Classifier
from unperturbed.attacks.contract import pure
from unperturbed.attacks.nearest import DUAL, Nearest, boundary, onto
from unperturbed.records import SpecError
from unperturbed.tensors.norms import length, wide


@pure
def deepfool(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    seed: int = 0,  # noqa: ARG001 (every attack takes one)
    *,
    norm: Literal["linf", "l2"] = "l2",
    steps: int = 50,
    candidates: int = 10,
    overshoot: float = 0.02,
    draw_in: bool = True,
    targets: Tensor | None = None,
    mask: Tensor | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """Return a broken point near every image, at little cost.

    An image that k steps break costs ``2 * k + 1`` forwards, 10 more to draw it in, and ``k * (candidates - 1)``
    backwards (``k`` with ``targets``); one that is broken from the start 1 forward.

    Args:
        classifier: images in [0, 1] to logits; not modified, not switched to another mode.
        images: floating-point intensities in [0, 1].
        labels: the true classes, whole numbers.
        seed: not used; nothing here is random.
        norm: in which the perturbation is small.
        steps: linearisations per image.
        candidates: classes that take part, the label among them, the others by their logits at the image; all where
            there are fewer.
        overshoot: by which fraction the sum of the steps is lengthened.
        draw_in: whether the result is drawn to its image along the straight line, by 10 forwards more.
        targets: the classes that the images shall be taken for; ``None``: any but the true one.
        mask: 1 where an intensity may change, else 0; broadcast to the images; ``None``: everywhere.

    Returns:
        Images of the same type in [0, 1], misclassified; the image itself where nothing was found.

    Raises:
        SpecError: an argument or the classifier's logits are not as described.
    """
    if steps < 1 or candidates < 2 or not overshoot >= 0:
        raise SpecError(
            f"deepfool: expected steps of at least 1, candidates of at least 2 and overshoot of 0 or more; got "
            f"{steps}, {candidates} and {overshoot:g}"
        )
    nearest = Nearest(classifier, images, labels, norm=norm, targets=targets, mask=mask)
    active = copy.copy(nearest)  # has the same result, and loses the images that are broken
    rivals = None if targets is not None else active.rivals[:, : candidates - 1]
    total = torch.zeros_like(active.centres, dtype=wide(images.dtype))
    points = active.at(total)
    for _ in range(steps):
        if active.finished:
            break
        seen = boundary(classifier, active, points, rivals)
        # Ever shorter steps would creep up to a boundary that bends away and never cross it.
        least = overshoot / 2 * length(total, norm=norm) * length(seen.gradient, norm=DUAL[norm])
        total = total + onto(points, seen.gradient, torch.minimum(seen.value, -least), norm=norm)
        points = active.at((1 + overshoot) * total)
        looked = active.look(classifier, points)
        active.keep(points, looked)
        left = (~looked.broken).nonzero().squeeze(1)
        active.leave(left)
        total, points, rivals = total[left], points[left], None if rivals is None else rivals[left]
    if draw_in:
        nearest.draw_in(classifier)
    return nearest.images
