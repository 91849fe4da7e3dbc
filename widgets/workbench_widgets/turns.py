"""One run at a time over several explorers, in the order in which they were asked for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import workbench as wb

HEARD = 0.1  # seconds until a run that waits hears that it was cancelled


class Turns:
    """A queue that runs wait in."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: list[object] = []

    @property
    def waiting(self) -> int:
        """How many runs are under way or wait."""
        return len(self._queue)

    @contextmanager
    def turn(self, stopped: threading.Event) -> Iterator[None]:
        """Waits for all that asked before.

        Args:
            stopped: set to leave the queue.

        Raises:
            wb.Cancelled: it was set before the turn came.
        """
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
        try:
            with self._changed:
                while self._queue[0] is not ticket and not stopped.is_set():
                    self._changed.wait(HEARD)
            if stopped.is_set():
                raise wb.Cancelled
            yield
        finally:
            with self._changed:
                self._queue.remove(ticket)
                self._changed.notify_all()
