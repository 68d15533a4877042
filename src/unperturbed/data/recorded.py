"""Images with what a brain answered to them, so that a network can be trained on both.

What is trained on are the responses averaged over the repetitions of a training image, with mean 0 and variance 1 for
each channel and time over the training images. ``responses`` has those of another subject or of Gabor filters in their
place; every other control is drawn by each network for itself (``mechanisms.eeg_controls``). All repetitions apart, of
images that no network was trained on, come from ``recorded_repetitions``.

``simulated-eeg`` needs no files: its brains are those of ``recordings.simulator``, which knows the right answers. The
network of seed s is trained on the subject s, counted from 0, and after the last subject on the first again: so
networks of different seeds sample subjects with their noise and, in the world ``none``, with their pairings.
``things-eeg2`` has nine images of each of 1,654 concepts for training and one for testing, four repetitions each
(arXiv:2409.03646), of one subject; the EEG of its own 200 test images, whose concepts are others, is what
``recorded_repetitions`` returns. In ``faces-houses-eeg`` it is not recorded which picture was shown, only whether a
face or a house, so that every picture of a class has the same response.

Departs from the sources: pictures are averaged over areas to 32x32 pixels, which is what the models take.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from numpy import ndarray
from skimage.io import imread
from skimage.transform import resize_local_mean
from torch import Tensor

from unperturbed.data.cifar10 import read_cifar10
from unperturbed.data.digits import read_digits
from unperturbed.data.files import Places, find, folder_of
from unperturbed.data.gabor import gabor_energies
from unperturbed.data.photographs import read_photographs
from unperturbed.data.recordings import CHANNELS, TIMES, Layout, Simulated, read_subject, simulate
from unperturbed.data.recordings.cued import read_cued
from unperturbed.data.recordings.faces_houses import CLASSES, FILES, evoked, faces_houses, trials
from unperturbed.data.recordings.simulator import World
from unperturbed.data.recordings.things_eeg2 import ORIGINAL
from unperturbed.data.settings import Range, resolve
from unperturbed.data.split import Collection, Dataset, Part, Split, digest, ordering
from unperturbed.records import Spec, SpecError

Responses = Literal["real", "other-subject", "gabor"]
ImageSet = Literal["cued", "photographs", "digits", "cifar10"]

TrainSize = Annotated[int, Range(20, 5000, 10)]
TestSize = Annotated[int, Range(10, 500, 10)]
Repeats = Annotated[int, Range(2, 80)]
Subjects = Annotated[int, Range(1, 20)]
RealSubject = Annotated[int, Range(1, 10)]

SIMULATED = ("simulated-eeg",)  # data sets of which no brain was recorded
SEED = 0  # of the simulation
IMAGE_SETS: dict[ImageSet, Callable[[Places, int, int], Collection]] = {
    "cued": lambda _, train, test: read_cued(train, test),
    "photographs": lambda _, train, test: read_photographs(train, test),
    "digits": lambda _, __, ___: read_digits("bilinear"),
    "cifar10": lambda places, _, __: read_cifar10(places),
}
STIMULI = ("houses", "faces")  # folders of pictures, in the order of the classes
STIMULI_EACH = 12
HELD_OUT = 3  # pictures of each class
SIZE = 32


class Repetitions(NamedTuple):
    """Images with every repetition of the response to them."""

    images: Float[Tensor, "images 3 height width"]  # in [0, 1]
    responses: Float[ndarray, "images repetitions channels times"]  # as recorded
    channels: tuple[str, ...]
    times: Float64[ndarray, " times"]  # seconds after the onset


def simulated_eeg(
    places: Places,
    *,
    images: ImageSet = "cued",
    world: World = "robust",
    subjects: Subjects = 10,
    responses: Responses = "real",
    train: TrainSize = 600,
    test: TestSize = 200,
    repetitions: Repeats = 40,
    test_repetitions: Repeats = 40,
) -> Dataset:
    """Return images, equally many of each class, with simulated EEG of several subjects.

    Args:
        places: where files are looked for.
        images: what is shown.
        world: what the EEG says of the images: their coarse structure (``robust``), and in parieto-occipital channels
            their class instead (``category``), or nothing (``none``).
        subjects: how many people.
        responses: what a network is trained to predict; the other subject is the next one.
        train: how many training images.
        test: how many test images.
        repetitions: of each training image; more than the four of the source, for a cleaner recording.
        test_repetitions: of each test image.
    """
    collection, simulated = _simulated(places, images, world, subjects, train, test, repetitions, test_repetitions)
    remarks = (*collection.remarks, f"the EEG is simulated, in the world {world!r}: no brain was recorded")
    averages = [simulated.responses(subject, "training").mean(axis=1) for subject in range(1, subjects + 1)]
    others = [*averages[1:], averages[0]]
    return _dataset("simulated-eeg", collection._replace(remarks=remarks), averages, responses, others)


def things_eeg2(places: Places, *, subject: RealSubject = 1, responses: Responses = "real") -> Dataset:
    """Return photographs of 1,654 concepts with the EEG of one person, nine of each for training and one for testing.

    To read the photographs takes minutes, and their bytes depend on the decoder of JPEG.

    Args:
        places: where files are looked for.
        subject: whose EEG.
        responses: what a network is trained to predict.

    Raises:
        SpecError: a file is missing or damaged.
    """
    return things_in(folder_of("things-eeg2", places.root), subject=subject, responses=responses)


def things_in(folder: Path, *, subject: int, responses: Responses, layout: Layout = ORIGINAL) -> Dataset:
    """Return the data set ``things-eeg2`` that lies in ``folder`` and has this layout."""
    found = read_subject(folder, subject, layout=layout)
    recorded = found.training
    averages = recorded.responses.mean(axis=1)
    other = averages
    if responses == "other-subject":
        other = read_subject(folder, subject % layout.subjects + 1, layout=layout).training.responses.mean(axis=1)
    pixels = _pictures([folder / "training_images" / name for name in recorded.images])
    train, test = (
        Part(torch.from_numpy(pixels[rows]), torch.from_numpy(recorded.concepts[rows]))
        for rows in (found.training_rows, found.validation_rows)
    )
    remarks = (f"photographs are averaged over areas to {SIZE}x{SIZE} pixels",)
    collection = Collection(train, test, recorded.names, remarks)
    rows = found.training_rows
    return _dataset("things-eeg2", collection, [averages[rows]], responses, [other[rows]])


def faces_houses_eeg(places: Places) -> Dataset:
    """Return 24 pictures of faces and houses with the average evoked response of their class: 18 for training.

    The responses are divided by one number for each electrode, their root mean square: there are only two of them.

    Args:
        places: where files are looked for.

    Raises:
        SpecError: a file or a picture is missing, or MNE-Python is not installed.
    """
    found = evoked(trials(faces_houses(places)))
    found = found / np.sqrt((found**2).mean(axis=(0, 2), keepdims=True))
    train, test = _stimuli(places)
    remarks = (
        f"very small: {len(train)} training and {len(test)} test pictures, two responses",
        "responses are class means: which picture was shown is not recorded",
    )
    collection = Collection(train, test, CLASSES, remarks)
    return _joined("faces-houses-eeg", collection, [found[train.labels.numpy()]])


RECORDED: dict[str, Callable[..., Dataset]] = {
    "simulated-eeg": simulated_eeg,
    "things-eeg2": things_eeg2,
    "faces-houses-eeg": faces_houses_eeg,
}


def subject_of(spec: Spec, seed: int) -> str | None:
    """Return whose real responses belong to the network of a seed; ``None`` where nothing was recorded.

    >>> subject_of(Spec(name="simulated-eeg", settings={"subjects": 10}), 12), subject_of(Spec(name="digits"), 0)
    ('subject 3', None)
    """
    if spec.name not in RECORDED:
        return None
    return f"subject {_person(dict(resolve(RECORDED, spec).settings), seed)}"


def _person(settings: dict[str, Any], seed: int) -> int:
    """Return the number of the subject of a seed, from 1."""
    return seed % settings["subjects"] + 1 if "subjects" in settings else settings.get("subject", 1)


def recorded_repetitions(
    spec: Spec, *, seed: int = 0, root: Path | None = None, accept_inexact: bool = False
) -> Repetitions:
    """Return images that no network was trained on, with every repetition of the real response of a subject.

    Those of ``simulated-eeg`` are its test images, in their order; those of ``things-eeg2`` the 200 of other concepts.

    Args:
        spec: a name in ``RECORDED`` with settings; defaults are filled in.
        seed: of the network: the subject is the one whose real responses belong to it.
        root: as for ``load``.
        accept_inexact: as for ``load``.

    Raises:
        SpecError: another data set, one without a response to each image, or a file is missing or damaged.
    """
    full = resolve(RECORDED, spec)
    settings: dict[str, Any] = dict(full.settings)
    places = Places(root, accept_inexact)
    if full.name == "faces-houses-eeg":
        raise SpecError("faces-houses-eeg has no response to a single picture; take simulated-eeg or things-eeg2.")
    if full.name == "things-eeg2":
        folder = folder_of("things-eeg2", places.root)
        recorded = read_subject(folder, _person(settings, seed)).test
        pixels, responses = _pictures([folder / "test_images" / name for name in recorded.images]), recorded.responses
    else:
        settings.pop("responses")
        collection, simulated = _simulated(places, **settings)
        pixels = collection.test.images.numpy()
        responses = simulated.responses(_person(settings, seed), "test")
    return Repetitions(torch.from_numpy(pixels).to(torch.float32) / 255, responses, CHANNELS, TIMES)


def _balanced(collection: Collection, train: int, test: int) -> Collection:
    """Return the first images of each class, class after class."""

    def first(part: Part, total: int, which: str) -> Part:
        each = total // len(collection.classes)
        rows = [torch.nonzero(part.labels == label)[:each, 0] for label in range(len(collection.classes))]
        fewest = min(len(found) for found in rows)
        if fewest < each:
            raise SpecError(
                f"simulated-eeg: {total} {which} images need {each} of each class, got {fewest}; choose fewer."
            )
        chosen = torch.cat(rows)
        return Part(part.images[chosen], part.labels[chosen])

    return collection._replace(train=first(collection.train, train, "train"), test=first(collection.test, test, "test"))


def _simulated(
    places: Places,
    images: ImageSet,
    world: World,
    subjects: int,
    train: int,
    test: int,
    repetitions: int,
    test_repetitions: int,
) -> tuple[Collection, Simulated]:
    """Return the images in the order of the responses, and these."""
    collection = _balanced(IMAGE_SETS[images](places, train, test), train, test)
    pixels = torch.cat([collection.train.images, collection.test.images])
    labels = torch.cat([collection.train.labels, collection.test.labels])
    simulated = simulate(
        None,
        pixels.numpy() / 255,
        labels.numpy(),
        seed=SEED,
        world=world,
        subjects=subjects,
        training_concepts=len(collection.classes),
        images_per_concept=len(collection.train) // len(collection.classes),
        test_images=len(collection.test),
        training_repetitions=repetitions,
        test_repetitions=test_repetitions,
    )
    ordered = [Part(pixels[rows], labels[rows]) for rows in (simulated.training, simulated.test)]
    return collection._replace(train=ordered[0], test=ordered[1]), simulated


def _dataset(
    name: str,
    collection: Collection,
    averages: Sequence[Float64[ndarray, "train channels times"]],
    responses: Responses,
    others: Sequence[Float64[ndarray, "train channels times"]],
) -> Dataset:
    """Return the images with what ``responses`` says of each person, normalised."""
    chosen = averages if responses == "real" else others
    if responses == "gabor":
        chosen = [gabor_energies(collection.train.images.numpy(), channels=len(CHANNELS), times=len(TIMES))]
    return _joined(name, collection, [_normalised(each) for each in chosen])


def _normalised(responses: np.ndarray) -> np.ndarray:
    """Return responses of mean 0 and variance 1 over images; of variance 0 where nothing varies."""
    deviation = responses.std(axis=0)
    return (responses - responses.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)


def _joined(name: str, collection: Collection, responses: Sequence[np.ndarray]) -> Dataset:
    recorded = torch.from_numpy(np.stack([each.astype(np.float32) for each in responses], axis=1))
    train, test = Split((collection.train,), responses=recorded), Split((collection.test,))
    total = digest(train, test, collection.classes)
    return Dataset(name, train, test, collection.classes, total, collection.remarks)


def _stimuli(places: Places) -> tuple[Part, Part]:
    """Return the pictures for training and for testing, houses before faces."""
    folder = _beside(places)
    train: list[Path] = []
    test: list[Path] = []
    for label, name in enumerate(STIMULI):
        paths = sorted((folder / name).glob("*.jpg"))
        if len(paths) != STIMULI_EACH:
            raise SpecError(
                f"{folder / name} should hold {STIMULI_EACH} pictures (.jpg), got {len(paths)}; they are those of the "
                "muse-lsl project and lie beside its recordings."
            )
        mixed = [paths[place] for place in ordering(len(paths), label)]
        test += mixed[:HELD_OUT]
        train += mixed[HELD_OUT:]
    labels = [torch.arange(len(STIMULI)).repeat_interleave(len(paths) // len(STIMULI)) for paths in (train, test)]
    parts = [Part(torch.from_numpy(_pictures(paths)), of) for paths, of in zip((train, test), labels, strict=True)]
    return parts[0], parts[1]


def _beside(places: Places) -> Path:
    """Return the folder ``stimuli`` of the place where the recordings were found."""
    found = [place.path for place in find(FILES, places.root).values() if place is not None]
    return found[0].parent / "stimuli"


def _pictures(paths: Sequence[Path]) -> UInt8[ndarray, "n 3 32 32"]:
    """Return pictures in three colours, averaged over areas."""
    return np.stack([_picture(path) for path in paths])


def _picture(path: Path) -> UInt8[ndarray, "3 32 32"]:
    pixels = np.asarray(imread(path))
    colour = pixels[:, :, :3] if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
    if colour.shape[:2] != (SIZE, SIZE):
        means = resize_local_mean(colour, (SIZE, SIZE), channel_axis=2, preserve_range=True)
        colour = np.rint(means).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(colour.transpose(2, 0, 1))
