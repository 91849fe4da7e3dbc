"""The audit: spectra of activations and gradients, and the ranks at a threshold that moves."""

from collections.abc import Mapping
from typing import Any, ClassVar

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.arguments import one_of
from workbench_widgets.call import Call
from workbench_widgets.degeneracy_view import DegeneracyView
from workbench_widgets.shared import FieldStyle
from workbench_widgets.style import status_html

LEAST = -18  # decades of the threshold


class AuditView(DegeneracyView):
    """`wb.degeneracy`: G and M′ of the layer with noise floors, and ranks over depth."""

    NAME: ClassVar[str] = "spectra"
    SHOWS: ClassVar[type[wb.Result]] = wb.Degeneracy
    FIGURES: ClassVar[tuple[str, ...]] = ("spectra", "ranks")
    RINGED: ClassVar[frozenset[str]] = frozenset(FIGURES)
    TABLE: ClassVar[str | None] = "layers"
    HEIGHT: ClassVar[int] = 360

    def make(self, style: FieldStyle, initial: Mapping[str, Any]) -> list[ipw.DOMWidget]:
        """The threshold, and the ranks that it gives."""
        threshold = initial["threshold"]
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 10**LEAST <= threshold <= 1:
            one_of("threshold", threshold, (f"a share of the largest eigenvalue, from 1e{LEAST} to 1",))
        self.threshold = ipw.FloatLogSlider(
            float(threshold),
            base=10,
            min=LEAST,
            max=0,
            step=0.25,
            description="Threshold",
            tooltip="share of the largest eigenvalue",
            continuous_update=True,
            readout_format=".1e",
            style=style,
        )
        self.told = ipw.HTML()
        return [self.threshold, self.told]

    @property
    def widgets(self) -> list[ipw.DOMWidget]:
        """The layers, the one that is shown, the threshold."""
        return [self.inputs.layers, self.inputs.layer, *self.own]

    @property
    def looks(self) -> list[ipw.DOMWidget]:
        """The threshold: nothing is computed anew."""
        return [self.threshold]

    def call(self) -> Call:
        """`wb.degeneracy`."""
        return self.inputs.audit()

    def options(self, kind: str, result: Any, layer: str | None) -> Mapping[str, Any]:
        """The threshold of the spectra."""
        return {"threshold": self._threshold} if kind == "spectra" else {}

    def drawings(self, call: Call | None, result: Any, layers: tuple[str, ...]) -> list[Any]:
        """The figures; the ranks are told too."""
        layer = self.layer(result)
        if layer is not None:
            self.told.value = status_html(self.ranks(result, layer))
        return super().drawings(call, result, layers)

    def ranks(self, result: wb.Degeneracy, layer: str) -> str:
        """The ranks at the slider's threshold, beside those at the noise floor."""
        row, told = result.row(layer), []
        for sign, column, spectra in (
            ("r_G", "activation_rank", result.activation_eigenvalues),
            ("r_M′", "gradient_rank", result.gradient_eigenvalues),
        ):
            if layer in spectra:
                values = spectra[layer]
                above = int((values > self._threshold * values.max()).sum())
                told.append(f"{sign} {above} of {len(values)} (at the noise floor {row[column]:g})")
        return f"layer {layer}: " + " · ".join(told) if told else f"layer {layer}: {row['reason'] or row['verdict']}"

    @property
    def _threshold(self) -> float:
        return float(f"{self.threshold.value:.6g}")  # the page's steps add up to 0.9999…e-9
