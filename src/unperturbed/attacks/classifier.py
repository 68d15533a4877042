r"""How attacks look at a classifier: its losses and their gradient at the images, and the passes that this took.

The loss is the cross-entropy. It is evaluated through the margin

.. math:: m = \log \sum_{j \ne y} e^{z_j} - z_y, \qquad L = \log(1 + e^m), \qquad \nabla L = \sigma(m) \nabla m,

of which it is an increasing function with a positive factor in its gradient: the sign of the gradient, its direction,
and which of two images has the larger loss are those of the cross-entropy, whatever the scale of the logits. Departs
from usual code: there, :math:`p_y - 1` is rounded to 0 in float32 once a network is confident (:math:`m < -17`), and
later all of the gradient; the attack goes astray or stands still, which looks like robustness.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from torch.nn.functional import cross_entropy

from unperturbed.attacks.inputs import check_logits
from unperturbed.records import SpecError
from unperturbed.tensors.norms import wide

Classifier = Callable[[Tensor], Tensor]
"""Images (batch, channel, height, width) in [0, 1] to logits (batch, classes). Already in the mode to be attacked in;
casting images to the type of its weights is its own business."""


class Losses(NamedTuple):
    """What a classifier says about images with known labels."""

    margin: Float[Tensor, " batch"]  # increases with the cross-entropy
    wrong: Bool[Tensor, " batch"]


class Passes:
    """A classifier that counts the images that went through it, forwards and backwards.

    Backwards are counted where the gradient enters the logits, so that no attack has to report them.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.forwards = 0
        self.backwards = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits and count."""
        self.forwards += len(images)
        logits = self.classifier(images)
        if logits.requires_grad:

            def count(gradient: Tensor) -> None:
                self.backwards += len(gradient)

            logits.register_hook(count)
        return logits


@dataclass(frozen=True)
class Slope:
    """The losses at some images, and their gradients there when asked for."""

    losses: Losses
    logits: Float[Tensor, "batch classes"]
    images: Float[Tensor, "batch channel height width"]
    objective: Float[Tensor, " batch"]  # in the graph

    def gradient(self) -> Float[Tensor, "batch channel height width"]:
        """Return the gradient of each objective at its own image, in float32 or wider; 0 where there is no path.

        No gradient reaches the weights: neither are they computed nor is ``.grad`` touched.
        """
        with torch.enable_grad():
            total = self.objective.sum()
        (gradient,) = torch.autograd.grad(total, self.images, allow_unused=True, materialize_grads=True)
        # An intensity without a usable gradient stands still; as NaN it would take its whole image out of the attack.
        return gradient.to(wide(gradient.dtype)).nan_to_num(nan=0.0)


def predict(
    classifier: Classifier, images: Float[Tensor, "batch channel height width"], labels: Integer[Tensor, " batch"]
) -> Float[Tensor, "batch classes"]:
    """Return checked logits in float32 (float64 for float64 images), computed without autocast and without gradient."""
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        logits = classifier(images)
    check_logits(logits, labels)
    return logits.to(wide(logits.dtype))


def losses(logits: Float[Tensor, "batch classes"], labels: Integer[Tensor, " batch"]) -> Losses:
    """Return the margins (see above) and whether the prediction, the first largest logit, is not the label."""
    return Losses(_margins(logits, labels), logits.argmax(dim=1) != labels)


def slope(
    classifier: Classifier,
    images: Float[Tensor, "batch channel height width"],
    labels: Integer[Tensor, " batch"],
    *,
    exact: bool = True,
) -> Slope:
    """Return the losses at the images with the graph that leads back to them.

    Args:
        classifier: images to logits.
        images: where.
        labels: the true classes.
        exact: whether the gradient is that of the margin; else that of the cross-entropy, rounded as PyTorch rounds it.

    Raises:
        SpecError: the logits have no graph at all, as after ``torch.no_grad`` or ``detach``.
    """
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = classifier(images)
        check_logits(logits, labels)
        if not logits.requires_grad:
            raise SpecError(
                "classifier: expected logits that can be differentiated; got logits without a gradient: "
                "remove torch.no_grad, detach or NumPy from it"
            )
        margins = _margins(logits, labels)
        objective = margins if exact else cross_entropy(logits, labels.long(), reduction="none")
    plain = logits.detach().to(wide(logits.dtype))
    return Slope(Losses(margins.detach(), plain.argmax(dim=1) != labels), plain, images, objective)


def _margins(logits: Float[Tensor, "batch classes"], labels: Integer[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    logits = logits.to(wide(logits.dtype))
    labels = labels.long().unsqueeze(1)
    others = logits.scatter(1, labels, -torch.inf)
    return others.logsumexp(dim=1) - logits.gather(1, labels).squeeze(1)
