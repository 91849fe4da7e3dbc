"""Callbacks that show their errors: ipywidgets would swallow them; and what is closed says so."""

import threading
from collections.abc import Callable
from typing import Any

import workbench as wb


class Guard:
    """What a widget with callbacks has; it makes `_lock` first, and says in `_fail` how an error is shown."""

    _lock: threading.RLock
    _closed: bool

    def _must_be_open(self) -> None:
        if self._closed:
            raise wb.ArgumentError(f"this {type(self).__name__} is closed: make a new one.")

    def _guarded(self, action: Callable[[], Any]) -> Callable[..., None]:
        def callback(*_: Any) -> None:
            self._attempt(action)

        return callback

    def _attempt(self, action: Callable[[], Any]) -> None:
        with self._lock:  # callbacks run in threads of the kernel's choice, and a run ends in its own
            try:
                action()
            except Exception as error:
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        raise NotImplementedError
