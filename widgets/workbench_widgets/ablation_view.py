"""Ablation: the loss by how many nodes or edges are kept."""

from collections.abc import Mapping
from typing import Any, ClassVar

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.arguments import one_of
from workbench_widgets.call import Call
from workbench_widgets.degeneracy_view import DegeneracyView
from workbench_widgets.shared import FieldStyle

NODES, EDGES = "nodes", "edges"
SCHEDULES = ("exponential", "linear", "bisect")
TOLERANCE = 0.001  # the default of wb.ablation


class AblationView(DegeneracyView):
    """`wb.ablation` of a layer's nodes, or of the edges to the next."""

    NAME: ClassVar[str] = "ablation"
    SHOWS: ClassVar[type[wb.Result]] = wb.Ablation
    FIGURES: ClassVar[tuple[str, ...]] = ("ablation",)
    TABLE: ClassVar[str | None] = "points"
    HEIGHT: ClassVar[int] = 420

    def make(self, style: FieldStyle, initial: Mapping[str, Any]) -> list[ipw.DOMWidget]:
        """What is ablated, how many numbers of it are tried, and what counts as the same."""
        one_of("schedule", initial["schedule"], SCHEDULES)
        one_of("ablate", initial["ablate"], (NODES, EDGES))
        self.what = ipw.Dropdown(
            options=[NODES, EDGES], value=initial["ablate"], description="Ablate", tooltip="what is left out",
            style=style,
        )  # fmt: skip
        self.schedule = ipw.Dropdown(
            options=SCHEDULES,
            value=initial["schedule"],
            description="Schedule",
            tooltip="which numbers are tried; bisect looks for the smallest within tolerance",
            style=style,
        )
        self.tolerance = ipw.BoundedFloatText(
            TOLERANCE, min=0, max=1e6, step=0.001, description="Tolerance", tooltip="in accuracy, or in loss",
            style=style,
        )  # fmt: skip
        return [self.what, self.schedule, self.tolerance]

    @property
    def widgets(self) -> list[ipw.DOMWidget]:
        """The controls of the basis, of edges where they count, the layer, and its own."""
        edges = [self.inputs.edges] if self.what.value == EDGES else []
        return [*self.inputs.basis_widgets, self.inputs.layer, self.what, *edges, self.schedule, self.tolerance]

    def call(self) -> Call:
        """`wb.ablation`."""
        keywords: dict[str, Any] = {"graph": self.inputs.graph()} if self.what.value == EDGES else {}
        if self.schedule.value != SCHEDULES[0]:
            keywords["schedule"] = self.schedule.value
        if self.tolerance.value != TOLERANCE:
            keywords["tolerance"] = self.tolerance.value
        arguments = (self.inputs.subject.evaluated(), self.inputs.basis(), self.inputs.layer_argument())
        return Call(wb.ablation, arguments, keywords, "ablation")

    def names(self, result: Any) -> list[str]:
        """The layers of the basis, if it is known; else the ablated one."""
        basis = self.memory.find(self.inputs.basis())
        return basis.layers if basis is not None else [result.meta["layer"]]

    def layer(self, result: Any) -> str | None:
        """The layer that was ablated."""
        return str(result.meta["layer"])
