r"""Lengths, balls, projections and steepest directions in the :math:`\ell_\infty` and :math:`\ell_2` norms.

Source: definitions as in Madry et al. (2018), arXiv:1706.06083, section 2.1. Uniform points in the Euclidean ball: a
Gaussian direction (Muller 1959, doi:10.1145/377939.377946) times :math:`\epsilon U^{1/d}`; a radius of
:math:`\epsilon U` would crowd the centre.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from unperturbed.records import SpecError

NORMS = ("linf", "l2")


def check_norm(norm: str) -> None:
    """Refuse a norm that is not known.

    >>> check_norm("l1")
    Traceback (most recent call last):
    unperturbed.records.SpecError: norm: expected one of linf, l2; got 'l1'
    """
    if norm not in NORMS:
        raise SpecError(f"norm: expected one of {', '.join(NORMS)}; got {norm!r}")


def length(offset: Float[Tensor, "batch channel height width"], *, norm: str) -> Float[Tensor, " batch"]:
    """Return the length of every offset, summed in float64, so that neither small nor many numbers are lost.

    >>> length(torch.tensor([[[[3.0, -4.0]]]]), norm="l2")
    tensor([5.], dtype=torch.float64)
    """
    check_norm(norm)
    if norm == "linf":
        return offset.abs().flatten(1).amax(dim=1).double()
    return torch.linalg.vector_norm(offset.flatten(1), dim=1, dtype=torch.float64)


def project(
    offset: Float[Tensor, "batch channel height width"], *, norm: str, eps: float | int
) -> Float[Tensor, "batch channel height width"]:
    """Return the nearest offset (in the Euclidean sense) whose length is at most ``eps``.

    >>> project(torch.tensor([[[[3.0, -4.0]]]]), norm="l2", eps=1.0)
    tensor([[[[ 0.6000, -0.8000]]]])
    """
    check_norm(norm)
    if norm == "linf":
        return offset.clamp(-eps, eps)
    lengths = length(offset, norm=norm)
    shrink = (eps / lengths.clamp_min(torch.finfo(lengths.dtype).tiny)).clamp_max(1.0)
    return offset * _broadcast(shrink, offset)


def steepest(
    gradient: Float[Tensor, "batch channel height width"], *, norm: str
) -> Float[Tensor, "batch channel height width"]:
    """Return the offset of length 1 along which a linear function with this gradient rises most; 0 where it is 0.

    Any scale of the gradient gives the same direction.

    >>> steepest(torch.tensor([[[[3e-30, -4e-30, 0.0]]]]), norm="l2")
    tensor([[[[ 0.6000, -0.8000,  0.0000]]]])
    """
    check_norm(norm)
    if norm == "linf":
        return gradient.sign()
    # Divided by the largest number first: the square of a small one is 0.
    peak = length(gradient, norm="linf").clamp_min(torch.finfo(gradient.dtype).tiny)
    scaled = gradient / _broadcast(peak, gradient)
    return scaled / _broadcast(length(scaled, norm=norm).clamp_min(torch.finfo(gradient.dtype).tiny), gradient)


def uniform_in_ball(
    images: Float[Tensor, "batch channel height width"], generator: torch.Generator, *, norm: str, eps: float | int
) -> Float[Tensor, "batch channel height width"]:
    """Return one offset for each image, uniform in the ball of radius ``eps``.

    Drawn where the generator lives, so that a CPU generator gives the same numbers whatever the images' device.
    """
    check_norm(norm)
    dtype = wide(images.dtype)
    if norm == "linf":
        draw = torch.rand(images.shape, generator=generator, device=generator.device, dtype=dtype)
        return ((2 * draw - 1) * eps).to(images.device)
    direction = gaussian(images, generator)
    radius = torch.rand(len(images), generator=generator, device=generator.device, dtype=torch.float64)
    radius = eps * radius.to(images.device) ** (1 / images.shape[1:].numel())
    return steepest(direction, norm=norm) * _broadcast(radius, direction)


def gaussian(
    images: Float[Tensor, "batch channel height width"], generator: torch.Generator
) -> Float[Tensor, "batch channel height width"]:
    """Return standard normal numbers in the shape of ``images``, drawn where the generator lives."""
    dtype = wide(images.dtype)
    return torch.randn(images.shape, generator=generator, device=generator.device, dtype=dtype).to(images.device)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which offsets of images of this type are added up: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def towards(
    images: Float[Tensor, "batch channel height width"], moved: Float[Tensor, "batch channel height width"]
) -> Float[Tensor, "batch channel height width"]:
    """Return ``moved`` in the type of ``images``, every number rounded to the side of its image.

    Rounding to nearest would carry bfloat16 images out of their ball by up to 0.002 per intensity.

    >>> grey = torch.full((1, 1, 1, 1), 0.5, dtype=torch.bfloat16)
    >>> towards(grey, torch.full((1, 1, 1, 1), 0.503))
    tensor([[[[0.5000]]]], dtype=torch.bfloat16)
    """
    if moved.dtype == images.dtype:
        return moved
    centres = images.to(moved.dtype)
    rounded = moved.to(images.dtype)
    beyond = (rounded.to(moved.dtype) - centres).abs() > (moved - centres).abs()
    return torch.where(beyond, torch.nextafter(rounded, images), rounded)


def _broadcast(numbers: Float[Tensor, " batch"], images: Tensor) -> Tensor:
    return numbers.to(images.dtype).view(-1, 1, 1, 1)
