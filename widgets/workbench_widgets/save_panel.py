"""A panel that writes what a view made to a file, beside the kernel's main thread."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.arguments import error_text
from workbench_widgets.call import Call, Memory
from workbench_widgets.job import Job
from workbench_widgets.style import status_html


class SavePanel(ipw.VBox):
    """A name, what else the call needs, and a button; the call that was made is shown as code.

    Args:
        saving: the path → the call that writes it.
        memory: what calls returned.
        controls: what else the call needs.
        name: the path that is offered.
        style: of the labels.
    """

    def __init__(
        self,
        saving: Callable[[str], Call],
        memory: Memory,
        controls: Sequence[ipw.DOMWidget],
        name: str,
        style: Mapping[str, str],
    ) -> None:
        self._saving, self._memory = saving, memory
        self._job = Job(lambda progress: None, self._done)
        self._call: Call | None = None
        self.path = ipw.Text(name, description="Save as", tooltip="path of a file: .safetensors", style=style)
        self.button = ipw.Button(description="Save", icon="save", tooltip="write the file")
        self.message = ipw.HTML()
        self.button.on_click(self._clicked)
        row = ipw.HBox([*controls, self.path, self.button], layout=ipw.Layout(flex_flow="row wrap"))
        super().__init__([row, self.message])

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the file is there; False if it is not within `timeout` seconds."""
        return self._job.wait(timeout)

    def close(self) -> None:
        """Lets go of what was saved."""
        self._call = None
        super().close()

    def _clicked(self, _: Any) -> None:
        try:
            name = self.path.value.strip()
            if not name:
                raise wb.ArgumentError("no path to save to: expected a file that ends in .safetensors.")
            self._call = call = self._saving(name)
            self.button.disabled = True
            self.message.value = status_html(f"saving {name}")
            self._job.start(lambda progress: self._made(call))
        except Exception as error:  # ipywidgets would swallow it
            self._failed(error)

    def _made(self, call: Call) -> Any:
        with self._memory.alone:
            return call.run(None, self._memory)

    def _done(self, path: Any, error: BaseException | None) -> None:
        self._job.release()
        if error is not None or self._call is None:
            self._failed(error or wb.Cancelled())
            return
        self.button.disabled = False
        line = "\n".join(self._call.lines())
        self.message.value = status_html(f"saved {path} ({_size(Path(path)):,} bytes): {line}")

    def _failed(self, error: BaseException) -> None:
        self.button.disabled = False
        self.message.value = status_html(error_text(error), error=True)


def _size(path: Path) -> int:
    """Bytes of a file, or of a folder's."""
    return sum(one.stat().st_size for one in path.rglob("*")) if path.is_dir() else path.stat().st_size
