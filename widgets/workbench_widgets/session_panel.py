"""Saving a session and opening it again."""

from collections.abc import Callable
from typing import Any

import ipywidgets as ipw

from workbench_widgets.shared import button, fields


class SessionPanel(ipw.VBox):
    """Paths, and what to do with them.

    Args:
        save: called with the session's path.
        restore: called with the session's path.
        run: called to compute what a restored session showed.
        save_notebook: called with the notebook's path.
    """

    def __init__(
        self,
        save: Callable[[str], Any],
        restore: Callable[[str], Any],
        run: Callable[[], Any],
        save_notebook: Callable[[str], Any],
    ) -> None:
        self.path = ipw.Text(
            "session.json",
            description="Session",
            tooltip="a small file: models by path, settings, what was shown; no tensors",
            style=fields("0"),
        )
        self.save_button = button("Save", "save", "write the session")
        self.open_button = button("Open", "folder-open", "open the session that was written")
        self.run_button = button("Run shown", "play", "compute what the session showed")
        self.save_button.on_click(lambda _: save(self.path.value))
        self.open_button.on_click(lambda _: restore(self.path.value))
        self.run_button.on_click(lambda _: run())
        self.notebook_path = ipw.Text(
            "session.ipynb",
            description="Notebook",
            tooltip="path of a notebook that computes every result shown, and needs no workbench on the screen",
            style=fields("0"),
        )
        self.notebook_button = button("Save notebook", "book", "write the code of the session as a notebook")
        self.notebook_button.on_click(lambda _: save_notebook(self.notebook_path.value))
        buttons = ipw.HBox([self.save_button, self.open_button])
        parts = [self.path, buttons, self.run_button, self.notebook_path, self.notebook_button]
        super().__init__(parts, _dom_classes=("wb-column",))
