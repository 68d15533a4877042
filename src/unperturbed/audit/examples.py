"""The images and labels of an audit: a data set by its name, two arrays, or pictures in one folder for each class.

Nothing is converted silently: intensities must be in [0, 1] already, channels first; labels must be class numbers. Of
an array only the type of floating-point numbers changes, and the audit says so. Nothing is unpickled.
"""

from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unperturbed import data
from unperturbed.attacks.inputs import check_images, check_labels
from unperturbed.audit.loading import parse_spec
from unperturbed.records import SpecError

PICTURES = (".png", ".jpg", ".jpeg")
CHANNELS = (1, 3)  # of greyscale and colour images


class Examples(NamedTuple):
    """Images in [0, 1] as float32, their class numbers, what they are in words, and what a reader must know of them."""

    images: Tensor
    labels: Tensor
    says: str
    remarks: tuple[str, ...] = ()


def load_dataset(text: str, *, count: int | None, root: Path | None = None, accept_inexact: bool = False) -> Examples:
    """Return the first ``count`` test images, in their fixed order, of a data set such as ``fusion(alpha=0.3)``.

    >>> load_dataset("digits", count=2).says
    'digits, the first 2 of 500 test images'

    Raises:
        SpecError: as ``unperturbed.data.load``, or a count below 1.
    """
    spec = parse_spec(text)
    found = data.load(spec, root=root, accept_inexact=accept_inexact)
    rows = found.test.fixed()
    chosen = rows[: _counted(count, len(rows))]
    says = _says(text.strip(), len(chosen), len(rows), "test images")
    return Examples(found.test.images(chosen), found.test.labels(chosen), says, found.remarks)


def load_arrays(images: Path, labels: Path, *, count: int | None) -> Examples:
    """Return the first ``count`` images and labels of two ``.npy`` files.

    Args:
        images: a file with (n, channels, height, width) floating-point intensities in [0, 1].
        labels: a file with n class numbers, from 0.
        count: how many; ``None`` means all.

    Raises:
        SpecError: no such file, not an array, or not as said.
    """
    x, y = _array(images, "images"), _array(labels, "labels")
    _check_layout(x.shape)
    classes = _classes(y)
    check_labels(classes, len(x))
    number = _counted(count, len(x))
    intensities = _tensor(x[:number])
    check_images(intensities)
    remarks: list[str] = []
    if x.dtype != np.float32:
        remarks.append(f"{images.name} holds {x.dtype} numbers; they were converted to float32.")
    here, everywhere = len(classes[:number].unique()), len(classes.unique())
    if here < everywhere:
        remarks.append(f"The first {number} of {len(x)} images have {here} of the {everywhere} classes: shuffle them.")
    return Examples(intensities, classes[:number], _says(images.name, number, len(x), "images"), tuple(remarks))


def load_pictures(folder: Path, *, count: int | None) -> Examples:
    """Return ``count`` pictures of a folder with one folder for each class: one of each class in turn, by file name.

    A class has as its number the place of its folder among all names, or the name itself if all are whole numbers.

    Raises:
        SpecError: no class folders or no pictures; one that cannot be read, is transparent, or unlike the first.
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise SpecError(f"{folder}: expected one folder for each class, with PNG or JPEG pictures; got none")
    named = all(path.name.isdecimal() for path in classes)
    files = [[path for path in sorted(group.iterdir()) if not path.name.startswith(".")] for group in classes]
    pictures = [[path for path in group if path.suffix.lower() in PICTURES] for group in files]
    numbers = [int(path.name) if named else place for place, path in enumerate(classes)]
    turns = zip_longest(*([(path, n) for path in group] for group, n in zip(pictures, numbers, strict=True)))
    order = [one for turn in turns for one in turn if one is not None]
    if not order:
        raise SpecError(f"{folder}: expected PNG or JPEG pictures in its {len(classes)} folders; got none")
    chosen = order[: _counted(count, len(order))]
    images = [_picture(path) for path, _ in chosen]
    for (path, _), image in zip(chosen, images, strict=True):
        if image.shape != images[0].shape:
            raise SpecError(
                f"{path}: expected {_words(images[0])} like {chosen[0][0]}; got {_words(image)}: resize or convert it"
            )
    remarks = ["Classes are numbered by the " + ("names" if named else "order of the names") + " of their folders."]
    if left := sum(map(len, files)) - len(order):
        remarks.append(f"Left out: {left} files that are not PNG or JPEG.")
    labels = torch.tensor([number for _, number in chosen])
    says = _says(folder.resolve().name, len(chosen), len(order), "pictures")
    return Examples(torch.stack(images), labels, says, tuple(remarks))


def _counted(count: int | None, available: int) -> int:
    if count is not None and count < 1:
        raise SpecError(f"--count: expected at least 1; got {count}")
    return available if count is None else min(count, available)


def _says(name: str, chosen: int, available: int, kind: str) -> str:
    return f"{name}, " + (
        f"all {available:,} {kind}" if chosen == available else f"the first {chosen:,} of {available:,} {kind}"
    )


def _array(path: Path, what: str) -> NDArray[Any]:
    if path.suffix == ".npz":
        raise SpecError(f"{path}: expected one array; got an archive of arrays: save the {what} alone with numpy.save")
    try:
        found = np.lib.format.open_memmap(path, mode="r")  # reads what is used; never objects, so nothing is unpickled
    except FileNotFoundError:
        raise SpecError(f"{path}: there is no such file") from None
    except (OSError, ValueError, EOFError) as error:
        text = " ".join(str(error).split())
        raise SpecError(f"{path}: expected the {what} as an array of numbers (.npy); got {text}") from error
    if found.dtype.kind not in "fiub":
        raise SpecError(f"{path}: expected the {what} as an array of numbers (.npy); got {found.dtype}")
    return found


def _check_layout(shape: tuple[int, ...]) -> None:
    """Refuse shapes of images of which one can tell what they are."""
    expected = f"images: expected a shape (n, channels, height, width); got {shape}"
    if len(shape) == 4 and shape[3] in CHANNELS and shape[1] not in CHANNELS:
        raise SpecError(f"{expected}, which looks like (n, height, width, channels): use x.transpose(0, 3, 1, 2)")
    if len(shape) == 3:
        raise SpecError(f"{expected}: if these are greyscale images, use x[:, None]; a single image is x[None]")
    if len(shape) != 4:
        raise SpecError(f"{expected}: use x.reshape(n, channels, height, width)")


def _tensor(array: NDArray[Any]) -> Tensor:
    kind = np.float32 if array.dtype.kind == "f" else array.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):  # what becomes infinite was out of range and will be found to be
        return torch.from_numpy(array.astype(kind))


def _classes(labels: NDArray[Any]) -> Tensor:
    expected = "labels: expected one class number for each image"
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise SpecError(f"{expected}; got a shape of {labels.shape}, which looks one-hot: use y.argmax(axis=1)")
    if labels.ndim == 2:
        raise SpecError(f"{expected}; got a shape of {labels.shape}: use y[:, 0]")
    if labels.dtype.kind not in "iu":
        raise SpecError(f"labels: expected whole class numbers; got {labels.dtype}: use y.astype('int64')")
    return torch.from_numpy(labels.astype(np.int64))


def _picture(path: Path) -> Tensor:
    """Return one picture (channels, height, width) in [0, 1]."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as file:
            file.load()
            mode, transparent = file.mode, "transparency" in file.info
            image = file.convert({"P": "RGB", "1": "L"}.get(mode, mode))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SpecError(f"{path}: expected a PNG or JPEG picture; got {' '.join(str(error).split())}") from error
    if transparent or mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        raise SpecError(f"{path}: expected greyscale or RGB; got a picture with transparency ({mode}): remove it")
    if image.mode not in ("L", "RGB"):
        raise SpecError(f"{path}: expected 8-bit greyscale or RGB; got {mode}: convert it")
    levels = torch.from_numpy(np.array(image)).to(torch.float32).div_(255)
    return levels[None] if levels.ndim == 2 else levels.permute(2, 0, 1).contiguous()


def _words(image: Tensor) -> str:
    kind = "greyscale" if len(image) == 1 else "RGB"
    return f"{image.shape[1]} x {image.shape[2]} {kind} pixels"
