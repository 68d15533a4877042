"""All trials of a study, with progress and the time left; and what would run, and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from unperturbed import models
from unperturbed.data import Dataset
from unperturbed.lab.courses import (
    Machine,
    Progress,
    Station,
    Stopped,
    courses,
    expected_passes,
    learning_passes,
    load_all,
    training_passes,
    versions,
)
from unperturbed.lab.engines import ENGINES, Job
from unperturbed.lab.weights import published
from unperturbed.ledger import Ledger
from unperturbed.records import (
    AttackStage,
    ExaminationStage,
    LearningStage,
    Record,
    Spec,
    SpecError,
    Study,
    TrainingStage,
    Trial,
)
from unperturbed.tensors.streams import generator
from unperturbed.training import Diverged

MOST_WORKERS = 8  # at once where nothing is said: each holds the data and a network of its own


class Update(NamedTuple):
    """How far a run is: what is being done, and the parts of the expected work done before and now."""

    doing: str
    done: float  # fraction of the work, 0 to 1
    seconds_left: float | None


@dataclass(frozen=True)
class Outcome:
    """What became of the trials of a run."""

    run: int
    computed: int  # trials of which at least one stage was computed
    reused: int  # trials that the ledger held
    failed: dict[str, str]  # architecture/condition -> reason
    seconds: float

    @property
    def total(self) -> int:
        """All trials."""
        return self.computed + self.reused + len(self.failed)


class Plan(NamedTuple):
    """What ``explain`` says of one stage."""

    trial: str
    what: str
    why: str  # "recorded", or the reason why it would be computed


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``; ``auto`` is CUDA where there is one.

    Raises:
        SpecError: not a device, or not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SpecError(f"--device must be auto, cpu or cuda, got {name!r}.") from error
    if device.type not in ("cpu", "cuda"):
        raise SpecError(f"--device must be auto, cpu or cuda, got {name!r}.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SpecError(f"--device {name}: this machine has no CUDA device. Use --device cpu.")
    return device


def choose_workers(workers: int | None, device: torch.device, trials: int) -> int:
    """Return how many of so many trials run at once; where nothing is said, as many as there are threads on a CPU.

    A small network fills no second thread: two trials with one thread each end sooner than one after the other with
    two.

    Raises:
        SpecError: below 1.
    """
    if workers is not None and workers < 1:
        raise SpecError(f"--workers must be at least 1, got {workers}.")
    fitting = MOST_WORKERS if device.type == "cpu" else 1
    return min(workers or min(torch.get_num_threads(), fitting), max(trials, 1))


def load_datasets(
    study: Study, *, root: Path | None = None, accept_inexact: bool = False
) -> tuple[Study, dict[str, Dataset]]:
    """Return the data sets of ``study`` by the canonical text of their spec, and the study with what they remark.

    Published weights that a model names are looked at as well; their digest goes into the trials.
    """
    study = _with_digests(study, root)
    datasets = load_all(study.trials, root=root, accept_inexact=accept_inexact)
    remarks = dict.fromkeys(study.remarks)
    remarks |= dict.fromkeys(remark for dataset in datasets.values() for remark in dataset.remarks)
    classes = {trial.condition: datasets[trial.data.canonical()].classes for trial in study.trials}
    return study.model_copy(update={"remarks": tuple(remarks), "classes": classes}), datasets


def _with_digests(study: Study, root: Path | None) -> Study:
    """Return the study whose trials, and those beside them, know the digest of the weights that they begin with."""
    read = {trial.model.canonical(): trial.model for trial in study.trials}
    digests = {key: found.digest for key, model in read.items() if (found := published(model, root)) is not None}

    def known(trial: Trial) -> Trial:
        digest = digests.get(trial.model.canonical())
        plans = {
            label: plan.model_copy(update={"beside": known(plan.beside)}) if plan.beside else plan
            for label, plan in trial.examinations.items()
        }
        return trial.model_copy(update={"weights_digest": digest, "examinations": plans}) if digest else trial

    return study.model_copy(update={"trials": tuple(known(trial) for trial in study.trials)})


def run(
    study: Study,
    ledger: Ledger,
    *,
    data_root: Path | None = None,
    accept_inexact: bool = False,
    device: torch.device | None = None,
    vectorised: bool | None = None,
    workers: int | None = 1,
    command: str = "",
    on_update: Callable[[Update], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Run every trial of ``study`` that ``ledger`` does not hold, and record the run.

    Args:
        study: resolved for a scale.
        ledger: open for writing.
        data_root: a folder with data files, searched first.
        accept_inexact: take data files that are not the official ones; the study's remarks then say so.
        device: where to compute; ``None`` is CUDA where there is one.
        vectorised: train matched seeds as one program; ``None`` chooses by device and network.
        workers: trials at once, each in a process of its own with its share of the threads; 1: one after another in
            this process; ``None`` chooses by the device, the threads and what is missing.
        command: the command line, for the record.
        on_update: told how far the run is, many times a second.
        stopped: asked often; when it says yes, what is under way is saved and ``Stopped`` raised.

    Raises:
        Stopped: as asked; running again goes on from there.
        SpecError: data that are missing or refused; a full disk; both before anything is lost.
    """
    began = time.monotonic()
    study, datasets = load_datasets(study, root=data_root, accept_inexact=accept_inexact)
    chosen = device or choose_device("auto")
    machine = Machine(chosen, vectorised, versions(chosen))
    number = ledger.begin_run(study, command, machine.versions)
    try:
        clock = _Clock(study.trials, datasets, ledger, on_update)
        counts = {"computed": 0, "reused": 0}
        failed: dict[str, str] = {}
        station = Station(datasets, ledger, number, machine, _unheard, stopped, data_root, accept_inexact)
        owed = [trial for trial in study.trials if any(not ledger.has(stage) for stage in _stages(trial, datasets))]
        at_once = choose_workers(workers, chosen, len(owed))
        engine = "processes" if at_once > 1 else "inline"
        for trial, result in ENGINES[engine](study.trials, Job(station, clock.begin, at_once)):
            if isinstance(result, Diverged):
                failed[f"{trial.architecture}/{trial.condition}"] = str(result)
            else:
                counts["computed" if result else "reused"] += 1
    except BaseException as error:
        stopping = isinstance(error, Stopped | KeyboardInterrupt)
        ledger.finish_run(number, "interrupted" if stopping else "failed", time.monotonic() - began, str(error))
        raise
    seconds = time.monotonic() - began
    ledger.finish_run(number, "finished", seconds, "; ".join(failed.values()) or None)
    return Outcome(number, failed=failed, seconds=seconds, **counts)


def _unheard(_words: str, _passes: float) -> None:
    """Count no work: every trial has a counter of its own."""


def explain(study: Study, ledger: Ledger | None, datasets: Mapping[str, Dataset]) -> list[Plan]:
    """Return for every stage of ``study`` whether it is recorded, or else why it would be computed."""
    plans: list[Plan] = []
    for trial in study.trials:
        name = f"{trial.architecture}/{trial.condition}"
        for stage in _stages(trial, datasets):
            why = ledger.why(stage) if ledger else "new"
            plans.append(Plan(name, _words(stage), why))
    return plans


def _stages(trial: Trial, datasets: Mapping[str, Dataset]) -> Iterable[Record]:
    for lane in courses(trial, datasets):
        first = next(iter(lane.training.values()))
        for beginning in (first, first.start):
            if beginning is not None and beginning.learned is not None:
                yield beginning.learned
        if first.start is not None:
            yield first.start
        yield from lane.training.values()
        yield from (stage for _, stage in (*lane.attacks, *lane.examinations))


def _words(stage: Record) -> str:
    if isinstance(stage, AttackStage):
        return f"{stage.attack.name} on {stage.images} images, seed {stage.weights.seed}, epoch {stage.weights.epoch}"
    if isinstance(stage, ExaminationStage):
        return f"{stage.examination.name}, seed {stage.weights.seed}, epoch {stage.weights.epoch}"
    if isinstance(stage, LearningStage):
        return f"{stage.mechanism.name} on {stage.data.name}, seed {stage.seed}"
    assert isinstance(stage, TrainingStage)
    return f"training on {stage.data.name}, seed {stage.seed}, to epoch {stage.epoch}"


class _Clock:
    """Turns passes of one image into a fraction of the work and the time left.

    A pass through one architecture costs more than through another; each is timed once.
    """

    def __init__(
        self,
        trials: Iterable[Trial],
        datasets: Mapping[str, Dataset],
        ledger: Ledger,
        on_update: Callable[[Update], None],
    ) -> None:
        self.costs: dict[str, float] = {}
        self.total = 0.0
        known: set[str] = set()
        for trial in trials:
            cost = self.costs.setdefault(trial.model.canonical(), _seconds_per_pass(trial.model))
            for lane in courses(trial, datasets):
                stages = [*lane.training.values()]
                if stages[0].start is not None:
                    self._add_course([stages[0].start], datasets, ledger, known, cost)
                self._add_course(stages, datasets, ledger, known, cost)
                for _, stage in (*lane.attacks, *lane.examinations):
                    if not ledger.has(stage):
                        self.total += cost * expected_passes(stage)
        self.on_update = on_update
        self.done = 0.0
        self.began = time.monotonic()

    def _add_course(
        self,
        stages: list[TrainingStage],
        datasets: Mapping[str, Dataset],
        ledger: Ledger,
        known: set[str],
        cost: float,
    ) -> None:
        missing = [stage for stage in stages if stage.digest() not in known and not ledger.has(stage)]
        if missing:
            images = len(datasets[missing[0].data.canonical()].train)
            self.total += cost * training_passes(missing[-1]) * images * missing[-1].epoch
            known.update(stage.digest() for stage in stages)
            learned = missing[0].learned
            if learned is not None and learned.digest() not in known and not ledger.has(learned):
                self.total += cost * learning_passes(learned, images)
                known.add(learned.digest())

    def begin(self, trial: Trial) -> Progress:
        """Say that a trial begins, and return what counts its work."""
        name, cost = f"{trial.architecture}/{trial.condition}", self.costs[trial.model.canonical()]

        def count(words: str, passes: float) -> None:
            self.done += passes * cost
            fraction = min(self.done / self.total, 1.0) if self.total else 1.0
            elapsed = time.monotonic() - self.began
            left = elapsed / fraction * (1 - fraction) if fraction > 0.01 else None
            self.on_update(Update(f"{name}: {words}" if words else name, fraction, left))

        count("", 0.0)
        return count


def _seconds_per_pass(model: Spec) -> float:
    network = models.build(model, generator("timing")).eval()
    images = torch.zeros(8, 3, 32, 32)
    with torch.no_grad():
        network(images)
        began = time.perf_counter()
        network(images)
    return (time.perf_counter() - began) / len(images)
