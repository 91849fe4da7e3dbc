"""Layouts and styles that widgets share: ipywidgets makes one of each for every widget, and a page is told of all."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import ipywidgets as ipw
import traitlets
from ipywidgets.widgets.widget_bool import CheckboxStyle
from ipywidgets.widgets.widget_int import SliderStyle
from ipywidgets.widgets.widget_string import HTMLStyle, TextStyle

Look = TypeVar("Look", bound="Fixed")
_family: ContextVar[dict[tuple[Any, ...], Any] | None] = ContextVar("family", default=None)


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


@contextmanager
def family() -> Iterator[None]:
    """Widgets that are made inside share their looks, which refuse to be changed; others have their own.

    A page that is opened while the kernel is busy hears of what is made then before it knows of what was made earlier,
    and loses what refers to that: only what is made together shares.
    """
    before = _family.set({})
    try:
        yield
    finally:
        _family.reset(before)


def shared(kind: type[Look], **values: Any) -> Look:
    """The layout or style of these values that the family shares."""
    held, key = _family.get(), (kind, *sorted(values.items()))
    if held is None:
        return kind(**values)
    if key not in held:
        held[key] = kind(**values)
        held[key].made = True
    found: Look = held[key]
    return found


def fields(label: str) -> FieldStyle:
    """The style of controls whose labels are that wide; 0 hides them."""
    return shared(FieldStyle, description_width=label)


def line(text: str = "") -> ipw.HTML:
    """A place for text."""
    return ipw.HTML(text, layout=shared(PlainLayout), style=fields(""))


def button(description: str, icon: str, tooltip: str, **told: Any) -> ipw.Button:
    """A button with its sign, and what it says of itself."""
    return ipw.Button(description=description, icon=icon, tooltip=tooltip, style=shared(PlainButton), **told)
