"""Examinations by name: what a study can ask of a network besides its accuracy under an attack."""

from contextlib import suppress
from typing import cast

from unperturbed.examinations.audited import audited
from unperturbed.examinations.autoattack import autoattack
from unperturbed.examinations.boundary import boundary
from unperturbed.examinations.calibration import calibration
from unperturbed.examinations.certificates import certificates
from unperturbed.examinations.contract import BATCH_SIZE, Examination, Found, Interrupted, Subject, measured
from unperturbed.examinations.critical_perturbation import critical_perturbation, published_perturbation
from unperturbed.examinations.dimension import dimension
from unperturbed.examinations.eeg_prediction import eeg_prediction
from unperturbed.examinations.estimators import estimators
from unperturbed.examinations.geometry import geometry
from unperturbed.examinations.gradients import gradients
from unperturbed.examinations.noise_strength import noise_strength
from unperturbed.examinations.representational_similarity import representational_similarity
from unperturbed.examinations.robustness_gain import robustness_gain
from unperturbed.examinations.spectrum import spectrum
from unperturbed.examinations.timing import timing
from unperturbed.examinations.transfer import transfer
from unperturbed.records import Spec

__all__ = [
    "APART",
    "BATCH_SIZE",
    "EXAMINATIONS",
    "PASSES",
    "Examination",
    "Found",
    "Interrupted",
    "Subject",
    "check_spec",
    "measured",
]

EXAMINATIONS: dict[str, Examination] = {
    "autoattack": autoattack,
    "calibration": calibration,
    "timing": timing,
    "certificates": certificates,
    "audit": audited,
    "transfer": transfer,
    "gradients": gradients,
    "noise-strength": noise_strength,
    "spectrum": spectrum,
    "estimators": estimators,
    "geometry": geometry,
    "dimension": dimension,
    "boundary": boundary,
    "critical-perturbation": critical_perturbation,
    "published-perturbation": published_perturbation,
    "eeg-prediction": eeg_prediction,
    "robustness-gain": robustness_gain,
    "representational-similarity": representational_similarity,
}

APART = frozenset({"robustness-gain"})  # what these find of a network beside another is what they find of it alone

PASSES: dict[str, int] = {  # about how many for each image, for the time left only
    "autoattack": 3000,
    "calibration": 16,
    "timing": 5,
    "certificates": 1100,
    "audit": 2000,
    "transfer": 120,
    "gradients": 200,
    "noise-strength": 1,
    "spectrum": 2,
    "estimators": 2,
    "geometry": 100,
    "dimension": 2,
    "boundary": 15,
    "critical-perturbation": 300,
    "published-perturbation": 1000,
    "eeg-prediction": 1,
    "robustness-gain": 600,
    "representational-similarity": 1,
}


class _Looked(Exception):
    """An examination has nothing against its settings and begins."""


class _Unseen:
    def __getattr__(self, name: str) -> object:
        raise _Looked


def check_spec(spec: Spec) -> None:
    """Refuse settings with which an examination could not run, before anything runs.

    It is rehearsed on a subject that ends it at the first look, so that its own checks decide and nothing is computed.

    Raises:
        SpecError: as the examination says.

    >>> check_spec(Spec(name="spectrum", settings={"first": 500, "last": 11}))
    Traceback (most recent call last):
    unperturbed.records.SpecError: power_law: expected a rank of at least 1 and three ranks or more; got 500 to 11
    """
    with suppress(_Looked):
        EXAMINATIONS[spec.name](cast("Subject", _Unseen()), **spec.settings)
