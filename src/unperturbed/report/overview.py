"""What is left: one row per condition, one column per attack and examination, and the worst of them all.

Where a study puts the same networks to many attacks, the least accuracy says what a defence is worth. The column
``worst`` is that minimum for each network, then the mean over seeds. It is a minimum of accuracies and not one taken
image by image (which is lower or equal), because attacks may have been given different numbers of images.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

from scipy import stats

from unperturbed.records import Measurement, PublishedValue
from unperturbed.report import tables
from unperturbed.report.content import Content
from unperturbed.report.numbers import MISSING, decimals, percent, radius, whole
from unperturbed.report.views import Column, Line, Text, View, texts

EIGHT = 8 / 255
SAME = 1e-6  # radii that differ by less are the same
FEW = 3  # attacks and examinations that need no overview
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


def overview_rows(content: Content) -> list[tables.Row]:
    """Return one row per cell and column at the last epoch; none where there is nothing to compare.

    ``low`` and ``high`` are the 95 % interval of the mean over seeds (Student's t; of a fraction, cut at 0 and 1);
    ``worst`` is the worst value of a seed and ``worst_seeds`` how many have it; ``decided_by`` are the labels that were
    the worst of a network, the most frequent first. ``published_mean`` is the printed value of the same cell, label
    and measure, of the same epoch or else of the last one printed, whether or not the study is comparable.
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
    worst = [column for column in columns if within_eight(column)]
    rows: list[tables.Row] = []
    for cell in tables.cells(content):
        start = Asked("clean", start_of(content, cell, images), "f0")
        for column in [start, *columns]:
            key = (*cell, column.label, column.measure)
            some = found.get(key)
            rows.append(
                described(content, cell, column)
                | {"unit": some.unit if some else "", "better": some.better if some else "", "decided_by": ""}
                | spread(values.get(key, {}).values(), some)
                | {"images": images.get(key)}
                | printed(content, cell, column)
            )
        if len(worst) > 1:
            own = [(*cell, column.label, column.measure) for column in worst]
            least_of_all = least(content, cell, [key for key in own if key in found], values, found, images)
            rows.insert(len(rows) - len(columns), least_of_all)  # beside the clean accuracy: what matters is in sight
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


def least(
    content: Content,
    cell: tuple[str, str],
    keys: list[tuple[str, str, str, str]],
    values: dict[tuple[str, str, str, str], Values],
    found: dict[tuple[str, str, str, str], Measurement],
    images: dict[tuple[str, str, str, str], int],
) -> tables.Row:
    """Return the row of the smallest accuracy within 8/255: of each seed, then over seeds."""
    by_seed: Values = {}
    deciding: Counter[str] = Counter()
    seeds = sorted({seed for key in keys for seed in values[key]})
    keys = [key for key in keys if len(values[key]) == len(seeds)]  # or the seeds' minima were over unlike things
    for seed in seeds:
        had = [(values[key][seed], key[2]) for key in keys if math.isfinite(values[key].get(seed, math.nan))]
        if had:
            by_seed[seed] = min(had)[0]
            deciding.update(label for value, label in had if value == by_seed[seed])
    return (
        described(content, cell, Asked("worst", "", "A_8_255", "linf", EIGHT))
        | {"unit": "fraction", "better": "higher"}
        | {"decided_by": ", ".join(label for label, _ in deciding.most_common())}
        | spread(by_seed.values(), found[keys[0]] if keys else None)
        | {"images": min((images[key] for key in keys), default=None)}
        | printed(content, cell, Asked("worst", "worst", "A_8_255"))
    )


def spread(values: Iterable[float], some: Measurement | None) -> tables.Row:
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
    if some and some.unit == "fraction" and low is not None and high is not None:
        low, high = max(low, 0.0), min(high, 1.0)
    bad = row["lowest"] if some and some.better == "higher" else row["highest"]
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
        below = [f"of all at {radius(EIGHT)}"]
    elif some["eps"] is not None:
        below = [f"ε = {radius(some['eps'])}" + ("" if some["norm"] == "linf" else f", {some['norm']}")]
    counts = " to ".join(whole(count) for count in dict.fromkeys((images[0], images[-1]))) if images else ""
    below += [f"{counts} images"] if counts and kind != "worst" and measure != "ms_per_image" else []
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
        below += [f"± {number(row['sd'], row)}", f"[{number(row['low'], row)}, {number(row['high'], row)}]"]
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
    if any(row["kind"] == "worst" for row in rows):
        text += (
            " Worst: for each network the smallest accuracy at 8/255 in the L∞ ball over all columns of that "
            "radius that all seeds have, then the mean over seeds; columns with few images are coarse, and pull it "
            "down by chance."
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
