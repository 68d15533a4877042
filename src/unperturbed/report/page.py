"""The page: tables become views of text, and one template makes a self-contained HTML file of them.

The template escapes every text. Only the drawings and the style sheet enter as markup; the texts inside a drawing
are escaped by vl-convert.
"""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from unperturbed.report import overview, tables, verdicts
from unperturbed.report.claim_views import associations_view, claims_note, claims_view, contrasts_view
from unperturbed.report.colophon import about, examined, plans, recipes, sweeps
from unperturbed.report.content import Content
from unperturbed.report.costs import costs_view
from unperturbed.report.drawing import Figure
from unperturbed.report.gallery import albums
from unperturbed.report.measure_views import measures_view, robustness_views
from unperturbed.report.numbers import MINUS
from unperturbed.report.views import inline, word


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
    study, attack = content.study, tables.main_attack(content)
    measure = tables.heading_of(tables.name_of(tables.main_measure(content)))
    compared = overview.overview_rows(content)
    package = files("unperturbed.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(package.joinpath("template.html").read_text(encoding="utf-8"))
    style = Markup(package.joinpath("style.css").read_text(encoding="utf-8"))
    sections = [("answer", "Answer"), ("claims", "Claims")]
    sections += [("overview", "What is left")] if compared else []
    sections += [("figures", "Figures")] if figures else []
    sections += [("tables", f"{measure} by epoch"), ("measures", "Other measures")]
    sections += [("examples", "Examples")] if content.pictures else []
    sections += [("cost", "Cost"), ("about", "How this was made")]
    lists = [
        ("Conditions", list(study.conditions.items())),
        ("Architectures", list(study.architectures.items())),
        ("Attacks", plans(content)),
        ("Examinations", examined(content)),
        ("Sweeps", sweeps(content)),
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
        associations=associations_view(content),
        overview=overview.overview_view(compared, seeds=len(study.seeds)),
        overview_note=overview.overview_note(content, compared),
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
        examined=bool(tables.examination_plans(content)),
        measures_note="Mean ± standard deviation over n seeds at the last epoch; the arrow points to what is better.",
        albums=albums(content),
        costs=costs_view(content),
        cost_note="Summed over conditions, seeds and epochs. A pass is one image going through one network, "
        "forwards or backwards.",
        command=content.command,
        about=about(content),
        lists=[(title, pairs) for title, pairs in lists if pairs],
    )
