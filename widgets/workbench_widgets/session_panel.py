"""Saving a session and opening it again."""

from collections.abc import Callable
from typing import Any

import ipywidgets as ipw


class SessionPanel(ipw.VBox):
    """A path, and what to do with it.

    Args:
        save: called with the path.
        restore: called with the path.
        run: called to compute what a restored session showed.
    """

    def __init__(self, save: Callable[[str], Any], restore: Callable[[str], Any], run: Callable[[], Any]) -> None:
        self.path = ipw.Text(
            "session.json",
            description="Session",
            tooltip="a small file: models by path, settings, what was shown; no tensors",
            style={"description_width": "0"},
        )
        self.save_button = ipw.Button(description="Save", icon="save", tooltip="write the session")
        self.open_button = ipw.Button(
            description="Open", icon="folder-open", tooltip="open the session that was written"
        )
        self.run_button = ipw.Button(description="Run shown", icon="play", tooltip="compute what the session showed")
        self.save_button.on_click(lambda _: save(self.path.value))
        self.open_button.on_click(lambda _: restore(self.path.value))
        self.run_button.on_click(lambda _: run())
        super().__init__([self.path, ipw.HBox([self.save_button, self.open_button]), self.run_button])
        self.path.layout.width = self.run_button.layout.width = "calc(100% - 4px)"
