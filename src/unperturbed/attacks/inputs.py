"""What every attack accepts: images in [0, 1], one class number for each, and a radius that is not negative.

Every refusal is one line with the values that came, so that a wrong scale or a wrong file is seen before an attack has
spent an hour on it.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from unperturbed.records import NotFinite, SpecError

ROUND_OFF = 1e-6  # how far outside [0, 1], or outside its ball, a number may lie


def check_images(images: Any) -> None:
    """Refuse what is not a batch of images in [0, 1] (to 1e-6).

    >>> check_images(torch.full((1, 1, 2, 2), 255.0))
    Traceback (most recent call last):
    unperturbed.records.SpecError: images: expected intensities in [0, 1]; got 255 to 255: divide them by 255
    """
    if not isinstance(images, Tensor):
        raise SpecError(f"images: expected a torch.Tensor; got {type(images).__name__}")
    if images.ndim != 4:
        raise SpecError(f"images: expected a shape (batch, channels, height, width); got {tuple(images.shape)}")
    if images.numel() == 0:
        raise SpecError(f"images: expected at least one image; got a shape of {tuple(images.shape)}")
    if not images.is_floating_point():
        raise SpecError(f"images: expected floating-point intensities in [0, 1]; got {images.dtype}: divide by 255")
    lowest, highest = (float(extreme) for extreme in torch.aminmax(images))
    if math.isnan(lowest) or math.isnan(highest):
        broken = int(images.isnan().flatten(1).any(dim=1).sum())
        raise SpecError(f"images: expected numbers; got NaN in {broken} of {len(images)} images")
    if lowest < -ROUND_OFF or highest > 1 + ROUND_OFF:
        if lowest >= 0 and 1.5 < highest <= 255:
            remedy = "divide them by 255"
        else:
            remedy = "were they normalised? Give raw intensities and normalise inside the classifier"
        raise SpecError(f"images: expected intensities in [0, 1]; got {lowest:.6g} to {highest:.6g}: {remedy}")


def check_labels(labels: Any, count: int) -> None:
    """Refuse what is not one class number for each of ``count`` images.

    >>> check_labels(torch.tensor([3, 1]), 3)
    Traceback (most recent call last):
    unperturbed.records.SpecError: labels: expected 3, one for each image; got 2
    """
    if not isinstance(labels, Tensor):
        raise SpecError(f"labels: expected a torch.Tensor; got {type(labels).__name__}")
    if labels.ndim != 1:
        raise SpecError(f"labels: expected one class number for each image; got a shape of {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise SpecError(f"labels: expected whole class numbers; got {labels.dtype}")
    if len(labels) != count:
        raise SpecError(f"labels: expected {count}, one for each image; got {len(labels)}")


def check_logits(logits: Any, labels: Tensor) -> None:
    """Refuse logits that are not finite numbers for at least two classes, and labels that are not among the classes.

    >>> check_logits(torch.zeros(2, 10), torch.tensor([3, 12]))
    Traceback (most recent call last):
    unperturbed.records.SpecError: labels: expected 0 to 9, as the classifier has 10 classes; got 3 to 12
    """
    if not isinstance(logits, Tensor):
        raise SpecError(f"classifier: expected logits as a torch.Tensor; got {type(logits).__name__}")
    if logits.ndim != 2 or len(logits) != len(labels) or logits.shape[1] < 2:
        expected = f"({len(labels)}, classes), 2 classes or more"
        raise SpecError(f"classifier: expected logits of shape {expected}; got {tuple(logits.shape)}")
    check_classes("labels", labels, logits.shape[1])
    logits = logits.detach()
    if math.isfinite(float(logits.sum())):  # nearly always, and one look at the numbers in place of three
        return
    finite = logits.isfinite().all(dim=1)
    if not bool(finite.all()):
        row = logits[~finite][0]
        raise NotFinite(
            f"classifier: expected finite logits; got {float(row[~row.isfinite()][0])} for {int((~finite).sum())} of "
            f"{len(logits)} images"
        )


def check_classes(name: str, numbers: Tensor, classes: int) -> None:
    """Refuse labels or targets that are not among the classes."""
    lowest, highest = (int(extreme) for extreme in torch.aminmax(numbers))
    if lowest < 0 or highest >= classes:
        raise SpecError(
            f"{name}: expected 0 to {classes - 1}, as the classifier has {classes} classes; got {lowest} to {highest}"
        )


def check_eps(eps: Any) -> None:
    """Refuse a radius that is negative or not a number.

    >>> check_eps(-0.1)
    Traceback (most recent call last):
    unperturbed.records.SpecError: eps: expected a finite number, 0 or larger; got -0.1
    """
    if not isinstance(eps, int | float) or isinstance(eps, bool):
        raise SpecError(f"eps: expected a number, for example 8 / 255; got {eps!r}")
    if not (math.isfinite(eps) and eps >= 0):
        raise SpecError(f"eps: expected a finite number, 0 or larger; got {eps:g}")


def check_targets(targets: Tensor, labels: Tensor) -> None:
    """Refuse target classes that are not one for each image, or that are the true ones.

    >>> check_targets(torch.tensor([1, 2]), torch.tensor([1, 0]))
    Traceback (most recent call last):
    unperturbed.records.SpecError: targets: expected classes other than the true ones; got the true one for 1 of 2
    """
    if targets.shape != labels.shape or targets.is_floating_point():
        raise SpecError(
            f"targets: expected one class number for each of {len(labels)} images; got {targets.dtype} of shape "
            f"{tuple(targets.shape)}"
        )
    same = int((targets == labels).sum())
    if same:
        raise SpecError(
            f"targets: expected classes other than the true ones; got the true one for {same} of {len(labels)}"
        )


def check_mask(mask: Tensor, images: Tensor) -> None:
    """Refuse a mask that does not say of every intensity, by 0 or 1, whether it may change.

    >>> check_mask(torch.ones(1, 3), torch.zeros(1, 1, 2, 2))
    Traceback (most recent call last):
    unperturbed.records.SpecError: mask: expected zeros and ones that broadcast to (1, 1, 2, 2); got a shape of (1, 3)
    """
    shape = tuple(images.shape)
    try:
        fits = torch.broadcast_shapes(mask.shape, shape) == shape and mask.ndim == 4
    except RuntimeError:
        fits = False
    if not fits:
        raise SpecError(f"mask: expected zeros and ones that broadcast to {shape}; got a shape of {tuple(mask.shape)}")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise SpecError("mask: expected zeros and ones only; got other values")


def check_radii(eps: Sequence[Any]) -> None:
    """Refuse radii that are not increasing from 0 or more.

    >>> check_radii((0.0, 0.2, 0.1))
    Traceback (most recent call last):
    unperturbed.records.SpecError: eps: expected increasing values; got 0.1 after 0.2
    """
    if len(eps) == 0:
        raise SpecError("eps: expected at least one value; got none")
    for radius in eps:
        check_eps(radius)
    for before, after in pairwise(eps):
        if after <= before:
            raise SpecError(f"eps: expected increasing values; got {after:g} after {before:g}")
