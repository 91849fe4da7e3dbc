"""Several models: cosines of their changes by layer, and how the change of a layer is spread and where it lies."""

from typing import Any, ClassVar

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.call import Call
from workbench_widgets.signature_view import SignatureView


class CosinesView(SignatureView):
    """`wb.diff` of two models or more: a clustered heat map over all weights or of a layer."""

    NAME: ClassVar[str] = "cosines"
    FIGURES: ClassVar[tuple[str, ...]] = ("cosines", "lorenz", "overlap")
    TABLE: ClassVar[str | None] = "pairs"
    HEIGHT: ClassVar[int] = 400

    @property
    def widgets(self) -> list[ipw.DOMWidget]:
        """The models, the layer, and the model whose curve is shown."""
        return [self.inputs.models, self.inputs.layers, self.inputs.layer, self.inputs.model]

    def call(self) -> Call:
        """`wb.diff` with what all three figures need.

        Raises:
            wb.ArgumentError: there is one model.
        """
        if len(self.inputs.given_models()) < 2:
            raise wb.ArgumentError("cosines of changes need two models or more: type another one under Models.")
        found = self.inputs.difference(["lorenz", "spectra"])
        keywords: dict[str, Any] = {name: one for name, one in found.keywords.items() if name != "floor"}
        return Call(found.function, found.positional, keywords, found.name)
