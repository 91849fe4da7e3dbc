"""What every view of `wb.ui.SignatureExplorer` has."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

import workbench as wb
from workbench_widgets.call import Call
from workbench_widgets.connectivity_view import layer_of
from workbench_widgets.degeneracy_view import numbers_html
from workbench_widgets.layered_view import LayeredView
from workbench_widgets.signature_inputs import SignatureInputs
from workbench_widgets.style import status_html
from workbench_widgets.view import Drawing

OF_ONE = ("lorenz", "singular", "extraction")  # figures of one layer


class SignatureView(LayeredView):
    """A view of a base and models; unless it says otherwise its result is a `wb.Diff`."""

    inputs: SignatureInputs
    SHOWS = wb.Diff
    RINGED = frozenset({"norms", "overlap", "cosines", *OF_ONE})

    def layer(self, result: Any) -> str | None:
        """The chosen layer, or the first weight matrix, or the first of all."""
        names = self.names(result)
        if self.inputs.layer.value in names or not isinstance(result, wb.Diff):
            return self.inputs.shown_layer(names)
        kinds = zip(names, result.tables["layers"]["kind"], strict=True)
        return next((name for name, kind in kinds if kind), next(iter(names), None))

    def arrive(self, call: Call | None, result: Any) -> None:
        """Lists the layers and the models that there are."""
        super().arrive(call, result)
        if self.inputs.model in self.widgets:
            self.inputs.know_labels(result.labels)

    def drawings(self, call: Call | None, result: Any, layers: tuple[str, ...]) -> list[Drawing]:
        """The figures; those of one layer show the first where none is chosen, the others ring the chosen one."""
        name = call.variable if call else "result"
        chosen = self.inputs.layer.value
        found = []
        for kind in self.FIGURES:
            ringed = (chosen,) if chosen else ()
            layer = self.layer(result) if kind in OF_ONE else self._ringed(result, kind, ringed)
            layer = chosen if kind == "cosines" and chosen in self.names(result) else layer
            found.append(Drawing(result, name, kind, layer, self.options(kind, result, layer)))
        return found

    def options(self, kind: str, result: Any, layer: str | None) -> Mapping[str, Any]:
        """One of several models."""
        model = self.inputs.model.value
        return {"model": model} if kind != "cosines" and model in getattr(result, "labels", ()) else {}

    def layers(self, result: Any, frame: pd.DataFrame) -> list[tuple[str, ...]]:
        """The layers that each row of a table stands for; of a tensor its own."""
        known = set(self.names(result))
        column = frame["layer"] if "layer" in frame else frame["tensor"].map(layer_of) if "tensor" in frame else []
        return [(layer,) if layer in known else () for layer in column] or [()] * len(frame)


class Numbers:
    """Loss and metrics by what they are of, as lines of text; errors in their place."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}

    def keep(self, what: str, value: Any) -> None:
        """What was evaluated, or the error."""
        self._found[what] = value

    def drop(self, what: str) -> None:
        """Forgets numbers that hold no more."""
        self._found.pop(what, None)

    def same(self, what: str, other: str) -> bool:
        """Whether the numbers of both are known and the same to the last digit."""
        return what in self._found and self._found[what] == self._found.get(other)

    def html(self, order: Mapping[str, str]) -> str:
        """The lines of these by what they are called, as far as they are known."""
        return "".join(self._line(what, name) for what, name in order.items() if what in self._found)

    def _line(self, what: str, name: str) -> str:
        value = self._found[what]
        error = isinstance(value, Exception)
        return status_html(str(value) if error else f"{name}: {numbers_html(value)}", error=error)
