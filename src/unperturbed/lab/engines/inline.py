"""The simplest engine: one trial after another in this process, where a debugger can follow."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from unperturbed.records import Trial

Result = TypeVar("Result")


def run(trials: Iterable[Trial], work: Callable[[Trial], Result]) -> Iterator[tuple[Trial, Result]]:
    """Yield each trial with what ``work`` returned, in the order given."""
    for trial in trials:
        yield trial, work(trial)
