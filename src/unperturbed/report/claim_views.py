"""The tables of claims and contrasts as text."""

from __future__ import annotations

import re

from unperturbed.report import tables, verdicts
from unperturbed.report.content import Content
from unperturbed.report.numbers import MISSING, RHO, decimals, interval, percent, probability, signed, whole
from unperturbed.report.numbers import spread as with_spread
from unperturbed.report.views import Column, Line, Text, View, texts


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
                Text(decimals(row["left"]), below=(f"vs {decimals(row['right'])}",) if row["attack"] else ()),
                published_pair(row),
            )
        )
        for row in verdicts.claims_rows(content)
    ]
    return View(columns, rows)


def claims_note(content: Content) -> str:
    """Return what the numbers in the table of claims are."""
    measure = tables.main_measure(content)
    return (
        "Numbers are those of the contrast named below each claim, the weakest that has the verdict. Effect: "
        f"difference of the means of {tables.name_of(measure)} ({tables.unit_of(content, measure)}), left minus right, "
        f"with its {1 - content.decisions.alpha:.0%} interval, not adjusted; n: matched seeds. "
        + (
            "Published means are of the same epoch."
            if content.study.comparable
            else "Published means are of the published epoch that stands for ours, and show direction, not size."
        )
        + (
            f" Of an association, effect is Spearman's {RHO}, p is by exchanging conditions and not adjusted, and n "
            "counts networks."
            if content.decisions.relations
            else ""
        )
    )


def explanation(row: tables.Row, content: Content) -> tuple[str, ...]:
    """Return the contrast that decides a claim and the reason of the verdict, without saying the same twice."""
    contrast = "" if named_in(row["reason"], row["contrast"] or "") else row["contrast"]
    pairs = {(row[side], row["measure"]) for side in ("attack", "left_attack", "right_attack") if row[side]}
    unlike = pairs and pairs != {(tables.main_attack(content), tables.main_measure(content))}
    other = f"{tables.name_of(row['measure'])} {under(content, row)}" if unlike else ""
    margin = "" if row["margin"] is None else f"no difference: none beyond {row['margin']:g}"
    return tuple(filter(None, (contrast, row["reason"], other, margin)))


def named_in(reason: str, contrast: str) -> bool:
    """Return whether a reason names a contrast, by itself or with others of the same left side.

    >>> named_in("net a vs b and c at epoch 1: found less", "net a vs c at epoch 1")
    True
    """
    left, versus, rest = contrast.partition(" vs ")
    right, at, epoch = rest.rpartition(" at epoch ")
    whole = re.search(rf"(?<![\w-]){re.escape(right)}(?![\w-])", reason)
    return whole is not None and left + versus in reason and at + epoch in reason


def under(content: Content, row: tables.Row) -> str:
    """Return what both sides of a claim's contrast were put to: attacks are under, examinations are by."""
    named = list(dict.fromkeys(row[side] or row["attack"] for side in ("left_attack", "right_attack")))
    word = "by" if set(named) <= tables.examination_plans(content).keys() else "under"
    return f"{word} {' against '.join(named)}"


def published_pair(row: tables.Row) -> Text:
    """Return the published means of both sides of a contrast, with their epoch and Welch's p."""
    if row["published_left"] is None:
        return Text(MISSING)
    right = f"vs {decimals(row['published_right'])}"
    p = "" if row["published_p"] is None else f", p {verdicts.equals(row['published_p'])}"
    return Text(decimals(row["published_left"]), below=(right, f"epoch {row['published_epoch']}{p}"))


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
                    Text(row["expected"], below=() if row["margin"] is None else (f"beyond {row['margin']:g}",)),
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


def associations_view(content: Content) -> View | None:
    """Return the table of all associations, None where no claim has one that was measured."""
    columns = (
        Column("association", "words"), Column("expected"), Column("outcome"),
        Column(f"{RHO} [interval]", "number", ("p",)), Column("networks", "number", ("of conditions", "and subjects")),
        Column("mixed effects", "number", ("slope [interval]", "p")),
        Column("Pearson", "number", ("p if independent",)),
    )  # fmt: skip
    lines = [
        Line(
            (
                Text(
                    f"{row['claim']}: {row['association']}",
                    below=tuple(filter(None, ("" if row["primary"] else "secondary", row["reason"]))),
                ),
                Text(row["expected"]),
                Text(row["outcome"], badge=row["outcome"], below=(f"found: {row['detected']}",)),
                Text(signed(row["rho"]), below=(interval(row["low"], row["high"]), probability(row["p"]))),
                Text(whole(row["networks"]), below=groups(row)),
                slope(row),
                Text(signed(row["pearson"], 2), below=(probability(row["p_pearson"]),)),
            )
        )
        for row in verdicts.association_rows(content)
    ]
    return View(columns, lines) if lines else None


def groups(row: tables.Row) -> tuple[str, ...]:
    """Return of how many conditions the networks are and, where they have subjects, of how many of these."""
    crossed = "" if row["resampled"] == "conditions" else ", resampled"
    subjects = () if row["subjects"] is None else (f"{whole(row['subjects'])} subjects{crossed}",)
    return (f"of {whole(row['conditions'])}", *subjects)


def slope(row: tables.Row) -> Text:
    """Return the slope of the model with mixed effects with its interval and p, or that there is none."""
    if row["slope"] is None:
        return Text(MISSING if row["rival"] else "not estimable")
    limits = interval(row["slope_low"], row["slope_high"], 2)
    return Text(signed(row["slope"], 2), below=(limits, probability(row["p_slope"])))
