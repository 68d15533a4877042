r"""The fast gradient sign method, and the fast gradient method in the Euclidean norm.

Source: Goodfellow, Shlens & Szegedy (2015), arXiv:1412.6572, section 4:
:math:`x' = x + \epsilon\,\mathrm{sgn}\,\nabla_x L(x, y)`; for ``l2``: :math:`x' = x + \epsilon g / \lVert g \rVert_2`;
for ``l1``: the one intensity with the steepest slope moves.
Departs from the source: clipped to [0, 1] unless told otherwise; the gradient of a confident network does not vanish
(see :mod:`unperturbed.attacks.objectives`) unless told to, as it does in usual code.
"""

from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unperturbed.attacks.classifier import Classifier, slope
from unperturbed.attacks.contract import pure
from unperturbed.tensors.norms import steepest, towards, wide


@pure
def fgsm(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    seed: int = 0,  # noqa: ARG001 (every attack takes one)
    *,
    norm: Literal["linf", "l2", "l1"] = "linf",
    eps: float | int,
    clip: bool = True,
    exact: bool = True,
    targets: Tensor | None = None,
    mask: Tensor | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """Return every image moved by ``eps`` along the steepest direction of its loss.

    One forward and one backward per image. Every image is attacked with its true label, also one that is already
    misclassified: this is the published form, and why accuracy may rise again with ``eps``.

    Args:
        classifier: images in [0, 1] to logits; not modified, not switched to another mode.
        images: floating-point intensities in [0, 1].
        labels: the true classes, whole numbers.
        seed: not used; nothing here is random.
        norm: in which the step is measured.
        eps: length of the step, as a fraction of full scale (8/255 = 0.0314).
        clip: whether the result is clipped to [0, 1].
        exact: whether the gradient is computed so that it cannot vanish; ``False`` rounds the cross-entropy in the type
            of the logits, as usual code does. On a network for digits whose logits were multiplied by three, that alone
            raised R from 0.27 to 0.42.
        targets: the classes that the images shall be taken for; ``None``: any but the true one.
        mask: 1 where an intensity may change, else 0; broadcast to the images; ``None``: everywhere.

    Returns:
        Images of the same type within ``eps`` of the given ones, in [0, 1] if clipped; as given if the gradient is 0.

    Raises:
        SpecError: images, labels, norm, eps or the classifier's logits are not as described.
    """
    gradient = slope(classifier, images, labels, loss="ce" if exact else "rounded_ce", targets=targets).gradient()
    gradient = gradient if mask is None else gradient * mask
    return along(images, steepest(gradient, norm=norm), eps=eps, clip=clip)


def along(
    images: Float[Tensor, "batch channel height width"],
    direction: Float[Tensor, "batch channel height width"],
    *,
    eps: float | int,
    clip: bool = True,
) -> Float[Tensor, "batch channel height width"]:
    """Return the images moved by ``eps`` along ``direction``; a curve over eps needs the direction only once."""
    moved = torch.add(images.to(wide(images.dtype)), direction, alpha=eps)
    return towards(images, moved.clamp_(0, 1) if clip else moved)
