"""A panel that writes what a view made to a file, beside the kernel's main thread."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import traitlets

import workbench as wb
from workbench_widgets.arguments import error_text
from workbench_widgets.call import Call, Memory
from workbench_widgets.job import Job
from workbench_widgets.shared import FieldStyle, button, line
from workbench_widgets.style import status_html

WAITS = 0.1  # seconds between looks at whether it was stopped before it began


class SavePanel(ipw.VBox):
    """A name, what else the call needs, and a button; the call that was made is shown as code.

    Args:
        saving: the path → the call that writes it.
        memory: what calls returned.
        controls: what else the call needs.
        name: the path that is offered.
        style: of the labels.

    Attributes:
        busy: whether a file is being written, or what it needs is being made.
        lock: held while the panel is changed; the explorer's own, once the panel is in one.
    """

    busy = traitlets.Bool(False)

    def __init__(
        self,
        saving: Callable[[str], Call],
        memory: Memory,
        controls: Sequence[ipw.DOMWidget],
        name: str,
        style: FieldStyle,
    ) -> None:
        self._saving, self._memory = saving, memory
        self._job = Job(self._told, self._done)
        self._call: Call | None = None
        self._name, self._closed = "", False
        self.lock: Any = threading.RLock()
        self.path = ipw.Text(name, description="Save as", tooltip="path of a file: .safetensors", style=style)
        self.button = button("Save", "save", "write the file")
        self.stop = button("Stop writing", "stop", "what stood at the path before stays", disabled=True)
        self.message = line()
        self.button.on_click(lambda _: self._attempt(self._start))
        self.stop.on_click(lambda _: self._attempt(self._stop))
        row = ipw.HBox([*controls, self.path, self.button, self.stop], layout=ipw.Layout(flex_flow="row wrap"))
        super().__init__([row, self.message])

    def allow(self, allowed: bool) -> None:
        """Says whether a file may be written now: not while an explorer runs."""
        self.button.disabled = self.busy or not allowed

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the file is there; False if it is not within `timeout` seconds."""
        return self._job.wait(timeout)

    def close(self) -> None:
        """Stops writing, and lets go of what was saved."""
        if not getattr(self, "_closed", True):  # ipywidgets also closes what failed to be made
            self._closed, self._call = True, None
            self._job.cancel()
        super().close()

    def _attempt(self, action: Callable[[], None]) -> None:
        with self.lock:
            try:
                action()
            except Exception as error:  # ipywidgets would swallow it
                self._say(error_text(error), error=True)

    def _start(self) -> None:
        self._name = name = self.path.value.strip()
        if not name:
            raise wb.ArgumentError("no path to save to: expected a file that ends in .safetensors.")
        call = self._saving(name)
        self._job.start(lambda progress: self._made(call, progress))
        self._call = call
        self._set_busy(True)
        self._say(f"saving {name}")

    def _stop(self) -> None:
        self._job.cancel()
        self.stop.disabled = True
        self._say(f"saving {self._name}: stopping")

    def _made(self, call: Call, progress: Callable[[wb.Progress], None]) -> Any:
        while not self._memory.alone.acquire(timeout=WAITS):
            if self._job.stopping:
                raise wb.Cancelled
        try:
            return call.run(progress, self._memory)
        finally:
            self._memory.alone.release()

    def _told(self, progress: wb.Progress) -> None:
        with self.lock:
            if progress.item and not self._job.stopping and not self._closed:
                self._say(f"saving {self._name}: {progress.done} of {progress.total} done, at {progress.item}")

    def _done(self, path: Any, error: BaseException | None) -> None:
        with self.lock:
            self._job.release()
            if self._closed or self._call is None:
                return
            self._set_busy(False)
            if isinstance(error, wb.Cancelled):
                self._say(f"saving {self._name} was stopped: what stood there before stays")
            elif error is not None:
                self._say(error_text(error), error=True)
            else:
                line = "\n".join(self._call.lines())
                self._attempt(lambda: self._say(f"saved {path} ({_size(Path(path)):,} bytes): {line}"))
            self._call = None

    def _set_busy(self, busy: bool) -> None:
        self.button.disabled, self.stop.disabled = busy, not busy
        self.busy = busy

    def _say(self, text: str, *, error: bool = False) -> None:
        self.message.value = status_html(text, error=error)


def _size(path: Path) -> int:
    """Bytes of a file, or of a folder's."""
    return sum(one.stat().st_size for one in path.rglob("*")) if path.is_dir() else path.stat().st_size
