"""The measured values of a run, by what was measured, of which cell, after which epoch, at which seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unperturbed.records import Measurement, SpecError, Variable

SeedValues = dict[int, float]
CellValues = dict[int, SeedValues]  # epoch -> seed -> value


class Values:
    """The measured values by variable, cell, epoch and seed."""

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self._cells: dict[tuple[str, str, str, str], CellValues] = {}
        self._images: dict[tuple[str, str, str, str], int] = {}
        self._run: set[tuple[str, str]] = set()
        for row in measurements:
            cell = self._cells.setdefault((row.measure, row.attack, row.architecture, row.condition), {})
            seeds = cell.setdefault(row.epoch, {})
            if row.seed in seeds:
                raise SpecError(
                    f"measurements: expected one {row.measure} of {row.architecture}/{row.condition}, seed {row.seed}, "
                    f"epoch {row.epoch}, attack {row.attack!r}, got two ({seeds[row.seed]} and {row.value}); "
                    "give the rows of one run."
                )
            seeds[row.seed] = row.value
            self._images[row.measure, row.attack, row.architecture, row.condition] = row.n
            self._run.add((row.architecture, row.condition))

    def of(self, variable: Variable, architecture: str, condition: str) -> CellValues:
        """Return the values of one cell; empty when there are none."""
        return self._cells.get((variable.measure, variable.attack, architecture, condition), {})

    def images(self, variable: Variable, architecture: str, condition: str) -> int | None:
        """Return on how many images the cell was measured."""
        return self._images.get((variable.measure, variable.attack, architecture, condition))

    def gap(self, variable: Variable, architecture: str, condition: str) -> str:
        """Return why a cell has no values at all."""
        if (architecture, condition) in self._run:
            return f"{architecture}/{condition} has no {variable.measure} under {variable.attack}"
        return f"{architecture}/{condition} was not run"

    def cells(self, architecture: str | None) -> list[tuple[str, str]]:
        """Return the (architecture, condition) that were run: of one architecture, or of all."""
        return sorted(cell for cell in self._run if architecture in (None, cell[0]))


def at(position: str | int, evaluated: Sequence[int]) -> tuple[int, ...]:
    """Return the epochs at a position among the evaluated ones (increasing): several for ``early`` and ``middle``.

    With a single evaluated epoch there is a last one, but no first: what the source says of the beginning of training
    is not asked of its end.

    >>> [at(position, [1, 10, 25]) for position in ("first", "last", "early", "middle", 10, 11)]
    [(1,), (25,), (1, 10), (10,), (10,), ()]
    """
    if isinstance(position, int):
        return (position,) if position in evaluated else ()
    before_last = tuple(evaluated[:-1])
    places = {"first": before_last[:1], "last": tuple(evaluated[-1:]), "early": before_last, "middle": before_last[1:]}
    return places[position]
