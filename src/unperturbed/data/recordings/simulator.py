r"""A brain whose answers are known: files as THINGS-EEG2 has them, computed from images.

The response of a channel c at time t to image i in repetition r is

.. math:: y_{irct} = (1 + \tau \eta_{irc}) s_{ict} + n_{irct}, \qquad
   s_{ict} = g_c\, k_c(t) \sum_f w_{cf} \phi_{if},

with features :math:`\phi` that are uncorrelated and of mean 0 and variance 1 over all images of the simulation,
weights :math:`w_c` of length 1, a course :math:`k_c(t)` that is the larger one of a peak
:math:`e^{-(t - l_c)^2 / 2 \sigma^2}` and, after it, what is sustained, :math:`p\,e^{-(t - l_c) / d}` (0 before onset;
:math:`\sigma` = 0.02 s, p = 0.4, d = 0.3 s), standard normal :math:`\eta` and noise :math:`n` of variance 1 whose power
falls as 1/f from 1 to 50 Hz. The features are the first two principal components of the orientation energy of the
blurred images: coarse structure, and nothing of what a blur takes away.

==================  ===========  ==========
channels            latency l    size g
==================  ===========  ==========
occipital           0.10 s       0.5
parieto-occipital   0.12 s       0.25
parietal            0.12 s       0.2
==================  ===========  ==========

So the mean over all channels of what can be predicted is largest between 0.10 and 0.12 s, and occipital channels are
those that can be predicted best, as published (arXiv:2409.03646). Subjects differ in their weights, in the size of each
channel (up to 20 % either way) and in their latencies (0.005 s either way, all channels together). All this is in the
world ``robust``. In the world ``none`` the signals of the same subject are exchanged at random among the images of each
part, training and test. So spectrum, signal, noise and every ceiling are exactly those of ``robust``, but which signal
an image has says nothing about it or its class, whatever the channel: to permute the pairing of images and responses
once more changes nothing. In the world ``category`` the parieto-occipital channels do not see the image but its class:
their features are two numbers drawn for each class, uncorrelated as above. So these channels carry the class, a little
later than the occipital ones carry the image, which carry the class as far as its images differ in orientation.

Closed forms. Let S be the variance of :math:`s` over the test images and N that of a single repetition around it,
:math:`N = 1 + \tau^2 \overline{s^2}`. The halves of R repetitions, of :math:`a = \lceil R/2 \rceil` and
:math:`b = \lfloor R/2 \rfloor`, correlate with each other as :math:`S / \sqrt{(S + N/a)(S + N/b)}`; the first one
with the mean of all as :math:`\sqrt{(S + N/R) / (S + N/a)}`, and with the signal itself as
:math:`\sqrt{S / (S + N/a)}`.

Departs from the original: images are PNG files, whose pixels come back as they were; test images are other images of
the same classes, not of other concepts; there is no evoked response that all images share; and there is no baseline
to subtract, since the noise has no constant part.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from jaxtyping import Float64, Int64, Real
from numpy import ndarray
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter
from skimage.io import imsave

from unperturbed.data.recordings.things_eeg2 import (
    CHANNELS,
    KEYS,
    METADATA,
    OCCIPITAL,
    PARIETO_OCCIPITAL,
    PARTS,
    TIMES,
    Layout,
    PartName,
    response_file,
)
from unperturbed.records import SpecError
from unperturbed.tensors.streams import seed_for

World = Literal["robust", "none", "category"]

WIDTH = 0.02  # sigma, seconds
SUSTAINED = 0.4  # p
DECAY = 0.3  # d, seconds
TRIAL_TO_TRIAL = 0.5  # tau: standard deviation of the signal's size
ORIENTATIONS = 4
CELLS = 2  # into which orientation energy is summed, along each side
DIMENSIONS = 2  # of the features, at most
BLUR = 1 / 16  # standard deviation, in widths of the image
AT_ONCE = 2**15  # noise traces that are drawn at a time


@dataclass(frozen=True, eq=False)
class Answers:
    """What is true of one simulated subject."""

    signal: Float64[ndarray, "channels times"]  # S
    noise: Float64[ndarray, "channels times"]  # N
    latencies: Float64[ndarray, " channels"]  # seconds

    def lower_ceiling(self, repetitions: int) -> Float64[ndarray, "channels times"]:
        """Return the expected correlation of the halves of so many repetitions, over the test images."""
        a, b = _halves(repetitions)
        return self.signal / np.sqrt((self.signal + self.noise / a) * (self.signal + self.noise / b))

    def upper_ceiling(self, repetitions: int) -> Float64[ndarray, "channels times"]:
        """Return the expected correlation of a half with the mean of all."""
        a, _ = _halves(repetitions)
        return np.sqrt((self.signal + self.noise / repetitions) / (self.signal + self.noise / a))

    def best(self, repetitions: int) -> Float64[ndarray, "channels times"]:
        """Return the expected correlation of a half with what is predicted by who knows the signal."""
        a, _ = _halves(repetitions)
        return np.sqrt(self.signal / (self.signal + self.noise / a))


@dataclass(frozen=True, eq=False)
class Simulated:
    """What was simulated: its layout, which of the given images are where, and the truth about each subject."""

    layout: Layout
    training: Int64[ndarray, " training"]  # rows of the given images, in the order of the responses
    test: Int64[ndarray, " test"]
    answers: tuple[Answers, ...]
    signals: tuple[Float64[ndarray, "images channels times"], ...]  # of each subject: of training, then of test images
    world: World
    seed: int

    def responses(self, subject: int, part: PartName) -> Float64[ndarray, "images repetitions channels times"]:
        """Return what is recorded of a subject, the same numbers every time.

        Args:
            subject: from 1.
            part: training or test.
        """
        random = np.random.default_rng(seed_for("simulated responses", self.seed, subject, part))
        signal = np.split(self.signals[subject - 1], [len(self.training)])[PARTS.index(part)]
        shown = signal[random.permutation(len(signal))] if self.world == "none" else signal
        return _responses(shown, self.layout.repetitions(part), random)


def simulate(
    folder: Path | None,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    seed: int,
    world: World = "robust",
    subjects: int = 2,
    training_concepts: int = 10,
    images_per_concept: int = 10,
    test_images: int = 40,
    training_repetitions: int = 4,
    test_repetitions: int = 80,
) -> Simulated:
    """Simulate subjects, write the files of what is recorded of them, and return what is true of them.

    The first images of a class are trained on; the next ones, of each class in turn, are tested on.

    Args:
        folder: made if need be; nothing may lie in it; ``None`` writes nothing.
        images: (n, 1 or 3, height, width), intensities in [0, 1], an array or a tensor.
        labels: (n,), whole numbers; the smallest ``training_concepts`` of them are the concepts.
        seed: decides every random number; each subject and part has its own stream.
        world: ``robust``, ``none`` or ``category``, as above.
        subjects: how many people.
        training_concepts: 1654 in the original.
        images_per_concept: for training and validation together.
        test_images: 200 in the original.
        training_repetitions: of each training image.
        test_repetitions: of each test image.

    Raises:
        SpecError: the images or settings do not fit, or the folder is not empty.
    """
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise SpecError(f"{folder} must be empty, got {next(folder.iterdir()).name} in it; choose another folder.")
    layout = Layout(
        subjects, training_concepts, images_per_concept, test_images, training_repetitions, test_repetitions
    )
    pixels, classes = _inputs(images, labels, world, layout)
    training, test = _chosen(classes, layout)
    rows = np.concatenate([training, test])
    features = coded = _uncorrelated(orientation_energy(pixels[rows]))
    if world == "category":
        coded = _uncorrelated(_codes(classes[rows], np.random.default_rng(seed_for("simulated classes", seed))))
    people = [
        _signal(features, coded, np.random.default_rng(seed_for("simulated subject", seed, subject)))
        for subject in range(1, subjects + 1)
    ]
    answers = tuple(_answers(signal[len(training) :], latencies) for signal, latencies in people)
    found = Simulated(layout, training, test, answers, tuple(signal for signal, _ in people), world, seed)
    if folder is not None:
        _write_images(folder, pixels, classes, training, test)
        for subject, part in product(range(1, subjects + 1), PARTS):
            _write_responses(response_file(folder, subject, part), found.responses(subject, part))
    return found


def _inputs(images: ArrayLike, labels: ArrayLike, world: str, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    pixels, classes = np.asarray(images), np.asarray(labels)
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or not pixels.size:
        raise SpecError(f"images must be (n, 1 or 3, height, width), got shape {pixels.shape}.")
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise SpecError(f"images must lie in [0, 1], got {pixels.min():g} to {pixels.max():g}; divide by full scale.")
    if classes.shape != (len(pixels),) or classes.dtype.kind not in "iu":
        raise SpecError(f"{len(pixels)} images need as many whole labels, got {classes.dtype} {classes.shape}.")
    if world not in get_args(World):
        raise SpecError(f"world must be {' or '.join(map(repr, get_args(World)))}, got {world!r}.")
    for name, least in Layout(1, 2, 2, 3, 1, 2)._asdict().items():
        if getattr(layout, name) < least:
            raise SpecError(f"{name} must be at least {least}, got {getattr(layout, name)}.")
    return pixels, classes


def _chosen(classes: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows for training, class by class, and those for testing, one of each class in turn."""
    concepts = np.unique(classes)[: layout.concepts]
    each = [np.flatnonzero(classes == concept) for concept in concepts]
    for_test = -(-layout.test_images // layout.concepts)
    needed = layout.images_per_concept + for_test
    fewest = min((len(rows) for rows in each), default=0)
    if len(concepts) < layout.concepts or fewest < needed:
        raise SpecError(
            f"{layout.concepts} concepts with {layout.images_per_concept} images for training and up to {for_test} for "
            f"testing need as many classes of {needed} images, got {len(concepts)} classes of {fewest} or more."
        )
    training = np.concatenate([rows[: layout.images_per_concept] for rows in each])
    test = np.stack([rows[layout.images_per_concept : needed] for rows in each], axis=1).ravel()
    return training, test[: layout.test_images]


def orientation_energy(images: Real[ndarray, "n channels height width"]) -> Float64[ndarray, "n features"]:
    """Return the square root of the energy of the blurred images' gradient along each orientation, in each cell.

    Only low spatial frequencies are in it: the blur passes half the amplitude at 3 cycles per width of the image.
    """
    grey = images.mean(axis=1, dtype=np.float64)
    width = BLUR * grey.shape[-1]
    slope = cast(Any, gaussian_filter)  # its type does not say that an order may be given for each axis
    across, down = (slope(grey, (0, width, width), order=order) for order in ((0, 0, 1), (0, 1, 0)))
    angles = np.pi * np.arange(ORIENTATIONS) / ORIENTATIONS
    energies = [(np.cos(angle) * across + np.sin(angle) * down) ** 2 for angle in angles]
    cells = [
        cell.mean(axis=(1, 2))
        for energy in energies
        for strip in np.array_split(energy, CELLS, axis=1)
        for cell in np.array_split(strip, CELLS, axis=2)
    ]
    return np.sqrt(np.stack(cells, axis=1))


def _uncorrelated(features: np.ndarray) -> np.ndarray:
    """Return the first principal components of ``features``, each of variance 1."""
    left, sizes, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    rank = int((sizes > 1e-9 * sizes[0]).sum()) if sizes[0] > 0 else 0
    if not rank:
        raise SpecError("the images must differ, got images without any orientation that varies.")
    return left[:, : min(rank, DIMENSIONS)] * np.sqrt(len(features))


def _codes(classes: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return for each image the numbers of its class."""
    _, which = np.unique(classes, return_inverse=True)
    return random.standard_normal((which.max() + 1, DIMENSIONS))[which]


def _signal(features: np.ndarray, coded: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the signal (images, channels, times) of a subject, and the latency of each channel.

    Args:
        features: what is seen.
        coded: what parieto-occipital channels see.
        random: of the subject.
    """
    shift = random.integers(-1, 2) / 200
    latencies = np.array([(0.1 if channel in OCCIPITAL else 0.12) + shift for channel in CHANNELS])
    traces: list[np.ndarray] = []
    for channel, latency in zip(CHANNELS, latencies, strict=True):
        size = 0.5 if channel in OCCIPITAL else 0.25 if channel in PARIETO_OCCIPITAL else 0.2
        after = TIMES - latency
        peak, rest = np.exp(-(after**2) / (2 * WIDTH**2)), SUSTAINED * np.exp(-after / DECAY) * (after > 0)
        course = np.maximum(peak, rest) * (TIMES > 0)
        seen = coded if channel in PARIETO_OCCIPITAL else features
        weights = random.standard_normal(seen.shape[1])
        projected = seen @ (weights / np.linalg.norm(weights))
        traces.append(size * random.uniform(0.8, 1.2) * projected[:, None] * course)
    return np.stack(traces, axis=1), latencies


def _answers(signal: np.ndarray, latencies: np.ndarray) -> Answers:
    noise = 1 + TRIAL_TO_TRIAL**2 * (signal**2).mean(axis=0)
    return Answers(signal.var(axis=0), noise, latencies)


def _halves(repetitions: int) -> tuple[int, int]:
    return repetitions - repetitions // 2, repetitions // 2


def pink_noise(random: np.random.Generator, traces: int) -> Float64[ndarray, "traces times"]:
    """Return noise of variance 1 whose power falls as 1/f from 1 Hz on, without a constant part."""
    frequencies = np.arange(len(TIMES) // 2 + 1)  # Hz, since a trace lasts a second
    amplitudes = np.concatenate([[0.0], 1 / np.sqrt(frequencies[1:])])
    doubled = np.where((frequencies > 0) & (frequencies < len(TIMES) / 2), 2, 1)
    amplitudes *= len(TIMES) / np.sqrt((doubled * amplitudes**2).sum())
    real, imaginary = random.standard_normal((2, traces, len(frequencies)))
    phases = np.where(doubled == 2, (real + 1j * imaginary) / np.sqrt(2), real)
    return np.fft.irfft(amplitudes * phases, n=len(TIMES))


def _responses(signal: np.ndarray, repetitions: int, random: np.random.Generator) -> np.ndarray:
    images, channels, times = signal.shape
    responses = np.empty((images, repetitions, channels, times))
    step = max(1, AT_ONCE // (repetitions * channels))
    for first in range(0, images, step):
        block = signal[first : first + step, None]
        sizes = 1 + TRIAL_TO_TRIAL * random.standard_normal((len(block), repetitions, channels, 1))
        noise = pink_noise(random, sizes.size).reshape(len(block), repetitions, channels, times)
        responses[first : first + step] = sizes * block + noise
    return responses


def _write_responses(path: Path, responses: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {"preprocessed_eeg_data": responses, "ch_names": list(CHANNELS), "times": TIMES}
    np.save(path, stored)  # pyright: ignore[reportArgumentType] a dictionary, as in the original


def _write_images(
    folder: Path, pixels: np.ndarray, classes: np.ndarray, training: np.ndarray, test: np.ndarray
) -> None:
    concepts = {label: place for place, label in enumerate(np.unique(classes[training]), start=1)}
    counts = dict.fromkeys(concepts, 0)
    metadata: dict[str, list[str]] = {}
    for part, rows in zip(PARTS, (training, test), strict=True):
        concept_names, file_names = (metadata.setdefault(key, []) for key in KEYS[part])
        for place, row in enumerate(rows, start=1):
            label = classes[row]
            counts[label] += 1
            number = concepts[label] if part == "training" else place
            concept, file = f"{number:05d}_class{label}", f"class{label}_{counts[label]:05d}s.png"
            concept_names.append(concept)
            file_names.append(file)
            path = folder / f"{part}_images" / concept / file
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = np.rint(pixels[row] * 255).astype(np.uint8)
            imsave(path, picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0), check_contrast=False)
    np.save(folder / METADATA, metadata)  # pyright: ignore[reportArgumentType] a dictionary, as in the original
