"""A name becomes images in [0, 1] and labels: fixed splits, the same bytes every time."""

from collections.abc import Callable
from pathlib import Path

from unperturbed.data.catalogue import CATALOGUE, RECORDINGS, Listed, Verified, fetch, instructions, listing, verify
from unperturbed.data.cifar10 import cifar10
from unperturbed.data.digits import digits
from unperturbed.data.files import Places
from unperturbed.data.fusion import fusion
from unperturbed.data.mnist import mnist
from unperturbed.data.photographs import photographs
from unperturbed.data.recorded import (
    SIMULATED,
    Repetitions,
    faces_houses_eeg,
    recorded_repetitions,
    simulated_eeg,
    subject_of,
    things_eeg2,
)
from unperturbed.data.settings import resolve
from unperturbed.data.split import Dataset, Part, Split
from unperturbed.records import Spec

__all__ = [
    "CATALOGUE",
    "DATASETS",
    "RECORDINGS",
    "SIMULATED",
    "Dataset",
    "Listed",
    "Part",
    "Repetitions",
    "Split",
    "Verified",
    "check_spec",
    "fetch",
    "instructions",
    "listing",
    "load",
    "recorded_repetitions",
    "subject_of",
    "verify",
]

DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": digits,
    "photographs": photographs,
    "mnist": mnist,
    "cifar10": cifar10,
    "fusion": fusion,
    "simulated-eeg": simulated_eeg,
    "things-eeg2": things_eeg2,
    "faces-houses-eeg": faces_houses_eeg,
}


def check_spec(spec: Spec) -> Spec:
    """Return ``spec`` with every default written out; nothing is loaded.

    Raises:
        SpecError: unknown name or setting, or a value of the wrong type or out of its range.

    >>> check_spec(Spec(name="fusion", settings={"alpha": 1})).settings["alpha"]
    1.0
    """
    return resolve(DATASETS, spec)


def load(spec: Spec, *, root: Path | None = None, accept_inexact: bool = False) -> Dataset:
    """Return the named data set; the network is never touched.

    Args:
        spec: a name in ``DATASETS`` with settings; defaults are filled in.
        root: a folder with data files, searched before ``UNPERTURBED_DATA`` and the cache.
        accept_inexact: take files that are not the official ones, and say so in the remarks.

    Raises:
        SpecError: as ``check_spec``, or a file that is missing, damaged or not the official one.

    >>> [len(load(Spec(name="digits")).train), len(load(Spec(name="photographs")).test)]
    [1297, 500]
    """
    full = check_spec(spec)
    return DATASETS[full.name](Places(root, accept_inexact), **full.settings)
