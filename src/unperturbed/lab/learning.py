"""Hidden layers that a rule without labels learns before gradient descent: recorded once, shared by every readout.

All matched seeds learn as one program. Between two epochs all that a rule knows is in the weights, so a checkpoint is
these and the number of the epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from unperturbed import mechanisms, models
from unperturbed.data import Split
from unperturbed.examinations import BATCH_SIZE, measured
from unperturbed.lab.courses import Station, Stopped
from unperturbed.mechanisms import Lesson
from unperturbed.mechanisms.installing import hidden_layered
from unperturbed.models import HiddenLayerNet
from unperturbed.records import LearningStage
from unperturbed.tensors.streams import generator

CHECKPOINT_EVERY = 30.0  # seconds


def learn_all(stages: Sequence[LearningStage], station: Station) -> int:
    """Learn what the ledger does not hold; return how many layers were learned. The stages differ in their seeds only.

    Raises:
        Stopped: the user asked for it; the epoch under way is lost, those before it are not.
        Diverged: the rule left the finite numbers.
    """
    with station.alone([stage.digest() for stage in stages]):
        missing = [stage for stage in stages if not station.ledger.find(stage)]
        return _learn(missing, station) if missing else 0


def _learn(missing: Sequence[LearningStage], station: Station) -> int:
    learning = mechanisms.build([missing[0].mechanism]).learning
    assert learning is not None, "a learning stage names a mechanism that learns"
    networks = [_untaught(stage) for stage in missing]
    for network, stage in zip(networks, missing, strict=True):
        learning.begin(network, stage.seed)
    key = "+".join(stage.digest() for stage in missing)
    done = _resume(networks, station.ledger.load_checkpoint(key))
    device = station.machine.device
    split = station.datasets[missing[0].data.canonical()].train.to(device)
    inputs = _inputs(networks[0].to(device), split)
    for network in networks:
        network.to(device)
    began, saved = time.perf_counter(), time.monotonic()
    seeds = [stage.seed for stage in missing]
    look = _look(missing[0].mechanism.name, seeds, station)
    for epoch in range(done + 1, learning.epochs + 1):
        learning.epoch(networks, Lesson(inputs, seeds, epoch, look))
        if epoch < learning.epochs and time.monotonic() - saved > CHECKPOINT_EVERY:
            station.ledger.save_checkpoint(key, _packed(networks, epoch))
            saved = time.monotonic()
    seconds = (time.perf_counter() - began) / len(networks)
    with station.ledger.together():
        for network, stage in zip(networks, missing, strict=True):
            station.ledger.record(
                stage,
                save_tensors(_hidden(network)),
                suffix=".safetensors",
                curves=(),
                measures=measured(learning.facts(network), len(split)),
                seconds=seconds,
                forwards=(learning.epochs - done) * len(split),
                backwards=0,
                device=device.type,
                versions=station.machine.versions,
            )
    station.ledger.drop_checkpoint(key)
    return len(missing)


def _untaught(stage: LearningStage) -> HiddenLayerNet:
    network = models.build(stage.model, generator("weights", stage.seed))
    mechanisms.build([stage.mechanism]).install(network)
    return hidden_layered(network, stage.mechanism.name).eval()


def _inputs(network: HiddenLayerNet, split: Split) -> Tensor:
    with torch.no_grad():
        return torch.cat([network.inputs(split.images(rows)) for rows in split.fixed().split(BATCH_SIZE)])


def _look(name: str, seeds: Sequence[int], station: Station) -> Callable[[int], None]:
    words = f"{name}, seed {', '.join(map(str, seeds))}"

    def look(inputs: int) -> None:
        station.progress(words, float(inputs * len(seeds)))
        if station.stopped():
            raise Stopped

    return look


def _hidden(network: nn.Module) -> dict[str, Tensor]:
    return {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in network.state_dict().items()
        if name.startswith("hidden.")
    }


def _packed(networks: Sequence[nn.Module], epoch: int) -> bytes:
    tensors = {f"{index}/{name}": value for index, each in enumerate(networks) for name, value in _hidden(each).items()}
    return save_tensors(tensors | {"epoch": torch.tensor(epoch)})


def _resume(networks: Sequence[nn.Module], content: bytes | None) -> int:
    """Give the networks what a checkpoint has, and return the epochs that are behind it."""
    if content is None:
        return 0
    tensors = load_tensors(content)
    for index, network in enumerate(networks):
        own = {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{index}/")}
        network.load_state_dict(own, strict=False)
    return int(tensors["epoch"])
