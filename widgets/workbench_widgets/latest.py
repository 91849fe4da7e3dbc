"""The last thing asked for, beside the kernel's main thread: what a moving slider needs."""

import threading
from collections.abc import Callable, Sequence
from typing import Any


class Latest:
    """Runs functions in a thread of its own; what is asked while it is busy replaces what still waits.

    Args:
        on_done: called in that thread with each function's key and what it returned, or the error that it raised.
    """

    def __init__(self, on_done: Callable[[Any, Any], None]) -> None:
        self._on_done = on_done
        self._lock = threading.Lock()
        self._waiting: list[tuple[Any, Callable[[], Any]]] = []
        self._thread: threading.Thread | None = None

    def ask(self, functions: Sequence[tuple[Any, Callable[[], Any]]]) -> None:
        """Runs these, by key, in their order; none of those that were asked before and have not begun."""
        with self._lock:
            self._waiting = list(functions)
            if self._waiting and self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="workbench-latest")
                self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until all is done; False if it was not within `timeout` seconds."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return thread is None
        thread.join(timeout)
        return not thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                key, function = self._waiting.pop(0)
            try:
                found = function()
            except Exception as error:  # shown where the number would be
                found = error
            self._on_done(key, found)
