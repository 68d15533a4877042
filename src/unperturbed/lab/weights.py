"""Weights: trained stage by stage, recorded, and put into networks again.

Training goes on from the last checkpoint of the same course, which is written every half a minute and where the user
stops it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from unperturbed import mechanisms, models
from unperturbed.attacks import ATTACKS
from unperturbed.data import Split
from unperturbed.data.imagenet_weights import find_weights
from unperturbed.examinations import measured
from unperturbed.lab.courses import Book, Station, Stopped, training_passes
from unperturbed.lab.learning import CHECKPOINT_EVERY, learn_all
from unperturbed.measures.quantities import Measured
from unperturbed.mechanisms.installing import hidden_layered
from unperturbed.models.published import Published, begin_with, read_weights
from unperturbed.records import LearningStage, Spec, SpecError, TrainingStage
from unperturbed.tensors.streams import generator
from unperturbed.training import Codes, State, begin, choose_vectorised, pack, train, unpack


def train_all(lanes: Sequence[dict[int, TrainingStage]], station: Station) -> int:
    """Bring every lane to its last epoch, recording the weights after each; lanes that lack the same train as one."""
    starts = [{start.epoch: start} for lane in lanes if (start := next(iter(lane.values())).start)]
    computed = train_all(starts, station) if starts else 0
    with station.alone([group_key([next(iter(lane.values()))]) for lane in lanes]):
        return computed + _train_missing(lanes, station)


def _train_missing(lanes: Sequence[dict[int, TrainingStage]], station: Station) -> int:
    ledger, machine = station.ledger, station.machine
    computed = 0
    missing = {number: [e for e, stage in lane.items() if not ledger.find(stage)] for number, lane in enumerate(lanes)}
    if not any(missing.values()):
        return computed
    owing = [next(iter(lanes[number].values())) for number, epochs in missing.items() if epochs]
    computed += learn_all([stage.learned for stage in owing if stage.learned is not None], station)
    first = next(iter(lanes[0].values()))
    mechanism = mechanisms.build(first.mechanisms)
    split = station.datasets[first.data.canonical()].train.to(machine.device)
    batches = -(-len(split) // first.recipe.batch_size)
    together = choose_vectorised(models.outline(first.model), machine.device, mechanism)
    if machine.vectorised is not None and mechanism == mechanisms.NOTHING:
        together = machine.vectorised
    groups: dict[object, tuple[list[int], list[dict[int, TrainingStage]]]] = {}
    for number, epochs in missing.items():
        if epochs:  # who trains together does not depend on where a run was killed: a group is recorded as one
            groups.setdefault(tuple(epochs) if together else number, (epochs, []))[1].append(lanes[number])
    for owed, group in groups.values():
        places = [_place(lane[owed[0]], split, station) for lane in group]
        states = _resume([lane[owed[0]] for lane in group], places, batches, ledger)
        watch = _Watch([lane[owed[0]] for lane in group], split, station)
        for epoch in [epoch for epoch in group[0] if epoch * batches >= states[0].step and epoch <= owed[-1]]:
            watch.begin()
            states = train(
                places[0].trained,
                states,
                places[0].examples,
                first.recipe,
                seeds=[lane[epoch].seed for lane in group],
                until=epoch,
                mechanism=mechanism,
                attack=_no_attack if mechanism.frozen else _inner_attack,
                device=machine.device,
                on_step=watch,
            )
            if epoch in owed:
                with ledger.together():
                    for lane, place, state in zip(group, places, states, strict=True):
                        whole = place.whole(state)
                        facts = measured(mechanism.facts(whole), state.seen)
                        _record_weights(lane[epoch], whole, state, facts, station, watch)
                computed += len(group)
        watch.save(states, keep=owed[-1] < first.recipe.epochs)
    return computed


class _Place(NamedTuple):
    """Where gradient descent begins: what it trains, and on what; a frozen hidden layer is no part of either."""

    trained: nn.Module
    examples: Split | Codes
    prefix: str  # of the names of what is trained, within the whole network
    frozen: dict[str, Tensor]  # the weights of the rest

    def whole(self, state: State) -> dict[str, Tensor]:
        """Return the weights of the whole network."""
        return self.frozen | {self.prefix + name: value for name, value in state.weights.items()}


def published(model: Spec, root: Path | None) -> Published | None:
    """Return the published weights that a model names, checked against it; ``None`` if it names none.

    Raises:
        SpecError: the file is missing, damaged, asks for more than tensors, or does not fit.
    """
    name = model.settings.get("weights")
    if not name:
        return None
    found = read_weights(find_weights(str(name), root))
    begin_with(models.outline(model).to_empty(device="cpu"), found)
    return found


def _published(stage: TrainingStage, station: Station) -> Published | None:
    """Return what the network of this stage begins with, which must still be what it was when the run began."""
    if stage.weights_digest is None:
        return None
    found = published(stage.model, station.data_root)
    if found is None or found.digest != stage.weights_digest:
        raise SpecError(
            f"{stage.model.settings['weights']}: expected the file with SHA-256 {stage.weights_digest}, with which "
            "this run began; it was changed since: run again."
        )
    return found


def _place(stage: TrainingStage, split: Split, station: Station) -> _Place:
    mechanism = mechanisms.build(stage.mechanisms)
    network = untrained(stage, _published(stage, station))
    if stage.start is not None:
        network.load_state_dict(load_weights(stage.start, station.ledger))
    elif stage.learned is not None:
        network.load_state_dict(load_weights(stage.learned, station.ledger), strict=False)
    mechanism.settle(network, stage.seed)
    if not mechanism.frozen:
        return _Place(network, split, "", {})
    network = hidden_layered(network.to(station.machine.device), "training").eval()
    codes = Codes(split, network.code)
    frozen = {name: value for name, value in begin(network.cpu()).weights.items() if not name.startswith("readout.")}
    return _Place(network.readout, codes, "readout.", frozen)


def _resume(stages: Sequence[TrainingStage], places: Sequence[_Place], batches: int, ledger: Book) -> list[State]:
    """Return the latest recorded states of networks that train together, not behind ``stages``, or their beginnings."""
    content = ledger.load_checkpoint(group_key(stages))
    if content is not None:
        states = unpack(content)
        if states[0].step <= stages[0].epoch * batches:
            return states
    return [begin(place.trained) for place in places]


def untrained(stage: TrainingStage, first: Published | None = None) -> nn.Module:
    """Return the network before its first step, with its mechanisms in place, and published weights if it has some."""
    network = models.build(stage.model, generator("weights", stage.seed))
    if first is not None:
        begin_with(network, first)
    mechanisms.build(stage.mechanisms).install(network)
    return network


def _inner_attack(name: str, network: nn.Module, images: Tensor, labels: Tensor, seed: int, **settings: Any) -> Tensor:
    return ATTACKS[name](network, images, labels, seed, **settings)


def _no_attack(name: str, *_where: object, **_settings: object) -> Tensor:
    raise SpecError(f"{name} inside training: expected a network that is trained whole, got a frozen hidden layer")


def group_key(stages: Sequence[TrainingStage]) -> str:
    """Return what the stages of one group's training share: all but the epoch."""
    return "+".join(stage.model_copy(update={"epoch": 0}).digest() for stage in stages)


def load_weights(stage: TrainingStage | LearningStage, ledger: Book) -> dict[str, Tensor]:
    """Return the recorded weights and buffers of ``stage``, on the CPU."""
    stored = ledger.find(stage)
    assert stored is not None, "a stage is recorded before its weights are used"
    return load_tensors(ledger.read(stored))


class _Watch:
    """Looks on at every step: reports progress, writes checkpoints, and stops when asked to."""

    def __init__(self, stages: Sequence[TrainingStage], split: Split, station: Station) -> None:
        self.key = group_key(stages)
        self.networks = len(stages)
        self.words = f"training, seed {', '.join(str(stage.seed) for stage in stages)}"
        self.images = len(stages) * min(stages[0].recipe.batch_size, len(split))
        self.each = training_passes(stages[0])
        self.station = station
        self.saved = time.monotonic()
        self.begin()

    def begin(self) -> None:
        """Start counting for the next stage."""
        self.began = time.perf_counter()
        self.steps = 0

    @property
    def seconds(self) -> float:
        """Seconds since the stage began, for each of the networks that train together."""
        return (time.perf_counter() - self.began) / self.networks

    @property
    def passes(self) -> int:
        """Forward passes of one image since the stage began, for each network; backward passes are as many."""
        return self.steps * self.images // self.networks

    def __call__(self, states: Callable[[], list[State]]) -> None:
        self.steps += 1
        self.station.progress(self.words, self.each * self.images)
        if self.station.stopped():
            self.save(states(), keep=True)
            raise Stopped
        if time.monotonic() - self.saved > CHECKPOINT_EVERY:
            self.save(states(), keep=True)

    def save(self, states: Sequence[State], *, keep: bool) -> None:
        """Write the checkpoint, or drop it where training is over."""
        if keep:
            self.station.ledger.save_checkpoint(self.key, pack(states))
        else:
            self.station.ledger.drop_checkpoint(self.key)
        self.saved = time.monotonic()


def _record_weights(
    stage: TrainingStage,
    weights: dict[str, Tensor],
    state: State,
    facts: Sequence[Measured],
    station: Station,
    watch: _Watch,
) -> None:
    station.ledger.record(
        stage,
        save_tensors(weights),
        suffix=".safetensors",
        curves=(),
        measures=[("training_loss", state.loss, "nats", "lower", state.seen), *facts],
        seconds=watch.seconds,
        forwards=watch.passes,
        backwards=watch.passes,
        device=station.machine.device.type,
        versions=station.machine.versions,
    )


def trained(stage: TrainingStage, station: Station) -> nn.Module:
    """Return a network as it was trained, in evaluation mode."""
    return _rebuilt(stage, station).to(station.machine.device).eval()


def deployed(stage: TrainingStage, station: Station) -> nn.Module:
    """Return a trained network as it is deployed, in evaluation mode."""
    network = _rebuilt(stage, station)
    mechanisms.build(stage.mechanisms).finish(network)
    return network.to(station.machine.device).eval()


def _rebuilt(stage: TrainingStage, station: Station) -> nn.Module:
    network = untrained(stage)
    network.load_state_dict(load_weights(stage, station.ledger))
    return network
