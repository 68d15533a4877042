"""A run's rows and pictures, out of the ledger: all that a report shows, with nothing computed by a network."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from unperturbed.ledger import Ledger, Placement, Stored
from unperturbed.records import Measurement, SpecError, Study
from unperturbed.report.confidence import counted
from unperturbed.report.content import Confidence, Content, Drawn, Picture, Shown, Survivors
from unperturbed.report.eeg import GAIN, PREDICTION, gain_maps
from unperturbed.report.geometry import BOUNDARY, SPECTRUM
from unperturbed.report.overview import EIGHT, SAME, deciding
from unperturbed.report.similarity import SIMILARITY
from unperturbed.statistics import decide

T = TypeVar("T")
SHOWN_EPS = 4  # strengths that a picture shows, spread over those that were run
PICTURED = ("fgsm", "pgd", "carlini_wagner")  # functions; of each, one label is pictured
CALIBRATION = "calibration"  # the examination that keeps class probabilities
MOST_PIXELS = 1_200_000  # of all pictures together; about 5 MB of the page


def gather(ledger: Ledger, run_id: int, *, seconds: float | None = None) -> Content:
    """Return what a report of the run shows.

    Raises:
        SpecError: the ledger has no such run.
    """
    run = next((run for run in ledger.runs() if run.id == run_id), None)
    if run is None:
        raise SpecError(f"The ledger has no run {run_id}.")
    study = ledger.study(run_id)
    measurements = ledger.measurements(run_id)
    predictions = _kept(ledger, run_id, study, PREDICTION, "r")
    content = Content(
        study=study,
        curves=ledger.curves(run_id),
        measurements=measurements,
        costs=ledger.costs(run_id),
        decisions=decide(study, measurements),
        pictures=fitting(
            [picture for attack in pictured(study) for picture in _pictures(ledger, run_id, study, attack)]
        ),
        confidences=tuple(_confidences(ledger, run_id, study)),
        drawn=tuple(_drawn(ledger, run_id, study)),
        predictions=predictions,
        maps=gain_maps(study, measurements, predictions),
        gains=_kept(ledger, run_id, study, GAIN, "interval"),
        versions=run.versions,
        command=run.command,
        seconds=(run.seconds or 0.0) if seconds is None else seconds,
        created=run.started,
    )
    labels = dict.fromkeys(column.label for column in deciding(content))
    found = (each for label in labels for each in _survivors(ledger, run_id, measurements, label))
    return replace(content, survivors=tuple(found))


def pictured(study: Study) -> list[str]:
    """Return the labels of the attacks that are pictured: one of each function, the one that most claims are about.

    Of a study with none of these functions, its first attack.
    """
    planned = {label: plan.attack.name for trial in study.trials for label, plan in trial.attacks.items()}
    named = Counter(claim.attack for claim in study.claims if claim.contrasts)
    named.update(
        cell.attack
        for claim in study.claims
        for contrast in claim.contrasts
        for cell in (contrast.left, contrast.right)
        if cell.attack
    )
    chosen = [
        max(labels, key=lambda label: named[label])
        for function in PICTURED
        if (labels := [label for label, name in planned.items() if name == function])
    ]
    return chosen or list(planned)[:1]


def fitting(pictures: Sequence[Picture], *, pixels: int = MOST_PIXELS) -> tuple[Picture, ...]:
    """Return the pictures with as many strengths each as ``pixels`` in all allow, and at least one."""
    strengths = SHOWN_EPS

    def size(picture: Picture) -> int:
        return picture.original[0].size * (1 + 2 * min(strengths, len(picture.adversarial)))

    while strengths > 1 and sum(map(size, pictures)) > pixels:
        strengths -= 1
    return tuple(replace(picture, adversarial=tuple(over(picture.adversarial, strengths))) for picture in pictures)


def over(found: Sequence[T], count: int) -> list[T]:
    """Return at most ``count`` of what was found, evenly spread, the last one among them.

    >>> over([1, 2, 3, 4, 5], 4), over([1, 2, 3, 4], 1), over([], 4)
    ([2, 3, 4, 5], [4], [])
    """
    count = min(count, len(found))
    return [found[math.ceil((k + 1) * len(found) / count) - 1] for k in range(count)]


def _confidences(ledger: Ledger, run_id: int, study: Study) -> list[Confidence]:
    """Return the class probabilities of the first seed's last network of each cell, of the first such examination."""
    label = next(iter(_labels(study, CALIBRATION)), None)
    found: list[Confidence] = []
    for place, arrays in _first_networks(ledger, run_id, label) if label else ():
        if "probabilities" in arrays and "labels" in arrays:
            numbers = counted(arrays["probabilities"], arrays["labels"])
            cell = (place.architecture, place.condition)
            found.append(Confidence(*cell, place.label, place.seed, place.epoch, *numbers))
    return sorted(found, key=_order(study))


def _drawn(ledger: Ledger, run_id: int, study: Study) -> list[Drawn]:
    """Return what the first seed's last network of each cell kept to be drawn, examination by examination."""
    return [
        found
        for name in (SPECTRUM, BOUNDARY, SIMILARITY)
        for label in _labels(study, name)
        for found in sorted(
            (
                Drawn(place.architecture, place.condition, label, name, place.seed, place.epoch, arrays)
                for place, arrays in _first_networks(ledger, run_id, label)
            ),
            key=_order(study),
        )
    ]


def _kept(ledger: Ledger, run_id: int, study: Study, name: str, needed: str) -> tuple[Drawn, ...]:
    """Return what examinations of one function kept of each last network of each cell, where an array is among it."""
    found: list[Drawn] = []
    for label in _labels(study, name):
        own: list[Drawn] = []
        for place, stored in _last(list(ledger.artefacts(run_id, label))):
            arrays = _arrays(ledger, stored)
            if needed in arrays:
                cell = (place.architecture, place.condition)
                own.append(Drawn(*cell, label, name, place.seed, place.epoch, arrays))
        found += sorted(own, key=lambda each: (*_order(study)(each), each.seed))
    return tuple(found)


def _survivors(ledger: Ledger, run_id: int, measurements: Sequence[Measurement], label: str) -> list[Survivors]:
    """Return which images each last network of each cell gets right after one attack or examination.

    An attack, a transfer and an audit keep the smallest eps that broke an image, of a random network by the majority of
    its draws. AutoAttack keeps whether an image stands; of a random network it decides that by one draw, with which it
    stopped when it was lucky, so that nothing is returned.
    """
    lucky = {
        (m.architecture, m.condition, m.seed, m.epoch)
        for m in measurements
        if (m.attack, m.measure) == (label, "A_eps_drawn")
    }
    found: list[Survivors] = []
    for place, stored in _last(list(ledger.artefacts(run_id, label))):
        arrays = _arrays(ledger, stored)
        if "critical_eps" in arrays:
            images = arrays["critical_eps"] > EIGHT + SAME
        elif "robust" in arrays and (place.architecture, place.condition, place.seed, place.epoch) not in lucky:
            images = arrays["robust"]
        else:
            continue
        found.append(Survivors(place.architecture, place.condition, label, place.seed, place.epoch, images))
    return found


def _last(placed: list[tuple[Placement, Stored]]) -> list[tuple[Placement, Stored]]:
    """Return those of the last epoch of their cell."""
    last: dict[tuple[str, str], int] = {}
    for place, _ in placed:
        cell = (place.architecture, place.condition)
        last[cell] = max(last.get(cell, 0), place.epoch)
    return [found for found in placed if found[0].epoch == last[found[0].architecture, found[0].condition]]


def _arrays(ledger: Ledger, stored: Stored) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(ledger.read(stored)), allow_pickle=False) as arrays:
        return dict(arrays)


def _labels(study: Study, examination: str) -> list[str]:
    planned = {label: plan for trial in study.trials for label, plan in trial.examinations.items()}
    return [label for label, plan in planned.items() if plan.examination.name == examination]


def _first_networks(ledger: Ledger, run_id: int, label: str) -> list[tuple[Placement, dict[str, NDArray[Any]]]]:
    """Return what was kept under a label of the first seed's last network of each cell."""
    chosen: dict[tuple[str, str], tuple[Placement, Stored]] = {}
    for place, stored in ledger.artefacts(run_id, label):
        cell = (place.architecture, place.condition)
        if cell not in chosen or (-place.epoch, place.seed) < (-chosen[cell][0].epoch, chosen[cell][0].seed):
            chosen[cell] = (place, stored)
    return [(place, _arrays(ledger, stored)) for place, stored in chosen.values()]


def _order(study: Study) -> Callable[[Picture | Confidence | Drawn], tuple[str, int]]:
    order = {name: number for number, name in enumerate(study.conditions)}
    return lambda found: (found.architecture, order.get(found.condition, len(order)))


def _pictures(ledger: Ledger, run_id: int, study: Study, attack: str) -> list[Picture]:
    """Return the first kept test image of each cell, as the first seed's last network was attacked."""
    found: dict[tuple[str, str], Picture] = {}
    for place, stored in _last(list(ledger.artefacts(run_id, attack))):
        cell = (place.architecture, place.condition)
        if cell in found:
            continue
        arrays = _arrays(ledger, stored)
        if len(arrays["originals"]):
            names = study.classes.get(place.condition, ())
            found[cell] = _picture(place.architecture, place.condition, attack, arrays, names)
    return sorted(found.values(), key=_order(study))


def _picture(
    architecture: str, condition: str, attack: str, arrays: dict[str, NDArray[Any]], names: tuple[str, ...]
) -> Picture:
    def name(number: NDArray[np.generic]) -> str:
        index = int(number)
        return names[index] if index < len(names) else str(index)

    eps = [float(value) for value in arrays["eps"]]
    start = eps.index(0.0) if 0.0 in eps else 0
    attacked = [index for index, value in enumerate(eps) if value > 0]
    chosen = over(attacked, SHOWN_EPS)
    return Picture(
        condition=condition,
        architecture=architecture,
        attack=attack,
        original=arrays["originals"][0].astype(np.float32),
        label=name(arrays["labels"][0]),
        prediction=name(arrays["prediction"][start, 0]),
        adversarial=tuple(
            Shown(eps[index], arrays["adversarial"][index, 0].astype(np.float32), name(arrays["prediction"][index, 0]))
            for index in chosen
        ),
    )
