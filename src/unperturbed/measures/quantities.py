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


QUANTITIES: dict[str, Quantity] = {
    "f0": Quantity("fraction", 0.0, 1.0, "higher", "accuracy at the smallest eps; the clean accuracy where that is 0"),
    "A_8_255": Quantity("fraction", 0.0, 1.0, "higher", "accuracy at eps = 8/255"),
    "A_last": Quantity("fraction", 0.0, 1.0, "higher", "accuracy at the largest eps"),
    "A_eps": Quantity("fraction", 0.0, 1.0, "higher", "accuracy at the radius of the examination"),
    "A_eps_fresh": Quantity("fraction", 0.0, 1.0, "higher", "the same as an expectation over fresh draws"),
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
