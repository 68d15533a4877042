import base64
import io
import json
import math
import runpy
import shutil
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unperturbed.audit import record
from unperturbed.report import audit_page
from unperturbed.report.audit_page import bins, draw, flags_view, write_audit
from unperturbed.report.numbers import MISSING, TIMES

SAMPLES = runpy.run_path(str(Path(__file__).with_name("audit_samples.py")))["SAMPLES"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """What a page would load, its text, which parts it has, and whether its elements nest."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.loads, self.tags, self.words, self.open, self.ids = [], set(), [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags |= {tag, *attributes}
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.loads += [(tag, attributes[name]) for name in ("src", "href", "xlink:href") if attributes.get(name)]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_data(self, data):
        if not {"style", "svg"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page_of(folder, audit):
    return Page(write_audit(folder, audit).read_text(encoding="utf-8"))


def test_both_files_are_written_whole_and_replace_older_ones(tmp_path):
    folder = tmp_path / "new" / "folder"
    page = write_audit(folder, SAMPLES["suspect"]())
    audit = SAMPLES["illusory"]()
    assert write_audit(folder, audit) == page == folder / "audit.html"
    assert sorted(path.name for path in folder.iterdir()) == ["audit.html", "audit.json"]
    assert json.loads((folder / "audit.json").read_text(encoding="utf-8")) == audit
    assert list(json.loads((folder / "audit.json").read_text(encoding="utf-8"))) == list(audit)
    assert "Audit of lwta.py:make_model: illusory" in page.read_text(encoding="utf-8")


def test_numbers_that_do_not_exist_are_refused_before_the_older_page_is_touched(tmp_path):
    audit = SAMPLES["suspect"]()
    page = write_audit(tmp_path, audit).read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_audit(tmp_path, audit | {"R": math.nan})
    assert (tmp_path / "audit.html").read_bytes() == page


@pytest.mark.parametrize("name", SAMPLES)
def test_the_page_nests_and_loads_nothing_from_outside(tmp_path, name):
    page = page_of(tmp_path, SAMPLES[name]())
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert not page.tags & {"script", "iframe", "object", "embed", "form", "onerror", "onclick"}
    assert all(target.startswith("data:image/png;base64,") for tag, target in page.loads if tag == "img")
    links = {target for tag, target in page.loads if tag == "a"}
    assert {link[1:] for link in links if link.startswith("#")} <= set(page.ids)
    assert {link for link in links if not link.startswith("#")} == {"audit.json"}
    text = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_says_everything_in_order(tmp_path):
    audit = SAMPLES["illusory"]()
    text = page_of(tmp_path, audit).text
    said = [
        audit["data"], audit["name"], "linf, ε = 8/255, budget quick", audit["remarks"][0], "illusory", *audit["reasons"],
        "84.2% clean 80.7% to 87.1% 500 images", "78.4% after a plain attack 74.6% to 81.8% 76.8% after the suite",
        "0.2% after all attacks 0.0% to 1.1% broken by pgd through temperature x67 (0.01 to 0.67)", "R = 0.0562, from 0 to ε = 0.125",
        "8/255 0.0%", "25% of the images 0.00215",
        "adaptive, through temperature x67 (0.01 to 0.67) 0.4% (76.4%) 380 (382) 371", "4 of 17 checks fired",
        "answered C10: random answers", audit["flags"][8]["says"], "Measured by five runs on the same images.",
        "Remedy: Attack the expectation. 0.83 (0.0001)", "clear C1: more steps still help", "2 checks that do not apply",
        "C7: transfer beats white box", "temperature x10", "86.0% 0.050 0.204 (0.176) not attacked",
        "one draw: mean ± SD over 20 draws 84.2% ± 0.6% 0.2% ± 0.2%", "majority of 20 draws 85.2% 0.0%",
        "class 0 becomes 3", f"original class 0 change {TIMES} 10 pgd adversarial called 3", "the whole audit 48.7 s",
        "8/255 (0.0313725)", audit["digest"], "steps 20, step_size 0.0078", "torch 2.13.0",
    ]  # fmt: skip
    places = [0]
    for words in said:
        assert words in text[places[-1] :], words
        places.append(text.index(words, places[-1]))


def test_parts_without_content_are_left_out(tmp_path):
    audit = SAMPLES["trustworthy"]() | {"pictures": []}
    page = page_of(tmp_path, audit)
    assert not {"variants", "random", "examples"} & set(page.ids)
    assert "Randomness" not in page.text
    assert "None" not in page.text


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_have_the_shape_of_an_audit(name):
    sample = SAMPLES[name]()
    assert list(sample) == [field.name for field in fields(record.Audit)]
    assert {field.name for field in fields(record.Attempt)} <= set(sample["attacks"][0])
    assert {field.name for field in fields(record.Flag)} == set(sample["flags"][0])
    assert set(record.Picture._fields) == set(sample["pictures"][0])
    assert all(set(record.Standing._fields) == set(variant) for variant in sample["variants"])
    assert sample["random"] is None or set(record.Randomness._fields) <= set(sample["random"])


def test_what_could_not_be_measured_is_a_dash_or_left_out(tmp_path):
    audit = SAMPLES["illusory"]() | {"R": None, "broken_by": None}
    for row in audit["attacks"]:
        del row["alone"]
    del audit["random"]["single_interval"]
    audit["variants"][0] |= dict.fromkeys(["cosine", "sign_agreement", "chance"])
    audit["flags"][0] |= {"value": None, "threshold": None}
    text = page_of(tmp_path, audit).text.replace(MISSING, "-")
    assert "R = -, from 0" in text
    assert "attack left (from) broke (of) pgd plain, through the model itself 78.4% (84.2%) 29 (421) apgd" in text
    assert "as deployed nothing changed 84.2% - - (-) 76.4%" in text
    assert "a single draw" not in text
    assert "None" not in text


def test_an_audit_in_which_nothing_was_broken_is_a_page_too(tmp_path):
    audit = SAMPLES["trustworthy"]() | {"critical_eps": {"quartiles": [0.0, None, None], "values": [0, None, None]}}
    page = page_of(tmp_path, audit)
    assert "figure-curve" in page.ids
    assert "figure-critical" not in page.ids


def test_foreign_words_stay_words(tmp_path):
    evil = "<script>alert('x')</script><img src=x onerror=y>&lt;"
    audit = SAMPLES["illusory"]()
    audit |= {
        "name": evil,
        "data": evil,
        "reasons": [evil],
        "remarks": [evil],
        "broken_by": evil,
        "versions": {evil: evil},
    }
    for row in (audit["attacks"][0], audit["flags"][0], audit["variants"][0], audit["pictures"][0]):
        row |= dict.fromkeys(
            ["name", "through", "says", "evidence", "remedy", "attack", "label", "prediction"] & row.keys(), evil
        )
    audit["attacks"][0]["settings"] = {evil: evil}
    page = page_of(tmp_path, audit)
    assert not page.tags & {"script", "onerror"}
    assert page.open == []
    assert page.text.count(evil) > 15


def test_bins_count_each_broken_image_once():
    values = [0.0, None, 0.25, 0.5, 1.0, 2.0, 2.0]
    rows = bins({"critical_eps": {"values": values}})
    assert sum(row["images"] for row in rows) == 5
    assert (rows[0]["from"], rows[-1]["to"]) == (0.0, 2.0)
    for value in (0.25, 1.0, 2.0):
        assert any(row["images"] and row["from"] <= value <= row["to"] for row in rows)
    assert rows[-1]["images"] == 2
    assert bins({"critical_eps": {"values": [0.0, None]}}) == []


def test_the_drawings_hold_the_numbers_of_the_audit():
    audit = SAMPLES["suspect"]()
    (curve, _), (critical, _) = draw(audit)
    drawn = [layer["data"]["values"] for layer in json.loads(curve.specification())["layer"]]
    assert audit["curve"] in drawn
    assert [{"eps": 0.5, "low": 0.3156, "high": 0.4489, "accuracy": 0.47}] in drawn
    assert [{"accuracy": 0.1}] in drawn  # chance
    assert "ε (l2, full scale = 1)" in curve.specification()
    assert sum(row["images"] for row in bins(audit)) == 127
    assert "127 of 200 images; 53 are misclassified without a change and 20 were never broken" in critical.caption


def test_open_doubts_come_first():
    audit = SAMPLES["suspect"]()
    rows = flags_view([flag for flag in audit["flags"] if flag["applies"]]).rows
    assert [row.cells[0].text for row in rows[:3]] == ["open", "answered", "clear"]
    assert rows[0].cells[0].below == ("C1: more steps still help",)
    assert "Remedy: Use more steps." in rows[0].cells[1].below
    assert "Remedy: Look at the gradients." not in {
        line for row in rows for line in row.cells[1].below
    }  # C3 did not fire


def test_pictures_are_the_images_and_the_magnified_change():
    audit = SAMPLES["illusory"]()
    example = audit_page.pictures(audit)[2]
    decoded = []
    for tile in example.tiles:
        with Image.open(io.BytesIO(base64.b64decode(tile.image.partition(",")[2]))) as image:
            decoded.append(np.asarray(image).transpose(2, 0, 1) / 255)
    original, change, adversarial = decoded
    np.testing.assert_allclose(original, audit["pictures"][2]["original"], atol=0.5 / 255 + 1e-9)
    np.testing.assert_allclose(adversarial, audit["pictures"][2]["adversarial"], atol=0.5 / 255 + 1e-9)
    difference = np.subtract(audit["pictures"][2]["adversarial"], audit["pictures"][2]["original"])
    np.testing.assert_allclose(change, 0.5 + 10 * difference, atol=0.5 / 255 + 1e-9)
    assert [tile.fooled for tile in example.tiles] == [False, False, True]


def test_images_that_are_no_pictures_are_left_out():
    audit = SAMPLES["illusory"]()
    audit["pictures"][0] |= {"original": [[[0.5]]] * 4, "adversarial": [[[0.5]]] * 4}
    assert len(audit_page.pictures(audit)) == len(audit["pictures"]) - 1


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.mark.browser
@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("illusory", 1280, "light"), ("illusory", 400, "dark"), ("trustworthy", 400, "light"), ("suspect", 1280, "dark")],
)
def test_the_page_opens_offline_without_errors_requests_or_overflow(browser, tmp_path, name, width, scheme):
    audit = SAMPLES[name]()
    audit["attacks"][0]["through"] = "a_variant_with_a_name_that_has_no_space_to_break_at_" * 3
    address = write_audit(tmp_path, audit).as_uri()
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page = context.new_page()
    errors, requests = [], []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.locator("details summary").click()
    assert errors == []
    assert [url for url in requests if not url.startswith("data:")] == [address]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.locator("figure svg").count() == 2
    for drawing in page.locator("figure svg").all():  # readable without scrolling inside
        box = drawing.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    ink = page.locator("figure svg text").first.evaluate("node => getComputedStyle(node).fill")
    assert ink == page.evaluate("getComputedStyle(document.body).color")
    assert page.get_by_text("Accuracy over ε").first.is_visible()
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 50_000
    context.close()
