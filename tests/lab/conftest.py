"""The tiny study, run once and never changed afterwards."""

from pathlib import Path

import pytest
import torch

from unperturbed import lab
from unperturbed.ledger import Ledger

TINY = Path(__file__).with_name("tiny.toml")
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def tiny():
    return lab.load(str(TINY))


@pytest.fixture(scope="session")
def finished(tiny, tmp_path_factory):
    """A ledger that holds a whole run of the tiny study; read it only."""
    folder = tmp_path_factory.mktemp("finished")
    with Ledger.open(folder) as ledger:
        lab.run(tiny, ledger, device=CPU, command="test")
    return folder
