"""Several trials at once, each in a process of its own with its share of the threads; one process writes the ledger.

A worker computes, and asks the process that runs the study for whatever the ledger holds or shall hold, so that there
is one writer, as ever. A worker that is lost (killed, out of memory) has its trial run again by another, once.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch
from threadpoolctl import threadpool_limits

from unperturbed.data import Dataset
from unperturbed.lab.courses import Machine, Progress, Station, Stopped, load_all, versions
from unperturbed.lab.engines.job import Job
from unperturbed.lab.pipeline import attempt
from unperturbed.ledger import Stored
from unperturbed.records import Record, SpecError, Trial
from unperturbed.training import Diverged

LISTENING = 0.1  # seconds that the process waits for its workers before it looks whether it shall stop
TELLING = 0.1  # seconds between two reports of a worker's progress
TRIES = 2  # workers that may be lost over one trial


def run(trials: Sequence[Trial], job: Job) -> Iterator[tuple[Trial, int | Diverged]]:
    """Yield each trial with the stages that were computed or how it diverged, in the order in which they end.

    Raises:
        Stopped: the station said so, and every worker has saved what it was doing.
        SpecError: what a worker raised; or one trial lost its worker twice.
    """
    hall = _Hall(deque(trials), job)
    try:
        yield from hall.results()
    finally:
        hall.close()


class _Charge(NamedTuple):
    """What a worker needs besides its trials; it loads their data itself."""

    run: int
    device: str
    vectorised: bool | None
    data_root: Path | None
    accept_inexact: bool
    threads: int


@dataclass
class _Worker:
    """A process, the line to it, and what it is doing."""

    process: BaseProcess
    line: Connection
    trial: Trial | None = None
    progress: Progress = lambda _words, _passes: None
    held: set[str] = field(default_factory=set[str])  # stages that nobody else may compute now
    asked: tuple[str, ...] | None = None  # those that it waits for


class _Hall:
    """The workers, the trials that wait, and who computes what."""

    def __init__(self, waiting: deque[Trial], job: Job) -> None:
        self.waiting, self.job = waiting, job
        self.context = multiprocessing.get_context("spawn")  # a fork would inherit threads that do not exist in it
        self.stop = self.context.Event()
        self.lost: dict[str, int] = {}
        self.stopping = False
        self.workers: list[_Worker] = []
        self.size = min(job.workers, len(waiting))

    def results(self) -> Iterator[tuple[Trial, int | Diverged]]:
        for _ in range(self.size):
            self._engage()
        while any(worker.trial for worker in self.workers):
            if not self.stopping and self.job.station.stopped():
                self.stopping = True
                self.stop.set()
            lines = {worker.line: worker for worker in self.workers}
            for line in wait(list(lines), timeout=LISTENING):
                worker = lines[line]  # pyright: ignore[reportArgumentType] - only connections were given
                try:
                    request, given = worker.line.recv()
                except (EOFError, OSError):
                    self._replace(worker)
                    continue
                if request == "ended":
                    trial, worker.trial = worker.trial, None
                    assert trial is not None, "a worker ends what it was given"
                    self._release(worker, tuple(worker.held))
                    if isinstance(given, Stopped):
                        self.stopping = True
                    elif isinstance(given, BaseException) and not isinstance(given, Diverged):
                        raise given
                    else:
                        yield trial, given
                    if not self.stopping:
                        self._employ(worker)
                else:
                    self._answer(worker, request, given)
        if self.stopping:
            raise Stopped

    def _engage(self) -> None:
        station = self.job.station
        charge = _Charge(
            station.run,
            str(station.machine.device),
            station.machine.vectorised,
            station.data_root,
            station.accept_inexact,
            max(torch.get_num_threads() // self.size, 1),
        )
        here, there = self.context.Pipe()
        process = self.context.Process(target=work, args=(there, self.stop, charge), daemon=True)
        process.start()
        there.close()  # so that the line breaks when the worker dies
        worker = _Worker(process, here)
        self.workers.append(worker)
        self._employ(worker)

    def _employ(self, worker: _Worker) -> None:
        if self.waiting:
            worker.trial = self.waiting.popleft()
            worker.progress = self.job.begin(worker.trial)
            with suppress(OSError):  # a lost worker is found when its line is read
                worker.line.send(worker.trial)

    def _replace(self, worker: _Worker) -> None:
        """Give the trial of a lost worker to another, or give up."""
        self.workers.remove(worker)
        self._release(worker, tuple(worker.held))
        worker.process.join(timeout=10)
        if worker.trial is None:
            return
        name = f"{worker.trial.architecture}/{worker.trial.condition}"
        self.lost[name] = self.lost.get(name, 0) + 1
        if self.lost[name] >= TRIES:
            raise SpecError(
                f"{name}: the process that ran it died {TRIES} times (exit code {worker.process.exitcode}), perhaps "
                "for lack of memory; what it recorded is kept. Run it again with --workers 1."
            )
        if not self.stopping:
            self.waiting.appendleft(worker.trial)
            self._engage()

    def _answer(self, worker: _Worker, request: str, given: Any) -> None:
        ledger = self.job.station.ledger
        if request == "progress":
            worker.progress(*given)
            return
        if request == "alone":
            worker.asked = given
            self._grant()
            return
        if request == "leave":
            self._release(worker, given)
            return
        if request == "record":
            with ledger.together() if len(given) > 1 else nullcontext():
                for stage, content, facts in given:
                    ledger.record(stage, content, **facts)
            answer = None
        else:
            answer = getattr(ledger, request)(*given)
        with suppress(OSError):
            worker.line.send(answer)

    def _release(self, worker: _Worker, keys: tuple[str, ...]) -> None:
        worker.held -= set(keys)
        self._grant()

    def _grant(self) -> None:
        """Let every worker go on that waits for stages which nobody else computes."""
        for worker in self.workers:
            others = set[str]().union(*(other.held for other in self.workers if other is not worker))
            if worker.asked is not None and others.isdisjoint(worker.asked):
                worker.held |= set(worker.asked)
                worker.asked = None
                with suppress(OSError):
                    worker.line.send(None)

    def close(self) -> None:
        """End every worker; what it had recorded stays."""
        for worker in self.workers:
            worker.line.close()
            if worker.trial is not None:
                worker.process.terminate()
        for worker in self.workers:
            worker.process.join()


class _Line:
    """The ledger as a worker sees it: at the other end of a line."""

    def __init__(self, line: Connection) -> None:
        self._line = line
        self._batch: list[tuple[Record, bytes, dict[str, Any]]] | None = None

    def ask(self, request: str, given: Any) -> Any:
        self._line.send((request, given))
        return self._line.recv()

    def tell(self, request: str, given: Any) -> None:
        self._line.send((request, given))

    def find(self, stage: Record) -> Stored | None:
        return self.ask("find", (stage,))

    def read(self, stage: Stored) -> bytes:
        return self.ask("read", (stage,))

    def record(self, stage: Record, content: bytes, **facts: Any) -> None:
        lists = {name: list(facts[name]) for name in ("curves", "measures") if name in facts}
        entry = (stage, content, facts | lists)
        if self._batch is None:
            self.ask("record", [entry])
        else:
            self._batch.append(entry)

    @contextmanager
    def together(self) -> Generator[None]:
        self._batch = []
        try:
            yield
            if self._batch:
                self.ask("record", self._batch)
        finally:
            self._batch = None

    @contextmanager
    def alone(self, keys: Sequence[str]) -> Generator[None]:
        self.ask("alone", tuple(keys))
        try:
            yield
        finally:
            self.tell("leave", tuple(keys))

    def place(
        self, run_id: int, stage_digest: str, architecture: str, condition: str, seed: int, epoch: int, label: str
    ) -> None:
        self.ask("place", (run_id, stage_digest, architecture, condition, seed, epoch, label))

    def save_checkpoint(self, stage_key: str, content: bytes) -> None:
        self.ask("save_checkpoint", (stage_key, content))

    def load_checkpoint(self, stage_key: str) -> bytes | None:
        return self.ask("load_checkpoint", (stage_key,))

    def drop_checkpoint(self, stage_key: str) -> None:
        self.ask("drop_checkpoint", (stage_key,))


def work(line: Connection, stop: Any, charge: _Charge) -> None:
    """Run the trials that come over ``line`` until it is closed; what a worker process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the one that runs the study decides
    torch.set_num_threads(charge.threads)
    threadpool_limits(charge.threads)  # NumPy's too: several workers that wait for each other's threads stand still
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker is started by the process that runs the study"
    book, device = _Line(line), torch.device(charge.device)
    station = Station(
        datasets={},
        ledger=book,
        run=charge.run,
        machine=Machine(device, charge.vectorised, versions(device)),
        progress=_reporter(book.tell),
        stopped=lambda: stop.is_set() or not parent.is_alive(),
        data_root=charge.data_root,
        accept_inexact=charge.accept_inexact,
        alone=book.alone,
    )
    loaded: dict[str, Dataset] = {}
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the line is closed: nothing more to do
        while True:
            trial: Trial = line.recv()
            try:
                loaded |= load_all([trial], root=charge.data_root, accept_inexact=charge.accept_inexact, known=loaded)
                result: object = attempt(trial, station._replace(datasets=loaded))
            except (EOFError, BrokenPipeError, ConnectionResetError):
                raise
            except Exception as error:
                error.add_note(traceback.format_exc())  # which does not travel by itself
                result = error
            book.tell("ended", result)


def _reporter(tell: Callable[[str, Any], None]) -> Progress:
    """Return a function that tells of the work done, several steps at once."""
    told = time.monotonic()
    owed = 0.0

    def report(words: str, passes: float) -> None:
        nonlocal told, owed
        owed += passes
        if time.monotonic() - told >= TELLING:
            tell("progress", (words, owed))
            told, owed = time.monotonic(), 0.0

    return report
