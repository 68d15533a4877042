"""At most one writer per ledger: a lock that the operating system releases when its holder dies, however it dies."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from unperturbed.ledger.artefacts import write_whole
from unperturbed.ledger.errors import LedgerError, explained


class WriterLock:
    """The right to write to the ledger in ``folder``, held until :meth:`release`.

    Raises:
        LedgerError: another process has it (its number is named), or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        # Who holds the lock is written beside it: some versions of filelock empty the lock's own file.
        self._holder = folder / "writer"
        self._lock = FileLock(folder / "writer.lock")
        with explained(folder):
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise LedgerError(
                    f"ledger {folder}: {self._named()} is writing to it. "
                    "Wait until it has finished, or choose another folder with --ledger."
                ) from None
            try:
                write_whole(self._holder, f"process {os.getpid()} on {socket.gethostname()}".encode())
            except BaseException:
                self._lock.release()
                raise

    def _named(self) -> str:
        try:
            return self._holder.read_text()
        except OSError:  # the holder has the lock and has not yet said who it is
            return "another process"

    def release(self) -> None:
        """Let others write."""
        with suppress(OSError):  # a name that stays behind misleads nobody: the lock decides
            self._holder.unlink()
        self._lock.release()
