"""The command line: words become calls, results become text or JSON, bad input becomes one line."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from unperturbed import __version__
from unperturbed.cli import audit, bench, data, studies, terminal
from unperturbed.records import SpecError

app = typer.Typer(
    name="unperturbed",
    help="A laboratory for the mechanisms of adversarial robustness.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(studies.run)
app.command("audit")(audit.audit)
app.command("studies")(studies.studies)
app.command("new")(studies.new)
app.command("explain")(studies.explain)
app.command("report")(studies.rebuild)
app.add_typer(data.app, name="data")
app.add_typer(bench.app, name="bench")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        terminal.out.print(f"unperturbed {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; a ``SpecError`` becomes one line and exit code 2."""
    try:
        app(standalone_mode=True)
    except SpecError as error:
        if os.environ.get("UNPERTURBED_DEBUG"):
            raise
        terminal.say_error(str(error))
        sys.exit(terminal.BAD_INPUT)
    except KeyboardInterrupt:
        terminal.err.print("Stopped; everything recorded is kept. The same command goes on from there.")
        sys.exit(terminal.INTERRUPTED)
    except BrokenPipeError:
        sys.stdout = None
        sys.exit(0)
