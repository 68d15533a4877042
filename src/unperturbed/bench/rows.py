"""What the benchmark of attacks measured, as rows, and the rows as a table for a terminal or in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.table import Table


class Row(NamedTuple):
    """One library on one network in one case; ``None`` where a number does not apply or could not be had."""

    case: str
    network: str
    library: str
    version: str
    attack: str
    norm: str
    n: int
    runs: int
    seconds: float | None  # median
    ratio: float | None  # to ours: above 1, ours is faster
    forwards: float | None  # per image
    backwards: float | None
    owed: tuple[float, float] | None  # forwards and backwards per image that had to be done, for ours
    eps: tuple[float, ...]
    accuracy: tuple[float, ...]  # at eps
    distance: float | None  # mean, of the images that all libraries that broke most broke
    median: float | None  # over the images that were right; an image not broken counts as infinitely far
    found: float | None  # fraction of the images that were right and were broken
    note: str

    @property
    def budget(self) -> str:
        """The attack and its norm, with the case where that has another name."""
        return f"{self.attack} {self.norm}" + ("" if self.case == self.attack else f" ({self.case})")


def table(rows: Sequence[Row]) -> Table:
    """Return the rows for a terminal of 100 columns.

    Ratios are seconds divided by ours; ``fwd`` and ``bwd`` are passes per image, in brackets those owed. What was
    reached is the percentage classified right at 0 and at every radius, or how far away the images found are and how
    many were found.
    """
    view = Table("case", box=None, pad_edge=False, caption=_remarks(rows), caption_justify="left")
    for name in ("library", "s", "ratio", "fwd", "bwd", "reached"):
        view.add_column(name, justify="left" if name in ("library", "reached") else "right", no_wrap=name != "reached")
    before: Any = None
    for row in rows:
        key = row.case, row.network, row.attack, row.norm
        first = key != before
        if first and before is not None:
            view.add_row()
        before = key
        owed_forwards, owed_backwards = row.owed or (None, None)
        view.add_row(
            f"{row.budget}, {row.n}\n{row.network}" if first else "",
            f"{row.library}\n{row.version}",
            _number(row.seconds, 2),
            _number(row.ratio, 2),
            _number(row.forwards, 0) + ("" if owed_forwards is None else f"\n({owed_forwards:.0f})"),
            _number(row.backwards, 0) + ("" if owed_backwards is None else f"\n({owed_backwards:.0f})"),
            _reached(row),
        )
    return view


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _reached(row: Row) -> str:
    said: list[str] = []
    if row.accuracy:
        said.append(" ".join(f"{100 * accuracy:.1f}".removesuffix(".0") for accuracy in row.accuracy))
    if row.found is not None:
        mean = "" if row.distance is None else f"mean {row.distance:.4f}, "
        median = "none" if row.median is None else f"{row.median:.4f}"
        said.append(f"{mean}median {median}, {100 * row.found:.1f} %")
    return "\n".join(said) or "not measured"


def _remarks(rows: Sequence[Row]) -> str:
    return "\n".join(f"{row.case}, {row.network}, {row.library}: {row.note}" for row in rows if row.note)


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table, the notes below it."""
    heads = ("case", "network", "n", "library", "runs", "s", "ratio", "forwards", "backwards", "owed", "reached")
    lines = [heads, ("---",) * len(heads)]
    for row in rows:
        due = "" if row.owed is None else f"{row.owed[0]:.1f} + {row.owed[1]:.1f}"
        lines.append(
            (
                row.budget,
                row.network,
                str(row.n),
                f"{row.library} {row.version}".strip(),
                str(row.runs),
                _number(row.seconds, 3),
                _number(row.ratio, 2),
                _number(row.forwards, 1),
                _number(row.backwards, 1),
                due,
                _reached(row).replace("\n", "; "),
            )
        )
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    notes = _remarks(rows)
    return text + ("\n\n" + "\n".join(f"- {line}" for line in notes.splitlines()) if notes else "") + "\n"
