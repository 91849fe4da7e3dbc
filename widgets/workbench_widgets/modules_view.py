"""Modules of the interaction graph: which directions belong together, and whether more than by chance."""

from collections.abc import Mapping
from typing import Any, ClassVar

import ipywidgets as ipw
import pandas as pd

import workbench as wb
from workbench_widgets.call import Call
from workbench_widgets.degeneracy_view import DegeneracyView


class ModulesView(DegeneracyView):
    """`wb.interaction_modules`: the graph by module, sizes, and Q beside that of shuffled graphs."""

    NAME: ClassVar[str] = "modules"
    SHOWS: ClassVar[type[wb.Result]] = wb.InteractionModules
    FIGURES: ClassVar[tuple[str, ...]] = ("graph", "modularity")
    TABLE: ClassVar[str | None] = "modules"
    HEIGHT: ClassVar[int] = 440

    @property
    def widgets(self) -> list[ipw.DOMWidget]:
        """The controls of basis and graph, the weights, the null graphs, and the names."""
        inputs = self.inputs
        return [*inputs.basis_widgets, inputs.edges, inputs.norm, inputs.nulls, inputs.names]

    def call(self) -> Call:
        """`wb.interaction_modules`."""
        return self.inputs.modules()

    def names(self, result: Any) -> list[str]:
        """The layers of the nodes."""
        return list(dict.fromkeys(result.tables["nodes"]["layer"]))

    def options(self, kind: str, result: Any, layer: str | None) -> Mapping[str, Any]:
        """The names that were typed."""
        return {"names": self.inputs.module_names() or None}

    def table(self, name: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Modules with the names that they were given."""
        known = self.inputs.module_names()
        if known and "module" in frame:
            place = list(frame).index("module") + 1
            frame.insert(place, "name", [known.get(number, "") for number in frame["module"]])
        return frame
