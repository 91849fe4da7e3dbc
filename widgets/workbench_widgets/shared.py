"""Layouts and styles that widgets share: ipywidgets makes one of each for every widget, and a page is told of all."""

import threading
from typing import Any, TypeVar

import ipywidgets as ipw
import traitlets
from ipywidgets.widgets.widget_bool import CheckboxStyle
from ipywidgets.widgets.widget_int import SliderStyle
from ipywidgets.widgets.widget_string import HTMLStyle, TextStyle

_lock = threading.Lock()  # explorers are made and closed in any thread
_held: dict[tuple[Any, ...], ipw.Widget] = {}
Look = TypeVar("Look", bound="Fixed")


class Fixed(ipw.Widget):
    """What is the same for many widgets, and stays as it was made."""

    made = False

    def __setattr__(self, name: str, value: Any) -> None:
        if self.made and name in self.keys:
            whose = "style" if isinstance(self, ipw.Style) else "layout"
            raise traitlets.TraitError(f"{name} is the same for many widgets: give the widget a {whose} of its own.")
        super().__setattr__(name, value)


class PlainLayout(Fixed, ipw.Layout):
    """The layout of what stands where it is put."""


class PlainButton(Fixed, ipw.ButtonStyle):
    """How buttons look, as the page says."""


class FieldStyle(Fixed, CheckboxStyle, SliderStyle, HTMLStyle, TextStyle):
    """How wide the label of a control is, whatever its kind; colours and fonts are the page's."""

    _model_name = traitlets.Unicode("DescriptionStyleModel").tag(sync=True)


def shared(kind: type[Look], **values: Any) -> Look:
    """The layout or style of these values that all widgets share that ask for it."""
    key = (kind, *sorted(values.items()))
    with _lock:
        held = _held.get(key)
        if held is None or held.comm is None:  # all widgets may have been closed
            held = _held[key] = kind(**values)
            held.made = True
        return held


def fields(label: str) -> FieldStyle:
    """The style of controls whose labels are that wide; 0 hides them."""
    return shared(FieldStyle, description_width=label)


def line(text: str = "") -> ipw.HTML:
    """A place for text."""
    return ipw.HTML(text, layout=shared(PlainLayout), style=fields(""))


def button(description: str, icon: str, tooltip: str, **told: Any) -> ipw.Button:
    """A button with its sign, and what it says of itself."""
    return ipw.Button(description=description, icon=icon, tooltip=tooltip, style=shared(PlainButton), **told)
