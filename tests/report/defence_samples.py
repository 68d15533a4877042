"""A made-up study of defences: twelve conditions, six attacks, six examinations, every number by a rule."""

import random

import numpy as np

from unperturbed.records import (
    AttackPlan,
    Cell,
    Claim,
    Contrast,
    CurvePoint,
    ExaminationPlan,
    Measurement,
    PublishedValue,
    Recipe,
    Spec,
    StageCost,
    Study,
    Trial,
)
from unperturbed.report.confidence import counted
from unperturbed.report.content import Confidence, Content, Picture, Shown, Survivors
from unperturbed.statistics import decide

EIGHT = 8 / 255
GRID = (0.0, 2 / 255, 4 / 255, EIGHT, 16 / 255)
STRENGTH = {  # half-width in eps, for a robustness of 1
    "regular": 0.15, "noise-augmentation": 0.3, "label-smoothing": 0.2, "pgd-training": 1.0, "trades": 1.1,
    "noise-injection": 0.8, "noise-injection-alone": 0.25, "noise-fixed": 0.7, "half-adversarial": 0.75,
    "winner-take-all": 0.6, "winner-take-all-hot": 0.9, "winner-take-all-argmax": 0.5,
}  # fmt: skip
CONTROLS = ("noise-fixed", "half-adversarial", "winner-take-all-argmax")
SMOOTHED = ("noise-augmentation", "noise-injection")
EASE = {"pgd-source": 3.0, "fgsm": 1.6, "pgd": 1.1, "pgd-eot": 1.0, "carlini-wagner": 0.9, "uniform-noise": 8.0,
        "doubts": 0.95, "autoattack": 0.93, "transfer-2": 2.0}  # fmt: skip
WITHIN_EIGHT = ("pgd-source", "fgsm", "pgd", "pgd-eot", "uniform-noise", "autoattack", "doubts")
IMAGES = {"pgd-eot": 60, "pgd": 60, "autoattack": 20, "audit": 50}
LAST = 15


def attack_plans() -> dict[str, AttackPlan]:
    def plan(label, name, eps, **more):
        norm = "l2" if name == "carlini_wagner" else "linf"
        return AttackPlan(
            attack=Spec(name=name, settings={"norm": norm}), eps=eps, images=IMAGES.get(label, 100), **more
        )

    return {
        "pgd-source": plan("pgd-source", "pgd", (0.0, EIGHT, 0.3)),
        "fgsm": plan("fgsm", "fgsm", GRID),
        "pgd": plan("pgd", "pgd", GRID),
        "pgd-eot": plan("pgd-eot", "pgd", GRID, through={"temperature": 0.67}),
        "carlini-wagner": plan("carlini-wagner", "carlini_wagner", (0.0, 0.5, 1.0)),
        "uniform-noise": plan("uniform-noise", "uniform_noise", GRID),
    }


def examination_plans() -> dict[str, ExaminationPlan]:
    ball = {"norm": "linf", "eps": EIGHT}
    asked = {
        "autoattack": Spec(name="autoattack", settings={"version": "fitting", **ball}),
        "doubts": Spec(name="audit", settings={"budget": "quick", **ball}),
        "transfer-2": Spec(name="transfer", settings={"norm": "linf", "eps": 2 / 255}),
        "sureness": Spec(name="calibration", settings={"draws": 16}),
        "certificates": Spec(name="certificates", settings={"n": 1000}),
        "timing": Spec(name="timing", settings={"batch_size": 128}),
    }
    return {label: ExaminationPlan(examination=spec, images=IMAGES.get(label, 100)) for label, spec in asked.items()}


def clean(condition: str, seed: int) -> float:
    noise = random.Random(f"{condition} {seed}").gauss(0, 0.02)
    return min(0.97, (0.82 if STRENGTH[condition] > 0.4 else 0.93) + noise)


def left(condition: str, seed: int, label: str, eps: float) -> float:
    """Accuracy after an attack or a protocol of that label."""
    unit = 1.0 if label == "carlini-wagner" else 0.05
    ease = EASE[label]
    half = STRENGTH[condition] * unit * ease * (1 + random.Random(f"{seed} {condition}").gauss(0, 0.08))
    return clean(condition, seed) * 0.5 ** ((eps / half) ** 2)


def standing(condition: str, seed: int, label: str, images: int) -> np.ndarray:
    """Which images an attack leaves: as many as it should, but of each attack other ones."""
    order = np.random.default_rng([len(condition), seed, len(label)]).permutation(images)
    return order < round(left(condition, seed, label, EIGHT) * images)


def certified(condition: str, seed: int, radius: float) -> float:
    return max(0.0, clean(condition, seed) - radius)


def make_defences(*, seeds: int = 3, architectures=("lenet",), comparable: bool = False, size: int = 32) -> Content:
    conditions = {name: f"trained with {name}" for name in STRENGTH}
    plans, asked = attack_plans(), examination_plans()
    trials = tuple(
        Trial(
            architecture=architecture,
            condition=condition,
            model=Spec(name=architecture),
            data=Spec(name="photographs"),
            recipe=Recipe(epochs=LAST),
            epochs=(LAST,),
            attacks=plans,
            examinations={
                label: plan for label, plan in asked.items() if label != "certificates" or condition in SMOOTHED
            },
            seeds=tuple(range(seeds)),
        )
        for architecture in architectures
        for condition in conditions
    )

    def cell(condition: str, attack: str | None = None) -> Cell:
        return Cell(architecture=architectures[0], condition=condition, attack=attack)

    def claim(name, says, left, right, expect, attack="pgd-eot"):
        contrast = Contrast(left=left, right=right, expect=expect)
        return Claim(id=name, says=says, attack=attack, measure="A_8_255", contrasts=(contrast,))

    claims = (
        claim("AT4", "PGD training helps", cell("pgd-training"), cell("regular"), "greater"),
        claim("AT5", "Smoothed labels do not", cell("label-smoothing"), cell("regular"), "none"),
        claim("PNI3", "Noise beats no noise under PGD", cell("noise-injection"), cell("half-adversarial"), "greater",
              "pgd"),
        claim("PNI6", "Averaging over draws takes it away", cell("noise-injection"), cell("noise-injection", "pgd"),
              "less"),
    )  # fmt: skip
    published = (
        PublishedValue(table="1", architecture="lenet", condition="pgd-training", epoch=200, measure="A_8_255",
                       attack="pgd", mean=0.362),
        PublishedValue(table="1", architecture="lenet", condition="pgd-training", epoch=200, measure="A_8_255",
                       attack="pgd-eot", mean=0.351),
        PublishedValue(table="1", architecture="lenet", condition="regular", epoch=200, measure="A_8_255",
                       attack="pgd-eot", mean=0.0),
        PublishedValue(table="1", architecture="lenet", condition="regular", epoch=200, measure="f0", attack="",
                       mean=0.941),
        PublishedValue(table="2", architecture="lenet", condition="trades", epoch=LAST, measure="A_eps",
                       attack="autoattack", mean=0.3, sd=0.01, n=5),
    )  # fmt: skip
    study = Study(
        name="defences", title="Defences, and what is left of them", question="Which of them make a network robust?",
        source="A comparison of trainings", scale="laptop", seeds=tuple(range(seeds)),
        architectures={name: f"{name}, small" for name in architectures}, conditions=conditions, controls=CONTROLS,
        trials=trials, claims=claims, published=published, comparable=comparable,
        classes={condition: tuple(f"photograph {n}" for n in range(10)) for condition in conditions},
    )  # fmt: skip
    curves, measurements, costs, pictures, confidences, survivors = [], [], [], [], [], []
    for trial in trials:
        for seed in trial.seeds:
            place = (trial.architecture, trial.condition, seed, LAST)
            costs.append(StageCost(*place, "training", 20.0, 100, 100, "cpu", {}))
            for label, found in network(trial, seed).items():
                images = 128 if label == "timing" else IMAGES.get(label, 100)
                costs.append(StageCost(*place, label, 1.5, 9, 1, "cpu", {}))
                curves += [CurvePoint(*place, label, eps, value, images) for eps, value in found["curve"]]
                measurements += [
                    Measurement(*place, label, measure, value, *UNITS.get(measure, ("fraction", "higher")), images)
                    for measure, value in found["measures"].items()
                ]
                if label in WITHIN_EIGHT:
                    survivors.append(Survivors(*place[:2], label, *place[2:], standing(*place[1:3], label, images)))
        pictures += pictured(trial, size)
        confidences.append(certainty(trial))
    return Content(
        study=study, curves=curves, measurements=measurements, costs=costs, decisions=decide(study, measurements),
        pictures=tuple(sorted(pictures, key=lambda picture: picture.attack)), confidences=tuple(confidences),
        survivors=tuple(survivors),
        versions={"unperturbed": "0.1.0"}, command="unperturbed run defences", seconds=123.4,
        created="2025-01-02 03:04 UTC",
    )  # fmt: skip


UNITS = {
    "ece": ("fraction", "lower"),
    "audit_verdict": ("", "lower"),
    "average_certified_radius": ("L2", "higher"),
    "ms_per_image": ("ms", "lower"),
}


def network(trial: Trial, seed: int) -> dict[str, dict]:
    """What every attack and examination says of one network."""
    condition = trial.condition
    found = {}
    for label, plan in trial.attacks.items():
        curve = [(eps, left(condition, seed, label, eps)) for eps in plan.eps]
        measures = {"f0": curve[0][1], "A_last": curve[-1][1]}
        if EIGHT in plan.eps:
            measures["A_8_255"] = dict(curve)[EIGHT]
        found[label] = {"curve": curve, "measures": measures}
    for label, plan in trial.examinations.items():
        if (eps := plan.examination.settings.get("eps")) is not None:
            curve = [(0.0, clean(condition, seed)), (eps, left(condition, seed, label, eps))]
            found[label] = {"curve": curve, "measures": {"f0": curve[0][1], "A_eps": curve[1][1]}}
    weak = STRENGTH[condition] < 0.4
    found["doubts"]["measures"]["audit_verdict"] = float(2 if weak and seed else 1 if seed == 0 else 0)
    found["sureness"] = {"curve": [], "measures": {"f0": clean(condition, seed), "ece": 0.05 + 0.01 * seed}}
    found["timing"] = {"curve": [], "measures": {"ms_per_image": 0.25 + 0.5 * (condition in SMOOTHED) + 0.01 * seed}}
    if "certificates" in trial.examinations:
        curve = [(radius, certified(condition, seed, radius)) for radius in (0.0, 0.125, 0.25, 0.5)]
        found["certificates"] = {"curve": curve, "measures": {"average_certified_radius": 0.2 + 0.01 * seed}}
    return found


def pictured(trial: Trial, size: int) -> list[Picture]:
    rng = np.random.default_rng(0)
    ramp = np.linspace(0.2, 0.8, size)
    original = np.stack([ramp[None, :] * ramp[:, None], np.tile(ramp, (size, 1)), np.tile(ramp[:, None], (1, size))])
    return [
        Picture(
            condition=trial.condition, architecture=trial.architecture, attack=attack, original=original,
            label="photograph 7", prediction="photograph 7",
            adversarial=tuple(
                Shown(eps, np.clip(original + eps * np.sign(rng.standard_normal(original.shape)), 0, 1), "photograph 2")
                for eps in GRID[1:]
            ),
        )
        for attack in ("fgsm", "pgd-eot", "carlini-wagner")
    ]  # fmt: skip


def certainty(trial: Trial, images: int = 200, classes: int = 10) -> Confidence:
    rng = np.random.default_rng(len(trial.condition))
    labels = rng.integers(0, classes, images)
    logits = rng.standard_normal((images, classes))
    logits[np.arange(images), labels] += 2.5
    logits *= 2.0 if STRENGTH[trial.condition] < 0.4 else 0.8
    odds = np.exp(logits)
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    return Confidence(trial.architecture, trial.condition, "sureness", 0, LAST, *counted(probabilities, labels))
