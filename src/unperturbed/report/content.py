"""What a report is made from: a study, the rows it produced, what was decided, and how it was run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unperturbed.records import CurvePoint, Measurement, StageCost, Study

if TYPE_CHECKING:
    from unperturbed.statistics import Decisions


class Shown(NamedTuple):
    """An adversarial image (channel, height, width) in [0, 1], found within ``eps``, and what the network calls it."""

    eps: float
    image: NDArray[np.floating]
    prediction: str


@dataclass(frozen=True)
class Picture:
    """One test image (channel, height, width) in [0, 1] and what one attack on one network made of it.

    ``label`` is the true class, ``prediction`` what the network calls the original.
    """

    condition: str
    architecture: str
    attack: str
    original: NDArray[np.floating]
    label: str
    prediction: str
    adversarial: tuple[Shown, ...]


@dataclass(frozen=True)
class Content:
    """Everything a report shows. Nothing else is read: the page depends on these values only.

    Args:
        study: the question, the design, the claims and the published values.
        curves: accuracy per network, attack and eps.
        measurements: measured quantities per network.
        costs: what each stage took.
        decisions: what ``unperturbed.statistics.decide`` says of the claims.
        pictures: adversarial examples.
        versions: name to version of what computed the results.
        command: the command line that made the report.
        seconds: wall time of that command.
        created: date and time, as text.
    """

    study: Study
    curves: list[CurvePoint]
    measurements: list[Measurement]
    costs: list[StageCost]
    decisions: Decisions
    pictures: tuple[Picture, ...] = ()
    versions: dict[str, Any] = field(default_factory=dict[str, Any])
    command: str = ""
    seconds: float = 0.0
    created: str = ""
