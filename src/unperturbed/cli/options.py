"""The options that several commands share, each with its words and its default in one place."""

from __future__ import annotations

import functools
import inspect
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unperturbed.records import SpecError

if TYPE_CHECKING:
    from unperturbed.records import Setting, Study

LedgerFolder = Annotated[
    Path, typer.Option("--ledger", help="Folder that keeps results.", envvar="UNPERTURBED_LEDGER", metavar="DIR")
]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Folder with data files.", envvar="UNPERTURBED_DATA", metavar="DIR")
]
AcceptInexact = Annotated[
    bool, typer.Option("--accept-inexact", help="Take data files that are not the official ones.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Trials at once, each with its share of the threads; 1: one after another in this process. "
        "Left out: as many as there are threads, on a CPU.",
        metavar="N",
    ),
]
RUNS = Path("runs")


@dataclass(frozen=True)
class StudyChoice:
    """The study that a command is about, what is changed in it, and where its results and data lie."""

    study: Annotated[str, typer.Argument(help="A study's name, or a path ending in .toml.")]
    scale: Annotated[str, typer.Option(help="smoke, laptop, paper or another one that the study has.")] = "laptop"
    seeds: Annotated[int | None, typer.Option(help="Number of matched seeds, from 0.")] = None
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this condition, architecture or architecture/condition; repeat for more.", metavar="CONDITION"
        ),
    ] = None
    until_epoch: Annotated[
        int | None, typer.Option(help="Stop training after this epoch; the schedule stays.", metavar="E")
    ] = None
    pretraining_epochs: Annotated[
        int | None, typer.Option(help="Epochs of the first set in pretrained conditions.", metavar="E")
    ] = None
    digits: Annotated[str | None, typer.Option(help="The data set of digits: digits or mnist.")] = None
    objects: Annotated[str | None, typer.Option(help="The data set of objects: photographs or cifar10.")] = None
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another value of a setting of the study; repeat for more.", metavar="NAME=VALUE"),
    ] = None
    ledger: LedgerFolder = RUNS
    data_root: DataRoot = None
    accept_inexact: AcceptInexact = False

    def load(self) -> Study:
        """Return the study with its changes, every default written out."""
        from unperturbed import lab

        chosen = {"digits": self.digits, "objects": self.objects}
        settings: dict[str, Setting] = {name: value for name, value in chosen.items() if value is not None}
        for word in self.settings or ():
            name, sign, value = word.partition("=")
            if not (name and sign and value):
                raise SpecError(f"--set: expected NAME=VALUE, for example images=cifar10; got {word!r}")
            settings[name] = _as_in_a_study_file(value)
        changes = lab.Changes(self.seeds, tuple(self.only or ()), self.until_epoch, self.pretraining_epochs, settings)
        return lab.load(self.study, scale=self.scale, changes=changes)


def _as_in_a_study_file(value: str) -> Setting:
    """Return the number or truth value that the words stand for in TOML, or the words, which need no quotes here.

    >>> _as_in_a_study_file("200"), _as_in_a_study_file("0.5"), _as_in_a_study_file("true"), _as_in_a_study_file("none")
    (200, 0.5, True, 'none')
    """
    try:
        read = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value
    return read if isinstance(read, bool | int | float | str) else value


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return ``command`` with each field of its first parameter as an option of its own, which is what Typer reads."""
    first, *rest = inspect.signature(command, eval_str=True).parameters.values()
    fields = inspect.signature(first.annotation, eval_str=True).parameters.values()

    @functools.wraps(command)
    def called(**words: Any) -> None:
        command(first.annotation(**{field.name: words.pop(field.name) for field in fields}), **words)

    options = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in (*fields, *rest)]
    called.__signature__ = inspect.Signature(options)  # pyright: ignore[reportAttributeAccessIssue]
    return called
