"""MNIST: 70,000 handwritten digits of 28x28 pixels, enlarged to 32x32 and repeated in three channels.

Source: LeCun, Bottou, Bengio and Haffner (1998), doi:10.1109/5.726791; the four official files, in the format described
on their page: a big-endian magic number and sizes, then bytes.
"""

import struct

import numpy as np

from unperturbed.data.digits import CLASSES, grey_part
from unperturbed.data.files import Download, OfficialFile, OfficialSet, Places, read
from unperturbed.data.resampling import enlarge
from unperturbed.data.settings import Interpolation, Share
from unperturbed.data.split import Collection, Dataset, Part, faded
from unperturbed.records import SpecError

ADDRESS = "https://ossci-datasets.s3.amazonaws.com/mnist"

FILES = OfficialSet(
    name="mnist",
    folders=("mnist", "."),
    files=(
        OfficialFile("train-images-idx3-ubyte", 47040016, "md5", "6bbc9ace898e44ae57da46a324031adb"),
        OfficialFile("train-labels-idx1-ubyte", 60008, "md5", "a25bea736e30d166cdddb491f175f624"),
        OfficialFile("t10k-images-idx3-ubyte", 7840016, "md5", "2646ac647ad5339dbf082846283269ea"),
        OfficialFile("t10k-labels-idx1-ubyte", 10008, "md5", "27ae3e4e09519cfbb04c329615203637"),
    ),
    downloads=tuple(
        Download(f"{name}.gz", f"{ADDRESS}/{name}.gz", f"md5:{checksum}")
        for name, checksum in (
            ("train-images-idx3-ubyte", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            ("train-labels-idx1-ubyte", "d53e105ee54ea40749a09fcbcd1e9432"),
            ("t10k-images-idx3-ubyte", "9fb629c4189551a2d022fa330f9573f3"),
            ("t10k-labels-idx1-ubyte", "ec29112dd5afa0611ce80d1b7f02629c"),
        )
    ),
)


def mnist(places: Places, *, interpolation: Interpolation = "bilinear", contrast: Share = 1.0) -> Dataset:
    """Return MNIST: 60,000 images for training and 10,000 for testing.

    Args:
        places: where the files are looked for.
        interpolation: how 28x28 pixels become 32x32.
        contrast: the share of the image; the rest is middle grey.
    """
    return faded("mnist", read_mnist(places, interpolation), contrast)


def read_mnist(places: Places, interpolation: Interpolation) -> Collection:
    """Return MNIST as parts."""
    contents, remarks = read(FILES, places)

    def part(prefix: str) -> Part:
        images = idx(contents[f"{prefix}-images-idx3-ubyte"], f"{prefix}-images-idx3-ubyte", 3)
        labels = idx(contents[f"{prefix}-labels-idx1-ubyte"], f"{prefix}-labels-idx1-ubyte", 1)
        if images.shape[1:] != (28, 28):
            raise SpecError(f"{prefix}-images-idx3-ubyte must hold 28x28 images, got {images.shape[1:]}.")
        return grey_part(enlarge(images, interpolation=interpolation), labels.astype(np.int64))

    return Collection(part("train"), part("t10k"), CLASSES, remarks)


def idx(content: bytes, name: str, axes: int) -> np.ndarray:
    """Return the uint8 array with ``axes`` axes that an unpacked IDX file holds.

    Raises:
        SpecError: another magic number, or sizes that do not match the bytes.
    """
    magic = 0x0800 + axes
    header = struct.Struct(f">{axes + 1}I")
    if len(content) < header.size:
        raise SpecError(f"{name} must have a header of {header.size} bytes, got {len(content)} bytes: it is truncated.")
    found, *sizes = header.unpack_from(content)
    if found != magic:
        raise SpecError(f"{name} must begin with the magic number {magic}, got {found}: it is no such IDX file.")
    expected = header.size + int(np.prod(sizes, dtype=np.int64))
    if len(content) != expected:
        raise SpecError(f"{name} must have {expected} bytes for the sizes {tuple(sizes)}, got {len(content)}.")
    return np.frombuffer(content, np.uint8, offset=header.size).reshape(sizes)
