r"""How certain networks are, and whether they may be: histograms of class probabilities and reliability diagrams.

Sources: Guo et al. (2017), arXiv:1706.04599, section 2: images are sorted by their largest class probability into M
equal intervals :math:`((m - 1) / M, m / M]`; of each, accuracy is drawn over mean confidence, and
:math:`\mathrm{ECE} = \sum_m (|B_m| / n) |\mathrm{acc}(B_m) - \mathrm{conf}(B_m)|` (equation 3).
The histograms are of the probabilities of all classes, for all images and for those classified correctly.
"""

from __future__ import annotations

import math
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from unperturbed.measures.calibration import BINS, bin_of, predicted
from unperturbed.report import tables
from unperturbed.report.content import Bin, Confidence, Content, Drawn
from unperturbed.report.drawing import GOLD, INK, Figure, across, configured, grid, palette, slim
from unperturbed.report.numbers import percent

INTERVALS = 20  # of the histograms
SETS = {"every": "all images", "correct": "correctly classified"}
COLOURS = ("#3b82c4", "#2a9d8f")
PANELS = 4  # conditions side by side


def counted(
    probabilities: NDArray[Any], labels: NDArray[Any]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[Bin, ...]]:
    """Return ``every``, ``correct`` and ``bins`` of a ``Confidence``.

    Args:
        probabilities: (images, classes), in [0, 1].
        labels: the true class of each image, (images,).
    """
    values = np.clip(np.asarray(probabilities, dtype=np.float64), 0, 1)
    top, right = predicted(values, labels)
    place = bin_of(top)
    bins: list[Bin] = []
    for number in range(BINS):
        inside = place == number
        count = int(inside.sum())
        bins.append(Bin(float(top[inside].mean()), float(right[inside].mean()), count) if count else Bin(None, None, 0))
    return histogram(values), histogram(values[right]), tuple(bins)


def histogram(values: NDArray[np.float64]) -> tuple[int, ...]:
    """Return how many of ``values`` lie in each of the equal intervals of [0, 1]."""
    return tuple(int(count) for count in np.histogram(values, bins=INTERVALS, range=(0, 1))[0])


def calibration_error(bins: tuple[Bin, ...]) -> float | None:
    """Return the expected calibration error, None without images."""
    images = sum(found.images for found in bins)
    gaps = [
        found.images * abs(found.accuracy - found.confidence)
        for found in bins
        if found.accuracy is not None and found.confidence is not None
    ]
    return math.fsum(gaps) / images if images else None


def described(content: Content, found: Confidence | Drawn) -> tables.Row:
    """Return which network a row is about."""
    return {
        "architecture": found.architecture,
        "condition": found.condition,
        "control": found.condition in content.study.controls,
        "label": found.label,
        "seed": found.seed,
        "epoch": found.epoch,
    }


def confidence_rows(content: Content) -> list[tables.Row]:
    """Return the histograms: one row per network, set of images and interval, with count and share of the set."""
    return [
        described(content, found)
        | {
            "images": words,
            "low": number / INTERVALS,
            "high": (number + 1) / INTERVALS,
            "count": count,
            "share": count / sum(counts) if sum(counts) else None,
        }
        for found in content.confidences
        for counts, words in ((found.every, SETS["every"]), (found.correct, SETS["correct"]))
        for number, count in enumerate(counts)
    ]


def reliability_rows(content: Content) -> list[tables.Row]:
    """Return the reliability diagrams: one row per network and bin, with the calibration error of the network."""
    return [
        described(content, found)
        | {
            "low": number / BINS,
            "high": (number + 1) / BINS,
            "confidence": of_bin.confidence,
            "accuracy": of_bin.accuracy,
            "count": of_bin.images,
            "ece": calibration_error(found.bins),
        }
        for found in content.confidences
        for number, of_bin in enumerate(found.bins)
    ]


def histograms(content: Content) -> alt.TopLevelMixin | None:
    """Draw the shares of class probabilities: for each condition all images above the correctly classified ones."""
    rows = confidence_rows(content)
    if not rows:
        return None
    data = alt.Data(values=slim(rows, "architecture", "condition", "images", "low", "high", "share"))
    highest = max(row["share"] or 0 for row in rows)
    bars = (
        alt.Chart()
        .mark_bar(binSpacing=0.5)
        .encode(
            x=alt.X("low:Q", title="probability of a class (no unit)", bin="binned",  # pyright: ignore[reportArgumentType]
                    scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(values=[0, 0.5, 1], grid=False)),
            x2=alt.X2("high:Q"),
            y=alt.Y("share:Q", title="share (√)", scale=alt.Scale(type="sqrt", domain=[0, highest]),
                    axis=alt.Axis(format="%", values=[0, 0.1, 0.5, 1], labelOverlap=False)),
            color=alt.Color("images:N", title=None, scale=palette(SETS.values(), COLOURS)),
        )
    )  # fmt: skip
    strips: list[alt.FacetChart] = []
    architectures, conditions = across(content, rows)
    for architecture in architectures:
        own = [c for c in conditions if any((r["architecture"], r["condition"]) == (architecture, c) for r in rows)]
        for start in range(0, len(own), PANELS):
            chosen = own[start : start + PANELS]
            strips.append(
                alt.layer(bars, data=data)
                .properties(width=175, height=80)
                .transform_filter(alt.FieldEqualPredicate(field="architecture", equal=architecture))
                .transform_filter(alt.FieldOneOfPredicate(field="condition", oneOf=chosen))
                .facet(
                    row=alt.Row("images:N", sort=list(SETS.values()), title=None, header=alt.Header(labels=False)),
                    column=alt.Column("condition:N", sort=chosen, title=None),
                )
            )
            if len(architectures) > 1:
                strips[-1] = strips[-1].properties(title=architecture)
    return alt.vconcat(*strips)


def reliability(content: Content) -> alt.TopLevelMixin | None:
    """Draw accuracy over confidence, a panel per cell, with the diagonal of a calibrated network."""
    rows = reliability_rows(content)
    if not rows:
        return None
    written: set[tuple[str, str]] = set()
    for row in rows:
        cell = (row["architecture"], row["condition"])
        row["text"] = None if cell in written or row["ece"] is None else f"ECE {percent(row['ece'])}"
        row["from"], row["to"] = (None, None) if cell in written else (0.0, 1.0)
        written.add(cell)
    rows = slim(rows, "architecture", "condition", "confidence", "accuracy", "count", "text", "from", "to")
    ticks, whole = [0, 0.25, 0.5, 0.75, 1], alt.Scale(domain=[0, 1.08], nice=False)  # room for points at 1
    x = alt.X("confidence:Q", title="confidence (largest probability)", scale=whole,
              axis=alt.Axis(values=ticks[::2], grid=False))  # fmt: skip
    y = alt.Y("accuracy:Q", title="accuracy", scale=whole, axis=alt.Axis(values=ticks, format="%"))
    chart, bins = alt.Chart(), "isValid(datum.accuracy)"
    layers = [
        chart.mark_rule(color=GOLD, strokeWidth=1.2)
        .transform_filter("isValid(datum.to)")
        .encode(x=alt.X("from:Q"), y=alt.Y("from:Q"), x2="to:Q", y2="to:Q"),
        chart.mark_line(strokeWidth=1.2, color=COLOURS[0]).transform_filter(bins).encode(x=x, y=y),
        chart.mark_circle(opacity=0.85, color=COLOURS[0])
        .transform_filter(bins)
        .encode(x=x, y=y, size=alt.Size("count:Q", title="images", scale=alt.Scale(range=[8, 160]))),
        chart.mark_text(align="right", baseline="bottom", color=INK, fontSize=11, dx=-5, dy=-4)
        .transform_filter("isValid(datum.text)")
        .encode(text="text:N", x=alt.value("width"), y=alt.value("height")),
    ]
    return grid(content, rows, layers)


def confidence_figures(content: Content) -> list[Figure]:
    """Return the figures of calibration, none where it was not examined."""
    seeds = sorted({found.seed for found in content.confidences})
    whose = f"first seed of each cell (seed {', '.join(map(str, seeds))})" if seeds else ""
    drawn = (
        (
            "confidence",
            "How certain the networks are",
            "Probabilities of all classes, for all images (above) and for those classified correctly (below), "
            f"{whose}. Shares are on a square-root scale. A network that is certain has its mass at 0 and at 1.",
            ("confidence",),
            histograms,
        ),
        (
            "reliability",
            "How certain they may be",
            "Accuracy over mean confidence of the images whose largest class probability lies in one of "
            f"{BINS} equal intervals, {whose}; the size of a point is its number of images. On the gold line a network "
            "is right as often as it says. ECE: expected calibration error, the mean distance from that line.",
            ("reliability",),
            reliability,
        ),
    )
    figures: list[Figure] = []
    for name, title, caption, sources, make in drawn:
        chart = make(content)
        if chart is not None:
            figures.append(Figure(name, title, caption, sources, configured(chart)))
    return figures
