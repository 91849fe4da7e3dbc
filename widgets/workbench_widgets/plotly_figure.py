"""A figure of plotly in the page: drawn whole by plotly.js, which finds what is new in it."""

from collections.abc import Callable, Mapping
from typing import Any

import traitlets

from workbench_widgets.page_code import PageCode, UsesLibrary, drawn_by

# nothing that is looked at here leaves the machine
CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": ["lasso2d"], "showSendToCloud": False}
# it looks for a module to be; another plotly of the page stays as it is
MODULE = """const module = {{ exports: {{}} }}, exports = module.exports, define = undefined;
{}
export default module.exports;"""


class PlotlyFigure(UsesLibrary):
    """Traces and a layout as JSON.

    plotly's own widget makes an object of every property, tells the page of each kind of change with a message of its
    own, and lets views that are gone listen on.

    Args:
        on_click: called with the id, if it has one, and the place of a point that was clicked.
    """

    _esm = drawn_by("plotly_figure.js")
    # named as plotly's widget has them, so that saved notebooks have one kind of figure
    _widget_data = traitlets.List().tag(sync=True)
    _widget_layout = traitlets.Dict().tag(sync=True)
    _config = traitlets.Dict(CONFIG).tag(sync=True)

    def __init__(self, on_click: Callable[[Mapping[str, Any]], None] | None = None) -> None:
        super().__init__()
        if on_click is not None:
            self.on_msg(lambda _, content, __: on_click(content))

    @traitlets.default("_library")
    def _plotly(self) -> PageCode:
        return PageCode.of("plotly", "package_data", "plotly.min.js", wrap=MODULE.format)

    @property
    def traces(self) -> list[dict[str, Any]]:
        """What is drawn."""
        return list(self._widget_data)

    def show(self, data: list[dict[str, Any]], layout: Mapping[str, Any]) -> None:
        """Draws this in place of what was drawn before, by one message."""
        with self.hold_sync():
            self._widget_data, self._widget_layout = data, dict(layout)
