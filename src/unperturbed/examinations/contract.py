"""What an examination is: a function from one deployed network, beside test images, to measures and what they rest on.

An attack asks how accuracy falls with eps; an examination asks anything else: a protocol, an audit, calibration, time
per image, certificates. Both end as stages in the ledger, and a claim names either by its label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray
from torch import Tensor, nn

from unperturbed.data import Repetitions
from unperturbed.data.files import Places
from unperturbed.measures import QUANTITIES, Measured

BATCH_SIZE = 500  # fixed: another one rounds otherwise, and the same record must give the same numbers
FAR = 1e3  # farther than any two images are from each other


class Interrupted(Exception):
    """The user asked to stop while an examination was under way."""


class Subject(NamedTuple):
    """What is examined."""

    network: nn.Module  # images in [0, 1] to logits; deployed, in evaluation mode; to be left as it is
    images: Tensor  # (batch, channel, height, width)
    labels: Tensor
    seed: int  # decides every random number
    random: bool = False  # as the mechanisms declare: equal images get unequal answers
    beside: Callable[[], nn.Module] | None = None  # loads another deployed network, where the study names one
    stopped: Callable[[], bool] = lambda: False
    trained: Callable[[], nn.Module] | None = None  # the network with what is removed where it is deployed
    recorded: Callable[[], Repetitions] | None = None  # what a brain answered, where the data set has that
    places: Places = Places()  # where data files are looked for
    found_beside: Callable[[], Mapping[str, NDArray[Any]]] | None = None  # arrays of this examination of the one beside

    def look(self, *_progress: object) -> None:
        """Raise ``Interrupted`` where the user asked to stop; to be called often, as progress if that is convenient."""
        if self.stopped():
            raise Interrupted

    def watched(self, network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Return a classifier that answers as ``network`` and looks before every pass."""

        def look(images: Tensor) -> Tensor:
            self.look()
            return network(images)

        return look


@dataclass(frozen=True)
class Found:
    """What an examination found; a measure that is not defined is left out."""

    measures: Sequence[Measured]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict[str, Any])  # per-example facts behind the measures
    curves: Sequence[tuple[float, float, int]] = ()  # (eps, accuracy, images)
    forwards: int = 0
    backwards: int = 0


Examination = Callable[..., Found]
"""``examination(subject, *, settings...) -> Found``; it refuses its settings before it looks at its subject."""


def measured(values: Mapping[str, float], images: int) -> list[Measured]:
    """Return values by the names of ``QUANTITIES`` with what is declared there."""
    return [
        Measured(name, float(value), QUANTITIES[name].unit, QUANTITIES[name].better, images)
        for name, value in values.items()
    ]
