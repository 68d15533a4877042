"""How attacks look at a classifier: its logits, an objective and its gradient at the images, and the passes it took.

Source of the surrogate in the backward pass: Athalye, Carlini & Wagner (2018), arXiv:1802.00420, section 4.1.1 (BPDA);
of gradients averaged over draws: the same, section 4.1.2 (EOT).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from unperturbed.attacks.inputs import check_logits
from unperturbed.attacks.objectives import objective
from unperturbed.records import SpecError
from unperturbed.tensors.norms import wide

Classifier = Callable[[Tensor], Tensor]
"""Images (batch, channel, height, width) in [0, 1] to logits (batch, classes). Already in the mode to be attacked in;
casting images to the type of its weights is its own business."""


class Losses(NamedTuple):
    """What a classifier says about images with known labels."""

    value: Float[Tensor, " batch"]  # of the objective: larger is nearer to a success
    broken: Bool[Tensor, " batch"]  # misclassified; with targets: taken for the target


class Passes:
    """A classifier that counts the images that went through it, forwards and backwards.

    Backwards are counted where the gradient enters the logits, so that no attack has to report them.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.forwards = 0
        self.backwards = 0

    def __call__(self, images: Tensor) -> Any:
        """Return the logits, or whatever the classifier returns, and count."""
        self.forwards += len(images)
        logits: Any = self.classifier(images)
        if isinstance(logits, Tensor) and logits.requires_grad:
            logits.register_hook(self._arrived)
        return logits

    def _arrived(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def guided(deployed: Classifier, surrogate: Classifier | None = None, *, votes: int = 1) -> Classifier:
    """Return a classifier with the logits of ``deployed`` and the gradient of ``surrogate``, for any attack.

    Args:
        deployed: decides; it is never differentiated when there is a surrogate.
        surrogate: leads; it needs the same classes, and its logits are not used. ``None``: ``deployed`` itself.
        votes: draws of a random ``deployed`` whose logits are averaged for every decision.

    Raises:
        SpecError: when it is called, if the logits of the two have different shapes.
    """

    def look(images: Tensor) -> Tensor:
        leads = surrogate if surrogate is not None else deployed
        if not torch.is_grad_enabled():
            return _mean_logits(deployed, images, votes)
        slope = leads(images)
        if surrogate is None and votes == 1:
            return slope
        with torch.no_grad():
            decided = _mean_logits(deployed, images.detach(), votes)
        if slope.shape != decided.shape:
            raise SpecError(
                f"surrogate: expected logits of shape {tuple(decided.shape)}, as those of the deployed classifier; "
                f"got {tuple(slope.shape)}"
            )
        # Exactly the deployed logits, however large those of the surrogate are.
        return decided + (slope - slope.detach()).to(decided.dtype)

    return look


def _mean_logits(classifier: Classifier, images: Tensor, draws: int) -> Tensor:
    total = classifier(images)
    for _ in range(draws - 1):
        total = total + classifier(images)
    return total / draws if draws > 1 else total


@dataclass(frozen=True)
class Slope:
    """The losses at some images, and the gradient there when asked for."""

    losses: Losses
    logits: Float[Tensor, "batch classes"]
    images: Float[Tensor, "batch channel height width"]
    objective: Float[Tensor, " batch"]  # in the graph
    earlier: Float[Tensor, "batch channel height width"] | float  # gradients of the other draws, already taken
    draws: int

    def gradient(self) -> Float[Tensor, "batch channel height width"]:
        """Return the gradient of each objective at its own image, in float32 or wider; 0 where there is no path.

        No gradient reaches the weights: neither are they computed nor is ``.grad`` touched.
        """
        gradient = _gradient(self.objective, self.images)
        return gradient if self.draws == 1 else (gradient + self.earlier) / self.draws


def predict(
    classifier: Classifier, images: Float[Tensor, "batch channel height width"], labels: Integer[Tensor, " batch"]
) -> Float[Tensor, "batch classes"]:
    """Return checked logits in float32 (float64 for float64 images), computed without autocast and without gradient."""
    before = images._version
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        logits = classifier(images)
    if images._version != before:
        raise SpecError(IN_PLACE)
    check_logits(logits, labels)
    return logits.to(wide(logits.dtype))


IN_PLACE = "classifier: expected images to be left as they are; it changes them in place: let it work on a copy"


def losses(
    logits: Float[Tensor, "batch classes"],
    labels: Integer[Tensor, " batch"],
    *,
    loss: str = "ce",
    targets: Integer[Tensor, " batch"] | None = None,
    towards: Integer[Tensor, " batch"] | None = None,
) -> Losses:
    """Return the objective and whether the prediction, the first largest logit, is a success for the attacker."""
    value = objective(logits, labels, loss=loss, targets=targets, towards=towards)
    return Losses(value, succeeded(logits.argmax(dim=1), labels, targets))


def succeeded(
    prediction: Integer[Tensor, " batch"],
    labels: Integer[Tensor, " batch"],
    targets: Integer[Tensor, " batch"] | None = None,
) -> Bool[Tensor, " batch"]:
    """Return whether the prediction is what the attacker wants: not the label, or the target if there is one."""
    return prediction != labels if targets is None else prediction == targets


def slope(
    classifier: Classifier,
    images: Float[Tensor, "batch channel height width"],
    labels: Integer[Tensor, " batch"],
    *,
    loss: str = "ce",
    targets: Integer[Tensor, " batch"] | None = None,
    towards: Integer[Tensor, " batch"] | None = None,
    eot: int = 1,
) -> Slope:
    """Return the losses at the images with the graph that leads back to them.

    Args:
        classifier: images to logits.
        images: where.
        labels: the true classes.
        loss: the objective, see :mod:`unperturbed.attacks.objectives`.
        targets: as in ``objective``.
        towards: as in ``objective``.
        eot: draws of a random classifier: objective and gradient are means over them, and the prediction is that of
            the mean logits.

    Raises:
        SpecError: the logits have no graph at all, as after ``torch.no_grad`` or ``detach``, or the classifier fails
            when a gradient is asked for.
    """
    images = images.detach().requires_grad_()
    logits, climbed = _climbed(classifier, images, labels, loss, targets, towards)
    total, value = logits, climbed.detach()
    earlier: Tensor | float = 0.0
    for _ in range(eot - 1):
        earlier = earlier + _gradient(climbed, images)
        logits, climbed = _climbed(classifier, images, labels, loss, targets, towards)
        total, value = total + logits, value + climbed.detach()
    seen = Losses(value / eot, succeeded(total.argmax(dim=1), labels, targets))
    return Slope(seen, total / eot, images, climbed, earlier, eot)


def _climbed(
    classifier: Classifier, images: Tensor, labels: Tensor, loss: str, targets: Tensor | None, towards: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the plain logits and the objective in its graph."""
    logits = _differentiable(classifier, images, labels)
    with torch.enable_grad():
        climbed = objective(logits, labels, loss=loss, targets=targets, towards=towards)
    return logits.detach().to(wide(logits.dtype)), climbed


def _differentiable(classifier: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    before = images._version
    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        try:
            logits = classifier(images)
        except RuntimeError as error:
            if "a leaf Variable that requires grad is being used in an in-place operation" in str(error):
                raise SpecError(IN_PLACE) from error
            raise
        if images._version != before:
            raise SpecError(IN_PLACE)
        check_logits(logits, labels)
        if not logits.requires_grad:
            raise SpecError(
                "classifier: expected logits that can be differentiated; got logits without a gradient: "
                "remove torch.no_grad, detach or NumPy from it, or give a surrogate"
            )
    return logits


def _gradient(climbed: Tensor, images: Tensor) -> Tensor:
    with torch.enable_grad():
        total = climbed.sum()
    (gradient,) = torch.autograd.grad(total, images, allow_unused=True, materialize_grads=True)
    # An intensity without a usable gradient stands still; as NaN it would take its whole image out of the attack.
    return gradient.to(wide(gradient.dtype)).nan_to_num(nan=0.0)
