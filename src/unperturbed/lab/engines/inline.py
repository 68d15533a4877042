"""The simplest engine: one trial after another in this process, where a debugger can follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unperturbed.lab.engines.job import Job
from unperturbed.lab.pipeline import attempt
from unperturbed.records import Trial
from unperturbed.training import Diverged


def run(trials: Sequence[Trial], job: Job) -> Iterator[tuple[Trial, int | Diverged]]:
    """Yield each trial with the stages that were computed or how it diverged, in the order given."""
    for trial in trials:
        yield trial, attempt(trial, job.station._replace(progress=job.begin(trial)))
