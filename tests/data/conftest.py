"""Folders with data files: the real ones where this machine has them, and tiny imitations."""

import gzip
import lzma
import os
import struct
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def data_root() -> Path:
    root = Path(os.environ.get("UNPERTURBED_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (root / "mnist").is_dir() or not (root / "cifar10").is_dir():
        pytest.skip(f"no MNIST and CIFAR-10 files in {root}; set UNPERTURBED_DATA")
    return root


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data root on a machine that has no other."""
    monkeypatch.delenv("UNPERTURBED_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    root = tmp_path / "root"
    root.mkdir()
    return root


class Imitation:
    """Makes tiny files of the official form; fixtures are how tests share code here."""

    @staticmethod
    def idx(array: np.ndarray) -> bytes:
        return struct.pack(f">{array.ndim + 1}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()

    @classmethod
    def mnist(cls, *, n: int = 20) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for prefix in ("train", "t10k"):
            images = np.arange(n * 784).reshape(n, 28, 28) % 251
            files[f"{prefix}-images-idx3-ubyte"] = cls.idx(images.astype(np.uint8))
            files[f"{prefix}-labels-idx1-ubyte"] = cls.idx((np.arange(n) % 10).astype(np.uint8))
        return files

    @staticmethod
    def cifar10(*, n: int = 4) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for k, name in enumerate([*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]):
            rows = (np.arange(n * 3073).reshape(n, 3073) + k) % 253
            rows[:, 0] = np.arange(n)
            files[name] = rows.astype(np.uint8).tobytes()
        return files

    @staticmethod
    def write(folder: Path, files: dict[str, bytes], suffix: str = "") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix]
        for name, content in files.items():
            (folder / f"{name}{suffix}").write_bytes(pack(content))
        return folder


@pytest.fixture
def imitation() -> type[Imitation]:
    return Imitation
