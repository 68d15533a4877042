"""Shapes are checked while tests run; every test starts from the same number of threads."""

import jaxtyping
import pytest

jaxtyping.install_import_hook(
    [f"unperturbed.{package}" for package in ("tensors", "data", "models", "training", "attacks", "measures")],
    "beartype.beartype",
)


@pytest.fixture(scope="session", autouse=True)
def _threads():
    import torch

    torch.set_num_threads(1)
