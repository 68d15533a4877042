"""Shapes are checked while tests run; every test starts from the same number of threads."""

import os

import jaxtyping
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the commands that tests start, several at a time

jaxtyping.install_import_hook(
    [f"unperturbed.{package}" for package in ("tensors", "data", "models", "training", "attacks", "measures")],
    "beartype.beartype",
)


@pytest.fixture
def unchecked():
    """Shapes are not checked while a whole audit or study runs: it would take several times as long."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session", autouse=True)
def _threads():
    import torch

    torch.set_num_threads(1)
