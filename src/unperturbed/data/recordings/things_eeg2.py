"""THINGS-EEG2: responses of ten people to 16,740 photographs of objects, as its authors distribute them preprocessed.

Source: Gifford, Dwivedi, Roig and Cichy (2022), NeuroImage 264:119754, doi:10.1016/j.neuroimage.2022.119754, sections
2.4 and 2.5, and the authors' code (gifale95/eeg_encoding). Pictures shown for 0.1 s, every 0.2 s; 17 channels over
occipital and parietal cortex, -0.2 to 0.79 s at 100 Hz, the mean before onset subtracted, whitened in each session.

In a folder lie, as unpacked: ``sub-01`` to ``sub-10``, each with ``preprocessed_eeg_training.npy`` (16540 images, 4
repetitions, 17 channels, 100 times) and ``preprocessed_eeg_test.npy`` (200, 80, 17, 100), each a pickled dictionary of
``preprocessed_eeg_data``, ``ch_names`` and ``times``; ``image_metadata.npy``, a pickled dictionary with the concept and
file of each image in the order of the responses; ``training_images`` and ``test_images``, a folder for each concept.

The responses are mapped where they lie in the pickled file (``pickles.py``), so they keep the type they were saved in,
float64: what is computed from them decides what is read, and in which precision. Repetitions are never averaged here.

Departs from the source: the authors validate on all images of 100 concepts; here, as co-training with these data needs
it (arXiv:2409.03646), nine images of each concept are for training and one for validation. It is the last one, since
the first is the one that THINGS chose as typical of its concept.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from unperturbed.data.files import Examined
from unperturbed.data.recordings.pickles import read_dictionary
from unperturbed.data.recordings.recording import Recordings
from unperturbed.records import SpecError

CHANNELS = (  # as the recorder orders them
    *("Pz", "P3", "P7", "O1", "Oz", "O2", "P4", "P8", "P1", "P5"),
    *("PO7", "PO3", "POz", "PO4", "PO8", "P6", "P2"),
)
OCCIPITAL = ("O1", "Oz", "O2")
PARIETO_OCCIPITAL = ("PO7", "PO3", "POz", "PO4", "PO8")
TIMES = np.arange(-20, 80) / 100  # seconds
TIMES.setflags(write=False)
METADATA = "image_metadata.npy"
BLOCK = 2**22  # responses that are looked through at a time

PartName = Literal["training", "test"]
PARTS: tuple[PartName, ...] = ("training", "test")
KEYS: dict[PartName, tuple[str, str]] = {  # of the concepts and files that METADATA lists
    "training": ("train_img_concepts", "train_img_files"),
    "test": ("test_img_concepts", "test_img_files"),
}


INSTRUCTIONS = """\
things-eeg2 is too large to be fetched for you. Download it and unpack it in {folder}:

  from https://osf.io/anp5v (preprocessed EEG), the file sub-01.zip, and sub-02.zip to sub-10.zip if you want them.
    Each becomes sub-01/preprocessed_eeg_training.npy (0.90 GB) and sub-01/preprocessed_eeg_test.npy (0.22 GB):
    11 GB for all ten. They must be those of 17 channels at 100 Hz.
  from https://osf.io/y63gw (images), the files image_metadata.npy, training_images.zip and test_images.zip.
    They become image_metadata.npy, training_images/00001_aardvark/aardvark_01b.jpg ... and test_images/...

Then: unperturbed data verify things-eeg2
"""


class Layout(NamedTuple):
    """How many of what a folder holds; the defaults are those of the original."""

    subjects: int = 10
    concepts: int = 1654
    images_per_concept: int = 10
    test_images: int = 200
    training_repetitions: int = 4
    test_repetitions: int = 80

    def images(self, part: PartName) -> int:
        """Return how many images there are."""
        return self.concepts * self.images_per_concept if part == "training" else self.test_images

    def repetitions(self, part: PartName) -> int:
        """Return how often each image was shown."""
        return self.training_repetitions if part == "training" else self.test_repetitions


ORIGINAL = Layout()


class Subject(NamedTuple):
    """The recordings of one person; two lists of rows divide those for training."""

    training: Recordings
    test: Recordings
    training_rows: Int64[ndarray, " rows"]
    validation_rows: Int64[ndarray, " concepts"]


class Listed(NamedTuple):
    """The images of a part in the order of the responses."""

    folders: list[str]  # the one that each image lies in, which is that of its concept
    files: list[str]

    @property
    def identifiers(self) -> tuple[str, ...]:
        """Folder and file of each image."""
        return tuple(f"{folder}/{file}" for folder, file in zip(self.folders, self.files, strict=True))


def read_subject(folder: Path, subject: int, *, layout: Layout = ORIGINAL) -> Subject:
    """Return what was recorded of one person, checked and mapped.

    Every number is looked at once; nothing is kept in memory.

    Args:
        folder: where the data set is unpacked.
        subject: from 1.
        layout: how many images, repetitions and subjects are expected.

    Raises:
        SpecError: a file is missing, damaged, or not of this layout; images and responses do not belong together; a
            repetition is missing; a response is not finite.
    """
    training, test = (_read(folder, subject, part, layout) for part in PARTS)
    rows = np.arange(layout.images("training"), dtype=np.int64).reshape(layout.concepts, layout.images_per_concept)
    return Subject(training, test, rows[:, :-1].ravel(), rows[:, -1])


def examine(folder: Path, *, layout: Layout = ORIGINAL) -> Iterator[Examined]:
    """Yield each file and folder of the data set, read and compared with the layout.

    Of subjects after the first, a whole folder may be missing.

    Args:
        folder: where the data set should be.
        layout: how many images, repetitions and subjects are expected.
    """
    images: dict[PartName, tuple[str, ...]] = {}
    for part in PARTS:
        images[part] = tuple(f"image {row}" for row in range(layout.images(part)))  # should the list be damaged

        def look(part: PartName = part) -> None:
            images[part] = listed(folder, part, layout=layout).identifiers

        yield _examined(folder, f"{part}_images", look)
    for subject in range(1, layout.subjects + 1):
        own = response_file(folder, subject, "training").parent
        if subject > 1 and not own.is_dir():
            yield Examined(own.name, False, "missing", needed=False)
            continue
        for part in PARTS:
            path = response_file(folder, subject, part)
            read = partial(_responses, path, images[part], layout.repetitions(part))
            yield _examined(folder, path.relative_to(folder).as_posix(), read)


def _examined(folder: Path, name: str, look: Callable[[], object]) -> Examined:
    try:
        look()
    except SpecError as error:
        return Examined(name, (folder / name).exists(), str(error))
    return Examined(name, True, "")


def listed(folder: Path, part: PartName, *, layout: Layout = ORIGINAL) -> Listed:
    """Return the images that were shown, in the order of the responses, and that lie in the image folder.

    Raises:
        SpecError: the list is missing or not concept by concept, or an image is listed or there, but not both.
    """
    path = folder / METADATA
    if not path.is_file():
        raise SpecError(f"{path} is missing; `unperturbed data fetch things-eeg2` says where it comes from.")
    metadata = read_dictionary(path)
    _check_keys(path, metadata, KEYS[part])
    folders, files = ([str(text) for text in metadata[key]] for key in KEYS[part])
    _check_list(path, part, folders, files, layout)
    images = Listed(folders, files)
    _check_images(folder / f"{part}_images", images.identifiers)
    return images


def _check_keys(path: Path, stored: dict[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        if not isinstance(stored.get(key), list | np.ndarray):
            raise SpecError(
                f"{path} should hold a list {key}, got {', '.join(stored) or 'nothing'}; download it again."
            )


def _check_list(path: Path, part: PartName, folders: list[str], files: list[str], layout: Layout) -> None:
    expected = layout.images(part)
    if not len(folders) == len(files) == expected:
        raise SpecError(
            f"{path} should list {expected} {part} images, got {len(files)} with {len(folders)} concepts; "
            "download it again."
        )
    in_order = sorted(zip(folders, files, strict=True))
    for row, image in enumerate(zip(folders, files, strict=True)):
        if image != in_order[row]:
            raise SpecError(
                f"{path} should list the {part} images sorted by concept and file, got {'/'.join(image)} at place "
                f"{row}, where {'/'.join(in_order[row])} belongs; download it again."
            )
    each = layout.images_per_concept if part == "training" else 1
    for concept, count in Counter(folders).items():
        if count != each:
            raise SpecError(
                f"{path} should list {each} {part} images of each concept, got {count} of {concept}; download it again."
            )


def _check_images(folder: Path, wanted: tuple[str, ...]) -> None:
    if not folder.is_dir():
        raise SpecError(f"{folder} is missing; `unperturbed data fetch things-eeg2` says where it comes from.")
    there = {f"{path.parent.name}/{path.name}" for path in folder.glob("*/[!.]*")}
    for image in wanted:
        if image not in there:
            raise SpecError(f"{folder}: {image} is missing, though {METADATA} lists it with EEG; unpack it again.")
    for image in sorted(there.difference(wanted)):
        raise SpecError(f"{folder}: {image} has no EEG, since {METADATA} does not list it; take it out.")


def response_file(folder: Path, subject: int, part: PartName) -> Path:
    """Return where the responses of a subject lie."""
    return folder / f"sub-{subject:02d}" / f"preprocessed_eeg_{part}.npy"


def _read(folder: Path, subject: int, part: PartName, layout: Layout) -> Recordings:
    images = listed(folder, part, layout=layout)
    path = response_file(folder, subject, part)
    names, concepts = np.unique(images.folders, return_inverse=True)
    return Recordings(
        subject=path.parent.name,
        responses=_responses(path, images.identifiers, layout.repetitions(part)),
        channels=CHANNELS,
        times=TIMES,
        images=images.identifiers,
        concepts=concepts.astype(np.int64),
        names=tuple(str(name).split("_", 1)[-1] for name in names),
    )


def _responses(path: Path, images: tuple[str, ...], repetitions: int) -> np.ndarray:
    if not path.is_file():
        others = sorted(other.parent.name for other in path.parents[1].glob(f"sub-*/{path.name}"))
        raise SpecError(
            f"{path} is missing, there is {', '.join(others) or 'no subject'}; `unperturbed data fetch things-eeg2` "
            "says where it comes from."
        )
    responses = _checked(path, read_dictionary(path), images, repetitions)
    _check_numbers(path, responses, images)
    return responses


def _checked(path: Path, stored: dict[str, Any], images: tuple[str, ...], repetitions: int) -> np.ndarray:
    keys = ("preprocessed_eeg_data", "ch_names", "times")
    _check_keys(path, stored, keys)
    responses, channels, times = (stored[key] for key in keys)
    for place, (channel, expected) in enumerate(zip(channels, CHANNELS, strict=False)):
        if channel != expected:
            raise SpecError(
                f"{path}: channel {place} should be {expected}, got {channel}; the channels must be "
                f"{', '.join(CHANNELS)}, in this order."
            )
    if len(channels) != len(CHANNELS):
        raise SpecError(
            f"{path} should have {len(CHANNELS)} channels, got {len(channels)}; take those of the original."
        )
    if np.shape(times) != TIMES.shape or not np.allclose(times, TIMES, rtol=0, atol=1e-6):
        span = f"{len(times)} from {times[0]} to {times[-1]} s" if len(times) else "none"
        raise SpecError(f"{path} should have 100 times from -0.2 to 0.79 s, got {span}; take the 100 Hz files.")
    if not isinstance(responses, np.ndarray) or responses.ndim != 4 or responses.dtype.kind != "f":
        raise SpecError(
            f"{path} should hold numbers of images, repetitions, channels and times, got {np.shape(responses)}; "
            "download it again."
        )
    if len(responses) < len(images):
        raise SpecError(
            f"{path}: {images[len(responses)]} has no EEG: expected {len(images)} images, as {METADATA} lists them, "
            f"got {len(responses)}; download it again."
        )
    if len(responses) > len(images):
        raise SpecError(
            f"{path}: row {len(images)} has no image: expected {len(images)} images, as {METADATA} lists them, got "
            f"{len(responses)}; download it again."
        )
    expected = (len(images), repetitions, len(CHANNELS), len(TIMES))
    if responses.shape != expected:
        raise SpecError(
            f"{path} should hold {repetitions} repetitions of each image and a shape of {expected}, got "
            f"{responses.shape}; download it again."
        )
    return responses


def _check_numbers(path: Path, responses: np.ndarray, images: tuple[str, ...]) -> None:
    step = max(1, BLOCK // responses[0].size)
    for first in range(0, len(responses), step):
        block = responses[first : first + step]
        recorded = block.any(axis=(2, 3)) & ~np.isnan(block).all(axis=(2, 3))
        for row, repetition in np.argwhere(~recorded):
            raise SpecError(
                f"{path}: repetition {repetition} of {images[first + row]} is missing, all of it is 0 or NaN; leave "
                "this subject out or download it again."
            )
        for row, repetition, channel, time in np.argwhere(~np.isfinite(block)):
            fine = np.flatnonzero(np.isfinite(block[row, repetition, channel, time:]))
            last = time + fine[0] - 1 if len(fine) else len(TIMES) - 1
            raise SpecError(
                f"{path}: {images[first + row]}, repetition {repetition}, channel {CHANNELS[channel]} is not finite "
                f"from {TIMES[time]:.2f} to {TIMES[last]:.2f} s; leave this subject out or download it again."
            )
