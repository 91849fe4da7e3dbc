"""The interaction basis: what each direction of a layer weighs."""

from typing import Any, ClassVar

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.call import Call
from workbench_widgets.degeneracy_view import DegeneracyView
from workbench_widgets.view import Drawing


class BasisView(DegeneracyView):
    """`wb.interaction_basis`: Λ of the layer with the predicted number of nodes, and of all layers."""

    NAME: ClassVar[str] = "basis"
    SHOWS: ClassVar[type[wb.Result]] = wb.InteractionBasis
    FIGURES: ClassVar[tuple[str, ...]] = ("weights", "weights")
    RINGED: ClassVar[frozenset[str]] = frozenset({"weights"})
    TABLE: ClassVar[str | None] = "layers"
    HEIGHT: ClassVar[int] = 360

    @property
    def widgets(self) -> list[ipw.DOMWidget]:
        """The controls of the basis, and which layer is shown."""
        return [*self.inputs.basis_widgets, self.inputs.layer]

    def call(self) -> Call:
        """`wb.interaction_basis`."""
        return self.inputs.basis()

    def drawings(self, call: Call | None, result: Any, layers: tuple[str, ...]) -> list[Drawing]:
        """The layer's, and that of all layers."""
        name = call.variable if call else "result"
        return [
            Drawing(result, name, "weights", self.layer(result), variable="weights_figure"),
            Drawing(result, name, "weights", variable="all_weights_figure"),
        ]
