r"""Enlarging square images to 32x32 with the same bytes on every machine.

Equation: :math:`Y = A X A^T`, one interpolation matrix for both axes. Pixel :math:`i` of the result looks at position
:math:`(i + 1/2) n / 32 - 1/2` of :math:`n` (half-pixel centres, edges repeated), as
``torch.nn.functional.interpolate(align_corners=False)`` does; ``bilinear-corners`` is ``align_corners=True``,
``nearest`` is ``nearest-exact``, ``bicubic`` has :math:`a = -3/4`, ``pad`` surrounds the image with black.
Departs from it: the weights are kept as whole numbers over one denominator, so that all sums are exact and the only
rounding is the last one, to 256 levels (half to even).
"""

import math
from fractions import Fraction

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from unperturbed.data.settings import Interpolation

SIZE = 32


def enlarge(
    images: UInt8[ndarray, "n size size"], *, interpolation: Interpolation, full_scale: int = 255
) -> UInt8[ndarray, "n 32 32"]:
    """Return ``images`` as 32x32 pixels, 255 at full scale.

    Args:
        images: n images of at most 32x32 pixels.
        interpolation: how values between pixels are found.
        full_scale: the value of ``images`` that means white.
    """
    numerators, denominator = weights(images.shape[1], interpolation)
    matrix = numerators.astype(np.float64)
    scale = full_scale * denominator**2
    enlarged = np.empty((len(images), SIZE, SIZE), np.uint8)
    for start in range(0, len(images), 4096):
        block = images[start : start + 4096].astype(np.float64)
        # Whole numbers below 2**53: these float64 products are exact in any order of summation.
        sums = matrix @ (block @ matrix.T) * 255
        enlarged[start : start + 4096] = np.rint(sums / scale).clip(0, 255)
    return enlarged


def weights(size: int, interpolation: Interpolation) -> tuple[Int64[ndarray, "32 size"], int]:
    """Return the interpolation matrix from ``size`` to 32 pixels as numerators and their common denominator.

    >>> numerators, denominator = weights(8, "bilinear")
    >>> denominator, numerators[2].tolist(), numerators[3].tolist()
    (8, [7, 1, 0, 0, 0, 0, 0, 0], [5, 3, 0, 0, 0, 0, 0, 0])
    """
    rows = [_row(i, size, interpolation) for i in range(SIZE)]
    denominator = math.lcm(*(weight.denominator for row in rows for weight in row))
    numerators = np.array([[int(weight * denominator) for weight in row] for row in rows], np.int64)
    return numerators, denominator


def _row(i: int, size: int, interpolation: Interpolation) -> list[Fraction]:
    row = [Fraction(0)] * size
    if interpolation == "pad":
        column = i - (SIZE - size) // 2
        if 0 <= column < size:
            row[column] = Fraction(1)
        return row
    if interpolation == "bilinear-corners":
        position = Fraction(i * (size - 1), SIZE - 1)
    else:
        position = Fraction((2 * i + 1) * size, 2 * SIZE) - Fraction(1, 2)
    if interpolation == "nearest":
        position = Fraction(math.floor(position + Fraction(1, 2)))
    left = math.floor(position)
    taps = range(left - 1, left + 3) if interpolation == "bicubic" else range(left, left + 2)
    kernel = _cubic if interpolation == "bicubic" else _triangle
    for tap in taps:
        row[min(max(tap, 0), size - 1)] += kernel(abs(position - tap))
    return row


def _triangle(distance: Fraction) -> Fraction:
    return 1 - distance


def _cubic(distance: Fraction) -> Fraction:
    a = Fraction(-3, 4)
    if distance <= 1:
        return ((a + 2) * distance - (a + 3)) * distance**2 + 1
    return ((distance - 5) * distance + 8) * distance * a - 4 * a
