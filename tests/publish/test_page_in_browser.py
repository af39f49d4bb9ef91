"""The page as a person meets it: in a real browser, by mouse and keyboard, wide and narrow, light and dark.

The page's policy lets no string be run as a script, so nothing here waits by one.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import published_pages
from tests.published_pages import HOSTILE

pytestmark = pytest.mark.browser
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: make test-browser")
    found = os.environ.get("LONGTAIL_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("needs a browser: apt-get install chromium, or name one in LONGTAIL_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        # what a container's root may not use: Chromium's own sandbox
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    runs = published_pages.cells(folder, seeds=(0, 1))
    return published_pages.page(folder, runs, figures=[figure(folder)])


def figure(folder: Path) -> dict[str, str]:
    from PIL import Image

    Image.new("RGB", (1500, 600), "white").save(folder / "wide.png")
    return {"name": "wide_figure", "file": str(folder / "wide.png"), "caption": "What is seen. And more."}


@pytest.fixture
def opened(browser, file) -> Iterator[Any]:
    """Opens the page in a fresh context; at the end nothing was said on the console, and nothing loaded."""
    said: list[str] = []
    asked: list[str] = []
    contexts = []

    def visit(**options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()] * len(contexts)


def test_a_column_sorts_by_its_numbers_then_the_other_way_then_as_it_was(opened):
    page = opened(viewport=WIDE)
    assert page.title() == "Results: photos"  # no name has made itself a script
    table = page.locator("table").first
    head = table.get_by_role("columnheader", name="all", exact=True)
    before = table.locator("tbody tr").all_inner_texts()

    def numbers() -> list[float]:
        cells = table.locator("tbody td[data-key]:nth-child(2)")
        return [float(cell.get_attribute("data-key")) for cell in cells.all()]

    made = numbers()
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert numbers() == sorted(made, reverse=True)
    assert table.locator("tbody tr").last.locator("td:nth-child(2)").inner_text() == ""  # no number: last
    assert page.get_by_role("status").inner_text() == "Sorted by all, descending."
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert numbers() == sorted(made)
    assert table.locator("tbody tr").last.locator("td:nth-child(2)").inner_text() == ""
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") is None
    assert table.locator("tbody tr").all_inner_texts() == before
    method = table.get_by_role("columnheader", name="method", exact=True)
    method.get_by_role("button").click()
    assert method.get_attribute("aria-sort") == "ascending"


def test_the_keyboard_alone_skips_sorts_and_scrolls(opened):
    page = opened(viewport=PHONE)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"
    region = page.locator("div.scroll").first
    region.focus()
    page.keyboard.press("ArrowRight")
    for _ in range(100):
        if page.evaluate("document.activeElement.scrollLeft > 0"):
            break
        page.wait_for_timeout(20)
    assert page.evaluate("document.activeElement.scrollLeft > 0")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort]").count() == 1
    summary = page.locator("summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.evaluate("element => element.open")


@pytest.mark.parametrize("viewport", [PHONE, WIDE], ids=["phone", "wide"])
def test_the_page_does_not_scroll_sideways(opened, viewport):
    page = opened(viewport=viewport)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    right = "[...document.body.querySelectorAll('p, h1, h2, h3, h4, li, dl, .scroll, pre, footer')]"
    assert page.evaluate(f"{right}.every(one => one.getBoundingClientRect().right <= innerWidth + 1)")


def test_a_screen_reader_is_told_landmarks_headings_and_tables(opened):
    page = opened(viewport=WIDE)
    for role in ("banner", "navigation", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1
    assert page.get_by_role("heading", level=1).inner_text() == "Results: photos"
    assert page.get_by_role("heading", level=2, name="Where it errs").count() == 1
    table = page.get_by_role("table", name="Wrong answers by pair of classes")
    assert table.count() == 1
    assert table.get_by_role("rowheader").first.inner_text() in published_pages.NAMES
    assert page.get_by_role("img", name="taken for").count() > 0
    seen = page.locator("main").aria_snapshot()
    assert HOSTILE in seen.replace("\\", "")  # said as a text


def test_pictures_and_figures_are_seen(opened):
    page = opened(viewport=WIDE)
    assert page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    assert page.evaluate("document.images.length") > 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, WIDE], ids=["phone", "wide"])
def test_axe_finds_nothing(opened, scheme, viewport):
    """Rules of WCAG 2.2 A and AA and best practices, contrast among them; axe runs outside of the policy."""
    module = pytest.importorskip("axe_playwright_python")
    script = (Path(str(module.__file__)).parent / "axe.min.js").read_text("utf-8")
    page = opened(viewport=viewport, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    page.evaluate(script)
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 20
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []


def test_motion_is_reduced_where_a_person_asks_for_it(opened):
    behaviour = "getComputedStyle(document.documentElement).scrollBehavior"
    assert opened(viewport=WIDE).evaluate(behaviour) == "smooth"
    assert opened(viewport=WIDE, reduced_motion="reduce").evaluate(behaviour) == "auto"


def test_without_scripts_everything_is_there_but_the_sorting(opened):
    page = opened(viewport=WIDE, java_script_enabled=False)
    assert page.get_by_role("table").count() > 3
    assert page.get_by_role("button").count() == 0
    assert page.get_by_role("columnheader", name="all", exact=True).count() == 1
