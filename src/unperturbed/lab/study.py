"""A study file becomes a study: every name checked, every default written out, before anything runs.

A study is TOML: what is trained (conditions), on what (architectures), how it is attacked (attacks), how much of it
(scales), and which published sentences it decides (claims). ``@word`` stands for ``[settings] word``, which the command
line may replace.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, PositiveInt, ValidationError
from torch import nn

from unperturbed import attacks as attack_family
from unperturbed import data as data_family
from unperturbed import mechanisms as mechanism_family
from unperturbed.examinations import EXAMINATIONS
from unperturbed.mechanisms import MECHANISMS
from unperturbed.mechanisms.installing import having
from unperturbed.models import MODELS, outline
from unperturbed.records import (
    AttackPlan,
    Cell,
    Claim,
    Contrast,
    ExaminationPlan,
    Expectation,
    PublishedValue,
    Recipe,
    Record,
    Setting,
    Spec,
    SpecError,
    Study,
    Trial,
)
from unperturbed.registry import complete, lookup, suggestion

VOTES = 9  # draws that decide about an image of a random network, clean and attacked

BUILT_IN = Path(__file__).parent.parent / "studies"


class ConditionFile(Record):
    """One ``[conditions.NAME]``: the images and the task, and what came before."""

    says: str
    data: dict[str, Setting]
    mechanisms: tuple[dict[str, Setting], ...] = ()
    pretraining: dict[str, Setting] | None = None
    control: bool = False


class AttackFile(Record):
    """One ``[attacks.NAME]``."""

    attack: str
    settings: dict[str, Setting] = Field(default_factory=dict)
    eps: tuple[float | str, ...]
    grid: tuple[float | str, ...] | None = None
    images: PositiveInt | None = None
    epochs: Literal["all", "last"] = "all"
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
    recipe: dict[str, Setting]
    evaluate: tuple[PositiveInt, ...]
    conditions: tuple[str, ...] | None = None
    attacks: tuple[str, ...] | None = None
    examinations: tuple[str, ...] | None = None
    images: dict[str, PositiveInt] = Field(default_factory=dict)


class ScaleFile(Record):
    """One ``[scales.NAME]``."""

    says: str
    seeds: int
    comparable: bool = False
    data: dict[str, dict[str, Setting]] = Field(default_factory=dict)
    architectures: dict[str, ArchitectureFile]


class ClaimFile(Record):
    """One ``[[claims]]``; contrasts read ``architecture: left > right @ epoch``, a side ``condition[attack]``.

    The label of an examination stands where that of an attack does.
    """

    id: str
    says: str
    primary: tuple[str, ...]
    secondary: tuple[str, ...] = ()
    attack: str = "fgsm"
    measure: str = "R"


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
    claims: tuple[ClaimFile, ...] = ()


class Changes(NamedTuple):
    """What the command line changes in a study; ``None`` and empty leave it as written."""

    seeds: int | None = None
    only: tuple[str, ...] = ()
    until_epoch: int | None = None
    pretraining_epochs: int | None = None
    settings: Mapping[str, Setting] = {}


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
    return _validate(StudyFile, content, path.name)


def load(name: str, *, scale: str = "laptop", changes: Changes = Changes()) -> Study:  # noqa: B008 - an immutable value
    """Return the study called ``name`` (or at a path ending in .toml) at one scale.

    Raises:
        SpecError: anything in the file or the changes that names what does not exist.
    """
    path = find(name)
    written = read(path)
    size = lookup("scale", written.scales, scale)
    settings = {**written.settings, **changes.settings}
    for key in changes.settings:
        if key not in written.settings:
            raise SpecError(f"{path.stem} has no setting {key!r}. It has: {', '.join(written.settings)}.")
    seeds = size.seeds if changes.seeds is None else changes.seeds
    if seeds < 1:
        raise SpecError(f"{path.stem}: seeds must be at least 1, got {seeds}.")
    trials = tuple(
        trial
        for architecture, size_of in size.architectures.items()
        for trial in _trials(written, size, architecture, size_of, settings, seeds, changes)
    )
    trials = tuple(_examined(trial, written, size, settings, trials) for trial in trials)
    for name in written.attacks:
        _check_through(name, written.attacks[name].through, trials)
    _check_only(changes.only, written, trials)
    trials = tuple(t for t in trials if _is_chosen(t, changes.only, written))
    published = _published(path, written)
    return Study(
        name=path.stem,
        title=written.title,
        question=written.question,
        source=written.source,
        scale=scale,
        settings=settings,
        seeds=tuple(range(seeds)),
        architectures={name: says for name, says in written.architectures.items() if _appears(name, trials)},
        conditions={name: c.says for name, c in written.conditions.items() if _appears(name, trials)},
        controls=tuple(name for name, c in written.conditions.items() if c.control and _appears(name, trials)),
        trials=trials,
        claims=tuple(_claim(claim, written) for claim in written.claims),
        published=published,
        comparable=size.comparable and settings == {**settings, **written.published_settings},
        remarks=_remarks(changes, trials),
    )


def _trials(
    written: StudyFile,
    size: ScaleFile,
    architecture: str,
    size_of: ArchitectureFile,
    settings: Mapping[str, Setting],
    seeds: int,
    changes: Changes,
) -> Iterable[Trial]:
    lookup("architecture", written.architectures, architecture)
    model = complete("model", MODELS, _spec(size_of.model, settings, f"architectures.{architecture}.model"))
    recipe = _validate(Recipe, size_of.recipe, f"architectures.{architecture}.recipe")
    evaluate = _epochs(size_of.evaluate, recipe, changes.until_epoch, architecture)
    attacks = {
        name: _plan(name, lookup("attack", written.attacks, name), size_of.images.get(name))
        for name in (written.attacks if size_of.attacks is None else size_of.attacks)
    }
    for label in written.conditions if size_of.conditions is None else size_of.conditions:
        condition = lookup("condition", written.conditions, label)
        defences = tuple(
            complete("mechanism", MECHANISMS, _spec(each, settings, f"conditions.{label}.mechanisms"))
            for each in condition.mechanisms
        )
        defence = mechanism_family.build(defences)
        network = outline(model)
        defence.install(network)
        if changes.pretraining_epochs is not None and not 1 <= changes.pretraining_epochs <= recipe.epochs:
            raise SpecError(
                f"--pretraining-epochs must lie between 1 and {recipe.epochs}, got {changes.pretraining_epochs}."
            )
        pretraining = None
        if condition.pretraining is not None:
            pretraining = _data(condition.pretraining, size, settings, f"conditions.{label}.pretraining")
        yield Trial(
            architecture=architecture,
            condition=label,
            model=model,
            mechanisms=defences,
            data=_data(condition.data, size, settings, f"conditions.{label}.data"),
            pretraining=pretraining,
            pretraining_epochs=(changes.pretraining_epochs or recipe.epochs) if pretraining else None,
            recipe=recipe,
            epochs=evaluate,
            attacks={name: _on(plan, network, random=defence.traits.random) for name, plan in attacks.items()},
            seeds=tuple(range(seeds)),
        )


def _examined(
    trial: Trial, written: StudyFile, size: ScaleFile, settings: Mapping[str, Setting], trials: Sequence[Trial]
) -> Trial:
    """Return the trial with what it is examined for."""
    size_of = size.architectures[trial.architecture]
    chosen = written.examinations if size_of.examinations is None else size_of.examinations
    plans: dict[str, ExaminationPlan] = {}
    for label in chosen:
        file = lookup("examination", written.examinations, label)
        for condition in file.conditions or ():
            lookup("condition", written.conditions, condition)
        if file.conditions is not None and trial.condition not in file.conditions:
            continue
        where = f"examinations.{label}"
        spec = complete(
            "examination",
            EXAMINATIONS,
            _spec({**file.settings, "name": file.examination}, settings, where),
            apart=("subject",),
        )
        beside = None
        if file.beside is not None:
            lookup("condition", written.conditions, file.beside)
            cell = (trial.architecture, file.beside)
            beside = next((other for other in trials if (other.architecture, other.condition) == cell), None)
            if beside is None:
                raise SpecError(f"{where}: beside = {file.beside!r}, which this scale does not train.")
        plans[label] = ExaminationPlan(
            examination=spec,
            images=size_of.images.get(label) or file.images,
            beside=None if beside is None else beside.model_copy(update={"attacks": {}}),
        )
    return trial.model_copy(update={"examinations": plans})


def _check_through(attack: str, through: Mapping[str, Setting], trials: Sequence[Trial]) -> None:
    plans = [trial.attacks[attack] for trial in trials if attack in trial.attacks]
    for name in through:
        if plans and not any(name in plan.through for plan in plans):
            raise SpecError(f"attacks.{attack}: through {name!r}, which no layer of any network of this study has.")


def _on(plan: AttackPlan, network: nn.Module, *, random: bool) -> AttackPlan:
    """Return the plan for one network: through a copy where it has what is altered there, with votes if random.

    Without chance all draws are equal: an attack takes one of them, and leaves an image that is broken.
    """
    through = {name: value for name, value in plan.through.items() if having(network, name)}
    if random:
        return plan.model_copy(update={"through": through, "votes": VOTES})
    once = {name: value for name, value in (("eot", 1), ("persist", False)) if name in plan.attack.settings}
    attack = plan.attack.model_copy(update={"settings": {**plan.attack.settings, **once}})
    return plan.model_copy(update={"through": through, "attack": attack})


def _epochs(evaluate: Sequence[int], recipe: Recipe, until: int | None, architecture: str) -> tuple[int, ...]:
    if list(evaluate) != sorted(set(evaluate)) or evaluate[-1] > recipe.epochs:
        raise SpecError(
            f"architectures.{architecture}.evaluate must increase and end by epoch {recipe.epochs}, "
            f"got {list(evaluate)}."
        )
    if until is None:
        return tuple(evaluate)
    if not 1 <= until <= recipe.epochs:
        raise SpecError(f"--until-epoch must lie between 1 and {recipe.epochs}, got {until}.")
    return tuple(sorted({epoch for epoch in evaluate if epoch < until} | {until}))


def _plan(name: str, attack: AttackFile, images: int | None) -> AttackPlan:
    eps = _radii(name, attack.eps)
    grid = None if attack.grid is None else _radii(name, attack.grid)
    if grid is not None and not set(grid) <= set(eps):
        raise SpecError(f"attacks.{name}: grid must be a part of eps, got {sorted(set(grid) - set(eps))} besides.")
    spec = Spec(name=attack.attack, settings=attack.settings)
    attack_family.check_spec(spec, eps)
    return AttackPlan(
        attack=attack_family.complete(spec),
        eps=eps,
        grid=grid,
        images=images or attack.images,
        epochs=attack.epochs,
        through=attack.through,
    )


def _radii(name: str, given: Iterable[float | str]) -> tuple[float, ...]:
    eps: list[float] = []
    for value in given:
        try:
            eps.append(float(Fraction(value)) if isinstance(value, str) else float(value))
        except (ValueError, ZeroDivisionError) as error:
            raise SpecError(f"attacks.{name}: eps must be numbers such as 0.1 or '8/255', got {value!r}.") from error
    if not eps or eps[0] < 0 or any(b <= a for a, b in pairwise(eps)):
        raise SpecError(f"attacks.{name}: eps must increase from 0 or more, got {eps}.")
    return tuple(eps)


def _data(given: Mapping[str, Setting], size: ScaleFile, settings: Mapping[str, Setting], where: str) -> Spec:
    spec = _spec(given, settings, where)
    return data_family.check_spec(Spec(name=spec.name, settings={**size.data.get(spec.name, {}), **spec.settings}))


def _spec(given: Mapping[str, Setting], settings: Mapping[str, Setting], where: str) -> Spec:
    values: dict[str, Setting] = {}
    for key, value in given.items():
        if isinstance(value, str) and value.startswith("@"):
            if value[1:] not in settings:
                raise SpecError(f"{where}: {value} names no entry of [settings]. It has: {', '.join(settings)}.")
            value = settings[value[1:]]
        values[key] = value
    name = values.pop("name", None)
    if not isinstance(name, str):
        raise SpecError(f"{where}: expected a name, got {name!r}.")
    return Spec(name=name, settings=values)


_CONTRAST = re.compile(
    r"(?:(?P<both>[\w-]+):\s*)?(?P<left>[\w./-]+(?:\[[\w-]+\])?)\s*(?P<sign>[><=])\s*"
    r"(?P<right>[\w./-]+(?:\[[\w-]+\])?)(?:\s*@\s*(?P<epoch>\w+))?"
)
_SIGNS: dict[str, Expectation] = {">": "greater", "<": "less", "=": "none"}


def _contrast(text: str, written: StudyFile, *, primary: bool, claim: str) -> Contrast:
    match = _CONTRAST.fullmatch(text.strip())
    if match is None:
        raise SpecError(f"claim {claim}: cannot read {text!r}. Write 'lenet: digits > objects @ last'.")

    def cell(words: str) -> Cell:
        words, _, attack = words.rstrip("]").partition("[")
        architecture, _, condition = words.rpartition("/")
        architecture = architecture or match["both"] or ""
        lookup("architecture", written.architectures, architecture)
        lookup("condition", written.conditions, condition)
        if attack:
            lookup("attack", {**written.attacks, **written.examinations}, attack)
        return Cell(architecture=architecture, condition=condition, attack=attack or None)

    left, right = cell(match["left"]), cell(match["right"])
    position = match["epoch"] or "last"
    if not position.isdigit() and position not in ("first", "last", "early", "middle"):
        raise SpecError(f"claim {claim}: the epoch must be first, last, early, middle or a number, got {position!r}.")
    return Contrast.model_validate(
        {
            "left": left,
            "right": right,
            "expect": _SIGNS[match["sign"]],
            "epoch": int(position) if position.isdigit() else position,
            "primary": primary,
            "paired": left.architecture == right.architecture,
        }
    )


def _claim(claim: ClaimFile, written: StudyFile) -> Claim:
    lookup("attack", {**written.attacks, **written.examinations}, claim.attack)
    return Claim(
        id=claim.id,
        says=claim.says,
        attack=claim.attack,
        measure=claim.measure,
        contrasts=(
            *(_contrast(text, written, primary=True, claim=claim.id) for text in claim.primary),
            *(_contrast(text, written, primary=False, claim=claim.id) for text in claim.secondary),
        ),
    )


def _published(path: Path, written: StudyFile) -> tuple[PublishedValue, ...]:
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
    return tuple(_validate(PublishedValue, row, written.published_tables) for row in rows)


def _remarks(changes: Changes, trials: Sequence[Trial]) -> tuple[str, ...]:
    shortened = sorted(
        {
            f"{trial.pretraining_epochs} of {trial.recipe.epochs}"
            for trial in trials
            if trial.pretraining_epochs and trial.pretraining_epochs < trial.recipe.epochs
        }
    )
    remarks: list[str] = []
    if changes.until_epoch is not None:
        remarks.append(f"Training was stopped after epoch {changes.until_epoch}: 'last' means that epoch.")
    if shortened:
        remarks.append(
            f"Pretraining lasted {', '.join(shortened)} epochs: "
            "the pretrained conditions are not comparable with the source."
        )
    return tuple(remarks)


def _appears(name: str, trials: Sequence[Trial]) -> bool:
    return any(name in (trial.architecture, trial.condition) for trial in trials)


def _is_chosen(trial: Trial, only: Sequence[str], written: StudyFile) -> bool:
    """Return whether a trial is named; architectures and conditions named together mean the cells that have both."""
    architectures = [word for word in only if word in written.architectures]
    conditions = [word for word in only if word in written.conditions]
    named = not architectures or trial.architecture in architectures
    named &= not conditions or trial.condition in conditions
    return f"{trial.architecture}/{trial.condition}" in only or (
        named and bool(architectures or conditions or not only)
    )


def _check_only(only: Sequence[str], written: StudyFile, trials: Sequence[Trial]) -> None:
    cells = [f"{trial.architecture}/{trial.condition}" for trial in trials]
    valid = [*written.conditions, *written.architectures, *cells]
    for word in only:
        if word not in valid:
            raise SpecError(
                f"--only: there is no condition {word!r}. There are: {', '.join(written.conditions)}; "
                f"architectures: {', '.join(written.architectures)}.{suggestion(word, valid)}"
            )
    if only and not any(_is_chosen(trial, only, written) for trial in trials):
        raise SpecError(f"--only {' '.join(only)}: this scale has no such trial.")


def _validate(kind: type[Any], content: object, where: str) -> Any:
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
