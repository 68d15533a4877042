"""How long the deployed network takes for one image, on the machine that runs the study.

Batches of one size, repeated, the median; the first ones are not counted, because they load and choose what runs.
"""

import time
from statistics import median

import numpy as np
import torch
from torch import Tensor

from unperturbed.examinations.contract import Found, Subject, measured
from unperturbed.records import SpecError
from unperturbed.tensors.streams import undisturbed

WARM_UP = 2  # batches that are not counted


def timing(subject: Subject, *, batch_size: int = 128, repeats: int = 5) -> Found:
    """Return the milliseconds that one image takes, for one draw of a random network.

    Draws are vectorised: noise on images or units differs between the rows of a batch, so that ``draws`` draws of an
    image are one batch of repeated images and cost as many times this number. Only noise in the weights is one draw for
    a whole batch; its draws cost the same, one batch after another. Copies that the deployed network makes by itself,
    as randomised smoothing does, are in the number.

    Args:
        subject: what is examined.
        batch_size: images at once; those of the subject are repeated to fill a batch.
        repeats: batches that are timed.

    Returns:
        ``ms_per_image``, the median; the array ``seconds`` has every batch. It is no number of the network alone but of
        the machine, too: compare it within one run only.

    Raises:
        SpecError: batch_size or repeats below 1.
    """
    if min(batch_size, repeats) < 1:
        raise SpecError(f"timing: expected batch_size and repeats of at least 1; got {batch_size} and {repeats}")
    rows = torch.arange(batch_size, device=subject.images.device) % len(subject.images)
    batch = subject.images[rows]
    seconds: list[float] = []
    with undisturbed("timing", subject.seed, device=batch.device), torch.inference_mode():
        for number in range(WARM_UP + repeats):
            subject.look()
            taken = _seconds(subject, batch)
            if number >= WARM_UP:
                seconds.append(taken)
    return Found(
        measured({"ms_per_image": 1000 * median(seconds) / batch_size}, batch_size),
        arrays={"seconds": np.array(seconds)},
        forwards=batch_size * (WARM_UP + repeats),
    )


def _seconds(subject: Subject, batch: Tensor) -> float:
    _wait(batch.device)
    began = time.perf_counter()
    subject.network(batch)
    _wait(batch.device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    """Wait until the device has done what it was asked for: a CUDA device answers before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
