"""What the page does, where there is none."""

from typing import Any

from workbench_widgets.plot import Plot


def clicked(plot: Plot, **point: Any) -> None:
    """A point was clicked: the page says its `id` if it has one and its place, `x` and `y`."""
    plot.prepare()._handle_custom_msg(point, [])
