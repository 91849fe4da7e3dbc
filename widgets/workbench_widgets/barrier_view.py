"""The loss along the line between two checkpoints, before and after matching."""

from typing import ClassVar

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.call import Call
from workbench_widgets.connectivity_view import ConnectivityView
from workbench_widgets.view import Drawing

LABELS = {"before": "before matching", "after": "after matching"}


class BarrierView(ConnectivityView):
    """Both barriers in one figure."""

    NAME: ClassVar[str] = "barrier"
    SHOWS: ClassVar[type[wb.Result]] = wb.Barrier
    FIGURES: ClassVar[tuple[str, ...]] = ("barrier",)
    TABLE: ClassVar[str | None] = "path"

    @property
    def widgets(self) -> list[ipw.DOMWidget]:
        """How they are matched, the policy of batch norm, and the line."""
        return [*self.inputs.line_widgets, self.inputs.points]

    def call(self) -> Call:
        """`wb.barrier` after matching; before matching beside it."""
        return self.inputs.lines()[1]

    def drawings(self, call: Call | None, result: wb.Result, layers: tuple[str, ...]) -> list[Drawing]:
        """The result over the lines beside it."""
        beside = {one.variable: self.memory.find(one) for one in call.beside} if call else {}
        shown = {variable: line for variable, line in beside.items() if line is not None}
        if not shown or call is None:
            return super().drawings(call, result, layers)
        shown[call.variable] = result
        labels = {variable: self.label(variable, result) for variable in shown}
        results = {labels[variable]: line for variable, line in shown.items()}
        return [Drawing(results, {label: variable for variable, label in labels.items()}, "barrier")]

    def label(self, variable: str, result: wb.Result) -> str:
        """What a line is called in the figure."""
        return LABELS[variable]
