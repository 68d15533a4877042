"""How long WideResNet-34 with widen factor 1 takes for one image: rectified, and with stochastic winner-take-all.

The comparison of eight trainings that the second study rebuilds complains of 166 ms per image. All forms see the same
batch in turn; one pass is one draw. The general form, with a Gumbel variable for every unit and a softmax as in the
authors' code, stands beside ours for two units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from rich.table import Table
from torch import Tensor, nn

from unperturbed import mechanisms, models
from unperturbed.bench.training import in_turn
from unperturbed.mechanisms.winner_take_all import WinnerTakeAll
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import generator, undisturbed

NETWORK = Spec(name="wide-resnet", settings={"depth": 34, "widen": 1})


class Row(NamedTuple):
    """Median milliseconds for one image and one draw."""

    network: str
    batch_size: int
    repeats: int
    milliseconds: float
    ratio: float  # to the rectified network


class _General(WinnerTakeAll):
    """Two units by the form for any number of them."""

    def forward(self, hidden: Tensor) -> Tensor:
        blocks = hidden.unflatten(1, (-1, self.units))
        return (self._winners(blocks) * blocks).flatten(1, 2)


def measure(*, repeats: int = 5, batch_size: int = 128, device: torch.device | None = None) -> list[Row]:
    """Return the time per image of every form, the rectified network first.

    Raises:
        SpecError: repeats or batch_size below 1.
    """
    if min(repeats, batch_size) < 1:
        raise SpecError(f"bench inference: repeats and batch_size must be at least 1, got {repeats} and {batch_size}.")
    device = device or torch.device("cpu")
    images = torch.rand(batch_size, 3, 32, 32, generator=generator("bench inference")).to(device)
    networks = {
        "rectified": _network(None),
        "winner-take-all, 2 units": _network(_competing(2)),
        "winner-take-all, 2 units, general form": _network(_generally),
        "winner-take-all, 4 units": _network(_competing(4)),
    }

    def form(network: nn.Module) -> Callable[[], None]:
        network = network.to(device)

        def run() -> None:
            with torch.inference_mode():
                network(images)

        return run

    with undisturbed("bench inference", device=device):
        medians = in_turn([form(network) for network in networks.values()], repeats, device)
    each = [1000 * median / batch_size for median in medians]
    return [
        Row(name, batch_size, repeats, milliseconds, milliseconds / each[0])
        for name, milliseconds in zip(networks, each, strict=True)
    ]


def _network(change: Callable[[nn.Module], None] | None) -> nn.Module:
    network = models.build(NETWORK, generator("weights", 0))
    if change is not None:
        change(network)
    return network.eval()


def _competing(units: int) -> Callable[[nn.Module], None]:
    def change(network: nn.Module) -> None:
        mechanism = mechanisms.build([Spec(name="winner-take-all", settings={"units": units})])
        mechanism.install(network)
        mechanism.finish(network)

    return change


def _generally(network: nn.Module) -> None:
    _competing(2)(network)
    for layer in network.modules():
        if isinstance(layer, WinnerTakeAll):
            layer.__class__ = _General


def table(rows: list[Row]) -> Table:
    """Return the rows for a terminal."""
    view = Table(
        "WideResNet-34-1", "ms per image and draw", "ratio",
        title=f"batches of {rows[0].batch_size}, medians of {rows[0].repeats}; ratio to the rectified network",
        box=None,
        pad_edge=False,
    )  # fmt: skip
    for row in rows:
        view.add_row(row.network, f"{row.milliseconds:.2f}", f"{row.ratio:.2f}")
    return view
