"""An example ledger, and processes that write to it and die: ``writer.py MODE FOLDER [NUMBER ...]``."""

import hashlib
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from unperturbed.ledger import Ledger, LedgerError, Stored
from unperturbed.records import AttackStage, Recipe, Spec, Study, TrainingStage

Prepared = TypeVar("Prepared")

EPS = (0.0, 0.1, 0.2, 0.3)
STUDY = Study(
    name="distribution",
    title="Title",
    question="Why?",
    source="A paper",
    scale="smoke",
    seeds=(0, 1),
    architectures={"wide": "Comes first in the report.", "narrow": "Comes second."},
    conditions={"fusion": "Both.", "digits": "One."},
    trials=(),
    claims=(),
)


def weights(number: int, learning_rate: float = 0.01) -> TrainingStage:
    return TrainingStage(
        revision=1,
        model=Spec(name="lenet", settings={"classes": 10}),
        data=Spec(name="digits"),
        data_digest="d" * 64,
        recipe=Recipe(epochs=4, learning_rate=learning_rate),
        seed=number,
        epoch=1,
    )


def attack(number: int) -> AttackStage:
    return AttackStage(revision=1, attack=Spec(name="fgsm"), eps=EPS, images=100, weights=weights(number))


def content(number: int) -> bytes:
    """Some kilobytes that are different for every number, as random as an artefact's."""
    return b"".join(hashlib.sha256(f"{number} {block}".encode()).digest() for block in range(200))


def record(ledger: Ledger, number: int) -> Stored:
    """Record the attack stage of that number, all of it derived from the number."""
    return ledger.record(
        attack(number),
        content(number),
        suffix=".npz",
        curves=[(eps, 1 / (1 + number + eps), 100) for eps in EPS],
        measures=[("R", 1 / 3 + number, "", "higher", 100), ("time", number / 7, "s", "lower", 1)],
        seconds=number / 3,
        forwards=number,
        backwards=2 * number,
        device="cpu",
        versions={"torch": "2.13.0"},
    )


def rows(ledger: Ledger, numbers: list[int]) -> list[object]:
    """Place these stages, recording those that are missing, and return the run's tables."""
    run = ledger.begin_run(STUDY, "unperturbed run distribution", {"python": "3"})
    for number in numbers:
        record(ledger, number)
        ledger.place(run, attack(number).digest(), "narrow", "digits", number, 1, "fgsm")
    ledger.finish_run(run, "finished", 1.5)
    return [ledger.curves(run), ledger.measurements(run), ledger.costs(run)]


# What a killed process may have been about to do to a file or to the database
TOUCHING = {"open", "write", "flush", "fsync", "close", "replace", "mkdir", "unlink", "flock", "connect"}
TOUCHING |= {"execute", "executemany", "executescript", "fetchone", "fetchall", "touch"}


def killed_at(moment: int, prepare: Callable[[], Prepared], action: Callable[[Prepared], object]) -> bool:
    """Prepare, then act, in a process that dies just before the ``moment``-th call of the action that touches the disk.

    Returns:
        Whether it died; otherwise the action has fewer such calls and has succeeded.
    """
    child = os.fork()
    if child == 0:
        prepared = prepare()
        left = moment

        def count(frame: object, event: str, function: object) -> None:
            nonlocal left
            if event == "c_call" and getattr(function, "__name__", "") in TOUCHING:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        action(prepared)
        sys.setprofile(None)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    assert status == 0, f"call {moment}: status {status}"
    return False


def every_moment_of_record(folder: Path) -> None:
    Ledger.open(folder).close()
    report = []
    died = True
    while died:
        number = len(report)
        died = killed_at(number, partial(Ledger.open, folder), partial(record, number=number))
        parts = len(list(folder.rglob("*.part")))
        with Ledger.open(folder, write=False) as reader:
            found = reader.find(attack(number)) is not None
            damaged = len(reader.damaged) + len(reader.verify())
        with Ledger.open(folder) as ledger:
            parts_left = len(list(folder.rglob("*.part")))
            kept = all(ledger.has(attack(earlier["number"])) for earlier in report if earlier["found"])
        report.append(
            {"number": number, "died": died, "found": found, "damaged": damaged, "parts": parts}
            | {"parts_left": parts_left, "kept": kept}
        )
    print(json.dumps(report))


def every_moment_of_creation(folder: Path) -> None:
    report = []
    died = True
    while died:
        one = folder / str(len(report))
        died = killed_at(len(report), partial(Path, one), Ledger.open)
        with Ledger.open(one) as ledger:
            record(ledger, 1)
            report.append({"died": died, "usable": ledger.has(attack(1)) and not list(one.rglob("*.part*"))})
    print(json.dumps(report))


def save_checkpoint(ledger: Ledger, number: int) -> None:
    ledger.save_checkpoint("key", content(number))


def every_moment_of_checkpoint(folder: Path) -> None:
    with Ledger.open(folder) as ledger:
        save_checkpoint(ledger, 0)
    report = []
    died, last = True, 0
    while died:
        new = len(report) + 1
        died = killed_at(len(report), partial(Ledger.open, folder), partial(save_checkpoint, number=new))
        with Ledger.open(folder) as ledger:
            loaded = ledger.load_checkpoint("key")
        report.append({"died": died, "old": loaded == content(last), "new": loaded == content(new)})
        last = new if loaded == content(new) else last
    print(json.dumps(report))


def lives(folder: Path, kills: int, last: int) -> None:
    """Record up to stage ``last`` in processes that are killed at random moments; say what they had promised."""
    moments = random.Random(1)
    promised: set[int] = set()
    signalled = 0
    for life in range(kills):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            with Ledger.open(folder) as ledger:
                for number in range(last):
                    if not ledger.has(attack(number)):
                        record(ledger, number)
                        os.write(writing, number.to_bytes(4))
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            heard = b""
            if life % 4:  # the others die while they open the ledger or soon after
                for _ in range(moments.randrange(1, 12)):
                    heard += pipe.read(4)
            time.sleep(moments.uniform(0.0, 0.004 if life % 4 else 0.02))
            os.kill(child, signal.SIGKILL)
            signalled += os.WIFSIGNALED(os.waitpid(child, 0)[1])
            heard += pipe.readall()
        promised |= {int.from_bytes(heard[place : place + 4]) for place in range(0, len(heard), 4)}
        if (folder / "ledger.sqlite").exists():
            with Ledger.open(folder, write=False) as reader:
                assert reader.verify() == (), reader.verify()
                lost = [number for number in promised if not reader.has(attack(number))]
                assert not lost, lost
    print(json.dumps({"signalled": signalled, "promised": len(promised)}))


def limited(folder: Path, limit: int) -> None:
    """Write while no file may grow over ``limit`` bytes: first too large an artefact, then too long a log."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with Ledger.open(folder) as ledger:
        record(ledger, 0)
        try:
            ledger.record(weights(0), bytes(limit + 1), suffix=".npz", seconds=0, device="cpu", versions={})
        except LedgerError as error:
            print(error, flush=True)
        for number in range(1, 10_000):
            try:
                record(ledger, number)
            except LedgerError as error:
                print(error)
                print(number)
                return


def main(mode: str, folder: Path, *numbers: int) -> None:
    if mode == "record":
        with Ledger.open(folder) as ledger:
            for number in range(*numbers):
                record(ledger, number)
                print(number, flush=True)
    elif mode == "die":
        ledger = Ledger.open(folder)
        for number in range(*numbers):
            record(ledger, number)
        os.kill(os.getpid(), signal.SIGKILL)
    elif mode == "hold":
        with Ledger.open(folder) as ledger:
            ledger.begin_run(STUDY, "unperturbed run distribution", {})
            print("open", flush=True)
            sys.stdin.read()
    else:
        globals()[mode](folder, *numbers)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
