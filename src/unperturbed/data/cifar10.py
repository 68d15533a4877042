"""CIFAR-10: 60,000 colour photographs of 32x32 pixels in ten classes.

Source: Krizhevsky (2009), Learning multiple layers of features from tiny images, University of Toronto, chapter 3; the
official binary version: records of one label byte, then 1,024 red, 1,024 green and 1,024 blue values.
"""

import numpy as np
import torch

from unperturbed.data.files import Download, OfficialFile, OfficialSet, Places, read
from unperturbed.data.settings import Share
from unperturbed.data.split import Collection, Dataset, Part, faded
from unperturbed.records import SpecError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32

ARCHIVE = "cifar-10-binary.tar.gz"

FILES = OfficialSet(
    name="cifar10",
    folders=("cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin", "."),
    files=(
        OfficialFile("data_batch_1.bin", 30730000, "sha1", "aadd24acce27caa71bf4b10992e9e7b2d74c2540"),
        OfficialFile("data_batch_2.bin", 30730000, "sha1", "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795"),
        OfficialFile("data_batch_3.bin", 30730000, "sha1", "1dd00a74ab1d17a6e7d73e185b69dbf31242f295"),
        OfficialFile("data_batch_4.bin", 30730000, "sha1", "aab85764eb3584312d3c7f65fd2fd016e36a258e"),
        OfficialFile("data_batch_5.bin", 30730000, "sha1", "26e2849e66a845b7f1e4614ae70f4889ae604628"),
        OfficialFile(
            "test_batch.bin", 30730000, "sha1", "67eb016db431130d61cd03c7ad570b013799c88c", "test_batch*.bin*"
        ),
    ),
    downloads=(
        Download(ARCHIVE, f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}", "md5:c32a1d4ab5d03f1284b67883e8d87530"),
    ),
    archive=ARCHIVE,
)


def cifar10(places: Places, *, contrast: Share = 1.0) -> Dataset:
    """Return CIFAR-10: 50,000 images for training and 10,000 for testing.

    Args:
        places: where the files are looked for.
        contrast: the share of the image; the rest is middle grey.
    """
    return faded("cifar10", read_cifar10(places), contrast)


def read_cifar10(places: Places) -> Collection:
    """Return CIFAR-10 as parts."""
    contents, remarks = read(FILES, places)
    train = [records(contents[file.name], file.name) for file in FILES.files[:-1]]
    test = records(contents["test_batch.bin"], "test_batch.bin")
    return Collection(_part(np.concatenate(train)), _part(test), CLASSES, remarks)


def records(content: bytes, name: str) -> np.ndarray:
    """Return the records (n, 3073) of an unpacked file of the binary version.

    Raises:
        SpecError: no whole number of records, or a label above 9.
    """
    if not content or len(content) % RECORD:
        raise SpecError(f"{name} must hold whole records of {RECORD} bytes, got {len(content)} bytes: it is truncated.")
    rows = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    if rows[:, 0].max() > 9:
        raise SpecError(f"{name} must have labels 0 to 9, got {rows[:, 0].max()}: it is damaged.")
    return rows


def _part(rows: np.ndarray) -> Part:
    images = np.ascontiguousarray(rows[:, 1:]).reshape(-1, 3, 32, 32)
    return Part(torch.from_numpy(images), torch.from_numpy(rows[:, 0].astype(np.int64)))
