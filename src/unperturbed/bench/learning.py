"""Seconds for an epoch of Krotov and Hopfield's rule on MNIST: ours, and the published minibatch form in NumPy.

2,000 hidden units, the 784 pixels of 60,000 digits as fractions of full scale, p = 3, k = 7, batches of 100. The
published form is that of the first author's notebook, written from its equations: all currents of a batch are sorted,
the changes are a product with a matrix that is nearly everywhere 0, and all synapses are computed again in every step;
in double precision, as NumPy has it there, and in the single precision of ours. It takes a few steps, whose time is
scaled to an epoch; ours takes the epoch. The forms run in turn, each with the same number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from threadpoolctl import threadpool_limits
from torch import Tensor

from unperturbed.bench.training import in_turn
from unperturbed.data.files import Places, read
from unperturbed.data.mnist import FILES, idx
from unperturbed.mechanisms import Lesson
from unperturbed.mechanisms.krotov_hopfield import TINY, krotov_hopfield
from unperturbed.models.hidden_layer import HiddenLayerNet, Synapses
from unperturbed.records import SpecError
from unperturbed.tensors.streams import generator

P, K, DELTA, RATE, BATCH_SIZE = 3.0, 7, 0.4, 0.04, 100
EPOCHS = 100
TRAINING = "train-images-idx3-ubyte"


class Row(NamedTuple):
    """Median seconds for an epoch of one form."""

    form: str
    threads: int
    units: int
    images: int
    repeats: int
    steps: int  # that were timed in each repeat
    seconds: float
    ratio: float  # to ours with as many threads
    minutes: float  # for 100 epochs, projected


def digits(root: Path | None) -> Tensor:
    """Return the training images of MNIST, (60000, 784) in [0, 1].

    Raises:
        SpecError: they are not there, or not the official ones.
    """
    contents, _ = read(FILES, Places(root))
    images = idx(contents[TRAINING], TRAINING, 3)
    return torch.from_numpy(images.reshape(len(images), -1).astype(np.float32)) / 255


def published_step(synapses: NDArray[np.floating], inputs: NDArray[np.floating], rate: float) -> None:
    """Change ``synapses`` (units, pixels) by one step from ``inputs`` (pixels, batch), as published."""
    units, batch = len(synapses), np.arange(inputs.shape[1])
    currents = (np.sign(synapses) * np.abs(synapses) ** (P - 1)) @ inputs
    order = np.argsort(currents, axis=0)
    signs = np.zeros_like(currents)
    signs[order[units - 1], batch] = 1
    signs[order[units - K], batch] = -DELTA
    changes = signs @ inputs.T - np.sum(signs * currents, axis=1)[:, None] * synapses
    synapses += rate * changes / max(np.abs(changes).max(), TINY)


def measure(
    inputs: Tensor, *, repeats: int = 3, units: int = 2000, steps: int = 20, threads: Sequence[int] = (1, 2)
) -> list[Row]:
    """Return the time of an epoch of every form with every number of threads, ours first.

    Args:
        inputs: images as vectors, (n, pixels).
        repeats: timed runs of each form, in turn.
        units: of the hidden layer.
        steps: of the published form in each run.
        threads: how many.

    Raises:
        SpecError: repeats or steps below 1, or too few units or images.
    """
    if min(repeats, steps) < 1:
        raise SpecError(f"bench learning: repeats and steps must be at least 1, got {repeats} and {steps}.")
    if units < K or len(inputs) < BATCH_SIZE:
        raise SpecError(
            f"bench learning: expected at least {K} units and {BATCH_SIZE} images, got {units} and {len(inputs)}."
        )
    epoch = -(-len(inputs) // BATCH_SIZE)
    synapses = torch.randn(units, inputs.shape[1], generator=generator("synapses", 0)).numpy()
    forms = {
        "ours": _ours(inputs, units),
        "published, single precision": _published(inputs.numpy(), synapses, steps),
        "published, double precision": _published(inputs.double().numpy(), synapses.astype(np.float64), steps),
    }
    taken = [epoch, steps, steps]
    rows: list[Row] = []
    before = torch.get_num_threads()
    try:
        for count in threads:
            torch.set_num_threads(count)
            with threadpool_limits(count):
                medians = in_turn(list(forms.values()), repeats, torch.device("cpu"))
            seconds = [median * epoch / done for median, done in zip(medians, taken, strict=True)]
            rows += [
                Row(form, count, units, len(inputs), repeats, done, each, each / seconds[0], each * EPOCHS / 60)
                for form, done, each in zip(forms, taken, seconds, strict=True)
            ]
    finally:
        torch.set_num_threads(before)
    return rows


def _ours(inputs: Tensor, units: int) -> Callable[[], None]:
    mechanism = krotov_hopfield(p=P, k=K, delta=DELTA, learning_rate=RATE, epochs=EPOCHS, batch_size=BATCH_SIZE)
    assert mechanism.learning is not None
    learning = mechanism.learning
    network = HiddenLayerNet(units, 10, 0.0, grey=True)
    network.hidden = Synapses(inputs.shape[1], units)  # digits of 28 x 28 pixels, not enlarged
    mechanism.install(network)
    learning.begin(network, 0)

    def run() -> None:
        learning.epoch([network], Lesson(inputs, [0], 1, lambda _: None))

    return run


def _published(inputs: NDArray[np.floating], synapses: NDArray[np.floating], steps: int) -> Callable[[], None]:
    order = torch.randperm(len(inputs), generator=generator("order", 0, 1)).numpy()
    batches = np.array_split(order, -(-len(order) // BATCH_SIZE))

    def run() -> None:
        for step in range(steps):
            published_step(synapses, inputs[batches[step % len(batches)]].T, RATE)

    return run


def table(rows: Sequence[Row]) -> Table:
    """Return the rows for a terminal."""
    view = Table(
        "Krotov and Hopfield's rule", "threads", "s per epoch", "ratio to ours", f"min for {EPOCHS} epochs",
        title=f"{rows[0].units} units, {rows[0].images} images, batches of {BATCH_SIZE}, medians of {rows[0].repeats}\n"
        f"published: {min(row.steps for row in rows)} steps in NumPy, scaled to an epoch",
        box=None,
        pad_edge=False,
    )  # fmt: skip
    for row in rows:
        view.add_row(row.form, str(row.threads), f"{row.seconds:.2f}", f"{row.ratio:.2f}", f"{row.minutes:.1f}")
    return view
