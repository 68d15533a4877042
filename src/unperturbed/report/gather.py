"""A run's rows and pictures, out of the ledger: all that a report shows, with nothing computed by a network."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray

from unperturbed.ledger import Ledger
from unperturbed.records import SpecError, Study
from unperturbed.report.content import Content, Picture, Shown
from unperturbed.statistics import decide

SHOWN_EPS = 4  # strengths that a picture shows, spread over those that were run
PICTURED = ("fgsm", "pgd-linf")


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
    return Content(
        study=study,
        curves=ledger.curves(run_id),
        measurements=measurements,
        costs=ledger.costs(run_id),
        decisions=decide(study, measurements),
        pictures=tuple(picture for attack in PICTURED for picture in _pictures(ledger, run_id, study, attack)),
        versions=run.versions,
        command=run.command,
        seconds=(run.seconds or 0.0) if seconds is None else seconds,
        created=run.started,
    )


def _pictures(ledger: Ledger, run_id: int, study: Study, attack: str) -> list[Picture]:
    """Return the first kept test image of each cell, as the first seed's last network was attacked."""
    placed = list(ledger.artefacts(run_id, attack))
    last: dict[tuple[str, str], int] = {}
    for place, _ in placed:
        cell = (place.architecture, place.condition)
        last[cell] = max(last.get(cell, 0), place.epoch)
    found: dict[tuple[str, str], Picture] = {}
    for place, stored in placed:
        cell = (place.architecture, place.condition)
        if cell in found or place.epoch != last[cell]:
            continue
        with np.load(io.BytesIO(ledger.read(stored)), allow_pickle=False) as arrays:
            if len(arrays["originals"]):
                names = study.classes.get(place.condition, ())
                found[cell] = _picture(place.architecture, place.condition, attack, dict(arrays), names)
    order = {name: number for number, name in enumerate(study.conditions)}
    return sorted(found.values(), key=lambda picture: (picture.architecture, order.get(picture.condition, 0)))


def _picture(
    architecture: str, condition: str, attack: str, arrays: dict[str, NDArray[np.generic]], names: tuple[str, ...]
) -> Picture:
    def name(number: NDArray[np.generic]) -> str:
        index = int(number)
        return names[index] if index < len(names) else str(index)

    eps = [float(value) for value in arrays["eps"]]
    start = eps.index(0.0) if 0.0 in eps else 0
    attacked = [index for index, value in enumerate(eps) if value > 0]
    chosen = [
        attacked[math.ceil((k + 1) * len(attacked) / SHOWN_EPS) - 1] for k in range(min(SHOWN_EPS, len(attacked)))
    ]
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
