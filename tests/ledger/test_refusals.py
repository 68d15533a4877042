"""What the machine or another process refuses: one clear line, and nothing is lost."""

import errno
import os
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from unperturbed.ledger import Ledger, LedgerError
from unperturbed.ledger.errors import explained
from unperturbed.ledger.lock import WriterLock
from unperturbed.records import SpecError


def refused(*words):
    """Expect a LedgerError of one line that has all these words."""
    return pytest.raises(LedgerError, match="(?s)" + ".*".join(re.escape(str(word)) for word in words) + r"[^\n]*\Z")


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Another writer


def test_a_second_writer_is_refused_and_a_reader_is_not(writer, start, tmp_path):
    with Ledger.open(tmp_path) as ledger:
        writer.record(ledger, 1)
    holder = start("hold", tmp_path)
    assert holder.stdout.readline() == "open\n"
    for _ in range(2):
        with refused(f"ledger {tmp_path}: process {holder.pid} on ", "is writing to it. Wait until", "--ledger."):
            Ledger.open(tmp_path)
    with Ledger.open(tmp_path, write=False) as reader:
        assert reader.read(reader.find(writer.attack(1))) == writer.content(1)
        assert [run.status for run in reader.runs()] == ["running"], "refused writers must not touch the holder's run"
    holder.kill()
    holder.wait(timeout=10)
    with Ledger.open(tmp_path) as ledger:
        assert ledger.has(writer.attack(1))
        assert [run.status for run in ledger.runs()] == ["interrupted"]


def test_a_second_writer_of_the_same_process_is_refused(tmp_path):
    with Ledger.open(tmp_path), refused(f"ledger {tmp_path}: process {os.getpid()} on "):
        Ledger.open(tmp_path)
    Ledger.open(tmp_path).close()


def test_an_open_that_fails_lets_go_of_the_lock(tmp_path):
    Ledger.open(tmp_path).close()
    broken = tmp_path / "checkpoints" / "folder.part"
    broken.mkdir(parents=True)
    with refused(f"ledger {tmp_path}: Is a directory: folder.part.") as failure:
        Ledger.open(tmp_path)
    broken.rmdir()
    Ledger.open(tmp_path).close()
    del failure  # kept the lock from being collected, which would release it as well


def test_a_lock_that_is_released_can_be_taken(tmp_path):
    first = WriterLock(tmp_path)
    first.release()
    second = WriterLock(tmp_path)
    with refused(f"ledger {tmp_path}: process {os.getpid()} on "):
        WriterLock(tmp_path)
    second.release()
    assert [path.name for path in tmp_path.iterdir()] == ["writer.lock"]


def test_another_program_that_holds_the_database_is_named(writer, tmp_path, monkeypatch):
    monkeypatch.setattr("unperturbed.ledger.schema.PATIENCE", 0.05)
    with Ledger.open(tmp_path) as ledger:
        tool = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
        tool.execute("BEGIN IMMEDIATE")
        with refused(f"ledger {tmp_path}: another program holds ledger.sqlite (database is locked). Close that"):
            writer.record(ledger, 1)
        assert list(tmp_path.glob("artefacts/*/*")) == []
        tool.close()
        assert ledger.read(writer.record(ledger, 1)) == writer.content(1)


def test_a_reader_may_not_change(writer, tmp_path):
    Ledger.open(tmp_path).close()
    with Ledger.open(tmp_path, write=False) as reader:
        for change in (
            lambda: writer.record(reader, 1),
            lambda: reader.save_checkpoint("key", b""),
            lambda: reader.drop_checkpoint("key"),
            lambda: reader.begin_run(writer.STUDY, "", {}),
        ):
            with refused(f"ledger {tmp_path}: opened for reading only. Open it with write=True"):
                change()
    assert not list(tmp_path.glob("artefacts/*/*"))


# Not a ledger of ours


@pytest.mark.parametrize("write", [True, False])
def test_a_newer_version_is_refused_and_unchanged(writer, tmp_path, write):
    with Ledger.open(tmp_path) as ledger:
        writer.record(ledger, 1)
    newer = sqlite3.connect(tmp_path / "ledger.sqlite")
    newer.execute("PRAGMA user_version = 2")
    newer.close()
    before = snapshot(tmp_path)
    words = f"ledger {tmp_path}: it has schema version 2 and this program knows version 1.", "install a newer"
    with refused(*words):
        Ledger.open(tmp_path, write=write)
    assert snapshot(tmp_path) == before
    assert len(before) >= 2


@pytest.mark.parametrize("write", [True, False])
def test_a_newer_version_that_stands_in_the_log_only_is_refused(tmp_path, write):
    Ledger.open(tmp_path / "living").close()
    newer = sqlite3.connect(tmp_path / "living" / "ledger.sqlite", isolation_level=None)
    newer.execute("PRAGMA user_version = 7")
    shutil.copytree(tmp_path / "living", tmp_path / "killed")
    newer.close()
    before = snapshot(tmp_path / "killed")
    assert before[Path("ledger.sqlite-wal")]
    with refused("it has schema version 7 and this program knows version 1."):
        Ledger.open(tmp_path / "killed", write=write)
    after = snapshot(tmp_path / "killed")
    for name in ("ledger.sqlite", "ledger.sqlite-wal"):
        assert after[Path(name)] == before[Path(name)]


def foreign_database(path):
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE stages (digest)")
    other.close()


@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize(
    "make", [foreign_database, lambda path: path.write_text("my notes\n" * 40), lambda path: path.touch()]
)
def test_what_is_not_a_ledger_is_refused_and_unchanged(tmp_path, make, write):
    make(tmp_path / "ledger.sqlite")
    before = snapshot(tmp_path)
    with refused(f"ledger {tmp_path}: ledger.sqlite is not a ledger of unperturbed. Move it away"):
        Ledger.open(tmp_path, write=write)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("harm", ["all overwritten", "end overwritten", "truncated"])
def test_a_damaged_database_is_refused_by_a_writer(writer, tmp_path, harm):
    with Ledger.open(tmp_path) as ledger:
        for number in range(20):
            writer.record(ledger, number)
    path = tmp_path / "ledger.sqlite"
    content = path.read_bytes()
    kept = len(content) - 4096 if harm == "end overwritten" else 8192
    path.write_bytes(content[:kept] + (b"" if harm == "truncated" else b"\xa5" * (len(content) - kept)))
    with refused(f"ledger {tmp_path}: ledger.sqlite is damaged (", "Restore it from a copy, or move the folder away"):
        Ledger.open(tmp_path)


def test_nothing_to_read_is_said(tmp_path):
    with refused(f"ledger {tmp_path / 'none'}: there is no ledger.sqlite. Run a study first"):
        Ledger.open(tmp_path / "none", write=False)
    assert not (tmp_path / "none").exists()


def test_a_file_in_place_of_the_folder_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with refused(f"ledger {tmp_path / 'file' / 'ledger'}: ", "Choose another folder with --ledger."):
        Ledger.open(tmp_path / "file" / "ledger")


def test_a_folder_of_any_name_will_do(writer, tmp_path):
    folder = tmp_path / "a b?mode=ro#%41 é"
    with Ledger.open(folder) as ledger:
        writer.record(ledger, 1)
    with Ledger.open(folder, write=False) as ledger:
        assert ledger.has(writer.attack(1))


# A folder that cannot be written


def test_a_read_only_folder_can_be_read_and_not_written(writer, freezable):
    folder, freeze = freezable
    with Ledger.open(folder) as ledger:
        written = writer.rows(ledger, [1, 2])
    freeze()
    for _ in range(2):
        with refused(f"ledger {folder}: access refused (", "Change its permissions, or choose another"):
            Ledger.open(folder)
    with Ledger.open(folder, write=False) as ledger:
        assert [ledger.curves(1), ledger.measurements(1), ledger.costs(1)] == written
        assert ledger.read(ledger.find(writer.attack(1))) == writer.content(1)


def test_a_new_ledger_in_a_read_only_folder_is_refused(freezable):
    folder, freeze = freezable
    freeze()
    for path in (folder, folder / "new"):
        with refused(f"ledger {path}: access refused ("):
            Ledger.open(path)
    assert list(folder.iterdir()) == []


def test_what_a_killed_writer_left_can_be_read_in_a_read_only_folder(writer, freezable, finish):
    folder, freeze = freezable
    finish("die", folder, 0, 3, status=-9)
    assert (folder / "ledger.sqlite-wal").stat().st_size > 0
    freeze()
    with Ledger.open(folder, write=False) as ledger:
        assert all(ledger.has(writer.attack(number)) for number in range(3))


def test_a_log_without_its_index_in_a_read_only_folder_is_not_left_out(freezable, finish):
    folder, freeze = freezable
    finish("die", folder, 0, 3, status=-9)
    (folder / "ledger.sqlite-shm").unlink()
    freeze()
    with refused(f"ledger {folder}: it was not closed, and cannot be repaired in a read-only folder (", "Copy the"):
        Ledger.open(folder, write=False)


def test_an_immutable_folder_is_refused(tmp_path):
    Ledger.open(tmp_path).close()
    if subprocess.run(["chattr", "+i", str(tmp_path)], capture_output=True).returncode != 0:
        pytest.skip("chattr +i needs root and a file system that has it")
    try:
        with refused(f"ledger {tmp_path}: access refused (Operation not permitted: writer.part)") as failure:
            Ledger.open(tmp_path)
    finally:
        subprocess.run(["chattr", "-i", str(tmp_path)], check=True)
    Ledger.open(tmp_path).close()
    del failure  # kept the lock from being collected, which would release it as well


def test_artefacts_that_refuse_are_said_and_the_ledger_stays_usable(writer, freezable, tmp_path):
    folder, freeze = freezable
    with Ledger.open(tmp_path / "ledger") as ledger:
        writer.record(ledger, 1)
        freeze()
        (tmp_path / "ledger" / "artefacts").rename(tmp_path / "aside")
        (tmp_path / "ledger" / "artefacts").symlink_to(folder)
        with refused(f"ledger {tmp_path / 'ledger'}: access refused ("):
            writer.record(ledger, 2)
        (tmp_path / "ledger" / "artefacts").unlink()
        (tmp_path / "aside").rename(tmp_path / "ledger" / "artefacts")
        assert ledger.has(writer.attack(1))
        assert ledger.read(writer.record(ledger, 2)) == writer.content(2)


# No space


def fill(disk, *, leave):
    """Leave about so many bytes free."""
    state = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(state.f_bavail * state.f_frsize - leave))


def check_intact(ledger, writer, numbers):
    """All these stages, nothing else, are recorded, and no other file was left."""
    assert ledger.verify() == ()
    assert all(ledger.has(writer.attack(number)) for number in numbers)
    assert len(list(ledger.folder.glob("artefacts/*/*"))) == len(list(numbers))
    assert not list(ledger.folder.rglob("*.part"))


def test_no_space_for_an_artefact(writer, small_disk):
    folder = small_disk / "ledger"
    with Ledger.open(folder) as ledger:
        for number in range(3):
            writer.record(ledger, number)
        fill(small_disk, leave=100_000)
        with refused(f"ledger {folder}: no space left (No space left on device", "Make room and run the command again"):
            ledger.record(writer.weights(0), bytes(200_000), suffix=".npz", seconds=0, device="cpu", versions={})
        with refused(f"ledger {folder}: no space left ("):
            ledger.save_checkpoint("key", bytes(200_000))
        check_intact(ledger, writer, range(3))
        (small_disk / "filler").unlink()
        writer.record(ledger, 3)
    with Ledger.open(folder) as ledger:
        check_intact(ledger, writer, range(4))


def test_no_space_for_the_database(writer, small_disk):
    folder = small_disk / "ledger"
    with Ledger.open(folder) as ledger:
        writer.record(ledger, 0)
        fill(small_disk, leave=20_000)
        points = [(float(index), 0.5, 1) for index in range(2000)]
        with refused(f"ledger {folder}: no space left (database or disk is full)."):
            ledger.record(
                writer.weights(0), b"tiny", suffix=".npz", curves=points, seconds=0, device="cpu", versions={}
            )
        check_intact(ledger, writer, range(1))
        assert not ledger.has(writer.weights(0))
        (small_disk / "filler").unlink()
        writer.record(ledger, 1)
    with Ledger.open(folder) as ledger:
        check_intact(ledger, writer, range(2))


def test_no_space_for_a_new_ledger(writer, small_disk):
    fill(small_disk, leave=8192)
    with refused(f"ledger {small_disk / 'ledger'}: "):
        Ledger.open(small_disk / "ledger")
    (small_disk / "filler").unlink()
    with Ledger.open(small_disk / "ledger") as ledger:
        writer.record(ledger, 0)
        check_intact(ledger, writer, range(1))


def test_no_space_for_reading_beside_a_writer(writer, small_disk):
    with Ledger.open(small_disk / "ledger") as ledger:
        writer.record(ledger, 0)
    fill(small_disk, leave=0)
    with refused(f"ledger {small_disk / 'ledger'}: no space left (disk I/O error). Make room"):
        Ledger.open(small_disk / "ledger", write=False)
    (small_disk / "filler").unlink()
    with Ledger.open(small_disk / "ledger", write=False) as reader:
        assert reader.read(reader.find(writer.attack(0))) == writer.content(0)


def test_files_that_may_not_grow(writer, finish, tmp_path):
    artefact, database, number = finish("limited", tmp_path, 300_000).splitlines()
    assert artefact.startswith(f"ledger {tmp_path}: no space left (File too large).")
    assert database.startswith(f"ledger {tmp_path}: the disk failed (disk I/O error). Check its space, your quota")
    with Ledger.open(tmp_path) as ledger:
        check_intact(ledger, writer, range(int(number)))
        writer.record(ledger, int(number))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_every_kind_of_no_space_is_called_so(tmp_path, number):
    with refused(f"ledger {tmp_path}: no space left ({os.strerror(number)}: x.npz)."), explained(tmp_path):
        raise OSError(number, os.strerror(number), str(tmp_path / "x.npz"))


def test_our_own_mistakes_are_not_explained_away(writer, tmp_path):
    assert issubclass(LedgerError, SpecError)
    with Ledger.open(tmp_path) as ledger:
        with pytest.raises(sqlite3.IntegrityError, match=r"UNIQUE constraint failed: curve_points\.stage"):
            ledger.record(
                writer.attack(1),
                b"",
                suffix=".npz",
                curves=[(0.1, 1.0, 1), (0.1, 0.5, 1)],
                seconds=0,
                device="cpu",
                versions={},
            )
        check_intact(ledger, writer, [])
        assert not ledger.has(writer.attack(1))


def test_a_failure_leaves_the_artefact_that_another_stage_has(writer, tmp_path):
    with Ledger.open(tmp_path) as ledger:
        stored = ledger.record(writer.weights(1), b"same", suffix=".npz", seconds=0, device="cpu", versions={})
        twice = [("R", 0.5, "", "", 1)] * 2
        with pytest.raises(sqlite3.IntegrityError, match="measures"):
            ledger.record(
                writer.weights(2), b"same", suffix=".npz", measures=twice, seconds=0, device="cpu", versions={}
            )
        assert ledger.read(stored) == b"same"
