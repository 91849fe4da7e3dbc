"""What changed between a base and models: the manifest, and layers ranked over a second seed's noise."""

from collections.abc import Mapping
from typing import Any, ClassVar

import ipywidgets as ipw

from workbench_widgets.arguments import one_of
from workbench_widgets.call import Call
from workbench_widgets.shared import FieldStyle
from workbench_widgets.signature_view import SignatureView
from workbench_widgets.view import Drawing

TABLES = {"norms": "layers", "lorenz": "lorenz", "overlap": "spectra"}  # that a figure is drawn from
DETAILS = {"lorenz": "how the change is spread", "outliers": "channels that stand out", "spectra": "ranks and overlap"}


class ChangesView(SignatureView):
    """`wb.diff`: ranked bars over the floor, and of the chosen details the Lorenz curve and overlaps."""

    NAME: ClassVar[str] = "changes"
    FIGURES: ClassVar[tuple[str, ...]] = ("norms", "lorenz", "overlap")
    TABLE: ClassVar[str | None] = "manifest"
    HEIGHT: ClassVar[int] = 340

    def make(self, style: FieldStyle, initial: Mapping[str, Any]) -> list[ipw.DOMWidget]:
        """The details."""
        for name in initial["detail"]:
            one_of("detail", name, tuple(DETAILS))
        self.details = {
            name: ipw.Checkbox(
                name in initial["detail"],
                description=f"{name.capitalize()}: {meaning}",
                tooltip=f"compute {meaning} too; Run then takes longer",
                indent=False,
                style=style,
            )
            for name, meaning in DETAILS.items()
        }
        return list(self.details.values())

    @property
    def widgets(self) -> list[ipw.DOMWidget]:
        """The models, the floor, the details, and what is shown of them."""
        inputs = self.inputs
        return [inputs.models, inputs.floor, inputs.layers, *self.own, inputs.layer, inputs.model]

    def drawings(self, call: Call | None, result: Any, layers: tuple[str, ...]) -> list[Drawing]:
        """The figures of what was computed: a detail that was not asked for has none."""
        return [one for one in super().drawings(call, result, layers) if TABLES[one.kind] in result.tables]

    def call(self) -> Call:
        """`wb.diff`."""
        return self.inputs.difference([name for name, box in self.details.items() if box.value])
