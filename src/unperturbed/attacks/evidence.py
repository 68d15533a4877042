"""What one attack did to one classifier, image by image, as arrays that outlive the tensors.

Every number that is reported about an attack is computed later from these, without a network.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

TEXT = {"remarks": np.str_}  # an empty list of words has no type of its own


@dataclass(frozen=True, eq=False)
class Evidence:
    """E radii, N images, of which the first K are kept as pictures."""

    eps: NDArray[np.float64]  # (E,) increasing, fractions of full scale
    labels: NDArray[np.int16]  # (N,)
    prediction: NDArray[np.int16]  # (E, N) by the judge, on the adversarial image
    correct: NDArray[np.bool_]  # (E, N) prediction == labels; with targets: the attack has not succeeded
    linf: NDArray[np.float32]  # (E, N) distance of the adversarial image, 0 to 1
    l2: NDArray[np.float32]  # (E, N)
    confidence: NDArray[np.float32]  # (N,) probability of the true class on the clean image
    critical_eps: NDArray[np.float64]  # (N,) smallest radius that broke it; 0: from the start; inf: never broken
    refused: NDArray[np.bool_]  # (E, N) the judge refused the image (box or ball); the one before that attack stands
    forwards: int  # images that went through the classifier, in all
    backwards: int  # gradients of an image, in all
    originals: NDArray[np.float32]  # (K, C, H, W)
    adversarial: NDArray[np.float32]  # (E, K, C, H, W)
    remarks: tuple[str, ...] = ()  # where the attack could not be what its name says

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Fraction of the N images that are classified correctly at every radius, (E,)."""
        return self.correct.mean(axis=1)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return every field as an array, for ``numpy.savez``."""
        return {field.name: np.asarray(getattr(self, field.name), dtype=TEXT.get(field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Evidence":
        """Return the evidence whose ``arrays()`` these are."""
        values: dict[str, Any] = {field.name: arrays[field.name] for field in fields(cls)}
        for count in ("forwards", "backwards"):
            values[count] = int(values[count])
        values["remarks"] = tuple(str(remark) for remark in values["remarks"])
        return cls(**values)
