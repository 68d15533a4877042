"""A table as text: what the template of a page writes, cell by cell."""

from __future__ import annotations

from typing import NamedTuple

from markupsafe import Markup

from unperturbed.records import Setting
from unperturbed.report.drawing import INK
from unperturbed.report.numbers import whole


class Column(NamedTuple):
    """A heading, how the cells below it are set (``number``, ``words``, ``whole`` or nothing), and small lines."""

    title: str
    kind: str = ""
    below: tuple[str, ...] = ()


class Text(NamedTuple):
    """What one cell of a table says, with small lines below it; a ``badge`` is coloured by its name."""

    text: str
    kind: str = ""
    below: tuple[str, ...] = ()
    badge: str = ""


class Line(NamedTuple):
    """One row of a table; a ``group`` has a single cell over the whole width."""

    cells: tuple[Text, ...]
    kind: str = ""


class View(NamedTuple):
    """A table as text."""

    columns: tuple[Column, ...]
    rows: list[Line]
    caption: str = ""
    remark: str = ""


class Group(NamedTuple):
    """Tables below one heading."""

    title: str
    tables: list[View]
    remark: str


class Measures(NamedTuple):
    """Measures under the main attack and, to be unfolded, under the others."""

    main: View
    rest: list[View]


def inline(drawing: str) -> Markup:
    """Return an SVG for the page, with the page's own ink and paper."""
    return Markup(drawing.replace(INK, "currentColor").replace('fill="white"', 'fill="none"', 1))


def texts(*words: str) -> tuple[Text, ...]:
    """Return plain cells."""
    return tuple(Text(word) for word in words)


def per(images: set[int]) -> str:
    """Return on how many test images the networks were attacked."""
    ends = dict.fromkeys((min(images), max(images))) if images else {}
    return f"{' to '.join(map(whole, ends))} test images" if ends else "not attacked yet"


def word(setting: Setting) -> str:
    """Return a setting as a reader writes it."""
    return "none" if setting is None else str(setting)
