"""The command line: words become calls, results become text or JSON, bad input becomes one line."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from unperturbed import __version__
from unperturbed.records import SpecError

app = typer.Typer(
    name="unperturbed",
    help="A laboratory for the mechanisms of adversarial robustness.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Data sets: list, fetch, verify.", no_args_is_help=True, rich_markup_mode=None)
bench_app = typer.Typer(help="Measured speed, as ratios.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")

out = Console(highlight=False, soft_wrap=False)
err = Console(stderr=True, highlight=False)

BAD_INPUT, INTERRUPTED, TRIALS_FAILED = 2, 130, 3

LedgerFolder = Annotated[
    Path, typer.Option("--ledger", help="Folder that keeps results.", envvar="UNPERTURBED_LEDGER", metavar="DIR")
]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Folder with data files.", envvar="UNPERTURBED_DATA", metavar="DIR")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Scale = Annotated[str, typer.Option(help="smoke (seconds), laptop (minutes) or paper (as published).")]
Seeds = Annotated[int | None, typer.Option(help="Number of matched seeds, from 0.")]
Only = Annotated[
    list[str] | None,
    typer.Option(
        help="Only this condition, architecture or architecture/condition; repeat for more.", metavar="CONDITION"
    ),
]
UntilEpoch = Annotated[
    int | None, typer.Option(help="Stop training after this epoch; the schedule stays.", metavar="E")
]
PretrainingEpochs = Annotated[
    int | None, typer.Option(help="Epochs of the first set in pretrained conditions.", metavar="E")
]
Digits = Annotated[str | None, typer.Option(help="The data set of digits: digits or mnist.")]
Objects = Annotated[str | None, typer.Option(help="The data set of objects: photographs or cifar10.")]
AcceptInexact = Annotated[
    bool, typer.Option("--accept-inexact", help="Take data files that are not the official ones.")
]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out.print(f"unperturbed {__version__}")
        raise typer.Exit


@app.command()
def run(
    study: Annotated[str, typer.Argument(help="A study's name, or a path ending in .toml.")],
    scale: Scale = "laptop",
    seeds: Seeds = None,
    only: Only = None,
    until_epoch: UntilEpoch = None,
    pretraining_epochs: PretrainingEpochs = None,
    digits: Digits = None,
    objects: Objects = None,
    ledger: LedgerFolder = Path("runs"),
    data_root: DataRoot = None,
    accept_inexact: AcceptInexact = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Train, attack, measure, test and report; goes on where it stopped."""
    from unperturbed import lab, report
    from unperturbed.ledger import Ledger
    from unperturbed.report.gather import gather

    chosen = lab.load(
        study, scale=scale, changes=_changes(seeds, only, until_epoch, pretraining_epochs, digits, objects)
    )
    where = lab.choose_device(device)
    command = _command()
    with Ledger.open(ledger) as book, _stoppable() as stopped, _progress(quiet=as_json) as show:
        try:
            outcome = lab.run(
                chosen,
                book,
                data_root=data_root,
                accept_inexact=accept_inexact,
                device=where,
                command=command,
                on_update=show,
                stopped=stopped,
            )
        except lab.Stopped:
            err.print("Stopped; everything done is kept. The same command goes on from here.")
            raise typer.Exit(INTERRUPTED) from None
        for damage in book.damaged:
            err.print(f"Computed again, {damage}")
        show(lab.Update("writing the report", 1.0, None))
        content = gather(book, outcome.run, seconds=outcome.seconds)
    page = report.write(ledger / "reports" / f"{chosen.name}-{scale}", content)
    if as_json:
        print(json.dumps(_summary(content, outcome, page), allow_nan=False))
    else:
        _print_claims(content)
        out.print(
            f"{outcome.total} trials: {outcome.computed} computed, {outcome.reused} reused, "
            f"{len(outcome.failed)} failed; {_duration(outcome.seconds)}."
        )
        for name, reason in outcome.failed.items():
            out.print(f"failed: {name}: {reason}", markup=False)
        out.print(f"Report: {page}", soft_wrap=True)
    if outcome.failed:
        raise typer.Exit(TRIALS_FAILED)


@app.command()
def studies(as_json: AsJson = False) -> None:
    """List the studies that come with the lab."""
    from unperturbed.lab import names
    from unperturbed.lab.study import find, read

    rows = [(name, read(find(name))) for name in names()]
    if as_json:
        print(
            json.dumps([{"name": name, "question": file.question, "scales": list(file.scales)} for name, file in rows])
        )
        return
    for name, file in rows:
        out.print(f"[bold]{name}[/bold]  {file.question}")
        for scale, size in file.scales.items():
            out.print(f"    --scale {scale:7} {size.says}")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the new study; it becomes NAME.toml here.")],
    study: Annotated[str, typer.Option("--from", help="The study to copy.")] = "distribution-and-task",
) -> None:
    """Copy a study into a file to edit and run."""
    from unperturbed.lab.study import find

    target = Path(name if name.endswith(".toml") else f"{name}.toml")
    source = find(study)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text(encoding="utf-8"))
    except FileExistsError:
        raise SpecError(f"{target} exists already. Choose another name.") from None
    except OSError as error:
        raise SpecError(f"{target} cannot be written: {error.strerror}.") from error
    out.print(f"Wrote {target}. Edit it, then: unperturbed run {target}", markup=False, soft_wrap=True)


@app.command()
def explain(
    study: Annotated[str, typer.Argument(help="A study's name, or a path ending in .toml.")],
    scale: Scale = "laptop",
    seeds: Seeds = None,
    only: Only = None,
    until_epoch: UntilEpoch = None,
    pretraining_epochs: PretrainingEpochs = None,
    digits: Digits = None,
    objects: Objects = None,
    ledger: LedgerFolder = Path("runs"),
    data_root: DataRoot = None,
    accept_inexact: AcceptInexact = False,
    as_json: AsJson = False,
) -> None:
    """Say what would run, and why."""
    from unperturbed import lab
    from unperturbed.lab.runner import load_datasets
    from unperturbed.ledger import Ledger
    from unperturbed.ledger.schema import DATABASE

    chosen = lab.load(
        study, scale=scale, changes=_changes(seeds, only, until_epoch, pretraining_epochs, digits, objects)
    )
    chosen, datasets = load_datasets(chosen, root=data_root, accept_inexact=accept_inexact)
    if (ledger / DATABASE).exists():
        with Ledger.open(ledger, write=False) as book:
            plans = lab.explain(chosen, book, datasets)
    else:
        plans = lab.explain(chosen, None, datasets)
    if as_json:
        print(json.dumps([plan._asdict() for plan in plans]))
        return
    out.print(f"{chosen.title}, scale {scale}, {len(chosen.seeds)} seeds, {len(chosen.trials)} trials", markup=False)
    table = Table(Column("trial", no_wrap=True), "stages", "recorded", "to compute", "why", box=None, pad_edge=False)
    for name in dict.fromkeys(plan.trial for plan in plans):
        mine = [plan for plan in plans if plan.trial == name]
        owed = [plan for plan in mine if plan.why != "recorded"]
        why = f"{owed[0].what}: {owed[0].why}" if owed else ""
        table.add_row(name, str(len(mine)), str(len(mine) - len(owed)), str(len(owed)), why)
    out.print(table)


@app.command("report")
def rebuild(
    study: Annotated[
        str | None, typer.Argument(help="The study whose latest run is meant; default: the latest run.")
    ] = None,
    ledger: LedgerFolder = Path("runs"),
    to: Annotated[Path | None, typer.Option("--out", help="Folder for the report.", metavar="DIR")] = None,
) -> None:
    """Write the report of the latest run again from the ledger; nothing is computed."""
    from unperturbed import report
    from unperturbed.ledger import Ledger
    from unperturbed.report.gather import gather

    with Ledger.open(ledger, write=False) as book:
        latest = book.latest_run(study)
        if latest is None:
            have = ", ".join(sorted({run.study for run in book.runs()})) or "none"
            raise SpecError(f"{ledger} holds no run{f' of {study!r}' if study else ''}. It has runs of: {have}.")
        content = gather(book, latest.id)
    folder = to or ledger / "reports" / f"{content.study.name}-{content.study.scale}"
    out.print(f"Report: {report.write(folder, content)}", markup=False, soft_wrap=True)


@data_app.command("list")
def data_list(data_root: DataRoot = None, as_json: AsJson = False) -> None:
    """List the data sets, and where they were found."""
    from unperturbed import data

    rows = data.listing(data_root)
    if as_json:
        print(json.dumps([row._asdict() for row in rows], default=str))
        return
    table = Table("name", "kind", "train", "test", "found", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row.name, row.kind, str(row.train), str(row.test), str(row.where) if row.found else "-")
    out.print(table)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="mnist or cifar10.")],
    to: Annotated[Path | None, typer.Option("--to", help="Folder; default: the cache.", metavar="DIR")] = None,
) -> None:
    """Download a data set's official files and check them."""
    from unperturbed import data

    for path in data.fetch(name, to, progress=sys.stderr.isatty()):
        out.print(str(path), markup=False, soft_wrap=True)


@data_app.command("verify")
def data_verify(
    name: Annotated[str, typer.Argument(help="mnist or cifar10.")],
    data_root: DataRoot = None,
) -> None:
    """Compare a data set's files with the official checksums."""
    from unperturbed import data

    checks = data.verify(name, data_root)
    for check in checks:
        seen = "" if check.state == "official" else f" (expected {check.expected}, got {check.got})"
        out.print(f"{check.file}: {check.state}{seen} {check.where or ''}", markup=False, soft_wrap=True)
    if not all(check.state == "official" for check in checks):
        raise typer.Exit(1)


@bench_app.command("training")
def bench_training(
    repeats: Annotated[int, typer.Option(help="Timed repeats of each form, in turn.")] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Time matched seeds as one program, one by one, and in a plain PyTorch loop."""
    from unperturbed.bench import training
    from unperturbed.lab import choose_device

    rows = training.measure(repeats=repeats, device=choose_device(device))
    if as_json:
        print(json.dumps([row._asdict() for row in rows]))
        return
    out.print(training.table(rows))


def _changes(
    seeds: int | None,
    only: list[str] | None,
    until_epoch: int | None,
    pretraining_epochs: int | None,
    digits: str | None,
    objects: str | None,
) -> Any:
    from unperturbed.lab import Changes

    settings = {name: value for name, value in (("digits", digits), ("objects", objects)) if value is not None}
    return Changes(seeds, tuple(only or ()), until_epoch, pretraining_epochs, settings)


def _command() -> str:
    return shlex.join(["unperturbed", *sys.argv[1:]])


def _summary(content: Any, outcome: Any, page: Path) -> dict[str, Any]:
    return {
        "study": content.study.name,
        "scale": content.study.scale,
        "trials": {
            "total": outcome.total,
            "computed": outcome.computed,
            "reused": outcome.reused,
            "failed": len(outcome.failed),
        },
        "claims": [claim.plain() for claim in content.decisions.claims],
        "report": str(page),
        "seconds": outcome.seconds,
    }


def _print_claims(content: Any) -> None:
    colours = {"supported": "green", "contradicted": "red", "undecided": "yellow"}
    table = Table("", "claim", "verdict", "effect", "interval", "p adj.", "n", box=None, pad_edge=False)
    for claim in content.decisions.claims:
        row = claim.plain()
        table.add_row(
            row["id"],
            row["says"],
            f"[{colours[row['verdict']]}]{row['verdict']}[/]",
            "-" if row["effect"] is None else f"{row['effect']:+.3f}",
            "-" if row["interval"] is None else "{:+.3f} to {:+.3f}".format(*row["interval"]),
            "-" if row["p_adjusted"] is None else f"{row['p_adjusted']:.2g}",
            str(row["n"]),
        )
    out.print(table)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def _stoppable() -> Generator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C was pressed; a second Ctrl-C stops at once."""
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        if asked:
            signal.signal(number, signal.SIG_DFL)
            raise KeyboardInterrupt
        asked.append(number)
        err.print("Finishing the step under way; Ctrl-C again stops at once.")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(*, quiet: bool) -> Generator[Callable[[Any], None]]:
    """Yield a function that shows an update: a bar in a terminal, a line now and then elsewhere."""
    import time

    if quiet and not err.is_terminal:
        yield lambda _: None
    elif err.is_terminal:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (BarColumn(bar_width=24), TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn())
        words = (TextColumn("{task.fields[left]}"), TextColumn("{task.description}", markup=False))
        with Progress(*columns, *words, console=err, transient=True) as bar:
            task = bar.add_task("starting", total=1.0, left="")

            def show(update: Any) -> None:
                left = "" if update.seconds_left is None else f"about {_duration(update.seconds_left)} left"
                bar.update(task, completed=update.done, description=update.doing, left=left)

            yield show
    else:
        last = [-15.0]

        def say(update: Any) -> None:
            if time.monotonic() - last[0] >= 15:
                last[0] = time.monotonic()
                left = "" if update.seconds_left is None else f", about {_duration(update.seconds_left)} left"
                err.print(f"{update.done:4.0%}{left}: {update.doing}", markup=False, soft_wrap=True)

        yield say


def main() -> None:
    """Run the command line; a ``SpecError`` becomes one line and exit code 2."""
    try:
        app(standalone_mode=True)
    except SpecError as error:
        if os.environ.get("UNPERTURBED_DEBUG"):
            raise
        err.print(f"unperturbed: {error}", markup=False, soft_wrap=True)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        err.print("Stopped; everything recorded is kept. The same command goes on from there.")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stdout = None
        sys.exit(0)
