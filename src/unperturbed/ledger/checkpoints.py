"""One replaceable file per key, which knows whether it is whole: a digest of the key and the content, then the content.

A checkpoint saves work and is never a result: one that is torn, altered or another key's is as good as none.
"""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

from unperturbed.ledger.artefacts import write_whole

DIGEST_BYTES = hashlib.sha256().digest_size


def checkpoint_path(folder: Path, key: str) -> Path:
    """Return the file of ``key``; hashed, so that any text may be a key."""
    return folder / "checkpoints" / hashlib.sha256(key.encode()).hexdigest()


def seal(key: str, content: bytes) -> bytes:
    """Return the digest that a checkpoint begins with."""
    digest = hashlib.sha256(hashlib.sha256(key.encode()).digest())
    digest.update(content)
    return digest.digest()


def save(folder: Path, key: str, content: bytes) -> None:
    """Replace the checkpoint of ``key``."""
    write_whole(checkpoint_path(folder, key), seal(key, content) + content)


def load(folder: Path, key: str) -> bytes | None:
    """Return the checkpoint of ``key``, or ``None`` if there is none that is whole."""
    try:
        sealed = checkpoint_path(folder, key).read_bytes()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EIO):
            raise
        return None
    content = sealed[DIGEST_BYTES:]
    return content if sealed[:DIGEST_BYTES] == seal(key, content) else None


def drop(folder: Path, key: str) -> None:
    """Remove the checkpoint of ``key`` if there is one."""
    checkpoint_path(folder, key).unlink(missing_ok=True)
