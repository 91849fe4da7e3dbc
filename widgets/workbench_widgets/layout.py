"""How the parts of an explorer stand on the page."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import ipywidgets as ipw

from workbench_widgets.shared import fields, line

LEAST = "560px"  # of a plot beside another: narrower ones clip their titles
NARROW = "400px"  # of plots beside inputs: where there is less room they are below


def beside(inputs: Sequence[ipw.DOMWidget], plots: Sequence[ipw.DOMWidget], left: str, flow: str) -> ipw.HBox:
    """Inputs in a column of a fixed width, and plots in the room that is left of it.

    Args:
        inputs: top to bottom.
        plots: in the order of `flow`.
        left: width of the inputs.
        flow: `row` puts the plots side by side where there is room, `column` below each other.
    """
    for plot in plots:
        with plot.layout.hold_sync():
            plot.layout.flex = f"1 1 {LEAST}" if flow == "row" else "0 0 auto"
            plot.layout.min_width, plot.layout.overflow = "0", "hidden"
    narrow = ipw.Layout(flex=f"0 0 {left}", min_width="0")
    column = ipw.VBox(list(inputs), layout=narrow, _dom_classes=("wb-column",))
    room = ipw.Layout(
        flex=f"1 1 {NARROW}", min_width="0", display="flex", flex_flow=f"{flow} wrap" if flow == "row" else flow
    )
    return ipw.HBox([column, ipw.Box(list(plots), layout=room)], layout=ipw.Layout(flex_flow="row wrap"))


def accordion(panels: Mapping[str, ipw.DOMWidget], *, unfolded: bool) -> ipw.Accordion:
    """Panels below each other by their titles, the first one unfolded or none."""
    return ipw.Accordion(list(panels.values()), titles=tuple(panels), selected_index=0 if unfolded else None)


def heading(title: str) -> ipw.HTML:
    """The title of a part of a column."""
    return line(f'<h4 class="wb-heading">{title}</h4>')


def listen(controls: Sequence[ipw.DOMWidget], heard: Callable[..., None]) -> None:
    """Calls `heard` whenever one of the controls has another value."""
    for control in controls:
        control.observe(heard, "value")


def code_field() -> ipw.Textarea:
    """A field for Python that can be read and copied."""
    return ipw.Textarea(
        description="Code",
        tooltip="Python that gives the same in a fresh kernel; to be selected and copied",
        disabled=True,
        rows=13,
        style=fields("0"),
        layout=ipw.Layout(width="100%"),
        _dom_classes=("wb-code",),
    )


def close_parts(widget: ipw.Widget) -> None:
    """Removes all widgets inside a widget."""
    for part in _parts(widget):
        part.unobserve_all()  # some libraries' widgets are never freed: they must not hold this one
        part.close()


def close_control(control: ipw.DOMWidget) -> None:
    """Removes a control with its looks, but those that others have too."""
    for look in (control.layout, control.style):
        if not getattr(look, "made", False):
            look.close()
    control.close()


def _parts(widget: ipw.Widget) -> Iterator[ipw.Widget]:
    """All widgets inside a widget, layouts and styles included, the innermost first."""
    for child in getattr(widget, "children", ()):
        yield from _parts(child)
        yield child
    for own in ("layout", "style"):
        if isinstance(part := getattr(widget, own, None), ipw.Widget):
            yield part
