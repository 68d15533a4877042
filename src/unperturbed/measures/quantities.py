"""What is measured: unit, range and better-direction of every quantity, so that no table or plot has to guess."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True)
class Quantity:
    """One measured quantity of one network under one attack."""

    unit: str
    lowest: float
    highest: float
    better: Literal["higher", "lower", ""]
    says: str


class Measured(NamedTuple):
    """The value of a quantity, with what is needed to draw it."""

    measure: str
    value: float
    unit: str
    better: str
    n: int  # images


OF_CURVES: dict[str, Quantity] = {
    "f0": Quantity("fraction", 0.0, 1.0, "higher", "accuracy at the smallest eps; the clean accuracy where that is 0"),
    "A_8_255": Quantity("fraction", 0.0, 1.0, "higher", "accuracy at eps = 8/255"),
    "A_last": Quantity("fraction", 0.0, 1.0, "higher", "accuracy at the largest eps"),
    "R": Quantity("", 0.0, math.inf, "higher", "mean accuracy over eps as a fraction of f0; above 1 only if it rises"),
    "R_minimum": Quantity("", 0.0, 1.0, "higher", "R of the running minimum of the accuracy"),
    "R_chance": Quantity("", 0.0, math.inf, "higher", "R of the accuracy above chance"),
    "R_8_255": Quantity("", 0.0, math.inf, "higher", "R on the interval up to eps = 8/255"),
    "R_16_255": Quantity("", 0.0, math.inf, "higher", "R on the interval up to eps = 16/255"),
    "C_last": Quantity(
        "", -1.0, math.inf, "higher", "relative change of accuracy from the smallest to the largest eps"
    ),
    "critical_eps_median": Quantity("full scale", 0.0, 1.0, "higher", "eps at which half of the images are broken"),
}
"""What an attack at several radii says of a network."""

QUANTITIES: dict[str, Quantity] = {
    **OF_CURVES,
    "A_eps": Quantity("fraction", 0.0, 1.0, "higher", "accuracy at the radius of the examination"),
    "A_eps_drawn": Quantity("fraction", 0.0, 1.0, "higher", "as AutoAttack counts a random network: by one lucky draw"),
    "A_eps_plain": Quantity("fraction", 0.0, 1.0, "higher", "what the plain attack of an audit left there"),
    "audit_flags": Quantity("", 0.0, math.inf, "lower", "checks of the audit that fired"),
    "audit_verdict": Quantity("", 0.0, 2.0, "lower", "of the audit: 0 trustworthy, 1 suspect, 2 illusory"),
    "ece": Quantity("fraction", 0.0, 1.0, "lower", "expected calibration error, 15 bins"),
    "mean_confidence": Quantity("fraction", 0.0, 1.0, "", "mean probability of the predicted class"),
    "mean_confidence_right": Quantity("fraction", 0.0, 1.0, "", "the same of the images that are classified correctly"),
    "ms_per_image": Quantity("ms", 0.0, math.inf, "lower", "time at inference for one image and one pass"),
    "average_certified_radius": Quantity("L2", 0.0, math.inf, "higher", "certified radius, 0 where wrong, mean"),
    "certified_0_25": Quantity("fraction", 0.0, 1.0, "higher", "right and certified at an L2 radius of 0.25"),
    "gradient_cosine": Quantity("", -1.0, 1.0, "", "cosine of input gradients of two draws; 1 without randomness"),
    "gradient_agreement": Quantity("", 0.0, 1.0, "", "size of the mean sign of such gradients; 0.176 by chance"),
    "gradient_cosine_T_0_01": Quantity("", -1.0, 1.0, "", "gradient_cosine at a temperature of 0.01"),
    "gradient_cosine_T_0_1": Quantity("", -1.0, 1.0, "", "gradient_cosine at a temperature of 0.1"),
    "gradient_cosine_T_0_67": Quantity("", -1.0, 1.0, "", "gradient_cosine at a temperature of 0.67"),
    "gradient_cosine_T_1": Quantity("", -1.0, 1.0, "", "gradient_cosine at a temperature of 1"),
    "noise_alpha": Quantity("", 0.0, math.inf, "", "learned noise as a fraction of what it disturbs, mean over layers"),
}
