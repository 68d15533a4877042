"""Measures: what an attack left of a network, as numbers with a unit, a range and a better direction."""

from unperturbed.measures.curves import (
    chance_corrected_robustness,
    critical_eps_quartiles,
    relative_change,
    robustness,
    running_minimum,
)
from unperturbed.measures.evidence import CurveEvidence, measure_evidence
from unperturbed.measures.quantities import QUANTITIES, Measured, Quantity

__all__ = [
    "QUANTITIES",
    "CurveEvidence",
    "Measured",
    "Quantity",
    "chance_corrected_robustness",
    "critical_eps_quartiles",
    "measure_evidence",
    "relative_change",
    "robustness",
    "running_minimum",
]
