"""A session of the workbench as code, as a notebook, and as a small JSON that opens in a fresh kernel."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.call import notebook, variable_of
from workbench_widgets.explorer import Explorer
from workbench_widgets.session_files import as_notebook, as_script, read, without_repeats, written
from workbench_widgets.shelf import Shelf
from workbench_widgets.style import Theme

JOINS = "atlas"  # the tab that joins the results of the others


class Session:
    """What a workbench keeps of itself outside of the kernel."""

    TABS: ClassVar[tuple[str, ...]]
    selection: Any
    evaluator: Any
    setup: str
    shelf: Shelf
    tabs: ipw.ToggleButtons
    add: Callable[..., str]
    explorer: Callable[[str], Explorer]
    _made: dict[str, Explorer]
    _lock: threading.RLock
    _attempt: Callable[[Callable[[], Any]], None]
    _say: Callable[[str], None]
    _must_be_open: Callable[[], None]
    _pending: Mapping[str, Mapping[str, Any]] = {}
    _late: Sequence[str] = ()  # tabs whose results are of others'

    def code(self) -> str:
        """The session as a script of cells that recomputes every result shown; each leaves its table in `frame`."""
        return as_script(self._cells())

    def save_notebook(self, path: str | os.PathLike[str]) -> Path:
        """The same as a notebook.

        Raises:
            wb.ArgumentError: the path does not end in .ipynb, its folder is not there, or no result is shown.
        """
        if not any(one.made is not None for one in self._made.values()):
            raise wb.ArgumentError("no result is shown yet that a notebook could compute: press Run in a tab first.")
        target = as_notebook(self._cells(), path)
        self._say(f"saved {target}")
        return target

    def save(self, path: str | os.PathLike[str]) -> Path:
        """The session as JSON: models by path or variable, settings of all controls, what was shown; no tensors.

        Raises:
            wb.ArgumentError: the path does not end in .json, or the workbench is closed.
        """
        self._must_be_open()
        made = self._made.items()
        session = {
            "tab": self.tabs.value,
            "selection": list(self.selection),
            "models": [_saved(name, source) for name, source in self.shelf.sources.items()],
            "evaluator": None if self.evaluator is None else variable_of(self.evaluator) or "evaluator",
            "setup": self.setup,
            "explorers": {tab: {"settings": one.settings(), "shown": one.made is not None} for tab, one in made},
        }
        target = written(session, path)
        self._say(f"saved {target}")
        return target

    def restore(self, path: str | os.PathLike[str], objects: Mapping[str, Any] | None = None) -> None:
        """Opens a session into this workbench: models, settings and selection. Results come back by `run_shown`.

        Args:
            path: of the JSON.
            objects: variable → object, for models and the evaluator that are no files; by default the notebook's.

        Raises:
            wb.ArgumentError: it is no session, an object that it needs is not there, or the workbench is closed.
        """
        self._must_be_open()
        found, known = read(path), {**notebook(), **(objects or {})}
        needed = [one["variable"] for one in found["models"] if "variable" in one]
        needed += [found["evaluator"]] if found.get("evaluator") and self.evaluator is None else []
        if missing := [name for name in needed if name not in known]:
            raise wb.ArgumentError(
                f"the session needs {', '.join(missing)}: make it in the notebook first, or pass objects="
                f"{{{missing[0]!r}: …}}."
            )
        with self._lock:
            if self.evaluator is None and found.get("evaluator"):
                self.evaluator = known[found["evaluator"]]
            self.setup = self.setup or found.get("setup", "")
            for one in found["models"]:
                if one["name"] not in self.shelf.names:
                    self.add(one["source"] if "source" in one else known[one["variable"]], one["name"])
            self._pending = {tab: one for tab, one in found["explorers"].items() if tab in self.TABS}
            for tab, one in self._pending.items():
                self.explorer(tab).restore(one["settings"])
            if found["tab"] in self.TABS:
                self.tabs.value = found["tab"]
            self.selection = tuple(found["selection"])
            shown = [tab for tab, one in self._pending.items() if one.get("shown")]
            self._say(f"restored; press Run shown for the results in {', '.join(shown)}" if shown else "restored")

    @classmethod
    def restored(
        cls, path: str | os.PathLike[str], *, objects: Mapping[str, Any] | None = None, theme: Theme = "auto"
    ) -> Self:
        """A workbench with a session that was saved, in a fresh kernel.

        Args:
            path: of the JSON.
            objects: variable → object, for models and the evaluator that are no files; by default the notebook's.
            theme: as of a new one.

        Raises:
            wb.ArgumentError: it is no session, or an object that it needs is not there.
        """
        made = cls(theme=theme)
        try:
            made.restore(path, objects)
        except BaseException:
            made.close()
            raise
        return made

    def run_shown(self) -> list[wb.Result]:
        """Computes again what a restored session showed, and waits.

        Raises:
            wb.WorkbenchError: whatever an analysis raises.
        """
        found = []
        for tab in self._shown_before():
            explorer = self.explorer(tab)
            found.append(explorer.run())
            explorer.restore(self._pending[tab]["settings"])  # what knows its values only now
        return found

    def _cells(self) -> list[tuple[str, str]]:
        shown = [(tab, one) for tab, one in self._made.items() if one.made is not None]
        shown.sort(key=lambda one: one[0] == JOINS)  # what the others made is there then
        titles = [f"{tab}: {one.result.title}" for tab, one in shown if one.result is not None]
        codes = without_repeats([self.setup, *(one.shown_code() for _, one in shown)])
        setup = [("given", codes[0])] if codes[0].strip() else []
        return [*setup, *zip(titles, codes[1:], strict=True)]

    def _shown_before(self) -> list[str]:
        """Tabs that showed a result; the one that joins the others' is the last."""
        shown = [tab for tab, one in self._pending.items() if one.get("shown")]
        return sorted(shown, key=lambda tab: tab == JOINS)

    def _run_shown(self) -> None:
        shown = self._shown_before()
        self._late = [tab for tab in shown if tab == JOINS and len(shown) > 1]
        for tab in shown:
            if tab not in self._late:
                self._attempt(self.explorer(tab).start)


def _saved(name: str, source: Any) -> dict[str, str]:
    if isinstance(source, str):
        return {"name": name, "source": source}
    return {"name": name, "variable": variable_of(source) or name, "kind": type(source).__name__}
