"""What a run gives its engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from unperturbed.lab.courses import Progress, Station
from unperturbed.records import Trial


class Job(NamedTuple):
    """What a run gives its engine besides the trials."""

    station: Station  # with the ledger that this process writes
    begin: Callable[[Trial], Progress]  # says that a trial begins, and returns what counts its work
    workers: int = 1  # trials at once, where the engine can
