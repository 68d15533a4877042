"""The tables of the report: pure functions from ``Content`` to lists of rows, numbers at full precision.

A figure is drawn from one of these tables and from nothing else. ``None`` marks what was not measured.
Means are over seeds; standard deviations have ``n - 1`` in the denominator and are ``None`` for one seed.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from unperturbed.records import AttackPlan, CurvePoint, ExaminationPlan, PublishedValue, Trial
from unperturbed.report.content import Content
from unperturbed.statistics import Summary, compare, summarise

Row = dict[str, Any]
NAMES = {  # measures as a reader writes them, in the order of the tables; others keep their own name and come after
    "R": "R",
    "A_8_255": "accuracy at 8/255",
    "R_8_255": "R to 8/255",
    "R_16_255": "R to 16/255",
    "R_minimum": "R, running minimum",
    "R_chance": "R above chance",
    "f0": "f(ε₀)",
    "A_last": "accuracy at the largest ε",
    "A_eps": "accuracy in the ball",
    "A_eps_fresh": "accuracy in the ball, fresh draws",
    "A_eps_drawn": "accuracy in the ball, one lucky draw",
    "A_eps_plain": "accuracy in the ball, plain attack",
    "C_last": "C at the largest ε",
    "critical_eps_median": "median critical ε",
    "average_certified_radius": "average certified radius",
    "certified_0_25": "certified at 0.25",
    "ece": "expected calibration error",
    "mean_confidence": "mean confidence",
    "mean_confidence_right": "mean confidence where right",
    "audit_verdict": "verdict (0 trustworthy, 1 suspect, 2 illusory)",
    "audit_flags": "flags of the audit",
    "ms_per_image": "time per image and draw",
    "noise_alpha": "strength of the noise (alpha)",
    "gradient_cosine": "cosine of gradients",
    "gradient_agreement": "agreeing signs of gradients",
    "gradient_cosine_T_0_01": "cosine of gradients, T = 0.01",
    "gradient_cosine_T_0_1": "cosine of gradients, T = 0.1",
    "gradient_cosine_T_0_67": "cosine of gradients, T = 0.67",
    "gradient_cosine_T_1": "cosine of gradients, T = 1",
    "training_loss": "training loss",
    "branch_clean": "trained on: clean",
    "branch_pgd": "trained on: PGD",
    "branch_fgsm": "trained on: FGSM",
    "branch_carlini_wagner": "trained on: C&W",
    "branch_noise": "trained on: noise",
    "overfitting_looks": "looks that found overfitting to one step",
    "overfitting_gap": "FGSM less PGD accuracy, last look",
    "critical_l2": "median critical L2",
    "critical_l2_published": "median critical L2, as published",
    "spectrum_alpha": "exponent of the spectrum",
    "spectrum_r2": "fit of the power law (r²)",
    "spectrum_alpha_weighted": "exponent, weights 1/n",
    "spectrum_alpha_least": "least exponent over ranges",
    "spectrum_alpha_greatest": "greatest exponent over ranges",
    "spectrum_alpha_halves": "exponent, held-out images",
    "spectrum_alpha_draws": "exponent, two draws",
    "spectrum_alpha_alive": "exponent without dead units",
    "fit_error": "error of fits to exact power laws",
    "recovery_gap": "exponent under noise, by repeats, less that without",
    "recovery_gap_plain": "exponent under noise, by plain PCA, less that without",
    "white_share": "share of white noise that repeats seem to have in common",
    "white_rank_gap": "ranks of white noise off their law",
    "dead_units": "dead units",
    "margin_gradient": "steepness of the margin",
    "jacobian_frobenius": "Frobenius norm of the Jacobian",
    "first_order_distance": "first-order distance",
    "lipschitz": "local Lipschitz bound",
    "jacobian_spectral": "spectral norm of the Jacobian",
    "zero_gradients": "gradients of 0",
    "local_complexity": "local complexity",
    "participation_ratio": "participation ratio",
    "effective_rank": "effective rank",
    "dimension_two_nn": "dimension (two neighbours)",
    "dimension_mle_3": "dimension (3 neighbours)",
    "dimension_mle_5": "dimension (5 neighbours)",
    "dimension_mle_10": "dimension (10 neighbours)",
    "dimension_mle_20": "dimension (20 neighbours)",
    "label_sharpness": "label sharpness",
    "label_sharpness_quantile": "label sharpness, nearest 1 %",
    "plane_share": "part of the plane of the same class",
    "converged_units": "converged units",
    "negative_units": "negative units",
    "robustness_gain": "gain in robustness",
    "robustness_gain_median": "gain of medians",
    "robustness_excluded": "left out: wrong from the start",
    "robustness_censored": "never fooled",
    "eeg_r": "prediction of EEG (r)",
    "eeg_r_100_ms": "prediction of EEG at 100 ms (r)",
    "eeg_r_occipital": "prediction of occipital EEG (r)",
    "eeg_r_parieto_occipital": "prediction of parieto-occipital EEG (r)",
    "eeg_r_lead": "occipital less parieto-occipital r",
    "eeg_peak_ms": "best prediction, ms after onset",
    "eeg_peak_occipital_ms": "best occipital prediction, ms after onset",
    "eeg_ceiling_lower": "noise ceiling of EEG, lower",
    "eeg_ceiling_upper": "noise ceiling of EEG, upper",
    "cotraining_cross_entropy": "co-training: cross-entropy",
    "cotraining_squared_error": "co-training: error of the EEG",
    "cotraining_gradient_classifier": "co-training: gradient of the classes",
    "cotraining_gradient_eeg": "co-training: gradient of the EEG",
    "cotraining_cosine": "co-training: cosine of both gradients",
    "similarity_it_human": "similarity to human IT",
    "similarity_it_human_p": "p of the similarity to human IT",
    "similarity_it_monkey": "similarity to monkey IT",
    "similarity_it_monkey_p": "p of the similarity to monkey IT",
    "similarity_it_ceiling_lower": "noise ceiling of human IT, lower",
    "similarity_it_ceiling_upper": "noise ceiling of human IT, upper",
    "similarity_eeg": "similarity to EEG",
    "similarity_eeg_p": "p of the largest similarity to EEG",
    "similarity_eeg_ceiling_lower": "noise ceiling of the similarity, lower",
    "similarity_eeg_ceiling_upper": "noise ceiling of the similarity, upper",
    "similarity_eeg_peak_ms": "most similar to EEG, ms after onset",
}
RELATIVE = ("R", "R_minimum", "R_chance", "R_8_255", "R_16_255", "C_last")  # measures that f(eps0) divides
WHOLE = ("R", "R_minimum", "R_chance")  # measures over all radii of an attack
FAR = 2.0  # published standard deviations beyond which a mean is flagged


def main_pair(content: Content) -> tuple[str, str] | None:
    """Return the attack and the measure that most claims are about; an examination only where no claim names another.

    Of what was not measured it is only where nothing was; None without claims about contrasts.
    """
    measured = {(m.attack, m.measure) for m in content.measurements}
    about = [claim for claim in content.study.claims if claim.contrasts]
    claims = [claim for claim in about if (claim.attack, claim.measure) in measured] or about
    examined = {*examination_plans(content), "learning"}  # neither is an attack
    attacked = [claim for claim in claims if claim.attack not in examined]
    named = Counter((claim.attack, claim.measure) for claim in attacked or claims)
    return named.most_common(1)[0][0] if named else None


def main_attack(content: Content) -> str:
    """Return the attack that most claims are about, or the first one measured."""
    pair = main_pair(content)
    return pair[0] if pair else next((point.attack for point in content.curves if point.attack), "")


def main_measure(content: Content) -> str:
    """Return the measure that most claims are about."""
    pair = main_pair(content)
    return pair[1] if pair else "R"


def name_of(measure: str) -> str:
    """Return a measure as a reader writes it."""
    return NAMES.get(measure, measure)


def heading_of(name: str) -> str:
    """Return a name as it begins a heading.

    >>> heading_of("accuracy at 8/255"), heading_of("R")
    ('Accuracy at 8/255', 'R')
    """
    return name[:1].upper() + name[1:]


def unit_of(content: Content, measure: str) -> str:
    """Return the unit of a measure, in words."""
    unit = next((m.unit for m in content.measurements if m.measure == measure), "")
    return {"": "no unit", "fraction": "fraction of the images"}.get(unit, unit)


def trial_of(content: Content, architecture: str, condition: str) -> Trial | None:
    """Return the trial of a cell, None where the study has none."""
    found = (t for t in content.study.trials if t.architecture == architecture and t.condition == condition)
    return next(found, None)


def cells(content: Content) -> list[tuple[str, str]]:
    """Return (architecture, condition) of every cell that was planned or measured, in the order of the study."""
    seen = {(t.architecture, t.condition) for t in content.study.trials}
    seen |= {(m.architecture, m.condition) for m in content.measurements}
    seen |= {(p.architecture, p.condition) for p in content.curves}
    if content.study.comparable:
        seen |= {(v.architecture, v.condition) for v in content.study.published}
    architectures = ordered(content.study.architectures, (architecture for architecture, _ in seen))
    conditions = ordered(content.study.conditions, (condition for _, condition in seen))
    return [(a, c) for a in architectures for c in conditions if (a, c) in seen]


def ordered(known: Iterable[str], present: Iterable[str]) -> list[str]:
    """Return ``known`` in its order, then what else is ``present``, sorted."""
    first = list(known)
    return first + sorted(set(present) - set(first))


def last_epoch(content: Content, architecture: str, condition: str) -> int | None:
    """Return the last epoch after which the networks of a cell are evaluated, None for a cell that is unknown."""
    trial = trial_of(content, architecture, condition)
    if trial is not None:
        return trial.epochs[-1]
    rows = (*content.measurements, *content.curves)
    return max(
        (row.epoch for row in rows if (row.architecture, row.condition) == (architecture, condition)), default=None
    )


def summary(values: list[float]) -> Row:
    """Return mean, standard deviation, smallest, largest and number of the finite ``values``.

    >>> summary([1.0, 3.0])
    {'mean': 2.0, 'sd': 1.4142135623730951, 'lowest': 1.0, 'highest': 3.0, 'n': 2}
    >>> summary([])
    {'mean': None, 'sd': None, 'lowest': None, 'highest': None, 'n': 0}
    """
    kept = [value for value in values if math.isfinite(value)]
    mean = math.fsum(kept) / len(kept) if kept else None
    squares = math.fsum((value - (mean or 0.0)) ** 2 for value in kept)
    return {
        "mean": mean,
        "sd": math.sqrt(squares / (len(kept) - 1)) if len(kept) > 1 else None,
        "lowest": min(kept, default=None),
        "highest": max(kept, default=None),
        "n": len(kept),
    }


def attack_plans(content: Content) -> dict[str, AttackPlan]:
    """Return each attack of the study by its label; trials that name one alike are taken to plan it alike."""
    return {label: plan for trial in content.study.trials for label, plan in trial.attacks.items()}


def examination_plans(content: Content) -> dict[str, ExaminationPlan]:
    """Return each examination of the study by its label; trials that name one alike are taken to plan it alike."""
    return {label: plan for trial in content.study.trials for label, plan in trial.examinations.items()}


def labels(content: Content) -> list[str]:
    """Return the labels of all attacks and examinations measured: first ``attacks``, then the examinations."""
    measured = {point.attack for point in content.curves} | {m.attack for m in content.measurements} - {""}
    examined = examination_plans(content)
    main = [label for label in (main_attack(content),) if label not in examined]
    listed = ordered([*main, *attack_plans(content)], measured - examined.keys())
    return [label for label in dict.fromkeys([*listed, *examined]) if label in measured]


def attacks(content: Content) -> list[str]:
    """Return the labels of all attacks measured, the main one first, then as the study lists them."""
    examined = examination_plans(content)
    return [label for label in labels(content) if label not in examined]


def norm_of(content: Content, label: str) -> str:
    """Return the norm in which the eps of an attack or an examination is measured; certificates are Euclidean."""
    attack, examination = attack_plans(content).get(label), examination_plans(content).get(label)
    spec = attack.attack if attack else examination.examination if examination else None
    named = spec.settings.get("norm") if spec else None
    return str(named or ("l2" if certifies(content, label) else "linf"))


def certifies(content: Content, label: str) -> bool:
    """Return whether what an examination found are certificates."""
    return any((m.attack, m.measure) == (label, "average_certified_radius") for m in content.measurements)


def origins(content: Content) -> dict[tuple[str, str, int, int, str], CurvePoint]:
    """Return the point of least eps of every (architecture, condition, seed, epoch, attack): f(eps0)."""
    least: dict[tuple[str, str, int, int, str], CurvePoint] = {}
    for point in content.curves:
        network = (point.architecture, point.condition, point.seed, point.epoch, point.attack)
        if network not in least or point.eps < least[network].eps:
            least[network] = point
    return least


def curve_rows(content: Content) -> list[Row]:
    """Return accuracy over eps per cell, epoch and attack: raw, and relative to the same network's at the least eps.

    Columns ``accuracy_*`` and ``relative_*`` (mean, sd, lowest, highest over seeds); ``n`` seeds; ``images`` each.
    """
    origin = origins(content)
    raw: defaultdict[tuple[str, str, int, str, float], list[float]] = defaultdict(list)
    relative: defaultdict[tuple[str, str, int, str, float], list[float]] = defaultdict(list)
    images: dict[tuple[str, str, int, str, float], int] = {}
    for point in content.curves:
        key = (point.architecture, point.condition, point.epoch, point.attack, point.eps)
        start = origin[(point.architecture, point.condition, point.seed, point.epoch, point.attack)].accuracy
        raw[key].append(point.accuracy)
        relative[key].append(point.accuracy / start if start > 0 else math.nan)
        images[key] = min(point.n, images.get(key, point.n))
    place = {cell: index for index, cell in enumerate(cells(content))}
    label = {name: index for index, name in enumerate(labels(content))}
    rows: list[Row] = []
    for key in sorted(raw, key=lambda k: (place[k[0], k[1]], k[2], label[k[3]], k[4])):
        row: Row = dict(zip(("architecture", "condition", "epoch", "attack", "eps"), key, strict=True))
        row["control"] = key[1] in content.study.controls
        for name, values in (("accuracy", raw[key]), ("relative", relative[key])):
            row |= {f"{name}_{part}": value for part, value in summary(values).items() if part != "n"}
        rows.append(row | {"n": len(raw[key]), "images": images[key]})
    return rows


def clean_accuracy(content: Content) -> dict[tuple[str, str, int, str], Row]:
    """Return f(eps0), the accuracy at the least eps, over seeds per (architecture, condition, epoch, attack).

    Of an examination without a curve it is its measure ``f0``. ``images`` is the number of test images.
    """
    values: defaultdict[tuple[str, str, int, str], list[float]] = defaultdict(list)
    images: dict[tuple[str, str, int, str], int] = {}
    for network, point in origins(content).items():
        key = (network[0], network[1], network[3], network[4])
        values[key].append(point.accuracy)
        images[key] = min(point.n, images.get(key, point.n))
    curved = set(values)
    for m in content.measurements:
        key = (m.architecture, m.condition, m.epoch, m.attack)
        if m.measure == "f0" and key not in curved:
            values[key].append(m.value)
            images[key] = min(m.n, images.get(key, m.n))
    return {key: {**summary(found), "images": images[key]} for key, found in values.items()}


def finite(value: float | None) -> float | None:
    """Return ``value``, None for what is not a finite number."""
    return value if value is not None and math.isfinite(value) else None


def summaries(content: Content) -> dict[tuple[str, str, int, str, str], Summary]:
    """Return every measure over seeds by (architecture, condition, epoch, attack, measure)."""
    return {
        (row.architecture, row.condition, row.epoch, row.attack, row.measure): row
        for row in summarise(content.measurements)
    }


def moments(row: Summary | None) -> Row:
    """Return mean, SD and n of a summary, None and 0 where there is none."""
    return {"mean": finite(row.mean), "sd": finite(row.sd), "n": row.n} if row else {"mean": None, "sd": None, "n": 0}


def published_values(content: Content) -> dict[tuple[str, str, int, str, str], PublishedValue]:
    """Return the published values by (architecture, condition, epoch, attack, measure); none if not comparable."""
    if not content.study.comparable:
        return {}
    return {(v.architecture, v.condition, v.epoch, v.attack, v.measure): v for v in content.study.published}


def robustness_rows(content: Content) -> list[Row]:
    """Return the paper's Tables 1-18: the main measure under the main attack, per cell and epoch.

    ``clean`` is f(eps0). Where the study is comparable the published mean and SD stand beside ours; ``deviation`` is
    (ours - published) / published SD and ``far`` marks more than two. A cell without results keeps its planned
    epochs with None; a cell that is neither planned nor measured has one row without an epoch.
    """
    attack, measure = main_attack(content), main_measure(content)
    values, published, clean = summaries(content), published_values(content), clean_accuracy(content)
    deviations = {
        (
            c.published.architecture,
            c.published.condition,
            c.published.epoch,
            c.published.attack,
            c.published.measure,
        ): c.deviation
        for c in compare(values.values(), tuple(published.values()))
    }
    rows: list[Row] = []
    for architecture, condition in cells(content):
        trial = trial_of(content, architecture, condition)
        epochs: set[int | None] = set(trial.epochs if trial else ())
        epochs |= {k[2] for k in values if k[:2] == (architecture, condition) and k[3:] == (attack, measure)}
        epochs |= {k[2] for k in published if k[:2] == (architecture, condition) and k[3:] == (attack, measure)}
        for epoch in sorted(e for e in epochs if e is not None):
            key = (architecture, condition, epoch, attack, measure)
            ours, theirs, start = values.get(key), published.get(key), clean.get(key[:4], {})
            deviation = finite(deviations.get(key))
            rows.append(
                {
                    "architecture": architecture,
                    "condition": condition,
                    "control": condition in content.study.controls,
                    "epoch": epoch,
                    "attack": attack,
                    "measure": measure,
                    **moments(ours),
                    "clean": start.get("mean"),
                    "clean_sd": start.get("sd"),
                    "images": start.get("images"),
                    "published_table": theirs.table if theirs else None,
                    "published_mean": theirs.mean if theirs else None,
                    "published_sd": theirs.sd if theirs else None,
                    "published_n": theirs.n if theirs else None,
                    "deviation": deviation,
                    "far": deviation is not None and abs(deviation) > FAR,
                }
            )
    return rows


def attack_rows(content: Content) -> list[Row]:
    """Return the main measure under every attack at each cell's last epoch, with the attack's norm and reach."""
    measure, values, clean = main_measure(content), summaries(content), clean_accuracy(content)
    plans = attack_plans(content)
    rows: list[Row] = []
    for architecture, condition in cells(content):
        epoch = last_epoch(content, architecture, condition)
        if epoch is None:
            continue
        for attack in attacks(content):
            ours = values.get((architecture, condition, epoch, attack, measure))
            plan, start = plans.get(attack), clean.get((architecture, condition, epoch, attack), {})
            rows.append(
                {
                    "architecture": architecture,
                    "condition": condition,
                    "control": condition in content.study.controls,
                    "epoch": epoch,
                    "attack": attack,
                    "norm": norm_of(content, attack),
                    "largest_eps": (plan.grid or plan.eps)[-1] if plan else None,
                    "measure": measure,
                    **moments(ours),
                    "clean": start.get("mean"),
                    "images": start.get("images"),
                }
            )
    return rows


def seed_rows(content: Content) -> list[Row]:
    """Return the main measure of every single network at its last epoch under the main attack."""
    attack, measure = main_attack(content), main_measure(content)
    last = {cell: last_epoch(content, *cell) for cell in cells(content)}
    place = {cell: index for index, cell in enumerate(last)}
    wanted = [
        m
        for m in content.measurements
        if (m.attack, m.measure) == (attack, measure) and m.epoch == last[m.architecture, m.condition]
    ]
    return [
        {
            "architecture": m.architecture,
            "condition": m.condition,
            "control": m.condition in content.study.controls,
            "seed": m.seed,
            "epoch": m.epoch,
            "value": m.value,
        }
        for m in sorted(wanted, key=lambda m: (place[m.architecture, m.condition], m.seed))
    ]


def measure_rows(content: Content) -> list[Row]:
    """Return every measure under every attack at each cell's last epoch: mean, SD, range, n, unit, direction."""
    label = {name: index for index, name in enumerate(["", *labels(content)])}
    order = {measure: index for index, measure in enumerate(NAMES)}
    place = {cell: index for index, cell in enumerate(cells(content))}
    last = {cell: last_epoch(content, *cell) for cell in place}
    found = [row for row in summaries(content).values() if row.epoch == last[row.architecture, row.condition]]
    return [
        {
            "architecture": row.architecture,
            "condition": row.condition,
            "epoch": row.epoch,
            "attack": row.attack,
            "measure": row.measure,
            **moments(row),
            "unit": row.unit,
            "better": row.better,
        }
        for row in sorted(
            found,
            key=lambda row: (
                place[row.architecture, row.condition],
                label[row.attack],
                order.get(row.measure, len(order)),
            ),
        )
    ]
