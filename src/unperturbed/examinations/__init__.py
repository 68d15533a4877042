"""Examinations by name: what a study can ask of a network besides its accuracy under an attack."""

from unperturbed.examinations.autoattack import autoattack
from unperturbed.examinations.contract import Examination, Found, Interrupted, Subject, measured

__all__ = ["EXAMINATIONS", "PASSES", "Examination", "Found", "Interrupted", "Subject", "measured"]

EXAMINATIONS: dict[str, Examination] = {
    "autoattack": autoattack,
}

PASSES: dict[str, int] = {"autoattack": 3000}  # about how many for each image, for the time left only
