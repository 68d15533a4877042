"""The command that asks whether the robustness of a foreign classifier is real."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unperturbed.cli import terminal
from unperturbed.cli.card import card
from unperturbed.cli.options import AcceptInexact, AsJson, DataRoot, Device, spread
from unperturbed.cli.progress import Show, progress
from unperturbed.records import SpecError
from unperturbed.registry import lookup

if TYPE_CHECKING:
    import torch

    from unperturbed.attacks import Classifier
    from unperturbed.audit.examples import Examples

CODES = {"trustworthy": 0, "suspect": 4, "illusory": 5}
FAILED = 1
EPS = {"linf": "8/255", "l2": "0.5"}  # the usual ones for small colour images


@dataclass(frozen=True)
class AuditChoice:
    """What is audited, on which images, against whom, and how long."""

    target: Annotated[str, typer.Argument(help="FILE.py:NAME, or one of our models as .safetensors.")]
    data: Annotated[str | None, typer.Option(help="A data set; its first test images are taken.")] = None
    images: Annotated[
        Path | None, typer.Option(help="x.npy (n, channels, height, width), or a folder with a folder per class.")
    ] = None
    labels: Annotated[Path | None, typer.Option(help="y.npy, class numbers from 0.")] = None
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf"
    eps: Annotated[
        str | None,
        typer.Option(help="Radius, for images in [0, 1]: 8/255 or 0.1. Default: 8/255 for linf, 0.5 for l2."),
    ] = None
    budget: Annotated[str, typer.Option(help="quick (500 images), standard (1000) or headline (all).")] = "standard"
    count: Annotated[int | None, typer.Option(help="Number of images; default: that of the budget.")] = None
    model: Annotated[
        str | None, typer.Option(help="With weights: lenet, resnet(depth=18) ...; default: told by the tensors.")
    ] = None
    twin: Annotated[str | None, typer.Option(help="FILE.py:NAME of the undefended twin, for transfer.")] = None
    surrogate: Annotated[str | None, typer.Option(help="FILE.py:NAME of a surrogate for the backward pass.")] = None
    traits: Annotated[
        str, typer.Option(help="What the defence declares: random, vanishing, shattered, optimises; by commas.")
    ] = ""
    seed: Annotated[int, typer.Option(help="Seed of every attack.")] = 0
    batch_size: Annotated[int | None, typer.Option(help="Images at once; default: found by a probe.")] = None
    device: Device = "auto"
    data_root: DataRoot = None
    accept_inexact: AcceptInexact = False

    @property
    def name(self) -> str:
        """The classifier without its folder."""
        return Path(self.target).name

    def radius(self) -> float:
        """Return eps as a number."""
        from unperturbed.audit.loading import parse_eps

        usual = lookup("norm", EPS, self.norm)
        return parse_eps(usual if self.eps is None else self.eps, norm=self.norm)

    def classifiers(self, device: torch.device) -> dict[str, Classifier]:
        """Return the classifier under its option, which is nothing, and the twin and the surrogate if there are any."""
        from unperturbed.audit.loading import load_classifier, place

        found: dict[str, Classifier] = {}
        for option, words in (("", self.target), ("--twin: ", self.twin), ("--surrogate: ", self.surrogate)):
            if words is not None:
                with _said_of(option):
                    found[option] = place(load_classifier(words, model=None if option else self.model), device)
        return found

    def examples(self) -> Examples:
        """Return the images and labels."""
        from unperturbed.audit.budgets import BUDGETS
        from unperturbed.audit.examples import load_arrays, load_dataset, load_pictures
        from unperturbed.data import DATASETS

        usual = lookup("budget", BUDGETS, self.budget).images
        count = usual if self.count is None else self.count
        if self.data is not None and self.images is None:
            if self.labels is not None:
                raise SpecError(f"--labels: expected with --images only; {self.data} has its own")
            return load_dataset(self.data, count=count, root=self.data_root, accept_inexact=self.accept_inexact)
        if self.data is not None or self.images is None:
            got = "both" if self.images else "neither"
            raise SpecError(f"expected either --data ({', '.join(DATASETS)}) or --images; got {got}")
        if self.images.is_dir():
            if self.labels is not None:
                raise SpecError(f"--labels: expected with an array only; the folders of {self.images} are the classes")
            return load_pictures(self.images, count=count)
        if self.labels is None:
            raise SpecError(f"--labels: expected y.npy with the class numbers of {self.images}; got nothing")
        return load_arrays(self.images, self.labels, count=count)


@spread
def audit(
    choice: AuditChoice,
    *,
    as_json: AsJson = False,
    to: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder for audit.html and audit.json; default: audits/NAME-NORM-EPS.", metavar="DIR"
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.", envvar="UNPERTURBED_DEBUG")] = False,
) -> None:
    """Attack a classifier, doubt the result, attack again: is its robustness real?

    FILE.py:NAME is a function without arguments that returns a callable or a torch.nn.Module from images in [0, 1] to
    logits, or is one itself. Exit codes: 0 trustworthy, 4 suspect, 5 illusory; 2 bad input, 1 the audit itself failed,
    130 interrupted.
    """
    with _one_line(debug=debug):
        with progress(quiet=as_json) as show:
            plain, page = _audited(choice, to, show)
        if as_json:
            print(json.dumps(plain, allow_nan=False))
        else:
            terminal.out.print(card(plain, width=min(terminal.out.width, 100)))
            terminal.out.print(f"Report: {page}", markup=False, soft_wrap=True)
    raise typer.Exit(CODES[plain["verdict"]])


def _audited(choice: AuditChoice, to: Path | None, show: Show) -> tuple[dict[str, Any], Path]:
    """Return the audit in its plain form and the page that was written; everything is checked before it begins."""
    from unperturbed import lab
    from unperturbed.audit.loading import check_classifier
    from unperturbed.report.audit_page import write_audit

    eps, device = choice.radius(), lab.choose_device(choice.device)
    examples = choice.examples()
    images, labels = examples.images.to(device), examples.labels.to(device)
    classifiers = choice.classifiers(device)
    for option, classifier in classifiers.items():
        with _said_of(option):
            check_classifier(classifier, images, labels)
    folder = to or Path("audits") / _folder_name(choice.name, choice.norm, eps)
    _make(folder)
    from unperturbed.audit import audit as run

    plain = run(
        classifiers[""],
        images,
        labels,
        norm=choice.norm,
        eps=eps,
        budget=choice.budget,
        twin=classifiers.get("--twin: "),
        surrogate=classifiers.get("--surrogate: "),
        traits=tuple(word.strip() for word in choice.traits.split(",") if word.strip()),
        seed=choice.seed,
        batch_size=choice.batch_size,
        name=choice.name,
        data=examples.says,
        on_update=show,
    ).plain()
    plain["remarks"] = [*examples.remarks, *plain["remarks"]]
    show("writing the report", 1.0, None)
    return plain, write_audit(folder, plain)


@contextmanager
def _one_line(*, debug: bool) -> Generator[None]:
    """Turn whatever goes wrong into one line and an exit code; before it the traceback, if it is wanted."""
    try:
        yield
    except KeyboardInterrupt:
        terminal.err.print("Stopped; the audit was not finished.")
        raise typer.Exit(terminal.INTERRUPTED) from None
    except Exception as error:
        if debug:
            terminal.err.print(traceback.format_exc().rstrip(), markup=False, soft_wrap=True)
        if isinstance(error, SpecError):
            terminal.say_error(str(error))
            raise typer.Exit(terminal.BAD_INPUT) from None
        from unperturbed.audit.loading import blame

        terminal.say_error(f"the audit failed: {blame(error)}" + ("" if debug else "; --debug shows the traceback"))
        raise typer.Exit(FAILED) from None


@contextmanager
def _said_of(option: str) -> Generator[None]:
    """Name the option that a refusal is about."""
    try:
        yield
    except SpecError as error:
        raise SpecError(f"{option}{error}") from error


def _folder_name(name: str, norm: str, eps: float) -> str:
    from unperturbed.report.numbers import radius

    return re.sub(r"[^\w.]+", "-", f"{name.replace('.py:', ' ')} {norm} {radius(eps)}")


def _make(folder: Path) -> None:
    """Create the folder of the report before hours are spent on what it is for."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"--out: {folder} cannot be made: {error.strerror}") from error
