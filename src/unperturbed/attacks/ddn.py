r"""Decoupled direction and norm: the smallest Euclidean perturbation, by steps whose direction and length are apart.

Source: Rony et al. (2019), arXiv:1811.09600, algorithm 1: a step :math:`\delta \leftarrow \delta + \alpha g / \lVert g
\rVert_2` along the gradient, then the length :math:`\epsilon_k = (1 - \gamma) \epsilon_{k-1}` where the last point was
broken and :math:`(1 + \gamma) \epsilon_{k-1}` where not, with :math:`\alpha` falling from 1 to 0.01 along a cosine.
Departs from the source: the gradient is that of the exact cross-entropy (see :mod:`unperturbed.attacks.objectives`);
points are not rounded to 256 levels unless the sweep is told to; a gradient of 0 is not replaced by noise. At the end
the nearest point is drawn to its image along the straight line: lengths that change by 5 % a step end up to 5 % too
far.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unperturbed.attacks.classifier import Classifier, slope
from unperturbed.attacks.contract import pure
from unperturbed.attacks.nearest import Nearest
from unperturbed.attacks.objectives import Loss
from unperturbed.records import SpecError
from unperturbed.tensors.norms import length, steepest, wide


@pure
def ddn(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    seed: int = 0,  # noqa: ARG001 (every attack takes one)
    *,
    norm: Literal["l2"] = "l2",
    steps: int = 100,
    gamma: float = 0.05,
    initial_eps: float = 1.0,
    loss: Loss = "ce",
    targets: Tensor | None = None,
    mask: Tensor | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """Return the nearest broken point found for every image.

    ``steps + 12`` forwards and ``steps`` backwards for each image, 1 forward for one that is broken from the start.

    Args:
        classifier: images in [0, 1] to logits; not modified, not switched to another mode.
        images: floating-point intensities in [0, 1].
        labels: the true classes.
        seed: not used; nothing here is random.
        norm: in which the perturbation is small.
        steps: gradient evaluations per image.
        gamma: by which fraction the length changes at every step.
        initial_eps: length at the first step, as a fraction of full scale.
        loss: what is climbed.
        targets: the classes that the images shall be taken for; ``None``: any but the true one.
        mask: 1 where an intensity may change, else 0; broadcast to the images; ``None``: everywhere.

    Returns:
        Images of the same type in [0, 1], misclassified; the image itself where nothing was found.

    Raises:
        SpecError: an argument or the classifier's logits are not as described.
    """
    if steps < 1 or not 0 < gamma < 1 or not initial_eps > 0:
        raise SpecError(
            f"ddn: expected steps of at least 1, gamma between 0 and 1 and initial_eps above 0; got {steps}, {gamma:g} "
            f"and {initial_eps:g}"
        )
    nearest = Nearest(classifier, images, labels, norm=norm, targets=targets, mask=mask)
    offset = torch.zeros_like(nearest.centres, dtype=wide(images.dtype))
    eps = torch.full((len(nearest.rows),), initial_eps, dtype=offset.dtype, device=images.device)
    for step in range(steps):
        if nearest.finished:
            break
        seen = slope(classifier, nearest.at(offset), nearest.labels, loss=loss, targets=nearest.targets)
        if step:
            nearest.keep(seen.images.detach(), seen.losses)
            eps = eps * torch.where(seen.losses.broken, 1 - gamma, 1 + gamma)
        size = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2
        offset = offset + size * steepest(nearest.gradient(seen.gradient()), norm=norm)
        offset = offset * (eps / length(offset, norm=norm).clamp_min(1e-12)).to(offset.dtype).view(-1, 1, 1, 1)
        offset = nearest.offset(nearest.at(offset)) if images.dtype == offset.dtype else offset
    if not nearest.finished:
        last = nearest.at(offset)
        nearest.keep(last, nearest.look(classifier, last))
        nearest.draw_in(classifier)
    return nearest.images
