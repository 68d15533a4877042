"""Failures of the disk, of the folder and of SQLite, each as one line that says what, where and what to do."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from unperturbed.records import SpecError

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_ACCESS = {errno.EROFS, errno.EACCES, errno.EPERM}

SPACE = "no space left ({detail}). Make room and run the command again: nothing that was recorded is lost."
ACCESS = "access refused ({detail}). Change its permissions, or choose another folder with --ledger."
LOCKED = "another program holds ledger.sqlite ({detail}). Close that program and run the command again."
BROKEN = (
    "ledger.sqlite is damaged ({detail}). Restore it from a copy, or move the folder away: "
    "everything is then computed again."
)
DISK = "the disk failed ({detail}). Check its space, your quota and its health, and run the command again."
OTHER = "{detail}. Choose another folder with --ledger."

SQLITE_ADVICE = {
    sqlite3.SQLITE_FULL: SPACE,
    sqlite3.SQLITE_READONLY: ACCESS,
    sqlite3.SQLITE_CANTOPEN: ACCESS,
    sqlite3.SQLITE_PERM: ACCESS,
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_CORRUPT: BROKEN,
    sqlite3.SQLITE_NOTADB: BROKEN,
    sqlite3.SQLITE_IOERR: DISK,
}


class LedgerError(SpecError):
    """The ledger cannot do what was asked; nothing that was recorded is lost."""


def advice_on(error: sqlite3.Error) -> str | None:
    """Return what to say about an error, by SQLite's result code; ``None`` if it is a mistake of ours."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # Python's own errors have none
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:  # the index of the log could not be given its room
        return SPACE
    return SQLITE_ADVICE.get(code & 0xFF)


@contextmanager
def explained(folder: Path) -> Generator[None, None, None]:
    """Turn what the machine refuses into a :class:`LedgerError` that names ``folder``.

    Errors that only our own mistakes can cause (a broken constraint, malformed SQL) pass unchanged.
    """
    try:
        yield
    except OSError as error:
        advice = SPACE if error.errno in NO_SPACE else ACCESS if error.errno in NO_ACCESS else OTHER
        name = f": {Path(error.filename).name}" if isinstance(error.filename, str) else ""
        raise LedgerError(f"ledger {folder}: {advice.format(detail=f'{error.strerror}{name}')}") from error
    except sqlite3.Error as error:
        advice = advice_on(error)
        if advice is None:
            raise
        raise LedgerError(f"ledger {folder}: {advice.format(detail=error)}") from error
