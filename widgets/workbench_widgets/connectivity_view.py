"""What every view of `wb.ui.ConnectivityExplorer` has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import ipywidgets as ipw
import pandas as pd

import workbench as wb
from workbench_widgets.call import Call, Memory
from workbench_widgets.connectivity_inputs import ConnectivityInputs


@dataclass(frozen=True)
class Drawing:
    """A figure of a result, or of several by label, to draw and to show as code."""

    results: wb.Result | Mapping[str, wb.Result]
    variables: str | Mapping[str, str]
    kind: str
    layer: str | None = None

    def spec(self) -> wb.FigureSpec:
        """The figure.

        Raises:
            wb.FigureError: there is nothing to draw.
        """
        return wb.figure(self.results, self.kind, layer=self.layer)

    def code(self) -> str:
        """The line that draws it."""
        subject = self.variables
        if not isinstance(subject, str):
            subject = "{" + ", ".join(f"{label!r}: {name}" for label, name in subject.items()) + "}"
        layer = f", layer={self.layer!r}" if self.layer is not None else ""
        return f"{self.kind}_figure = wb.figure({subject}, {self.kind!r}{layer})"


class View:
    """One question about checkpoints: its own controls, its call, and how its result is shown.

    Args:
        inputs: the controls that views share.
        style: of the labels.
        initial: the explorer's arguments.
        memory: what calls returned.
    """

    NAME: ClassVar[str] = ""
    SHOWS: ClassVar[type[wb.Result]] = wb.Result
    FIGURES: ClassVar[tuple[str, ...]] = ()
    RINGED: ClassVar[frozenset[str]] = frozenset()  # figures that show which layer is selected
    TABLE: ClassVar[str | None] = None  # the table that is listed first
    HEIGHT: ClassVar[int] = 380  # of each figure, in pixels

    def __init__(
        self, inputs: ConnectivityInputs, style: Mapping[str, str], initial: Mapping[str, Any], memory: Memory
    ) -> None:
        self.inputs, self.memory = inputs, memory
        self.own: list[ipw.DOMWidget] = self.make(style, initial)

    def make(self, style: Mapping[str, str], initial: Mapping[str, Any]) -> list[ipw.DOMWidget]:
        """The controls that only this view has."""
        return []

    @property
    def widgets(self) -> list[ipw.DOMWidget]:
        """The controls that count in this view, top to bottom."""
        return self.own

    def call(self) -> Call:
        """The call that the controls stand for."""
        raise NotImplementedError

    def drawings(self, call: Call | None, result: wb.Result, layers: tuple[str, ...]) -> list[Drawing]:
        """The figures of a result, the first selected layer that they have ringed; `call` made it, if that is known."""
        name = call.variable if call else "result"
        return [
            Drawing(result, name, kind, self._ringed(result, kind, layers) if kind in self.RINGED else None)
            for kind in self.FIGURES
        ]

    def _ringed(self, result: wb.Result, kind: str, layers: tuple[str, ...]) -> str | None:
        for layer in layers:
            try:
                wb.figure(result, kind, layer=layer)
            except wb.LayerNotFoundError:
                continue
            except wb.FigureError:
                return None
            return layer
        return None

    def cell(self, result: wb.Result, x: float, y: float) -> tuple[str, ...]:
        """The layers that a cell of the view's heat map stands for."""
        return ()

    def alive(self, partial: wb.Result) -> Drawing:
        """The figure of what a run has done so far."""
        return Drawing(partial, "", self.FIGURES[0])

    def layers(self, result: wb.Result, frame: pd.DataFrame) -> list[tuple[str, ...]]:
        """The layers that each row of a table stands for."""
        if "layer" in frame:
            return [(layer,) for layer in frame["layer"]]
        if "tensor" in frame:
            return [(layer_of(tensor),) for tensor in frame["tensor"]]
        if "group" in frame:
            members = result.structure.members()
            return [tuple(dict.fromkeys(map(layer_of, members.get(group, ())))) for group in frame["group"]]
        return [()] * len(frame)

    def compute(self, call: Call, progress: Callable[[wb.Progress], None]) -> wb.Result:
        """What Run does; what was computed for another view is not computed again."""
        return call.run(progress, self.memory)

    def release(self) -> None:
        """Lets go of what it holds."""


def layer_of(tensor: str) -> str:
    """The layer id of a tensor."""
    return tensor.removesuffix(".weight")
