"""The commands about studies: run, list, copy, explain, and write a report again."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from unperturbed.cli import terminal
from unperturbed.cli.options import RUNS, AsJson, Device, LedgerFolder, StudyChoice, Workers, spread
from unperturbed.cli.progress import duration, progress, stoppable
from unperturbed.records import SpecError


@spread
def run(choice: StudyChoice, *, device: Device = "auto", workers: Workers = None, as_json: AsJson = False) -> None:
    """Train, attack, measure, test and report; goes on where it stopped."""
    from unperturbed import lab, report
    from unperturbed.ledger import Ledger
    from unperturbed.report.gather import gather

    out, err = terminal.out, terminal.err
    chosen = choice.load()
    where = lab.choose_device(device)
    command = shlex.join(["unperturbed", *sys.argv[1:]])
    with Ledger.open(choice.ledger) as book, stoppable() as stopped, progress(quiet=as_json) as show:
        try:
            outcome = lab.run(
                chosen,
                book,
                data_root=choice.data_root,
                accept_inexact=choice.accept_inexact,
                device=where,
                workers=workers,
                command=command,
                on_update=lambda update: show(*update),
                stopped=stopped,
            )
        except lab.Stopped:
            err.print("Stopped; everything done is kept. The same command goes on from here.")
            raise typer.Exit(terminal.INTERRUPTED) from None
        for damage in book.damaged:
            err.print(f"Computed again, {damage}")
        show("writing the report", 1.0, None)
        content = gather(book, outcome.run, seconds=outcome.seconds)
    page = report.write(choice.ledger / "reports" / f"{chosen.name}-{choice.scale}", content)
    if as_json:
        print(json.dumps(_summary(content, outcome, page), allow_nan=False))
    else:
        _print_claims(content)
        out.print(
            f"{outcome.total} trials: {outcome.computed} computed, {outcome.reused} reused, "
            f"{len(outcome.failed)} failed; {duration(outcome.seconds)}."
        )
        for name, reason in outcome.failed.items():
            out.print(f"failed: {name}: {reason}", markup=False)
        out.print(f"Report: {page}", soft_wrap=True)
    if outcome.failed:
        raise typer.Exit(terminal.TRIALS_FAILED)


def studies(as_json: AsJson = False) -> None:
    """List the studies that come with the lab."""
    from unperturbed.lab import names
    from unperturbed.lab.study_file import find, read

    rows = [(name, read(find(name))) for name in names()]
    if as_json:
        print(
            json.dumps([{"name": name, "question": file.question, "scales": list(file.scales)} for name, file in rows])
        )
        return
    for name, file in rows:
        terminal.out.print(f"[bold]{name}[/bold]  {file.question}")
        for scale, size in file.scales.items():
            terminal.out.print(f"    --scale {scale:7} {size.says}")


def new(
    name: Annotated[str, typer.Argument(help="Name of the new study; it becomes NAME.toml here.")],
    study: Annotated[str, typer.Option("--from", help="The study to copy.")] = "distribution-and-task",
) -> None:
    """Copy a study into a file to edit and run."""
    from unperturbed.lab.study_file import find

    target = Path(name if name.endswith(".toml") else f"{name}.toml")
    source = find(study)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text(encoding="utf-8"))
    except FileExistsError:
        raise SpecError(f"{target} exists already. Choose another name.") from None
    except OSError as error:
        raise SpecError(f"{target} cannot be written: {error.strerror}.") from error
    terminal.out.print(f"Wrote {target}. Edit it, then: unperturbed run {target}", markup=False, soft_wrap=True)


@spread
def explain(choice: StudyChoice, *, as_json: AsJson = False) -> None:
    """Say what would run, and why."""
    from unperturbed import lab
    from unperturbed.lab.runner import load_datasets
    from unperturbed.ledger import Ledger
    from unperturbed.ledger.schema import DATABASE

    chosen, datasets = load_datasets(choice.load(), root=choice.data_root, accept_inexact=choice.accept_inexact)
    if (choice.ledger / DATABASE).exists():
        with Ledger.open(choice.ledger, write=False) as book:
            plans = lab.explain(chosen, book, datasets)
    else:
        plans = lab.explain(chosen, None, datasets)
    if as_json:
        print(json.dumps([plan._asdict() for plan in plans]))
        return
    out = terminal.out
    size = f"{len(chosen.seeds)} seeds, {len(chosen.trials)} trials"
    out.print(f"{chosen.title}, scale {choice.scale}, {size}", markup=False)
    table = Table(Column("trial", no_wrap=True), "stages", "recorded", "to compute", "why", box=None, pad_edge=False)
    for name in dict.fromkeys(plan.trial for plan in plans):
        mine = [plan for plan in plans if plan.trial == name]
        owed = [plan for plan in mine if plan.why != "recorded"]
        why = f"{owed[0].what}: {owed[0].why}" if owed else ""
        table.add_row(name, str(len(mine)), str(len(mine) - len(owed)), str(len(owed)), why)
    out.print(table)


def rebuild(
    study: Annotated[
        str | None, typer.Argument(help="The study whose latest run is meant; default: the latest run.")
    ] = None,
    ledger: LedgerFolder = RUNS,
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
    terminal.out.print(f"Report: {report.write(folder, content)}", markup=False, soft_wrap=True)


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
    terminal.out.print(table)
