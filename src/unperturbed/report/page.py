"""The page: tables become views of text, and one template makes a self-contained HTML file of them.

The template escapes every text. Only the drawings and the style sheet enter as markup; the texts inside a drawing
are escaped by vl-convert.
"""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from unperturbed.records import Setting
from unperturbed.report import tables, verdicts
from unperturbed.report.content import Content, Picture
from unperturbed.report.figures import INK, Figure
from unperturbed.report.numbers import (
    MINUS,
    MISSING,
    TIMES,
    decimals,
    duration,
    interval,
    percent,
    probability,
    radius,
    signed,
    whole,
)
from unperturbed.report.numbers import spread as with_spread
from unperturbed.report.pictures import data_uri, magnified


class Column(NamedTuple):
    """A heading and how the cells below it are set: ``number``, ``words``, ``whole`` or nothing."""

    title: str
    kind: str = ""


class Text(NamedTuple):
    """What one cell of a table says, with small lines below it; a ``badge`` is coloured by its name."""

    text: str
    kind: str = ""
    below: tuple[str, ...] = ()
    badge: str = ""


class Line(NamedTuple):
    """One row of a table; a ``group`` has a single cell over the whole width."""

    cells: tuple[Text, ...]
    kind: str = ""


class View(NamedTuple):
    """A table as text."""

    columns: tuple[Column, ...]
    rows: list[Line]
    caption: str = ""
    remark: str = ""


class Group(NamedTuple):
    """Tables below one heading."""

    title: str
    tables: list[View]
    remark: str


class Tile(NamedTuple):
    """One small picture with its words."""

    image: str
    alt: str
    head: str
    text: str
    fooled: bool = False


class Example(NamedTuple):
    """A test image and what became of it."""

    title: str
    tiles: list[Tile]


class Album(NamedTuple):
    """The examples of one attack on one architecture."""

    title: str
    examples: list[Example]


class Measures(NamedTuple):
    """Measures under the main attack and, to be unfolded, under the others."""

    main: View
    rest: list[View]


def inline(drawing: str) -> Markup:
    """Return an SVG for the page, with the page's own ink and paper."""
    return Markup(drawing.replace(INK, "currentColor").replace('fill="white"', 'fill="none"', 1))


def texts(*words: str) -> tuple[Text, ...]:
    """Return plain cells."""
    return tuple(Text(word) for word in words)


def claims_view(content: Content) -> View:
    """Return the table of claims."""
    columns = (
        Column("id"), Column("claim", "words"), Column("verdict"), Column("effect [interval]", "number"),
        Column("adjusted p (raw)", "number"), Column("n", "number"), Column("ours", "number"),
        Column("published", "number"),
    )  # fmt: skip
    rows = [
        Line(
            (
                Text(row["id"]),
                Text(row["says"], below=explanation(row, content)),
                Text(row["verdict"], badge=row["verdict"]),
                Text(signed(row["effect"]), below=(interval(row["low"], row["high"]),)),
                Text(probability(row["p_adjusted"]), below=(f"({probability(row['p'])})",)),
                Text(whole(row["n"])),
                Text(decimals(row["left"]), below=(f"vs {decimals(row['right'])}",)),
                published_pair(row),
            )
        )
        for row in verdicts.claims_rows(content)
    ]
    return View(columns, rows)


def claims_note(content: Content) -> str:
    """Return what the numbers in the table of claims are."""
    return (
        "Numbers are those of the contrast named below each claim, the weakest that has the verdict. Effect: "
        f"difference of the means of {tables.main_measure(content)} (no unit), left minus right, with its "
        f"{1 - content.decisions.alpha:.0%} interval, not adjusted; n: matched seeds. "
        + (
            "Published means are of the same epoch."
            if content.study.comparable
            else "Published means are of the published epoch that stands for ours, and show direction, not size."
        )
    )


def explanation(row: tables.Row, content: Content) -> tuple[str, ...]:
    """Return the contrast that decides a claim and the reason of the verdict, without saying the same twice."""
    contrast = row["contrast"] if row["contrast"] and row["contrast"] not in row["reason"] else ""
    unlike = (row["attack"], row["measure"]) != (tables.main_attack(content), tables.main_measure(content))
    other = f"{tables.NAMES.get(row['measure'], row['measure'])} under {row['attack']}" if unlike else ""
    return tuple(filter(None, (contrast, row["reason"], other)))


def published_pair(row: tables.Row) -> Text:
    """Return the published means of both sides of a contrast, with their epoch and Welch's p."""
    if row["published_left"] is None:
        return Text(MISSING)
    right = f"vs {decimals(row['published_right'])}"
    source = f"epoch {row['published_epoch']}, p {verdicts.equals(row['published_p'])}"
    return Text(decimals(row["published_left"]), below=(right, source))


def contrasts_view(content: Content) -> View:
    """Return the table of all contrasts, primary and secondary, below their claims."""
    columns = (
        Column("contrast", "words"), Column("expected"), Column("outcome"), Column("ours", "number"),
        Column("difference [interval]", "number"), Column("n", "number"), Column("adjusted p (raw)", "number"),
        Column("Welch (sign-flip) p", "number"), Column("effect size", "number"), Column("power", "number"),
        Column("published", "number"),
    )  # fmt: skip
    lines: list[Line] = []
    says = {claim.id: claim.says for claim in content.decisions.claims}
    claim = None
    for row in verdicts.contrast_rows(content):
        if row["claim"] != claim:
            claim = row["claim"]
            lines.append(Line(texts(f"{claim}: {says[claim]}"), kind="group"))
        lines.append(
            Line(
                (
                    Text(
                        row["contrast"],
                        below=tuple(filter(None, ("" if row["primary"] else "secondary", row["reason"]))),
                    ),
                    Text(row["expected"]),
                    Text(row["outcome"], badge=row["outcome"], below=(f"found: {row['detected']}",)),
                    Text(
                        with_spread(row["left_mean"], row["left_sd"]),
                        below=(f"vs {with_spread(row['right_mean'], row['right_sd'])}",),
                    ),
                    Text(signed(row["difference"]), below=(interval(row["low"], row["high"]),)),
                    Text(whole(row["n"])),
                    Text(probability(row["p_adjusted"]), below=(f"({probability(row['p'])})",)),
                    Text(probability(row["p_welch"]), below=(f"({probability(row['p_sign_flip'])})",)),
                    Text(decimals(row["effect_size"], 2)),
                    Text(percent(row["power"])),
                    published_pair(row),
                )
            )
        )
    return View(columns, lines)


def robustness_views(content: Content) -> list[Group]:
    """Return, per architecture, one table per condition in the layout of the paper's tables."""
    rows = tables.robustness_rows(content)
    numbered = {
        (row["architecture"], row["condition"]): row["published_table"] for row in rows if row["published_table"]
    }
    groups: dict[str, list[View]] = {}
    images: dict[str, set[int]] = {}
    for architecture, condition in tables.cells(content):
        own = [row for row in rows if (row["architecture"], row["condition"]) == (architecture, condition)]
        beside = any(row["published_mean"] is not None for row in own)
        heads = (Column("epoch", "number"), Column("mean", "number"), Column("SD", "number"), Column("n", "number"),
                 Column("f(ε₀)", "number"))  # fmt: skip
        heads += (Column("published", "number"), Column("deviation", "number")) if beside else ()
        lines: list[Line] = []
        for row in own:
            cells = texts(str(row["epoch"]), decimals(row["mean"]), decimals(row["sd"]), whole(row["n"]),
                          percent(row["clean"]))  # fmt: skip
            if beside:
                cells += (
                    Text(with_spread(row["published_mean"], row["published_sd"])),
                    Text(signed(row["deviation"], 1), kind="far" if row["far"] else ""),
                )
            lines.append(Line(cells))
        table = numbered.get((architecture, condition))
        remark = f"(paper: Table {table})" if table else "(control)" if condition in content.study.controls else ""
        if not lines:
            lines = [Line(texts(*[MISSING] * len(heads)))]
        groups.setdefault(architecture, []).append(View(heads, lines, caption=condition, remark=remark))
        images.setdefault(architecture, set()).update(row["images"] for row in own if row["images"])
    return [Group(name, views, per(images[name])) for name, views in groups.items()]


def per(images: set[int]) -> str:
    """Return on how many test images the networks were attacked."""
    ends = dict.fromkeys((min(images), max(images))) if images else {}
    return f"{' to '.join(map(whole, ends))} test images" if ends else "not attacked yet"


def measures_view(content: Content) -> Measures:
    """Return all measures at the last epochs, one table per attack, a column per measure."""
    rows = tables.measure_rows(content)
    views: dict[str, View] = {}
    for attack in ["", *tables.attacks(content)]:
        own = [row for row in rows if row["attack"] == attack]
        names = list(dict.fromkeys(row["measure"] for row in own))
        if not names:
            continue
        columns = (Column("condition", "whole"), Column("epoch", "number"), Column("n", "number"),
                   *(Column(heading(name, own), "number") for name in names))  # fmt: skip
        lines: list[Line] = []
        architecture = None
        for cell in tables.cells(content):
            found = {row["measure"]: row for row in own if (row["architecture"], row["condition"]) == cell}
            if cell[0] != architecture:
                architecture = cell[0]
                lines.append(Line(texts(architecture), kind="group"))
            some = next(iter(found.values()), None)
            lines.append(
                Line(
                    (
                        *texts(
                            cell[1],
                            str(some["epoch"]) if some else MISSING,
                            whole(max(row["n"] for row in found.values())) if found else MISSING,
                        ),
                        *(
                            Text(measured(row["mean"], row), below=spread_below(row, content))
                            if (row := found.get(name))
                            else Text(MISSING)
                            for name in names
                        ),
                    )
                )
            )
        views[attack] = View(columns, lines, caption=f"Under {attack}" if attack else "Without an attack")
    main = views.pop(tables.main_attack(content), View((Column("condition"),), []))
    return Measures(main, list(views.values()))


def heading(measure: str, rows: list[tables.Row]) -> str:
    """Return the name of a measure with its unit and, where there is one, the better direction."""
    row = next(row for row in rows if row["measure"] == measure)
    arrow = {"higher": " ↑", "lower": " ↓"}.get(row["better"], "")
    return (
        tables.NAMES.get(measure, measure)
        + (f" ({row['unit']})" if row["unit"] not in ("", "fraction") else "")
        + arrow
    )


def measured(value: float | None, row: tables.Row) -> str:
    """Return a measured number: fractions of images as percentages, all else with four decimals."""
    return percent(value) if row["unit"] == "fraction" else decimals(value)


def spread_below(row: tables.Row, content: Content) -> tuple[str, ...]:
    """Return the standard deviation and, where a measure is not defined for every seed, for how many it is."""
    few = row["n"] < len(content.study.seeds)
    return (f"± {measured(row['sd'], row)}", *((f"n = {row['n']}",) if few else ()))


def example(picture: Picture) -> Example:
    """Return a picture as tiles: the original, then each adversarial image followed by its magnified difference."""
    tiles = [
        Tile(data_uri(picture.original), f"test image of class {picture.label}", "original",
             f"called {picture.prediction}", picture.prediction != picture.label)
    ]  # fmt: skip
    for shown, (factor, difference) in zip(picture.adversarial, magnified(picture), strict=True):
        eps = radius(shown.eps)
        fooled = shown.prediction != picture.label
        tiles.append(Tile(data_uri(shown.image), f"adversarial at ε = {eps}", f"ε = {eps}",
                          f"called {shown.prediction}", fooled))  # fmt: skip
        tiles.append(Tile(data_uri(difference), f"change at ε = {eps}, magnified {factor} times",
                          f"change {TIMES} {factor}", f"at ε = {eps}"))  # fmt: skip
    return Example(f"{picture.condition}: true class {picture.label}", tiles)


def albums(content: Content) -> list[Album]:
    """Return the pictures by architecture and attack, in the order in which they came."""
    found: dict[str, list[Example]] = {}
    for picture in content.pictures:
        found.setdefault(f"{picture.architecture} under {picture.attack}", []).append(example(picture))
    return [Album(title, examples) for title, examples in found.items()]


def costs_view(content: Content) -> View:
    """Return what training and each attack took, per architecture, with totals."""
    columns = (Column("architecture", "whole"), Column("stage", "whole"), Column("stages", "number"),
               Column("time", "number"), Column("forward passes", "number"), Column("backward passes", "number"),
               Column("device", "whole"))  # fmt: skip
    rows = tables.cost_rows(content)

    def line(name: str, kind: str, chosen: list[tables.Row], device: str) -> Line:
        sums = {key: sum(row[key] for row in chosen) for key in ("stages", "seconds", "forwards", "backwards")}
        return Line(texts(name, kind, whole(sums["stages"]), duration(sums["seconds"]), whole(sums["forwards"]),
                          whole(sums["backwards"]), device))  # fmt: skip

    lines = [line(row["architecture"], row["kind"], [row], row["device"]) for row in rows]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        lines.append(line("all", kind, [row for row in rows if row["kind"] == kind], ""))
    lines.append(line("all", "all", rows, "")._replace(kind="total"))
    return View(columns, lines)


def word(setting: Setting) -> str:
    """Return a setting as a reader writes it."""
    return "none" if setting is None else str(setting)


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
    used: dict[tuple[str, str], list[str]] = {}
    for trial in content.study.trials:
        for label, plan in trial.attacks.items():
            settings = ", ".join(f"{name}={word(value)}" for name, value in plan.attack.settings.items())
            text = f"{plan.attack.name}({settings}); ε: {', '.join(map(radius, plan.eps))}; "
            text += f"the first {plan.images} test images" if plan.images else "all test images"
            text += "" if plan.epochs == "all" else "; last epoch only"
            names = used.setdefault((label, text), [])
            if trial.architecture not in names:
                names.append(trial.architecture)
    every = len({trial.architecture for trial in content.study.trials})
    return [
        (label, text if len(names) == every else f"{text} ({', '.join(names)})")
        for (label, text), names in used.items()
    ]


def recipes(content: Content) -> list[tuple[str, str]]:
    """Return each recipe of training once, with the architectures that use it."""
    used: dict[str, list[str]] = {}
    for trial in content.study.trials:
        text = ", ".join(f"{name} {value}" for name, value in trial.recipe.model_dump().items())
        names = used.setdefault(text, [])
        if trial.architecture not in names:
            names.append(trial.architecture)
    return [(", ".join(names), text) for text, names in used.items()]


def links(figure: Figure, kinds: list[str]) -> list[tuple[str, str]]:
    """Return the files beside the page that belong to a figure, as pairs of name and path."""
    return [(f"{table}.csv", f"tables/{table}.csv") for table in figure.tables] + [
        (kind.upper(), f"figures/{figure.name}.{kind}") for kind in kinds
    ]


def render(content: Content, figures: list[Figure], drawings: dict[str, str], kinds: list[str]) -> str:
    """Return the page as text.

    Args:
        content: what is shown.
        figures: what is said of each drawing.
        drawings: the SVG of each figure by its name.
        kinds: in which formats the figures lie beside the page.
    """
    study, attack, measure = content.study, tables.main_attack(content), tables.main_measure(content)
    package = files("unperturbed.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(package.joinpath("template.html").read_text(encoding="utf-8"))
    style = Markup(package.joinpath("style.css").read_text(encoding="utf-8"))
    sections = [("answer", "Answer"), ("claims", "Claims")]
    sections += [("figures", "Figures")] if figures else []
    sections += [("tables", f"{measure} by epoch"), ("measures", "Other measures")]
    sections += [("examples", "Examples")] if content.pictures else []
    sections += [("cost", "Cost"), ("about", "How this was made")]
    lists = [
        ("Conditions", list(study.conditions.items())),
        ("Architectures", list(study.architectures.items())),
        ("Attacks", plans(content)),
        ("Training", recipes(content)),
        ("Settings", [(name, word(value)) for name, value in study.settings.items()]),
        ("Versions", [(name, str(value)) for name, value in content.versions.items()]),
    ]
    return template.render(
        study=study,
        style=style,
        created=content.created,
        sections=[{"id": name, "title": title} for name, title in sections],
        answer=verdicts.answer(content),
        claims=claims_view(content),
        claims_note=claims_note(content),
        rule=content.decisions.rule,
        contrasts=contrasts_view(content),
        figures=[
            {
                "name": figure.name,
                "title": figure.title,
                "caption": figure.caption,
                "svg": inline(drawings[figure.name]),
                "files": links(figure, kinds),
            }
            for figure in figures
        ],
        measure=measure,
        robustness=robustness_views(content),
        robustness_note=f"{measure} under {attack}: mean and standard deviation over n seeds; f(ε₀) is the mean "
        "accuracy before any perturbation."
        + (
            f" Deviation is (ours {MINUS} published) / published SD; beyond ± {tables.FAR:g} it is red."
            if tables.published_values(content)
            else " Published numbers are not set beside these, because recipe, data or epochs differ."
        ),
        measures=measures_view(content),
        measures_note="Mean ± standard deviation over n seeds at the last epoch; the arrow points to what is better.",
        albums=albums(content),
        costs=costs_view(content),
        cost_note="Summed over conditions, seeds and epochs. A pass is one image going through one network, "
        "forwards or backwards.",
        command=content.command,
        about=about(content),
        lists=[(title, pairs) for title, pairs in lists if pairs],
    )
