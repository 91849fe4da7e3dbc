"""A form of the parameters that a way to merge has."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import ipywidgets as ipw
import traitlets

import workbench as wb
from workbench_widgets.layout import close_control
from workbench_widgets.shared import FieldStyle, fields

STEP = 0.01  # of a slider


class MergeForm(ipw.VBox):
    """A control for each parameter of a method; `value` has their names and what they say.

    Args:
        style: of the labels.
    """

    value = traitlets.Tuple()

    def __init__(self, style: FieldStyle) -> None:
        self._style = style
        self.fields: dict[str, ipw.ValueWidget] = {}
        super().__init__()

    def arrange(self, method: str, initial: Mapping[str, Any]) -> None:
        """Has the parameters of a method, by their fields' metadata.

        Args:
            method: one of `wb.MERGE_METHODS`.
            initial: parameter → what its control says at first.
        """
        gone, own = self.children, dataclasses.fields(wb.MERGE_METHODS[method])
        self._defaults = {field.name: field.default for field in own}
        kind = wb.MERGE_METHODS[method]
        self.fields = {field.name: self._control(kind, field, initial.get(field.name, field.default)) for field in own}
        self.children = list(self.fields.values())
        for one in gone:
            close_control(one)
        self._moved()

    def keywords(self) -> dict[str, Any]:
        """The parameters that differ from their defaults.

        Raises:
            wb.ArgumentError: something else than numbers was typed.
        """
        found = {name: _number(name, value) for name, value in self.value}
        return {name: value for name, value in found.items() if value != self._defaults[name]}

    def _control(self, kind: Any, field: dataclasses.Field[Any], value: Any) -> ipw.ValueWidget:
        meaning, low, high = (field.metadata[name] for name in ("meaning", "low", "high"))
        name = field.name.replace("_", " ").capitalize()
        told = {"description": name, "tooltip": meaning, "style": fields(self._style.description_width)}
        wide = ipw.Layout(width="calc(100% - 4px)")
        control: ipw.ValueWidget
        if field.metadata.get("several", "Sequence" in str(field.type)):
            values = value if isinstance(value, list | tuple) else [value]
            text = ", ".join(f"{one:g}" for one in values)
            control = ipw.Text(text, placeholder=meaning, continuous_update=False, layout=wide, **told)
        elif math.isfinite(low) and math.isfinite(high):
            low += STEP if field.metadata.get("open_low", _refused(kind, field.name, low)) else 0
            control = ipw.FloatSlider(
                value, min=low, max=high, step=STEP, readout_format=".2f", continuous_update=False, layout=wide, **told
            )
        else:
            control = ipw.FloatText(value, step=0.1, continuous_update=False, layout=wide, **told)
        control.observe(self._moved, "value")
        return control

    def _moved(self, _: Any = None) -> None:
        self.value = tuple((name, one.value) for name, one in self.fields.items())


def _refused(kind: Any, name: str, value: float) -> bool:
    """Whether a method takes a parameter not."""
    try:
        kind(**{name: value})
    except wb.ArgumentError:
        return True
    return False


def _number(name: str, value: Any) -> Any:
    """A number, or several as they were typed."""
    if not isinstance(value, str):
        return round(value, 6)
    try:
        found = [float(part) for part in value.split(",") if part.strip()]
    except ValueError:
        found = []
    if not found:
        raise wb.ArgumentError(f"{name} is {value!r}: expected a number, or several with commas between them.")
    return found[0] if len(found) == 1 else found
