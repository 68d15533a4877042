"""1,797 handwritten digits of 8x8 pixels that come with scikit-learn, enlarged to 32x32 and repeated in three channels.

Source: Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI, doi:10.24432/C50P49 (its test set).
Departs from the source: 50 digits of each class, picked once and for all, are the test set and the rest is trained on.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits

from unperturbed.data.files import Places
from unperturbed.data.resampling import enlarge
from unperturbed.data.settings import Interpolation, Share
from unperturbed.data.split import Collection, Dataset, Part, faded, ordering

CLASSES = tuple("0123456789")
TEST_PER_CLASS = 50


def digits(_: Places, *, interpolation: Interpolation = "bilinear", contrast: Share = 1.0) -> Dataset:
    """Return scikit-learn's digits: 1,297 for training and 500, equally many of each class, for testing.

    Args:
        interpolation: how 8x8 pixels become 32x32.
        contrast: the share of the image; the rest is middle grey.
    """
    return faded("digits", read_digits(interpolation), contrast)


def read_digits(interpolation: Interpolation) -> Collection:
    """Return the digits as parts; nothing but the installed scikit-learn is read."""
    images, labels = load_digits(return_X_y=True)
    enlarged = enlarge(
        np.asarray(images).astype(np.uint8).reshape(-1, 8, 8), interpolation=interpolation, full_scale=16
    )
    labels = np.asarray(labels).astype(np.int64)
    test = np.zeros(len(labels), bool)
    for digit in range(10):
        rows = np.flatnonzero(labels == digit)
        test[rows[ordering(len(rows), digit)[:TEST_PER_CLASS]]] = True
    return Collection(grey_part(enlarged[~test], labels[~test]), grey_part(enlarged[test], labels[test]), CLASSES)


def grey_part(images: np.ndarray, labels: np.ndarray) -> Part:
    """Return grey uint8 images (n, 32, 32) as three equal channels that share their memory."""
    return Part(torch.from_numpy(images)[:, None].expand(-1, 3, -1, -1), torch.from_numpy(labels))
