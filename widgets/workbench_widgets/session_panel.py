"""Saving a session and opening it again."""

from collections.abc import Callable
from typing import Any

import ipywidgets as ipw


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
        self.notebook_path = ipw.Text(
            "session.ipynb",
            description="Notebook",
            tooltip="path of a notebook that computes every result shown, and needs no workbench on the screen",
            style={"description_width": "0"},
        )
        self.notebook_button = ipw.Button(
            description="Save notebook", icon="book", tooltip="write the code of the session as a notebook"
        )
        self.notebook_button.on_click(lambda _: save_notebook(self.notebook_path.value))
        buttons = ipw.HBox([self.save_button, self.open_button])
        super().__init__([self.path, buttons, self.run_button, self.notebook_path, self.notebook_button])
        self.add_class("wb-column")
