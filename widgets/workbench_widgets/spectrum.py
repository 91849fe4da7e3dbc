"""`wb.ui.SpectrumExplorer`: the spectra of a checkpoint, layer by layer."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import ipywidgets as ipw
import pandas as pd
import traitlets

import workbench as wb
from workbench_widgets.call import Call
from workbench_widgets.explorer import Explorer, one_of
from workbench_widgets.plot import Plot
from workbench_widgets.style import Theme

ALPHA, ESD = "α over depth", "eigenvalue density"
SHOWN = (
    "layer verdict alpha alpha_error tail_size ks_distance stable_rank entropy lambda_max rows cols depth reason"
).split()


class SpectrumExplorer(Explorer):
    """Opens a checkpoint, computes `wb.spectrum`, and shows α over depth and the selected layer's spectrum.

    Args:
        source: a path, or a model: anything `wb.load` takes.
        layers: names or globs, comma-separated or a list; None for all.
        xmin: `search`, `median` or a number.
        conv: `slices` or `flatten`.
        compat: None or `weightwatcher`.
        theme: `auto` follows JupyterLab, `light` and `dark` do not.

    Example:
        >>> import torch, workbench as wb
        >>> explorer = wb.ui.SpectrumExplorer({"fc.weight": torch.eye(64)}, xmin="median")
        >>> explorer.run().row("fc")["stable_rank"]
        64.0
    """

    result = traitlets.Instance(wb.Spectrum, allow_none=True)

    TITLE: ClassVar[str] = "Spectra of the layers: click a row to see its eigenvalues"

    def __init__(
        self,
        source: Any = None,
        *,
        layers: str | list[str] | None = None,
        xmin: str | float = "search",
        conv: str = "slices",
        compat: str | None = None,
        theme: Theme = "auto",
    ) -> None:
        self._initial = (layers, xmin, conv, compat)
        super().__init__(source, theme=theme)

    def make_plots(self) -> dict[str, Plot]:
        """α over depth on the left, the selected layer on the right."""
        return {ALPHA: Plot(ALPHA, self._picked), ESD: Plot(ESD)}

    def make_inputs(self, style: Mapping[str, str]) -> list[ipw.DOMWidget]:
        """Layers, the rule for the tail, convolutions, compatibility, and the layer that is looked at."""
        layers, xmin, conv, compat = self._initial
        number = isinstance(xmin, int | float) and not isinstance(xmin, bool) and 0 < xmin < math.inf
        one_of("xmin", "number" if number else xmin, ("search", "median", "number"))
        one_of("conv", conv, ("slices", "flatten"))
        one_of("compat", compat, (None, "weightwatcher"))
        if compat and (xmin, conv) != ("search", "slices"):
            raise wb.ArgumentError(f"compat={compat!r} means xmin='search' and conv='slices'; drop one or the other.")
        names = [] if layers is None else [layers] if isinstance(layers, str) else layers
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names) or layers == []:
            raise wb.ArgumentError(f"layers={layers!r}: expected None, a name or glob, or a list of them.")
        if not isinstance(layers, str) and (odd := [name for name in names if "," in name]):
            raise wb.ArgumentError(
                f"layers={odd[0]!r}: the field separates names by commas; write the glob with ? for it."
            )
        text = ", ".join(names)
        self.layers = ipw.Text(
            text, description="Layers", placeholder="all; globs: encoder.*, fc1", continuous_update=False, style=style
        )
        self.xmin = ipw.Dropdown(
            options=[("search for it", "search"), ("at the median", "median"), ("at a number", "number")],
            value="number" if number else xmin,
            description="Tail begins",
            tooltip="xmin: where the fitted tail begins",
            style=style,
        )
        self.xmin_number = ipw.FloatText(
            xmin if number else 1.0, description="at λ =", disabled=not number, style=style
        )
        self.conv = ipw.Dropdown(
            options=[("one matrix per kernel position", "slices"), ("one flat matrix", "flatten")],
            value=conv,
            description="Convolutions",
            style=style,
        )
        self.compat = ipw.Checkbox(
            compat is not None, description="WeightWatcher 0.7.7's rules", indent=False, style=style
        )
        self.layer = ipw.Dropdown(options=[], description="Look at", tooltip="the layer that is shown", style=style)
        self.layer.observe(self._guarded(self._layer_chosen), "value")
        for control in (self.xmin, self.compat):
            control.observe(self._guarded(self._enable), "value")
        self._enable()
        return [self.layers, self.xmin, self.xmin_number, self.conv, self.compat, self.layer]

    def call(self) -> Call:
        """`wb.spectrum` with what the controls say, defaults left out."""
        patterns = [part.strip() for part in self.layers.value.split(",") if part.strip()]
        arguments: dict[str, Any] = {"layers": patterns} if patterns else {}
        if self.compat.value:
            return Call(wb.spectrum, (self.model,), arguments | {"compat": "weightwatcher"})
        if self.xmin.value != "search":
            arguments["xmin"] = self.xmin_number.value if self.xmin.value == "number" else self.xmin.value
        if self.conv.value != "slices":
            arguments["conv"] = self.conv.value
        return Call(wb.spectrum, (self.model,), arguments)

    def show_model(self, model: tuple[wb.Weights, wb.LayerTable] | None) -> None:
        """The layers that would be analysed, from the header alone."""
        columns = ["layer", "kind", "shape", "rows", "cols", "matrices", "elements", "dtype", "depth"]
        if model is None:
            self._list(pd.DataFrame(columns=columns))
        else:
            self._list(model[1].frame().query("verdict == 'analysed'")[columns])

    def show_result(self, result: wb.Result) -> None:
        """Numbers in the table, α over depth in the plot; the layer with the smallest α is looked at first."""
        frame = result.frame()
        self._list(frame[SHOWN])
        if not set(self.selection) <= set(frame["layer"]) or not self.selection:
            fitted = frame.dropna(subset=["alpha"]).sort_values("alpha")
            self.selection = tuple(fitted["layer"].head(1)) or tuple(frame["layer"].head(1))

    def show_selection(self, layers: tuple[str, ...]) -> None:
        """The selected layer's density and fit, and its ring in the plot of α."""
        layer = layers[0] if layers else None
        if layer in self.layer.options and self.layer.value != layer:
            self.layer.value = layer
        if self.result is None:
            return
        inside = layer if layer in self.result.tables["layers"]["layer"] else None
        for name, kind in ((ALPHA, "alpha"), (ESD, "esd")):
            if kind == "esd" and inside is None:
                self.plots[name].clear("select a layer of the result")
                continue
            try:
                self.plots[name].show(wb.figure(self.result, kind, layer=inside))
            except wb.FigureError as error:
                self.plots[name].clear(str(error))

    def figure_code(self) -> list[str]:
        """The plots, as `wb.figure` draws them for print."""
        lines = ['alpha = wb.figure(spectrum, "alpha")'] if self.plots[ALPHA].spec else []
        return lines + (
            [f'esd = wb.figure(spectrum, "esd", layer={self.selection[0]!r})'] if self.plots[ESD].spec else []
        )

    def _list(self, frame: pd.DataFrame) -> None:
        self.rows.show(frame)
        chosen = self.selection[0] if self.selection else None
        names = list(frame["layer"])
        self.layer.options = names
        self.layer.value = chosen if chosen in names else None

    def _layer_chosen(self) -> None:
        if self.layer.value is not None and self.selection != (self.layer.value,):
            self.selection = (self.layer.value,)

    def _picked(self, layer: str) -> None:
        self._attempt(lambda: setattr(self, "selection", (layer,)))

    def _enable(self) -> None:
        self.xmin.disabled = self.conv.disabled = self.compat.value
        self.xmin_number.disabled = self.compat.value or self.xmin.value != "number"
