"""Which of ten photographs a 32x32 patch was cut from; training and test patches share no pixel.

The photographs lie in the scikit-image package itself, so no download is needed: those of its images that show
different things in different colours, in files whose pixels do not depend on the decoder (PNG, and JPEG with the
accurate integer transform of libjpeg-turbo, which Pillow uses). Each is reduced by averaging squares of pixels and
divided into square tiles; a fixed quarter of the tiles is for testing. A patch lies within one tile. Patches stand in a
fixed mixed order, so that the first of them are of all classes.
"""

from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import skimage.data
import torch
from jaxtyping import Int64, UInt8
from numpy import ndarray
from skimage.io import imread

from unperturbed.data.files import Places
from unperturbed.data.settings import Range, Share
from unperturbed.data.split import Collection, Dataset, Part, faded, ordering
from unperturbed.records import SpecError

PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "bricks": "brick.png",
    "cameraman": "camera.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "galaxies": "hubble_deep_field.jpg",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "tissue": "ihc.png",
}
REDUCTION = 2
TILE = 48
PATCH = 32

TrainSize = Annotated[int, Range(10, 20000, 10)]
TestSize = Annotated[int, Range(10, 5000, 10)]


def photographs(_: Places, *, train: TrainSize = 1300, test: TestSize = 500, contrast: Share = 1.0) -> Dataset:
    """Return patches of ten photographs, equally many of each.

    Args:
        train: how many training patches.
        test: how many test patches.
        contrast: the share of the image; the rest is middle grey.
    """
    return faded("photographs", read_photographs(train, test), contrast)


def read_photographs(train: int = 1300, test: int = 500) -> Collection:
    """Return the patches as parts; nothing but the installed scikit-image is read."""
    pictures = [photograph(name) for name in PHOTOGRAPHS.values()]
    classes = tuple(PHOTOGRAPHS)
    return Collection(_patches(pictures, train, testing=False), _patches(pictures, test, testing=True), classes)


def photograph(name: str) -> UInt8[ndarray, "height width 3"]:
    """Return the bundled photograph ``name``, reduced."""
    path = Path(skimage.data.__file__).parent / name
    if not path.is_file():
        raise SpecError(f"the installed scikit-image lacks {path}; install scikit-image 0.22 or newer from its wheel.")
    pixels = np.asarray(imread(path))
    colour = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
    return reduce(colour, REDUCTION)


def reduce(pixels: UInt8[ndarray, "height width 3"], factor: int) -> UInt8[ndarray, "rows columns 3"]:
    """Return ``pixels`` averaged over squares of ``factor`` pixels, rounded half up; the rest at the edge is cut."""
    rows, columns = pixels.shape[0] // factor, pixels.shape[1] // factor
    squares = pixels[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, 3)
    area = factor**2
    return ((squares.sum(axis=(1, 3), dtype=np.int64) + area // 2) // area).astype(np.uint8)


def corners(height: int, width: int, *, testing: bool) -> Int64[ndarray, "n 2"]:
    """Return the top left corners of all patches of one side: row and column, in a photograph of that size."""
    tiles = [
        (row, column)
        for row, column in product(range(height // TILE), range(width // TILE))
        if ((row + 2 * column) % 4 == 0) == testing
    ]
    steps = range(TILE - PATCH + 1)
    return np.array([(TILE * row + y, TILE * column + x) for row, column in tiles for y in steps for x in steps])


def _patches(pictures: list[np.ndarray], total: int, *, testing: bool) -> Part:
    per_class = total // len(pictures)
    images: list[np.ndarray] = []
    for label, picture in enumerate(pictures):
        places = corners(*picture.shape[:2], testing=testing)
        chosen = places[ordering(len(places), 2 * label + testing)[:per_class]]
        images += [picture[y : y + PATCH, x : x + PATCH].transpose(2, 0, 1) for y, x in chosen]
    labels = np.repeat(np.arange(len(pictures), dtype=np.int64), per_class)
    mixed = ordering(len(labels), 2 * len(pictures) + testing)
    return Part(torch.from_numpy(np.ascontiguousarray(np.stack(images)[mixed])), torch.from_numpy(labels[mixed]))
