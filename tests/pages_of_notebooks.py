"""Notebooks with every kind of output, and what a page of HTML would load."""

import base64
import io
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import plotly.graph_objects as go
import plotly.io
from PIL import Image

LOADING = {"src", "srcset", "poster", "href", "xlink:href", "data", "background"}
INSIDE = ("data:", "#", "blob:")
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
CDN = '<script charset="utf-8" src="https://cdn.plot.ly/plotly-9.min.js"></script>'
VIEW = "application/vnd.jupyter.widget-view+json"


class Loads(HTMLParser):
    """What opening a page would ask for, and the elements it has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = {name: value or "" for name, value in attrs}
        self.tags.append((tag, own))
        loading = {name for name in LOADING & set(own) if not (name.endswith("href") and tag == "a")}
        self.outside += [own[name] for name in loading if not own[name].startswith(INSIDE)]


def png(value: int = 128) -> str:
    """A picture of one colour, as notebooks store it."""
    file = io.BytesIO()
    Image.fromarray(np.full((8, 12), value, np.uint8)).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def result(data: dict[str, Any], **metadata: Any) -> Any:
    """A cell's result."""
    return nbformat.v4.new_output("execute_result", data, execution_count=1, metadata=metadata)


def cell(*outputs: Any, source: str = "show()", count: int | None = 1) -> Any:
    """A code cell that has been run."""
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), execution_count=count)


def written(path: Path, *cells: Any, **metadata: Any) -> Path:
    """A notebook of cells; text becomes markdown."""
    made = [nbformat.v4.new_markdown_cell(one) if isinstance(one, str) else one for one in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=metadata), path)
    return path


def plot(*heights: float) -> go.Figure:
    """A line of its own heights, with an array that plotly packs."""
    return go.Figure(go.Scatter(y=np.array(heights)), layout={"title": {"text": f"to {heights[-1]:g}"}})


def plotly_json(figure: go.Figure) -> dict[str, Any]:
    """An output of plotly in JupyterLab and VS Code."""
    return {"application/vnd.plotly.v1+json": figure.to_plotly_json() | {"config": {}}, "text/plain": "Figure(…)"}


def plotly_html(figure: go.Figure, library: str = CDN) -> dict[str, Any]:
    """An output of plotly in a classic notebook or in Colab: HTML that brings its library along."""
    return {"text/html": library + plotly.io.to_html(figure, include_plotlyjs=False, full_html=False)}


def widget_state(heights: bytes) -> dict[str, Any]:
    """The saved state of a box that holds a text and a plotly widget, whose array is a buffer of bytes."""
    trace = {"type": "scatter", "y": {"dtype": "float64", "shape": [len(heights) // 8]}}
    buffer = {"data": base64.b64encode(heights).decode(), "path": ["_widget_data", 0, "y", "buffer"]}
    states: dict[str, Any] = {
        "box": {"state": {"children": ["IPY_MODEL_text", "IPY_MODEL_plot", "IPY_MODEL_blank"]}},
        "text": {"state": {"value": "a caption"}},
        "plot": {
            "state": {"_widget_data": [trace], "_widget_layout": {"title": {"text": "saved"}}},
            "buffers": [buffer | {"encoding": "base64"}],
        },
        "blank": {"state": {"_widget_data": [], "_widget_layout": {}}},
    }
    for model in states.values():
        model |= {"model_name": "AnyModel", "model_module": "anywidget"}
    return {"application/vnd.jupyter.widget-state+json": {"version_major": 2, "version_minor": 0, "state": states}}


def full(folder: Path) -> Path:
    """A notebook with four figures of plotly, four pictures, a table and a widget."""
    (folder / "beside.png").write_bytes(base64.b64decode(png(7)))
    library = f"<script>/**\n* plotly.js v9.9.9\n*/{'x' * 3000}</script>"
    return written(
        folder / "full.ipynb",
        r"# All *kinds* of `output`" + "\n\n" + r"Let $\alpha<\lambda_{\max}$ and ![beside](beside.png) it.",
        r"$$\int_0^1 x\,dx=\frac12$$",
        cell(result({"image/png": png(), "text/plain": "FigureSpec esd: a picture\nnext: …"})),
        cell(result({"image/png": png(30), "text/plain": "<Figure>"}, **{"image/png": {"width": 99}})),
        cell(result({"image/svg+xml": SVG, "text/plain": "<Figure>"})),
        cell(result(plotly_json(plot(1.0, 2.0))), source="import plotly"),
        cell(result(plotly_json(plot(1.0, 3.0)) | plotly_html(plot(1.0, 3.0)))),
        cell(result(plotly_html(plot(1.0, 4.0), library))),
        cell(result({"text/html": "<table><tr><td>0.25</td></tr></table>", "text/plain": "0.25"})),
        cell(result({"text/latex": r"$\frac{1}{2}$", "text/plain": "1/2"})),
        cell(result({VIEW: {"model_id": "box"}, "text/plain": "SpectrumExplorer: press Run"})),
        cell(result({"text/plain": "DegeneracyExplorer: 3 layers"})),
        widgets=widget_state(np.array([1.0, 5.0]).tobytes()),
    )


def scripts(html: str) -> Iterator[str]:
    """The text of every script element."""
    for part in html.split("<script")[1:]:
        yield part.partition(">")[2].partition("</script>")[0]
