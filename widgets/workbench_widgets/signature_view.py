"""What every view of `wb.ui.SignatureExplorer` has."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

import workbench as wb
from workbench_widgets.call import Call
from workbench_widgets.layered_view import LayeredView
from workbench_widgets.signature_inputs import SignatureInputs
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
        """The layers that each row of a table stands for; of a tensor its own, all of a fused one."""
        known = set(self.names(result))
        by_tensor = "tensor" in frame and "layer" not in frame
        rows = [self.layers_of(tensor) for tensor in frame["tensor"]] if by_tensor else super().layers(result, frame)
        return [tuple(layer for layer in row if layer in known) for row in rows]
