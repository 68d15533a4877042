"""Trials that run at once end in the tables of trials that run one after another, whatever happens to their processes."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from unperturbed import lab
from unperturbed.lab.engines import Job, processes
from unperturbed.lab.runner import choose_workers
from unperturbed.ledger import Ledger
from unperturbed.records import SpecError

TINY = Path(__file__).with_name("tiny.toml")
TWO = ("fully-connected/digits", "fully-connected/objects")
CPU = torch.device("cpu")


def run(study, folder, **options):
    with Ledger.open(folder) as ledger:
        return lab.run(study, ledger, device=CPU, command="test", **options)


def tables(folder):
    """The rows of the two trials that are run here."""
    with Ledger.open(folder, write=False) as ledger:
        number = ledger.latest_run().id
        assert not ledger.verify()
        rows = [*ledger.curves(number), *ledger.measurements(number)]
    return [row for row in rows if f"{row.architecture}/{row.condition}" in TWO]


@pytest.fixture(scope="module")
def two():
    return lab.load(str(TINY), changes=lab.Changes(only=TWO))


def workers():
    return [child for child in multiprocessing.active_children() if child.is_alive()]


@pytest.fixture(autouse=True)
def _nobody_stays():
    yield
    assert not workers()


def test_the_tables_are_those_of_one_after_another_and_a_training_that_diverges_fails_its_trial_only(
    two, finished, tmp_path
):
    first, *_ = two.trials
    reckless = first.recipe.model_copy(update={"learning_rate": 1e20})
    unstable = first.model_copy(update={"condition": "unstable", "recipe": reckless, "attacks": {}})
    study = two.model_copy(update={"trials": (unstable, *two.trials)})
    seen = []
    outcome = run(study, tmp_path, workers=2, on_update=lambda update: seen.append((update.done, len(workers()))))
    assert (outcome.computed, outcome.reused, list(outcome.failed)) == (2, 0, ["fully-connected/unstable"])
    assert "from step 2 on" in outcome.failed["fully-connected/unstable"]
    assert tables(tmp_path) == tables(finished)
    assert max(alive for _, alive in seen) == 2
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_what_is_recorded_needs_no_process(two, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    seen = []
    assert run(two, folder, workers=2, on_update=lambda _: seen.append(len(workers()))).reused == 2
    assert set(seen) == {0}


def test_a_run_that_is_stopped_goes_on_to_the_same_tables(two, finished, tmp_path):
    done = []
    with pytest.raises(lab.Stopped):
        run(two, tmp_path, workers=2, on_update=lambda update: done.append(update.done), stopped=lambda: len(done) > 6)
    with Ledger.open(tmp_path, write=False) as ledger:
        assert ledger.latest_run().status == "interrupted"
    run(two, tmp_path)
    assert tables(tmp_path) == tables(finished)


def test_the_trial_of_a_lost_process_is_run_again(two, finished, tmp_path):
    lost = []

    def lose_one(update):
        if update.done > 0 and not lost:
            lost.append(workers()[0])
            os.kill(lost[0].pid, signal.SIGKILL)

    assert run(two, tmp_path, workers=2, on_update=lose_one).computed == 2
    assert lost[0].exitcode == -signal.SIGKILL
    assert tables(tmp_path) == tables(finished)


def test_a_trial_that_loses_two_processes_ends_the_run(two, tmp_path):
    def lose_all(_):
        for worker in workers():
            os.kill(worker.pid, signal.SIGKILL)

    message = r"^[a-z-]+/[a-z-]+: the process that ran it died 2 times \(exit code -9\), perhaps for lack of memory; "
    with pytest.raises(SpecError, match=message + r"what it recorded is kept\. Run it again with --workers 1\.$"):
        run(two, tmp_path, workers=2, on_update=lose_all)
    with Ledger.open(tmp_path, write=False) as ledger:
        assert ledger.latest_run().status == "failed"


def test_processes_end_when_the_one_that_runs_the_study_is_killed(tmp_path):
    command = [sys.executable, "-c", "from unperturbed.cli import main; main()", "run", str(TINY), "--workers", "2"]
    running = subprocess.Popen([*command, "--ledger", str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert running.stderr is not None
    assert running.stderr.readline()  # the first trial has begun
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    if not children.exists():
        pytest.skip("this system does not list the children of a process")
    started = [int(child) for child in children.read_text().split()]
    running.kill()
    running.wait()
    running.stderr.close()
    assert len(started) >= 2
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() for child in started) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [child for child in started if Path(f"/proc/{child}").exists()]


def test_what_a_process_raises_is_raised(two, tmp_path):
    first, *rest = two.trials
    broken = first.model_copy(update={"data": first.data.model_copy(update={"name": "mnist", "settings": {}})})
    job = SimpleNamespace(run=0, machine=SimpleNamespace(device=CPU, vectorised=None), data_root=tmp_path)
    station = SimpleNamespace(**vars(job), accept_inexact=False, stopped=lambda: False)
    with pytest.raises(SpecError, match="mnist needs the file"):
        list(processes.run([broken, *rest], Job(station, lambda _: lambda *_: None, 1)))


def test_a_process_keeps_the_libraries_below_numpy_to_its_share_of_the_threads(monkeypatch):
    """Or the threads of several wait for each other: a spectrum took 6 seconds instead of a twentieth of one."""
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: SimpleNamespace(is_alive=lambda: True))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    here, there = multiprocessing.Pipe()
    here.close()  # nothing to do
    with threadpool_limits(2):
        processes.work(there, multiprocessing.Event(), processes._Charge(0, "cpu", None, None, False, threads=1))
        assert {library["num_threads"] for library in threadpool_info()} == {1}


def test_two_trials_do_not_compute_one_stage_at_once():
    class Line:
        def __init__(self):
            self.granted = 0

        def send(self, _):
            self.granted += 1

    hall = processes._Hall(deque(), SimpleNamespace(workers=0, station=SimpleNamespace(ledger=None)))
    one, other = (processes._Worker(None, Line()) for _ in range(2))
    hall.workers = [one, other]
    hall._answer(one, "alone", ("a", "b"))
    hall._answer(one, "alone", ("c",))
    hall._answer(other, "alone", ("b", "d"))
    assert (one.line.granted, other.line.granted) == (2, 0)
    hall._answer(one, "leave", ("a", "b"))
    assert (other.held, other.line.granted) == ({"b", "d"}, 1)
    hall._answer(one, "alone", ())
    assert one.line.granted == 3


@pytest.mark.parametrize(
    ("workers", "device", "trials", "expected"),
    [(None, "cpu", 6, 1), (3, "cpu", 6, 3), (3, "cpu", 2, 2), (None, "cuda", 6, 1), (2, "cpu", 0, 1)],
)
def test_how_many_run_at_once(workers, device, trials, expected):
    assert choose_workers(workers, torch.device(device), trials) == expected


def test_as_many_as_there_are_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert choose_workers(None, CPU, 100) == 8


def test_none_at_once_is_refused():
    with pytest.raises(SpecError, match=r"^--workers must be at least 1, got 0\.$"):
        choose_workers(0, CPU, 3)
