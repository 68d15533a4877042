"""What stands in a study file, every entry checked by itself; what belongs together is put together in ``study``.

A study is TOML: what is trained (conditions), on what (architectures), how it is attacked and examined (attacks,
examinations), how much of it (scales), and which published sentences it decides (claims).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError

from unperturbed.measures import QUANTITIES
from unperturbed.records import (
    Association,
    Cell,
    Claim,
    Contrast,
    Expectation,
    PublishedValue,
    Record,
    Setting,
    SpecError,
    Sweep,
    Variable,
)
from unperturbed.registry import lookup, suggestion

BUILT_IN = Path(__file__).parent.parent / "studies"


class ConditionFile(Record):
    """One ``[conditions.NAME]``: the images and the task, what came before, and what differs in the recipe."""

    says: str
    recipe: dict[str, Setting | tuple[tuple[float, float], ...]] = Field(default_factory=dict)
    data: dict[str, Setting]
    mechanisms: tuple[dict[str, Setting], ...] = ()
    pretraining: dict[str, Setting] | None = None
    control: bool = False


class AttackFile(Record):
    """One ``[attacks.NAME]``: what the networks of some conditions, or of all, are put to."""

    attack: str
    settings: dict[str, Setting] = Field(default_factory=dict)
    eps: tuple[float | str, ...]
    grid: tuple[float | str, ...] | None = None
    images: PositiveInt | None = None
    epochs: Literal["all", "last"] = "all"
    conditions: tuple[str, ...] | None = None
    through: dict[str, Setting] = Field(default_factory=dict)


class ExaminationFile(Record):
    """One ``[examinations.NAME]``: what else is asked of the networks of some conditions, or of all."""

    examination: str
    settings: dict[str, Setting] = Field(default_factory=dict)
    images: PositiveInt | None = None
    conditions: tuple[str, ...] | None = None
    beside: str | None = None  # the condition whose network of the same seed stands beside


class ArchitectureFile(Record):
    """One ``[scales.SCALE.architectures.NAME]``."""

    model: dict[str, Setting]
    recipe: dict[str, Setting | tuple[tuple[float, float], ...]]
    evaluate: tuple[PositiveInt, ...]
    conditions: tuple[str, ...] | None = None
    attacks: tuple[str, ...] | None = None
    examinations: tuple[str, ...] | None = None
    images: dict[str, PositiveInt] = Field(default_factory=dict)  # by the label of an attack or examination
    seeds: dict[str, PositiveInt] = Field(
        default_factory=dict
    )  # by the same labels: how many of the networks, if not all


class ScaleFile(Record):
    """One ``[scales.NAME]``."""

    says: str
    title: str | None = None  # in place of that of the study
    seeds: int
    comparable: bool = False
    settings: dict[str, Setting] = Field(default_factory=dict)  # in place of those of the study
    data: dict[str, dict[str, Setting]] = Field(default_factory=dict)  # by the name of a data set: its settings
    architectures: dict[str, ArchitectureFile]


class SweepFile(Record):
    """One ``[sweeps.NAME]``: conditions in the order of one setting, and the ``measure[attack]`` they are matched in.

    Its name stands on the right of a contrast: ``architecture: left > NAME``.
    """

    conditions: tuple[str, ...] = Field(min_length=2)
    match: str


class ClaimFile(Record):
    """One ``[[claims]]``; contrasts read ``architecture: left > right @ epoch``, a side ``condition[attack]``.

    A number may stand on the right. A claim about certain data or settings says so in ``where``: it is left out where
    the settings of the study are others. ``left = right`` expects no difference beyond ``margin``, in the unit of the
    measure; without one, beyond the margin of all claims, which is one of R.

    Associations read ``architecture: measure[attack] ~+ measure[attack] | measure[attack] @ epoch``: ``~+`` expects
    both to rise together, ``~-`` one to fall where the other rises. What stands behind ``|`` is held constant. Where no
    architecture is named, the networks of all of them count. ``measure[a] - measure[b] ~+ measure[c]`` expects the
    correlation of the first with the third to be greater than that of the second with it.

    The label of an examination may stand for that of an attack. ``exact`` is said of a measure without chance, such as
    one of the images: its number decides by itself where it is the same at every seed.
    """

    id: str
    says: str
    primary: tuple[str, ...]
    secondary: tuple[str, ...] = ()
    attack: str = "fgsm"
    measure: str = "R"
    margin: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    exact: bool = False
    where: dict[str, Setting] = Field(default_factory=dict)


class StudyFile(Record):
    """A whole study file."""

    title: str
    question: str
    source: str
    settings: dict[str, Setting] = Field(default_factory=dict)
    published_settings: dict[str, Setting] = Field(default_factory=dict)
    published_tables: str | None = None
    architectures: dict[str, str]
    conditions: dict[str, ConditionFile]
    attacks: dict[str, AttackFile]
    examinations: dict[str, ExaminationFile] = Field(default_factory=dict)
    scales: dict[str, ScaleFile]
    sweeps: dict[str, SweepFile] = Field(default_factory=dict)
    claims: tuple[ClaimFile, ...] = ()


def names() -> list[str]:
    """Return the names of the studies that come with the lab."""
    return sorted(path.stem for path in BUILT_IN.glob("*.toml") if not path.stem.endswith(".published"))


def find(name: str) -> Path:
    """Return the file of a built-in study, or the path that was given."""
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise SpecError(f"There is no study file {name}. Make one with: unperturbed new {path.stem}")
        return path
    return lookup("study", {known: BUILT_IN / f"{known}.toml" for known in names()}, name)


def read(path: Path) -> StudyFile:
    """Return the study file at ``path``, or raise a ``SpecError`` that names the first wrong entry."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecError(f"{path.name} cannot be read as TOML: {error}.") from error
    return validate(StudyFile, content, path.name)


_CONTRAST = re.compile(
    r"(?:(?P<both>[\w-]+):\s*)?(?P<left>[\w./-]+(?:\[[\w-]+\])?)\s*(?P<sign>[><=])\s*"
    r"(?P<right>[\w./-]+(?:\[[\w-]+\])?)(?:\s*@\s*(?P<epoch>\w+))?"
)
_SIGNS: dict[str, Expectation] = {">": "greater", "<": "less", "=": "none"}
_VARIABLE = re.compile(r"(?P<measure>\w+)\[(?P<attack>[\w-]+)\]")
_ASSOCIATION = re.compile(
    r"(?:(?P<architecture>[\w-]+):\s*)?(?P<x>[^~|@:]+?)(?:\s+-\s+(?P<rival>[^~|@:]+?))?"
    r"\s*~(?P<sign>[+-])\s*(?P<y>[^~|@]+?)"
    r"(?:\s*\|\s*(?P<control>[^~|@]+?))?(?:\s*@\s*(?P<epoch>\w+))?"
)


def _contrast(text: str, written: StudyFile, *, primary: bool, claim: str) -> Contrast:
    match = _CONTRAST.fullmatch(text.strip())
    if match is None:
        raise SpecError(f"claim {claim}: cannot read {text!r}. Write 'lenet: digits > objects @ last'.")

    def cell(words: str) -> Cell:
        words, _, attack = words.rstrip("]").partition("[")
        architecture, _, condition = words.rpartition("/")
        architecture = architecture or match["both"] or ""
        lookup("architecture", written.architectures, architecture)
        named = Cell(architecture=architecture, condition=condition, attack=attack or None)
        if named.number is None:
            lookup("condition", {**written.conditions, **written.sweeps}, condition)
        if attack:
            lookup("attack", _labels(written), attack)
        return named

    left, right = cell(match["left"]), cell(match["right"])
    if left.number is not None:
        raise SpecError(f"claim {claim}: a number stands on the right of a condition, got {text!r}.")
    paired = left.architecture == right.architecture
    if left.condition in written.sweeps or (right.condition in written.sweeps and not paired):
        raise SpecError(
            f"claim {claim}: a sweep stands on the right of a condition of its own architecture, got {text!r}."
        )
    return Contrast.model_validate(
        {
            "left": left,
            "right": right,
            "expect": _SIGNS[match["sign"]],
            "epoch": _epoch(match["epoch"], claim, ("first", "last", "early", "middle")),
            "primary": primary,
            "paired": paired,
        }
    )


def _association(text: str, written: StudyFile, *, primary: bool, claim: str) -> Association:
    match = _ASSOCIATION.fullmatch(text.strip())
    if match is None:
        raise SpecError(
            f"claim {claim}: cannot read {text!r}. Write 'lenet: R[fgsm] ~+ f0[fgsm] @ last', ~- if one falls, "
            "and '| f0[fgsm]' before the epoch for what is held constant."
        )
    if match["architecture"]:
        lookup("architecture", written.architectures, match["architecture"])
    where = f"claim {claim}"
    if match["rival"] and match["control"]:
        raise SpecError(f"{where}: nothing can be held constant where two correlations are compared, got {text!r}.")
    return Association.model_validate(
        {
            "x": _variable(match["x"], written, where),
            "y": _variable(match["y"], written, where),
            "expect": "greater" if match["sign"] == "+" else "less",
            "control": _variable(match["control"], written, where) if match["control"] else None,
            "rival": _variable(match["rival"], written, where) if match["rival"] else None,
            "architecture": match["architecture"],
            "epoch": _epoch(match["epoch"], claim, ("first", "last")),
            "primary": primary,
        }
    )


def _variable(text: str, written: StudyFile, where: str) -> Variable:
    match = _VARIABLE.fullmatch(text.strip())
    if match is None:
        raise SpecError(f"{where}: expected a measure of an attack or examination such as 'f0[fgsm]', got {text!r}.")
    lookup("measure", QUANTITIES, match["measure"])
    lookup("attack", _labels(written), match["attack"])
    return Variable(measure=match["measure"], attack=match["attack"])


def _epoch(word: str | None, claim: str, positions: Sequence[str]) -> str | int:
    position = word or "last"
    if not position.isdigit() and position not in positions:
        raise SpecError(f"claim {claim}: the epoch must be {', '.join(positions)} or a number, got {position!r}.")
    return int(position) if position.isdigit() else position


def _labels(written: StudyFile) -> dict[str, object]:
    return {**written.attacks, **written.examinations, "learning": "what a rule without labels reports of itself"}


def claim_of(claim: ClaimFile, written: StudyFile) -> Claim:
    """Return the claim with its contrasts and associations read and every name in them checked."""
    texts = [(text, True) for text in claim.primary] + [(text, False) for text in claim.secondary]
    contrasts = [each for each in texts if "~" not in each[0]]
    if contrasts:
        lookup("attack", _labels(written), claim.attack)
        lookup("measure", QUANTITIES, claim.measure)
    read = tuple(_contrast(text, written, primary=primary, claim=claim.id) for text, primary in contrasts)
    if claim.margin is not None and not any(contrast.expect == "none" for contrast in read):
        raise SpecError(
            f"claim {claim.id}: margin = {claim.margin:g}, but none of its contrasts expects no difference. "
            "Write 'left = right', or leave the margin out."
        )
    return Claim(
        id=claim.id,
        says=claim.says,
        attack=claim.attack,
        measure=claim.measure,
        margin=claim.margin,
        exact=claim.exact,
        contrasts=read,
        associations=tuple(
            _association(text, written, primary=primary, claim=claim.id) for text, primary in texts if "~" in text
        ),
    )


def sweep_of(name: str, written: StudyFile) -> Sweep:
    """Return the sweep with every name in it checked."""
    if name in written.conditions:
        raise SpecError(f"sweeps.{name}: there is a condition of this name. Give the sweep another one.")
    sweep = written.sweeps[name]
    for condition in sweep.conditions:
        lookup("condition", written.conditions, condition)
    return Sweep(conditions=sweep.conditions, match=_variable(sweep.match, written, f"sweeps.{name}"))


def published_values(path: Path, written: StudyFile) -> tuple[PublishedValue, ...]:
    """Return the published values beside the study file, or else among the built-in ones; none if it names none."""
    if written.published_tables is None:
        return ()
    source = path.parent / written.published_tables
    if not source.is_file():
        source = BUILT_IN / written.published_tables
    try:
        rows = tomllib.loads(source.read_text(encoding="utf-8"))["published"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise SpecError(
            f"{path.name}: the published tables {written.published_tables} cannot be read: {error}."
        ) from error
    return tuple(validate(PublishedValue, row, written.published_tables) for row in rows)


def validate(kind: type[Any], content: object, where: str) -> Any:
    """Return ``content`` as a record, or raise a ``SpecError`` that names its first wrong entry."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            valid = _fields_at(kind, first["loc"][:-1])
            word = str(first["loc"][-1])
            raise SpecError(
                f"{where} has no setting {at!r}. It has: {', '.join(valid)}.{suggestion(word, valid)}"
            ) from error
        raise SpecError(f"{where}: {at}: {first['msg'].lower()}, got {first['input']!r}.") from error


def _fields_at(kind: type[Record], location: Sequence[int | str]) -> list[str]:
    """Return the fields of the record that lies at ``location`` inside ``kind``."""
    for part in location:
        if isinstance(part, str) and part in kind.model_fields:
            hint: Any = kind.model_fields[part].annotation
            inner = [c for c in _classes(hint) if issubclass(c, Record)]
            if inner:
                kind = inner[0]
    return list(kind.model_fields)


def _classes(hint: Any) -> Iterable[type[Any]]:
    if isinstance(hint, type):
        yield hint
    for argument in getattr(hint, "__args__", ()):
        yield from _classes(argument)
