"""The report in a real browser: it draws without errors, switches, is dark and narrow where asked, and prints.

Needs Playwright and a Chromium of the system (`apt-get install chromium`); skips without them.
"""

import os
import shutil
from collections.abc import Iterator

import pytest

from featurestore.store import open_store
from heads.report import write_report
from heads.train import train_grid

from .stores import make_store, toy_grid

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("browser")
    store = make_store(folder / "store", subjects=60)
    methods = ["image", "distill", "distill-shuffled"]
    train_grid(store, toy_grid(method=methods, fraction=[0.5, 1.0], seed=3, epochs=2))
    write_report(open_store(folder / "store"), folder / "report.html")
    return f"file://{folder}/report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as driver:
        sandbox = [] if os.geteuid() else ["--no-sandbox"]  # Chromium refuses its sandbox to root
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield opened
        opened.close()


def opened(browser, url: str, **how):
    """The page, drawn, in a browser without a network; and what the console said."""
    page = browser.new_context(offline=True, **how).new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(request.url))
    page.goto(url)
    drawn(page, 1)
    return page, said


def drawn(page, turn: int) -> None:
    page.wait_for_function(f"Number(document.documentElement.dataset.drawn) >= {turn}", timeout=60_000)


def texts(page) -> str:
    return page.evaluate("[...document.querySelectorAll('.chart svg.marks text')].map(t => t.textContent).join(' ')")


def test_it_draws_every_figure_without_a_word_on_the_console(report, browser):
    page, said = opened(browser, report, viewport={"width": 1200, "height": 800})
    assert said == []
    n_charts = page.locator("[data-chart]").count()
    assert n_charts == 6
    assert page.locator(".chart svg.marks").count() == n_charts
    assert page.evaluate("[...document.querySelectorAll('.chart svg.marks')].every(s => s.getBBox().height > 50)")
    assert page.title() == "Results of a study"


def test_the_switch_changes_every_figure_that_has_both_metrics(report, browser):
    page, said = opened(browser, report)
    before = texts(page)
    assert "mean test AUROC" in before
    assert "AUPRC" not in before
    page.get_by_label("AUPRC").check()
    drawn(page, 2)
    after = texts(page)
    assert "mean test AUPRC" in after
    assert "AUROC" not in after
    page.keyboard.press("ArrowLeft")  # the radio buttons answer to keys
    drawn(page, 3)
    assert texts(page) == before
    assert said == []


def test_it_is_dark_where_the_system_is_and_where_the_reader_says(report, browser):
    for scheme, first, second in (
        ("dark", "rgb(22, 24, 29)", "rgb(255, 255, 255)"),
        ("light", "rgb(255, 255, 255)", "rgb(22, 24, 29)"),
    ):
        page, said = opened(browser, report, color_scheme=scheme)
        background = "getComputedStyle(document.body).backgroundColor"
        ink = "getComputedStyle(document.querySelector('.chart svg.marks text')).fill"
        assert page.evaluate(background) == first
        inks = [page.evaluate(ink)]
        page.get_by_role("button", name="Dark page").click()
        drawn(page, 2)
        assert page.evaluate(background) == second
        inks.append(page.evaluate(ink))
        assert inks[0] != inks[1]
        assert said == []


def test_a_phone_scrolls_down_alone(report, browser):
    page, said = opened(browser, report, viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("[...document.querySelectorAll('.chart svg.marks')].every(s => s.clientWidth <= 360)")
    for details in page.locator("main details").all():
        details.evaluate("d => d.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert said == []


def test_keys_reach_everything_and_sql_is_copied(report, browser):
    page, _ = opened(browser, report, permissions=["clipboard-read", "clipboard-write"])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    page.locator("#curves > details > summary").last.focus()
    page.keyboard.press("Enter")
    page.locator("#curves .copy").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#curves .copy').textContent == 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#curves pre").first.text_content()


def test_it_prints_every_section(report, browser):
    page, _ = opened(browser, report)
    assert len(page.pdf()) > 50_000
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.locator("#provenance").is_visible()


def test_without_scripts_the_tables_are_there(report, browser):
    page = browser.new_context(offline=True, java_script_enabled=False).new_page()
    page.goto(report)
    assert page.locator("#provenance table").count() >= 4
    assert page.locator("noscript").count() == 1
