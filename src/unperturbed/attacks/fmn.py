r"""Fast minimum-norm: the smallest perturbation, by a radius that shrinks where the point is broken, and else grows.

Source: Pintor et al. (2021), arXiv:2102.12827, algorithm 1: where the point is not broken, the radius becomes that at
which the linearised margin would vanish, :math:`\lVert \delta \rVert_p + |m| / \lVert \nabla m \rVert_q` (with q the
dual of p), until a broken point is known, and grows by :math:`1 + \gamma` afterwards; where it is broken,
:math:`\epsilon \leftarrow \min((1 - \gamma) \epsilon, \lVert \delta^\star \rVert_p)`. Steps follow the Euclidean
gradient; both :math:`\gamma` (0.05 to 0.001) and the step (1 to 0.01) fall along a cosine.
Departs from the source: for ``linf`` a step follows the sign of the gradient and is measured in radii, which finds
nearer points in 100 steps; so does the smooth margin of the cross-entropy (see
:mod:`unperturbed.attacks.objectives`), with all classes in it, in place of the margin. While no broken point is known
the radius never shrinks. At the end the nearest point is drawn to its image along the straight line.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unperturbed.attacks.classifier import Classifier, losses, slope
from unperturbed.attacks.contract import pure
from unperturbed.attacks.nearest import DUAL, Nearest
from unperturbed.records import SpecError
from unperturbed.tensors.norms import length, steepest, wide

LEAST = 1e-4  # by which the radius grows at least while no broken point is known


@pure
def fmn(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    seed: int = 0,  # noqa: ARG001 (every attack takes one)
    *,
    norm: Literal["linf", "l2", "l1"] = "linf",
    steps: int = 100,
    gamma: float = 0.05,
    step_size: float = 1.0,
    loss: Literal["ce", "margin"] = "ce",
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
        gamma: by which fraction the radius changes at first.
        step_size: of the first step: its Euclidean length for ``l2`` and ``l1``, in radii for ``linf``.
        loss: what is climbed; ``margin`` in the source.
        targets: the classes that the images shall be taken for; ``None``: any but the true one.
        mask: 1 where an intensity may change, else 0; broadcast to the images; ``None``: everywhere.

    Returns:
        Images of the same type in [0, 1], misclassified; the image itself where nothing was found.

    Raises:
        SpecError: an argument or the classifier's logits are not as described.
    """
    if steps < 1 or not 0 < gamma < 1 or not step_size > 0:
        raise SpecError(
            f"fmn: expected steps of at least 1, gamma between 0 and 1 and step_size above 0; got {steps}, {gamma:g} "
            f"and {step_size:g}"
        )
    nearest = Nearest(classifier, images, labels, norm=norm, targets=targets, mask=mask)
    offset = torch.zeros_like(nearest.centres, dtype=wide(images.dtype))
    eps = torch.full((len(nearest.rows),), torch.inf, dtype=torch.float64, device=images.device)
    for step in range(steps):
        if nearest.finished:
            break
        seen = slope(classifier, nearest.at(offset), nearest.labels, loss=loss, targets=nearest.targets)
        gradient = nearest.gradient(seen.gradient())
        distance = nearest.keep(seen.images.detach(), seen.losses)
        falling = (1 + math.cos(math.pi * step / steps)) / 2
        rate = 0.001 + (gamma - 0.001) * falling
        margin = losses(seen.logits, nearest.labels, loss="margin", targets=nearest.targets).value
        eps = _radius(nearest, margin, seen.losses.broken, gradient, distance, eps, rate)
        size = step_size * (0.01 + 0.99 * falling)
        if norm == "linf":
            move = (size * eps.clamp_max(1.0)).to(offset.dtype).view(-1, 1, 1, 1) * gradient.sign()
        else:
            move = size * steepest(gradient, norm="l2")
        offset = nearest.offset(nearest.at(_project(offset + move, eps, norm)))
    if not nearest.finished:
        last = nearest.at(offset)
        nearest.keep(last, nearest.look(classifier, last))
        nearest.draw_in(classifier)
    return nearest.images


def _radius(
    nearest: Nearest, margin: Tensor, broken: Tensor, gradient: Tensor, distance: Tensor, eps: Tensor, rate: float
) -> Tensor:
    """Return the next radius of every image."""
    slope = length(gradient, norm=DUAL[nearest.norm]).clamp_min(1e-300)
    # A tie that the label wins by its place has margin 0: a radius of 0 would never grow.
    linear = distance + ((-margin.double()).clamp_min(0) / slope).clamp_min(LEAST)
    best = nearest.best()
    further = torch.where(eps.isfinite(), torch.maximum(linear, eps), linear)
    grown = torch.where(best.isfinite(), eps, further) * (1 + rate)
    shrunk = torch.minimum(eps * (1 - rate), best)
    return torch.where(broken, shrunk, grown).nan_to_num(nan=torch.inf, posinf=torch.inf)


def _project(offset: Tensor, eps: Tensor, norm: str) -> Tensor:
    """Return the offsets inside their own balls: clipped, scaled, or thresholded."""
    radius = eps.clamp_max(1e6).to(offset.dtype).view(-1, 1, 1, 1)
    if norm == "linf":
        return torch.minimum(torch.maximum(offset, -radius), radius)
    if norm == "l2":
        lengths = length(offset, norm="l2").clamp_min(1e-12).to(offset.dtype).view(-1, 1, 1, 1)
        return offset * (radius / lengths).clamp_max(1)
    return _project_l1(offset, radius)


def _project_l1(offset: Tensor, radius: Tensor) -> Tensor:
    flat = offset.flatten(1)
    ordered = flat.abs().sort(dim=1, descending=True).values.double()
    excess = ordered.cumsum(dim=1) - radius.flatten(1).double()
    rank = torch.arange(1, flat.shape[1] + 1, device=flat.device)
    last = (ordered * rank > excess).sum(dim=1, keepdim=True).clamp_min(1)
    threshold = (excess.gather(1, last - 1) / last).clamp_min(0).to(flat.dtype)
    return ((flat.abs() - threshold).clamp_min(0) * flat.sign()).view_as(offset)
