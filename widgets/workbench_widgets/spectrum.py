"""`wb.ui.SpectrumExplorer`: the spectra of a checkpoint, layer by layer."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import ipywidgets as ipw
import pandas as pd

import workbench as wb
from workbench_widgets.call import Call
from workbench_widgets.explorer import Explorer
from workbench_widgets.plot import Plot
from workbench_widgets.shared import FieldStyle
from workbench_widgets.spectrum_inputs import FULL, SpectrumInputs
from workbench_widgets.style import Theme

ALPHA, ESD = "α over depth", "eigenvalue density"
EVERY = "all verdicts"
HEIGHT = 310  # two plots stand as high as the inputs
SHOWN: Mapping[type[wb.Result], list[str]] = {
    wb.Spectrum: (
        "layer verdict alpha alpha_error tail_size ks_distance stable_rank entropy lambda_max rows cols depth reason"
    ).split(),
    wb.Farms: (
        "layer verdict alpha alpha_error alpha_full alpha_full_error tail_size ks_distance windows coverage "
        "window_rows window_cols rows cols depth reason"
    ).split(),
    wb.Comparison: "layer verdict first last change change_error mean std models numbers depth reason".split(),
}


class SpectrumExplorer(Explorer):
    """Opens a checkpoint, computes `wb.spectrum` or `wb.farms`, and shows α over depth and a layer's eigenvalues.

    Args:
        source: a path, or a model: anything `wb.load` takes.
        analysis: `spectrum` (full matrices) or `farms` (windows of one shape, beside the full matrix).
        layers: names or globs, comma-separated or a list; None for all.
        xmin: `search`, `median`, `peak` or a number; None for `search` of full matrices and `median` of windows.
        conv: `slices` or `flatten`.
        compat: None or `weightwatcher`.
        window: rows of a window, 10 to 512.
        aspect_ratio: columns per row of a window, 0.25 to 4.
        overlays: compute noise and shuffled elements too, and draw them beside the eigenvalues.
        compare: a path, or a list of paths or models: α against one other checkpoint, or over a trajectory of several.
        theme: `auto` follows JupyterLab, `light` and `dark` do not.

    Example:
        >>> import torch, workbench as wb
        >>> explorer = wb.ui.SpectrumExplorer({"fc.weight": torch.eye(64)}, xmin="median")
        >>> explorer.run().row("fc")["stable_rank"]
        64.0
    """

    TITLE: ClassVar[str] = "Spectra of the layers: click a row to see its eigenvalues"
    RESULTS: ClassVar[tuple[type[wb.Result], ...]] = tuple(SHOWN)

    def __init__(
        self,
        source: Any = None,
        *,
        analysis: str = FULL,
        layers: str | list[str] | None = None,
        xmin: str | float | None = None,
        conv: str = "slices",
        compat: str | None = None,
        window: int = 100,
        aspect_ratio: float = 1.0,
        overlays: bool = False,
        compare: Any = None,
        theme: Theme = "auto",
    ) -> None:
        self._initial = {
            "analysis": analysis,
            "layers": layers,
            "xmin": xmin,
            "conv": conv,
            "compat": compat,
            "window": window,
            "aspect_ratio": aspect_ratio,
            "overlays": overlays,
            "compare": compare,
        }
        super().__init__(source, theme=theme)

    def make_plots(self) -> dict[str, Plot]:
        """α over depth, then the selected layer."""
        return {ALPHA: Plot(ALPHA, self._picked, HEIGHT), ESD: Plot(ESD, height=HEIGHT)}

    def make_inputs(self, style: FieldStyle) -> list[ipw.DOMWidget]:
        """What is computed, and below it how the result is looked at."""
        self.inputs = SpectrumInputs(style, **self._initial)
        self.verdict = ipw.Dropdown(
            options=[EVERY], description="Show", tooltip="layers of one verdict in the table", style=style
        )
        self._listing = False
        self.layer = ipw.Dropdown(options=[], description="Look at", tooltip="the layer that is shown", style=style)
        self.refit = ipw.Checkbox(
            False,
            description="fit the tail anew from",
            tooltip="in the figure: the power law from the eigenvalue below, in place of the result's own",
            indent=False,
            style=style,
        )
        self.refit_at = ipw.FloatLogSlider(
            value=1.0,
            base=10,
            min=-6,
            max=6,
            step=0.01,
            description="λ =",
            tooltip="where the tail of the figure begins",
            disabled=True,
            readout_format=".4g",
            style=style,
        )
        self.layer.observe(self._guarded(self._layer_chosen), "value")
        self.verdict.observe(self._guarded(self._verdict_chosen), "value")
        self.refit.observe(self._guarded(self._refit_chosen), "value")
        self.refit_at.observe(self._guarded(self._refit_moved), "value")
        return [*self.inputs.widgets, self.verdict, self.layer, self.refit, self.refit_at]

    def call(self) -> Call:
        """`wb.spectrum`, `wb.farms` or `wb.comparison` with what the controls say, defaults left out."""
        function, arguments = self.inputs.call()
        others = self.inputs.others
        return Call(function, ([self.model, *others] if others else self.model,), arguments)

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
        words = [EVERY, *dict.fromkeys(frame["verdict"])]
        chosen = self.verdict.value if self.verdict.value in words else EVERY
        self.verdict.options, self.verdict.value = words, chosen
        self._list(self._filtered(frame))
        if not set(self.selection) <= set(frame["layer"]) or not self.selection:
            order = frame["alpha"] if "alpha" in frame else -frame["change"].abs()
            fitted = frame.loc[order.dropna().sort_values().index]
            self.selection = tuple(fitted["layer"].head(1)) or tuple(frame["layer"].head(1))

    def show_selection(self, layers: tuple[str, ...]) -> None:
        """The selected layer's density and fit, and its ring in the plot of α."""
        if self.result is not None:
            if not self.refit.value:
                self._draw_density()  # first, since it is what somebody who selects a layer waits for
            self._set_slider()
            if self.refit.value:
                self._draw_density()
            try:
                self.plots[ALPHA].show(wb.figure(self.result, self._overview(), layer=self._ringed()))
            except wb.FigureError as error:
                self.plots[ALPHA].clear(str(error))
        layer = layers[0] if layers else None
        if (layer is None or layer in self.layer.options) and self.layer.value != layer:
            self.layer.value = layer

    def figure_code(self) -> list[str]:
        """The plots, as `wb.figure` draws them for print."""
        name = self._shown[0].variable if self._shown else "spectrum"
        ring = f", layer={self._ringed()!r}" if self._ringed() else ""
        lines = [f"overview = wb.figure({name}, {self._overview()!r}{ring})"] if self.plots[ALPHA].spec else []
        xmin = f", xmin={self.refit_at.value!r}" if self.refit.value else ""
        one = f"one = wb.figure({name}, {self._one()!r}, layer={self._inside()!r}{xmin})"
        return lines + ([one] if self.plots[ESD].spec else [])

    def _overview(self) -> str:
        """The figure of all layers: α over depth, or the first and the last of a comparison, or all its models."""
        if not isinstance(self.result, wb.Comparison):
            return "alpha"
        return "change" if len(self.result.tables["models"]["label"]) == 2 else "trajectory"

    def _ringed(self) -> str | None:
        """The layer that the overview rings; a map of a trajectory has none."""
        return None if self._overview() == "trajectory" else self._inside()

    def _one(self) -> str:
        """The figure of one layer."""
        return "trajectory" if isinstance(self.result, wb.Comparison) else "esd"

    def _inside(self) -> str | None:
        """The selected layer, if the result has it."""
        layer = self.selection[0] if self.selection else None
        return layer if self.result is not None and layer in self.result.tables["layers"]["layer"] else None

    def _draw_density(self) -> None:
        layer = self._inside()
        if layer is None:
            self.plots[ESD].clear("select a layer of the result")
            return
        xmin = self.refit_at.value if self.refit.value else None
        try:
            self.plots[ESD].show(wb.figure(self.result, self._one(), layer=layer, xmin=xmin))
        except wb.FigureError as error:
            self.plots[ESD].clear(str(error))

    def _set_slider(self) -> None:
        """The slider goes from the smallest to the last eigenvalue but one, and begins where the fit does."""
        layer = self._inside()
        values = self._drawn_eigenvalues(layer)
        if len(values) < 3 or values[-2] < values[0] * (1 + 1e-9):  # a tail has two points, and a slider two ends
            self.refit.value, self.refit.disabled = False, True
            return
        self.refit.disabled = False
        row, low, high = self.result.row(layer), math.log10(values[0]), math.log10(values[-2])
        if (self.refit_at.min, self.refit_at.max) != (low, high):
            with self.refit_at.hold_sync(), self.refit_at.hold_trait_notifications():
                self.refit_at.min, self.refit_at.max = min(low, self.refit_at.min), max(high, self.refit_at.max)
                self.refit_at.value = row["xmin"] if math.isfinite(row["xmin"]) and row["xmin"] > 0 else 10**low
                self.refit_at.min, self.refit_at.max = low, high

    def _drawn_eigenvalues(self, layer: str | None) -> list[float]:
        """The layer's eigenvalues that its histogram shows: those that are no rounding of zero."""
        values = getattr(self.result, "eigenvalues", {}).get(layer)
        try:
            marks = wb.figure(self.result, "esd", layer=layer).panels[0].marks if values is not None else ()
        except wb.FigureError:
            return []
        lowest = [mark.edges[0] for mark in marks if hasattr(mark, "edges")]
        return values[values >= min(lowest) * (1 - 1e-9)].tolist() if lowest else []

    def _filtered(self, frame: pd.DataFrame) -> pd.DataFrame:
        columns = SHOWN[type(self.result)]
        chosen = frame if self.verdict.value == EVERY else frame[frame["verdict"] == self.verdict.value]
        return chosen[columns]

    def _list(self, frame: pd.DataFrame) -> None:
        self.rows.show(frame)
        chosen = self.selection[0] if self.selection else None
        names = list(frame["layer"])
        self._listing = True
        self.layer.options = names  # the drop-down chooses the first of them, which nobody has chosen
        self.layer.value = chosen if chosen in names else None
        self._listing = False

    def _layer_chosen(self) -> None:
        if not self._listing and self.layer.value is not None and self.layer.value not in self.selection[:1]:
            self.selection = (self.layer.value,)

    def _verdict_chosen(self) -> None:
        if self.result is not None:
            self._list(self._filtered(self.result.frame()))

    def _refit_moved(self) -> None:
        """The slider moves with every selection; the figure has it only if it is asked for."""
        if self.refit.value:
            self._draw_density()

    def _refit_chosen(self) -> None:
        self.refit_at.disabled = not self.refit.value
        self._draw_density()

    def close(self) -> None:
        """Lets go of the models to compare with too."""
        if (inputs := getattr(self, "inputs", None)) is not None:  # it may have failed to be made
            inputs.release()
        super().close()
