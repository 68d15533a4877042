"""The ledger itself: what is recorded survives, what is damaged is never used."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from unperturbed.ledger import checkpoints
from unperturbed.ledger.artefacts import artefact_path, inspect, make_folder, sweep, write_whole
from unperturbed.ledger.differences import Fields, difference, fields
from unperturbed.ledger.errors import LedgerError, explained
from unperturbed.ledger.lock import WriterLock
from unperturbed.ledger.rows import Damage, Placement, Run, Status, Stored, Suffix
from unperturbed.ledger.schema import DATABASE, connect_reader, connect_writer, recognise_file
from unperturbed.records import CurvePoint, Measurement, Record, StageCost, Study

TRAINING = "training"  # the label of a placement that no attack is involved in
COMPARED = 1000  # recorded stages, the latest first, among which the nearest is sought

STORED = "digest, kind, artefact, suffix, size, seconds, forwards, backwards, device, versions, finished"
RUN = "id, study, command, versions, started, status, seconds, error"


def as_stored(row: tuple[Any, ...]) -> Stored:
    """Return a row of ``stages``."""
    *plain, versions, finished = row
    return Stored(*plain, versions=json.loads(versions), finished=finished)


def as_run(row: tuple[Any, ...]) -> Run:
    """Return a row of ``runs``."""
    number, study, command, versions, *plain = row
    return Run(number, study, command, json.loads(versions), *plain)


def text(value: Any) -> str:
    """Return ``value`` as JSON, in its own order."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


class Ledger:
    """The results in one folder, for one writer and any number of readers; of one thread.

    Opened by :meth:`open`. What :meth:`record` returned survives the death of the process at any moment and a power
    cut: its artefact was flushed and renamed before its row was committed, in one transaction with its points and
    measures, and the log of the database was flushed. What had not returned is absent or complete. Everything else
    (placements, the state of a run) survives the death of the process.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection, lock: WriterLock | None) -> None:
        self.folder = folder
        self._connection = connection
        self._lock = lock
        self._damaged: dict[str, Damage] = {}
        self._intact: dict[Path, tuple[int, int]] = {}  # (size, mtime_ns) of files whose content was right
        self._compared: dict[str, list[Fields]] = {}

    @classmethod
    def open(cls, folder: Path, *, write: bool = True) -> Self:
        """Open the ledger in ``folder``; a context manager, or call :meth:`close`.

        Args:
            folder: created with an empty ledger if it is missing and ``write``.
            write: take the writer's lock until closed, remove what an interrupted writer left half written and call its
                runs interrupted. Otherwise nothing that is recorded changes, and the folder may be read-only.

        Raises:
            LedgerError: another process writes; there is nothing to read; the ledger is of a newer version, damaged or
                not a ledger; the folder refuses access or has no space. Nothing that was there was changed.
        """
        if not write:
            if not (folder / DATABASE).exists():
                raise LedgerError(
                    f"ledger {folder}: there is no {DATABASE}. "
                    "Run a study first, or choose the folder of another ledger with --ledger."
                )
            return cls(folder, connect_reader(folder), None)
        with ExitStack() as undo, explained(folder):
            if (folder / DATABASE).exists():
                recognise_file(folder)
            make_folder(folder)
            lock = WriterLock(folder)
            undo.callback(lock.release)
            connection = connect_writer(folder)
            undo.callback(connection.close)
            sweep(folder)
            connection.execute("UPDATE runs SET status = 'interrupted' WHERE status = 'running'")
            undo.pop_all()
        return cls(folder, connection, lock)

    def close(self) -> None:
        """Let others write. What is recorded is on disk already."""
        self._connection.close()
        if self._lock:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with explained(self.folder):
            return self._connection.execute(query, values).fetchall()

    def _may_change(self) -> None:
        if self._lock is None:
            raise LedgerError(f"ledger {self.folder}: opened for reading only. Open it with write=True to change it.")

    @contextmanager
    def _changing(self, *, durable: bool = False) -> Generator[sqlite3.Connection, None, None]:
        """One transaction, all or nothing; ``durable``: it survives a power cut once it is committed."""
        self._may_change()
        connection = self._connection
        if connection.in_transaction:  # a part of what belongs together
            yield connection
            return
        with explained(self.folder):
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # SQLite itself rolls back on some errors, such as a full disk
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def together(self) -> Generator[None, None, None]:
        """Record the stages of this block all or not at all."""
        with self._changing(durable=True):
            yield

    # Stages

    @property
    def damaged(self) -> tuple[Damage, ...]:
        """What :meth:`find` and :meth:`read` of this ledger object found damaged, in the order of finding."""
        return tuple(self._damaged.values())

    def path(self, stage: Stored) -> Path:
        """Return the file of a stage's artefact."""
        return artefact_path(self.folder, stage.artefact, stage.suffix)

    def find(self, stage: Record) -> Stored | None:
        """Return what is recorded for ``stage`` if its artefact is what was recorded.

        A stage with a missing or damaged artefact is as good as none: it joins :attr:`damaged` and a writer forgets
        it. A file is hashed again only when its size or time of change is another than when it was last right.
        """
        rows = self._rows(f"SELECT {STORED} FROM stages WHERE digest = ?", stage.digest())
        if not rows:
            return None
        found = as_stored(rows[0])
        path = self.path(found)
        with explained(self.folder), suppress(FileNotFoundError, NotADirectoryError):
            state = path.stat()
            if self._intact.get(path) == (state.st_size, state.st_mtime_ns):
                return found
            if inspect(path, artefact=found.artefact, size=found.size) is None:
                self._intact[path] = (state.st_size, state.st_mtime_ns)
                return found
        self._forget(found)
        return None

    def has(self, stage: Record) -> bool:
        """Say whether ``stage`` need not be computed: :meth:`find` returns it."""
        return self.find(stage) is not None

    def why(self, stage: Record) -> str:
        """Say why ``stage`` need or need not be computed.

        Returns:
            ``recorded``, ``artefact missing``, ``artefact damaged``, ``new``, or ``new: `` and the few fields in which
            it differs from the nearest recorded stage of its kind, such as ``recipe.learning_rate 0.01 -> 0.1``.
        """
        if self.has(stage):
            return "recorded"
        if damage := self._damaged.get(stage.digest()):
            return damage.reason
        kind = kind_of(stage)
        if kind not in self._compared:
            query = "SELECT record FROM stages WHERE kind = ? ORDER BY finished DESC, digest LIMIT ?"
            self._compared[kind] = [fields(record) for (record,) in self._rows(query, kind, COMPARED)]
        differs = difference(fields(stage.canonical()), self._compared[kind])
        return f"new: {differs}" if differs else "new"

    def record(
        self,
        stage: Record,
        content: bytes,
        *,
        suffix: Suffix,
        curves: Iterable[tuple[float, float, int]] = (),
        measures: Iterable[tuple[str, float, str, str, int]] = (),
        seconds: float,
        forwards: int = 0,
        backwards: int = 0,
        device: str,
        versions: Mapping[str, Any],
    ) -> Stored:
        """Record what ``stage`` returned. A stage that is already recorded and intact stays as it is.

        Args:
            stage: what was computed.
            content: its artefact: weights, or per-example facts.
            suffix: how to read ``content``.
            curves: (eps, accuracy, n); accuracy as a fraction of n.
            measures: (measure, value, unit, better, n); a value may be infinite or not a number.
            seconds: what it took.
            forwards: images that went forward through a network.
            backwards: images that went backward.
            device: what computed it.
            versions: of what computed it, as JSON can say it.

        Raises:
            LedgerError: no space, or the folder refuses. Nothing of this stage is left; all else is as before, and the
                ledger can still be used.
        """
        self._may_change()
        if (found := self.find(stage)) is not None:
            return found
        digest, artefact = stage.digest(), hashlib.sha256(content).hexdigest()
        kind, path = kind_of(stage), artefact_path(self.folder, artefact, suffix)
        row = (digest, kind, stage.canonical(), artefact, suffix, len(content))
        row += (float(seconds), int(forwards), int(backwards), device, text(dict(versions)))
        points = [(digest, float(eps), float(accuracy), int(n)) for eps, accuracy, n in curves]
        values = [(digest, name, float(value), unit, better, int(n)) for name, value, unit, better, n in measures]
        try:
            with explained(self.folder):
                # Other stages may have the same artefact; it is written again all the same, in case it is damaged.
                write_whole(path, content)
            with self._changing(durable=True) as connection:
                connection.execute(
                    "INSERT INTO stages (digest, kind, record, artefact, suffix, size, seconds, forwards, backwards,"
                    " device, versions) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    row,
                )
                connection.executemany("INSERT INTO curve_points VALUES (?, ?, ?, ?)", points)
                connection.executemany("INSERT INTO measures VALUES (?, ?, ?, ?, ?, ?)", values)
        except BaseException:
            self._remove_unless_recorded(path, artefact, suffix)
            raise
        self._compared.pop(kind, None)
        return as_stored(self._rows(f"SELECT {STORED} FROM stages WHERE digest = ?", digest)[0])

    def _remove_unless_recorded(self, path: Path, artefact: str, suffix: str) -> None:
        """After a failure, whose error is what the caller should see."""
        with suppress(OSError, LedgerError):
            if not self._rows("SELECT 1 FROM stages WHERE artefact = ? AND suffix = ?", artefact, suffix):
                path.unlink()

    def read(self, stage: Stored) -> bytes:
        """Return the artefact, whose digest is checked.

        Raises:
            LedgerError: it is missing or not what was recorded. The stage is then treated as by :meth:`find`.
        """
        path = self.path(stage)
        with explained(self.folder), suppress(FileNotFoundError, NotADirectoryError):
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == stage.artefact:
                return content
        self._forget(stage)
        raise LedgerError(
            f"ledger {self.folder}: {self._damaged[stage.stage]}. Run the study again: only this is computed again."
        )

    def verify(self) -> tuple[Damage, ...]:
        """Read every artefact and return what is damaged; nothing is changed."""
        with explained(self.folder):
            return tuple(filter(None, map(self._inspect, self._stages("ORDER BY digest"))))

    def _stages(self, condition: str, *values: object) -> list[Stored]:
        return [as_stored(row) for row in self._rows(f"SELECT {STORED} FROM stages {condition}", *values)]

    def _inspect(self, stage: Stored) -> Damage | None:
        path = self.path(stage)
        reason = inspect(path, artefact=stage.artefact, size=stage.size)
        return reason and Damage(stage.stage, stage.kind, reason, path)

    def _forget(self, damaged: Stored) -> None:
        """Report a damaged artefact with every stage that has it; a writer drops these stages and then the file."""
        path = self.path(damaged)
        self._intact.pop(path, None)
        where = "WHERE artefact = ? AND suffix = ? ORDER BY digest", damaged.artefact, damaged.suffix
        with explained(self.folder):
            for stage in (damaged, *self._stages(*where)):
                reason = inspect(path, artefact=stage.artefact, size=stage.size) or "artefact damaged"
                self._damaged[stage.stage] = Damage(stage.stage, stage.kind, reason, path)
            if self._lock:
                with self._changing(durable=True) as connection:
                    connection.execute(
                        "DELETE FROM stages WHERE artefact = ? AND suffix = ?", (damaged.artefact, damaged.suffix)
                    )
                path.unlink(missing_ok=True)
                self._compared.pop(damaged.kind, None)

    # Checkpoints

    def save_checkpoint(self, stage_key: str, content: bytes) -> None:
        """Replace the checkpoint of ``stage_key``; the one before stays until the new one is whole on disk."""
        self._may_change()
        with explained(self.folder):
            checkpoints.save(self.folder, stage_key, content)

    def load_checkpoint(self, stage_key: str) -> bytes | None:
        """Return the checkpoint of ``stage_key``; ``None`` if there is none that is whole."""
        with explained(self.folder):
            return checkpoints.load(self.folder, stage_key)

    def drop_checkpoint(self, stage_key: str) -> None:
        """Remove the checkpoint of ``stage_key`` if there is one."""
        self._may_change()
        with explained(self.folder):
            checkpoints.drop(self.folder, stage_key)

    # Runs

    def begin_run(self, study: Study, command: str, versions: Mapping[str, Any]) -> int:
        """Note that ``command`` runs ``study`` from now on, and return the number of the run."""
        # The canonical text would sort what the report shows in the study's order.
        record = text(study.model_dump(mode="json"))
        with self._changing() as connection:
            cursor = connection.execute(
                "INSERT INTO runs (study, record, command, versions) VALUES (?, ?, ?, ?)",
                (study.name, record, command, text(dict(versions))),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def place(
        self, run_id: int, stage_digest: str, architecture: str, condition: str, seed: int, epoch: int, label: str
    ) -> None:
        """Note that the run used a stage as this cell's ``label``: ``training``, or the attack's; again is no change.

        Raises:
            LedgerError: the run has used another stage there.
        """
        cell = (run_id, architecture, condition, seed, epoch, label)
        with self._changing() as connection:
            connection.execute(
                "INSERT INTO placements VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", (*cell, stage_digest)
            )
            (before,) = connection.execute(
                "SELECT stage FROM placements WHERE (run, architecture, condition, seed, epoch, label)"
                " = (?, ?, ?, ?, ?, ?)",
                cell,
            ).fetchone()
            if before != stage_digest:
                raise LedgerError(
                    f"ledger {self.folder}: run {run_id} has stage {before[:12]} as {label} of {architecture}, "
                    f"{condition}, seed {seed}, epoch {epoch}; stage {stage_digest[:12]} came. Begin another run."
                )

    def finish_run(self, run_id: int, status: Status, seconds: float, error: str | None = None) -> None:
        """Note how a run ended."""
        with self._changing() as connection:
            connection.execute(
                "UPDATE runs SET status = ?, seconds = ?, error = ? WHERE id = ?", (status, seconds, error, run_id)
            )

    def runs(self) -> list[Run]:
        """Return all runs, the earliest first."""
        return [as_run(row) for row in self._rows(f"SELECT {RUN} FROM runs ORDER BY id")]

    def latest_run(self, study_name: str | None = None) -> Run | None:
        """Return the run that began last, of any study or of the named one; ``None`` if there is none."""
        query = f"SELECT {RUN} FROM runs WHERE study = coalesce(?, study) ORDER BY id DESC LIMIT 1"
        return next((as_run(row) for row in self._rows(query, study_name)), None)

    def study(self, run_id: int) -> Study:
        """Return the study that a run asked.

        Raises:
            LedgerError: there is no such run, or its study is of a form that this version does not know.
        """
        rows = self._rows("SELECT record FROM runs WHERE id = ?", run_id)
        if not rows:
            known = ", ".join(str(one.id) for one in self.runs()) or "none"
            raise LedgerError(f"ledger {self.folder}: there is no run {run_id}. It has: {known}.")
        try:
            return Study.model_validate_json(rows[0][0])
        except ValidationError as error:
            raise LedgerError(
                f"ledger {self.folder}: the study of run {run_id} was written by another version of unperturbed "
                f"({error.error_count()} fields differ). Run the study again."
            ) from error

    # A run's rows, in an order that depends on their content only

    def placements(self, run_id: int) -> list[Placement]:
        """Return where the run used which stage, also of stages that are not recorded now."""
        query = "SELECT run, stage, architecture, condition, seed, epoch, label FROM placements WHERE run = ?"
        rows = self._rows(f"{query} ORDER BY architecture, condition, seed, epoch, label", run_id)
        return [Placement(*row) for row in rows]

    def curves(self, run_id: int) -> list[CurvePoint]:
        """Return the points of all curves of the run, by cell, attack and eps."""
        query = "SELECT architecture, condition, seed, epoch, attack, eps, accuracy, n FROM curves WHERE run = ?"
        return [CurvePoint(*row) for row in self._rows(f"{query} ORDER BY 1, 2, 3, 4, 5, 6", run_id)]

    def measurements(self, run_id: int) -> list[Measurement]:
        """Return all measures of the run, by cell, attack and measure; ``attack`` is empty for a training."""
        columns = "architecture, condition, seed, epoch, attack, measure, value, unit, better, n"
        rows = self._rows(f"SELECT {columns} FROM results WHERE run = ? ORDER BY 1, 2, 3, 4, 5, 6", run_id)
        return [Measurement._make((*row[:6], math.nan if row[6] is None else row[6], *row[7:])) for row in rows]

    def costs(self, run_id: int) -> list[StageCost]:
        """Return what each stage of the run took when it was computed, by cell and label."""
        columns = "architecture, condition, seed, epoch, kind, seconds, forwards, backwards, device, versions"
        rows = self._rows(f"SELECT {columns} FROM costs WHERE run = ? ORDER BY 1, 2, 3, 4, 5", run_id)
        return [StageCost(*row[:9], versions=json.loads(row[9])) for row in rows]

    def artefacts(self, run_id: int, label: str) -> Iterator[tuple[Placement, Stored]]:
        """Yield the run's recorded stages of one label, by cell; :meth:`read` gives their artefacts."""
        for placement in self.placements(run_id):
            if placement.label == label:
                for stage in self._stages("WHERE digest = ?", placement.stage):
                    yield placement, stage


def kind_of(stage: Record) -> str:
    """Return the kind of a stage, as its record says."""
    return str(getattr(stage, "kind", type(stage).__name__))
