"""The interaction graph, cut live: how much of a layer, or of its edges, the network needs."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.call import Call
from workbench_widgets.degeneracy_view import DegeneracyView, counts
from workbench_widgets.evaluation import numbers_html
from workbench_widgets.shared import FieldStyle
from workbench_widgets.style import status_html

NODES, EDGES = 40, 400  # drawn of the layer that is cut, at most
OF_NODES, OF_EDGES = "with_nodes", "with_edges"
OUTPUT = "the last layer is the output itself: nothing of it is cut; choose another layer"


class InteractionGraphView(DegeneracyView):
    """`wb.interaction_graph`; budgets of nodes and edges of the layer are followed by `wb.ablated`."""

    NAME: ClassVar[str] = "graph"
    SHOWS: ClassVar[type[wb.Result]] = wb.InteractionGraph
    FIGURES: ClassVar[tuple[str, ...]] = ("graph",)
    TABLE: ClassVar[str | None] = "segments"
    HEIGHT: ClassVar[int] = 560

    def make(self, style: FieldStyle, initial: Mapping[str, Any]) -> list[ipw.DOMWidget]:
        """The budgets, and the loss that each gives."""
        self._at: tuple[Any, str] | None = None
        self.nodes = ipw.SelectionSlider(
            options=[0, 1],
            description="Nodes",
            tooltip="directions that the layer keeps, the constant first; it begins at what Λ predicts",
            style=style,
        )
        self.nodes_told = ipw.HTML()
        self.kept_edges = ipw.SelectionSlider(
            options=[0, 1],
            description="Kept edges",
            tooltip="to the next layer, the largest first; the constant's are free",
            style=style,
        )
        self.edges_told = ipw.HTML()
        return [self.nodes, self.nodes_told, self.kept_edges, self.edges_told]

    @property
    def widgets(self) -> list[ipw.DOMWidget]:
        """The controls of basis and edges, the layer, the budgets, and the names of modules."""
        inputs = self.inputs
        return [*inputs.basis_widgets, inputs.edges, inputs.layer, *self.own, inputs.names]

    @property
    def looks(self) -> list[ipw.DOMWidget]:
        """The budgets: the graph stays."""
        return [self.nodes, self.kept_edges]

    def call(self) -> Call:
        """`wb.interaction_graph`."""
        return self.inputs.graph()

    def arrive(self, call: Call | None, result: Any) -> None:
        """Budgets of the layer: at first the nodes that Λ predicts, and all edges."""
        super().arrive(call, result)
        layer = self.layer(result)
        if layer is None or (self._at is not None and self._at == (result, layer)):
            return
        self._at = (result, layer)
        cut = layer in result.edges
        self.nodes.disabled = self.kept_edges.disabled = not cut
        if not cut:
            for line in (self.nodes_told, self.edges_told):
                line.value = status_html(OUTPUT if line is self.nodes_told else "")
            return
        table = result.tables["layers"]
        place = table["layer"].index(layer)
        nodes, predicted = table["nodes"][place], table["predicted_nodes"][place]
        targets, sources = result.edges[layer].shape
        edges = (targets - 1) * (sources - 1)
        for slider, places, start in (
            (self.nodes, counts(nodes, predicted), predicted),
            (self.kept_edges, counts(edges), edges),
        ):
            slider.options = places
            slider.value = start

    def lives(self, call: Call | None, result: Any) -> Sequence[Call]:
        """The loss with so many nodes, and with so many edges."""
        layer = self.layer(result)
        if call is None or layer is None or layer not in result.edges:
            return ()
        basis = call.positional[2]
        arguments = (self.inputs.subject.evaluated(), basis, layer)
        return (
            Call(wb.ablated, (*arguments, self.nodes.value), name=OF_NODES),
            Call(wb.ablated, (*arguments, self.kept_edges.value), {"graph": call}, OF_EDGES),
        )

    def show_live(self, call: Call, value: Any) -> None:
        """The loss under its slider."""
        layer, kept = call.positional[2:]
        if call.name == OF_NODES:
            row = self._predicted(layer)
            what = f"layer {layer}, {kept} of {self.nodes.options[-1]:,} nodes{row}"
            self.nodes_told.value = numbers_html(what, value)
        else:
            total = self.kept_edges.options[-1]
            self.edges_told.value = numbers_html(f"layer {layer}, {kept:,} of {total:,} edges", value)

    def options(self, kind: str, result: Any, layer: str | None) -> Mapping[str, Any]:
        """What is kept is what is drawn; modules colour it, if they are known."""
        call = self.inputs.modules()
        modules = call if self.memory.find(call) is not None and self._fits(call, result) else None
        found: dict[str, Any] = {"modules": modules}
        if modules is not None:
            found["names"] = self.inputs.module_names() or None
        if layer in result.edges:
            found["nodes"] = {layer: min(max(self.nodes.value - 1, 1), NODES)}
            if self.kept_edges.value < self.kept_edges.options[-1]:
                found["edges"] = {layer: min(max(self.kept_edges.value, 1), EDGES)}
        return found

    def _fits(self, call: Call, result: Any) -> bool:
        return self.memory.find(call.positional[0]) is result

    def _predicted(self, layer: str) -> str:
        table = self._at[0].tables["layers"] if self._at else {"layer": ()}
        if layer not in table["layer"]:
            return ""
        return f" (Λ predicts {table['predicted_nodes'][table['layer'].index(layer)]})"

    def release(self) -> None:
        """Lets go of the graph."""
        self._at = None
