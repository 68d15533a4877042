"""Adversarial examples as PNG data URIs: the original, the adversarial image and the magnified difference.

The difference is drawn around mid-grey, ``0.5 + magnification * (adversarial - original)``, with the largest
magnification out of 1, 2, 5, 10, 20, 50, 100 that clips nothing; it is stated beside each picture.
PNG: W3C recommendation (2003), section 5 (chunks) and section 9 (filter type 0, none, is used for each row).
"""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from unperturbed.report.content import Picture

MAGNIFICATIONS = (1, 2, 5, 10, 20, 50, 100)


def png(image: NDArray[np.floating]) -> bytes:
    """Return ``image`` (1 or 3, height, width), intensities in [0, 1], as an 8-bit PNG file."""
    levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    if len(levels) == 3 and (levels == levels[:1]).all():
        levels = levels[:1]
    channels, height, width = levels.shape
    rows = levels.transpose(1, 2, 0).reshape(height, width * channels)
    filtered = np.insert(rows, 0, 0, axis=1).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(filtered, 9)) + chunk(b"IEND", b"")
    )


def data_uri(image: NDArray[np.floating]) -> str:
    """Return the PNG of ``image`` for the ``src`` of an ``img``."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def magnification(difference: NDArray[np.floating]) -> int:
    """Return the largest of ``MAGNIFICATIONS`` that keeps ``0.5 + factor * difference`` in [0, 1], at least 1."""
    largest = float(np.abs(difference).max(initial=0.0))
    return max((factor for factor in MAGNIFICATIONS if factor * largest <= 0.5 + 1e-6), default=1)


def magnified(picture: Picture) -> list[tuple[int, NDArray[np.floating]]]:
    """Return the magnification and the magnified difference of each adversarial image of ``picture``."""
    differences = [shown.image - picture.original for shown in picture.adversarial]
    factors = [magnification(difference) for difference in differences]
    return [(factor, 0.5 + factor * difference) for factor, difference in zip(factors, differences, strict=True)]
