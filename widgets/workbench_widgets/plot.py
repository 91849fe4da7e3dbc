"""A plot that shows one FigureSpec after another in the same widget."""

import threading
from collections.abc import Callable, Iterable
from html import escape
from itertools import takewhile
from typing import Any

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.plotly_figure import PlotlyFigure


class Plot(ipw.VBox):
    """One figure, reused: the first one sends plotly's whole source to the browser, so it waits until it is needed.

    Args:
        name: what it shows, for people who do not see it.
        on_pick: called with the id of a point that was clicked.
        height: in pixels.
        on_cell: called with the place (x, y) of a heat map's cell that was clicked.
    """

    def __init__(
        self,
        name: str,
        on_pick: Callable[[str], None] | None = None,
        height: int = 380,
        on_cell: Callable[[float, float], None] | None = None,
    ) -> None:
        self.spec: wb.FigureSpec | None = None
        self._name, self._on_pick, self._on_cell, self._height = name, on_pick, on_cell, height
        self._widget: PlotlyFigure | None = None
        self._lock = threading.RLock()  # the kernel's threads and the worker's draw here
        self._caption = ipw.HTML()
        super().__init__([self._caption], layout=ipw.Layout(min_height=f"{height + 28}px"))
        self.add_class("wb-plot")
        self.clear("nothing to show yet")

    def resize(self, height: int) -> None:
        """What is drawn from now on is that high, in pixels."""
        self._height, self.layout.min_height = height, f"{height + 28}px"

    def clear(self, why: str) -> None:
        """Empties the plot and says why."""
        with self._lock:
            self.spec = None
            if self._widget is not None:
                with self._widget.batch_update():
                    self._widget.data = ()
                    gone = [{"text": "", "visible": False}] * len(self._widget.layout.annotations)
                    self._widget.layout = _blank(self._height) | {"annotations": gone}
            self._caption.value = f'<span class="wb-plot-name" role="note">{escape(self._name)}: {escape(why)}</span>'

    def prepare(self) -> PlotlyFigure:
        """Makes the widget, if it is not there yet; any thread may."""
        with self._lock:
            if self._widget is None:
                widget = PlotlyFigure(layout=_blank(self._height))
                widget._config = {"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": ["lasso2d"]}
                self.children = [self._caption, widget]
                self._widget = widget
            return self._widget

    def show(self, spec: wb.FigureSpec) -> None:
        """Draws a figure."""
        with self._lock:
            self._show(spec)

    def _show(self, spec: wb.FigureSpec) -> None:
        self.spec = spec
        figure = spec.to_plotly()
        traces = [trace.to_plotly_json() for trace in figure.data]
        widget = self.prepare()
        # what a trace no longer has would stay in the page, such as error bars: only those of one shape are reused
        pairs = zip(widget.data, traces, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: _shape(pair[0].to_plotly_json()) == _shape(pair[1]), pairs))
        with widget.batch_update():
            if len(widget.data) > shared:
                widget.data = widget.data[:shared]
            for trace, content in zip(widget.data, traces, strict=False):
                trace.update(content, overwrite=True)
            layout = figure.layout.to_plotly_json()
            notes = list(layout.get("annotations", ()))
            gone = [{"text": "", "visible": False}] * (len(widget.layout.annotations) - len(notes))  # else they stay
            height = max(self._height, layout.get("height") or 0)  # a figure of several rows says how high it is
            self.layout.min_height = f"{height + 28}px"
            widget.layout.update(layout | {"annotations": notes + gone, "height": height}, overwrite=True)
        if len(traces) > shared:
            widget.add_traces(traces[shared:])
        for trace in widget.data:
            trace.on_click(self._clicked)
        said = " · ".join(filter(None, [spec.title, *(panel.title for panel in spec.panels)]))
        self._caption.value = (
            f'<span class="wb-plot-name wb-unseen" role="img" aria-label="{escape(f"{self._name}: {said}")}"></span>'
        )

    def close(self) -> None:
        """Lets go of the figure too: plotly's library keeps every widget that it made."""
        if self._widget is not None:
            self._widget.data = ()
        self.spec, self._on_pick, self._on_cell = None, None, None
        super().close()

    def _clicked(self, trace: Any, points: Any, _: Any) -> None:
        if self._on_pick and points.point_inds and trace.customdata is not None:
            self._on_pick(str(trace.customdata[points.point_inds[0]]))
        elif self._on_cell and trace.type == "heatmap" and points.xs:
            self._on_cell(float(points.xs[0]), float(points.ys[0]))


def take_places(plots: Iterable[Plot], count: int, height: int) -> None:
    """As many places for figures, one at least: what is not of a view or of its result takes no room.

    Args:
        plots: all that there are, in order.
        count: of the first ones, which are shown.
        height: of each, in pixels.
    """
    for place, plot in enumerate(plots):
        plot.layout.display = None if place < max(1, count) else "none"
        plot.resize(height)


def _shape(trace: Any) -> Any:
    """Which properties a trace has, and what kind of trace it is."""
    if not isinstance(trace, dict):
        return None
    return {name: value if name == "type" else _shape(value) for name, value in trace.items() if name != "uid"}


def _blank(height: int) -> dict[str, Any]:
    hidden, nothing = {"visible": False}, "rgba(0,0,0,0)"
    # sized anew when something is drawn: plotly measures its room only when autosize is switched on
    clear = {"template": "none", "autosize": False, "paper_bgcolor": nothing, "plot_bgcolor": nothing}
    untitled = {"title": {"text": "", "subtitle": {"text": ""}}}
    return clear | untitled | {"height": height, "xaxis": hidden, "yaxis": hidden}
