"""Fusion: a digit and an object in one image, to be classified by one or the other.

Source: Kunhardt, Deza and Poggio (2021), arXiv:2102.10534, section 2: F = 0.5 M + 0.5 C, pairs drawn anew every epoch
in training and fixed in testing.
Departs from the source: any digit set with any object set, and the share is a setting.
"""

from collections.abc import Callable
from typing import Literal

from unperturbed.data.cifar10 import read_cifar10
from unperturbed.data.digits import read_digits
from unperturbed.data.files import Places
from unperturbed.data.mnist import read_mnist
from unperturbed.data.photographs import read_photographs
from unperturbed.data.settings import Interpolation, Share
from unperturbed.data.split import Collection, Dataset, mix

DigitSet = Literal["digits", "mnist"]
ObjectSet = Literal["photographs", "cifar10"]

DIGIT_SETS: dict[DigitSet, Callable[[Places, Interpolation], Collection]] = {
    "digits": lambda _, interpolation: read_digits(interpolation),
    "mnist": read_mnist,
}
OBJECT_SETS: dict[ObjectSet, Callable[[Places], Collection]] = {
    "photographs": lambda _: read_photographs(),
    "cifar10": read_cifar10,
}


def fusion(
    places: Places,
    *,
    digits: DigitSet = "digits",
    objects: ObjectSet = "photographs",
    alpha: Share = 0.5,
    task: Literal["digit", "object"] = "digit",
    interpolation: Interpolation = "bilinear",
) -> Dataset:
    """Return images that are ``alpha`` parts digit and ``1 - alpha`` parts object.

    Args:
        places: where files are looked for.
        digits: the set that the digits come from.
        objects: the set that the objects come from.
        alpha: the share of the digit.
        task: whose label is the class.
        interpolation: how the digits are enlarged.
    """
    collections = (DIGIT_SETS[digits](places, interpolation), OBJECT_SETS[objects](places))
    return mix("fusion", collections, weights=(alpha, 1 - alpha), grey=0.0, task=0 if task == "digit" else 1)
