"""Libraries of the page: sent to it once, and not with every widget that draws with them."""

import importlib.metadata
import importlib.resources
import threading
from collections.abc import Callable
from pathlib import Path

import anywidget
import ipywidgets as ipw
import traitlets

HERE = Path(__file__).parent


class PageCode(anywidget.AnyWidget):
    """Holds the code of a library, a JavaScript module, for the widgets of a kernel.

    Args:
        name: the library with its version.
        code: its source.
    """

    _esm = "export default {}"
    name = traitlets.Unicode().tag(sync=True)
    code = traitlets.Unicode().tag(sync=True)

    _LOCK = threading.Lock()
    _held: dict[tuple[str, ...], "PageCode"] = {}

    @classmethod
    def of(cls, package: str, *file: str, wrap: Callable[[str], str] = str) -> "PageCode":
        """The one of a file in an installed package; `wrap` makes a module of what is none."""
        with cls._LOCK:
            held = cls._held.get((package, *file))
            if held is None or held.comm is None:  # all widgets may have been closed
                code = importlib.resources.files(package).joinpath(*file).read_text(encoding="utf-8")
                named = f"{package} {importlib.metadata.version(package)}"
                held = cls(name=named, code=wrap(code))
                cls._held[package, *file] = held
            return held


class UsesLibrary(anywidget.AnyWidget):
    """A widget that is drawn with a library of the page; a subclass says by default which one."""

    _library = traitlets.Instance(ipw.Widget).tag(sync=True, **ipw.widget_serialization)


def drawn_by(file: str) -> str:
    """A widget's code, which calls `drawnWith`: as text, since anywidget never frees the widgets of a path."""
    return HERE.joinpath("page_code.js").read_text() + HERE.joinpath(file).read_text()
