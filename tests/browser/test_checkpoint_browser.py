"""The checkpoint browser as a user meets it: what the page shows equals what the library computes."""

from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


@pytest.fixture
def browser_page(lab: Any) -> Any:
    """The checkpoints notebook, all cells run, its browser in view."""
    lab.open("notebooks/checkpoints.ipynb")
    lab.run_all()
    lab.page.locator(".wb-explorer").evaluate("element => element.scrollIntoView({ block: 'start' })")
    return lab


def test_look(browser_page: Any) -> None:
    page, explorer = browser_page.page, browser_page.page.locator(".wb-explorer")
    page.wait_for_timeout(1000)
    browser_page.shot("b1-after-run-all")
    print(
        page.evaluate(
            "() => Array.from(document.querySelectorAll('.wb-explorer .js-plotly-plot')).map(p => [p._fullLayout.width, p.clientWidth, p.parentElement.clientWidth, p.parentElement.parentElement.clientWidth])"
        )
    )
    tree = explorer.get_by_role("tree")
    item = tree.get_by_role("treeitem")
    print(item.all_text_contents())
    item.nth(1).click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_timeout(1500)
    print(page.evaluate("() => Array.from(document.querySelectorAll('.wb-explorer .js-plotly-plot')).map(p => [p._fullLayout.width, p.clientWidth])"))
    browser_page.shot("b2-clicked")
    print(item.all_text_contents())
    assert not browser_page.problems
