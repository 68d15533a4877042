"""One trial, on one screen: learn, train, then attack and examine, each stage recorded before the next begins.

A stage that the ledger holds is not computed again.
"""

from __future__ import annotations

from unperturbed.lab.courses import Station, courses
from unperturbed.lab.evaluation import attack_all, examine_all
from unperturbed.lab.weights import train_all
from unperturbed.records import Trial
from unperturbed.training import Diverged


def attempt(trial: Trial, station: Station) -> int | Diverged:
    """Return what :func:`run_trial` returns, or how the training diverged: the end of this trial, not of the run."""
    try:
        return run_trial(trial, station)
    except Diverged as error:
        return error


def run_trial(trial: Trial, station: Station) -> int:
    """Train, attack and measure every seed of ``trial``; return the number of stages that had to be computed.

    Raises:
        Stopped: the station said so; the present state of training is in the ledger.
        Diverged: training left the finite numbers.
    """
    lanes = courses(trial, station.datasets)
    computed = train_all([lane.training for lane in lanes], station)
    for lane in lanes:
        for epoch, stage in lane.training.items():
            cell = (trial.architecture, trial.condition, lane.seed, epoch)
            if stage.learned is not None:
                station.ledger.place(station.run, stage.learned.digest(), *cell, "learning")
            station.ledger.place(station.run, stage.digest(), *cell, "training")
        computed += attack_all(lane, trial, station)
        computed += examine_all(lane, trial, station)
    return computed
