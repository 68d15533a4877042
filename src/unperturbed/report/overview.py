"""What is left: one row per condition, one column per attack and examination, and the worst of them all.

Where a study puts the same networks to many attacks, what survives all of them says what a defence is worth. The column
``worst`` is the share of images that a network gets right after every attack within 8/255 in the L-infinity ball, taken
image by image, then the mean over seeds. Attacks may have been given different numbers of images, always the first ones
of the test set: it is about those that all of them had. It is at most the least accuracy on these images, and below it
where attacks break different ones.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

import numpy as np
from scipy import stats

from unperturbed.records import Measurement, PublishedValue
from unperturbed.report import tables
from unperturbed.report.content import Content, Survivors
from unperturbed.report.numbers import MISSING, decimals, percent, radius, whole
from unperturbed.report.views import Column, Line, Text, View, texts
from unperturbed.statistics import wilson

EIGHT = 8 / 255
SAME = 1e-6  # radii that differ by less are the same
FEW = 3  # attacks and examinations that need no overview
UNCONFINED = "gaussian_noise"  # its eps is a scale and not the radius of a ball
CONFIDENCE = 0.95
ACCURACIES = ("A_8_255", "A_last", "A_eps")
HEADLINES = ("A_eps", "average_certified_radius", "audit_verdict", "ece", "ms_per_image")  # of an examination
SHORT = {
    "average_certified_radius": "average certified radius",
    "audit_verdict": "verdict",
    "ece": "calibration error",
    "ms_per_image": "ms per image and pass",
}
VERDICTS = ("trustworthy", "suspect", "illusory")

Values = dict[int, float]  # by seed


class Asked(NamedTuple):
    """One column: a measure under a label; ``kind`` is clean, attack, examination or worst."""

    kind: str
    label: str
    measure: str
    norm: str = ""
    eps: float | None = None


def asked(content: Content) -> list[Asked]:
    """Return the columns of attacks and examinations, in the order of the study."""
    measured = {(m.attack, m.measure) for m in at_the_end(content)}
    attacks, examinations = tables.attack_plans(content), tables.examination_plans(content)
    known = tables.attacks(content)
    printed_last = {value.attack for value in content.study.published if value.measure == "A_last"}
    columns: list[Asked] = []
    for label in [*(label for label in attacks if label in known), *(label for label in known if label not in attacks)]:
        norm = tables.norm_of(content, label)
        if norm == "linf" and (label, "A_8_255") in measured:
            columns.append(Asked("attack", label, "A_8_255", norm, EIGHT))
        at_the_largest = columns[-1:] != [Asked("attack", label, "A_8_255", norm, EIGHT)] or label in printed_last
        if at_the_largest and (label, "A_last") in measured:
            last = attacks[label].eps[-1] if label in attacks else None
            columns.append(Asked("attack", label, "A_last", norm, last))
    for label, plan in examinations.items():
        norm, eps = tables.norm_of(content, label), plan.examination.settings.get("eps")
        within = float(eps) if isinstance(eps, int | float) else None
        columns += [
            Asked("examination", label, measure, norm, within if measure == "A_eps" else None)
            for measure in HEADLINES
            if (label, measure) in measured
        ]
    return columns


def worth_showing(content: Content) -> bool:
    """Return whether the study puts networks to more than a few things, and asks how much accuracy is left.

    A study whose claims are about R alone, and which examines nothing, says what it has to say in its own tables.
    """
    labels = {column.label for column in asked(content)}
    about = any(claim.measure in ACCURACIES for claim in content.study.claims)
    return len(labels) > FEW and (about or bool(tables.examination_plans(content)))


def at_the_end(content: Content) -> list[Measurement]:
    """Return what was measured of the networks after the last epoch of their cell."""
    last = {cell: tables.last_epoch(content, *cell) for cell in tables.cells(content)}
    return [m for m in content.measurements if m.epoch == last.get((m.architecture, m.condition))]


def within_eight(column: Asked) -> bool:
    """Return whether a column is an accuracy in the L-infinity ball of radius 8/255."""
    return (
        column.measure in ACCURACIES
        and column.norm == "linf"
        and column.eps is not None
        and abs(column.eps - EIGHT) < SAME
    )


def deciding(content: Content) -> list[Asked]:
    """Return the columns that the worst one is made of; none where there is no overview."""
    if not worth_showing(content):
        return []
    plans = tables.attack_plans(content)
    return [
        column
        for column in asked(content)
        if within_eight(column) and not (column.label in plans and plans[column.label].attack.name == UNCONFINED)
    ]


def overview_rows(content: Content) -> list[tables.Row]:
    """Return one row per cell and column at the last epoch; none where there is nothing to compare.

    ``low`` and ``high`` are the 95 % interval of the mean over seeds (Student's t; of a fraction, cut at 0 and 1), or
    where one seed has an accuracy, Wilson's over its images;
    ``worst`` is the worst value of a seed and ``worst_seeds`` how many have it; ``decided_by`` are the labels that
    leave the fewest images of a network, the most frequent first. ``published_mean`` is the printed value of the same
    cell, label and measure, of the same epoch or else of the last one printed, whether or not the study is comparable.
    """
    if not worth_showing(content):
        return []
    columns = asked(content)
    values: defaultdict[tuple[str, str, str, str], Values] = defaultdict(dict)
    found: dict[tuple[str, str, str, str], Measurement] = {}
    images: dict[tuple[str, str, str, str], int] = {}
    for m in at_the_end(content):
        key = (m.architecture, m.condition, m.attack, m.measure)
        values[key][m.seed] = m.value
        found[key] = m
        images[key] = min(m.n, images.get(key, m.n))
    worst = deciding(content)
    rows: list[tables.Row] = []
    for cell in tables.cells(content):
        start = Asked("clean", start_of(content, cell, images), "f0")
        for column in [start, *columns]:
            key = (*cell, column.label, column.measure)
            some = found.get(key)
            unit, better = (some.unit, some.better) if some else ("", "")
            rows.append(
                over_images(
                    described(content, cell, column)
                    | {"unit": unit, "better": better, "decided_by": ""}
                    | spread(values.get(key, {}).values(), unit=unit, better=better)
                    | {"images": images.get(key)}
                    | printed(content, cell, column)
                )
            )
        if len(worst) > 1:
            # Beside the clean accuracy: what matters is in sight.
            rows.insert(len(rows) - len(columns), least(content, cell, [column.label for column in worst]))
    return rows


def start_of(content: Content, cell: tuple[str, str], images: dict[tuple[str, str, str, str], int]) -> str:
    """Return the label whose clean accuracy is of the most images, an attack's before an examination's."""
    attacks = tables.attacks(content)
    return max(
        (label for label in tables.labels(content) if (*cell, label, "f0") in images),
        key=lambda label: (label in attacks, images[*cell, label, "f0"]),
        default="",
    )


def described(content: Content, cell: tuple[str, str], column: Asked) -> tables.Row:
    """Return what a row is about."""
    return {
        "architecture": cell[0],
        "condition": cell[1],
        "control": cell[1] in content.study.controls,
        "epoch": tables.last_epoch(content, *cell),
        "kind": column.kind,
        "label": column.label,
        "measure": column.measure,
        "norm": column.norm,
        "eps": column.eps,
    }


def least(content: Content, cell: tuple[str, str], labels: list[str]) -> tables.Row:
    """Return the row of what survives everything within 8/255: of each seed image by image, then over seeds.

    Labels that only some seeds have are left out, or the seeds would stand for unlike things.
    """
    by_label: defaultdict[str, dict[int, Survivors]] = defaultdict(dict)
    for found in content.survivors:
        if (found.architecture, found.condition) == cell and found.label in labels:
            by_label[found.label][found.seed] = found
    seeds = sorted({seed for own in by_label.values() for seed in own})
    everywhere = {label: own for label, own in by_label.items() if len(own) == len(seeds)}
    shared = min((len(each.images) for own in everywhere.values() for each in own.values()), default=None)
    left: list[float] = []
    decided: Counter[str] = Counter()
    for seed in seeds if everywhere else ():
        standing = {label: own[seed].images[:shared] for label, own in everywhere.items()}
        left.append(float(np.logical_and.reduce(list(standing.values())).mean()))
        fewest = min(int(images.sum()) for images in standing.values())
        decided.update(label for label, images in standing.items() if images.sum() == fewest)
    return over_images(
        described(content, cell, Asked("worst", "", "A_8_255", "linf", EIGHT))
        | {"unit": "fraction", "better": "higher"}
        | {"decided_by": ", ".join(label for label, _ in decided.most_common())}
        | spread(left, unit="fraction", better="higher")
        | {"images": shared}
        | printed(content, cell, Asked("worst", "worst", "A_8_255"))
    )


def over_images(row: tables.Row) -> tables.Row:
    """Return the row of an accuracy that one seed has with Wilson's interval over its images, any other as it is."""
    if row["n"] != 1 or row["mean"] is None or not row["images"] or row["measure"] not in ("f0", *ACCURACIES):
        return row
    low, high = wilson(row["mean"], row["images"], confidence=CONFIDENCE)
    return row | {"low": low, "high": high}


def spread(values: Iterable[float], *, unit: str, better: str) -> tables.Row:
    """Return mean, SD, interval and n over seeds, and the worst of them; a value that is not finite leaves no mean."""
    kept = list(values)
    row = tables.summary(kept)
    if row["n"] < len(kept):
        return dict.fromkeys(("mean", "sd", "low", "high")) | {
            "n": len(kept),
            "worst": None,
            "worst_seeds": 0,
        }
    low, high = t_interval(row["mean"], row["sd"], row["n"])
    if unit == "fraction" and low is not None and high is not None:
        low, high = max(low, 0.0), min(high, 1.0)
    bad = row["lowest"] if better == "higher" else row["highest"]
    return {
        "mean": row["mean"],
        "sd": row["sd"],
        "low": low,
        "high": high,
        "n": row["n"],
        "worst": bad,
        "worst_seeds": sum(value == bad for value in kept),
    }


def t_interval(mean: float | None, sd: float | None, n: int) -> tuple[float | None, float | None]:
    """Return Student's 95 % interval of a mean; none for one seed.

    >>> [round(end, 3) for end in t_interval(0.5, 0.1, 4)]
    [0.341, 0.659]
    """
    if mean is None or sd is None:
        return None, None
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
    return mean - reach, mean + reach


def printed(content: Content, cell: tuple[str, str], column: Asked) -> tables.Row:
    """Return the published value for a cell of the table; of clean accuracy, under whatever label it is printed."""
    own = [
        value
        for value in content.study.published
        if (value.architecture, value.condition, value.measure) == (*cell, column.measure)
        and (column.kind == "clean" or value.attack == column.label)
    ]
    epoch = tables.last_epoch(content, *cell)

    def rank(value: PublishedValue) -> tuple[bool, bool, int]:
        return value.attack == column.label, value.epoch == epoch, value.epoch

    theirs = max(own, key=rank, default=None)
    return {
        "published_mean": tables.finite(theirs.mean) if theirs else None,
        "published_sd": tables.finite(theirs.sd) if theirs else None,
        "published_epoch": theirs.epoch if theirs else None,
        "published_table": theirs.table if theirs else None,
    }


def overview_view(rows: list[tables.Row], *, seeds: int) -> View | None:
    """Return the table as text, None without rows; ``seeds`` is how many the study has."""
    if not rows:
        return None
    heads = list(dict.fromkeys(identity(row) for row in rows))
    columns = (Column("condition", "whole"), *(head(rows, who) for who in heads))
    lines: list[Line] = []
    for architecture, of_one in groupby(rows, key=lambda row: row["architecture"]):
        lines.append(Line(texts(architecture), kind="group"))
        for condition, own in groupby(of_one, key=lambda row: row["condition"]):
            cells = {identity(row): row for row in own}
            control = any(row["control"] for row in cells.values())
            name = Text(condition, below=("control",) if control else ())
            written = (cell_of(cells[who], seeds) if who in cells else Text(MISSING) for who in heads)
            lines.append(Line((name, *written)))
    return View(columns, lines)


def identity(row: tables.Row) -> tuple[str, str, str]:
    """Return the column that a row belongs to; clean accuracy is one column, whichever label it comes from."""
    return row["kind"], "" if row["kind"] == "clean" else row["label"], row["measure"]


def head(rows: list[tables.Row], who: tuple[str, str, str]) -> Column:
    """Return the heading of a column: its label, what is measured, and on how many images."""
    own = [row for row in rows if identity(row) == who]
    kind, label, measure = who
    some, images = own[0], sorted({row["images"] for row in own if row["images"]})
    below = [SHORT.get(measure, "")]
    if kind == "worst":
        below = [f"all at {radius(EIGHT)}, image by image"]
    elif some["eps"] is not None:
        below = [f"ε = {radius(some['eps'])}" + ("" if some["norm"] == "linf" else f", {some['norm']}")]
    counts = " to ".join(whole(count) for count in dict.fromkeys((images[0], images[-1]))) if images else ""
    below += [f"{counts} images"] if counts and measure != "ms_per_image" else []
    title = label if label else {"clean": "clean", "worst": "worst"}[kind]
    return Column(title, "number", tuple(filter(None, below)))


def cell_of(row: tables.Row, seeds: int) -> Text:
    """Return one cell: the mean, and below it SD, interval, number of seeds where some lack it, and what is published.

    A verdict is the worst of the seeds, in words.
    """
    if row["measure"] == "audit_verdict":
        return verdict(row)
    if row["mean"] is None:
        return Text(MISSING, below=published(row))
    below: list[str] = []
    if row["sd"] is not None:
        below.append(f"± {number(row['sd'], row)}")
    if row["low"] is not None:
        below.append(f"[{number(row['low'], row)}, {number(row['high'], row)}]")
    if row["n"] < seeds:
        below.append(f"n = {row['n']}")
    if row["decided_by"]:
        first, *others = row["decided_by"].split(", ")
        below.append(f"by {first}" + (f" and {len(others)} more" if others else ""))
    return Text(
        number(row["mean"], row), below=(*below, *published(row)), kind="least" if row["kind"] == "worst" else ""
    )


def verdict(row: tables.Row) -> Text:
    """Return the worst verdict over seeds in words, and how many seeds have it."""
    code = row["worst"]
    if code is None or round(code) not in range(len(VERDICTS)):
        return Text(MISSING)
    word = VERDICTS[round(code)]
    many = (f"{row['worst_seeds']} of {row['n']} seeds",) if row["n"] > 1 else ()
    return Text(word, badge=word, below=many)


def published(row: tables.Row) -> tuple[str, ...]:
    """Return the line with the published value, if there is one."""
    mean = row["published_mean"]
    if mean is None:
        return ()
    unit = row["unit"] or ("fraction" if row["measure"] in ("f0", *ACCURACIES) else "")
    return (f"published {number(mean, row | {'unit': unit})}",)


def number(value: float | None, row: tables.Row) -> str:
    """Return a number of the table: fractions of images as percentages, times with two decimals, others with three."""
    if row["unit"] == "fraction":
        return percent(value)
    return decimals(value, 2 if row["measure"] == "ms_per_image" else 3)


def overview_note(content: Content, rows: list[tables.Row]) -> str:
    """Return what the numbers of the table are."""
    seeds = len(content.study.seeds)
    text = (
        f"Accuracy after each attack at the last epoch: mean over {seeds} seed{'' if seeds == 1 else 's'}"
        f"{', ± SD, and the 95% interval of the mean (t) in brackets' if seeds > 1 else ''}. Columns name the "
        "attack or examination, the radius and the number of test images; an attack without 8/255 stands with its "
        "largest ε."
    )
    votes = max((plan.votes for trial in content.study.trials for plan in trial.attacks.values()), default=1)
    if votes > 1:
        text += f" Of a random network the majority of {votes} draws decides about an image, clean and attacked."
    if any(row["n"] == 1 and row["low"] is not None for row in rows):
        text += (
            " Where one seed has an accuracy, the interval is over its images (Wilson) and says nothing of other seeds."
        )
    if any(row["kind"] == "worst" for row in rows):
        text += (
            " Worst: the share of images that a network gets right after every attack and examination at 8/255 in the "
            "L∞ ball that all its seeds have, image by image, then the mean over seeds; over the first test images, as "
            "many as all of these were given."
        )
        if votes > 1:
            text += (
                " Of a random network each of them decides with draws of its own, so that images near even chances are "
                "lost to chance, too; its AutoAttack is no part of it, which counts an image as broken by one draw."
            )
    if any(row["measure"] == "audit_verdict" for row in rows):
        text += " Verdict: that of the audit for the seed where it is worst."
    if any(row["published_mean"] is not None for row in rows):
        text += " Published: as printed in the source for that condition, attack and measure"
        text += (
            ", with the published recipe, data and epochs, as ours."
            if content.study.comparable
            else "; recipe, data or epochs are not ours, so the two are not comparable in size."
        )
    return text
