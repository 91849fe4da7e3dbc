"""What a cell showed, as HTML that needs neither a kernel nor a network."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workbench.sharing.formulas import with_formulas
from workbench.sharing.remote import Inside

PLOTLY = "application/vnd.plotly.v1+json"
VIEW = "application/vnd.jupyter.widget-view+json"
EXPLORER = re.compile(r"(\w+Explorer|CheckpointBrowser|Workbench): ")  # reprs of the explorers: how they begin
BETTER = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg")  # than a formula
STATIC = "A widget stood here. It needs a running kernel: open the notebook in JupyterLab and run this cell."
# older versions of plotly ask require.js for the library
REQUIRE = "window.require ??= (names, done) => done?.(window.Plotly); window.require.config ??= () => {};"
LOCAL = "Plotly.setPlotConfig({ showSendToCloud: false });"  # no figure of the page offers to be uploaded
CODES = {
    **{"float64": "f8", "float32": "f4", "int32": "i4", "int16": "i2", "int8": "i1"},
    **{"uint32": "u4", "uint16": "u2", "uint8": "u1"},
}  # plotly.js' names of numpy's


class Figures:
    """Draws plotly's figures, and knows whether the page needs its library.

    Args:
        states: saved states of widgets, by model id.
    """

    def __init__(self, states: Mapping[str, Any]) -> None:
        self.states, self.count, self.called = states, 0, False

    def library(self) -> str:
        """The script element of plotly.js; empty if no figure needs it."""
        if not self.count and not self.called:
            return ""
        return f"<script>{_plotly_js()}</script>\n<script>{REQUIRE} {LOCAL}</script>"

    def html(self, figure: Mapping[str, Any]) -> str:
        """A figure that is drawn when the page is opened."""
        self.count += 1
        name, layout = f"wb-figure-{self.count}", figure.get("layout") or {}
        title = layout.get("title") or ""
        told = str((title.get("text") if isinstance(title, Mapping) else title) or "figure")
        parts = {"data": figure.get("data") or [], "layout": layout, "frames": figure.get("frames") or []}
        config = {**(figure.get("config") or {}), "responsive": True, "displaylogo": False}
        height = layout.get("height") or 450
        return (
            f'<div class="wb-plotly" id="{name}" role="img" aria-label="{escape(told)}" style="height:{height}px">'
            f'</div><script>Plotly.newPlot("{name}", {_json({**parts, "config": config})});</script>'
            "<noscript>This figure is drawn by JavaScript, which is switched off here.</noscript>"
        )

    def of_widget(self, model: str) -> Iterator[str]:
        """The figures inside a widget's saved state, in its order."""
        for state in self._inside(model, set()):
            if state["_widget_data"]:
                yield self.html({"data": state["_widget_data"], "layout": state.get("_widget_layout")})

    def _inside(self, model: str, seen: set[str]) -> Iterator[dict[str, Any]]:
        if model in seen or model not in self.states:
            return
        seen.add(model)
        state = self.states[model].get("state", {})
        if "_widget_data" in state:
            yield _with_buffers(self.states[model])
        for child in state.get("children", ()):
            yield from self._inside(str(child).removeprefix("IPY_MODEL_"), seen)


def shown(output: Any, inside: Inside, figures: Figures) -> None:
    """Rewrites an output in place: one kind of content that the page can show, and its text."""
    data = output.get("data", {})
    text = str(data.get("text/plain", ""))
    if PLOTLY in data:
        data["text/html"] = figures.html(data.pop(PLOTLY))
    elif VIEW in data:
        data["text/html"] = _stand_in(text, list(figures.of_widget(data.pop(VIEW).get("model_id", ""))))
    elif set(data) == {"text/plain"} and EXPLORER.match(text):
        data["text/html"] = _stand_in(text, [])
    elif "text/html" in data:
        data["text/html"] = inside.cleaned(data["text/html"])
        figures.called |= "Plotly." in data["text/html"]
    elif "text/latex" in data and not set(BETTER) & set(data):
        data["text/html"] = with_formulas(data["text/latex"])


def _stand_in(text: str, plots: list[str]) -> str:
    """What stands where a widget stood."""
    text = text.partition("\n")[0] if EXPLORER.match(text) else text  # the rest is for who has a kernel
    if plots and text.startswith("FigureWidget("):  # the page's figure answers as well
        return plots[0]
    last = "The plots are as they were saved." if plots else "What it said when it was shown:"
    note = f'<p class="wb-note" role="note">{STATIC} {last}</p>'
    return f'<div class="wb-widget">{note}{"".join(plots)}<pre>{escape(text)}</pre></div>'


def _with_buffers(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A model's state with its arrays in place, in plotly.js' own form."""
    state = json.loads(json.dumps(saved["state"]))
    for buffer in saved.get("buffers", ()):
        *way, last = buffer["path"]
        if way[:1] not in (["_widget_data"], ["_widget_layout"]):
            continue  # of a message that is over: what it led to may be gone
        holder = state
        for step in way:
            holder = holder[step]
        holder[last] = buffer["data"]
    return dict(_typed(state))


def _typed(value: Any) -> Any:
    if isinstance(value, list):
        return [_typed(one) for one in value]
    if not isinstance(value, dict):
        return value
    if {"buffer", "dtype", "shape"} <= set(value):
        shape = ", ".join(str(length) for length in value["shape"])
        return {"bdata": value["buffer"], "dtype": CODES.get(value["dtype"], value["dtype"]), "shape": shape}
    return {name: _typed(one) for name, one in value.items()}


def _json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(value).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def _plotly_js() -> str:
    """The source of plotly.js, read from the installed package without importing it."""
    spec = find_spec("plotly")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    file = next((file for one in folders if (file := Path(one) / "package_data" / "plotly.min.js").is_file()), None)
    if file is None:
        raise ModuleNotFoundError("figures of plotly need its library: pip install plotly", name="plotly")
    return file.read_text(encoding="utf-8")
