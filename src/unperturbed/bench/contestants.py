"""Who takes part in a case of the benchmark: our attacks and those of peers, as functions to be timed and judged."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturbed.attacks import ATTACKS, Evidence, judge, sweep
from unperturbed.bench.networks import Counted, Network
from unperturbed.bench.peers import PEERS, Task, prepare
from unperturbed.records import SpecError

OURS = "unperturbed"
IMAGES = 512
CURVE_STEPS = 40  # of the PGD that the curve of one run is compared with
ANY_RADII = (0.1, 1.0)  # distances do not depend on them

REMARKS = {"carlini_wagner": "the first constant is told by the gradient (initial_const=None); theirs is 0.001"}

Run = Callable[[], Any]


class Case(NamedTuple):
    """One attack in one budget, on some networks."""

    name: str
    task: Task
    networks: tuple[str, ...] = ("digits", "undefended")
    images: int = IMAGES
    peers: bool = True
    curve: tuple[float, ...] = ()  # radii at which the distances of one run are read, beside PGD
    inherit: bool = True  # whether an image broken at one radius counts as broken at the larger ones, for every library


class Outcome(NamedTuple):
    """What one library did to one network: for every image."""

    broken: NDArray[np.bool_] | None = None  # (radii, images) of a curve, as judged
    distance: NDArray[np.float64] | None = None  # (images,) inf: not broken
    note: str = ""


class Contestant(NamedTuple):
    """A library that is ready: ``run`` is what is timed, ``judged`` makes an outcome of what it returned."""

    library: str
    version: str
    run: Run
    judged: Callable[[Any], Outcome]
    counted: Counted
    note: str = ""


def contestants(case: Case, network: Network) -> tuple[list[Contestant], list[tuple[str, str]]]:
    """Return who takes part, and who does not and why."""
    present: list[Contestant] = []
    missing: list[tuple[str, str]] = []
    for library in (OURS, *PEERS):
        if library != OURS and not (case.peers and PEERS[library].can(case.task)):
            continue
        try:
            present.append(_ours(case, network) if library == OURS else _peer(library, case.task, network))
        except SpecError as error:
            missing.append((library, str(error)))
    if case.curve and present:
        task = Task("pgd", case.task.norm, case.curve, steps=CURVE_STEPS)
        reference = _ours(Case(case.name, task), network)
        present.append(reference._replace(library=f"{OURS} pgd"))
    return present, missing


def _ours(case: Case, network: Network) -> Contestant:
    counted = Counted(network.classifier).eval()
    make = _protocol if case.task.attack == "autoattack" else _sweep
    run, judged = make(case, network, counted)
    return Contestant(OURS, version(OURS), run, judged, counted, REMARKS.get(case.task.attack, ""))


def _sweep(case: Case, network: Network, counted: Counted) -> tuple[Run, Callable[[Any], Outcome]]:
    task = case.task
    if task.attack not in ATTACKS:
        raise SpecError(f"{OURS}: there is no attack {task.attack!r} yet")
    attack = ATTACKS[task.attack]
    eps = (0.0, *(task.eps or case.curve or ANY_RADII))

    def run() -> Evidence:
        return sweep(
            counted,
            network.images,
            network.labels,
            attack,
            eps=eps,
            norm=task.norm,
            inherit=case.inherit,
            **settings(task),
        )

    def judged(evidence: Evidence) -> Outcome:
        note = "; ".join(evidence.remarks)
        if task.eps:
            return Outcome(broken=~evidence.correct[1:], note=note)
        return Outcome(distance=evidence.critical_eps, note=note)

    return run, judged


def settings(task: Task) -> dict[str, Any]:
    """Return the settings of our attack for the budget of the task."""
    if task.attack == "fgsm":
        return {}
    if task.attack == "carlini_wagner":
        return {"steps": task.steps, "binary_search_steps": task.searches, "initial_const": None}
    return {"steps": task.steps}


def _protocol(case: Case, network: Network, counted: Counted) -> tuple[Run, Callable[[Any], Outcome]]:
    task = case.task
    try:
        autoattack = import_module("unperturbed.attacks.protocols").autoattack
    except ImportError as error:
        raise SpecError(f"{OURS}: autoattack is not there yet ({error})") from error

    def run() -> Any:
        return autoattack(counted, network.images, network.labels, norm=task.norm, eps=task.eps[0])

    return run, lambda result: _judged([result.images], task, network)


def _peer(library: str, task: Task, network: Network) -> Contestant:
    counted = Counted(network.classifier).eval()
    attack = prepare(library, counted, network.images, task)
    peer = PEERS[library]

    def run() -> list[Tensor]:
        return attack(network.images.clone(), network.labels.clone())

    return Contestant(
        library,
        peer.version,
        run,
        lambda found: _judged(found, task, network),
        counted,
        peer.remarks.get(task.attack, ""),
    )


def _judged(found: list[Tensor], task: Task, network: Network) -> Outcome:
    """Return what our judge says of the images that a library returned."""
    eps = task.eps or (None,)
    verdicts = [
        judge(network.classifier, network.images, network.labels, images.detach(), norm=task.norm, eps=radius)
        for images, radius in zip(found, eps, strict=True)
    ]
    refused = sum(int((~(each.in_ball & each.in_box)).sum()) for each in verdicts)
    note = f"{refused} images outside the ball or [0, 1]" if refused else ""
    if not task.eps:
        (verdict,) = verdicts
        distance = torch.where(verdict.success, verdict.distance.double(), torch.inf)
        return Outcome(distance=distance.numpy(), note=note)
    return Outcome(broken=torch.stack([each.success for each in verdicts]).numpy(), note=note)
