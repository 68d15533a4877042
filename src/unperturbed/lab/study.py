"""A study file becomes a study: every name checked, every default written out, before anything runs.

A study is TOML: what is trained (conditions), on what (architectures), how it is attacked (attacks), how much of it
(scales), and which published sentences it decides (claims). ``@word`` stands for ``[settings] word``, which the command
line may replace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import nn

from unperturbed import attacks as attack_family
from unperturbed import data as data_family
from unperturbed import mechanisms as mechanism_family
from unperturbed.examinations import APART, EXAMINATIONS
from unperturbed.examinations import check_spec as check_examination
from unperturbed.lab.study_file import (
    ArchitectureFile,
    AttackFile,
    ClaimFile,
    ConditionFile,
    ExaminationFile,
    ScaleFile,
    StudyFile,
    claim_of,
    find,
    published_values,
    read,
    sweep_of,
    validate,
)
from unperturbed.mechanisms import MECHANISMS
from unperturbed.mechanisms.installing import having
from unperturbed.models import MODELS, outline
from unperturbed.records import (
    AttackPlan,
    ExaminationPlan,
    Recipe,
    Setting,
    Spec,
    SpecError,
    Study,
    Trial,
)
from unperturbed.registry import complete, lookup, suggestion

VOTES = 9  # draws that decide about an image of a random network, clean and attacked


class Changes(NamedTuple):
    """What the command line changes in a study; ``None`` and empty leave it as written."""

    seeds: int | None = None
    only: tuple[str, ...] = ()
    until_epoch: int | None = None
    pretraining_epochs: int | None = None
    settings: Mapping[str, Setting] = {}


def load(name: str, *, scale: str = "laptop", changes: Changes = Changes()) -> Study:  # noqa: B008 - an immutable value
    """Return the study called ``name`` (or at a path ending in .toml) at one scale.

    Raises:
        SpecError: anything in the file or the changes that names what does not exist.
    """
    path = find(name)
    written = read(path)
    size = lookup("scale", written.scales, scale)
    settings = {**written.settings, **size.settings, **changes.settings}
    for key in (*size.settings, *changes.settings):
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
    published = published_values(path, written)
    return Study(
        name=path.stem,
        title=_title(size.title or written.title, trials),
        question=written.question,
        source=written.source,
        scale=scale,
        settings=settings,
        seeds=tuple(range(seeds)),
        architectures={name: says for name, says in written.architectures.items() if _appears(name, trials)},
        conditions={name: c.says for name, c in written.conditions.items() if _appears(name, trials)},
        controls=tuple(name for name, c in written.conditions.items() if c.control and _appears(name, trials)),
        trials=trials,
        sweeps={name: sweep_of(name, written) for name in written.sweeps},
        claims=tuple(claim_of(claim, written) for claim in written.claims if _applies(claim, settings)),
        published=published,
        comparable=size.comparable and settings == {**settings, **written.published_settings},
        remarks=_remarks(changes, trials),
    )


def _title(title: str, trials: Sequence[Trial]) -> str:
    """Return the title; that responses of a brain were simulated is said in it, whoever has written it."""
    simulated = any(trial.data.name in data_family.SIMULATED for trial in trials)
    return title if "simulated" in title.lower() or not simulated else f"{title} (simulated)"


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
    for label in (*size_of.images, *size_of.seeds):
        lookup("attack or examination", {**written.attacks, **written.examinations}, label)
    model = complete("model", MODELS, _spec(size_of.model, settings, f"architectures.{architecture}.model"))
    recipe = validate(Recipe, size_of.recipe, f"architectures.{architecture}.recipe")
    evaluate = _epochs(size_of.evaluate, recipe, changes.until_epoch, architecture)
    attacks = {
        name: _plan(name, lookup("attack", written.attacks, name), size_of)
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
        _pass(network)
        if changes.pretraining_epochs is not None and not 1 <= changes.pretraining_epochs <= recipe.epochs:
            raise SpecError(
                f"--pretraining-epochs must lie between 1 and {recipe.epochs}, got {changes.pretraining_epochs}."
            )
        pretraining = None
        if condition.pretraining is not None:
            pretraining = _data(condition.pretraining, size, settings, f"conditions.{label}.pretraining")
        data = _data(condition.data, size, settings, f"conditions.{label}.data")
        subjects = [data_family.subject_of(data, seed) for seed in range(seeds)]
        yield Trial(
            architecture=architecture,
            condition=label,
            model=model,
            mechanisms=defences,
            data=data,
            pretraining=pretraining,
            pretraining_epochs=(changes.pretraining_epochs or recipe.epochs) if pretraining else None,
            recipe=_recipe(size_of, condition, settings, f"conditions.{label}.recipe") if condition.recipe else recipe,
            epochs=evaluate,
            attacks={
                name: _on(plan, network, random=defence.traits.random)
                for name, plan in attacks.items()
                if _is_about(written.attacks[name], label, written)
            },
            seeds=tuple(range(seeds)),
            subjects=tuple(subject for subject in subjects if subject is not None),
        )


def _is_about(file: AttackFile | ExaminationFile, condition: str, written: StudyFile) -> bool:
    """Return whether the networks of a condition are put to an attack or examination; refuse unknown conditions."""
    for name in file.conditions or ():
        lookup("condition", written.conditions, name)
    return file.conditions is None or condition in file.conditions


def _pass(network: nn.Module) -> None:
    """Let images without content pass an outline, so that what does not fit a layer is refused before any training.

    What cannot be computed without content shows when a network with weights is trained.

    Raises:
        SpecError: a layer does not fit.
    """
    with suppress(NotImplementedError, RuntimeError), torch.no_grad():
        network.to("meta").eval()(torch.empty(2, 3, 32, 32, device="meta"))


def _applies(claim: ClaimFile, settings: Mapping[str, Setting]) -> bool:
    for name in claim.where:
        lookup("setting", settings, name)
    return all(settings[name] == value for name, value in claim.where.items())


def _recipe(size_of: ArchitectureFile, condition: ConditionFile, settings: Mapping[str, Setting], where: str) -> Recipe:
    own = {key: _value(value, settings, where) for key, value in condition.recipe.items()}
    if "epochs" in own:
        raise SpecError(
            f"{where}: epochs are those of the architecture, whose conditions are compared at equal epochs."
        )
    return validate(Recipe, {**size_of.recipe, **own}, where)


def _examined(
    trial: Trial, written: StudyFile, size: ScaleFile, settings: Mapping[str, Setting], trials: Sequence[Trial]
) -> Trial:
    """Return the trial with what it is examined for."""
    size_of = size.architectures[trial.architecture]
    chosen = written.examinations if size_of.examinations is None else size_of.examinations
    plans: dict[str, ExaminationPlan] = {}
    for label in chosen:
        file = lookup("examination", written.examinations, label)
        if not _is_about(file, trial.condition, written):
            continue
        where = f"examinations.{label}"
        spec = complete(
            "examination",
            EXAMINATIONS,
            _spec({**file.settings, "name": file.examination}, settings, where),
            apart=("subject",),
        )
        check_examination(spec)
        beside = None
        if file.beside is not None:
            lookup("condition", written.conditions, file.beside)
        alone = file.beside is None or (file.beside == trial.condition and spec.name in APART)
        if not alone:
            cell = (trial.architecture, file.beside)
            beside = next((other for other in trials if (other.architecture, other.condition) == cell), None)
            if beside is None:
                raise SpecError(f"{where}: beside = {file.beside!r}, which this scale does not train.")
        plans[label] = ExaminationPlan(
            examination=spec,
            images=size_of.images.get(label) or file.images,
            seeds=size_of.seeds.get(label),
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
    alone = (("eot", 1),) if through else (("eot", 1), ("persist", False))  # what misleads a copy may not mislead it
    once = {name: value for name, value in alone if name in plan.attack.settings}
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


def _plan(name: str, attack: AttackFile, size_of: ArchitectureFile) -> AttackPlan:
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
        images=size_of.images.get(name) or attack.images,
        seeds=size_of.seeds.get(name),
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
    own = {key: _value(value, settings, where) for key, value in size.data.get(spec.name, {}).items()}
    return data_family.check_spec(Spec(name=spec.name, settings={**own, **spec.settings}))


def _spec(given: Mapping[str, Setting], settings: Mapping[str, Setting], where: str) -> Spec:
    values: dict[str, Setting] = {key: _value(value, settings, where) for key, value in given.items()}
    name = values.pop("name", None)
    if not isinstance(name, str):
        raise SpecError(f"{where}: expected a name, got {name!r}.")
    return Spec(name=name, settings=values)


def _value(value: Any, settings: Mapping[str, Setting], where: str) -> Any:
    if not (isinstance(value, str) and value.startswith("@")):
        return value
    if value[1:] not in settings:
        raise SpecError(f"{where}: {value} names no entry of [settings]. It has: {', '.join(settings)}.")
    return settings[value[1:]]


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
