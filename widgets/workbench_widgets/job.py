"""One computation at a time beside the kernel's main thread, with progress and a cancel that is heard."""

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import workbench as wb
from workbench_widgets.turns import Turns

REPORTS_PER_SECOND = 10


class Job:
    """Runs a function of a progress callback in a thread of its own.

    Cancelling is cooperative: the callback raises `wb.Cancelled` before the next layer.

    Args:
        on_progress: called in the worker with a Progress, ten times a second at most.
        on_done: called in the worker at the end with the result or None, and the error, the Cancelled or None.

    Attributes:
        turns: what it waits in for jobs of others, if it has to.
    """

    def __init__(
        self, on_progress: Callable[[wb.Progress], None], on_done: Callable[[Any, BaseException | None], None]
    ) -> None:
        self._on_progress, self._on_done = on_progress, on_done
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._reported = 0.0
        self.turns: Turns | None = None

    @property
    def running(self) -> bool:
        """Whether a computation is under way; False once `release` was called."""
        return self._busy

    @property
    def stopping(self) -> bool:
        """Whether the computation was asked to stop."""
        return self._stop.is_set()

    def start(self, function: Callable[[Callable[[wb.Progress], None]], Any]) -> None:
        """Starts `function(progress)`.

        Raises:
            wb.ArgumentError: one is running already.
        """
        with self._lock:
            if self._busy:
                raise wb.ArgumentError("a run is under way: cancel it, or wait until it ends.")
            self._busy = True
            self._stop.clear()
            self._reported = 0.0
            self._thread = threading.Thread(target=self._work, args=(function,), daemon=True, name="workbench-job")
            self._thread.start()

    def cancel(self) -> None:
        """Asks the computation to stop before its next layer."""
        self._stop.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end, `on_done` included; False if it did not come within `timeout` seconds."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return not self._busy
        thread.join(timeout)
        return not thread.is_alive()

    def release(self) -> None:
        """Lets the next computation start; `on_done` calls it, under the lock that guards its own state."""
        with self._lock:
            self._busy = False

    def _work(self, function: Callable[[Callable[[wb.Progress], None]], Any]) -> None:
        result, failed = None, None
        try:
            with self.turns.turn(self._stop) if self.turns else nullcontext():
                result = function(self._progress)
        except BaseException as error:  # a thread's last chance: nobody else would hear of it
            result, failed = getattr(error, "partial", None), error
        self._on_done(result, failed)

    def _progress(self, progress: wb.Progress) -> None:
        if self._stop.is_set() and progress.item:
            raise wb.Cancelled
        now = time.monotonic()
        due = now - self._reported >= 1 / REPORTS_PER_SECOND
        if due:
            self._reported = now
        if due or not progress.item:  # a run of several starts says at the end of each that all of it is done
            self._on_progress(progress)
