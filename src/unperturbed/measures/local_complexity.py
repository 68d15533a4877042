r"""Local complexity: how many units of a layer switch on or off near an image, a proxy for the linear regions there.

Source: Humayun, Balestriero and Baraniuk (2024), arXiv:2402.15555, and its code: around x lie the vertices
:math:`x \pm r u_i` with random orthonormal :math:`u_i`, the same ones for every image; a unit counts if the sign of its
pre-activation is not the same at all of them. Published with r = 0.005 and 40 vertices for CIFAR-10, in the units of
normalised inputs; here r is in those of intensities, full scale 1.
Departs from the source: a pre-activation of exactly 0 counts as off. Where units compete, a change of the winner is not
seen.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unperturbed.records import SpecError
from unperturbed.tensors.streams import generator

Images = Float[Tensor, "batch channel height width"]


def vertices(images: Images, *, radius: float | int, directions: int, seed: int) -> Iterator[Tensor]:
    """Yield the images moved to one vertex after the other, twice as many as there are directions; not cut at [0, 1].

    Raises:
        SpecError: more directions than an image has dimensions, or none.
    """
    numbers = images[0].numel()
    if not 1 <= directions <= numbers:
        raise SpecError(f"directions: expected 1 to {numbers}, the numbers of an image; got {directions}")
    drawn = torch.randn(numbers, directions, generator=generator("vertices", seed), dtype=torch.float64)
    for direction in torch.linalg.qr(drawn).Q.mT:
        offset = (radius * direction).view(images.shape[1:]).to(images)
        yield images + offset
        yield images - offset


def local_complexity(
    currents: Callable[[Tensor], Tensor],
    images: Images,
    *,
    radius: float | int,
    directions: int = 20,
    seed: int = 0,
) -> Int[Tensor, " batch"]:
    """Return for every image the number of units that do not have one sign at all vertices.

    Args:
        currents: images to the pre-activations of a layer, one row for each image; the same ones whenever it is asked.
        images: the centres.
        radius: Euclidean distance of the vertices from the centre.
        directions: orthonormal ones, each taken forwards and backwards.
        seed: of the directions.

    Raises:
        SpecError: as ``vertices``.
    """
    some = every = None
    for moved in vertices(images, radius=radius, directions=directions, seed=seed):
        with torch.no_grad():
            active = currents(moved).flatten(1) > 0
        some = active if some is None else some | active
        every = active if every is None else every & active
    assert some is not None
    assert every is not None
    return (some & ~every).sum(dim=1)
