"""Callbacks that show their errors: ipywidgets would swallow them; and an end that leaves nothing."""

import threading
from collections.abc import Callable
from typing import Any

import workbench as wb
from workbench_widgets.layout import close_parts


class Guard:
    """What a widget with callbacks has.

    It makes `_lock` first and `_closed` next, and says in `_fail` how an error is shown, in `_end` what it lets go of.
    """

    _lock: threading.RLock
    _closed: bool

    def close(self) -> None:
        """Cancels what runs, lets go of models and results, and removes the widget and its parts."""
        if getattr(self, "_closed", True):  # ipywidgets also closes what failed to be made
            super().close()  # type: ignore[misc]
            return
        with self._lock:  # nothing that is made elsewhere meanwhile outlives it
            self._closed = True
            self.unobserve_all()  # type: ignore[attr-defined]
            try:
                self._end()
            finally:
                close_parts(self)  # type: ignore[arg-type]
                super().close()  # type: ignore[misc]

    def _end(self) -> None:
        """Lets go of everything; its own observers are gone."""
        raise NotImplementedError

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
