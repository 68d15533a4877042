"""What data sets there are, where they lie, whether they are the official ones, and how to get them."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pooch

from unperturbed.data import imagenet_weights
from unperturbed.data.cifar10 import FILES as CIFAR10_FILES
from unperturbed.data.digits import read_digits
from unperturbed.data.files import (
    Examined,
    Found,
    OfficialFile,
    OfficialSet,
    fetch_files,
    find,
    folder_of,
    roots,
    unpacked,
)
from unperturbed.data.mnist import FILES as MNIST_FILES
from unperturbed.data.photographs import read_photographs
from unperturbed.data.recordings import things_eeg2
from unperturbed.data.recordings.faces_houses import FILES as FACES_HOUSES_FILES
from unperturbed.data.recordings.images92 import FILES as IMAGES92_FILES
from unperturbed.data.split import faded
from unperturbed.records import SpecError
from unperturbed.registry import lookup

State = Literal["official", "sound", "inexact", "damaged", "missing", "left out"]
"""``sound``: all there and of the right form, where the authors publish no checksums."""


class Entry(NamedTuple):
    """What is known of a data set without loading it."""

    kind: Literal["digits", "objects", "mixture", "recordings", "weights"]
    train: int
    test: int
    licence: str
    citation: str
    files: OfficialSet | None = None  # None: nothing on disk but installed packages, or ``instructions``
    instructions: str = ""  # what to download by hand, and where to
    examine: Callable[[Path], Iterable[Examined]] | None = None  # what was downloaded by hand
    comes_with: str = ""
    digest: str = ""  # of the data set with its default settings, where no files are needed


CATALOGUE: dict[str, Entry] = {
    "digits": Entry(
        kind="digits",
        train=1297,
        test=500,
        licence="CC BY 4.0",
        citation="E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998, doi:10.24432/C50P49",
        comes_with="scikit-learn",
        digest="06b6cfe75f51a86bd46eb635d1af3b4f5bf4d898c0fe6598a72026b05887fd99",
    ),
    "photographs": Entry(
        kind="objects",
        train=1300,
        test=500,
        licence="public domain, CC0 or free to use, see scikit-image's skimage.data",
        citation="S. van der Walt et al., scikit-image: image processing in Python, PeerJ 2:e453, 2014",
        comes_with="scikit-image",
        digest="826baf631ac7718d5a1c5935d8c8b83aecf6953c4d3b1fd949f97eb2237b4132",
    ),
    "mnist": Entry(
        kind="digits",
        train=60000,
        test=10000,
        licence="copyright Y. LeCun and C. Cortes; commonly given as CC BY-SA 3.0",
        citation="Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition, "
        "Proc. IEEE 86(11), 1998",
        files=MNIST_FILES,
    ),
    "cifar10": Entry(
        kind="objects",
        train=50000,
        test=10000,
        licence="none stated; the authors ask for the citation",
        citation="A. Krizhevsky, Learning multiple layers of features from tiny images, University of Toronto, 2009",
        files=CIFAR10_FILES,
    ),
    "fusion": Entry(
        kind="mixture",
        train=1297,
        test=500,
        licence="that of its parts",
        citation="M. Kunhardt, A. Deza, T. Poggio, arXiv:2102.10534, 2021",
        comes_with="its digit set and its object set",
    ),
}

RECORDINGS: dict[str, Entry] = {
    "things-eeg2": Entry(
        kind="recordings",
        train=16540,
        test=200,
        licence="see the project on osf.io/3jk45",
        citation="A. Gifford, K. Dwivedi, G. Roig, R. Cichy, A large and rich EEG dataset for modeling human visual "
        "object recognition, NeuroImage 264:119754, 2022",
        instructions=things_eeg2.INSTRUCTIONS,
        examine=things_eeg2.examine,
    ),
    "eeg-faces-houses": Entry(
        kind="recordings",
        train=1174,
        test=0,
        licence="BSD 3-clause",
        citation="A. Barachant, H. Banville and others, muse-lsl, 2017",
        files=FACES_HOUSES_FILES,
    ),
    "images92": Entry(
        kind="recordings",
        train=92,
        test=0,
        licence="MIT, with rsatoolbox; none stated for the photographs",
        citation="N. Kriegeskorte et al., Matching categorical object representations in inferior temporal cortex of "
        "man and monkey, Neuron 60, 2008",
        files=IMAGES92_FILES,
    ),
}
WEIGHTS: dict[str, Entry] = {
    imagenet_weights.NAME: Entry(
        kind="weights",
        train=0,
        test=0,
        licence="BSD 3-clause, with torchvision; that of ImageNet's photographs is for research",
        citation="TorchVision maintainers, TorchVision: PyTorch's computer vision library, 2016; K. He et al., "
        "arXiv:1512.03385, 2016",
        instructions=imagenet_weights.INSTRUCTIONS,
        examine=imagenet_weights.examine,
    ),
}
EVERYTHING = CATALOGUE | RECORDINGS | WEIGHTS


class Listed(NamedTuple):
    """A row of the list of data sets."""

    name: str
    kind: str
    found: bool
    where: str
    exact: bool | None  # None: not known, since no checksum was computed; False: a file has another name
    train: int
    test: int
    licence: str
    citation: str


class Verified(NamedTuple):
    """What one file of a data set is: ``expected`` and ``got`` are checksums, or ``got`` says what is wrong."""

    file: str
    where: str
    state: State
    expected: str
    got: str


def listing(root: Path | None = None) -> list[Listed]:
    """Return a row for each data set; files are looked for but not read.

    Args:
        root: a folder with data files, searched before ``UNPERTURBED_DATA`` and the cache.
    """
    rows: list[Listed] = []
    for name, entry in EVERYTHING.items():
        found, where, exact = True, f"comes with {entry.comes_with}", True
        if entry.instructions:
            folder, exact = folder_of(name, root), None
            found = folder.is_dir()
            where = str(folder) if found else f"not there: unperturbed data fetch {name} says what to download"
        if entry.files:
            places = find(entry.files, root)
            paths = [place.path for place in places.values() if place]
            found = len(paths) == len(places)
            lacking = next((file for file, place in places.items() if not place), "")
            where = str(paths[0].parent) if found else f"lacks {lacking}: unperturbed data fetch {name}"
            official = all(place and (place.member or place.path.name.startswith(f)) for f, place in places.items())
            exact = False if found and not official else None
        facts = (entry.train, entry.test, entry.licence, entry.citation)
        rows.append(Listed(name, entry.kind, found, where, exact, *facts))
    return rows


def verify(name: str, root: Path | None = None) -> list[Verified]:
    """Return a row for each file of the data set ``name``, read and compared with its official checksum.

    A set that comes with a package is one row: its digest with default settings, compared with the known one. A set
    without published checksums is read as a whole and compared with what its authors describe.

    Raises:
        SpecError: an unknown name.
    """
    entry = lookup("data set", EVERYTHING, name)
    if entry.examine:
        folder = folder_of(name, root)
        return [_described(folder / examined.name, examined) for examined in entry.examine(folder)]
    if entry.files:
        return [_verified(entry.files, file, find(entry.files, root)[file.name]) for file in entry.files.files]
    embedded = {"digits": lambda: read_digits("bilinear"), "photographs": read_photographs}
    rows: list[Verified] = []
    for part, collection in embedded.items():
        if name in (part, "fusion"):
            expected, got = CATALOGUE[part].digest, faded(part, collection(), 1.0).digest
            comes_with = CATALOGUE[part].comes_with
            rows.append(Verified(part, comes_with, "official" if got == expected else "inexact", expected, got))
    return rows


def _described(path: Path, examined: Examined) -> Verified:
    absent: State = "missing" if examined.needed else "left out"
    state: State = "sound" if not examined.problem else "damaged" if examined.there else absent
    return Verified(
        examined.name, str(path), state, "what its authors describe", examined.problem if examined.there else ""
    )


def _verified(official: OfficialSet, file: OfficialFile, place: Found | None) -> Verified:
    if place is None:
        return Verified(file.name, "", "missing", file.checksum, "")
    where = f"{place.path} ({place.member})" if place.member else str(place.path)
    try:
        (result,) = unpacked(official, {file.name: place})
    except SpecError as error:
        return Verified(file.name, where, "damaged", file.checksum, str(error))
    return Verified(file.name, where, "official" if result.exact else "inexact", file.checksum, result.checksum)


def fetch(name: str, root: Path | None = None, *, mirror: str | None = None, progress: Any = False) -> list[Path]:
    """Download the data set ``name`` and return its files; what is already there and right is left alone.

    Args:
        name: the data set; one that comes with a package needs nothing.
        root: where to; by default ``UNPERTURBED_DATA``, then the cache. The files go into a folder ``name`` below it.
        mirror: an address with the same files, used instead of the public one.
        progress: what pooch's ``HTTPDownloader`` takes as ``progressbar``.

    Raises:
        SpecError: an unknown name, a set that is to be downloaded by hand, or a download that failed or is not the
            official file.
    """
    entry = lookup("data set", EVERYTHING, name)
    if entry.instructions:
        raise SpecError(f"{name} is to be downloaded by hand; instructions({name!r}) says what, and where to put it.")
    if entry.files is None:
        return []
    folder = root or Path(os.environ.get("UNPERTURBED_DATA") or pooch.os_cache("unperturbed"))
    return fetch_files(entry.files, folder / name, mirror=mirror, progress=progress)


def instructions(name: str, root: Path | None = None) -> str:
    """Return what to download by hand for the data set ``name`` and where to put it; nothing if ``fetch`` does it.

    Args:
        name: the data set.
        root: the folder that shall hold the data set's own; by default ``UNPERTURBED_DATA``, then the cache.

    Raises:
        SpecError: an unknown name.
    """
    return lookup("data set", EVERYTHING, name).instructions.format(folder=roots(root)[0] / name)
