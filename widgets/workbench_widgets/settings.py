"""The controls of an explorer by label, and their values as JSON has them."""

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as ipw
import traitlets


def labelled_controls(controls: Sequence[ipw.DOMWidget]) -> dict[str, ipw.DOMWidget]:
    """Label → control, in their order; labels that come again are numbered."""
    found: dict[str, ipw.DOMWidget] = {}
    for control in controls:
        if isinstance(control, ipw.HTML):
            continue  # it tells, and takes nothing
        first = label = getattr(control, "description", "") or type(control).__name__
        number = 2
        while label in found:
            label, number = f"{first} ({number})", number + 1
        found[label] = control
    return found


def values(controls: Mapping[str, ipw.DOMWidget]) -> dict[str, Any]:
    """Label → value, of the controls whose values are text, numbers, yes or no, or lists of them."""
    plain = {label: _plain(getattr(control, "value", None)) for label, control in controls.items()}
    return {label: value for label, value in plain.items() if value is not NotImplemented}


def restored(controls: Mapping[str, ipw.DOMWidget], settings: Mapping[str, Any]) -> list[str]:
    """Moves controls, in their own order; labels of those that do not take their value."""
    refused = [label for label in settings if label not in controls]
    for label, control in controls.items():
        if label not in settings or _plain(control.value) == settings[label]:
            continue
        value = settings[label]
        try:
            control.value = tuple(value) if isinstance(control.value, tuple) else value
        except (traitlets.TraitError, ValueError, TypeError):
            refused.append(label)
    return refused


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        parts = [_plain(one) for one in value]
        return NotImplemented if any(part is NotImplemented for part in parts) else parts
    return value if value is None or isinstance(value, str | int | float | bool) else NotImplemented
