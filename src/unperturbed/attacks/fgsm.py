r"""The fast gradient sign method, and the fast gradient method in the Euclidean norm.

Source: Goodfellow, Shlens & Szegedy (2015), arXiv:1412.6572, section 4:
:math:`x' = x + \epsilon\,\mathrm{sgn}\,\nabla_x L(x, y)`; for ``l2``: :math:`x' = x + \epsilon g / \lVert g \rVert_2`.
Departs from the source: clipped to [0, 1] unless told otherwise; the gradient of a confident network does not vanish
(see :mod:`unperturbed.attacks.classifier`) unless told to, as it does in usual code.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unperturbed.attacks.classifier import Classifier, slope
from unperturbed.attacks.inputs import check_eps, check_images, check_labels
from unperturbed.tensors.norms import check_norm, steepest, towards, wide


def fgsm(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    generator: torch.Generator | None = None,  # noqa: ARG001 (every attack takes one)
    *,
    norm: str = "linf",
    eps: float | int,
    clip: bool = True,
    exact: bool = True,
) -> Float[Tensor, "batch channel height width"]:
    """Return every image moved by ``eps`` along the steepest direction of its loss.

    One forward and one backward per image. Every image is attacked with its true label, also one that is already
    misclassified: this is the published form, and why accuracy may rise again with ``eps``.

    Args:
        classifier: images in [0, 1] to logits; not modified, not switched to another mode.
        images: floating-point intensities in [0, 1].
        labels: the true classes, whole numbers.
        generator: not used; nothing here is random.
        norm: ``linf`` or ``l2``.
        eps: length of the step, as a fraction of full scale (8/255 = 0.0314).
        clip: whether the result is clipped to [0, 1].
        exact: whether the gradient is computed so that it cannot vanish; ``False`` rounds the cross-entropy in the type
            of the logits, as usual code does. On a network for digits whose logits were multiplied by three, that alone
            raised R from 0.27 to 0.42.

    Returns:
        Images of the same type within ``eps`` of the given ones, in [0, 1] if clipped; as given if the gradient is 0.

    Raises:
        SpecError: images, labels, norm, eps or the classifier's logits are not as described.
    """
    check_images(images)
    check_labels(labels, len(images))
    check_norm(norm)
    check_eps(eps)
    gradient = slope(classifier, images, labels, exact=exact).gradient()
    return along(images, steepest(gradient, norm=norm), eps=eps, clip=clip)


def along(
    images: Float[Tensor, "batch channel height width"],
    direction: Float[Tensor, "batch channel height width"],
    *,
    eps: float | int,
    clip: bool = True,
) -> Float[Tensor, "batch channel height width"]:
    """Return the images moved by ``eps`` along ``direction``; a curve over eps needs the direction only once."""
    moved = images.to(wide(images.dtype)) + eps * direction
    return towards(images, moved.clamp(0, 1) if clip else moved)
