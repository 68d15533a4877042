"""The command line from outside: what it prints, how it exits, what a user's mistake looks like."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from unperturbed import cli
from unperturbed.cli import terminal
from unperturbed.ledger import Ledger

TINY = Path(__file__).with_name("lab") / "tiny.toml"
COMMAND = [sys.executable, "-c", "from unperturbed.cli import main; main()"]


@pytest.fixture
def unperturbed(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["unperturbed", *map(str, words)])
        monkeypatch.setattr(terminal, "out", Console(highlight=False, width=100))
        monkeypatch.setattr(terminal, "err", Console(stderr=True, highlight=False, width=100))
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        return caught.value.code or 0, printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ledger")
    subprocess.run([*COMMAND, "run", TINY, "--ledger", folder], check=True, capture_output=True)
    return folder


def test_run_prints_one_json_object_with_the_promised_keys(unperturbed, ledger):
    code, out, err = unperturbed("run", TINY, "--ledger", ledger, "--json")
    assert code == 0
    assert err == ""
    found = json.loads(out)
    assert list(found) == ["study", "scale", "trials", "claims", "report", "seconds"]
    assert found["trials"] == {"total": 6, "computed": 0, "reused": 6, "failed": 0}
    assert (found["study"], found["scale"]) == ("tiny", "laptop")
    (claim,) = found["claims"]
    assert list(claim) == ["id", "says", "verdict", "effect", "interval", "p", "p_adjusted", "n", "published", "margin"]
    assert claim["n"] == 2
    assert claim["verdict"] in ("supported", "contradicted", "undecided")
    assert Path(found["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")


def test_run_prints_claims_and_names_the_report(unperturbed, ledger):
    code, out, _ = unperturbed("run", TINY, "--ledger", ledger)
    assert code == 0
    assert "digits are more robust than objects" in out
    assert "6 trials: 0 computed, 6 reused, 0 failed" in out
    assert f"Report: {ledger / 'reports' / 'tiny-laptop' / 'report.html'}" in out
    assert max(len(line) for line in out.splitlines() if "Report:" not in line) <= 100


def test_report_is_rebuilt_from_the_ledger_alone(unperturbed, ledger, tmp_path):
    code, _out, _ = unperturbed("report", "tiny", "--ledger", ledger, "--out", tmp_path)
    assert code == 0
    assert (tmp_path / "report.html").is_file()
    assert sorted(path.suffix for path in (tmp_path / "figures").glob("*robustness*"))
    code, _, err = unperturbed("report", "other", "--ledger", ledger)
    assert (code, err.strip()) == (2, f"unperturbed: {ledger} holds no run of 'other'. It has runs of: tiny.")


def test_explain_counts_what_is_recorded(unperturbed, ledger, tmp_path):
    code, out, _ = unperturbed("explain", TINY, "--ledger", ledger, "--json")
    assert code == 0
    assert {row["why"] for row in json.loads(out)} == {"recorded"}
    code, out, _ = unperturbed("explain", TINY, "--ledger", tmp_path / "none")
    assert code == 0
    assert "training on digits, seed 0, to epoch 1: new" in " ".join(out.split())
    assert not (tmp_path / "none").exists()


def test_studies_lists_the_study_and_its_scales(unperturbed):
    code, out, _ = unperturbed("studies")
    assert code == 0
    assert "distribution-and-task" in out
    assert all(f"--scale {scale}" in out for scale in ("smoke", "laptop", "paper"))


def test_new_copies_a_study_that_runs_and_overwrites_nothing(unperturbed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = unperturbed("new", "mine")
    assert (code, out.strip()) == (0, "Wrote mine.toml. Edit it, then: unperturbed run mine.toml")
    assert unperturbed("explain", "mine.toml", "--scale", "smoke", "--only", "digits")[0] == 0
    code, _, err = unperturbed("new", "mine")
    assert (code, err.strip()) == (2, "unperturbed: mine.toml exists already. Choose another name.")


def test_a_setting_is_read_as_in_a_study_file(unperturbed, tmp_path):
    words = ("explain", "local-learning", "--ledger", tmp_path / "none", "--only", "local")
    assert unperturbed(*words, "--set", "epochs=200")[0] == 0
    code, _, err = unperturbed(*words, "--set", "epochs=many")
    assert (code, err.strip()) == (2, "unperturbed: krotov-hopfield: epochs must be int, got 'many'.")
    code, _, err = unperturbed(*words, "--set", "epochs")
    assert (code, err.strip()) == (
        2,
        "unperturbed: --set: expected NAME=VALUE, for example images=cifar10; got 'epochs'",
    )


def test_data_list_names_every_set(unperturbed):
    code, out, _ = unperturbed("data", "list", "--json")
    assert code == 0
    images = ["digits", "photographs", "mnist", "cifar10", "fusion"]
    recordings, weights = ["things-eeg2", "eeg-faces-houses", "images92"], ["imagenet-weights"]
    assert [row["name"] for row in json.loads(out)] == [*images, *recordings, *weights]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("run", "distribution-and-tusk"),
            "There is no study 'distribution-and-tusk'. There are: defences, distribution-and-task, eeg-cotraining, local-learning. Did you mean 'distribution-and-task'?",
        ),
        (("run", "distribution-and-task", "--seeds", "0"), "distribution-and-task: seeds must be at least 1, got 0."),
        (
            ("run", "distribution-and-task", "--digits", "mnits"),
            "There is no data set 'mnits'. There are: digits, photographs, mnist, cifar10, fusion, simulated-eeg, things-eeg2, faces-houses-eeg. Did you mean 'mnist'?",
        ),
        (
            ("run", "distribution-and-task", "--only", "digit"),
            "--only: there is no condition 'digit'. There are: digits, objects,",
        ),
        (("run", "distribution-and-task", "--device", "tpu"), "--device must be auto, cpu or cuda, got 'tpu'."),
        (("data", "verify", "imagenet"), "There is no data set 'imagenet'."),
    ],
)
def test_bad_words_are_one_line_and_exit_code_2(unperturbed, tmp_path, words, message):
    more = ("--ledger", tmp_path / "ledger") if words[0] == "run" else ()
    code, out, err = unperturbed(*words, *more)
    assert (code, out) == (2, "")
    assert err.startswith(f"unperturbed: {message}")
    assert err.count("\n") == 1
    assert not (tmp_path / "ledger").exists()


def test_missing_and_altered_data_files_are_named(unperturbed, tmp_path):
    words = (
        "run",
        "distribution-and-task",
        "--digits",
        "mnist",
        "--only",
        "lenet/digits",
        "--ledger",
        tmp_path / "ledger",
    )
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    code, _, err = unperturbed(*words, "--data-root", tmp_path / "data")
    assert code == 2
    assert "unperturbed data fetch mnist" in err
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / "data" / "mnist" / f"{name}-ubyte").write_bytes(b"\0\0\x08\x03 not the digits")
    code, _, err = unperturbed(*words, "--data-root", tmp_path / "data")
    assert code == 2
    assert "train-images-idx3-ubyte" in err
    assert err.count("\n") == 1


def test_a_ledger_from_the_future_is_refused_and_left_alone(unperturbed, ledger, tmp_path):
    import sqlite3

    folder = shutil.copytree(ledger, tmp_path / "future")
    connection = sqlite3.connect(folder / "ledger.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = (folder / "ledger.sqlite").read_bytes()
    code, _, err = unperturbed("run", TINY, "--ledger", folder)
    assert code == 2
    assert "schema version 99" in err
    assert (folder / "ledger.sqlite").read_bytes() == before


def test_a_second_run_on_the_same_ledger_is_refused(ledger, tmp_path):
    folder = shutil.copytree(ledger, tmp_path / "busy")
    with Ledger.open(folder):
        second = subprocess.run(
            [*COMMAND, "run", TINY, "--ledger", folder], capture_output=True, text=True, check=False
        )
    assert second.returncode == 2
    assert second.stderr.startswith(f"unperturbed: ledger {folder}: process {os.getpid()}")
    assert second.stderr.count("\n") == 1


def test_control_c_finishes_cleanly_and_the_same_command_goes_on(tmp_path):
    words = [*COMMAND, "run", TINY, "--ledger", tmp_path, "--json", "--seeds", "4"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("artefacts/*/*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "The same command goes on from here." in err
    again = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["trials"]["total"] == 6


def test_the_first_study_runs_at_smoke_scale_and_reports_every_claim(tmp_path):
    done = subprocess.run(
        [*COMMAND, "run", "distribution-and-task", "--scale", "smoke", "--ledger", tmp_path, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert [claim["id"] for claim in found["claims"]][:13] == [f"K{number}" for number in range(1, 14)]
    assert found["trials"]["failed"] == 0
    published = found["claims"][0]["published"]
    assert published["left"]["mean"] in (0.520547, 0.312896)  # LeNet or fully connected: the weaker contrast decides
    assert published["right"]["mean"] in (0.097237, 0.034145)
