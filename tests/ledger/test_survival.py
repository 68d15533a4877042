"""Whatever moment a writer dies at, what it had recorded is whole."""

import json
import os
from pathlib import Path

import pytest

from unperturbed.ledger import Ledger


def test_killed_before_every_call_of_record_that_touches_the_disk(finish, tmp_path):
    report = json.loads(finish("every_moment_of_record", tmp_path))
    assert len(report) > 15
    assert all(one["damaged"] == 0 for one in report), "recorded without its artefact"
    assert all(one["kept"] for one in report), "an earlier stage was lost"
    assert all(one["parts_left"] == 0 for one in report), "half a file was left after the next opening"
    found = [one["found"] for one in report]
    assert found == sorted(found), "recorded from one moment on"
    assert not found[0]
    assert found[-1]
    assert not report[-1]["died"]
    assert any(one["parts"] for one in report), "no death while an artefact was being written"


def test_killed_before_every_call_of_creation(finish, tmp_path):
    report = json.loads(finish("every_moment_of_creation", tmp_path))
    assert len(report) > 15
    assert all(one["usable"] for one in report)


def test_killed_before_every_call_of_a_checkpoint(finish, tmp_path):
    report = json.loads(finish("every_moment_of_checkpoint", tmp_path))
    assert len(report) > 8
    assert all(one["old"] or one["new"] for one in report), "the checkpoint before was lost"
    assert report[0]["old"]
    assert report[-1]["new"]


def test_killed_at_random_moments_ends_in_the_tables_of_an_undisturbed_ledger(writer, finish, tmp_path):
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    report = json.loads(finish("lives", killed, 24, 300))
    assert report["signalled"] >= 20
    assert 50 < report["promised"] < 300
    numbers = list(range(300))
    with Ledger.open(killed) as ledger, Ledger.open(undisturbed) as other:
        assert writer.rows(ledger, numbers) == writer.rows(other, numbers)
        assert ledger.verify() == ()


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_interrupted_from_the_keyboard_nothing_is_left(writer, tmp_path, monkeypatch, moment):
    def interrupt(*_):
        raise KeyboardInterrupt

    with Ledger.open(tmp_path) as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(f"os.{moment}", interrupt)
            with pytest.raises(KeyboardInterrupt):
                writer.record(ledger, 1)
        assert list(tmp_path.glob("artefacts/*/*")) == []
        assert ledger.find(writer.attack(1)) is None
        assert ledger.read(writer.record(ledger, 1)) == writer.content(1)


def test_a_reader_beside_a_writer_sees_whole_stages_only(writer, start, tmp_path):
    Ledger.open(tmp_path).close()
    with Ledger.open(tmp_path, write=False) as reader:
        process = start("record", tmp_path, 0, 120)
        seen = 0
        for line in process.stdout:
            assert reader.read(reader.find(writer.attack(int(line)))) == writer.content(int(line))
            seen += 1
            if seen % 10 == 0:
                assert reader.verify() == ()
        assert seen == 120
        assert process.wait(timeout=10) == 0


def test_an_artefact_is_flushed_before_it_gets_its_name_and_its_row(writer, tmp_path, monkeypatch):
    order = []
    flush, replace = os.fsync, os.replace

    def watched_flush(descriptor):
        order.append(f"flush {Path(f'/proc/self/fd/{descriptor}').readlink().relative_to(tmp_path)}")
        flush(descriptor)

    def watched_replace(source, target):
        order.append(f"name {Path(target).relative_to(tmp_path)}")
        replace(source, target)

    with Ledger.open(tmp_path) as ledger:
        ledger._connection.set_trace_callback(lambda query: order.append(query.split(" (")[0]))
        monkeypatch.setattr("os.fsync", watched_flush)
        monkeypatch.setattr("os.replace", watched_replace)
        artefact = writer.record(ledger, 1).artefact
    folder = f"artefacts/{artefact[:2]}"
    first = order.index("flush artefacts")  # the new folder's own name
    assert order[first : first + 6] == [
        "flush artefacts",
        f"flush {folder}/{artefact}.npz.part",
        f"name {folder}/{artefact}.npz",
        f"flush {folder}",
        "PRAGMA synchronous = FULL",
        "BEGIN IMMEDIATE",
    ]
    assert order[first + 6].startswith("INSERT INTO stages")
    assert order[-2] == "COMMIT"
