"""Planted illusions, each with an attack that knows the trick, and honest networks; all on small digits."""

from .attacks import accuracy, plain, robust, vote
from .digits import EPS, NORM, audited
from .honest import HONEST, Honest
from .illusions import ILLUSIONS, Illusion

__all__ = [
    "EPS",
    "HONEST",
    "ILLUSIONS",
    "NORM",
    "Honest",
    "Illusion",
    "accuracy",
    "audited",
    "plain",
    "robust",
    "vote",
]
