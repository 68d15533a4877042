"""How many images go through a classifier at once: found while the work is done, and no result depends on it."""

import time
from collections.abc import Callable

import torch

from unperturbed.records import SpecError

SMALLEST, LARGEST = 128, 2048
FASTER = 1.05  # a larger batch is kept if it is faster by this factor


def check_batch_size(batch_size: int | None) -> None:
    """Refuse a number of images at once that is below 1.

    >>> check_batch_size(0)
    Traceback (most recent call last):
    unperturbed.records.SpecError: batch_size: expected at least 1; got 0
    """
    if batch_size is not None and batch_size < 1:
        raise SpecError(f"batch_size: expected at least 1; got {batch_size}")


def in_batches(count: int, work: Callable[[slice], int], *, batch_size: int | None = None) -> None:
    """Call ``work`` on slices that cover 0 to ``count`` in order.

    Args:
        count: images.
        work: does a slice and returns how many passes that took. When memory runs out it is called again on half.
        batch_size: images in a slice; ``None``: starts at 128 and doubles as long as passes become cheaper.

    Raises:
        SpecError: a size below 1.
    """
    check_batch_size(batch_size)
    size = batch_size or SMALLEST
    growing = batch_size is None
    fastest = 0.0
    start = 0
    while start < count:
        began = time.perf_counter()
        try:
            passes = work(slice(start, min(start + size, count)))
        except RuntimeError as error:
            if size == 1 or not _out_of_memory(error):
                raise
            size, growing = (size + 1) // 2, False
            continue
        full = start + size <= count
        start += size
        if growing and full:
            speed = passes / max(time.perf_counter() - began, 1e-9)
            if speed < fastest * FASTER:
                size, growing = max(size // 2, SMALLEST), False
            elif size * 2 > LARGEST:
                growing = False
            else:
                fastest, size = speed, size * 2


def _out_of_memory(error: RuntimeError) -> bool:
    # Without a CUDA device it is a plain RuntimeError, worded by the system.
    words = ("not enough memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)
