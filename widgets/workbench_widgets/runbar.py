"""Run and Cancel, a bar, and a line that says what is going on."""

from collections.abc import Iterable

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.shared import button, line
from workbench_widgets.style import status_html


class RunBar(ipw.VBox):
    """The buttons of a run, its progress, and its status as text.

    Attributes:
        run: the button that starts.
        cancel: the button that stops.
        bar: units done of all.
        line: what was said last.
    """

    def __init__(self) -> None:
        self.run = button("Run", "play", "compute", button_style="primary")
        self.cancel = button("Cancel", "stop", "stop, keep what is done", disabled=True)
        self.bar = ipw.IntProgress(0, 0, 1, layout=ipw.Layout(width="100%", height="16px"))  # half of it is margin
        self.line = line()
        super().__init__([ipw.HBox([self.run, self.cancel]), self.bar, self.line])

    def running(self, running: bool, fields: Iterable[ipw.DOMWidget] = ()) -> None:
        """Enables the button that makes sense, and `fields` while nothing runs; a run begins with an empty bar."""
        self.run.disabled, self.cancel.disabled = running, not running
        for field in fields:
            field.disabled = running
        self.bar.value = 0 if running else self.bar.value

    def at(self, progress: wb.Progress) -> None:
        """Moves the bar."""
        self.bar.max, self.bar.value = progress.total, progress.done

    def say(self, text: str, *, error: bool = False) -> None:
        """Shows a line of text."""
        self.line.value = status_html(text, error=error)
