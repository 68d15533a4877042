"""Attacks and examinations of trained networks, each recorded before the next begins."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unperturbed import mechanisms
from unperturbed.attacks import ATTACKS, sweep
from unperturbed.data import Repetitions, Split, recorded_repetitions
from unperturbed.data.files import Places
from unperturbed.data.recorded import RECORDED
from unperturbed.examinations import BATCH_SIZE, EXAMINATIONS, Interrupted, Subject
from unperturbed.lab.courses import Course, Station, Stopped, expected_passes
from unperturbed.lab.weights import deployed, train_all, trained
from unperturbed.measures import measure_evidence
from unperturbed.mechanisms.installing import altered
from unperturbed.records import (
    AttackStage,
    ExaminationStage,
    SpecError,
    TrainingStage,
    Trial,
)
from unperturbed.tensors.streams import seed_for

EXAMPLES = 2  # test images whose perturbed versions are kept for the report


def attack_all(lane: Course, trial: Trial, station: Station) -> int:
    """Run the attacks that the ledger does not hold, and place all of them; return how many were run."""
    computed = 0
    dataset = station.datasets[trial.data.canonical()]
    test = dataset.test.to(station.machine.device)
    network: nn.Module | None = None
    loaded: TrainingStage | None = None
    for label, stage in lane.attacks:
        if not station.ledger.find(stage):
            if network is None or loaded != stage.weights:
                network, loaded = deployed(stage.weights, station), stage.weights
            _attack(stage, network, test, 1 / len(dataset.classes), station)
            station.progress(f"{label}, seed {lane.seed}", expected_passes(stage))
            computed += 1
        cell = (trial.architecture, trial.condition, lane.seed, stage.weights.epoch)
        station.ledger.place(station.run, stage.digest(), *cell, label)
    return computed


def examine_all(lane: Course, trial: Trial, station: Station) -> int:
    """Do the same for examinations; a network that one needs beside the examined one is trained if it has to be."""
    computed = 0
    test = station.datasets[trial.data.canonical()].test.to(station.machine.device)
    network: nn.Module | None = None
    for label, stage in lane.examinations:
        if not station.ledger.find(stage):
            if stage.beside is not None:
                computed += train_all([{stage.beside.epoch: stage.beside}], station)
            network = deployed(stage.weights, station) if network is None else network
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
        beside=None if stage.beside is None else partial(deployed, stage.beside, station),
        stopped=station.stopped,
        trained=partial(trained, stage.weights, station),
        recorded=_recorded(stage.weights, station),
        places=Places(station.data_root, station.accept_inexact),
        found_beside=None if stage.beside is None else partial(_found_beside, stage, test, station),
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


def _recorded(weights: TrainingStage, station: Station) -> Callable[[], Repetitions] | None:
    """Return a function that loads the recordings, which are the same whatever the network was trained to predict."""
    if weights.data.name not in RECORDED:
        return None
    found = station.data_root, station.accept_inexact
    return lambda: recorded_repetitions(weights.data, seed=weights.seed, root=found[0], accept_inexact=found[1])


def _found_beside(stage: ExaminationStage, test: Split, station: Station) -> dict[str, NDArray[Any]]:
    """Return the arrays that the same examination found of the network beside, alone: a stage of its own, done once."""
    assert stage.beside is not None, "there is a network beside"
    own = station.datasets[stage.beside.data.canonical()].test.to(station.machine.device)
    rows = test.fixed()[: stage.images], own.fixed()[: stage.images]
    if not torch.equal(test.images(rows[0]), own.images(rows[1])):
        raise SpecError(
            f"{stage.examination.name}: expected a network beside with the same test images, got one trained on other "
            f"data, {stage.beside.data.canonical()}"
        )
    random = mechanisms.build(stage.beside.mechanisms).traits.random
    alone = stage.model_copy(update={"weights": stage.beside, "beside": None, "random": random})
    with station.alone([alone.digest()]):
        if not station.ledger.find(alone):
            _examine(alone, deployed(stage.beside, station), own, station)
    stored = station.ledger.find(alone)
    assert stored is not None, "it has just been recorded"
    return dict(np.load(io.BytesIO(station.ledger.read(stored))))


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
