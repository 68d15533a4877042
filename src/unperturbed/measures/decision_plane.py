"""The decisions of a classifier on a plane through an image: how wide the region of its class is.

Source of the picture: Holzhausen et al. (2024), arXiv:2405.00679, where planes are random. Departs from the source: the
first axis leads along the gradient straight to the boundary, as two random directions of thousands hardly meet one.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unperturbed.records import SpecError
from unperturbed.tensors.norms import steepest
from unperturbed.tensors.streams import Streams

AT_ONCE = 500  # points of the plane in a batch


class Plane(NamedTuple):
    """What a classifier says around an image: rows follow the second axis, columns the first."""

    positions: Float[Tensor, " cells"]  # along each axis, Euclidean
    classes: Int[Tensor, "cells cells"]
    margins: Float[Tensor, "cells cells"]  # of the class in the middle, below 0 where another one is larger

    @property
    def share(self) -> float:
        """The part of the plane that has the class of its middle, 0 to 1."""
        middle = len(self.positions) // 2
        return float((self.classes == self.classes[middle, middle]).double().mean())


def axes(
    gradient: Float[Tensor, "1 channel height width"], *, seed: int
) -> tuple[Float[Tensor, "channel height width"], Float[Tensor, "channel height width"]]:
    """Return the direction of the gradient, and a random one at right angles to it, both of length 1.

    A gradient of 0 gives way to a random direction.
    """
    drawn = Streams.of(gradient, seed).normal((2, *gradient.shape[1:]), "plane", dtype=gradient.dtype)[0]
    first = steepest(gradient if bool(gradient.any()) else drawn[:1], norm="l2")
    second = drawn[1:] - (drawn[1:] * first).sum() * first
    return first[0], steepest(second, norm="l2")[0]


def decision_plane(
    classifier: Callable[[Tensor], Tensor],
    image: Float[Tensor, "channel height width"],
    first: Float[Tensor, "channel height width"],
    second: Float[Tensor, "channel height width"],
    *,
    extent: float | int = 1.0,
    cells: int = 41,
) -> Plane:
    """Return classes and margins on a square grid around the image.

    The plane is not cut at [0, 1]. A random classifier answers every point by draws of its own.

    Args:
        classifier: images to logits.
        image: the middle.
        first: an axis of length 1, from left to right.
        second: one at right angles to it.
        extent: how far the grid goes from the middle on each side; full scale of one intensity is 1.
        cells: points along each axis, an odd number of 3 or more, so that the image is among them.

    Raises:
        SpecError: cells are not as described, or the extent is not above 0.
    """
    if cells < 3 or cells % 2 == 0 or not extent > 0:
        raise SpecError(
            f"plane: expected an odd number of cells, 3 or more, and an extent above 0; got {cells} and {extent:g}"
        )
    steps = torch.arange(cells, dtype=image.dtype, device=image.device) - cells // 2
    positions = steps * (extent / (cells // 2))  # exactly 0 in the middle
    rows, columns = (each.reshape(-1, 1, 1, 1) for each in torch.meshgrid(positions, positions, indexing="ij"))
    with torch.no_grad():
        logits = torch.cat(
            [
                classifier(image + column * first + row * second)
                for row, column in zip(rows.split(AT_ONCE), columns.split(AT_ONCE), strict=True)
            ]
        )
    classes = logits.argmax(dim=1)
    own = classes[len(classes) // 2].view(1, 1).expand(len(classes), 1)
    margins = logits.gather(1, own).squeeze(1) - logits.scatter(1, own, -torch.inf).amax(dim=1)
    return Plane(positions, classes.view(cells, cells), margins.view(cells, cells))
