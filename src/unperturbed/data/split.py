"""Images and labels on a device, how they are mixed, in which order they are shown, and what identifies them.

Equation: with rows :math:`r` and parts :math:`k`, an image is :math:`g + \\sum_k w_k x_k[r_k] / 255`. One part with
:math:`w = 1, g = 0` is a plain data set; two parts with :math:`w = (\\alpha, 1 - \\alpha)` are the Fusion images of
Kunhardt, Deza and Poggio (2021), arXiv:2102.10534, section 2.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from unperturbed.records import SpecError


def ordering(n: int, seed: int) -> NDArray[np.int64]:
    """Return a permutation of 0..n-1 that is the same with every version of every library.

    The raw stream of a bit generator is fixed for good, which NumPy does not promise for its distributions.

    >>> ordering(6, 0).tolist()
    [3, 2, 1, 0, 4, 5]
    """
    return np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable")


@dataclass(frozen=True)
class Part:
    """Images of one kind with their labels.

    Args:
        images: uint8 (n, channels, height, width), 255 is full scale.
        labels: int64 (n,), from 0.

    Raises:
        SpecError: another type or shape, no images, or labels that do not fit.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8:
            raise SpecError(
                f"images must be uint8 from 0 to 255, got {self.images.dtype}; Part.from_intensities takes fractions."
            )
        if self.images.ndim != 4:
            raise SpecError(f"images must be (n, channels, height, width), got shape {tuple(self.images.shape)}.")
        if self.labels.dtype != torch.int64 or self.labels.ndim != 1:
            raise SpecError(f"labels must be int64 (n,), got {self.labels.dtype} {tuple(self.labels.shape)}.")
        if len(self.images) != len(self.labels):
            raise SpecError(f"{len(self.images)} images need as many labels, got {len(self.labels)}.")
        if not len(self.images):
            raise SpecError("a split needs at least one image, got none.")
        if int(self.labels.min()) < 0:
            raise SpecError(f"labels must be 0 or greater, got {int(self.labels.min())}.")

    @classmethod
    def from_intensities(cls, images: Tensor, labels: Tensor) -> "Part":
        """Return a part from floating-point ``images`` in [0, 1], rounded to 256 levels.

        Raises:
            SpecError: images that are not floating-point, not finite or outside [0, 1].
        """
        if not images.is_floating_point():
            raise SpecError(f"intensities must be floating-point, got {images.dtype}; Part takes uint8 as it is.")
        if not bool(images.isfinite().all()):
            raise SpecError(f"images must be finite, got {int((~images.isfinite()).sum())} values that are NaN or inf.")
        if images.numel() and (float(images.min()) < 0 or float(images.max()) > 1):
            raise SpecError(
                f"images must lie in [0, 1], got {float(images.min()):g} to {float(images.max()):g}; "
                "divide by full scale first."
            )
        return cls((images * 255).round().to(torch.uint8), labels)

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str | torch.device) -> "Part":
        """Return the part with its tensors on ``device``."""
        return Part(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Split:
    """A mixture of parts: what is trained on, or what is tested on.

    Args:
        parts: what is mixed, on one device.
        weights: the weight of each part.
        grey: the intensity that is added everywhere.
        task: the part whose labels are the classes to tell apart.
        responses: what was recorded while each image was shown, (n, people, channels, times); for a split of one part.

    Raises:
        SpecError: no parts, weights that do not fit or that take an image out of [0, 1], a task that is no part,
            responses that are not one for each image.
    """

    parts: tuple[Part, ...]
    weights: tuple[float, ...] = (1.0,)
    grey: float = 0.0
    task: int = 0
    responses: Tensor | None = None

    def __post_init__(self) -> None:
        if self.responses is not None and (len(self.parts) != 1 or len(self.responses) != len(self.parts[0])):
            raise SpecError(
                f"responses: expected one for each of {len(self.parts[0])} images of one part, got "
                f"{len(self.responses)} for {len(self.parts)} parts."
            )
        if not self.parts or len(self.parts) != len(self.weights):
            raise SpecError(f"each part needs one weight, got {len(self.parts)} parts and weights {self.weights}.")
        if not 0 <= self.task < len(self.parts):
            raise SpecError(f"task must be the number of a part, 0 to {len(self.parts) - 1}, got {self.task}.")
        brightest = self.grey + sum(self.weights)
        tiny = 1e-12  # the weights of a mixture sum to 1 only to rounding
        if not (min(self.weights) >= 0 and self.grey >= 0 and brightest <= 1 + tiny):
            raise SpecError(
                f"images must stay in [0, 1]: weights {self.weights} and grey {self.grey} must not be negative and "
                f"must sum to at most 1, got {brightest:g}."
            )

    def __len__(self) -> int:
        return min(len(part) for part in self.parts)

    @property
    def device(self) -> torch.device:
        """The device that the images live on."""
        return self.parts[0].images.device

    def to(self, device: str | torch.device) -> "Split":
        """Return the split with its tensors on ``device``."""
        responses = None if self.responses is None else self.responses.to(device)
        return Split(tuple(part.to(device) for part in self.parts), self.weights, self.grey, self.task, responses)

    def draw(self, generator: torch.Generator) -> Int[Tensor, "n parts"]:
        """Return the rows of a fresh epoch: each part in an order of its own, cut to the shortest part.

        Args:
            generator: a CPU generator, moved on by one permutation per part.

        Returns:
            On the CPU; column k holds rows of part k, none twice.
        """
        orders = [torch.randperm(len(part), generator=generator)[: len(self)] for part in self.parts]
        return torch.stack(orders, dim=1)

    def fixed(self) -> Int[Tensor, "n parts"]:
        """Return the rows of an evaluation: the first part in its own order, each other part in one fixed order."""
        orders = [np.arange(len(self))]
        orders += [ordering(len(part), seed)[: len(self)] for seed, part in enumerate(self.parts[1:], start=1)]
        return torch.from_numpy(np.stack(orders, axis=1))

    def images(self, rows: Int[Tensor, "batch parts"]) -> Float[Tensor, "batch channels height width"]:
        """Return the mixed images, float32 in [0, 1], on the device of the parts.

        Args:
            rows: column k holds rows of part k, on any device.
        """
        rows = rows.to(self.device)
        mixed = self._weighted(rows, 0)
        for k in range(1, len(self.parts)):
            mixed += self._weighted(rows, k)
        if self.grey:
            mixed += self.grey
        # The rounded weights of two terms are off by less than half the step above 1, so only longer sums can pass it.
        return mixed.clamp_(max=1) if len(self.parts) > 2 else mixed

    def _weighted(self, rows: Tensor, k: int) -> Tensor:
        intensities = self.parts[k].images[rows[:, k]].to(torch.float32).div_(255)
        return intensities if self.weights[k] == 1 else intensities.mul_(self.weights[k])

    def labels(self, rows: Int[Tensor, "batch parts"]) -> Int[Tensor, " batch"]:
        """Return the classes of the images that ``rows`` name, on the device of the parts."""
        return self.parts[self.task].labels[rows[:, self.task].to(self.device)]

    def recorded(self, rows: Int[Tensor, "batch parts"]) -> Float[Tensor, "batch people channels times"] | None:
        """Return the responses to the images that ``rows`` name; ``None`` where nothing was recorded."""
        return None if self.responses is None else self.responses[rows[:, 0].to(self.responses.device)]

    def of_person(self, seed: int, change: Callable[[Tensor, Tensor, int], Tensor]) -> "Split":
        """Return the split with the responses of one person, changed: what the network of a seed is trained on.

        Networks of different seeds are to sample people, too: seed s has the person s, counted from 0, and after the
        last one the first again.

        Args:
            seed: of the network.
            change: (responses, labels, seed) to responses, (n, channels, times).
        """
        if self.responses is None:
            return self
        theirs = self.responses[:, seed % self.responses.shape[1]]
        return replace(self, responses=change(theirs, self.parts[0].labels, seed)[:, None])


class Collection(NamedTuple):
    """What a data set is read into, before it is mixed."""

    train: Part
    test: Part
    classes: tuple[str, ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Training and test images with the names of their classes; equal digests mean equal bytes and mixtures.

    Raises:
        SpecError: a label without a class.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    digest: str
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split, which in ((self.train, "training"), (self.test, "test")):
            greatest = int(split.parts[split.task].labels.max())
            if greatest >= len(self.classes):
                raise SpecError(
                    f"{self.name}: {which} labels must be 0 to {len(self.classes) - 1} for {len(self.classes)} "
                    f"classes, got {greatest}."
                )


def mix(
    name: str, collections: tuple[Collection, ...], *, weights: tuple[float, ...], grey: float, task: int
) -> Dataset:
    """Return the data set of the weighted sum of ``collections``, labelled by the one numbered ``task``."""
    train = Split(tuple(collection.train for collection in collections), weights, grey, task)
    test = Split(tuple(collection.test for collection in collections), weights, grey, task)
    remarks = tuple(remark for collection in collections for remark in collection.remarks)
    classes = collections[task].classes
    return Dataset(name, train, test, classes, digest(train, test, classes), remarks)


def faded(name: str, collection: Collection, contrast: float) -> Dataset:
    """Return one collection as a data set: ``contrast`` parts image and the rest uniform middle grey."""
    return mix(name, (collection,), weights=(contrast,), grey=(1 - contrast) / 2, task=0)


def digest(train: Split, test: Split, classes: tuple[str, ...]) -> str:
    """Return the SHA-256 of all pixels, labels, mixtures, test pairs and class names, 64 hexadecimal digits."""
    total = hashlib.sha256(repr(classes).encode())
    for split in (train, test):
        total.update(repr((split.weights, split.grey, split.task)).encode())
        for array in _arrays(split):
            total.update(repr((str(array.dtype), tuple(array.shape))).encode())
            for block in array.split(8192):
                total.update(block.contiguous().cpu().numpy().data)
    return total.hexdigest()


def _arrays(split: Split) -> Iterator[Tensor]:
    yield split.fixed()
    for part in split.parts:
        yield part.images
        yield part.labels
    if split.responses is not None:
        yield split.responses
