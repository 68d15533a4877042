"""Examinations by name: what a study can ask of a network besides its accuracy under an attack."""

from unperturbed.examinations.audited import audited
from unperturbed.examinations.autoattack import autoattack
from unperturbed.examinations.calibration import calibration
from unperturbed.examinations.certificates import certificates
from unperturbed.examinations.contract import BATCH_SIZE, Examination, Found, Interrupted, Subject, measured
from unperturbed.examinations.gradients import gradients
from unperturbed.examinations.noise_strength import noise_strength
from unperturbed.examinations.timing import timing
from unperturbed.examinations.transfer import transfer

__all__ = ["BATCH_SIZE", "EXAMINATIONS", "PASSES", "Examination", "Found", "Interrupted", "Subject", "measured"]

EXAMINATIONS: dict[str, Examination] = {
    "autoattack": autoattack,
    "calibration": calibration,
    "timing": timing,
    "certificates": certificates,
    "audit": audited,
    "transfer": transfer,
    "gradients": gradients,
    "noise-strength": noise_strength,
}

PASSES: dict[str, int] = {  # about how many for each image, for the time left only
    "autoattack": 3000,
    "calibration": 16,
    "timing": 5,
    "certificates": 1100,
    "audit": 2000,
    "transfer": 120,
    "gradients": 200,
    "noise-strength": 1,
}
