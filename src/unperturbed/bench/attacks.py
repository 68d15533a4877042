"""The same attacks in this library and in others: seconds, passes counted from outside, and what was reached.

Same network, images, labels, budget and threads; the libraries run in turn, so that a machine whose speed drifts is
fair to all. Peers get images out and are judged for nothing; our time contains our own judge. A pass is one image
going forward or a gradient coming back, counted by a module around the network. What a peer returned is judged by our
judge. In a curve, an image that broke at one radius counts as broken at the larger ones, for every library; only in the
published form of FGSM every radius stands for itself. Distances are means over the images that were broken by every
library that broke most.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from unperturbed.attacks import ATTACKS
from unperturbed.bench.contestants import CURVE_STEPS, IMAGES, OURS, Case, Contestant, Outcome, contestants, settings
from unperturbed.bench.networks import NETWORKS, Network, owed
from unperturbed.bench.peers import Task
from unperturbed.bench.rows import Row, markdown, table
from unperturbed.records import SpecError
from unperturbed.registry import lookup
from unperturbed.tensors.streams import undisturbed

__all__ = ["CASES", "Case", "Row", "markdown", "measure", "table"]

Progress = Callable[[str, float, float | None], None]
"""What is being done, the fraction that is done, and the seconds left, which are not known."""

FEW = 128  # images of AutoAttack on a network that withstands it
THREADS = 2
WARM_UP = 8  # images that go through every library before the clock starts
LONG = 100.0  # seconds: what takes longer is timed once
SHORT, OFTEN = 1.0, 5  # what takes less is timed so often in every round but the first
RADII = (0.0125, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
RADII_L2 = (0.1, 0.25, 0.5, 0.75, 1.0, 2.0, 3.0, 4.0)
MOST = 0.9  # of the images that were right: who breaks fewer has no mean distance, and makes none for the others


CASES = (
    Case("fgsm", Task("fgsm", "linf", RADII), inherit=False),
    Case("fgsm_inherited", Task("fgsm", "linf", RADII)),
    Case("pgd", Task("pgd", "linf", RADII, steps=40)),
    Case("apgd", Task("apgd", "linf", RADII, steps=100)),
    Case("carlini_wagner", Task("carlini_wagner", "l2", steps=100, searches=9)),
    Case("deepfool", Task("deepfool", "l2", steps=50)),
    Case("ddn", Task("ddn", "l2", steps=100)),
    Case("fmn", Task("fmn", "linf", steps=100)),
    Case("fmn", Task("fmn", "l2", steps=100)),
    Case("autoattack", Task("autoattack", "linf", (8 / 255,)), ("undefended",)),
    Case("autoattack", Task("autoattack", "linf", (8 / 255,)), ("PGD-trained",), images=FEW),
    Case("curve", Task("fmn", "linf", steps=100), peers=False, curve=RADII),
    Case("curve", Task("ddn", "l2", steps=100), peers=False, curve=RADII_L2),
)


class _Timed(NamedTuple):
    seconds: list[float]
    forwards: float
    backwards: float
    outcome: Outcome


def measure(
    *,
    repeats: int = 3,
    only: str | None = None,
    images: int = IMAGES,
    root: Path | None = None,
    progress: Progress | None = None,
    on_case: Callable[[list[Row]], None] = lambda _rows: None,
) -> list[Row]:
    """Return what every library does in every case.

    Args:
        repeats: timed runs of each, in turn; of what takes longer than 100 s, one.
        only: the name of a case; ``None``: all.
        images: test images, as far as there are so many.
        root: a folder with CIFAR-10; ``None``: as for every command, and the embedded photographs if it is not there.
        progress: told what is being done.
        on_case: given all rows so far whenever a case is done.

    Raises:
        SpecError: no repeats, no images, or no case of that name.
    """
    if repeats < 1 or images < 1:
        raise SpecError(f"bench attacks: expected repeats and images of at least 1; got {repeats} and {images}")
    if only is not None:
        lookup("case", {case.name: case for case in CASES}, only)
    jobs = [(case, name) for case in CASES if only in (None, case.name) for name in case.networks]
    built: dict[str, Network] = {}
    rows: list[Row] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        for done, (case, name) in enumerate(jobs):

            def tell(doing: str, done: int = done, case: Case = case, name: str = name) -> None:
                if progress is not None:
                    progress(f"{case.name}, {name}: {doing}", done / len(jobs), None)

            if name not in built:
                tell("building the network")
                built[name] = lookup("network", NETWORKS, name)(images, root)
            rows += _measure(case, built[name], min(images, case.images), repeats, tell)
            on_case(rows)
    finally:
        torch.set_num_threads(threads)
    return rows


def _measure(case: Case, network: Network, count: int, repeats: int, tell: Callable[[str], None]) -> list[Row]:
    network = network._replace(images=network.images[:count], labels=network.labels[:count])
    present, missing = contestants(case, network)
    for contestant in present:
        tell(f"{contestant.library} warms up")
        _warm(contestant, network)
    timed, failed = _in_turn(present, network, repeats, tell)
    clean = _clean(network)
    everywhere = _broken_by_all([each.outcome for each in timed.values()], clean)
    rows = [_row(case, network, present[place], each, clean, everywhere) for place, each in sorted(timed.items())]
    due = next((_owed(case, network, row.accuracy) for row in rows if row.library == OURS), None)
    return [*_compared(rows, due), *(_absent(case, network, library, reason) for library, reason in missing + failed)]


def _clean(network: Network) -> NDArray[np.bool_]:
    """Return which images are classified right when nothing is done to them."""
    with torch.no_grad():
        return (network.classifier(network.images).argmax(dim=1) == network.labels).numpy()


def _in_turn(
    present: Sequence[Contestant], network: Network, repeats: int, tell: Callable[[str], None]
) -> tuple[dict[int, _Timed], list[tuple[str, str]]]:
    """Return what each did by its place, and who failed and how."""
    timed: dict[int, _Timed] = {}
    failed: dict[int, tuple[str, str]] = {}
    for repeat, (place, contestant) in itertools.product(range(repeats), enumerate(present)):
        if place in failed or (place in timed and timed[place].seconds[0] > LONG):
            continue
        tell(f"{contestant.library}, run {repeat + 1}")
        short = place in timed and timed[place].seconds[0] < SHORT
        try:
            for _ in range(OFTEN if short else 1):
                taken, result = _run_once(contestant, network, repeat)
                if place in timed:
                    timed[place].seconds.append(taken)
                else:
                    forwards, backwards = (number / len(network.labels) for number in contestant.counted.passes)
                    timed[place] = _Timed([taken], forwards, backwards, contestant.judged(result))
        except Exception as error:  # the others may have run for an hour
            timed.pop(place, None)
            failed[place] = contestant.library, f"failed: {type(error).__name__}: {' '.join(str(error).split())}"
    return timed, list(failed.values())


def _run_once(contestant: Contestant, network: Network, repeat: int) -> tuple[float, object]:
    contestant.counted.reset()
    with undisturbed("bench attacks", repeat):
        began = time.perf_counter()
        result = contestant.run()
        taken = time.perf_counter() - began
    network.classifier.zero_grad(set_to_none=True)  # some leave gradients behind
    contestant.counted.eval()
    return taken, result


def _warm(contestant: Contestant, network: Network) -> None:
    """Touch the network as an attack does, so that no library pays for what PyTorch does once."""
    images = network.images[:WARM_UP].clone().requires_grad_()
    for _ in range(3):
        contestant.counted(images).sum().backward()
    network.classifier.zero_grad(set_to_none=True)


def _owed(case: Case, network: Network, left: tuple[float, ...]) -> tuple[float, float] | None:
    """Return the forwards and backwards per image that the case owes, where that can be counted.

    ``left`` is the accuracy at 0 and at every radius.
    """
    task = case.task
    if not case.inherit:
        return 1.0 + len(task.eps), 1.0
    if task.attack == "fgsm":
        return 1.0 + sum(left[:-1]), left[0]
    if task.attack not in ("pgd", "apgd"):
        return None
    return owed(network, ATTACKS[task.attack], norm=task.norm, eps=task.eps, **settings(task))


def _breaks_most(distance: NDArray[np.float64] | None, clean: NDArray[np.bool_]) -> bool:
    return distance is not None and bool(clean.any()) and float(np.isfinite(distance[clean]).mean()) >= MOST


def _broken_by_all(outcomes: Sequence[Outcome], clean: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the images that were right and were broken by every library that broke most."""
    distances = [each.distance for each in outcomes if _breaks_most(each.distance, clean)]
    return np.logical_and.reduce([clean, *(np.isfinite(each) for each in distances if each is not None)])


def _row(
    case: Case,
    network: Network,
    contestant: Contestant,
    timed: _Timed,
    clean: NDArray[np.bool_],
    everywhere: NDArray[np.bool_],
) -> Row:
    task, outcome = case.task, timed.outcome
    radii = task.eps or case.curve
    distance = outcome.distance
    if outcome.broken is not None:
        broken = outcome.broken
    else:
        broken = np.stack([distance <= radius for radius in radii]) if distance is not None and radii else None
    curve: tuple[float, ...] = ()
    if broken is not None:
        every = np.vstack([~clean, broken])
        carried = np.logical_or.accumulate(every, axis=0) if case.inherit else every
        curve = tuple(float(accuracy) for accuracy in 1 - carried.mean(axis=1))
    right = distance[clean] if distance is not None else None
    return Row(
        case=case.name,
        network=network.name,
        library=contestant.library,
        version=contestant.version,
        attack=task.attack,
        norm=task.norm,
        n=len(network.labels),
        runs=len(timed.seconds),
        seconds=statistics.median(timed.seconds),
        ratio=None,
        forwards=timed.forwards,
        backwards=timed.backwards,
        owed=None,
        eps=(0.0, *radii) if curve else (),
        accuracy=curve,
        distance=float(distance[everywhere].mean()) if distance is not None and _breaks_most(distance, clean) else None,
        median=_finite(float(np.median(right))) if right is not None and len(right) else None,
        found=float(np.isfinite(right).mean()) if right is not None and len(right) else None,
        note="; ".join(part for part in (contestant.note, outcome.note) if part),
    )


def _finite(number: float) -> float | None:
    return number if np.isfinite(number) else None


def _compared(rows: list[Row], due: tuple[float, float] | None) -> list[Row]:
    """Return the rows with what can only be said beside ours: ratios, the largest excess of accuracy, agreement."""
    ours = next((row for row in rows if row.library == OURS), None)
    if ours is None or ours.seconds is None:
        return rows
    seconds = ours.seconds
    compared: list[Row] = []
    for row in rows:
        note = row.note
        others = [other.accuracy for other in rows if other is not row and other.accuracy]
        if row is ours and ours.accuracy and others:
            if ours.case == "curve":
                gap = max(abs(a - b) for a, b in zip(ours.accuracy, others[0], strict=True))
                said = f"largest difference to PGD-{CURVE_STEPS}: {100 * gap:.1f} points"
            else:
                best = np.min(others, axis=0)
                said = f"largest excess over the best peer: {100 * float(np.max(ours.accuracy - best)):+.1f} points"
            note = "; ".join(part for part in (note, said) if part)
        ratio = row.seconds / seconds if row.seconds is not None else None
        compared.append(row._replace(ratio=ratio, note=note, owed=due if row is ours else None))
    return compared


def _absent(case: Case, network: Network, library: str, reason: str) -> Row:
    nothing = dict.fromkeys(("seconds", "ratio", "forwards", "backwards", "owed", "distance", "median", "found"), None)
    return Row(
        case=case.name,
        network=network.name,
        library=library,
        version="",
        attack=case.task.attack,
        norm=case.task.norm,
        n=len(network.labels),
        runs=0,
        eps=(),
        accuracy=(),
        note=reason,
        **nothing,
    )
