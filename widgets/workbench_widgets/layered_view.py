"""Views whose figures show one layer, and the control that chooses it."""

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as ipw
import pandas as pd

from workbench_widgets.call import Call, Given
from workbench_widgets.view import Drawing, View


class LayerInputs:
    """Inputs with a choice of the layer that figures show.

    Attributes:
        layer: the control; its first option stands for no layer in particular.
        wanted: the layers that are selected, which may not be known yet.
    """

    layer: ipw.Dropdown | ipw.SelectionSlider
    wanted: tuple[str, ...] = ()

    def know(self, names: Sequence[str]) -> None:
        """Lists the layers that there are; the chosen one stays, or else a selected one is chosen."""
        options = [self.layer.options[0], *((name, name) for name in names)]
        if list(self.layer.options) != options:
            chosen = next((one for one in (self.layer.value, *self.wanted) if one in names), None)
            self.layer.options = options
            self.layer.index = 0 if chosen is None else 1 + list(names).index(chosen)

    def shown_layer(self, names: Sequence[str]) -> str | None:
        """The chosen layer, or the first of those that there are."""
        return self.layer.value if self.layer.value in names else next(iter(names), None)


class LayeredView(View):
    """A view whose figures show the layer that is chosen."""

    inputs: LayerInputs

    def names(self, result: Any) -> list[str]:
        """The layers of a result."""
        table = result.tables["layers"]
        return list(table["layer"])

    def layer(self, result: Any) -> str | None:
        """The layer that is shown."""
        return self.inputs.shown_layer(self.names(result))

    def arrive(self, call: Call | None, result: Any) -> None:
        """Lists the layers that there are."""
        self.inputs.know(self.names(result))

    def drawings(self, call: Call | None, result: Any, layers: tuple[str, ...]) -> list[Drawing]:
        """The figures, of the layer where they are of one."""
        name = call.variable if call else "result"
        layer = self.layer(result)
        return [
            Drawing(result, name, kind, layer if kind in self.RINGED else None, self.options(kind, result, layer))
            for kind in self.FIGURES
        ]

    def options(self, kind: str, result: Any, layer: str | None) -> Mapping[str, Any]:
        """Further arguments of a figure."""
        return {}

    def layers(self, result: Any, frame: pd.DataFrame) -> list[tuple[str, ...]]:
        """The layers that each row of a table stands for; of a segment's, both ends."""
        if {"source", "target"} <= set(frame):
            return list(zip(frame["source"], frame["target"], strict=True))
        return super().layers(result, frame)

    def shown(self, call: Call | None, result: Any, name: str) -> Any:
        """What stands for the result in another call."""
        return call if call is not None else Given(name, result)
