"""Why a stage is new: the fields in which it differs from the nearest recorded one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

FEW = 3  # more differences than this explain nothing
LONG = 40  # characters of a value that are shown

Fields = frozenset[tuple[str, str]]


def fields(canonical: str) -> Fields:
    """Return the dotted name and the JSON text of every value in a record's canonical text; a list is one value.

    >>> sorted(fields('{"recipe":{"epochs":2},"eps":[0.0,0.1]}'))
    [('eps', '[0.0, 0.1]'), ('recipe.epochs', '2')]
    """

    def walk(name: str, value: Any) -> Iterable[tuple[str, str]]:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                yield from walk(f"{name}.{key}" if name else key, inner)
        else:
            yield name, json.dumps(value)

    return frozenset(walk("", json.loads(canonical)))


def shown(text: str | None) -> str:
    """Return a value as a line can show it."""
    if text is None:
        return "absent"
    return text if len(text) <= LONG else text[: LONG - 3] + "..."


def difference(wanted: Fields, recorded: Iterable[Fields]) -> str:
    """Return ``name recorded -> wanted`` for each field that differs from the nearest of ``recorded``.

    The first of equally near ones counts. Empty if nothing is recorded or the nearest is far.

    >>> difference(fields('{"rate":0.1,"seed":1}'), [fields('{"rate":0.01,"seed":1}'), fields('{"rate":0.2,"seed":2}')])
    'rate 0.01 -> 0.1'
    """
    nearest = min(recorded, key=lambda other: len(wanted ^ other), default=None)
    if nearest is None:
        return ""
    before, after = dict(nearest - wanted), dict(wanted - nearest)
    names = sorted(before.keys() | after.keys())
    if len(names) > FEW:
        return ""
    return ", ".join(f"{name} {shown(before.get(name))} -> {shown(after.get(name))}" for name in names)
