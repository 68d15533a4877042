"""Streams of random numbers that belong to a purpose, so that a new purpose moves no other number.

Two kinds. A ``torch.Generator`` for what is drawn one number after the other. And ``Streams``: one stream for every
image of a batch, whose numbers are computed from a seed, the image and a counter, so that an image has the same numbers
in any batch, at any place, on any device. The hash is a 32-bit mixer of two multiplications (constants of C. Wellons,
"Prospecting for hash functions", 2018: ``lowbias32``), once for each half of an image's key.
"""

import hashlib
import math
import random
from collections.abc import Generator as Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

RESOLUTION = 24  # bits of a uniform number: all that float32 holds


def seed_for(*words: int | str) -> int:
    """Return a number from 0 to 2**63 - 1 that is decided by ``words`` alone.

    >>> seed_for("order", 0) == seed_for("order", 0), seed_for("order", 0) == seed_for("order", "0")
    (True, False)
    """
    text = "\x1f".join(f"{type(word).__name__}:{word}" for word in words)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*words: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a generator whose stream is decided by ``words`` alone.

    Args:
        words: what the numbers are for, e.g. ``("order", seed, epoch)``.
        device: where the numbers are drawn; streams on different devices differ.

    >>> bool(torch.rand(1, generator=generator("order", 0)) == torch.rand(1, generator=generator("order", 0)))
    True
    >>> bool(torch.rand(1, generator=generator("order", 0)) == torch.rand(1, generator=generator("order", 1)))
    False
    """
    return torch.Generator(device).manual_seed(seed_for(*words))


@contextmanager
def undisturbed(*words: int | str, device: torch.device | None = None) -> Iterator[None]:
    """Seed the global generators of PyTorch, NumPy and Python for the time being, and put them back afterwards.

    A classifier that draws random numbers draws from those, and what looks at it must leave no trace in them.

    Args:
        words: what the numbers are for.
        device: where the images are; every CUDA device already in use is looked after too, wherever the images are.
    """
    chosen = seed_for(*words)
    cuda = torch.cuda.is_initialized() or (device is not None and device.type == "cuda")
    devices = list(range(torch.cuda.device_count())) if cuda else []
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (the global state is what is kept)
    with torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed, whose seed would wait in a CUDA that starts later.
        torch.default_generator.manual_seed(chosen)
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(chosen)
        random.seed(chosen)
        np.random.seed(chosen % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


@dataclass(frozen=True, eq=False)
class Streams:
    """One stream of random numbers for each image of a batch."""

    keys: Int[Tensor, "batch 2"]  # int32

    @classmethod
    def of(cls, images: Float[Tensor, "batch channel height width"], seed: int) -> "Streams":
        """Return the streams of ``images``: equal images with equal seeds have equal streams.

        The images count as float32 numbers, so that the same ones in another type draw nearly always the same.
        """
        bits = images.detach().to(torch.float32).flatten(1).contiguous().view(torch.int32)
        place = torch.arange(bits.shape[1], dtype=torch.int32, device=bits.device)
        digests = (_mix_(bits ^ _mix_(place + constant)).sum(dim=1) for constant in (0x2545F491, 0x1B873593))
        halves = (seed & 0xFFFFFFFF, seed >> 32)
        return cls(torch.stack([_mix_(_wrap(d) ^ _signed(half)) for d, half in zip(digests, halves, strict=True)], 1))

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: Tensor) -> "Streams":
        return Streams(self.keys[rows])

    def uniform(self, shape: tuple[int, ...], *purpose: int | str, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return numbers in [0, 1) of shape (batch, *shape), decided by seed, image and ``purpose``."""
        return self._bits(math.prod(shape), *purpose).to(dtype).mul_(2.0**-RESOLUTION).view(len(self), *shape)

    def normal(self, shape: tuple[int, ...], *purpose: int | str, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return standard normal numbers of shape (batch, *shape), by the method of Box and Muller (1958)."""
        count = math.prod(shape)
        half = (count + 1) // 2
        bits = self._bits(2 * half, *purpose).to(dtype)
        radius = (-2 * ((bits[:, :half] + 0.5) * 2.0**-RESOLUTION).log()).sqrt()
        angle = bits[:, half:] * (2 * math.pi * 2.0**-RESOLUTION)
        numbers = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
        return numbers[:, :count].reshape(len(self), *shape)

    def _bits(self, count: int, *purpose: int | str) -> Int[Tensor, "batch count"]:
        salt = seed_for(*purpose)
        place = torch.arange(count, dtype=torch.int32, device=self.keys.device)
        place = _mix_(place * _signed(0x9E3779B1) + _signed(salt & 0xFFFFFFFF))
        mixed = _mix_(place + self.keys[:, :1])
        mixed = _mix_(mixed.bitwise_xor_(self.keys[:, 1:] + _signed(salt >> 32)))
        return mixed.bitwise_right_shift_(32 - RESOLUTION).bitwise_and_(2**RESOLUTION - 1)


def _mix_(x: Tensor) -> Tensor:
    """Mix in place, as most of the time of a hash goes into memory."""
    x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))
    x.mul_(0x7FEB352D)
    x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF))
    x.mul_(_signed(0x846CA68B))
    return x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))


def _wrap(x: Tensor) -> Tensor:
    """Return the low 32 bits of 64-bit numbers."""
    low = x & 0xFFFFFFFF
    return torch.where(low >= 2**31, low - 2**32, low).to(torch.int32)


def _signed(number: int) -> int:
    number &= 0xFFFFFFFF
    return number - 2**32 if number >= 2**31 else number
