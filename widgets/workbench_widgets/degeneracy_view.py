"""What every view of `wb.ui.DegeneracyExplorer` has."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as ipw
import pandas as pd

from workbench_widgets.call import Call, Given
from workbench_widgets.degeneracy_inputs import DegeneracyInputs
from workbench_widgets.style import status_html
from workbench_widgets.view import Drawing, View


class DegeneracyView(View):
    """A view whose figures show the layer that is chosen."""

    inputs: DegeneracyInputs

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


def numbers_html(numbers: Mapping[str, float]) -> str:
    """A loss and metrics, to read."""
    return " · ".join(f"{name} {number:.5g}" for name, number in numbers.items() if not math.isnan(number))


def show_numbers(line: ipw.HTML, what: str, found: object) -> None:
    """Loss and metrics under a slider, or the error in their place."""
    if isinstance(found, Exception):
        line.value = status_html(str(found), error=True)
    elif isinstance(found, Mapping):
        line.value = status_html(f"{what}: {numbers_html(found)}")


def counts(total: int, *more: int) -> Sequence[int]:
    """Places of a slider over 0 … total: each up to 20, then steps of a twentieth, the total, and `more`."""
    found = list(range(min(20, total) + 1))
    while (following := found[-1] + max(1, found[-1] // 20)) < total:
        found.append(following)
    return sorted({*found, *more, total})
