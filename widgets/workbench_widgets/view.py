"""What every view of an explorer of several views has."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import ipywidgets as ipw
import pandas as pd

import workbench as wb
from workbench_widgets.call import Call, Memory, named
from workbench_widgets.shared import FieldStyle


@dataclass(frozen=True)
class Drawing:
    """A figure of a result, or of several by label, to draw and to show as code.

    Attributes:
        results: what is drawn.
        variables: what holds it in the code.
        kind: which figure.
        layer: the layer that it shows or rings.
        options: further arguments of `wb.figure`; a Call among them stands for what it returned.
        variable: what holds the figure in the code; by default named by its kind.
    """

    results: wb.Result | Mapping[str, wb.Result]
    variables: str | Mapping[str, str]
    kind: str
    layer: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    variable: str = ""

    def spec(self, memory: Memory | None = None) -> wb.FigureSpec:
        """The figure; calls among its options are in the memory.

        Raises:
            wb.FigureError: there is nothing to draw.
        """
        options = {name: memory.find(one) if memory and isinstance(one, Call) else one for name, one in self._given()}
        return wb.figure(self.results, self.kind, layer=self.layer, **options)

    def code(self) -> str:
        """The line that draws it."""
        subject = self.variables
        if not isinstance(subject, str):
            subject = "{" + ", ".join(f"{label!r}: {name}" for label, name in subject.items()) + "}"
        layer = f", layer={self.layer!r}" if self.layer is not None else ""
        more = "".join(f", {name}={named(one)}" for name, one in self._given())
        return f"{self.variable or f'{self.kind}_figure'} = wb.figure({subject}, {self.kind!r}{layer}{more})"

    def _given(self) -> list[tuple[str, Any]]:
        return [(name, one) for name, one in self.options.items() if one is not None]


class View:
    """One question: its own controls, its call, and how its result is shown.

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

    def __init__(self, inputs: Any, style: FieldStyle, initial: Mapping[str, Any], memory: Memory) -> None:
        self.inputs, self.memory = inputs, memory
        self.parts: Mapping[str, Sequence[str]] = {}  # tensor → its layer, or its parts', of the model that is open
        self.own: list[ipw.DOMWidget] = self.make(style, initial)

    def make(self, style: FieldStyle, initial: Mapping[str, Any]) -> list[ipw.DOMWidget]:
        """The controls that only this view has."""
        return []

    def make_panel(self) -> ipw.DOMWidget | None:
        """What stands below the figures, if anything does."""
        return None

    @property
    def widgets(self) -> list[ipw.DOMWidget]:
        """The controls that count in this view, top to bottom."""
        return self.own

    @property
    def looks(self) -> list[ipw.DOMWidget]:
        """Those of its own that change what is shown of a result, and not the result."""
        return []

    def call(self) -> Call:
        """The call that the controls stand for."""
        raise NotImplementedError

    def drawings(self, call: Call | None, result: Any, layers: tuple[str, ...]) -> list[Drawing]:
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

    def cell(self, result: Any, x: float, y: float) -> tuple[str, ...]:
        """The layers that a cell of the view's heat map stands for."""
        return ()

    def alive(self, partial: Any) -> Drawing:
        """The figure of what a run has done so far."""
        return Drawing(partial, "", self.FIGURES[0])

    def layers(self, result: Any, frame: pd.DataFrame) -> list[tuple[str, ...]]:
        """The layers that each row of a table stands for."""
        return [(layer,) for layer in frame["layer"]] if "layer" in frame else [()] * len(frame)

    def layers_of(self, *tensors: str) -> tuple[str, ...]:
        """Ids of the layers that tensors are, or whose parts they have; by its name of one that no model here has."""
        ids = (self.parts.get(tensor) or (tensor.removesuffix(".weight"),) for tensor in tensors)
        return tuple(dict.fromkeys(layer for own in ids for layer in own))

    def table(self, name: str, frame: pd.DataFrame) -> pd.DataFrame:
        """A table as it is listed."""
        return frame

    def arrive(self, call: Call | None, result: Any) -> None:
        """Sets the limits of controls that a result has."""

    def lives(self, call: Call | None, result: Any) -> Sequence[Call]:
        """Calls that are made as the controls move, on the result."""
        return ()

    def show_live(self, call: Call, value: Any) -> None:
        """Shows what one of them returned: the value, or the error."""

    def compute(self, call: Call, progress: Callable[[wb.Progress], None]) -> wb.Result:
        """What Run does; what was computed for another view is not computed again."""
        found: wb.Result = call.run(progress, self.memory)
        return found

    def release(self) -> None:
        """Lets go of what it holds."""
