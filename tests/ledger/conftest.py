"""The example ledger, processes that write to it, and small disks of real file systems."""

import contextlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

WRITER = Path(__file__).with_name("writer.py")


@pytest.fixture(scope="session")
def writer() -> ModuleType:
    """The module writer.py."""
    spec = importlib.util.spec_from_file_location("ledger_writer", WRITER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def start() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start writer.py in another process; it is stopped at the end of the test."""
    with contextlib.ExitStack() as stack:

        def starter(*words: object) -> "subprocess.Popen[str]":
            process = subprocess.Popen(
                [sys.executable, str(WRITER), *map(str, words)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield starter


@pytest.fixture
def finish(start: Callable[..., "subprocess.Popen[str]"]) -> Callable[..., str]:
    """Run writer.py to its end and return what it printed."""

    def finisher(*words: object, status: int = 0) -> str:
        process = start(*words)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == status, output
        return output

    return finisher


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=3m", "unperturbed-test", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root; the limit on the size of a file is tested instead")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def freezable(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder, and what makes it read-only: a real read-only file system for root, permissions for others."""
    folder = tmp_path / "frozen"
    folder.mkdir()
    if os.geteuid() != 0:

        def set_mode(mode: int) -> None:
            for path, _, _ in os.walk(folder):
                Path(path).chmod(mode)

        yield folder, lambda: set_mode(0o555)
        set_mode(0o755)
        return
    if subprocess.run(["mount", "-t", "tmpfs", "unperturbed-test", str(folder)], capture_output=True).returncode != 0:
        pytest.skip("root, who needs no permission, may not mount a read-only file system here")
    try:
        yield folder, lambda: subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True) and None
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
