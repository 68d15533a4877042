"""The tables, and how a ledger's file is created, recognised and opened.

Write-ahead logging (sqlite.org/wal.html): readers work beside the one writer, and a commit is one append. A killed
process loses nothing that was committed, since the operating system has it; a power cut is a matter of flushing, which
:meth:`Ledger.record <unperturbed.ledger.Ledger.record>` asks for (``synchronous=FULL``) and bookkeeping does not
(``NORMAL``: it may lose the last placements, never tear the file, and the next run places them again).

Numbers that results are computed from stand in columns without a declared type: a column of type REAL would store the
negative zero as zero.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from unperturbed.ledger.artefacts import PART, flush_folder
from unperturbed.ledger.errors import ACCESS, BROKEN, LedgerError, advice_on, explained

DATABASE = "ledger.sqlite"
SCHEMA = 1
APPLICATION = 0x756E7065  # "unpe"; `file` and SQLite's `PRAGMA application_id` show it
PATIENCE = 30.0  # seconds to wait for another program's short lock

TABLES = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA};
CREATE TABLE stages (
    digest TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    record TEXT NOT NULL,                -- canonical JSON
    artefact TEXT NOT NULL,              -- SHA-256 of the file artefacts/ab/<artefact><suffix>
    suffix TEXT NOT NULL,
    size INTEGER NOT NULL,               -- bytes
    seconds REAL NOT NULL,
    forwards INTEGER NOT NULL,
    backwards INTEGER NOT NULL,
    device TEXT NOT NULL,
    versions TEXT NOT NULL,              -- JSON
    finished TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
CREATE INDEX stages_artefact ON stages (artefact, suffix);
CREATE TABLE curve_points (
    stage TEXT NOT NULL REFERENCES stages (digest) ON DELETE CASCADE,
    eps NOT NULL,
    accuracy NOT NULL,                   -- fraction of n
    n INTEGER NOT NULL,
    PRIMARY KEY (stage, eps)
) WITHOUT ROWID;
CREATE TABLE measures (
    stage TEXT NOT NULL REFERENCES stages (digest) ON DELETE CASCADE,
    measure TEXT NOT NULL,
    value,                               -- NULL: not a number
    unit TEXT NOT NULL,
    better TEXT NOT NULL,                -- 'higher', 'lower' or ''
    n INTEGER NOT NULL,
    PRIMARY KEY (stage, measure)
) WITHOUT ROWID;
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    study TEXT NOT NULL,                 -- its name
    record TEXT NOT NULL,                -- the whole study as JSON, in the order of the report
    command TEXT NOT NULL,
    versions TEXT NOT NULL,              -- JSON
    started TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    status TEXT NOT NULL DEFAULT 'running',
    seconds REAL,
    error TEXT
);
-- A placement outlives a damaged stage that was dropped: it holds again when the stage has been computed again.
CREATE TABLE placements (
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    architecture TEXT NOT NULL,
    condition TEXT NOT NULL,
    seed INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    label TEXT NOT NULL,                 -- 'training' or the attack's label
    stage TEXT NOT NULL,
    PRIMARY KEY (run, architecture, condition, seed, epoch, label)
) WITHOUT ROWID;
CREATE VIEW curves AS
    SELECT run, architecture, condition, seed, epoch, label AS attack, eps, accuracy, n
    FROM placements JOIN curve_points USING (stage);
CREATE VIEW results AS
    SELECT run, architecture, condition, seed, epoch, CASE label WHEN 'training' THEN '' ELSE label END AS attack,
           measure, value, unit, better, n
    FROM placements JOIN measures USING (stage);
CREATE VIEW costs AS
    SELECT run, architecture, condition, seed, epoch, label AS kind, seconds, forwards, backwards, device, versions
    FROM placements JOIN stages ON digest = stage;
"""


def create(folder: Path) -> None:
    """Put an empty ledger into ``folder``; it appears under its name only when it is complete."""
    database = folder / DATABASE
    part = folder / (DATABASE + PART)
    for leftover in (
        part,
        folder / (part.name + "-journal"),
        folder / (part.name + "-wal"),
        folder / (part.name + "-shm"),
    ):
        leftover.unlink(missing_ok=True)
    connection = sqlite3.connect(part, isolation_level=None)
    try:
        connection.executescript(f"BEGIN;{TABLES}COMMIT;PRAGMA journal_mode = WAL;")
    finally:
        connection.close()
    part.replace(database)
    flush_folder(folder)


def recognise(folder: Path, *, application: int, version: int) -> None:
    """Refuse a file that is not a ledger, or one from the future.

    Raises:
        LedgerError: says which, and both versions.
    """
    if application != APPLICATION or not version:
        raise LedgerError(
            f"ledger {folder}: {DATABASE} is not a ledger of unperturbed. "
            "Move it away, or choose another folder with --ledger."
        )
    if version != SCHEMA:
        raise LedgerError(
            f"ledger {folder}: it has schema version {version} and this program knows version {SCHEMA}. Nothing was "
            "changed: install a newer unperturbed, or choose another folder with --ledger."
        )


def recognise_file(folder: Path) -> None:
    """As :func:`recognise`, from the file's header alone (sqlite.org/fileformat2.html, section 1.3).

    SQLite itself would create files beside a ledger that we shall refuse.
    """
    with (folder / DATABASE).open("rb") as file:
        header = file.read(100)
    ours = len(header) == 100 and header.startswith(b"SQLite format 3\0")
    number = int.from_bytes
    recognise(folder, application=number(header[68:72]) if ours else 0, version=number(header[60:64]) if ours else 0)


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """Return the value of one of SQLite's pragmas."""
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def connect(folder: Path, mode: str) -> sqlite3.Connection:
    """Open the ledger's file with SQLite's URI parameters ``mode`` and make sure that it is one."""
    uri = f"{(folder / DATABASE).absolute().as_uri()}?{mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=PATIENCE)
    try:
        # A newer version's change of the header may still stand in the write-ahead log only.
        recognise(
            folder,
            application=pragma(connection, "application_id"),
            version=pragma(connection, "user_version"),
        )
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(folder: Path) -> sqlite3.Connection:
    """Open for reading, also in a folder that cannot be written, and beside a writer.

    Where a folder cannot be written, SQLite can read a log that a killed writer left, if its index is still there.
    Without a log nobody has the ledger open for writing through this path, and it is read as unchanging.
    """
    with explained(folder):
        recognise_file(folder)
        try:
            return connect(folder, "mode=ro")
        except sqlite3.OperationalError as error:
            log = folder / f"{DATABASE}-wal"
            if advice_on(error) is not ACCESS:
                raise
            if log.exists() and log.stat().st_size:
                raise LedgerError(
                    f"ledger {folder}: it was not closed, and cannot be repaired in a read-only folder ({error}). "
                    "Copy the folder to where you can write, and choose the copy with --ledger."
                ) from error
            return connect(folder, "immutable=1")


def connect_writer(folder: Path) -> sqlite3.Connection:
    """Open for writing, creating the ledger if there is none; the caller holds the writer's lock."""
    with explained(folder):
        if (folder / DATABASE).exists():
            connect(folder, "mode=ro").close()  # closing a connection that may write would change a refused file
        else:
            create(folder)
        connection = connect(folder, "mode=rw")
        try:
            connection.executescript("PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON; PRAGMA synchronous = NORMAL")
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise LedgerError(f"ledger {folder}: {BROKEN.format(detail=' '.join(verdict.split()))}")
        except BaseException:
            connection.close()
            raise
        return connection
