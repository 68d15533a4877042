"""A made-up study: known shapes of accuracy over eps, so that every table can be computed by hand."""

import math
import random
import runpy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from unperturbed.records import (
    AttackPlan,
    Cell,
    Claim,
    Contrast,
    CurvePoint,
    Measurement,
    PublishedValue,
    Recipe,
    Spec,
    StageCost,
    Study,
    Trial,
)
from unperturbed.report.content import Content, Picture, Shown
from unperturbed.statistics import decide

GRID = (0.0, 0.0125, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
LADDER = (0.0, 2.0, 4.0)
EPOCHS = (1, 5, 20)
ARCHITECTURES = {"lenet": "LeNet, 62,006 parameters", "resnet": "ResNet, narrow", "fully-connected": "one hidden layer"}
PUBLISHED_CONDITIONS = {
    "digits": "handwritten digits",
    "objects": "photographs",
    "objects-then-digits": "digits after objects",
    "digits-then-objects": "objects after digits",
    "fusion-digit": "half digit, half object; the task is the digit",
    "fusion-object": "half digit, half object; the task is the object",
}
CONTROLS = {
    "digits-half-contrast": "digits blended with grey",
    "fusion-digit-0.25": "a quarter digit",
    "fusion-digit-0.75": "three quarters digit",
    "fusion-object-0.25": "three quarters object",
    "objects-half-contrast": "objects blended with grey",
    "fusion-object-0.75": "a quarter object",
}
# How fast accuracy falls with eps: the half-width in intensity under FGSM.
HALF = {
    "digits": 0.16, "objects": 0.02, "objects-then-digits": 0.15, "digits-then-objects": 0.022, "fusion-digit": 0.06,
    "fusion-object": 0.015, "digits-half-contrast": 0.07, "fusion-digit-0.25": 0.03, "fusion-digit-0.75": 0.11,
    "fusion-object-0.25": 0.018, "objects-half-contrast": 0.016, "fusion-object-0.75": 0.01,
}  # fmt: skip
STRENGTH = {"fgsm": 1.0, "pgd-linf": 0.6, "pgd-l2": 15.0, "uniform-noise": 6.0, "gaussian-noise": 5.0}
PRINTED = {"digits": 0.52, "objects": 0.0972, "fusion-digit": 0.19, "fusion-object": 0.12, "digits-then-objects": 0.11}
SIZE = {"lenet": 1.0, "resnet": 1.1, "fully-connected": 0.6}


def plan(attack: str) -> AttackPlan:
    name, norm = {"pgd-linf": ("pgd", "linf"), "pgd-l2": ("pgd", "l2")}.get(attack, (attack.replace("-", "_"), "linf"))
    grid = LADDER if norm == "l2" else GRID
    return AttackPlan(attack=Spec(name=name, settings={"norm": norm}), eps=grid, images=500)


def make_study(architectures, conditions, seeds, *, comparable: bool) -> Study:
    trials = tuple(
        Trial(
            architecture=architecture,
            condition=condition,
            model=Spec(name=architecture),
            data=Spec(name="digits"),
            recipe=Recipe(epochs=EPOCHS[-1]),
            epochs=EPOCHS,
            attacks={attack: plan(attack) for attack in STRENGTH},
            seeds=seeds,
        )
        for architecture in architectures
        for condition in conditions
    )

    def contrasts(left: str, right: str, expect: str) -> tuple[Contrast, ...]:
        return tuple(
            Contrast(left=Cell(architecture=a, condition=left), right=Cell(architecture=a, condition=right),
                     expect=expect, epoch=epoch, primary=epoch == "last")
            for a in architectures for epoch in ("first", "last")
        )  # fmt: skip

    claims = (
        Claim(id="K1", says="Networks trained on digits are more robust than networks trained on objects",
              contrasts=contrasts("digits", "objects", "greater")),
        Claim(id="K3", says="On fusion images the digit task is more robust than the object task",
              contrasts=contrasts("fusion-digit", "fusion-object", "greater")),
        Claim(id="K9", says="Pretraining on digits makes networks trained on objects less robust",
              contrasts=contrasts("digits-then-objects", "objects", "less")),
        Claim(id="K8", says="Pretraining on objects makes no difference to networks trained on digits",
              contrasts=contrasts("objects-then-digits", "digits", "none")),
        Claim(id="X0", says="Networks trained on fusion images are more robust than networks trained on digits",
              contrasts=contrasts("fusion-digit", "digits", "greater")),
    )  # fmt: skip
    published = tuple(
        PublishedValue(table=str(index + 1), architecture="lenet", condition=condition, epoch=epoch, mean=mean, sd=0.02,
                       n=20)
        for index, (condition, mean) in enumerate(PRINTED.items()) for epoch in (1, EPOCHS[-1])
    )  # fmt: skip
    return Study(
        name="distribution-and-task",
        title="Image distribution, task and robustness",
        question="Do the images and the task that a network is trained on decide how robust it is?",
        source="Kunhardt, Deza and Poggio (2021), arXiv:2102.10534",
        scale="laptop",
        settings={"digits": "digits", "objects": "photographs", "alpha": 0.5},
        seeds=seeds,
        architectures=architectures,
        conditions=conditions,
        controls=tuple(c for c in conditions if c in CONTROLS),
        trials=trials,
        claims=claims,
        published=published,
        comparable=comparable,
        classes={condition: tuple("0123456789") for condition in conditions},
        remarks=("The photographs stand in for CIFAR-10.",),
    )


def accuracy(architecture, condition, seed, epoch, attack, eps) -> float:
    noise = random.Random(f"{architecture} {condition} {seed} {epoch}").gauss(0, 0.06)
    half = HALF[condition] * SIZE[architecture] * STRENGTH[attack] * (1 + noise) * (0.7 + 0.3 * epoch / EPOCHS[-1])
    clean = (0.97 if "digit" in condition else 0.72) - 0.15 / epoch + noise / 20
    floor = 0.1 if attack == "fgsm" and "object" in condition else 0.0
    return max(clean * math.exp(-((eps / half) ** 2)), floor * eps / 0.3)


def trapezoid(curve: list[tuple[float, float]]) -> float:
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(curve))
    return area / (curve[-1][0] - curve[0][0]) / curve[0][1]


def make_content(*, architectures=ARCHITECTURES, controls=CONTROLS, seeds=5, comparable=True, size=32) -> Content:
    conditions = {**PUBLISHED_CONDITIONS, **controls}
    study = make_study(architectures, conditions, tuple(range(seeds)), comparable=comparable)
    curves, measurements, costs = [], [], []
    for trial in study.trials:
        for seed in trial.seeds:
            for epoch in trial.epochs:
                cell = (trial.architecture, trial.condition, seed, epoch)
                costs.append(StageCost(*cell, "training", 1.5, 100, 100, "cpu", {"torch": "2.13.0"}))
                for attack, attack_plan in trial.attacks.items():
                    curve = [(eps, accuracy(*cell, attack, eps)) for eps in attack_plan.eps]
                    curves += [CurvePoint(*cell, attack, eps, value, 500) for eps, value in curve]
                    lowest, running = 2.0, []
                    for eps, value in curve:
                        lowest = min(lowest, value)
                        running.append((eps, lowest))
                    for measure, value in {
                        "f0": curve[0][1],
                        "R": trapezoid(curve),
                        "R_minimum": trapezoid(running),
                    }.items():
                        measurements.append(
                            Measurement(
                                *cell, attack, measure, value, "fraction" if measure == "f0" else "", "higher", 500
                            )
                        )
                    costs.append(StageCost(*cell, attack, 0.25, 9, 1, "cpu", {"torch": "2.13.0"}))
    rng = np.random.default_rng(0)
    pictures = tuple(
        Picture(
            condition=condition,
            architecture=next(iter(architectures)),
            attack="fgsm",
            original=(original := rng.random((3, size, size)) * 0.5 + 0.25),
            label="7",
            prediction="7",
            adversarial=tuple(
                Shown(eps, np.clip(original + eps * np.sign(rng.standard_normal(original.shape)), 0, 1), "2")
                for eps in (8 / 255, 0.1, 0.3)
            ),
        )
        for condition in ("digits", "objects", "fusion-digit")
    )
    return Content(
        study=study,
        curves=curves,
        measurements=measurements,
        costs=costs,
        decisions=decide(study, measurements),
        pictures=pictures,
        versions={"unperturbed": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
        command="unperturbed run distribution-and-task --scale laptop",
        seconds=123.4,
        created="2025-01-02 03:04 UTC",
    )


@pytest.fixture(scope="session")
def content() -> Content:
    """Two architectures, six published conditions, two controls, five seeds."""
    return make_content(
        architectures={name: ARCHITECTURES[name] for name in ("lenet", "fully-connected")},
        controls={name: CONTROLS[name] for name in ("digits-half-contrast", "fusion-digit-0.25")},
    )


@pytest.fixture(scope="session")
def small() -> Content:
    """One architecture, one control, two seeds."""
    return make_content(architectures={"lenet": "LeNet"}, controls={"digits-half-contrast": "half"}, seeds=2)


@pytest.fixture
def sparse(content) -> Content:
    """One seed, nothing published, one condition not run, no pictures, no costs."""
    study = content.study.model_copy(update={"published": (), "comparable": False, "remarks": ()})
    curves = [p for p in content.curves if p.seed == 0 and p.condition != "objects"]
    measurements = [m for m in content.measurements if m.seed == 0 and m.condition != "objects"]
    return replace(
        content, study=study, curves=curves, measurements=measurements, costs=[], pictures=(),
        decisions=decide(study, measurements), versions={}, command="",
    )  # fmt: skip


SAMPLES = runpy.run_path(str(Path(__file__).with_name("defence_samples.py")))


@pytest.fixture(scope="session")
def make_defences():
    """A study of defences: what each keeps its accuracy against, and what examinations say of it."""
    return SAMPLES["make_defences"]


@pytest.fixture(scope="session")
def defences(make_defences) -> Content:
    """One architecture, twelve conditions, three seeds, numbers printed elsewhere without a standard deviation."""
    return make_defences()
