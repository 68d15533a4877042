"""Official data files: where they are looked for, how they are unpacked and checked, and how they are fetched.

A file is read only after its unpacked bytes had the checksum that its authors' distribution has. Any other file is
refused by name, unless inexact files are accepted; then a remark says so.
"""

import gzip
import hashlib
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, cast

import pooch

from unperturbed.records import SpecError

SUFFIXES = ("", ".gz", ".xz")
TORN = (EOFError, OSError, zlib.error, lzma.LZMAError, tarfile.TarError)


class Places(NamedTuple):
    """Where files are looked for besides the usual places, and whether inexact ones will do."""

    root: Path | None = None
    accept_inexact: bool = False


class OfficialFile(NamedTuple):
    """A file as its authors distribute it, unpacked."""

    name: str
    size: int  # bytes
    algorithm: Literal["md5", "sha1"]
    checksum: str
    lookalikes: str = ""  # pattern of names that are tried when the official name is not there


class Examined(NamedTuple):
    """A file or folder of a data set, and what is wrong with it: nothing if ``problem`` is empty."""

    name: str
    there: bool
    problem: str
    needed: bool = True  # or one that the set can do without


class Download(NamedTuple):
    """A file to fetch: its public address and the checksum of what comes, as ``algorithm:digits``."""

    name: str
    address: str
    checksum: str


class OfficialSet(NamedTuple):
    """The files of a data set, its folders below a data root, and what to fetch."""

    name: str
    folders: tuple[str, ...]
    files: tuple[OfficialFile, ...]
    downloads: tuple[Download, ...]
    archive: str = ""  # a .tar.gz that holds all files, read where they are not unpacked


class Found(NamedTuple):
    """A file on disk: ``member`` names it inside an archive."""

    path: Path
    member: str = ""


class Unpacked(NamedTuple):
    """The bytes of a file, where they came from and their checksum."""

    file: OfficialFile
    found: Found
    content: bytes
    checksum: str

    @property
    def exact(self) -> bool:
        """Whether this is the official file."""
        return self.checksum == self.file.checksum

    @property
    def difference(self) -> str:
        """In what it differs from the official file."""
        sizes = f" in {self.file.size} bytes" if len(self.content) != self.file.size else ""
        came = f" in {len(self.content)} bytes" if sizes else ""
        where = f"{self.found.path}{f' ({self.found.member})' if self.found.member else ''}"
        return (
            f"{where} is not the official file: expected {self.file.algorithm} {self.file.checksum}{sizes}, "
            f"got {self.checksum}{came}"
        )


def roots(root: Path | None) -> list[Path]:
    """Return the folders that hold data, in the order in which they are searched.

    Raises:
        SpecError: ``root`` is no folder.
    """
    if root is not None and not root.is_dir():
        raise SpecError(f"the data root {root} is not a folder; --data-root names a folder that holds data files.")
    places = [] if root is None else [root]
    if os.environ.get("UNPERTURBED_DATA"):
        places.append(Path(os.environ["UNPERTURBED_DATA"]))
    return [*places, Path(pooch.os_cache("unperturbed"))]


def folder_of(name: str, root: Path | None) -> Path:
    """Return the folder that holds the set ``name``, or the one to put it into."""
    folders = [place / name for place in roots(root)]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def find(official: OfficialSet, root: Path | None) -> dict[str, Found | None]:
    """Return where each file of ``official`` lies: the official name first, then the archive, then names like it."""
    folders = [place / folder for place in roots(root) for folder in official.folders]
    folders = [folder for folder in folders if folder.is_dir()]
    archives = [folder / official.archive for folder in folders if official.archive]
    archive = next((path for path in archives if path.is_file()), None)
    found: dict[str, Found | None] = {}
    for file in official.files:
        named = [folder / f"{file.name}{suffix}" for folder in folders for suffix in SUFFIXES]
        alike = [path for folder in folders for path in sorted(folder.glob(file.lookalikes))] if file.lookalikes else []
        path = next((path for path in named if path.is_file()), None)
        if path is None and archive is not None:
            found[file.name] = Found(archive, file.name)
            continue
        path = path or next((path for path in alike if path.is_file()), None)
        found[file.name] = None if path is None else Found(path)
    return found


def unpack(path: Path) -> bytes:
    """Return the unpacked bytes of ``path``: ``.gz`` and ``.xz`` are unpacked, anything else is read as it is.

    Raises:
        SpecError: the file is torn, damaged or cannot be read.
    """
    try:
        packed = path.read_bytes()
        if not packed:
            raise EOFError("it is empty")
        if path.suffix == ".gz":
            return gzip.decompress(packed)
        return lzma.decompress(packed) if path.suffix == ".xz" else packed
    except TORN as error:
        raise _torn(path, error) from error


def unpacked(official: OfficialSet, found: dict[str, Found]) -> Iterator[Unpacked]:
    """Yield the files found, unpacked and with their checksums; two are unpacked at a time.

    Raises:
        SpecError: a file is torn, or missing from the archive.
    """
    loose = [file for file in official.files if file.name in found and not found[file.name].member]
    with ThreadPoolExecutor(max_workers=2) as workers:  # the unpackers release the interpreter's lock
        yield from workers.map(lambda file: _checked(file, found[file.name], unpack(found[file.name].path)), loose)
    archived = {file.name: file for file in official.files if file.name in found and found[file.name].member}
    if archived:
        yield from _unpacked_archive(archived, found)


def _unpacked_archive(files: dict[str, OfficialFile], found: dict[str, Found]) -> Iterator[Unpacked]:
    path = found[next(iter(files))].path
    left = dict(files)
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                file = left.pop(PurePosixPath(member.name).name, None)
                stream = archive.extractfile(member) if file else None
                if file and stream:
                    yield _checked(file, found[file.name], stream.read())
    except TORN as error:
        raise _torn(path, error) from error
    if left:
        raise SpecError(f"{path} does not hold {next(iter(left))}; fetch it again.")


def _checked(file: OfficialFile, found: Found, content: bytes) -> Unpacked:
    return Unpacked(file, found, content, hashlib.new(file.algorithm, content, usedforsecurity=False).hexdigest())


def _torn(path: Path, error: Exception) -> SpecError:
    return SpecError(f"{path} cannot be read, it is truncated or damaged ({error}); fetch it again.")


def read(official: OfficialSet, places: Places) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Return the bytes of every file of ``official``, and a remark for each that is not the official one.

    Raises:
        SpecError: a file is missing, torn, or not the official one while that is not accepted.
    """
    found: dict[str, Found] = {}
    for name, where in find(official, places.root).items():
        if where is None:
            raise SpecError(
                f"{official.name} needs the file {name} (plain, .gz or .xz), which is in none of: "
                f"{', '.join(str(place) for place in roots(places.root))}; run `unperturbed data fetch "
                f"{official.name}`, or name its folder with --data-root or UNPERTURBED_DATA."
            )
        found[name] = where
    contents: dict[str, bytes] = {}
    remarks: list[str] = []
    for result in unpacked(official, found):
        if not result.exact:
            if not places.accept_inexact:
                raise SpecError(
                    f"{result.difference}; use --accept-inexact to take it as it is, "
                    f"or `unperturbed data fetch {official.name}` for the official one."
                )
            remarks.append(f"{result.difference}; it was accepted as inexact{_positions_beside(result.found.path)}.")
        contents[result.file.name] = result.content
    return contents, tuple(remarks)


def _positions_beside(path: Path) -> str:
    listed = path.with_name("test_inexact_indices.txt")
    if not (listed.is_file() and "inexact" in path.name):
        return ""
    return f" ({listed.name} beside it names {len(listed.read_text().split())} images)"


def fetch_files(official: OfficialSet, folder: Path, *, mirror: str | None = None, progress: Any = False) -> list[Path]:
    """Download what ``official`` needs into ``folder`` and return the files; those already there are only checked.

    A file appears under its name only after its checksum was right.

    Args:
        official: the data set.
        folder: made if need be.
        mirror: an address to use instead of the public one; the names below it and the checksums are the same.
        progress: what pooch's ``HTTPDownloader`` takes as ``progressbar``.

    Raises:
        SpecError: nothing came, it was cut short, its checksum is wrong, or the folder cannot be written.
    """
    paths: list[Path] = []
    for download in official.downloads:
        address = f"{mirror.rstrip('/')}/{download.name}" if mirror else download.address
        try:
            path = pooch.retrieve(
                address,
                known_hash=download.checksum,
                fname=download.name,
                path=folder,
                downloader=cast(Any, pooch.HTTPDownloader(progressbar=progress, timeout=30)),  # pooch's stub is wrong
            )
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise SpecError(
                f"{download.name} could not be fetched from {address} into {folder} "
                f"(expected {download.checksum}): {reason}"
            ) from error
        paths.append(Path(path))
    return paths
