"""What is predicted of the EEG, by channel and time: how well, and where that goes with the gain in robustness.

The maps of correlations are those of :mod:`unperturbed.statistics.correlation_maps`, over the last networks of all
conditions that were examined for both; and over those alone that were trained on responses which say nothing of the
image before them (shuffled, random phases, noise), since a correlation that they have too says nothing of the brain.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from unperturbed.records import Measurement, Study
from unperturbed.report import tables
from unperturbed.report.confidence import described
from unperturbed.report.content import Content, Drawn, GainMap
from unperturbed.report.drawing import INK, LEVEL, WIDTH, Figure, configured
from unperturbed.report.numbers import RHO, interval, signed
from unperturbed.report.scalp import POSITIONS, heads
from unperturbed.report.views import Column, Line, View, texts
from unperturbed.statistics import cluster_bootstrap, correlation_map, group_difference, spearman
from unperturbed.statistics.rank_correlation import FEWEST, seeds_match
from unperturbed.statistics.subjects import Subjects, crossing, subjects_of

PREDICTION, GAIN = "eeg-prediction", "robustness-gain"  # examinations
OCCIPITAL = ("O1", "Oz", "O2")
PARIETO_OCCIPITAL = ("PO7", "PO3", "POz", "PO4", "PO8")
PUBLISHED = 0.1  # seconds after onset at which the source correlates r with the gain
CEILINGS = {"lower_ceiling": "lower noise ceiling", "upper_ceiling": "upper noise ceiling"}
MOMENTS = (0.05, 0.1, 0.15, 0.2, 0.3)  # seconds, of the scalps
DRAWN = 50  # times along a map, evenly spread
SHOWN = f"At most {DRAWN} times are drawn."
ACROSS = 3  # maps side by side
SAY_NOTHING = ("shuffled", "phase-randomised", "gaussian", "white")  # responses, of the image or its class
UNRELATED = "unrelated EEG"

Place = tuple[str, str, int]  # architecture, condition, seed


def gain_rows(content: Content) -> list[tables.Row]:
    """Return the gain of each last network over that of its seed beside it, with what resampling its images says.

    ``low`` and ``high`` are the 95 % percentile bootstrap of one network over pairs of images, ``images`` their number;
    how much networks differ is in their spread.
    """
    values = {m[:5]: m.value for m in content.measurements if m.measure == "robustness_gain"}
    return [
        described(content, found)
        | {
            "gain": values.get((found.architecture, found.condition, found.seed, found.epoch, found.label)),
            "low": tables.finite(float(found.arrays["interval"][0])),
            "high": tables.finite(float(found.arrays["interval"][1])),
            "images": len(found.arrays["images"]),
        }
        for found in content.gains
    ]


def gains_view(content: Content) -> View | None:
    """Return the same as text, None without a gain."""
    rows = gain_rows(content)
    if not rows:
        return None
    heads = (Column("condition", "whole"), Column("examination"), Column("seed", "number"), Column("gain", "number"),
             Column("95 % over images", "number"), Column("images", "number"))  # fmt: skip
    lines = [
        Line(texts(row["condition"], row["label"], str(row["seed"]), signed(row["gain"]),
                   interval(row["low"], row["high"]), str(row["images"])))
        for row in rows
    ]  # fmt: skip
    return View(heads, lines, caption="Gain of each network", remark="(paired bootstrap over its images)")


def gain_maps(study: Study, measurements: Sequence[Measurement], predictions: Sequence[Drawn]) -> tuple[GainMap, ...]:
    """Return the map of each pair of examinations of EEG and gain, over all networks and over those of unrelated EEG.

    None of fewer than 4 conditions, or of networks that were recorded with other channels or at other times.
    """
    labels = {label: plan.examination.name for trial in study.trials for label, plan in trial.examinations.items()}
    gains: defaultdict[str, dict[tuple[str, str, int, int], float]] = defaultdict(dict)
    for m in measurements:
        if labels.get(m.attack) == GAIN and m.measure == "robustness_gain" and np.isfinite(m.value):
            gains[m.attack][m.architecture, m.condition, m.seed, m.epoch] = m.value
    subjects = subjects_of(study)
    silent = {
        trial.condition
        for trial in study.trials
        if any(spec.settings.get("responses") in SAY_NOTHING for spec in trial.mechanisms)
    }
    maps: list[GainMap] = []
    for label in dict.fromkeys(found.label for found in predictions):
        for gain in (name for name, examination in labels.items() if examination == GAIN):
            both = [
                (found, gains[gain][place])
                for found in predictions
                if found.label == label
                and (place := (found.architecture, found.condition, found.seed, found.epoch)) in gains[gain]
            ]
            unrelated = [pair for pair in both if pair[0].condition in silent]
            for over, some in (("all networks", both), (UNRELATED, unrelated)):
                if over == UNRELATED and len(unrelated) == len(both):
                    continue  # the same map again
                if made := _map(label, gain, over, some, subjects):
                    maps.append(made)
    return tuple(maps)


def _map(label: str, gain: str, over: str, pairs: list[tuple[Drawn, float]], subjects: Subjects) -> GainMap | None:
    pairs = sorted(pairs, key=lambda pair: (pair[0].architecture, pair[0].condition, pair[0].seed))
    clusters = [(found.architecture, found.condition) for found, _ in pairs]
    crossed = crossing(
        clusters,
        [subjects.get((*cluster, found.seed), "") for cluster, (found, _) in zip(clusters, pairs, strict=True)],
    )
    axes = {(*found.arrays["channels"].tolist(), *found.arrays["times"].tolist()) for found, _ in pairs}
    if len(set(clusters)) < FEWEST or len(axes) != 1:
        return None
    channels, times = (pairs[0][0].arrays[name] for name in ("channels", "times"))
    r, values = np.stack([found.arrays["r"] for found, _ in pairs]), [value for _, value in pairs]
    matched = seeds_match(clusters, [found.seed for found, _ in pairs])
    found = correlation_map(r, values, clusters)
    groups = [np.isin(channels, group) for group in (PARIETO_OCCIPITAL, OCCIPITAL)]
    now = r[:, :, np.abs(times - PUBLISHED).argmin()]
    over_all = now.mean(axis=1) if np.isfinite(now).all() else np.ones(len(now))  # what does not vary has none
    defined = all(group.any() for group in groups) and np.isfinite(now[:, groups[0] | groups[1]]).all()
    return GainMap(
        label,
        gain,
        over,
        len(pairs),
        len(set(clusters)),
        tuple(str(channel) for channel in channels),
        times,
        found.rho,
        found.p if matched else np.full_like(found.p, np.nan),
        spearman(over_all, values),
        cluster_bootstrap(over_all, values, clusters, crossed=crossed, seed=0),
        group_difference(now[:, groups[0]], now[:, groups[1]], values, clusters, crossed=crossed) if defined else None,
    )


def prediction_rows(content: Content) -> list[tables.Row]:
    """Return r of each cell, channel and time, the mean over its last networks, beside the ceilings of the EEG."""
    cells: defaultdict[tuple[str, str, str], list[Drawn]] = defaultdict(list)
    for found in content.predictions:
        cells[found.label, found.architecture, found.condition].append(found)
    rows: list[tables.Row] = []
    for (label, architecture, condition), networks in cells.items():
        mean = {name: _mean([found.arrays[name] for found in networks]) for name in ("r", *CEILINGS)}
        for place, channel in enumerate(networks[0].arrays["channels"]):
            for number, time in enumerate(networks[0].arrays["times"]):
                rows.append(
                    {
                        "label": label,
                        "architecture": architecture,
                        "condition": condition,
                        "control": condition in content.study.controls,
                        "epoch": networks[0].epoch,
                        "n": len(networks),
                        "channel": str(channel),
                        "time": float(time),
                    }
                    | {name: tables.finite(float(values[place, number])) for name, values in mean.items()}
                )
    return rows


def _mean(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    return np.stack(arrays).mean(axis=0)


def gain_map_rows(content: Content) -> list[tables.Row]:
    """Return the correlation with the gain at each channel and time of each map, with its corrected p."""
    return [
        _described(found)
        | {
            "channel": channel,
            "time": float(time),
            "rho": tables.finite(float(found.rho[place, number])),
            "p": tables.finite(float(found.p[place, number])),
        }
        for found in content.maps
        for place, channel in enumerate(found.channels)
        for number, time in enumerate(found.times)
    ]


def channel_group_rows(content: Content) -> list[tables.Row]:
    """Return how r 100 ms after onset goes with the gain: its mean over channels, and two groups of them compared."""
    return [
        _described(found)
        | {
            "time": PUBLISHED,
            "rho": tables.finite(found.mean),
            "rho_low": tables.finite(found.interval.low),
            "rho_high": tables.finite(found.interval.high),
            "parieto_occipital": tables.finite(found.groups.first) if found.groups else None,
            "occipital": tables.finite(found.groups.second) if found.groups else None,
            "difference": tables.finite(found.groups.difference) if found.groups else None,
            "low": tables.finite(found.groups.interval.low) if found.groups else None,
            "high": tables.finite(found.groups.interval.high) if found.groups else None,
        }
        for found in content.maps
    ]


def _described(found: GainMap) -> tables.Row:
    return {
        "eeg": found.eeg,
        "gain": found.gain,
        "over": found.over,
        "networks": found.networks,
        "conditions": found.conditions,
    }


def thinned(times: Sequence[float]) -> list[float]:
    """Return the times that are drawn, in their order.

    >>> len(thinned(range(100))), thinned([0.2, 0.1])
    (50, [0.1, 0.2])
    """
    step = -(-len(times) // DRAWN)
    return sorted(times)[::step]


def panels_of(rows: list[tables.Row]) -> tuple[list[str], list[tables.Row]]:
    """Return the panels of one examination: both ceilings, then the cells that are no controls, with ``value``."""
    several = len({row["architecture"] for row in rows}) > 1
    first = rows[0]["architecture"], rows[0]["condition"]
    drawn = [
        row | {"panel": words, "value": row[name]}
        for name, words in CEILINGS.items()
        for row in rows
        if (row["architecture"], row["condition"]) == first
    ]
    drawn += [
        row
        | {"panel": f"{row['architecture']}: {row['condition']}" if several else row["condition"], "value": row["r"]}
        for row in rows
        if not row["control"]
    ]
    return list(dict.fromkeys(row["panel"] for row in drawn)), drawn


def diverging(rows: list[tables.Row], title: str) -> alt.Color:
    """Return colours that are white at 0 and reach as far on both sides."""
    furthest = max((abs(row["value"]) for row in rows if row["value"] is not None), default=0) or 1.0
    scale = alt.Scale(scheme="blueorange", domain=[-furthest, furthest])
    return alt.Color("value:Q", title=title, scale=scale, legend=alt.Legend(gradientLength=200, format=".2f"))


def maps(rows: list[tables.Row], panels: list[str], colour: alt.Color) -> alt.TopLevelMixin:
    """Draw ``value`` over channel and time, a panel each; what has ``surviving`` is outlined."""
    times = thinned(list({row["time"] for row in rows}))
    step = times[1] - times[0] if len(times) > 1 else 0.01
    channels = sorted({row["channel"] for row in rows}, key=lambda name: (-POSITIONS.get(name, (0, 0))[1], name))
    drawn = [
        {
            "panel": row["panel"],
            "channel": row["channel"],
            "from": round(1000 * row["time"]),
            "to": round(1000 * (row["time"] + step)),
            "value": None if row["value"] is None else round(row["value"], 3),
            "surviving": row.get("surviving", False),
        }
        for row in rows
        if row["time"] in times
    ]
    x = alt.X(
        "from:Q", title="time after onset (ms)", scale=alt.Scale(nice=False), axis=alt.Axis(grid=False, tickCount=5)
    )
    y = alt.Y("channel:N", title=None, sort=channels, axis=alt.Axis(labelFontSize=9))
    chart = alt.Chart()
    layers = [
        chart.mark_rect().encode(x=x, x2="to:Q", y=y, color=colour),
        chart.mark_rect(fillOpacity=0, stroke=INK, strokeWidth=0.8)
        .transform_filter("datum.surviving")
        .encode(x=x, x2="to:Q", y=y),
    ]
    wide = 2 if len(panels) == 4 else min(ACROSS, len(panels))
    return (
        alt.layer(*layers, data=alt.Data(values=drawn))
        .properties(width=min(400, WIDTH // wide - 45), height=190)
        .facet(facet=alt.Facet("panel:N", sort=panels, title=None), columns=wide)
    )


def scalps(rows: list[tables.Row], panels: list[str], colour: alt.Color) -> alt.TopLevelMixin | None:
    """Draw ``value`` at the electrodes whose place is known, at a few times."""
    times = np.array(sorted({row["time"] for row in rows}))
    chosen = {float(times[np.abs(times - moment).argmin()]): moment for moment in MOMENTS if moment <= times.max()}
    drawn = [
        {
            "panel": row["panel"],
            "time": written(row["time"]),
            "channel": row["channel"],
            "right": POSITIONS[row["channel"]][0],
            "front": POSITIONS[row["channel"]][1],
            "value": None if row["value"] is None else round(row["value"], 3),
            "surviving": row.get("surviving", False),
        }
        for row in rows
        if row["time"] in chosen and row["channel"] in POSITIONS
    ]
    return heads(drawn, colour, panels=panels, times=[written(time) for time in sorted(chosen)]) if drawn else None


def written(time: float) -> str:
    """Return a time in seconds as it heads a column.

    >>> written(0.1)
    '100 ms'
    """
    return f"{1000 * time:.0f} ms"


def eeg_figures(content: Content) -> list[Figure]:
    """Return the figures of what was predicted of the EEG, none where that was not examined."""
    predicted, related = prediction_rows(content), gain_map_rows(content)
    figures: list[Figure] = []

    def add(name: str, title: str, caption: str, table: Sequence[str], chart: alt.TopLevelMixin | None) -> None:
        if chart is not None:
            figures.append(Figure(name, title, caption, tuple(table), configured(chart)))

    for label in dict.fromkeys(row["label"] for row in predicted):
        panels, drawn = panels_of([row for row in predicted if row["label"] == label])
        colour = diverging(drawn, "r")
        whose = "mean over the last networks of a condition; controls are in the table"
        add(
            f"{label}-channels",
            f"Prediction of the EEG by channel and time, {label}",
            "Pearson's r over images between predicted and recorded EEG, beside what half of the repetitions says of "
            f"the other half (lower ceiling) and of all (upper one), in the first condition; {whose}. {SHOWN}",
            ("eeg-prediction",),
            maps(drawn, panels, colour),
        )
        add(
            f"{label}-scalp",
            f"Prediction of the EEG on the scalp, {label}",
            f"The same at a few times, seen from above, the nose at the top; {whose}.",
            ("eeg-prediction",),
            scalps(drawn, panels, colour),
        )
    if related:
        drawn = [
            row | {"panel": named(row), "value": row["rho"], "surviving": row["p"] is not None and row["p"] <= LEVEL}
            for row in related
        ]
        panels, colour = list(dict.fromkeys(map(named, related))), diverging(drawn, RHO)
        text = (
            f"Spearman's {RHO} over networks of r at one channel and time with the gain in robustness. Outlined: p ≤ "
            f"{LEVEL:g} after correction for all channels and times, by exchanging whole conditions."
        )
        add(
            "gain-maps", "Where prediction goes with the gain", f"{text} {in_words(content.maps)} {SHOWN}",
            ("gain-maps", "channel-groups"), maps(drawn, panels, colour),
        )  # fmt: skip
        add(
            "gain-scalp", "Where prediction goes with the gain, on the scalp",
            f"The same at a few times. {text}", ("gain-maps",), scalps(drawn, panels, colour),
        )  # fmt: skip
    return figures


def named(row: tables.Row) -> str:
    """Return what a map is of."""
    return f"{row['gain']}, {row['over']}"


def in_words(found: Sequence[GainMap]) -> str:
    """Return what each map says: how much of it survives, and how its two groups of channels differ."""
    sentences: list[str] = []
    for each in found:
        tested = np.isfinite(each.p)
        count = int((each.p[tested] <= LEVEL).sum())
        text = f"{each.gain}, {each.over} ({each.networks} networks of {each.conditions} conditions): "
        text += f"{count} of {tested.sum()} places" if tested.any() else "no p, since conditions differ in their seeds"
        text += f"; at {written(PUBLISHED)} {RHO} of the mean {signed(each.mean, 2)} {interval(*each.interval, 2)}"
        if each.groups is not None:
            text += (
                f", parieto-occipital less occipital "
                f"{signed(each.groups.difference, 2)} {interval(*each.groups.interval, 2)}"
            )
        sentences.append(text + ".")
    return " ".join(sentences)
