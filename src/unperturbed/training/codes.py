"""What a frozen hidden layer makes of the images, so that its readout can be trained without passing them again."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unperturbed.data.split import Split

AT_ONCE = 1000  # fixed: another number rounds otherwise


class Codes:
    """The codes of a split in the place of its images, with the same rows and labels.

    The codes of plain images are computed once, n x units in single precision; an image that is mixed anew in every
    epoch is coded when it is asked for.
    """

    def __init__(self, split: Split, code: Callable[[Tensor], Tensor]) -> None:
        self.split = split
        self.code = code
        self.table: Tensor | None = None
        if len(split.parts) == 1:
            self.table = torch.cat([self._coded(rows) for rows in split.fixed().split(AT_ONCE)])

    def __len__(self) -> int:
        return len(self.split)

    def _coded(self, rows: Tensor) -> Tensor:
        with torch.no_grad():
            return self.code(self.split.images(rows))

    def to(self, _device: str | torch.device) -> Codes:
        """Return the codes, which stay on the device of the split."""
        return self

    def of_person(self, seed: int, change: Callable[[Tensor, Tensor, int], Tensor]) -> Codes:
        """Return the same codes with the responses of one person, as ``Split.of_person`` has them."""
        theirs = copy.copy(self)
        theirs.split = self.split.of_person(seed, change)
        return theirs

    def draw(self, generator: torch.Generator) -> Int[Tensor, "n parts"]:
        """Return the rows of a fresh epoch, as the split draws them."""
        return self.split.draw(generator)

    def fixed(self) -> Int[Tensor, "n parts"]:
        """Return the rows of an evaluation."""
        return self.split.fixed()

    def images(self, rows: Int[Tensor, "batch parts"]) -> Float[Tensor, "batch units"]:
        """Return the codes that stand for the images of these rows."""
        return self._coded(rows) if self.table is None else self.table[rows[:, 0].to(self.table.device)]

    def recorded(self, rows: Int[Tensor, "batch parts"]) -> Tensor | None:
        """Return what was recorded while the images were shown."""
        return self.split.recorded(rows)

    def labels(self, rows: Int[Tensor, "batch parts"]) -> Int[Tensor, " batch"]:
        """Return the classes."""
        return self.split.labels(rows)
