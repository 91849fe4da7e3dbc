"""One slider for each signature and group of layers."""

from collections.abc import Sequence
from typing import Any

import ipywidgets as ipw
import traitlets

import workbench as wb
from workbench_widgets.layout import close_control
from workbench_widgets.shared import FieldStyle, fields

LOW, HIGH, STEP = -1.0, 2.0, 0.05
MOST = 48  # sliders that can still be told apart


class ScaleSliders(ipw.VBox):
    """Sliders of α; `value` has the places of all, in the order of `places`.

    Args:
        style: of the labels.
        start: where sliders begin; None for 1/K of K signatures to a step, but one at least: the
            sum is then about their mean.

    Raises:
        wb.ArgumentError: no slider goes there.
    """

    value = traitlets.Tuple()

    def __init__(self, style: FieldStyle, start: float | None) -> None:
        if start is not None and not (isinstance(start, int | float) and LOW <= start <= HIGH):
            raise wb.ArgumentError(f"scale={start!r}: expected a number from {LOW:g} to {HIGH:g}, or None for 1/K.")
        self._style, self._start = style, start
        self._shape: tuple[list[str], list[tuple[str, ...]]] | None = None
        self.places: list[tuple[str, tuple[str, ...]]] = []
        super().__init__()

    def arrange(self, labels: Sequence[str], groups: Sequence[tuple[str, ...]]) -> None:
        """Has a slider for each label and group; those that were there begin anew.

        Raises:
            wb.ArgumentError: that would be too many.
        """
        shape = list(labels), list(groups)
        if shape == self._shape:
            return
        if len(labels) * len(groups) > MOST:
            raise wb.ArgumentError(
                f"{len(labels)} signatures and {len(groups)} groups of layers: expected {MOST} sliders at most; choose "
                "fewer groups, or fewer models."
            )
        start = self._start if self._start is not None else max(1, round(1 / max(len(labels), 1) / STEP)) * STEP
        gone, self.places = self.children, [(label, group) for label in labels for group in groups]
        self.children = [self._slider(label, group, start) for label, group in self.places]
        for one in gone:
            close_control(one)
        self._shape = shape
        self._moved()

    def steps(self) -> list[tuple[str, tuple[str, ...], float]]:
        """Label, group and α of each slider that is not at 0."""
        return [(*place, scale) for place, scale in zip(self.places, self.value, strict=True) if scale]

    def _slider(self, label: str, group: tuple[str, ...], start: float) -> ipw.FloatSlider:
        name = f"{label}: {', '.join(group)}" if group else label
        slider = ipw.FloatSlider(
            start,
            min=LOW,
            max=HIGH,
            step=STEP,
            description=name,
            tooltip=f"α of {name}; 0 leaves it off",
            readout_format=".2f",
            style=fields(self._style.description_width),
            layout=ipw.Layout(width="calc(100% - 4px)"),
        )
        slider.observe(self._moved, "value")
        return slider

    def _moved(self, _: Any = None) -> None:
        self.value = tuple(round(one.value, 6) for one in self.children)  # the page's says 0.30000000000000004
