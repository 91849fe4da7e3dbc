"""What the browser tests of all explorers ask of a page."""

from typing import Any

import numpy as np
from playwright.sync_api import Locator

import workbench as wb

PLOT = """index => {
  const plot = document.querySelectorAll('.wb-explorer .js-plotly-plot')[index];
  const numbers = list => Array.from(list || [], value => value === null ? NaN : value);
  return { title: plot._fullLayout.title.text, subtitle: plot._fullLayout.title.subtitle.text,
    fits: Math.abs(plot._fullLayout.width - plot.clientWidth) < 2 && plot.clientWidth > 100,
    traces: plot._fullData.map(t => ({ name: t.name, x: numbers(t.x), y: numbers(t.y), fill: t.fill,
                                       error: t.error_y && t.error_y.visible ? numbers(t.error_y.array) : [],
                                       z: t.z ? Array.from(t.z, numbers) : null,
                                       ids: Array.from(t.customdata || []) })) };
}"""


def drawn(page: Any, index: int) -> dict[str, Any]:
    """What a plot of the page shows."""
    return dict(page.evaluate(PLOT, index))


def assert_drawn(plot: dict[str, Any], spec: wb.FigureSpec) -> None:
    """The page's traces are the library's marks, number by number, in the room that the plot has."""
    expected = spec.to_plotly()
    told = spec.panels[0].title if len(spec.panels) == 1 else ""  # several panels have their titles above each
    assert plot["title"] == spec.title and (plot["subtitle"] or "") == told and plot["fits"]
    for shown, trace in zip(plot["traces"], expected.data, strict=True):
        assert shown["name"] == trace.name
        for axis in "xyz" if trace.type == "heatmap" else "xy":
            values = np.array(trace[axis], float)
            np.testing.assert_allclose(np.array(shown[axis], float), values, rtol=1e-9)
        if trace.type == "scatter":
            assert shown["fill"] == (trace.fill or "none")
            errors = trace.error_y.array if trace.error_y.array is not None else ()
            np.testing.assert_allclose(np.array(shown["error"], float), np.array(errors, float), rtol=1e-9)
            assert shown["ids"] == list(trace.customdata if trace.customdata is not None else ())


def rows(explorer: Locator) -> Locator:
    """The rows of an explorer's table."""
    return explorer.locator(".wb-table tbody tr")


def slider(explorer: Locator, name: str) -> Locator:
    """The handle of a slider that can be moved."""
    return explorer.locator(".widget-hslider", has_text=name).locator(".noUi-target:not([disabled]) .noUi-handle")
