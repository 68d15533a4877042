"""The commands that measure speed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from unperturbed.cli import terminal
from unperturbed.cli.options import AsJson, DataRoot, Device
from unperturbed.cli.progress import progress

app = typer.Typer(help="Measured speed, as ratios.", no_args_is_help=True, rich_markup_mode=None)


@app.command("training")
def training(
    repeats: Annotated[int, typer.Option(help="Timed repeats of each form, in turn.")] = 5,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Time matched seeds as one program, one by one, and in a plain PyTorch loop."""
    from unperturbed.bench import training as trainings
    from unperturbed.lab import choose_device

    rows = trainings.measure(repeats=repeats, device=choose_device(device))
    if as_json:
        print(json.dumps([row._asdict() for row in rows]))
        return
    terminal.out.print(trainings.table(rows))


@app.command("inference")
def inference(
    repeats: Annotated[int, typer.Option(help="Timed batches of each form, in turn.")] = 5,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Time one image and draw of a wide residual network, rectified and with stochastic winner-take-all."""
    from unperturbed.bench import inference as inferences
    from unperturbed.lab import choose_device

    rows = inferences.measure(repeats=repeats, device=choose_device(device))
    if as_json:
        print(json.dumps([row._asdict() for row in rows]))
        return
    terminal.out.print(inferences.table(rows))


@app.command("learning")
def learning(
    repeats: Annotated[int, typer.Option(help="Timed runs of each form, in turn.")] = 3,
    images: Annotated[int, typer.Option(help="Digits in an epoch.")] = 60_000,
    units: Annotated[int, typer.Option(help="Units of the hidden layer.")] = 2000,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Time local learning of a hidden layer on MNIST, ours and as published, with one thread and two."""
    from unperturbed.bench import learning as lessons

    rows = lessons.measure(lessons.digits(data_root)[:images], repeats=repeats, units=units)
    if as_json:
        print(json.dumps([row._asdict() for row in rows]))
        return
    terminal.out.print(lessons.table(rows))


@app.command("attacks")
def attacks(
    repeats: Annotated[int, typer.Option(help="Timed runs of each library, in turn.")] = 3,
    only: Annotated[str | None, typer.Option(help="One case: fgsm, pgd, apgd ...", metavar="CASE")] = None,
    images: Annotated[int, typer.Option(help="Images of each network.")] = 512,
    data_root: DataRoot = None,
    to: Annotated[Path | None, typer.Option("--out", help="Write the tables as Markdown too.", metavar="FILE")] = None,
    as_json: AsJson = False,
) -> None:
    """Time and count our attacks beside those of other libraries, on the same networks and images."""
    from unperturbed.bench import attacks as races

    def keep(rows: list[races.Row]) -> None:
        if to is not None:
            to.write_text(races.markdown(rows), encoding="utf-8")

    with progress(quiet=as_json) as show:
        rows = races.measure(repeats=repeats, only=only, images=images, root=data_root, progress=show, on_case=keep)
    if as_json:
        print(json.dumps([row._asdict() for row in rows]))
        return
    terminal.out.print(races.table(rows))
