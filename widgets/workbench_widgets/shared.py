"""Layouts and styles that widgets share: ipywidgets makes one of each for every widget, and a page is told of all."""

from typing import Any, TypeVar

import ipywidgets as ipw
from ipywidgets.widgets.widget_bool import CheckboxStyle
from ipywidgets.widgets.widget_description import DescriptionStyle
from ipywidgets.widgets.widget_int import SliderStyle
from ipywidgets.widgets.widget_string import HTMLStyle, TextStyle

_held: dict[tuple[Any, ...], ipw.Widget] = {}
Look = TypeVar("Look", bound=ipw.Widget)


class FieldStyle(CheckboxStyle, SliderStyle, HTMLStyle, TextStyle):
    """How wide the label of a control is, whatever its kind; colours and fonts are the page's."""

    _model_name = DescriptionStyle._model_name


def shared(kind: type[Look], **values: Any) -> Look:
    """The layout or style of these values, for widgets that do not change it: theirs is everybody's."""
    key = (kind, *sorted(values.items()))
    held = _held.get(key)
    if held is None or held.comm is None:  # all widgets may have been closed
        held = _held[key] = kind(**values)
    return held


def is_shared(one: ipw.Widget) -> bool:
    """Whether others have it too."""
    return any(one is held for held in _held.values())


def fields(label: str) -> FieldStyle:
    """The style of controls whose labels are that wide; 0 hides them."""
    return shared(FieldStyle, description_width=label)


def line(text: str = "") -> ipw.HTML:
    """A place for text."""
    return ipw.HTML(text, layout=shared(ipw.Layout), style=fields(""))


def button(description: str, icon: str, tooltip: str, **told: Any) -> ipw.Button:
    """A button with its sign, and what it says of itself."""
    return ipw.Button(description=description, icon=icon, tooltip=tooltip, style=shared(ipw.ButtonStyle), **told)
