"""One trial, on one screen: train, then attack, then measure, each stage recorded before the next begins.

A stage that the ledger holds is not computed again. Training goes on from the last checkpoint of the same course, which
is written every half a minute and where the user stops it.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from unperturbed import mechanisms, models
from unperturbed.attacks import ATTACKS, sweep
from unperturbed.data import Dataset, Split
from unperturbed.examinations import EXAMINATIONS, PASSES, Interrupted, Subject
from unperturbed.ledger import Ledger
from unperturbed.measures import measure_evidence
from unperturbed.mechanisms.installing import altered
from unperturbed.records import (
    AttackPlan,
    AttackStage,
    ExaminationPlan,
    ExaminationStage,
    Spec,
    TrainingStage,
    Trial,
)
from unperturbed.tensors.streams import generator, seed_for
from unperturbed.training import State, begin, choose_vectorised, pack, train, unpack

REVISIONS = {"training": 1, "attack": 3, "examination": 1}  # raised when a record would give other numbers than before
BATCH_SIZE = 500  # fixed: another one rounds otherwise, and the same record must give the same numbers
CHECKPOINT_EVERY = 30.0  # seconds
EXAMPLES = 2  # test images whose perturbed versions are kept for the report


class Stopped(Exception):
    """The user asked to stop; everything done is in the ledger."""


class Machine(NamedTuple):
    """Where a trial runs and what it may use."""

    device: torch.device
    vectorised: bool | None  # None: whichever is faster
    versions: dict[str, str]


Progress = Callable[[str, float], None]  # what is being done, and how much of it has just been done (image passes)


class Station(NamedTuple):
    """What every trial of a run works with."""

    datasets: Mapping[str, Dataset]  # by the canonical text of their spec
    ledger: Ledger
    run: int
    machine: Machine
    progress: Progress
    stopped: Callable[[], bool]


@dataclass(frozen=True)
class Course:
    """The stages of a trial at one seed: how its weights come about, and what attacks them."""

    seed: int
    training: dict[int, TrainingStage]  # by epoch
    attacks: tuple[tuple[str, AttackStage], ...]  # label and stage
    examinations: tuple[tuple[str, ExaminationStage], ...] = ()  # of the last network


def courses(trial: Trial, datasets: Mapping[str, Dataset]) -> list[Course]:
    """Return what ``trial`` consists of, seed by seed; ``datasets`` are keyed by the canonical text of their spec."""
    found: list[Course] = []
    for seed in trial.seeds:

        def stage(data: Spec, epoch: int, start: TrainingStage | None, seed: int = seed) -> TrainingStage:
            return TrainingStage(
                revision=REVISIONS["training"],
                model=trial.model,
                mechanisms=trial.mechanisms,
                data=data,
                data_digest=datasets[data.canonical()].digest,
                recipe=trial.recipe,
                seed=seed,
                epoch=epoch,
                start=start,
            )

        start = stage(trial.pretraining, trial.pretraining_epochs or 0, None) if trial.pretraining else None
        training = {epoch: stage(trial.data, epoch, start) for epoch in trial.epochs}
        attacks = tuple(
            (label, _attack_stage(plan, training[epoch], len(datasets[trial.data.canonical()].test)))
            for epoch in trial.epochs
            for label, plan in trial.attacks.items()
            if plan.epochs == "all" or epoch == trial.epochs[-1]
        )
        examinations = tuple(
            (label, _examination_stage(plan, training[trial.epochs[-1]], trial, seed, datasets))
            for label, plan in trial.examinations.items()
        )
        found.append(Course(seed, training, attacks, examinations))
    return found


def _examination_stage(
    plan: ExaminationPlan, weights: TrainingStage, trial: Trial, seed: int, datasets: Mapping[str, Dataset]
) -> ExaminationStage:
    available = len(datasets[trial.data.canonical()].test)
    beside = None
    if plan.beside is not None:
        other = plan.beside.model_copy(update={"seeds": (seed,), "examinations": {}})
        beside = courses(other, datasets)[0].training[other.epochs[-1]]
    return ExaminationStage(
        revision=REVISIONS["examination"],
        examination=plan.examination,
        images=min(plan.images or available, available),
        random=mechanisms.build(trial.mechanisms).traits.random,
        beside=beside,
        weights=weights,
    )


def _attack_stage(plan: AttackPlan, weights: TrainingStage, available: int) -> AttackStage:
    return AttackStage(
        revision=REVISIONS["attack"],
        attack=plan.attack,
        eps=plan.eps,
        grid=plan.grid,
        images=min(plan.images or available, available),
        through=plan.through,
        votes=plan.votes,
        weights=weights,
    )


def run_trial(trial: Trial, station: Station) -> int:
    """Train, attack and measure every seed of ``trial``; return the number of stages that had to be computed.

    Raises:
        Stopped: the station said so; the present state of training is in the ledger.
        Diverged: training left the finite numbers.
    """
    lanes = courses(trial, station.datasets)
    computed = _train_all([lane.training for lane in lanes], station)
    for lane in lanes:
        for epoch, stage in lane.training.items():
            cell = (trial.architecture, trial.condition, lane.seed, epoch)
            station.ledger.place(station.run, stage.digest(), *cell, "training")
        computed += _attack_all(lane, trial, station)
        computed += _examine_all(lane, trial, station)
    return computed


def _train_all(lanes: Sequence[dict[int, TrainingStage]], station: Station) -> int:
    """Bring every lane to its last epoch, recording the weights after each; lanes that lack the same train as one."""
    ledger, machine = station.ledger, station.machine
    computed = 0
    starts = [{start.epoch: start} for lane in lanes if (start := next(iter(lane.values())).start)]
    if starts:
        computed += _train_all(starts, station)
    missing = {number: [e for e, stage in lane.items() if not ledger.find(stage)] for number, lane in enumerate(lanes)}
    if not any(missing.values()):
        return computed
    first = next(iter(lanes[0].values()))
    mechanism = mechanisms.build(first.mechanisms)
    network = _untrained(first)
    split = station.datasets[first.data.canonical()].train.to(machine.device)
    batches = -(-len(split) // first.recipe.batch_size)
    together = choose_vectorised(network, machine.device, mechanism)
    if machine.vectorised is not None and mechanism == mechanisms.NOTHING:
        together = machine.vectorised
    groups: dict[object, tuple[list[int], list[dict[int, TrainingStage]]]] = {}
    for number, epochs in missing.items():
        if epochs:  # who trains together does not depend on where a run was killed: a group is recorded as one
            groups.setdefault(tuple(epochs) if together else number, (epochs, []))[1].append(lanes[number])
    for owed, group in groups.values():
        states = _resume([lane[owed[0]] for lane in group], batches, ledger)
        watch = _Watch([lane[owed[0]] for lane in group], split, station)
        for epoch in [epoch for epoch in group[0] if epoch * batches >= states[0].step and epoch <= owed[-1]]:
            watch.begin()
            states = train(
                network,
                states,
                split,
                first.recipe,
                seeds=[lane[epoch].seed for lane in group],
                until=epoch,
                mechanism=mechanism,
                attack=_inner_attack,
                device=machine.device,
                on_step=watch,
            )
            if epoch in owed:
                with ledger.together():
                    for lane, state in zip(group, states, strict=True):
                        _record_weights(lane[epoch], state, ledger, machine, watch)
                computed += len(group)
        watch.save(states, keep=owed[-1] < first.recipe.epochs)
    return computed


def _resume(stages: Sequence[TrainingStage], batches: int, ledger: Ledger) -> list[State]:
    """Return the latest recorded states of networks that train together, not behind ``stages``, or their beginnings."""
    content = ledger.load_checkpoint(group_key(stages))
    if content is not None:
        states = unpack(content)
        if states[0].step <= stages[0].epoch * batches:
            return states
    states = []
    for stage in stages:
        network = _untrained(stage)
        if stage.start is not None:
            network.load_state_dict(load_weights(stage.start, ledger))
        states.append(begin(network))
    return states


def _untrained(stage: TrainingStage) -> nn.Module:
    """Return the network before its first step, with its mechanisms in place."""
    network = models.build(stage.model, generator("weights", stage.seed))
    mechanisms.build(stage.mechanisms).install(network)
    return network


def _inner_attack(name: str, network: nn.Module, images: Tensor, labels: Tensor, seed: int, **settings: Any) -> Tensor:
    return ATTACKS[name](network, images, labels, seed, **settings)


def group_key(stages: Sequence[TrainingStage]) -> str:
    """Return what the stages of one group's training share: all but the epoch."""
    return "+".join(stage.model_copy(update={"epoch": 0}).digest() for stage in stages)


def load_weights(stage: TrainingStage, ledger: Ledger) -> dict[str, Tensor]:
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
        self.station.progress(self.words, 3.0 * self.images)
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


def _record_weights(stage: TrainingStage, state: State, ledger: Ledger, machine: Machine, watch: _Watch) -> None:
    ledger.record(
        stage,
        save_tensors(state.weights),
        suffix=".safetensors",
        curves=(),
        measures=[("training_loss", state.loss, "nats", "lower", state.seen)],
        seconds=watch.seconds,
        forwards=watch.passes,
        backwards=watch.passes,
        device=machine.device.type,
        versions=machine.versions,
    )


def _attack_all(lane: Course, trial: Trial, station: Station) -> int:
    computed = 0
    dataset = station.datasets[trial.data.canonical()]
    test = dataset.test.to(station.machine.device)
    network: nn.Module | None = None
    loaded: TrainingStage | None = None
    for label, stage in lane.attacks:
        if not station.ledger.find(stage):
            if network is None or loaded != stage.weights:
                network, loaded = _deployed(stage.weights, station), stage.weights
            _attack(stage, network, test, 1 / len(dataset.classes), station)
            station.progress(f"{label}, seed {lane.seed}", expected_passes(stage))
            computed += 1
        cell = (trial.architecture, trial.condition, lane.seed, stage.weights.epoch)
        station.ledger.place(station.run, stage.digest(), *cell, label)
    return computed


def _examine_all(lane: Course, trial: Trial, station: Station) -> int:
    computed = 0
    test = station.datasets[trial.data.canonical()].test.to(station.machine.device)
    network: nn.Module | None = None
    for label, stage in lane.examinations:
        if not station.ledger.find(stage):
            if stage.beside is not None:
                computed += _train_all([{stage.beside.epoch: stage.beside}], station)
            network = _deployed(stage.weights, station) if network is None else network
            _examine(stage, network, test, station)
            station.progress(f"{label}, seed {lane.seed}", expected_passes(stage))
            computed += 1
        cell = (trial.architecture, trial.condition, lane.seed, stage.weights.epoch)
        station.ledger.place(station.run, stage.digest(), *cell, label)
    return computed


def _examine(stage: ExaminationStage, network: nn.Module, test: Split, station: Station) -> None:
    if station.stopped():
        raise Stopped
    began = time.perf_counter()
    device = station.machine.device
    chosen = test.fixed()[: stage.images].to(device)
    name = stage.examination.name
    subject = Subject(
        network=network,
        images=test.images(chosen),
        labels=test.labels(chosen),
        seed=seed_for("examination", name, stage.weights.seed),
        random=stage.random,
        beside=None if stage.beside is None else _deployed(stage.beside, station),
        stopped=station.stopped,
    )
    try:
        found = EXAMINATIONS[name](subject, **cast(dict[str, Any], stage.examination.settings))
    except Interrupted:
        raise Stopped from None
    station.ledger.record(
        stage,
        packed(found.arrays),
        suffix=".npz",
        curves=found.curves,
        measures=found.measures,
        seconds=time.perf_counter() - began,
        forwards=found.forwards,
        backwards=found.backwards,
        device=device.type,
        versions=station.machine.versions,
    )


def _deployed(stage: TrainingStage, station: Station) -> nn.Module:
    """Return a trained network as it is deployed, in evaluation mode."""
    network = _untrained(stage)
    network.load_state_dict(load_weights(stage, station.ledger))
    mechanisms.build(stage.mechanisms).finish(network)
    return network.to(station.machine.device).eval()


def packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return arrays as the content of an ``.npz`` file."""
    content = io.BytesIO()
    np.savez_compressed(content, **cast(dict[str, Any], arrays))
    return content.getvalue()


def _attack(stage: AttackStage, network: nn.Module, test: Split, chance: float, station: Station) -> None:
    def look(_done: int, _total: int) -> None:
        if station.stopped():
            raise Stopped

    began = time.perf_counter()
    device = station.machine.device
    chosen = test.fixed()[: stage.images].to(device)
    evidence = sweep(
        network,
        test.images(chosen),
        test.labels(chosen),
        ATTACKS[stage.attack.name],
        eps=stage.eps,
        seed=seed_for("attack", stage.attack.name, stage.weights.seed),
        batch_size=BATCH_SIZE,
        keep=EXAMPLES,
        votes=stage.votes,
        surrogate=altered(network, stage.through) if stage.through else None,
        progress=look,
        **cast(dict[str, Any], stage.attack.settings),
    )
    station.ledger.record(
        stage,
        packed(evidence.arrays()),
        suffix=".npz",
        curves=[
            (float(eps), float(value), stage.images) for eps, value in zip(stage.eps, evidence.accuracy, strict=True)
        ],
        measures=measure_evidence(evidence, chance=chance, grid=stage.grid),
        seconds=time.perf_counter() - began,
        forwards=evidence.forwards,
        backwards=evidence.backwards,
        device=device.type,
        versions=station.machine.versions,
    )


def expected_passes(stage: AttackStage | ExaminationStage) -> float:
    """Return about how many passes of one image a stage takes, a backward pass counting as two: for progress only."""
    if isinstance(stage, ExaminationStage):
        return stage.images * float(PASSES.get(stage.examination.name, 10))
    steps = stage.attack.settings.get("steps")
    each = len(stage.eps) + 3.0 if not isinstance(steps, int) else 3.0 * steps * len(stage.eps) / 3
    return stage.images * each
