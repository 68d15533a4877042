"""The card of an audit at the terminal: what is left of the accuracy, the verdict, what broke it, what is doubted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from unperturbed.cli.progress import duration

COLOURS = {"trustworthy": "green", "suspect": "yellow", "illusory": "red"}
MOST = 8  # attacks that the card names


def card(audit: Mapping[str, Any], *, width: int) -> Panel:
    """Return the card of an audit in its plain form, ``width`` columns wide."""
    colour = COLOURS[audit["verdict"]]
    parts: list[RenderableType] = [threat(audit)]
    for part in (accuracies(audit, colour), draws(audit), verdict(audit, colour), attacks(audit), flags(audit)):
        parts += [Text(), part] if part is not None else []
    parts += [Text(), cost(audit), *(Text(f"Note: {remark}", style="dim") for remark in audit["remarks"])]
    title = Text(audit["name"], style="bold")
    return Panel(Group(*parts), title=title, title_align="left", border_style=colour, width=width, padding=(1, 2))


def threat(audit: Mapping[str, Any]) -> Text:
    """Return what was attacked and within which bounds."""
    from unperturbed.report.numbers import radius

    return Text(f"{audit['data']}\n{audit['norm']}, eps = {radius(audit['eps'])}, budget {audit['budget']}")


def accuracies(audit: Mapping[str, Any], colour: str) -> Table:
    """Return the accuracy from clean to broken, as numbers and bars."""
    low, high = audit["interval"]
    rows = [
        ("clean", audit["clean_accuracy"], ""),
        ("plain attack", audit["plain_accuracy"], ""),
        ("suite", audit["suite_accuracy"], ""),
        ("all attacks", audit["robust_accuracy"], f"{percent(low)} to {percent(high)}"),
    ]
    table = Table.grid(Column(), Column(justify="right"), Column(width=22), Column(), padding=(0, 2, 0, 0))
    for place, (words, value, note) in enumerate(rows):
        style = f"bold {colour}" if place == len(rows) - 1 else ""
        bar = ProgressBar(total=1.0, completed=value, width=22, complete_style=colour, finished_style=colour)
        table.add_row(Text(words, style=style), Text(percent(value), style=style), bar, note)
    return table


def draws(audit: Mapping[str, Any]) -> Text | None:
    """Return what a random classifier reaches over its draws, on clean and on attacked images."""
    drawn = audit["random"]
    if drawn is None:
        return None
    lines = [
        f"{words} {percent(drawn[f'{of}_mean'])} +- {percent(drawn[f'{of}_sd'])}, vote {percent(drawn[f'{of}_vote'])}"
        for words, of in (("clean", "clean"), ("attacked", "robust"))
    ]
    return Text(f"random classifier, {drawn['draws']} draws: {lines[0]};\n{lines[1]}")


def verdict(audit: Mapping[str, Any], colour: str) -> Text:
    """Return the verdict with its reasons."""
    words = Text(audit["verdict"].upper(), style=f"bold {colour}")
    for reason in audit["reasons"]:
        words.append(f"\n{reason}", style="not bold default")
    return words


def attacks(audit: Mapping[str, Any]) -> Table | None:
    """Return which attack broke what, those that broke nothing left out."""
    broke = [row for row in audit["attacks"] if row["broke"]]
    if not broke:
        return None
    counted = all("alone" in row for row in broke)  # what an attack alone broke is known where attacks share images
    table = Table(
        Column("attack", overflow="ellipsis", no_wrap=True, ratio=2),
        Column("through", overflow="ellipsis", no_wrap=True, ratio=4),
        Column("accuracy", justify="right", no_wrap=True),
        Column("broke", justify="right", no_wrap=True),
        *([Column("alone", justify="right", no_wrap=True)] if counted else []),
        box=None,
        expand=True,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="dim",
    )
    for row in sorted(broke, key=lambda row: -row["broke"])[:MOST]:
        fall = f"{percent(row['before'])} -> {percent(row['after'])}"
        alone = [str(row["alone"])] if counted else []
        table.add_row(Text(row["name"]), Text(row["through"]), fall, str(row["broke"]), *alone)
    if len(broke) > MOST:
        table.add_row(f"and {len(broke) - MOST} more")
    return table


def flags(audit: Mapping[str, Any]) -> Table | None:
    """Return the checks that fired: those that are open, then those that an attack has answered."""
    fired = sorted((row for row in audit["flags"] if row["fired"] and row["applies"]), key=lambda row: row["resolved"])
    if not fired:
        return None
    table = Table.grid(Column(no_wrap=True), Column(), padding=(0, 2, 0, 0))
    for row in fired:
        state = ("answered", "yellow") if row["resolved"] else ("open", "red")
        words = Text(f"{row['name']} ({state[0]}). {row['says']}")
        if row["remedy"]:
            words.append(f" Remedy: {row['remedy']}.", style="dim")
        table.add_row(Text(row["id"], style=f"bold {state[1]}"), words)
    return table


def cost(audit: Mapping[str, Any]) -> Text:
    """Return what the audit took."""
    passes = f"{audit['forwards'] / audit['n']:,.0f} forward and {audit['backwards'] / audit['n']:,.0f} backward passes"
    return Text(f"{duration(audit['seconds'])}, {passes} per image", style="dim")


def percent(value: float | None) -> str:
    """Return a fraction as a percentage.

    >>> percent(0.0731), percent(None)
    ('7.3 %', '-')
    """
    return "-" if value is None else f"{100 * value:.1f} %"
