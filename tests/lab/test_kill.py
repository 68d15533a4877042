"""A study that is killed at any moment ends, when it is run again, in the same tables."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unperturbed.ledger import Ledger

KILLS = 24


@pytest.fixture
def forks():
    script = Path(__file__).with_name("forks.py")
    process = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    yield process
    process.stdin.close()
    process.wait(timeout=60)
    process.stdout.close()


def begin(forks, folder: Path) -> int:
    """Begin the study in a child of its own; return its process number."""
    forks.stdin.write(f"{folder}\n")
    forks.stdin.flush()
    return int(forks.stdout.readline())


def end(forks) -> int:
    """Wait for the child; return its exit status, -9 where it was killed."""
    return int(forks.stdout.readline())


def tables(folder: Path) -> dict[str, list[tuple]]:
    with Ledger.open(folder, write=False) as ledger:
        number = ledger.latest_run().id
        assert not ledger.verify()
        return {"curves": ledger.curves(number), "measurements": ledger.measurements(number)}


def stages(folder: Path) -> int:
    if not (folder / "ledger.sqlite").exists():
        return 0
    connection = sqlite3.connect(folder / "ledger.sqlite")
    try:
        return connection.execute("SELECT count(*) FROM stages").fetchone()[0]
    finally:
        connection.close()


def test_killed_runs_end_in_the_tables_of_an_undisturbed_one(forks, tmp_path):
    begin(forks, tmp_path / "undisturbed")
    assert end(forks) == 0
    expected = tables(tmp_path / "undisturbed")
    assert len(expected["curves"]) == 2 * (4 * (2 * 4 + 3) + 2 * (4 + 3))
    total = stages(tmp_path / "undisturbed")

    chance = random.Random(0)
    folder, progress = tmp_path / "killed", []
    for kill in range(KILLS):
        child = begin(forks, folder)
        deadline = time.monotonic() + 60
        while stages(folder) < kill * (total - 1) / KILLS and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.06))
        os.kill(child, signal.SIGKILL)
        assert end(forks) == -signal.SIGKILL, "the study was over before it was killed"
        progress.append(stages(folder))
    assert sorted(progress) == progress, "a kill must lose no recorded stage"
    assert len(set(progress)) >= KILLS / 2, "the kills must be spread over the life of the study"
    begin(forks, folder)
    assert end(forks) == 0
    assert tables(folder) == expected
