import tomllib
from pathlib import Path

import pytest

import unperturbed

PUBLISHED = Path(unperturbed.__file__).parent / "studies" / "distribution-and-task.published.toml"
TABLES = tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))["published"]


@pytest.fixture(scope="session")
def printed():
    """The published (mean, sd, n) by architecture, condition and epoch."""
    values = {
        (row["architecture"], row["condition"], row["epoch"]): (row["mean"], row["sd"], row["n"]) for row in TABLES
    }
    assert len(values) == 108
    return values
