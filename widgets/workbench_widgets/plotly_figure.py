"""plotly's figure on a page that has plotly's code once, and not with every figure."""

import threading
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as ipw
import plotly
import traitlets
from plotly.graph_objects import FigureWidget  # by name: plotly loads it only when it is asked for


class Library(anywidget.AnyWidget):
    """Holds plotly's code for the figures of a kernel."""

    _esm = "export default {}"
    code = traitlets.Unicode().tag(sync=True)
    version = traitlets.Unicode(plotly.__version__).tag(sync=True)


class PlotlyFigure(FigureWidget):
    """A FigureWidget whose page loads plotly once, and whose views that are gone hear nothing any more."""

    _esm = Path(__file__).with_name("plotly_figure.js").read_text()  # anywidget never frees the widgets of a path
    _library = traitlets.Instance(ipw.Widget).tag(sync=True, **ipw.widget_serialization)

    _LOCK = threading.Lock()
    _held: Library | None = None

    @traitlets.default("_library")
    def _the_one(self) -> Any:
        with PlotlyFigure._LOCK:
            if PlotlyFigure._held is None or PlotlyFigure._held.comm is None:  # all widgets may have been closed
                PlotlyFigure._held = Library(code=str(FigureWidget._esm))
            return PlotlyFigure._held
