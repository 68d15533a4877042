"""What a report is made from: a study, the rows it produced, what was decided, and how it was run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unperturbed.records import CurvePoint, Measurement, StageCost, Study

if TYPE_CHECKING:
    from unperturbed.statistics import Decisions, GroupDifference, Interval


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


class Bin(NamedTuple):
    """The images whose largest class probability lies in one interval: their mean of it, their accuracy, their number.

    Both are None for an empty interval.
    """

    confidence: float | None
    accuracy: float | None
    images: int


@dataclass(frozen=True)
class Confidence:
    """How certain one network is of its answers, as an examination of its calibration kept it.

    ``every`` and ``correct`` count the probabilities of all classes in equal intervals of [0, 1], for all images and
    for those that are classified correctly; ``bins`` are by the largest probability alone.
    """

    architecture: str
    condition: str
    label: str
    seed: int
    epoch: int
    every: tuple[int, ...]
    correct: tuple[int, ...]
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Drawn:
    """What an examination of one network kept to be drawn."""

    architecture: str
    condition: str
    label: str
    examination: str
    seed: int
    epoch: int
    arrays: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Survivors:
    """Which test images one network gets right after one attack or examination within 8/255 in the L-infinity ball.

    ``images`` says it of the first test images in their order, so that those of two attacks are the same ones as far as
    both go.
    """

    architecture: str
    condition: str
    label: str
    seed: int
    epoch: int
    images: NDArray[np.bool_]


@dataclass(frozen=True)
class GainMap:
    """Where the prediction of EEG goes with a gain: the correlation over networks at each channel and time.

    ``eeg`` and ``gain`` are the labels of both examinations, ``over`` says of which networks; ``p`` is corrected for
    all places. 100 ms after onset, ``mean`` is the correlation of the mean r over all channels, with its ``interval``,
    and ``groups`` are the parieto-occipital and the occipital channels.
    """

    eeg: str
    gain: str
    over: str
    networks: int
    conditions: int
    channels: tuple[str, ...]
    times: NDArray[Any]  # seconds
    rho: NDArray[Any]
    p: NDArray[Any]
    mean: float
    interval: Interval
    groups: GroupDifference | None


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
        confidences: class probabilities of one network of each cell, where they were examined.
        drawn: arrays of one network of each cell, of the examinations that are drawn.
        predictions: arrays of all last networks of each cell, of the examinations of how well EEG is predicted.
        maps: what goes with a gain, computed from these.
        gains: arrays of all last networks of each cell, of the examinations of how much more they withstand.
        survivors: what attacks left of the images of each last network, where the overview takes them together.
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
    confidences: tuple[Confidence, ...] = ()
    drawn: tuple[Drawn, ...] = ()
    predictions: tuple[Drawn, ...] = ()
    maps: tuple[GainMap, ...] = ()
    gains: tuple[Drawn, ...] = ()
    survivors: tuple[Survivors, ...] = ()
    versions: dict[str, Any] = field(default_factory=dict[str, Any])
    command: str = ""
    seconds: float = 0.0
    created: str = ""
