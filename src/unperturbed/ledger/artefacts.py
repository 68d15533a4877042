"""Files that are either complete or absent: written to the side, flushed, renamed; and what they should contain.

``rename`` within a folder is atomic (POSIX.1-2017, ``rename()``), so a name never stands for half a file. The content
is flushed before the rename and the folder after it: a name that survives a power cut has its content.
"""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

PART = ".part"  # ends the names of files that are still being written


def artefact_path(folder: Path, artefact: str, suffix: str) -> Path:
    """Return where the ledger in ``folder`` keeps the artefact of that SHA-256.

    >>> artefact_path(Path("ledger"), "ab12", ".npz").as_posix()
    'ledger/artefacts/ab/ab12.npz'
    """
    return folder / "artefacts" / artefact[:2] / f"{artefact}{suffix}"


def flush_folder(folder: Path) -> None:
    """Make the names in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create ``folder`` and its parents where they are missing, so that they survive a power cut."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        flush_folder(folder.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Put a file with ``content`` at ``path``, replacing one that is there; ``path`` never holds half of it.

    Raises:
        OSError: it could not be written; ``path`` is as before and nothing is left beside it.
    """
    make_folder(path.parent)
    part = path.with_name(path.name + PART)
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    flush_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove what an interrupted writer left half written."""
    for part in (*folder.glob(f"artefacts/*/*{PART}"), *folder.glob(f"checkpoints/*{PART}")):
        part.unlink()


def inspect(path: Path, *, artefact: str, size: int) -> Literal["artefact missing", "artefact damaged"] | None:
    """Say what is wrong with the file at ``path``, which should have ``size`` bytes of SHA-256 ``artefact``."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size or hashlib.file_digest(file, "sha256").hexdigest() != artefact:
                return "artefact damaged"
    except (FileNotFoundError, NotADirectoryError):
        return "artefact missing"
    except OSError as error:
        if error.errno != errno.EIO:  # anything but an unreadable sector may pass: a permission, too many open files
            raise
        return "artefact damaged"
    return None
