r"""Lengths, balls, projections, steepest directions in the norms :math:`\ell_\infty`, :math:`\ell_2`, :math:`\ell_1`.

Source: definitions as in Madry et al. (2018), arXiv:1706.06083, section 2.1. Uniform points in the Euclidean ball: a
Gaussian direction (Muller 1959, doi:10.1145/377939.377946) times :math:`\epsilon U^{1/d}`; a radius of
:math:`\epsilon U` would crowd the centre. In the :math:`\ell_1` ball: exponential numbers over their sum with one more
(Barthe et al. 2005, doi:10.1214/009117904000000874). Projection onto it: Duchi et al. (2008),
doi:10.1145/1390156.1390191, figure 1.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unperturbed.records import SpecError
from unperturbed.tensors.streams import Streams

NORMS = ("linf", "l2", "l1")


def check_norm(norm: str) -> None:
    """Refuse a norm that is not known.

    >>> check_norm("l0")
    Traceback (most recent call last):
    unperturbed.records.SpecError: norm: expected one of linf, l2, l1; got 'l0'
    """
    if norm not in NORMS:
        raise SpecError(f"norm: expected one of {', '.join(NORMS)}; got {norm!r}")


def length(offset: Float[Tensor, "batch channel height width"], *, norm: str) -> Float[Tensor, " batch"]:
    """Return the length of every offset, in float64, so that neither small nor many numbers are lost.

    >>> length(torch.tensor([[[[3.0, -4.0]]]]), norm="l2")
    tensor([5.], dtype=torch.float64)
    """
    check_norm(norm)
    flat = offset.flatten(1)
    if norm == "linf":
        return torch.maximum(flat.amax(dim=1), -flat.amin(dim=1)).double()
    if norm == "l1":
        return flat.abs().sum(dim=1, dtype=torch.float64)
    return _euclidean(flat)


def _euclidean(flat: Float[Tensor, "batch numbers"]) -> Float[Tensor, " batch"]:
    """Sum the squares in float32 within blocks and in float64 over them: a tenth of the time of float64 throughout."""
    if flat.dtype != torch.float32:
        return torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64)
    blocks = torch.linalg.vector_norm(flat.reshape(len(flat), -1, math.gcd(flat.shape[1], 64)), dim=2)
    lengths = torch.linalg.vector_norm(blocks, dim=1, dtype=torch.float64)
    # In float32 the squares of numbers below 1e-19 are 0, and those of numbers above 1e19 infinite.
    unsure = ~((lengths > 1e-12) & lengths.isfinite())
    if bool(unsure.any()):
        lengths[unsure] = torch.linalg.vector_norm(flat[unsure], dim=1, dtype=torch.float64)
    return lengths


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
    if norm == "l1":
        return _project_l1(offset, eps)
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
    if norm == "l1":
        flat = gradient.flatten(1)
        first = flat.abs().argmax(dim=1, keepdim=True)
        return torch.zeros_like(flat).scatter_(1, first, flat.gather(1, first).sign()).view_as(gradient)
    # Divided by the largest number first: the square of a small one is 0.
    peak = length(gradient, norm="linf").clamp_min(torch.finfo(gradient.dtype).tiny)
    scaled = gradient / _broadcast(peak, gradient)
    return scaled / _broadcast(length(scaled, norm=norm).clamp_min(torch.finfo(gradient.dtype).tiny), gradient)


def uniform_in_ball(
    images: Float[Tensor, "batch channel height width"],
    streams: Streams,
    *purpose: int | str,
    norm: str,
    eps: float | int,
) -> Float[Tensor, "batch channel height width"]:
    """Return one offset for each image, uniform in the ball of radius ``eps``, drawn from the image's own stream."""
    check_norm(norm)
    shape, dtype = tuple(images.shape[1:]), wide(images.dtype)
    if norm == "linf":
        return streams.uniform(shape, *purpose, dtype=dtype).mul_(2 * eps).sub_(eps)
    numbers = math.prod(shape)
    last = streams.uniform((1,), *purpose, "radius", dtype=dtype)
    if norm == "l1":
        sizes = -torch.log1p(-streams.uniform((numbers,), *purpose, dtype=dtype))
        sides = streams.uniform((numbers,), *purpose, "sign", dtype=dtype) - 0.5
        total = sizes.sum(dim=1, keepdim=True) - torch.log1p(-last)
        return (eps * sizes / total * sides.sign()).view_as(images)
    direction = streams.normal(shape, *purpose, dtype=dtype)
    radius = eps * last.squeeze(1) ** (1 / numbers)
    return steepest(direction, norm=norm) * _broadcast(radius, direction)


def _project_l1(offset: Tensor, eps: float | int) -> Tensor:
    flat = offset.flatten(1)
    sizes = flat.abs()
    ordered = sizes.sort(dim=1, descending=True).values.double()
    excess = ordered.cumsum(dim=1) - eps
    rank = torch.arange(1, flat.shape[1] + 1, device=flat.device)
    last = (ordered * rank > excess).sum(dim=1, keepdim=True).clamp_min(1)
    threshold = (excess.gather(1, last - 1) / last).clamp_min(0).to(flat.dtype)
    return ((sizes - threshold).clamp_min(0) * flat.sign()).view_as(offset)


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
