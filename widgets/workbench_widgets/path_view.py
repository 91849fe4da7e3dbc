"""A place on the line between two checkpoints: the loss there, as the slider moves."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.barrier_view import LABELS, BarrierView
from workbench_widgets.call import Call
from workbench_widgets.shared import FieldStyle
from workbench_widgets.view import Drawing

HERE = "here"


class PathView(BarrierView):
    """Loss and metrics at t, evaluated when the slider rests."""

    NAME: ClassVar[str] = "path"

    def make(self, style: FieldStyle, initial: Mapping[str, Any]) -> list[ipw.DOMWidget]:
        """Which line, the place on it, and what was found there."""
        lines = [(LABELS["after"], True), (LABELS["before"], False)]
        self.matched = ipw.Dropdown(options=lines, description="Line", tooltip="which of the two", style=style)
        self.t = ipw.FloatSlider(
            0.5,
            min=0,
            max=1,
            step=0.01,
            description="t",
            tooltip="0 is the first checkpoint, 1 the second",
            continuous_update=False,
            readout_format=".2f",
            style=style,
        )
        self.told = ipw.HTML()
        return [self.matched, self.t, self.told]

    @property
    def widgets(self) -> list[ipw.DOMWidget]:
        """The line's controls and its own."""
        return [*self.inputs.line_widgets, *self.own]

    def call(self) -> Call:
        """`wb.barrier` at one place; beside it the lines, for the figure."""
        lines = self.inputs.lines()
        line = lines[self.matched.value]
        keywords = {**line.keywords, "points": [round(self.t.value, 6)]}  # the page's says 0.30000000000000004
        return Call(wb.barrier, line.positional, keywords, HERE, self._known(lines))

    def drawings(self, call: Call | None, result: wb.Result, layers: tuple[str, ...]) -> list[Drawing]:
        """The place, on the lines that were computed."""
        path = result.tables["path"]
        numbers = {name: path[name][0] for name in ("loss", "accuracy") if not math.isnan(path[name][0])}
        self.told.value = " · ".join(f"{name} {number:.5g}" for name, number in numbers.items()) or "no finite loss"
        return super().drawings(call, result, layers)

    def label(self, variable: str, result: wb.Result) -> str:
        """The place by its t."""
        return f"t = {result.tables['path']['t'][0]:g}" if variable == HERE else LABELS[variable]

    def _known(self, lines: tuple[Call, ...]) -> tuple[Call, ...]:
        """Those that were computed."""
        return tuple(line for line in lines if self.memory.find(line) is not None)
