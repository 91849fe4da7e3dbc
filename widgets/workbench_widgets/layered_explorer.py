"""The base of explorers whose figures show one layer: the chosen one is the selected one."""

import ipywidgets as ipw

from workbench_widgets.layered_view import LayerInputs
from workbench_widgets.shared import FieldStyle
from workbench_widgets.view_explorer import ViewExplorer


class LayeredExplorer(ViewExplorer):
    """An explorer whose shared inputs choose a layer."""

    inputs: LayerInputs

    def make_inputs(self, style: FieldStyle) -> list[ipw.DOMWidget]:
        """All controls; the layer follows the selection, and the selection the layer."""
        controls = super().make_inputs(style)
        self.inputs.layer.observe(self._guarded(self._layer_chosen), "value")
        return controls

    def show_selection(self, layers: tuple[str, ...]) -> None:
        """The figures, with the first of the selected layers that they have."""
        self.inputs.wanted = layers
        known = [name for _, name in self.inputs.layer.options]
        if chosen := next((layer for layer in layers if layer in known), None):
            self.inputs.layer.value = chosen
        super().show_selection(layers)

    def _layer_chosen(self) -> None:
        """The chosen layer is the selected one."""
        layer = self.inputs.layer.value
        if not layer or layer not in self.selection:
            self.selection = (layer,) if layer else ()
