import shutil

import pytest

from unperturbed import report

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def address(content, tmp_path_factory):
    return report.write(tmp_path_factory.mktemp("browser"), content, formats=("html",)).as_uri()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light")])
def test_the_page_opens_offline_without_errors_requests_or_overflow(browser, address, tmp_path, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page = context.new_page()
    errors, requests = [], []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    for details in page.locator("details").all():
        details.locator("summary").click()
    assert errors == []
    assert [url for url in requests if not url.startswith("data:")] == [address]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.locator("figure svg").count() == 7
    ink = page.locator("figure svg text").first.evaluate("node => getComputedStyle(node).fill")
    assert ink == page.evaluate("getComputedStyle(document.body).color")
    screenshot = tmp_path / "page.png"
    page.screenshot(path=screenshot, full_page=True)
    assert screenshot.stat().st_size > 100_000
    context.close()


def test_contents_stay_in_sight_on_a_wide_screen(browser, address):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address)
    page.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
    page.locator("nav a", has_text="Cost").click()
    page.wait_for_function("window.scrollY > 1000")
    assert page.locator("nav a").first.evaluate("node => node.getBoundingClientRect().top") >= 0
    assert page.locator("#cost h2").evaluate("node => node.getBoundingClientRect().top") < 900
    page.close()


@pytest.mark.parametrize("width", [1280, 400])
def test_a_wide_table_scrolls_in_its_own_box_and_keeps_its_first_column_in_sight(browser, defences, tmp_path, width):
    address = report.write(tmp_path, defences, formats=("html",)).as_uri()
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(address)
    for details in page.locator("details").all():
        details.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("figure svg").count() == 9
    box = page.locator("#overview .scroll")
    assert box.evaluate("node => node.scrollWidth > node.clientWidth")
    first = box.locator("tr", has_text="winner-take-all-hot").locator("td").first
    before = first.evaluate("node => node.getBoundingClientRect().left")
    box.evaluate("node => { node.scrollLeft = 500 }")
    assert box.evaluate("node => node.scrollLeft") == 500
    assert first.evaluate("node => node.getBoundingClientRect().left") == pytest.approx(before, abs=1)
    page.close()
