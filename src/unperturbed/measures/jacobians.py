r"""How fast the logits of a classifier change around an image: Jacobian, gradient of the margin, Lipschitz constant.

With logits Z and label y: the Jacobian :math:`J = \partial Z / \partial x` and its norms (Hoffman, Roberts and Yaida
2019, arXiv:1908.02729, section 2, penalise :math:`\|J\|_F^2 / 2`); the margin :math:`m = Z_y - \max_{i \ne y} Z_i`,
whose gradient gives the distance to the boundary to first order, :math:`m / \|\nabla m\|_q`, with q = 2 for the
Euclidean distance and q = 1 for the Linf one: exact where the classifier is linear, far too large where a gradient is
masked.
Local Lipschitz constant: :math:`\max_{x'} \|Z(x') - Z(x)\|_2 / \|x' - x\|_2` over a Euclidean ball, from below, by
ascending the gradient of the quotient.

Whatever is random in a classifier has to be the same at every call: these are quantities of one function.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from unperturbed.tensors.norms import length, steepest
from unperturbed.tensors.streams import Streams

Classifier = Callable[[Tensor], Tensor]

NEAREST = 0.1  # of the radius: nearer pairs would show the round-off of their logits


class Slopes(NamedTuple):
    """What the Jacobian says of every image, in float64."""

    frobenius: Float[Tensor, " batch"]  # logits per unit of Euclidean length
    spectral: Float[Tensor, " batch"]  # the same, in the direction in which the logits change most
    margin: Float[Tensor, " batch"]  # of the true class, below 0 where the image is misclassified
    gradient_l2: Float[Tensor, " batch"]  # of the margin
    gradient_l1: Float[Tensor, " batch"]

    @property
    def distance_l2(self) -> Float[Tensor, " batch"]:
        """Euclidean distance to the boundary to first order; infinite without a gradient, below 0 beyond it."""
        return _over(self.margin, self.gradient_l2)

    @property
    def distance_linf(self) -> Float[Tensor, " batch"]:
        """The same in the Linf norm."""
        return _over(self.margin, self.gradient_l1)


def jacobian(
    classifier: Classifier, images: Float[Tensor, "batch channel height width"]
) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch classes channel height width"]]:
    """Return logits and their gradients at every image: one forward and a backward for each class.

    Exact for a classifier that looks at every image by itself. A logit without a path to the image has a gradient of 0.
    """
    leaves = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = classifier(leaves)
        if not logits.requires_grad:
            return logits, torch.zeros(*logits.shape, *images.shape[1:], dtype=images.dtype, device=images.device)
        rows = [
            torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
            for total in logits.sum(dim=0)
        ]
    return logits.detach(), torch.stack(rows, dim=1)


def margin_gradient(
    logits: Float[Tensor, "batch classes"],
    slopes: Float[Tensor, "batch classes channel height width"],
    labels: Integer[Tensor, " batch"],
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch channel height width"]]:
    """Return the margin of every label and its gradient, from the logits and their Jacobian.

    Of several equal other logits, the first one counts.
    """
    true = labels.long().unsqueeze(1)
    other = logits.scatter(1, true, -torch.inf).argmax(dim=1, keepdim=True)
    margin = (logits.gather(1, true) - logits.gather(1, other)).squeeze(1)
    rows = torch.arange(len(labels), device=labels.device)
    return margin, slopes[rows, true.squeeze(1)] - slopes[rows, other.squeeze(1)]


def slopes(
    classifier: Classifier, images: Float[Tensor, "batch channel height width"], labels: Integer[Tensor, " batch"]
) -> Slopes:
    """Return the norms of the Jacobian and of the margin's gradient at every image.

    Args:
        classifier: images to logits.
        images: where.
        labels: the true classes.
    """
    logits, rows = jacobian(classifier, images)
    margin, gradient = margin_gradient(logits, rows, labels)
    flat = rows.flatten(2)
    products = (flat @ flat.mT).double()  # classes by classes: its eigenvalues are the squared singular values of J
    return Slopes(
        frobenius=products.diagonal(dim1=1, dim2=2).sum(dim=1).sqrt(),
        spectral=torch.linalg.eigvalsh(products)[:, -1].clamp_min(0).sqrt(),
        margin=margin.double(),
        gradient_l2=length(gradient, norm="l2"),
        gradient_l1=length(gradient, norm="l1"),
    )


def lipschitz(
    classifier: Classifier,
    images: Float[Tensor, "batch channel height width"],
    *,
    radius: float | int,
    steps: int = 20,
    seed: int = 0,
) -> Float[Tensor, " batch"]:
    """Return the largest quotient of a change of logits and a change of the image that was seen, in float64.

    It is a lower bound of the Lipschitz constant on the ball around the image. The ball is not cut at [0, 1].

    Args:
        classifier: images to logits.
        images: the centres.
        radius: Euclidean, of the ball; full scale of one intensity is 1.
        steps: gradients for each image, the steps falling from ``radius`` to 0.
        seed: of the random start at the edge of the ball, for each image apart.
    """
    with torch.no_grad():
        centre = classifier(images)
    direction = Streams.of(images, seed).normal(tuple(images.shape[1:]), "lipschitz", dtype=images.dtype)
    offset = radius * steepest(direction, norm="l2")
    best = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    for step in range(steps + 1):
        offset = offset.detach().requires_grad_()
        with torch.enable_grad():
            change = torch.linalg.vector_norm(classifier(images + offset) - centre, dim=1)
            quotient = change / torch.linalg.vector_norm(offset.flatten(1), dim=1)
        best = torch.maximum(best, quotient.detach().double())
        if step == steps:
            break
        (gradient,) = torch.autograd.grad(quotient.sum(), offset)
        offset = _in_shell(offset + radius * (1 - step / steps) * steepest(gradient, norm="l2"), offset, radius)
    return best


def _in_shell(offset: Tensor, before: Tensor, radius: float | int) -> Tensor:
    """Return the offset at a length of a tenth of the radius to the radius; where it has none, the one before."""
    lengths = length(offset, norm="l2")
    wanted = lengths.clamp(min=NEAREST * radius, max=radius)
    factor = (wanted / lengths).to(offset.dtype).view(-1, 1, 1, 1)
    return torch.where(factor.isfinite(), offset * factor, before)


def _over(margin: Tensor, gradient: Tensor) -> Tensor:
    return torch.where(gradient > 0, margin / gradient, torch.inf * margin.sign())
