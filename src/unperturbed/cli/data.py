"""The commands about data sets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from unperturbed.cli import terminal
from unperturbed.cli.options import AsJson, DataRoot

FINE = ("official", "sound", "left out")

app = typer.Typer(help="Data sets: list, fetch, verify.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def listing(data_root: DataRoot = None, as_json: AsJson = False) -> None:
    """List the data sets, and where they were found."""
    from unperturbed import data

    rows = data.listing(data_root)
    if as_json:
        print(json.dumps([row._asdict() for row in rows], default=str))
        return
    table = Table("name", "kind", "train", "test", "found", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row.name, row.kind, str(row.train), str(row.test), str(row.where) if row.found else "-")
    terminal.out.print(table)


@app.command("fetch")
def fetch(
    name: Annotated[
        str, typer.Argument(help="mnist, cifar10, eeg-faces-houses, images92, things-eeg2 or imagenet-weights.")
    ],
    to: Annotated[Path | None, typer.Option("--to", help="Folder; default: the cache.", metavar="DIR")] = None,
) -> None:
    """Download a data set's official files and check them, or say what to download by hand (the last two)."""
    from unperturbed import data

    if by_hand := data.instructions(name, to):
        terminal.out.print(by_hand, end="", markup=False, soft_wrap=True)
        return
    for path in data.fetch(name, to, progress=sys.stderr.isatty()):
        terminal.out.print(str(path), markup=False, soft_wrap=True)


@app.command("verify")
def verify(
    name: Annotated[str, typer.Argument(help="A data set, as `unperturbed data list` names it.")],
    data_root: DataRoot = None,
) -> None:
    """Compare a data set's files with the official checksums or, without any, with what its authors describe."""
    from unperturbed import data

    checks = data.verify(name, data_root)
    for check in checks:
        seen = "" if check.state in FINE or not check.got else f" (expected {check.expected}, got {check.got})"
        words = f"{check.file}: {check.state}{seen} {check.where or ''}"
        terminal.out.print(words, markup=False, soft_wrap=True)
    if not all(check.state in FINE for check in checks):
        raise typer.Exit(1)
