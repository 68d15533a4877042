"""A damaged artefact is found and never used."""

import os
import re

import pytest

from unperturbed.ledger import Ledger, LedgerError


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))


def truncate(path):
    os.truncate(path, path.stat().st_size - 1)


def delete(path):
    path.unlink()


DAMAGES = [(flip, "artefact damaged"), (truncate, "artefact damaged"), (delete, "artefact missing")]


@pytest.mark.parametrize(("harm", "reason"), DAMAGES)
@pytest.mark.parametrize("reopen", [True, False])
def test_it_is_found_reported_and_computed_again(writer, tmp_path, harm, reason, reopen):
    ledger = Ledger.open(tmp_path)
    kept, harmed = writer.record(ledger, 1), writer.record(ledger, 2)
    assert ledger.has(writer.attack(2))
    run = ledger.begin_run(writer.STUDY, "", {})
    ledger.place(run, harmed.stage, "wide", "fusion", 2, 1, "fgsm")
    before = ledger.curves(run)
    path = ledger.path(harmed)
    harm(path)
    if reopen:
        ledger.close()
        ledger = Ledger.open(tmp_path)
    with ledger:
        assert [(one.stage, one.reason, one.path) for one in ledger.verify()] == [(harmed.stage, reason, path)]
        assert ledger.damaged == ()
        assert ledger.find(writer.attack(2)) is None
        assert [str(one) for one in ledger.damaged] == [f"{reason}: {path} (attack stage {harmed.stage[:12]})"]
        assert ledger.why(writer.attack(2)) == reason
        assert ledger.find(writer.attack(1)) == kept
        assert ledger.curves(run) == [], "numbers of a damaged stage must not be reported"
        assert ledger.verify() == ()
        assert not path.exists()
        again = writer.record(ledger, 2)
        assert ledger.read(again) == writer.content(2)
        assert ledger.curves(run) == before
        assert len(before) == 4
        assert ledger.why(writer.attack(2)) == "recorded"


@pytest.mark.parametrize(("harm", "reason"), DAMAGES)
def test_a_reader_ignores_it_and_changes_nothing(writer, tmp_path, harm, reason):
    with Ledger.open(tmp_path) as ledger:
        path = ledger.path(writer.record(ledger, 2))
    harm(path)
    there = path.exists()
    with Ledger.open(tmp_path, write=False) as ledger:
        for _ in range(2):
            assert ledger.find(writer.attack(2)) is None
        assert [one.reason for one in ledger.damaged] == [reason]
        assert ledger.why(writer.attack(2)) == reason
        assert len(ledger.verify()) == 1
    assert path.exists() == there


@pytest.mark.parametrize(("harm", "reason"), DAMAGES)
def test_reading_checks_again(writer, tmp_path, harm, reason):
    with Ledger.open(tmp_path) as ledger:
        stored = writer.record(ledger, 2)
        assert ledger.find(writer.attack(2)) == stored
        path = ledger.path(stored)
        state = path.stat()
        harm(path)
        if path.exists():  # what find remembers cannot see this
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        message = f"ledger {tmp_path}: {reason}: {path} (attack stage {stored.stage[:12]}). Run the study again"
        with pytest.raises(LedgerError, match=re.escape(message)):
            ledger.read(stored)
        assert ledger.find(writer.attack(2)) is None


def test_damage_to_a_shared_artefact_is_damage_to_all(writer, tmp_path):
    with Ledger.open(tmp_path) as ledger:
        for seed in (1, 2):
            ledger.record(writer.weights(seed), b"same", suffix=".npz", seconds=0, device="cpu", versions={})
        flip(ledger.path(ledger.find(writer.weights(1))))
        assert ledger.find(writer.weights(1)) is None
        assert {one.stage for one in ledger.damaged} == {writer.weights(1).digest(), writer.weights(2).digest()}
        assert ledger.why(writer.weights(2)) == "artefact damaged"


def test_a_damaged_file_in_the_way_is_replaced(writer, tmp_path):
    with Ledger.open(tmp_path) as ledger:
        path = ledger.path(ledger.record(writer.weights(1), b"same", suffix=".npz", seconds=0, device="", versions={}))
        flip(path)
        stored = ledger.record(writer.weights(2), b"same", suffix=".npz", seconds=0, device="", versions={})
        assert ledger.read(stored) == b"same"


def test_an_intact_file_is_hashed_once(writer, tmp_path, monkeypatch):
    with Ledger.open(tmp_path) as ledger:
        writer.record(ledger, 1)
        assert ledger.has(writer.attack(1))
        monkeypatch.setattr("unperturbed.ledger.ledger.inspect", lambda *_, **__: pytest.fail("hashed again"))
        assert ledger.has(writer.attack(1))
