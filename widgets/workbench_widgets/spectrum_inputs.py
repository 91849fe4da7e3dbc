"""The inputs of `wb.ui.SpectrumExplorer`, and the call that they stand for."""

import math
from collections.abc import Callable
from typing import Any

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.arguments import one_of
from workbench_widgets.checkpoint import CheckpointsField
from workbench_widgets.shared import FieldStyle

FULL, WINDOWS = "spectrum", "farms"
RULES = ("search", "median", "peak")
CONV = ("slices", "flatten")
WINDOW = 100  # the default of wb.farms


class SpectrumInputs:
    """Controls that say what is computed of a checkpoint.

    Args:
        style: of the labels.
        analysis: `spectrum` (full matrices) or `farms` (windows).
        layers: names or globs, comma-separated or a list; None for all.
        xmin: `search`, `median`, `peak` or a number; None for the analysis's own default.
        conv: `slices` or `flatten`.
        compat: None or `weightwatcher`, of full matrices only.
        window: rows of a window.
        aspect_ratio: columns per row of a window.
        overlays: whether noise and shuffled elements are computed, to be drawn beside the density.
        compare: other checkpoints, a path or a list of paths or models: one to compare with, several for a trajectory.

    Raises:
        wb.ArgumentError: a value that its control does not offer.
    """

    def __init__(
        self,
        style: FieldStyle,
        *,
        analysis: str,
        layers: str | list[str] | None,
        xmin: str | float | None,
        conv: str,
        compat: str | None,
        window: int,
        aspect_ratio: float,
        overlays: bool,
        compare: Any,
    ) -> None:
        one_of("analysis", analysis, (FULL, WINDOWS))
        xmin = {FULL: "search", WINDOWS: "median"}[analysis] if xmin is None else xmin
        number = isinstance(xmin, int | float) and not isinstance(xmin, bool) and 0 < xmin < math.inf
        one_of("xmin", "number" if number else xmin, (*RULES, "number"))
        one_of("conv", conv, CONV)
        one_of("compat", compat, (None, "weightwatcher"))
        if not isinstance(overlays, bool):
            raise wb.ArgumentError(f"overlays={overlays!r}: expected True or False.")
        if compat and (analysis, xmin, conv) != (FULL, "search", "slices"):
            raise wb.ArgumentError(
                f"compat={compat!r} means full matrices, xmin='search' and conv='slices'; drop one or the other."
            )
        if analysis == WINDOWS and overlays:
            raise wb.ArgumentError("overlays=True goes with analysis='spectrum': noise and shuffles of full matrices.")
        if analysis == FULL and (window, aspect_ratio) != (WINDOW, 1):
            raise wb.ArgumentError("window= and aspect_ratio= go with analysis='farms', which looks through windows.")
        self.analysis = ipw.Dropdown(
            options=[("full matrices", FULL), ("windows (FARMS)", WINDOWS)],
            value=analysis,
            description="Analyse",
            tooltip="the spectrum of each matrix, or of windows of one aspect ratio",
            style=style,
        )
        self.layers = ipw.Text(
            _names(layers),
            description="Layers",
            placeholder="all; globs: encoder.*, fc1",
            tooltip="names or globs, comma-separated; empty for all",
            continuous_update=False,
            style=style,
        )
        self.xmin = ipw.Dropdown(
            options=[
                ("search for it", "search"),
                ("at the median", "median"),
                ("at the peak", "peak"),
                ("at a number", "number"),
            ],
            value="number" if number else xmin,
            description="Tail begins",
            tooltip="xmin: where the fitted tail begins",
            style=style,
        )
        self.xmin_number = ipw.FloatText(
            xmin if number else 1.0,
            description="at λ =",
            tooltip="the eigenvalue at which the tail begins",
            style=style,
        )
        self.conv = ipw.Dropdown(
            options=[("per kernel position", "slices"), ("one flat matrix", "flatten")],
            value=conv,
            description="Convolutions",
            tooltip="a matrix for each position of the kernel, or one with all positions side by side",
            style=style,
        )
        self.compat = ipw.Checkbox(
            compat is not None,
            description="WeightWatcher 0.7.7's rules",
            tooltip="its rules for tails and norms, and its columns under its names",
            indent=False,
            style=style,
        )
        self.overlays = ipw.Checkbox(
            overlays,
            description="noise and shuffled elements too",
            tooltip="compute noise and shuffled elements too, and draw them beside the eigenvalues",
            indent=False,
            style=style,
        )
        self.window = self._slider(ipw.IntSlider, window, 10, 512, 1, "Window", "rows of a window", style)
        self.aspect_ratio = self._slider(
            ipw.FloatSlider, aspect_ratio, 0.25, 4.0, 0.25, "Aspect ratio", "columns per row of a window", style
        )
        others = [] if compare is None else compare if isinstance(compare, list | tuple) else [compare]
        tooltip = "one checkpoint to compare with, or several for a trajectory"
        self.compare = CheckpointsField(others, "Compare with", style, tooltip)
        for control in (self.analysis, self.xmin, self.compat, self.compare):
            control.observe(lambda _: self.enable(), "value")
        self.analysis.observe(self._usual_rule, "value")
        self.enable()

    @property
    def widgets(self) -> list[ipw.DOMWidget]:
        """The controls, top to bottom."""
        return [
            self.layers,
            self.analysis,
            self.xmin,
            self.xmin_number,
            self.conv,
            self.window,
            self.aspect_ratio,
            self.compat,
            self.overlays,
            self.compare,
        ]

    @property
    def others(self) -> list[Any]:
        """The checkpoints to compare with; what is typed comes first."""
        return self.compare.models

    def release(self) -> None:
        """Lets go of the models that were given."""
        self.compare.release()

    def call(self) -> tuple[Callable[..., wb.Result], dict[str, Any]]:
        """The function and its keyword arguments, defaults left out; `wb.comparison` where there are others."""
        function, arguments = self._analysis()
        if not self.others:
            return function, arguments
        arguments.pop("detail", None)
        return wb.comparison, arguments | ({"analysis": "farms"} if function is wb.farms else {})

    def _analysis(self) -> tuple[Callable[..., wb.Result], dict[str, Any]]:
        patterns = [part.strip() for part in self.layers.value.split(",") if part.strip()]
        arguments: dict[str, Any] = {"layers": patterns} if patterns else {}
        full = self.analysis.value == FULL
        if full and self.overlays.value:
            arguments["detail"] = ["noise", "randomised"]
        if full and self.compat.value:
            return wb.spectrum, arguments | {"compat": "weightwatcher"}
        if self.xmin.value != ("search" if full else "median"):
            arguments["xmin"] = self.xmin_number.value if self.xmin.value == "number" else self.xmin.value
        if self.conv.value != "slices":
            arguments["conv"] = self.conv.value
        if full:
            return wb.spectrum, arguments
        if self.window.value != WINDOW:
            arguments["window"] = self.window.value
        if (ratio := round(self.aspect_ratio.value, 12)) != 1:  # the page's slider says 1.5000000000000002
            arguments["aspect_ratio"] = ratio
        return wb.farms, arguments

    def enable(self) -> None:
        """Greys out what has no meaning for what is chosen."""
        full = self.analysis.value == FULL
        compatible = full and self.compat.value
        self.compat.disabled = not full
        self.overlays.disabled = not full or bool(self.others)
        self.window.disabled = self.aspect_ratio.disabled = full
        self.xmin.disabled = self.conv.disabled = compatible
        self.xmin_number.disabled = compatible or self.xmin.value != "number"

    def _usual_rule(self, change: Any) -> None:
        """Another analysis brings its own default for the tail."""
        usual = {FULL: "search", WINDOWS: "median"}
        if self.xmin.value == usual[change.old]:
            self.xmin.value = usual[change.new]

    @staticmethod
    def _slider(
        kind: type[ipw.DOMWidget],
        value: float,
        low: float,
        high: float,
        step: float,
        description: str,
        tooltip: str,
        style: FieldStyle,
    ) -> ipw.DOMWidget:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            name = description.lower().replace(" ", "_")
            raise wb.ArgumentError(f"{name}={value!r}: expected a number from {low} to {high}.")
        return kind(
            value=value,
            min=low,
            max=high,
            step=step,
            description=description,
            tooltip=tooltip,
            continuous_update=False,
            style=style,
        )


def _names(layers: str | list[str] | None) -> str:
    names = [] if layers is None else [layers] if isinstance(layers, str) else layers
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names) or layers == []:
        raise wb.ArgumentError(f"layers={layers!r}: expected None, a name or glob, or a list of them.")
    if not isinstance(layers, str) and (odd := [name for name in names if "," in name]):
        raise wb.ArgumentError(f"layers={odd[0]!r}: the field separates names by commas; write the glob with ? for it.")
    return ", ".join(names)
