"""The page of an audit: its plain JSON becomes one HTML file that opens offline, with the evidence for the verdict.

The drawings are made as those of a study are, and the tables use the same template. Intervals of the clean accuracy and
of that under the plain attack are Wilson's (1927), doi:10.1080/01621459.1927.10502953, at 95 %.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from unperturbed.ledger.artefacts import write_whole
from unperturbed.report.content import Picture, Shown
from unperturbed.report.drawing import ATTACKS, GOLD, INK, Figure, configured, svg, unit
from unperturbed.report.gallery import Example, Tile
from unperturbed.report.numbers import MISSING, TIMES, absent, decimals, duration, percent, radius, whole
from unperturbed.report.pictures import data_uri, magnified
from unperturbed.report.views import Column, Line, Text, View, inline, texts, word
from unperturbed.statistics import wilson

Audit = Mapping[str, Any]

BADGES = {"trustworthy": "supported", "suspect": "undecided", "illusory": "contradicted"}
STATES = {"open": "contradicted", "answered": "undecided", "clear": "supported"}
BINS = 24
SIZE = {"width": 340, "height": 210}  # of a drawing, in pixels: two stand side by side, one fits a telephone
CHANNELS = (1, 3)  # of images that a picture can be made of


class Big(NamedTuple):
    """One of the numbers at the head of the page."""

    number: str
    says: str
    below: tuple[str, ...]


def write_audit(folder: Path, audit: Audit) -> Path:
    """Write ``audit.html`` and, with every number, ``audit.json`` into ``folder``; return the path of the page.

    Args:
        folder: where; made if it is missing. A file is either whole or as it was before.
        audit: what ``unperturbed.audit.audit(...).plain()`` returns.
    """
    write_whole(folder / "audit.json", (json.dumps(audit, allow_nan=False) + "\n").encode())
    page = folder / "audit.html"
    write_whole(page, render(audit).encode())
    return page


def render(audit: Audit) -> str:
    """Return the page as text."""
    package = files("unperturbed.report")
    macros, _, _ = package.joinpath("template.html").read_text(encoding="utf-8").partition("<!doctype html>")
    template = package.joinpath("audit.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    sections = [("answer", "Verdict"), ("curve", "Accuracy over ε"), ("attacks", "What broke what"), ("flags", "Flags")]
    sections += [("variants", "Variants")] if audit["variants"] else []
    sections += [("random", "Randomness")] if audit["random"] else []
    examples = pictures(audit)
    sections += [("examples", "Examples")] if examples else []
    sections += [("cost", "Cost"), ("about", "How this was made")]
    checks = [row for row in audit["flags"] if row["applies"]]
    return environment.from_string(macros + template).render(
        audit=audit,
        style=Markup(package.joinpath("style.css").read_text(encoding="utf-8")),
        sections=[{"id": name, "title": title} for name, title in sections],
        badge=BADGES[audit["verdict"]],
        threat=f"{audit['norm']}, ε = {radius(audit['eps'])}, budget {audit['budget']}",
        numbers=numbers(audit),
        figures=[(figure, inline(svg(figure)), view) for figure, view in draw(audit)],
        attacks=attacks_view(audit),
        fired=sum(row["fired"] for row in checks),
        checks=len(checks),
        flags=flags_view(checks),
        idle=idle_view([row for row in audit["flags"] if not row["applies"]]),
        variants=variants_view(audit),
        random=random_view(audit) if audit["random"] else None,
        examples=examples,
        costs=costs_view(audit),
        about=about(audit),
        lists=[("Attacks", settings(audit)), ("Versions", [(name, str(v)) for name, v in audit["versions"].items()])],
    )


# Numbers


def between(low: float, high: float) -> str:
    """Return an interval of fractions in words."""
    return f"{percent(low)} to {percent(high)}"


def numbers(audit: Audit) -> list[Big]:
    """Return the accuracy clean, after a plain attack and after all of them, each with its interval."""
    n = audit["n"]
    return [
        Big(percent(audit["clean_accuracy"]), "clean", (between(*wilson(audit["clean_accuracy"], n)), f"{n} images")),
        Big(
            percent(audit["plain_accuracy"]),
            "after a plain attack",
            (between(*wilson(audit["plain_accuracy"], n)), f"{percent(audit['suite_accuracy'])} after the suite"),
        ),
        Big(
            percent(audit["robust_accuracy"]),
            "after all attacks",
            (between(*audit["interval"]), f"broken by {audit['broken_by']}" if audit["broken_by"] else ""),
        ),
    ]


def short(value: float | None) -> str:
    """Return a number of unknown size with three significant digits.

    >>> short(0.17654), short(None)
    ('0.177', '–')
    """
    return MISSING if value is None or absent(value) else f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


# Figures


def draw(audit: Audit) -> list[tuple[Figure, View]]:
    """Return the curve of accuracy and, where an image was broken, the distribution of critical eps, with tables."""
    curve = Figure("curve", "Accuracy over ε", curve_caption(audit), (), configured(curve_chart(audit)))
    figures = [(curve, curve_view(audit))]
    if bins(audit):
        caption = critical_caption(audit)
        critical = Figure("critical", "Critical ε", caption, (), configured(critical_chart(audit)))
        figures.append((critical, critical_view(audit)))
    return figures


def horizontal(audit: Audit, field: str, title: str) -> alt.X:
    """Return the axis of radii."""
    axis = alt.Axis(tickCount=4, grid=False, format="~g", labelOverlap="greedy")
    return alt.X(f"{field}:Q", title=f"{title} ({unit(audit['norm'])})", axis=axis)


def at_eps(audit: Audit) -> alt.Chart:
    """Return the dashed line at the radius of the audit."""
    rows = [{"eps": audit["eps"]}]
    return alt.Chart(alt.Data(values=rows)).mark_rule(strokeDash=[4, 4], color=INK, opacity=0.6).encode(x="eps:Q")


def curve_chart(audit: Audit) -> alt.TopLevelMixin:
    """Draw accuracy over eps; at the radius of the audit its interval and what the plain attack left."""
    x, title = horizontal(audit, "eps", "ε"), "accuracy"
    y = alt.Y("accuracy:Q", title=title, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", tickCount=5))
    low, high = audit["interval"]
    point = [{"eps": audit["eps"], "low": low, "high": high, "accuracy": audit["plain_accuracy"]}]
    line = alt.Chart(alt.Data(values=[dict(row) for row in audit["curve"]]))
    here = alt.Chart(alt.Data(values=point))
    chance = alt.Chart(alt.Data(values=[{"accuracy": 1 / audit["classes"]}]))
    layers = [
        chance.mark_rule(color=GOLD, strokeWidth=1.5).encode(y=y),
        at_eps(audit),
        line.mark_line(strokeWidth=1.8, color=ATTACKS[0], point=alt.OverlayMarkDef(size=22, color=ATTACKS[0])).encode(
            x=x, y=y
        ),
        here.mark_rule(strokeWidth=3, color=ATTACKS[1]).encode(x="eps:Q", y=alt.Y("low:Q", title=title), y2="high:Q"),
        here.mark_point(filled=False, shape="diamond", size=90, strokeWidth=1.8, color=ATTACKS[1]).encode(
            x="eps:Q", y=y
        ),
    ]
    return alt.layer(*layers).properties(**SIZE)


def curve_caption(audit: Audit) -> str:
    """Return what is seen on the curve."""
    return (
        f"R = {decimals(audit['R'])}, from 0 to ε = {radius(audit['R_upto'])}. Dashed: the ε of the audit; the bar is "
        "the interval of what is left there, the open diamond what the plain attack left. Gold: chance."
    )


def bins(audit: Audit) -> list[dict[str, float]]:
    """Return how many images have their critical eps in each of equal bins from 0; those that have one above 0."""
    broken = [value for value in audit["critical_eps"]["values"] if value]
    if not broken:
        return []
    counts, edges = np.histogram(broken, bins=BINS, range=(0.0, max(broken)))
    return [
        {"from": round(float(low), 6), "to": round(float(high), 6), "images": int(count)}
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


def critical_chart(audit: Audit) -> alt.TopLevelMixin:
    """Draw the histogram of critical eps."""
    chart = alt.Chart(alt.Data(values=bins(audit)))
    bars = chart.mark_rect(color=ATTACKS[0], opacity=0.85).encode(
        x=horizontal(audit, "from", "critical ε"),
        x2="to:Q",
        y=alt.Y("images:Q", title="images", scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=4)),
        y2=alt.datum(0),
    )
    return alt.layer(bars, at_eps(audit)).properties(**SIZE)


def critical_caption(audit: Audit) -> str:
    """Return how many images the histogram cannot show."""
    values = audit["critical_eps"]["values"]
    wrong, never = sum(value == 0 for value in values), sum(value is None for value in values)
    return (
        f"The smallest ε at which an image was broken, for {len(values) - wrong - never} of {len(values)} images; "
        f"{wrong} are misclassified without a change and {never} were never broken. Dashed: the ε of the audit."
    )


# Tables


def curve_view(audit: Audit) -> View:
    """Return the curve as a table."""
    rows = [Line(texts(radius(row["eps"]), percent(row["accuracy"]))) for row in audit["curve"]]
    return View((Column("ε", "whole"), Column("accuracy", "number")), rows)


def critical_view(audit: Audit) -> View:
    """Return the quartiles of critical eps."""
    quartiles = audit["critical_eps"]["quartiles"]
    words = ["never broken" if value is None else radius(value) for value in quartiles]
    rows = [
        Line(texts(f"{share} of the images", value)) for share, value in zip(("25%", "50%", "75%"), words, strict=True)
    ]
    return View((Column("broken"), Column("at ε", "number")), rows)


def attacks_view(audit: Audit) -> View:
    """Return which attack broke what, in the order in which they ran."""
    columns = (Column("attack", "words"), Column("left (from)", "number"), Column("broke (of)", "number"))
    counted = all("alone" in row for row in audit["attacks"])  # known where attacks share images
    rows = [
        Line(
            (
                Text(row["name"], below=tuple(filter(None, (f"{row['stage']}, {through(row)}", row["remark"])))),
                Text(percent(row["after"]), below=(f"({percent(row['before'])})",)),
                Text(whole(row["broke"]), below=(f"({whole(row['attacked'])})",)),
                *(texts(whole(row["alone"])) if counted else ()),
            )
        )
        for row in audit["attacks"]
    ]
    return View((*columns, Column("alone", "number")) if counted else columns, rows)


def through(row: Audit) -> str:
    """Return whose gradients an attack went along."""
    return f"through {row['through']}"


def state(flag: Audit) -> str:
    """Return whether a doubt is left: ``open``, ``answered`` or ``clear``."""
    return ("answered" if flag["resolved"] else "open") if flag["fired"] else "clear"


def flags_view(flags: Sequence[Audit]) -> View:
    """Return every check that applies: open doubts, answered ones, then those that did not fire."""
    columns = (Column("check"), Column("finding", "words"), Column("value (threshold)", "number"))
    rows = [
        Line(
            (
                Text(state(row), badge=STATES[state(row)], below=(f"{row['id']}: {row['name']}",)),
                Text(row["says"], below=labelled(row)),
                Text(short(row["value"]), below=(f"({short(row['threshold'])})",)),
            )
        )
        for row in sorted(flags, key=lambda row: list(STATES).index(state(row)))
    ]
    return View(columns, rows)


def labelled(flag: Audit) -> tuple[str, ...]:
    """Return how a check was measured and, if it fired, what was or should be done."""
    evidence = f"Measured by {flag['evidence']}." if flag["evidence"] else ""
    remedy = f"Remedy: {flag['remedy'].rstrip('.')}." if flag["fired"] and flag["remedy"] else ""
    return tuple(filter(None, (evidence, remedy)))


def idle_view(flags: Sequence[Audit]) -> View:
    """Return the checks that do not apply, with the reason."""
    rows = [Line((Text(f"{row['id']}: {row['name']}"), Text(row["says"], below=(row["remedy"],)))) for row in flags]
    return View((Column("check"), Column("why not", "words")), rows)


def variants_view(audit: Audit) -> View:
    """Return the stand-ins for the backward pass, and what an attack through each left."""
    columns = (Column("variant", "words"), Column("clean accuracy", "number"), Column("cosine", "number"),
               Column("sign agreement (chance)", "number"), Column("left", "number"))  # fmt: skip
    rows = [
        Line(
            (
                Text(
                    row["name"],
                    kind="far" if (audit["broken_by"] or "").endswith(row["name"]) else "",
                    below=(row["says"],),
                ),
                *texts(percent(row["clean_accuracy"]), decimals(row["cosine"], 3)),
                Text(decimals(row["sign_agreement"], 3), below=(f"({decimals(row['chance'], 3)})",)),
                Text(percent(row["after"]) if row["attacked"] else "not attacked"),
            )
        )
        for row in audit["variants"]
    ]
    return View(columns, rows)


def random_view(audit: Audit) -> View:
    """Return what a random classifier reaches over fresh draws, clean and attacked."""
    drawn = audit["random"]
    means = [f"{percent(drawn[f'{of}_mean'])} ± {percent(drawn[f'{of}_sd'])}" for of in ("clean", "robust")]
    rows = [
        Line(texts(f"one draw: mean ± SD over {drawn['draws']} draws", *means)),
        Line(texts(f"majority of {drawn['draws']} draws", percent(drawn["clean_vote"]), percent(drawn["robust_vote"]))),
        Line(texts("interval of the expectation", MISSING, between(*drawn["interval"]))),
    ]
    if "single_interval" in drawn:
        rows.append(Line(texts("interval of a single draw", MISSING, between(*drawn["single_interval"]))))
    return View((Column("accuracy", "words"), Column("clean", "number"), Column("attacked", "number")), rows)


def costs_view(audit: Audit) -> View:
    """Return what each attack took, and the whole audit with its checks."""
    columns = (Column("attack", "words"), Column("time", "number"), Column("forward passes", "number"),
               Column("backward passes", "number"), Column("per image attacked", "number"))  # fmt: skip

    def line(name: str, row: Audit, images: int, *below: str) -> Line:
        passes = (row["forwards"] + row["backwards"]) / images if images else None
        cells = texts(duration(row["seconds"]), whole(row["forwards"]), whole(row["backwards"]), whole(passes))
        return Line((Text(name, below=below), *cells))

    rows = [line(row["name"], row, row["attacked"], through(row)) for row in audit["attacks"]]
    return View(columns, [*rows, line("the whole audit", audit, audit["n"])._replace(kind="total")])


# Pictures and settings


def pictures(audit: Audit) -> list[Example]:
    """Return each original, what was changed, magnified, and the adversarial image."""
    examples: list[Example] = []
    for row in audit["pictures"]:
        original, adversarial = (np.asarray(row[name], dtype=float) for name in ("original", "adversarial"))
        if len(original) not in CHANNELS:
            continue
        label, called = str(row["label"]), str(row["prediction"])
        shown = Shown(audit["eps"], adversarial, called)
        ((factor, difference),) = magnified(Picture("", "", row["attack"], original, label, label, (shown,)))
        tiles = [
            Tile(data_uri(original), f"test image of class {label}", "original", f"class {label}"),
            Tile(data_uri(difference), f"change, magnified {factor} times", f"change {TIMES} {factor}", row["attack"]),
            Tile(data_uri(adversarial), f"adversarial image, called {called}", "adversarial", f"called {called}",
                 called != label),
        ]  # fmt: skip
        examples.append(Example(f"class {label} becomes {called}", tiles))
    return examples


def about(audit: Audit) -> list[tuple[str, str]]:
    """Return what was audited and how, as pairs of name and value."""
    return [
        ("classifier", audit["name"]),
        ("data", audit["data"]),
        ("images", str(audit["n"])),
        ("classes", str(audit["classes"])),
        ("norm", audit["norm"]),
        ("ε", f"{radius(audit['eps'])} ({audit['eps']:.6g})"),
        ("budget", audit["budget"]),
        ("wall time", duration(audit["seconds"])),
        ("digest of all settings", audit["digest"]),
    ]


def settings(audit: Audit) -> list[tuple[str, str]]:
    """Return the settings of each attack, once for those that ran alike."""
    found: dict[tuple[str, str], None] = {}
    for row in audit["attacks"]:
        text = ", ".join(f"{name} {word(value)}" for name, value in row["settings"].items())
        found.setdefault((row["name"], text or "no settings"))
    return list(found)
