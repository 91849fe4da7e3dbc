"""A plot that shows one FigureSpec after another in the same widget."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from html import escape
from typing import Any

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.plotly_figure import PlotlyFigure
from workbench_widgets.shared import line


class Plot(ipw.VBox):
    """One figure, reused; its widget, which brings plotly's code into the page, waits until it is needed.

    Args:
        name: what it shows, for people who do not see it.
        on_pick: called with the id of a point that was clicked.
        height: in pixels.
        on_cell: called with the place (x, y) of a heat map's cell that was clicked.

    Attributes:
        spec: what is drawn.
        why: what is missing where nothing is drawn; empty where something is.
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
        self.why = "nothing to show yet"
        self._caption = line(self._told(self.why))
        high = ipw.Layout(min_height=f"{height + 28}px")
        super().__init__([self._caption], layout=high, _dom_classes=("wb-plot",))

    def resize(self, height: int) -> None:
        """What is drawn from now on is that high, in pixels."""
        self._height, self.layout.min_height = height, f"{height + 28}px"

    def clear(self, why: str) -> None:
        """Empties the plot and says why."""
        with self._lock:
            self.spec, self.why = None, why
            self.resize(self._height)  # a figure of several rows was higher
            if self._widget is not None:
                self._widget.show([], _blank(self._height))
            self._caption.value = self._told(why)

    def prepare(self) -> PlotlyFigure:
        """Makes the widget, if it is not there yet; any thread may."""
        with self._lock:
            if self._widget is None:
                self._widget = PlotlyFigure(self._clicked)
                self._widget.show([], _blank(self._height))
                self.children = [self._caption, self._widget]
            return self._widget

    def show(self, spec: wb.FigureSpec) -> None:
        """Draws a figure."""
        with self._lock:
            self.spec, self.why = spec, ""
            figure = spec.to_plotly_json()
            layout = figure["layout"]
            height = max(self._height, layout.get("height", 0))  # a figure of several rows says how high it is
            self.layout.min_height = f"{height + 28}px"
            # what somebody zoomed into or hid stays while the axes are the same, as when a layer is marked among others
            same = str(hash(tuple((panel.x, panel.y) for panel in spec.panels)))
            self.prepare().show(_known(figure["data"]), layout | {"height": height, "uirevision": same})
            said = escape(" · ".join(filter(None, [f"{self._name}: {spec.title}", *(p.title for p in spec.panels)])))
            self._caption.value = f'<span class="wb-plot-name wb-unseen" role="img" aria-label="{said}"></span>'

    def close(self) -> None:
        """Lets go of the figure too."""
        if self._widget is not None:
            self._widget.close()
        self.spec, self._on_pick, self._on_cell = None, None, None
        super().close()

    def _told(self, why: str) -> str:
        return f'<span class="wb-plot-name" role="note">{escape(self._name)}: {escape(why)}</span>'

    def _clicked(self, point: Mapping[str, Any]) -> None:
        if self._on_pick and point.get("id") is not None:
            self._on_pick(str(point["id"]))
        elif self._on_cell and "x" in point:  # a cell, or what marks one
            self._on_cell(float(point["x"]), float(point["y"]))


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


def _known(traces: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The traces by names that they keep when others come or go: plotly would hide the one that is now in a place."""
    names = [f"{trace['xaxis']} {trace['type']} {trace['name']}" for trace in traces]
    told = [f"{name} {names[:place].count(name)}" for place, name in enumerate(names)]
    uids = [blake2b(one.encode(), digest_size=8).hexdigest() for one in told]  # plotly makes a class of it
    return [{**trace, "uid": uid} for trace, uid in zip(traces, uids, strict=True)]


def _blank(height: int) -> dict[str, Any]:
    hidden, nothing = {"visible": False}, "rgba(0,0,0,0)"
    clear = {"template": "none", "autosize": True, "paper_bgcolor": nothing, "plot_bgcolor": nothing}
    return clear | {"height": height, "xaxis": hidden, "yaxis": hidden}
