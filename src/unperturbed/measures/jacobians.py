r"""How fast the logits of a classifier change around an image: Jacobian, gradient of the margin, Lipschitz constant.

With logits Z and label y: the Jacobian :math:`J = \partial Z / \partial x` and its norms (Hoffman, Roberts and Yaida
2019, arXiv:1908.02729, section 2, penalise :math:`\|J\|_F^2 / 2`); the margin :math:`m = Z_y - \max_{i \ne y} Z_i`,
whose gradient gives the distance to the boundary to first order, :math:`m / \|\nabla m\|_q`, with q = 2 for the
Euclidean distance and q = 1 for the Linf one: exact where the classifier is linear, far too large where a gradient is
masked.
Local Lipschitz constant: :math:`\max_{x'} \|Z(x') - Z(x)\|_2 / \|x' - x\|_2` over a Euclidean ball, from below, by
ascending the gradient of the quotient.

Of many classes the Jacobian has too many rows to be kept or paid for: of 1,654 they take 45 times as long as power
iteration. Then :math:`\|J\|_F^2` is the mean of :math:`C \|v^\top J\|^2` over directions v on the unit sphere, as
Hoffman et al. estimate it, and the spectral norm is that of :math:`v \leftarrow J J^\top v`, from below: a backward
pass gives the product with :math:`J^\top`, and the gradient of that pass, which is linear, the product with J.

Whatever is random in a classifier has to be the same at every call: these are quantities of one function.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from jaxtyping import Float, Integer
from torch import Tensor

from unperturbed.tensors.norms import length, steepest
from unperturbed.tensors.streams import Streams

Classifier = Callable[[Tensor], Tensor]

MANY = 200  # classes, beyond which norms are estimated: about as many backward passes as the estimates take
PROJECTIONS = 100
ITERATIONS = 100  # at most
SETTLED = 1e-4  # relative growth of a spectral norm below which it is taken as found
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
    leaves, logits = _graph(classifier, images)
    return logits.detach(), _rows(logits, leaves)


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
    classifier: Classifier,
    images: Float[Tensor, "batch channel height width"],
    labels: Integer[Tensor, " batch"],
    *,
    seed: int = 0,
) -> Slopes:
    """Return the norms of the Jacobian and of the margin's gradient at every image.

    Args:
        classifier: images to logits; of more than 200 the norms of the Jacobian are estimates, see above.
        images: where.
        labels: the true classes.
        seed: of what is drawn for the estimates, for each image apart.
    """
    leaves, logits = _graph(classifier, images)
    if logits.shape[1] > MANY and logits.requires_grad:
        return _estimated(logits, leaves, labels, Streams.of(images, seed))
    rows = _rows(logits, leaves)
    margin, gradient = margin_gradient(logits.detach(), rows, labels)
    flat = rows.flatten(2)
    products = (flat @ flat.mT).double()  # classes by classes: its eigenvalues are the squared singular values of J
    return Slopes(
        frobenius=products.diagonal(dim1=1, dim2=2).sum(dim=1).sqrt(),
        spectral=torch.linalg.eigvalsh(products)[:, -1].clamp_min(0).sqrt(),
        margin=margin.double(),
        gradient_l2=length(gradient, norm="l2"),
        gradient_l1=length(gradient, norm="l1"),
    )


def spectral_norm(
    classifier: Classifier, images: Float[Tensor, "batch channel height width"], *, seed: int = 0
) -> Float[Tensor, " batch"]:
    """Return the largest singular value of the Jacobian at every image by power iteration, from below, in float64.

    It ends where the value grows by less than a ten-thousandth in a step, or after 100 steps.

    Args:
        classifier: images to logits.
        images: where.
        seed: of the direction of the logits with which it begins, for each image apart.
    """
    leaves, logits = _graph(classifier, images)
    return _power_iteration(logits, leaves, Streams.of(images, seed))


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


def _graph(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return copies of the images and their logits, through which gradients find back to them."""
    leaves = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        return leaves, classifier(leaves)


def _rows(logits: Tensor, leaves: Tensor) -> Tensor:
    """Return the gradient of every logit, (batch, classes, ...)."""
    if not logits.requires_grad:
        return torch.zeros(*logits.shape, *leaves.shape[1:], dtype=leaves.dtype, device=leaves.device)
    with torch.enable_grad():
        totals = logits.sum(dim=0)
    return torch.stack([_pulled_back(total, leaves) for total in totals], dim=1)


def _pulled_back(logits: Tensor, leaves: Tensor, directions: Tensor | None = None) -> Tensor:
    """Return the product of the transposed Jacobian with directions of the logits."""
    return torch.autograd.grad(
        logits, leaves, directions, retain_graph=True, allow_unused=True, materialize_grads=True
    )[0]


def _estimated(logits: Tensor, leaves: Tensor, labels: Tensor, streams: Streams) -> Slopes:
    classes = logits.shape[1]
    values, true = logits.detach(), labels.long().unsqueeze(1)
    other = values.scatter(1, true, -torch.inf).argmax(dim=1, keepdim=True)
    margin = (values.gather(1, true) - values.gather(1, other)).squeeze(1)
    ones = torch.ones_like(margin).unsqueeze(1)
    gradient = _pulled_back(logits, leaves, torch.zeros_like(values).scatter(1, true, ones).scatter(1, other, -ones))
    squares = torch.zeros(len(labels), dtype=torch.float64, device=labels.device)
    for number in range(PROJECTIONS):
        directions = F.normalize(streams.normal((classes,), "projection", number, dtype=values.dtype), dim=1)
        squares += length(_pulled_back(logits, leaves, directions), norm="l2").square()
    return Slopes(
        frobenius=(classes / PROJECTIONS * squares).sqrt(),
        spectral=_power_iteration(logits, leaves, streams),
        margin=margin.double(),
        gradient_l2=length(gradient, norm="l2"),
        gradient_l1=length(gradient, norm="l1"),
    )


def _power_iteration(logits: Tensor, leaves: Tensor, streams: Streams) -> Tensor:
    largest = torch.zeros(len(leaves), dtype=torch.float64, device=leaves.device)
    if not logits.requires_grad:
        return largest
    directions = streams.normal((logits.shape[1],), "power iteration", dtype=logits.dtype)
    variable = torch.zeros_like(logits, requires_grad=True)
    linear = torch.autograd.grad(
        logits, leaves, variable, create_graph=True, allow_unused=True, materialize_grads=True
    )[0]
    growing = torch.ones_like(largest, dtype=torch.bool)
    for _ in range(ITERATIONS):
        found = _pulled_back(logits, leaves, F.normalize(directions, dim=1))
        sizes = length(found, norm="l2")
        growing &= sizes > largest * (1 + SETTLED)  # one that has settled is left, whatever the others do
        largest = torch.where(growing, sizes, largest)
        if not (linear.requires_grad and bool(growing.any())):
            break
        directions = _pulled_back(linear, variable, F.normalize(found.flatten(1), dim=1).view_as(found))
    return largest


def _in_shell(offset: Tensor, before: Tensor, radius: float | int) -> Tensor:
    """Return the offset at a length of a tenth of the radius to the radius; where it has none, the one before."""
    lengths = length(offset, norm="l2")
    wanted = lengths.clamp(min=NEAREST * radius, max=radius)
    factor = (wanted / lengths).to(offset.dtype).view(-1, 1, 1, 1)
    return torch.where(factor.isfinite(), offset * factor, before)


def _over(margin: Tensor, gradient: Tensor) -> Tensor:
    return torch.where(gradient > 0, margin / gradient, torch.inf * margin.sign())
