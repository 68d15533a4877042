"""What data sets there are, where they lie, whether they are the official ones, and how to get them."""

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pooch

from unperturbed.data.cifar10 import FILES as CIFAR10_FILES
from unperturbed.data.digits import read_digits
from unperturbed.data.files import Found, OfficialFile, OfficialSet, fetch_files, find, unpacked
from unperturbed.data.mnist import FILES as MNIST_FILES
from unperturbed.data.photographs import read_photographs
from unperturbed.data.split import faded
from unperturbed.records import SpecError
from unperturbed.registry import lookup

State = Literal["official", "inexact", "damaged", "missing"]


class Entry(NamedTuple):
    """What is known of a data set without loading it."""

    kind: Literal["digits", "objects", "mixture"]
    train: int
    test: int
    licence: str
    citation: str
    files: OfficialSet | None = None  # None: nothing on disk but installed packages
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
    for name, entry in CATALOGUE.items():
        found, where, exact = True, f"comes with {entry.comes_with}", True
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

    A set that comes with a package is one row: its digest with default settings, compared with the known one.

    Raises:
        SpecError: an unknown name.
    """
    entry = lookup("data set", CATALOGUE, name)
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
        SpecError: an unknown name, or a download that failed or is not the official file.
    """
    entry = lookup("data set", CATALOGUE, name)
    if entry.files is None:
        return []
    folder = root or Path(os.environ.get("UNPERTURBED_DATA") or pooch.os_cache("unperturbed"))
    return fetch_files(entry.files, folder / name, mirror=mirror, progress=progress)
