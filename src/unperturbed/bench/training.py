"""Matched seeds trained as one program, one after another, and in the loop that a PyTorch tutorial shows.

All three train the same networks on the same digits with the same recipe for one epoch a repeat. The plain loop is
``DataLoader`` over a ``TensorDataset``, ``zero_grad``, ``backward``, ``step``. The forms run in turn, so that a machine
whose speed drifts is fair to all.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from rich.table import Table
from torch.utils.data import DataLoader, TensorDataset

from unperturbed import models
from unperturbed.data import Split, load
from unperturbed.records import Recipe, Spec, SpecError
from unperturbed.tensors.streams import generator
from unperturbed.training import begin, choose_vectorised, train

NETWORKS = (
    Spec(name="lenet"),
    Spec(name="fully-connected", settings={"hidden": 32}),
    Spec(name="fully-connected", settings={"hidden": 512}),
    Spec(name="resnet", settings={"depth": 8, "width": 4}),
)


class Row(NamedTuple):
    """Median milliseconds for one step of one network, over ``repeats`` epochs of ``seeds`` networks."""

    network: str
    seeds: int
    repeats: int
    vectorised: float
    one_by_one: float
    plain_loop: float
    chosen: str  # the form that the lab takes: joined or single


def measure(*, repeats: int = 5, device: torch.device | None = None, seeds: int = 5) -> list[Row]:
    """Return the median time of a step in each form, for several networks.

    Raises:
        SpecError: no repeats.
    """
    if repeats < 1:
        raise SpecError(f"bench training: repeats must be at least 1, got {repeats}.")
    device = device or torch.device("cpu")
    split = load(Spec(name="digits")).train.to(device)
    return [_row(spec, split, repeats, device, seeds) for spec in NETWORKS]


def _row(spec: Spec, split: Split, repeats: int, device: torch.device, seeds: int) -> Row:
    recipe = Recipe(epochs=1)
    networks = [models.build(spec, generator("weights", seed)) for seed in range(seeds)]
    skeleton = models.build(spec, generator("weights", 0))
    states = [begin(network) for network in networks]

    def vectorised() -> None:
        train(skeleton, states, split, recipe, seeds=range(seeds), until=1, device=device)

    def one_by_one() -> None:
        for seed, state in enumerate(states):
            train(skeleton, [state], split, recipe, seeds=[seed], until=1, device=device)

    rows = split.fixed().to(device)
    dataset = TensorDataset(split.images(rows).cpu(), split.labels(rows).cpu())

    def plain_loop() -> None:
        for network in networks:
            network.to(device).train()
            optimiser = torch.optim.SGD(
                network.parameters(),
                lr=recipe.learning_rate,
                momentum=recipe.momentum,
                weight_decay=recipe.weight_decay,
            )
            for images, labels in DataLoader(dataset, batch_size=recipe.batch_size, shuffle=True):
                optimiser.zero_grad()
                F.cross_entropy(network(images.to(device)), labels.to(device)).backward()
                optimiser.step()

    steps = seeds * -(-len(split) // recipe.batch_size)
    medians = [1000 * median / steps for median in in_turn([vectorised, one_by_one, plain_loop], repeats, device)]
    chosen = "joined" if choose_vectorised(skeleton, device) else "single"
    name = f"{spec.name} {' '.join(str(value) for value in spec.settings.values())}".strip()
    together, single, plain = medians
    return Row(name, seeds, repeats, together, single, plain, chosen)


def in_turn(forms: list[Callable[[], None]], repeats: int, device: torch.device) -> list[float]:
    """Return the median seconds of each form, which run in turn after one round that warms up."""
    times: list[list[float]] = [[] for _ in forms]
    for repeat in range(repeats + 1):
        for form, taken in zip(forms, times, strict=True):
            _finish(device)
            began = time.perf_counter()
            form()
            _finish(device)
            if repeat:  # the first round warms up
                taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in times]


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table(rows: list[Row]) -> Table:
    """Return the rows for a terminal: milliseconds for a step of one network, and ratios (above 1: faster)."""
    view = Table(
        "network", "joined", "single", "plain", "single/joined", "plain/joined", "plain/single", "taken",
        title=f"ms per step and network: medians of {rows[0].repeats} rounds, {rows[0].seeds} matched seeds\n"
        "joined: one vectorised program; single: one by one; plain: the usual loop",
        box=None,
        pad_edge=False,
    )  # fmt: skip
    for row in rows:
        view.add_row(
            row.network,
            f"{row.vectorised:.2f}",
            f"{row.one_by_one:.2f}",
            f"{row.plain_loop:.2f}",
            f"{row.one_by_one / row.vectorised:.2f}",
            f"{row.plain_loop / row.vectorised:.2f}",
            f"{row.plain_loop / row.one_by_one:.2f}",
            row.chosen,
        )
    return view
