"""The atlas as a user meets it: results of two tabs joined, a point clicked, its layer selected everywhere."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

import workbench as wb
from browser.pages import assert_soon_drawn

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
PATHS = [f"data/checkpoints/digits-transformer-seed{seed}.safetensors" for seed in (0, 1)]
CODE = f"import workbench as wb\nbench = wb.ui.Workbench({{'a': {PATHS[0]!r}, 'b': {PATHS[1]!r}}})\nbench"
# the places on the page of a panel's points, by their layers
PLACES = """index => {
  const plot = [...document.querySelectorAll('.wb-explorer .js-plotly-plot')].filter(one => one.offsetParent)[index];
  const box = plot.getBoundingClientRect();
  return plot._fullData.filter(trace => trace.xaxis === 'x' && trace.customdata).flatMap(trace => {
    const { xaxis, yaxis } = plot._fullLayout;
    return trace.customdata.map((layer, i) => ({ layer: layer[0]?.length > 1 ? layer[0] : layer,
      x: box.left + xaxis._offset + xaxis.d2p(trace.x[i]), y: box.top + yaxis._offset + yaxis.d2p(trace.y[i]) }));
  });
}"""


OWN = {"atlas": "Compared", "spectra": "Analyse", "signatures": "Base"}  # a field that only this tab has


def tab(bench: Locator, name: str) -> Locator:
    """Opens a tab, and gives its explorer once it is there: until then another one has a button to run, too."""
    bench.get_by_role("button", name=name, exact=True).click()
    explorer = bench.locator(".wb-explorer").filter(visible=True)
    expect(explorer.get_by_label(OWN[name], exact=True)).to_be_visible()
    return explorer


def run(explorer: Locator, said: str) -> None:
    explorer.get_by_role("button", name="Run").click()
    expect(explorer.locator(".wb-status").filter(visible=True).filter(has_text=said).first).to_be_visible()


def test_a_point_that_is_clicked_is_the_selected_layer_in_all_tabs(lab: Any) -> None:
    lab.write("atlas.ipynb", CODE)
    lab.open("atlas.ipynb")
    lab.run_all()
    page, bench = lab.page, lab.page.locator(".wb-workbench")
    atlas = tab(bench, "atlas")
    expect(atlas.locator(".wb-status").filter(has_text="no result to join yet").first).to_be_visible()
    run(tab(bench, "spectra"), "layers (")
    run(tab(bench, "signatures"), "changed)")
    atlas = tab(bench, "atlas")
    expect(atlas.get_by_label("Results", exact=True).locator("option")).to_have_count(2)
    compared = atlas.get_by_label("Compared", exact=True)
    compared.fill("spectrum.stable_rank, spectrum.entropy, diff.relative_norm, size")
    compared.press("Enter")
    run(atlas, "4 columns compared")
    a, b = (str(ROOT / path) for path in PATHS)
    names = compared.input_value().split(", ")
    expected = wb.atlas(wb.spectrum(a), wb.diff(a, {"b": b}), columns=names)
    expect(atlas.locator(".gtitle", has_text="layer by layer")).to_be_visible()  # the layer of the spectra is marked
    bench.evaluate("element => element.scrollIntoView({ block: 'start' })")
    page.wait_for_timeout(500)
    places = page.evaluate(PLACES, 0)
    apart = max(
        places,
        key=lambda one: min(abs(one["x"] - two["x"]) + abs(one["y"] - two["y"]) for two in places if two is not one),
    )
    page.mouse.click(apart["x"], apart["y"])
    layer = apart["layer"]
    assert_soon_drawn(page, 0, wb.figure(expected, "pairs", layer=layer))
    x, y = sorted(names[:2])
    assert_soon_drawn(page, 1, wb.figure(expected, "scatter", layer=layer, x=x, y=y))
    page.mouse.move(5, 5)
    page.wait_for_timeout(800)
    lab.shot("atlas-1-selected")
    pair = atlas.locator(".wb-table").last.locator("tbody tr").nth(4)
    pair.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    lab.shot("atlas-2-correlations")
    cells = pair.locator("td").all_text_contents()[:2]
    pair.click()
    expect(atlas.get_by_label("Column x")).to_have_value(re.compile("."))
    assert_soon_drawn(page, 1, wb.figure(expected, "scatter", layer=layer, x=cells[0], y=cells[1]))
    spectra = tab(bench, "spectra")
    expect(spectra.get_by_label("Look at").locator("option:checked")).to_have_text(layer)
    expect(spectra.locator(".gtitle", has_text=re.compile(f"^{re.escape(layer)}$"))).to_be_visible()
    bench.evaluate("element => element.scrollIntoView({ block: 'start' })")
    page.wait_for_timeout(800)
    lab.shot("atlas-3-spectra")

    atlas = tab(bench, "atlas")
    atlas.get_by_label("Models", exact=True).focus()
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("() => document.activeElement.textContent.trim()"))
        if reached[-1] == "Run":
            break
    assert reached[-1] == "Run", "every control is reached by keyboard"
    page.keyboard.press("Space")
    expect(atlas.locator(".wb-status").filter(has_text="4 columns compared").first).to_be_visible()
    assert not lab.problems
