"""An exported page draws every figure from a file, with the network blocked."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request

import workbench as wb
from browser.jupyter import ROOT, keep
from pages_of_notebooks import full

pytestmark = pytest.mark.browser
PLOTS = "Array.from(document.querySelectorAll('.js-plotly-plot'), one => "
DRAWN = f"() => {PLOTS} one.querySelectorAll('.scatterlayer .trace path').length)"
HEIGHTS = f"() => {PLOTS} one._fullData[0].y[1])"
PICTURES = "() => Array.from(document.images, one => one.complete && one.naturalWidth)"


@pytest.fixture
def offline(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """A page without a network, and what it asked for, was refused or failed in."""
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 900})
    problems: list[str] = []
    context.route("http*://**", lambda route: route.abort())
    page = context.new_page()

    def asked(request: Request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            problems.append(request.url)

    def told(message: ConsoleMessage) -> None:
        if message.type == "error":
            problems.append(message.text)

    page.on("request", asked)
    page.on("console", told)
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page, problems
    context.close()


def test_each_figure_has_drawn(offline: tuple[Page, list[str]], tmp_path: Path) -> None:
    page, problems = offline
    page.goto(wb.export(full(tmp_path)).as_uri())
    page.wait_for_function("() => document.querySelectorAll('.js-plotly-plot .main-svg').length >= 8")
    assert page.locator(".modebar-btn").count() and not page.locator(".modebar-btn[data-title^='Share']").count()
    assert all(paths >= 1 for paths in page.evaluate(DRAWN)) and page.evaluate(HEIGHTS) == [2, 3, 4, 5]
    widths = page.evaluate(PICTURES)
    assert len(widths) == 4 and all(widths)
    assert page.locator("math").count() == 3 and page.locator("math").first.bounding_box() is not None
    box = page.locator(".js-plotly-plot").first.locator(".scatterlayer .points path").last.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2 - 20, box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    page.wait_for_function("() => document.querySelector('.hoverlayer .hovertext')")
    assert problems == []


@pytest.mark.parametrize("name", ["start", "signatures"])
def test_our_notebooks_show_every_picture(name: str, offline: tuple[Page, list[str]], tmp_path: Path) -> None:
    page, problems = offline
    page.goto(wb.export(ROOT / "notebooks" / f"{name}.ipynb", tmp_path / "page.html").as_uri())
    widths = page.evaluate(PICTURES)
    assert widths and all(widths) and problems == []
    page.locator("img").first.evaluate("element => element.scrollIntoView({ block: 'center' })")
    keep(page, f"exported-{name}")
