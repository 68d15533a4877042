"""The curve of accuracy over eps, image by image, and R beneath it.

One smallest-perturbation attack (FMN) tells how near the nearest misclassified image is; at every radius, what is still
standing is attacked again within that radius. A critical eps is an upper bound: the smallest distance at which the
deployed classifier was seen to fail.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from unperturbed.attacks.inputs import ROUND_OFF
from unperturbed.audit.case import Case, Guide
from unperturbed.audit.record import Point
from unperturbed.measures import robustness
from unperturbed.records import SpecError
from unperturbed.tensors.norms import length, wide

PARTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
STEPS = 20


class Curve(NamedTuple):
    """Accuracy over eps, R up to the last radius, and the critical eps of every image."""

    points: tuple[Point, ...]
    R: float | None
    upto: float
    critical: tuple[float, ...]


def curve(case: Case, guide: Guide | None) -> Curve:
    """Return the curve on the multiples of eps above; what it finds within eps is counted in the case."""
    critical = torch.full((len(case.labels),), torch.inf, dtype=torch.float64, device=case.images.device)
    critical[case.clean_right <= 0.5] = 0.0
    _lower(case, critical, case.correct(), case.worst[case.correct()])
    whole = 1.0 if case.norm == "linf" else float(case.images[0].numel()) ** 0.5
    radii = sorted({min(part * case.eps, whole) for part in PARTS})
    _smallest(case, guide, critical)
    for radius in radii[1:]:
        if radius != case.eps:  # at eps itself everything has been tried already
            _within(case, guide, critical, radius)
    points = tuple(Point(radius, float((critical > radius + ROUND_OFF).double().mean())) for radius in radii)
    area = None
    if points[0].accuracy > 0:
        area = float(robustness([point.eps for point in points], [point.accuracy for point in points]))
    return Curve(points, area, radii[-1], tuple(critical.tolist()))


def _smallest(case: Case, guide: Guide | None, critical: Tensor) -> None:
    rows = (critical > 0).nonzero().squeeze(1)
    if len(rows) == 0:
        return
    try:
        found = case.perturb("fmn", rows, guide=guide, steps=100)
    except SpecError:
        return
    case.take(rows, found, "fmn", guide)
    _lower(case, critical, rows, found)


def _within(case: Case, guide: Guide | None, critical: Tensor, radius: float) -> None:
    rows = (critical > radius + ROUND_OFF).nonzero().squeeze(1)
    if len(rows) == 0:
        return
    try:
        found = case.perturb("pgd", rows, guide=guide, eps=radius, steps=STEPS, loss="margin", random_start=False)
    except SpecError:
        return
    _lower(case, critical, rows, found)


def _lower(case: Case, critical: Tensor, rows: Tensor, found: Tensor) -> None:
    if len(rows) == 0:
        return
    change = found.to(wide(found.dtype)) - case.images[rows].to(wide(found.dtype))
    distance = length(change, norm=case.norm)
    right, _ = case.fraction_right(rows, found, "curve", eps=float(distance.max()))
    critical[rows] = torch.where(right <= 0.5, torch.minimum(critical[rows], distance), critical[rows])
