"""From the record of a study and its rows to tables, figures and one self-contained page."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from unperturbed.records import SpecError
from unperturbed.report import tables
from unperturbed.report.associations import network_rows
from unperturbed.report.confidence import confidence_rows, reliability_rows
from unperturbed.report.content import Confidence, Content, Picture, Shown
from unperturbed.report.costs import cost_rows, stage_rows
from unperturbed.report.drawing import converted, svg
from unperturbed.report.eeg import channel_group_rows, gain_map_rows, gain_rows, prediction_rows
from unperturbed.report.figures import draw
from unperturbed.report.geometry import exponent_rows, plane_rows, spectrum_rows
from unperturbed.report.overview import overview_rows
from unperturbed.report.page import render
from unperturbed.report.similarity import similarity_rows
from unperturbed.report.verdicts import association_rows, claims_rows, contrast_rows

__all__ = ["FORMATS", "OPTIONAL", "TABLES", "Confidence", "Content", "Picture", "Shown", "claims_rows", "write"]

FORMATS = ("html", "svg", "png", "pdf")
TABLES = {
    "claims": claims_rows,
    "contrasts": contrast_rows,
    "curves": tables.curve_rows,
    "robustness": tables.robustness_rows,
    "seeds": tables.seed_rows,
    "attacks": tables.attack_rows,
    "measures": tables.measure_rows,
    "costs": cost_rows,
    "stages": stage_rows,
}
OPTIONAL = {  # written where a study has what they are about
    "associations": association_rows,
    "networks": network_rows,
    "overview": overview_rows,
    "eeg-prediction": prediction_rows,
    "gains": gain_rows,
    "gain-maps": gain_map_rows,
    "channel-groups": channel_group_rows,
    "similarity": similarity_rows,
    "spectra": spectrum_rows,
    "exponents": exponent_rows,
    "planes": plane_rows,
    "confidence": confidence_rows,
    "reliability": reliability_rows,
}


def write(folder: Path, content: Content, *, formats: Sequence[str] = FORMATS) -> Path:
    """Write the report into ``folder`` and return the path of ``report.html`` (of ``folder`` without that format).

    Beside the page: ``tables/*.csv``, each table at full precision, and ``figures/*`` in the other formats.

    Raises:
        SpecError: a format that is not one of ``FORMATS``.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise SpecError(f"report: no format {unknown[0]!r}. It has: {', '.join(FORMATS)}.")
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    for name, make in TABLES.items():
        save(folder / "tables" / f"{name}.csv", make(content))
    for name, make in OPTIONAL.items():
        if rows := make(content):
            save(folder / "tables" / f"{name}.csv", rows)
    figures = draw(content)
    drawings = {figure.name: svg(figure) for figure in figures}
    kinds = [kind for kind in formats if kind != "html"]
    for kind in kinds:
        (folder / "figures").mkdir(exist_ok=True)
        for name, drawing in drawings.items():
            (folder / "figures" / f"{name}.{kind}").write_bytes(converted(drawing, kind))
    if "html" not in formats:
        return folder
    page = folder / "report.html"
    page.write_text(render(content, figures, drawings, kinds), encoding="utf-8")
    return page


def save(path: Path, rows: list[tables.Row]) -> None:
    """Write rows as comma-separated values with a header; an empty field is a number that does not exist."""
    with path.open("w", newline="", encoding="utf-8") as target:
        if rows:
            writer = csv.DictWriter(target, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
