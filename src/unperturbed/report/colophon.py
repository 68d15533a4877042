"""How a report was made: where the study comes from, its attacks and examinations, recipes and settings."""

from __future__ import annotations

from collections.abc import Mapping

from unperturbed.records import AttackPlan, ExaminationPlan, Setting, Spec
from unperturbed.report.content import Content
from unperturbed.report.numbers import MISSING, duration, radius
from unperturbed.report.views import word


def about(content: Content) -> list[tuple[str, str]]:
    """Return where the study comes from and how it was run, as pairs of name and value."""
    study = content.study
    return [
        ("study", study.name),
        ("source", study.source),
        ("scale", study.scale),
        ("comparable", "yes: recipe, data and epochs are the published ones" if study.comparable else
         "no: recipe, data or epochs differ from the published ones, so published numbers show direction only"),
        ("seeds", ", ".join(map(str, study.seeds)) or MISSING),
        ("wall time", duration(content.seconds)),
        ("written", content.created or MISSING),
    ]  # fmt: skip


def plans(content: Content) -> list[tuple[str, str]]:
    """Return each attack with its settings, radii and number of images, once for all that plan it alike."""
    return once(
        content,
        [
            (trial.architecture, label, attack(plan))
            for trial in content.study.trials
            for label, plan in trial.attacks.items()
        ],
    )


def examined(content: Content) -> list[tuple[str, str]]:
    """Return each examination with its settings and number of images, once for all that plan it alike."""
    return once(
        content,
        [
            (trial.architecture, label, examination(plan))
            for trial in content.study.trials
            for label, plan in trial.examinations.items()
        ],
    )


def sweeps(content: Content) -> list[tuple[str, str]]:
    """Return each sweep with its conditions and what it is matched in."""
    return [
        (name, f"{', '.join(sweep.conditions)}; matched in {sweep.match}")
        for name, sweep in content.study.sweeps.items()
    ]


def attack(plan: AttackPlan) -> str:
    """Return the plan of an attack in words."""
    text = f"{called(plan.attack)}; ε: {', '.join(map(radius, plan.eps))}; {on(plan.images)}"
    text += "" if plan.epochs == "all" else "; last epoch only"
    text += f"; through a copy with {settings(plan.through)}" if plan.through else ""
    return text + ("" if plan.votes == 1 else f"; decided by {plan.votes} draws")


def examination(plan: ExaminationPlan) -> str:
    """Return the plan of an examination in words."""
    text = f"{called(plan.examination)}; {on(plan.images)}"
    return text + (f"; beside {plan.beside.architecture} {plan.beside.condition}" if plan.beside else "")


def called(spec: Spec) -> str:
    """Return a function with its settings."""
    return f"{spec.name}({settings(spec.settings)})"


def settings(values: Mapping[str, Setting]) -> str:
    """Return settings as a list of names and values."""
    return ", ".join(f"{name}={word(value)}" for name, value in values.items())


def on(images: int | None) -> str:
    """Return on which images something was done."""
    return f"the first {images} test images" if images else "all test images"


def once(content: Content, planned: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """Return (architecture, label, text) as pairs of label and text, with architectures where not all plan it alike."""
    used: dict[tuple[str, str], list[str]] = {}
    for architecture, label, text in planned:
        names = used.setdefault((label, text), [])
        if architecture not in names:
            names.append(architecture)
    every = len({trial.architecture for trial in content.study.trials})
    return [
        (label, text if len(names) == every else f"{text} ({', '.join(names)})")
        for (label, text), names in used.items()
    ]


def recipes(content: Content) -> list[tuple[str, str]]:
    """Return each recipe of training once, with the architectures that use it."""
    used: dict[str, list[str]] = {}
    for trial in content.study.trials:
        text = ", ".join(f"{name} {word(value)}" for name, value in trial.recipe if value != ())
        names = used.setdefault(text, [])
        if trial.architecture not in names:
            names.append(trial.architecture)
    return [(", ".join(names), text) for text, names in used.items()]
