import csv
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from unperturbed import report
from unperturbed.records import SpecError
from unperturbed.report import tables
from unperturbed.report.numbers import MISSING, TIMES
from unperturbed.report.verdicts import answer, contrast_rows
from unperturbed.statistics import decide


class Page(HTMLParser):
    """What a page would load, where its text is, and whether its elements nest."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.loads, self.elements, self.texts, self.open, self.ids = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        names = ("src", "href", "xlink:href", "srcset", "data", "poster", "action", "background")
        self.loads += [(tag, attributes[name]) for name in names if attributes.get(name)]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def written(content, tmp_path_factory):
    return report.write(tmp_path_factory.mktemp("report"), content)


@pytest.fixture(scope="module")
def page(written):
    return Page(written.read_text(encoding="utf-8"))


def lines(path):
    with path.open(encoding="utf-8", newline="") as source:
        return list(csv.DictReader(source))


def test_the_page_loads_nothing_from_outside(page, written):
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "audio", "video", "base", "form"}
    assert [target for tag, target in page.loads if tag == "link"] == ["data:,"]
    for tag, target in page.loads:
        if tag == "a":
            assert target.startswith(("#", "tables/", "figures/"))
        elif tag != "link":
            assert target.startswith(("data:image/png;base64,", "#"))
    text = written.read_text(encoding="utf-8")
    assert "@import" not in text
    assert "url(" not in text


def test_the_page_is_well_formed_with_each_name_once(page):
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {target[1:] for tag, target in page.loads if tag == "a" and target.startswith("#")} <= set(page.ids)


def test_every_link_leads_to_a_file_that_was_written(page, written):
    targets = {target for tag, target in page.loads if tag == "a" and not target.startswith("#")}
    assert len(targets) == len(report.TABLES) + 7 * 3
    for target in targets:
        assert (written.parent / target).stat().st_size > 0


def test_the_page_says_everything_in_order(page, content):
    study = content.study
    said = [
        study.title, study.question, study.remarks[0], "Of 5 claims", "The main contrast is", "The catch:", "Claims",
        "How a claim is decided.", content.decisions.rule, "contrasts, at every epoch tested", "Figures",
        "R by epoch", "(paper: Table 1)", "Other measures and attacks", "R, running minimum ↑", "Adversarial examples",
        f"change {TIMES} 10", "Cost", "How this was made", content.command, "2.13.0",
    ]  # fmt: skip
    body, places = page.text, []
    for words in said:
        places.append(body.index(words, places[-1] if places else body.index("Unperturbed ·")))
    assert places == sorted(places)
    for claim in study.claims:
        assert claim.says in body


def test_the_numbers_of_the_page_are_those_of_the_tables(page, content):
    body = page.text
    for row in tables.robustness_rows(content):
        assert f"{row['mean']:.4f} {row['sd']:.4f} {row['n']} {100 * row['clean']:.1f}%" in body


def test_means_far_from_the_published_ones_are_flagged(page, content):
    far = sum(row["far"] for row in tables.robustness_rows(content))
    marked = [attributes for tag, attributes in page.elements if tag == "td" and "far" in attributes["class"].split()]
    assert len(marked) == far > 0


def test_verdicts_are_badges_of_their_own_colour(page, content):
    badges = [
        attributes["class"] for tag, attributes in page.elements if attributes.get("class", "").startswith("badge")
    ]
    assert badges[: len(content.study.claims)] == [f"badge {claim.verdict}" for claim in content.decisions.claims]


def test_pictures_are_shown_with_their_classes(page, content):
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) == 3 * (1 + 2 * 3)
    assert {"adversarial at ε = 8/255", "change at ε = 0.1, magnified 5 times"} <= {image["alt"] for image in images}
    assert "called 2" in page.text


def test_tables_are_written_at_full_precision_with_empty_fields_for_nothing(written, content, sparse, tmp_path):
    for name, make in report.TABLES.items():
        rows = make(content)
        found = lines(written.parent / "tables" / f"{name}.csv")
        assert [list(row) for row in found] == [list(row) for row in rows]
        for row, fields in zip(rows, found, strict=True):
            assert list(fields.values()) == ["" if value is None else str(value) for value in row.values()]
    report.write(tmp_path, sparse, formats=())
    assert lines(tmp_path / "tables" / "robustness.csv")[0]["sd"] == ""


EVIL = "</title></style><script>alert('x')</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}"


def test_no_text_of_a_study_becomes_markup(small, tmp_path):
    study = small.study
    evil = study.model_copy(
        update={
            "name": EVIL, "title": EVIL, "question": EVIL, "source": EVIL, "scale": EVIL, "remarks": (EVIL,),
            "settings": {EVIL: EVIL}, "architectures": {"lenet": EVIL, EVIL: EVIL},
            "conditions": {**study.conditions, EVIL: EVIL},
            "claims": tuple(claim.model_copy(update={"says": EVIL}) for claim in study.claims),
        }
    )  # fmt: skip
    claims = tuple(replace(claim, says=EVIL, reason=EVIL) for claim in small.decisions.claims)

    def renamed(rows):
        return [row._replace(condition=EVIL) if row.condition == "digits" else row for row in rows]

    page = Page(
        report.write(
            tmp_path,
            replace(
                small,
                study=evil,
                curves=renamed(small.curves),
                measurements=renamed(small.measurements),
                decisions=replace(small.decisions, claims=claims, rule=EVIL),
                pictures=tuple(replace(picture, label=EVIL, condition=EVIL) for picture in small.pictures),
                versions={EVIL: EVIL},
                command=EVIL,
                created=EVIL,
            ),
            formats=("html",),
        ).read_text(encoding="utf-8")
    )
    assert not [tag for tag, _ in page.elements if tag == "script"]
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert all(target.startswith("data:image/png") for tag, target in page.loads if tag == "img")
    assert page.open == []
    assert "".join(page.texts).count(EVIL) > 20


def test_missing_pieces_are_dashes(sparse, tmp_path):
    page = Page(report.write(tmp_path, sparse, formats=("html",)).read_text(encoding="utf-8"))
    assert "objects epoch mean SD n f(ε₀) 1 - - 0 - 5 - - 0 - 20 - - 0 -" in page.text.replace(MISSING, "-")
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert "Adversarial examples" not in page.text
    assert "None" not in page.text
    assert "nan" not in page.text.lower().split()


def test_a_study_of_which_nothing_was_run_is_a_page_too(small, tmp_path):
    empty = replace(small, curves=[], measurements=[], costs=[], pictures=(), decisions=decide(small.study, []))
    page = Page(report.write(tmp_path, empty).read_text(encoding="utf-8"))
    assert "No contrast that would decide a claim has been measured yet." in page.text
    assert "Figures" not in page.text
    assert page.open == []


def test_a_cell_that_was_measured_but_not_planned_is_shown(small, tmp_path):
    point = small.curves[0]._replace(condition="surprise")
    measured = small.measurements[1]._replace(condition="surprise", value=0.125)
    extra = replace(small, curves=[*small.curves, point], measurements=[*small.measurements, measured])
    page = Page(report.write(tmp_path, extra, formats=("html",)).read_text(encoding="utf-8"))
    assert "surprise epoch mean SD n f(ε₀) 1 0.1250 - 1" in page.text.replace(MISSING, "-")


def test_only_the_formats_asked_for_are_written(small, tmp_path):
    path = report.write(tmp_path / "new" / "folder", small, formats=("html", "svg"))
    assert path == tmp_path / "new" / "folder" / "report.html"
    assert {file.suffix for file in (path.parent / "figures").iterdir()} == {".svg"}
    assert "PNG" not in Page(path.read_text(encoding="utf-8")).texts


def test_an_unknown_format_is_refused_before_anything_is_written(content, tmp_path):
    with pytest.raises(SpecError, match=r"^report: no format 'gif'\. It has: html, svg, png, pdf\.$"):
        report.write(tmp_path / "new", content, formats=("html", "gif"))
    assert not (tmp_path / "new").exists()


def test_published_values_without_a_deviation_have_a_mean_and_nothing_else(content, tmp_path):
    published = tuple(value.model_copy(update={"sd": None}) for value in content.study.published)
    study = content.study.model_copy(update={"published": published})
    bare = replace(content, study=study, decisions=decide(study, content.measurements))
    rows = tables.robustness_rows(bare)
    assert {row["published_mean"] for row in rows} > {None}
    assert {(row["published_sd"], row["deviation"], row["far"]) for row in rows} == {(None, None, False)}
    assert {row["published_p"] for row in contrast_rows(bare)} == {None}
    page = Page(report.write(tmp_path, bare, formats=("html",)).read_text(encoding="utf-8"))
    assert "0.5200 vs 0.0972 epoch 20 " in page.text
    assert f"± {MISSING}" not in page.text
    assert "nan" not in page.text.lower().split()


def test_a_contrast_of_two_attacks_on_the_same_networks_names_both(defences, tmp_path):
    page = Page(report.write(tmp_path, defences, formats=("html",)).read_text(encoding="utf-8"))
    between = "lenet noise-injection vs noise-injection under pgd at epoch 15"
    assert f"{between} accuracy at 8/255 under pgd-eot against pgd" in page.text
    (row,) = [row for row in contrast_rows(defences) if row["claim"] == "PNI6"]
    assert (row["left_attack"], row["right_attack"], row["measure"]) == ("pgd-eot", "pgd", "A_8_255")
    claim = [claim for claim in defences.study.claims if claim.id == "PNI6"]
    study = defences.study.model_copy(update={"claims": tuple(claim)})
    _, main, catch = answer(replace(defences, study=study, decisions=decide(study, defences.measurements)))
    assert f"{between}: accuracy at 8/255 under pgd-eot where no other attack is named is 0.5" in main
    assert catch.startswith("The catch: both sides are the same networks, so what differs is the attack; recipe,")


def test_a_picture_says_original_label_attack_and_what_it_is_called(defences, tmp_path):
    page = Page(report.write(tmp_path, defences, formats=("html",)).read_text(encoding="utf-8"))
    assert "trades: original label photograph 7, attack pgd-eot, called photograph 2" in page.text
    assert "lenet under carlini-wagner" in page.text
    assert "All 4 contrasts, at every epoch tested" in page.text
