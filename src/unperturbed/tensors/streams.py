"""Streams of random numbers that belong to a purpose, so that a new purpose moves no other number."""

import hashlib

import torch


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
    text = "\x1f".join(f"{type(word).__name__}:{word}" for word in words)
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return torch.Generator(device).manual_seed(seed)
