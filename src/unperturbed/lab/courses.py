"""What a trial consists of: its stages, seed by seed, and what every trial of a run works with."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch

from unperturbed import mechanisms, models
from unperturbed.data import Dataset
from unperturbed.data import load as load_data
from unperturbed.examinations import PASSES
from unperturbed.ledger import Stored
from unperturbed.records import (
    AttackPlan,
    AttackStage,
    ExaminationPlan,
    ExaminationStage,
    LearningStage,
    Record,
    Spec,
    TrainingStage,
    Trial,
)

REVISIONS = {
    "learning": 1,
    "training": 1,
    "attack": 4,
    "examination": 1,
}  # raised when a record would give other numbers than before


class Stopped(Exception):
    """The user asked to stop; everything done is in the ledger."""


class Machine(NamedTuple):
    """Where a trial runs and what it may use."""

    device: torch.device
    vectorised: bool | None  # None: whichever is faster
    versions: dict[str, str]


Progress = Callable[[str, float], None]  # what is being done, and how much of it has just been done (image passes)


class Book(Protocol):
    """What a trial asks of the ledger, whichever process writes it; each of these does what ``Ledger`` says of it."""

    def find(self, stage: Record) -> Stored | None:
        """Return what is recorded."""
        ...

    def read(self, stage: Stored) -> bytes:
        """Return the artefact."""
        ...

    @property
    def record(self) -> Callable[..., object]:
        """Record what a stage returned."""
        ...

    def together(self) -> AbstractContextManager[None]:
        """Record all that comes, or none of it."""
        ...

    def place(
        self, run_id: int, stage_digest: str, architecture: str, condition: str, seed: int, epoch: int, label: str
    ) -> None:
        """Note that the run used a stage."""
        ...

    def save_checkpoint(self, stage_key: str, content: bytes) -> None:
        """Replace a checkpoint."""
        ...

    def load_checkpoint(self, stage_key: str) -> bytes | None:
        """Return a checkpoint."""
        ...

    def drop_checkpoint(self, stage_key: str) -> None:
        """Remove a checkpoint."""
        ...


class Station(NamedTuple):
    """What every trial of a run works with."""

    datasets: Mapping[str, Dataset]  # by the canonical text of their spec
    ledger: Book
    run: int
    machine: Machine
    progress: Progress
    stopped: Callable[[], bool]
    data_root: Path | None = None  # a folder with data files, searched first
    accept_inexact: bool = False  # take data files that are not the official ones
    alone: Callable[[Sequence[str]], AbstractContextManager[object]] = nullcontext  # no other trial computes these


def versions(device: torch.device) -> dict[str, str]:
    """Return what a reader needs to know about the software and the machine."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    packages = ("unperturbed", "torch", "numpy", "scipy")
    return {
        **{name: version(name) for name in packages},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": hardware,
    }


def load_all(
    trials: Sequence[Trial],
    *,
    root: Path | None,
    accept_inexact: bool,
    known: Mapping[str, Dataset] = MappingProxyType({}),
) -> dict[str, Dataset]:
    """Return what the trials are trained and tested on and is not yet known, by the canonical text of its spec."""
    beside = [plan.beside for trial in trials for plan in trial.examinations.values() if plan.beside]
    specs = {spec.canonical(): spec for trial in (*trials, *beside) for spec in (trial.data, trial.pretraining) if spec}
    missing = {key: spec for key, spec in specs.items() if key not in known}
    return {key: load_data(spec, root=root, accept_inexact=accept_inexact) for key, spec in missing.items()}


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
            digest = datasets[data.canonical()].digest
            return TrainingStage(
                revision=REVISIONS["training"],
                model=trial.model,
                mechanisms=trial.mechanisms,
                data=data,
                data_digest=digest,
                recipe=trial.recipe,
                seed=seed,
                epoch=epoch,
                start=start,
                learned=None if start else _learning_stage(trial, data, digest, seed),
                weights_digest=None if start else trial.weights_digest,
            )

        start = stage(trial.pretraining, trial.pretraining_epochs or 0, None) if trial.pretraining else None
        training = {epoch: stage(trial.data, epoch, start) for epoch in trial.epochs}
        attacks = tuple(
            (label, _attack_stage(plan, training[epoch], len(datasets[trial.data.canonical()].test)))
            for epoch in trial.epochs
            for label, plan in trial.attacks.items()
            if (plan.epochs == "all" or epoch == trial.epochs[-1]) and _chosen(plan, seed, trial)
        )
        examinations = tuple(
            (label, _examination_stage(plan, training[trial.epochs[-1]], trial, seed, datasets))
            for label, plan in trial.examinations.items()
            if _chosen(plan, seed, trial)
        )
        found.append(Course(seed, training, attacks, examinations))
    return found


def _learning_stage(trial: Trial, data: Spec, digest: str, seed: int) -> LearningStage | None:
    for spec in trial.mechanisms:
        if mechanisms.build([spec]).learning is not None:
            return LearningStage(
                revision=REVISIONS["learning"],
                model=trial.model,
                mechanism=spec,
                data=data,
                data_digest=digest,
                seed=seed,
            )
    return None


def _chosen(plan: AttackPlan | ExaminationPlan, seed: int, trial: Trial) -> bool:
    return plan.seeds is None or seed in trial.seeds[: plan.seeds]


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


def learning_passes(stage: LearningStage, images: int) -> float:
    """Return about how many passes of one image a rule without labels takes: for progress only."""
    learning = mechanisms.build([stage.mechanism]).learning
    assert learning is not None, "a learning stage names a mechanism that learns"
    return float(images * learning.epochs)


def training_passes(stage: TrainingStage) -> float:
    """Return about how many passes one image takes in an epoch, a backward pass counting as two: for progress only."""
    if not mechanisms.build(stage.mechanisms).frozen:
        return 3.0
    network = models.outline(stage.model)
    return 3.0 * models.count_parameters(network.get_submodule("readout")) / models.count_parameters(network)


def expected_passes(stage: AttackStage | ExaminationStage) -> float:
    """Return about how many passes of one image a stage takes, a backward pass counting as two: for progress only."""
    if isinstance(stage, ExaminationStage):
        return stage.images * float(PASSES.get(stage.examination.name, 10))
    settings = stage.attack.settings
    runs = 1.0
    for name in ("steps", "restarts", "eot", "binary_search_steps"):
        value = settings.get(name, 1)
        runs *= value if isinstance(value, int) else 1
    # At every radius above 0, where about half of the images are left.
    return stage.images * (len(stage.eps) + stage.votes + 3 * runs * max(len(stage.eps) - 1, 1) / 2)
