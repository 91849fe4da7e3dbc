"""What the browser tests of all explorers ask of a page."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import Locator

import workbench as wb

DATA = Path(__file__).parents[2] / "data"
CHECKPOINTS = [f"data/checkpoints/digits-{{}}-seed{seed}.safetensors" for seed in (0, 1)]
ROUNDING = 1e-12  # of the largest number of a panel
ANSWERED = """async () => {
  await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestKernelInfo();  // in its turn
}"""
PLOT = """index => {
  const plots = document.querySelectorAll('.wb-explorer .js-plotly-plot');
  const plot = Array.from(plots).filter(one => one.offsetParent)[index];  // other tabs have plots too
  const numbers = list => Array.from(list || [], value => value === null ? NaN : value);
  const boxes = names => [...plot.querySelectorAll(names)].map(one => one.getBoundingClientRect());
  const over = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
                      && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  const titles = boxes('text[class$=title]');
  const others = boxes('[class$=tick] text, .legendtext');
  return { title: plot._fullLayout.title.text, subtitle: plot._fullLayout.title.subtitle.text,
    fits: Math.abs(plot._fullLayout.width - plot.clientWidth) < 2 && plot.clientWidth > 100
       && Math.abs(plot._fullLayout.height - plot.clientHeight) < 2 && plot.clientHeight > 100,
    apart: !titles.some(title => others.some(other => over(title, other))),
    traces: plot._fullData.map(t => ({ name: t.name, x: numbers(t.x), y: numbers(t.y), fill: t.fill,
                                       error: t.error_y && t.error_y.visible ? numbers(t.error_y.array) : [],
                                       z: t.z ? Array.from(t.z, numbers) : null,
                                       ids: Array.from(t.customdata || []) })) };
}"""


def drawn(page: Any, index: int) -> dict[str, Any]:
    """What a plot of the page shows, of those that can be seen."""
    return dict(page.evaluate(PLOT, index))


def assert_drawn(plot: dict[str, Any], spec: wb.FigureSpec) -> None:
    """The page's traces are the library's marks, number by number, in the room that the plot has.

    What lies below `ROUNDING` of the largest number of its panel is rounding: another process with another number of
    threads has other numbers there, and other ones of them above 0.
    """
    expected = spec.to_plotly()
    told = spec.panels[0].title if len(spec.panels) == 1 else ""  # several panels have their titles above each
    assert (plot["title"], plot["subtitle"] or "", plot["fits"]) == (spec.title, told, True)
    assert plot["apart"], "a title lies on numbers, names or the legend"
    slack = _slack(expected.data)
    for shown, trace in zip(plot["traces"], expected.data, strict=True):
        assert shown["name"] == trace.name
        room = slack[trace.xaxis, trace.yaxis]
        if trace.type == "scatter":
            assert shown["fill"] == (trace.fill or "none")
            page, own = _columns(shown, shown["error"]), _columns(trace, trace.error_y.array)
            page, own = _aligned(page, own, room) if len(page["x"]) != len(own["x"]) else (page, own)
            assert list(page["ids"]) == list(own["ids"])
            for name in ("x", "y", "error"):
                atol = room["x" if name == "x" else "y"]
                np.testing.assert_allclose(page[name], own[name], rtol=1e-9, atol=atol, err_msg=f"{trace.name}: {name}")
        else:
            for axis in "xyz" if trace.type == "heatmap" else "xy":
                values = np.array(trace[axis], float)
                np.testing.assert_allclose(np.array(shown[axis], float), values, rtol=1e-9, atol=room[axis])


def assert_soon_drawn(page: Any, index: int, spec: wb.FigureSpec, seconds: float = 60.0) -> None:
    """The same, as soon as the page has it: a figure's title, traces and axes come one after the other."""
    soon(page, lambda: assert_drawn(drawn(page, index), spec), seconds)


def soon(page: Any, check: Callable[[], None], seconds: float = 60.0) -> None:
    """Asserts as soon as it holds: another figure's traces, or none yet, are no failure."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except (AssertionError, PlaywrightError, ValueError):
            if time.monotonic() > deadline:
                raise
        page.wait_for_timeout(250)  # a look costs the page time that it draws in


def _slack(traces: Any) -> dict[tuple[str, str], dict[str, float]]:
    """What is rounding along each axis of each panel."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for trace in traces:
        own = found.setdefault((trace.xaxis, trace.yaxis), dict.fromkeys("xyz", 0.0))
        for axis in "xyz" if trace.type == "heatmap" else "xy":
            values = np.abs(np.array(trace[axis], float))
            own[axis] = max(own[axis], ROUNDING * float(np.max(values, where=np.isfinite(values), initial=0.0)))
    return found


def _columns(trace: Any, error: Any) -> dict[str, np.ndarray]:
    """The numbers and ids of points."""
    ids = trace["ids"] if isinstance(trace, dict) else trace.customdata
    numbers = {"x": trace["x"], "y": trace["y"], "error": () if error is None else error}
    return {name: np.array(values, float) for name, values in numbers.items()} | {
        "ids": np.array(() if ids is None else list(ids), object)
    }


def _aligned(
    page: dict[str, np.ndarray], own: dict[str, np.ndarray], room: dict[str, float]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The points at places that both have; what only one has is rounding."""
    both = np.isclose(page["x"][:, None], own["x"], rtol=1e-9, atol=room["x"], equal_nan=True)
    aligned = []
    for columns, here in ((page, both.any(1)), (own, both.any(0))):
        lone = columns["y"][~here]
        assert np.all(np.abs(lone) <= room["y"]), f"only on one side: {lone} at {columns['x'][~here]}"
        aligned.append({name: values[here] if len(values) else values for name, values in columns.items()})
    return aligned[0], aligned[1]


def rows(explorer: Locator) -> Locator:
    """The rows of an explorer's table."""
    return explorer.locator(".wb-table tbody tr")


def choose(explorer: Locator, label: str, value: str) -> None:
    """Selects an option, and waits for the kernel's answer: what it moves, as the buttons below, is where it stays."""
    explorer.get_by_role("combobox", name=label, exact=True).select_option(label=value)
    explorer.page.evaluate(ANSWERED)


def press(explorer: Locator, name: str = "Run") -> None:
    """Clicks a button."""
    explorer.get_by_role("button", name=name).click()


def slider(explorer: Locator, name: str) -> Locator:
    """The handle of a slider that can be moved."""
    return explorer.locator(".widget-hslider", has_text=name).locator(".noUi-target:not([disabled]) .noUi-handle")


def recipe_and_digits(name: str) -> tuple[Any, Any]:
    """How a shipped network is made, and the data that it was trained on."""
    sys.path.insert(0, str(DATA))
    try:
        import build
    finally:
        sys.path.remove(str(DATA))
    recipe = build.RECIPES[f"digits-{name}"]
    return recipe, build.digits(recipe.input_shape)


def own(name: str) -> SimpleNamespace:
    """The library's own results on the same checkpoints."""
    recipe, digits = recipe_and_digits(name)
    evaluator = wb.evaluator(recipe.module(), [(digits.train_x, digits.train_y)], "cross_entropy")
    groups = wb.permutation_groups(evaluator)
    paths = [str(DATA.parent / path.format(name)) for path in CHECKPOINTS]
    return SimpleNamespace(evaluator=evaluator, groups=groups, paths=paths)


CONTRASTS = """element => {
  const channels = (text, opacity = 1) => {
    if (!/^rgba?\\(/.test(text)) throw new Error(`a colour that is not read here: ${text}`);
    const at = text.match(/[\\d.]+/g).map(Number);
    return [...at.slice(0, 3), (at[3] ?? 1) * opacity];
  };
  const opacity = node => {
    let all = 1;
    for (let at = node; at; at = at.parentElement) all *= Number(getComputedStyle(at).opacity);
    return all;
  };
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const paper = node => {
    const papers = [];
    for (let at = node; at; at = at.parentElement) {
      const { backgroundColor, boxShadow } = getComputedStyle(at);
      if (boxShadow.includes('9999px inset')) papers.unshift(channels(boxShadow.split(')')[0]));  // DataTables fill so
      papers.unshift(channels(backgroundColor));
    }
    return papers.reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const luminance = ([r, g, b]) => [[r, 0.2126], [g, 0.7152], [b, 0.0722]].reduce((sum, [value, weight]) => {
    const part = value / 255;
    return sum + weight * (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  }, 0);
  const found = [];
  for (const node of element.querySelectorAll('*')) {
    const own = [...node.childNodes].filter(one => one.nodeType === 3).map(one => one.data.trim()).join(' ').trim();
    const chosen = node.matches('select:not([multiple])') ? node.selectedOptions[0]?.text : '';
    const text = own || chosen || (node.matches('input:not([type=checkbox]), textarea') ? node.value : '');
    const style = getComputedStyle(node);
    const box = node.getBoundingClientRect();
    const seen = box.width > 1 && box.height > 1 && style.visibility === 'visible' && style.display !== 'none';
    if (!text || !seen || node.closest(':disabled, [aria-disabled=true], style, script')) continue;
    const under = paper(node);
    const drawn = node.closest('svg'), through = opacity(node) * (drawn ? Number(style.fillOpacity) : 1);
    const ink = over(channels(drawn ? style.fill : style.color, through), under);
    const [low, high] = [luminance(ink), luminance(under)].sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), `${node.tagName}.${node.getAttribute('class')}: ${text.slice(0, 60)}`]);
  }
  return found;
}"""


def contrasts(element: Locator) -> list[tuple[float, str]]:
    """The contrast of each text that can be seen with what is under it, 1 to 21, and what it is; worst first.

    As WCAG 2.2 has it: (L₁ + 0.05) / (L₂ + 0.05) of the relative luminances. Not asked: what is disabled, placeholders,
    and what is drawn under a text by SVG.
    """
    return sorted((float(ratio), str(text)) for ratio, text in element.evaluate(CONTRASTS))
