"""All explorers beside each other: models on the left, a tab for each, one selection, one queue, one history."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import ipywidgets as ipw
import traitlets

import workbench as wb
from workbench_widgets.amounts import count_text
from workbench_widgets.arguments import error_text, one_of, say_of_hub
from workbench_widgets.atlas import AtlasExplorer
from workbench_widgets.call import notebook
from workbench_widgets.explorer import Explorer
from workbench_widgets.guard import Guard
from workbench_widgets.history import Entry, HistoryPanel
from workbench_widgets.layout import NARROW, accordion, code_field, heading
from workbench_widgets.models_panel import ModelsPanel
from workbench_widgets.results_field import of_history
from workbench_widgets.session import Session
from workbench_widgets.session_panel import SessionPanel
from workbench_widgets.shared import button, family, line
from workbench_widgets.shelf import Shelf
from workbench_widgets.style import PageStyle, Theme, status_html
from workbench_widgets.tabs import MEANINGS, TabBar, explorer_of
from workbench_widgets.turns import Turns
from workbench_widgets.unseen import Unseen

NOT_SHOWN = "not shown yet"
LEFT = "230px"


class Workbench(Session, Guard, Unseen, ipw.VBox):
    """Models on the left, and a tab for every explorer: one selection of layers, one queue of runs, one history.

    An explorer is made when its tab is first opened. Models go by name: every field that takes a checkpoint takes the
    name of a model in the list as well.

    Args:
        models: name → model, a list of models or one: anything `wb.load` takes.
        evaluator: of the networks, made by `wb.evaluator`: for losses, interaction bases and patches.
        setup: Python that makes the evaluator and other objects that are given, for the session's code.
        tab: the first one: `browser`, `spectra`, `connectivity`, `degeneracy`, `signatures`, or `atlas`, which joins
            the results of the others.
        theme: `auto` follows JupyterLab, `light` and `dark` do not.

    Attributes:
        selection: ids of the selected layers, in all tabs.
        status: one line: what is going on.
        error: the last error of the workbench itself, or None; each explorer has its own.

    Example:
        >>> import torch, workbench as wb
        >>> bench = wb.ui.Workbench({"net": {"fc.weight": torch.eye(8)}}, tab="spectra")
        >>> bench.explorer("spectra").run().row("fc")["stable_rank"]
        8.0
    """

    TABS: ClassVar[tuple[str, ...]] = tuple(MEANINGS)
    HERE: ClassVar[str] = ".explorer(tab).run() gives a result and .code() the calls"

    selection = traitlets.Tuple()
    status = traitlets.Unicode()
    error = traitlets.Instance(BaseException, allow_none=True)

    def __init__(
        self,
        models: Any = None,
        *,
        evaluator: Any = None,
        setup: str = "",
        tab: str = "browser",
        theme: Theme = "auto",
    ) -> None:
        one_of("tab", tab, self.TABS)
        one_of("theme", theme, ("auto", "light", "dark"))
        if evaluator is not None and not isinstance(evaluator, wb.Evaluator):
            raise wb.ArgumentError(
                f"evaluator is {type(evaluator).__name__}: expected wb.evaluator(module, data, loss)."
            )
        if not isinstance(setup, str):
            raise wb.ArgumentError(
                f"setup is {type(setup).__name__}: expected the code that makes what is given, a str."
            )
        self.evaluator, self.setup, self.theme = evaluator, setup, theme
        self.shelf, self.turns, self._alone = Shelf(), Turns(), threading.Lock()
        self._lock = threading.RLock()
        self._made: dict[str, Explorer] = {}
        self._closed = self._showing = False
        with family():
            self.models = ModelsPanel(self.shelf, self._add_typed, self._look, self.release)
            self.history = HistoryPanel(self._show_entry, self._released)
            self.jobs = line()
            self.cancel_button = button("Cancel all", "stop", "stop the run, and those that wait", disabled=True)
            save, restore, save_notebook = map(self._guarded_text, (self.save, self.restore, self.save_notebook))
            self.files = SessionPanel(save, restore, self._run_shown, save_notebook)
            self.code_box = code_field()
            self.tabs = TabBar(tab)
            self.page = ipw.VBox()  # only what is on the screen: a plot that is drawn out of sight has no width
            self.cancel_button.on_click(self._guarded(self.cancel))
            self.tabs.observe(self._guarded(self._tab_chosen), "value")
            self.observe(self._guarded(self._selected), "selection")
            parts = {"Models": [self.models], "Runs": [self.jobs, self.cancel_button], "Results": [self.history]}
            parts["Session"] = [self.files]
            listed = [one for title, own in parts.items() for one in (heading(title), *own)]
            left = ipw.VBox(listed, layout=ipw.Layout(flex=f"0 0 {LEFT}", min_width="0"))
            right = ipw.VBox([self.tabs, self.page], layout=ipw.Layout(flex=f"1 1 {NARROW}", min_width="0"))
            session = accordion({"Code of the session": self.code_box}, unfolded=False)
            beside = ipw.HBox([left, right], layout=ipw.Layout(flex_flow="row wrap"))
            classes = ("wb-explorer", f"wb-{theme}", "wb-workbench")
            super().__init__([PageStyle(), beside, session], _dom_classes=classes)
        try:
            for name, model in _named(models):
                self.add(model, name)
            self.page.children = [self.explorer(tab)]
        except BaseException:
            self.close()
            raise
        self._say("type the path of a model, or add one with .add(model)" if not self.shelf.names else "ready")

    # what a user calls

    def add(self, source: Any, name: str | None = None) -> str:
        """Takes in a model: a path, a hub id, a module or a mapping of tensors.

        Args:
            source: anything `wb.load` takes.
            name: for fields; None for one made of the path or the kind of object.

        Returns:
            Its name.

        Raises:
            wb.ArgumentError: the name is taken, or has other characters than letters, digits, `_`, `.` and `-`; or the
                workbench is closed.
            wb.CheckpointError: it does not open.
        """
        with self._lock:
            self._must_be_open()
            say_of_hub(source, self._say)
            name = self.shelf.put(source, name)
            for tab, explorer in self._made.items():
                if not explorer.running:
                    self._fill(tab, explorer)
            self._say(f"{name} was added")
        return name

    def release(self, name: str) -> None:
        """Lets go of a model, and of all results that rest on it.

        Raises:
            wb.ArgumentError: there is none of that name, or the workbench is closed.
        """
        with self._lock:
            self._must_be_open()
            source = self.shelf.take(name)
            for explorer in self._made.values():
                explorer.withdraw(name)
            self.history.release([one for one in self.history.entries if one.call.rests_on(source)])
            self._say(f"{name} was released")

    def explorer(self, tab: str) -> Explorer:
        """The explorer of a tab, made if it was never shown.

        Raises:
            wb.ArgumentError: there is no such tab, or the workbench is closed.
        """
        one_of("tab", tab, self.TABS)
        with self._lock:
            self._must_be_open()
            if tab not in self._made:
                made = explorer_of(tab, self.evaluator, self.theme)
                made.share(self.shelf, self.turns, self._lock, self._alone)
                self._made[tab] = made
                self._fill(tab, made)
                made.observe(self._guarded(lambda: self._chosen(made)), "selection")
                made.observe(self._guarded(self._tell), ["running", "status"])
                made.observe(self._guarded(lambda: self._arrived(tab, made)), "result")
                made.add_class(f"wb-tab-{tab}")
            return self._made[tab]

    def cancel(self) -> None:
        """Cancels the run under way and all that wait."""
        for explorer in self._made.values():
            explorer.cancel()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for all runs to end; False if one did not within `timeout` seconds."""
        return all([explorer.wait(timeout) for explorer in list(self._made.values())])

    def said(self) -> str:
        """How many models and results there are."""
        return f"{count_text(len(self.shelf.names), 'model')}, {count_text(len(self.history.entries), 'result')}"

    # how it works

    def _end(self) -> None:
        for explorer in self._made.values():
            explorer.close()
        self._made = {}
        self.history.release(self.history.entries)
        self.shelf.forget()
        self.evaluator = None

    def _fill(self, tab: str, explorer: Explorer) -> None:
        """Puts models into fields that are empty."""
        names = self.shelf.names
        for label, value in explorer.suggested(names).items():
            if not explorer.settings().get(label):
                explorer.restore({label: value})
        self._offer()

    def _offer(self) -> None:
        """The atlas joins what is in the history."""
        if isinstance(atlas := self._made.get("atlas"), AtlasExplorer):
            known = list(atlas.source.items.values())
            entries = sorted(self.history.entries, key=lambda one: self.TABS.index(one.tab))  # whenever they came
            atlas.offer(*of_history(entries, self.shelf.sources, known))

    def _look(self, name: str) -> None:
        """A model was chosen in the list: the tabs that look at one look at it."""
        for tab in ("browser", "spectra"):
            explorer = self._made.get(tab)
            if explorer is not None and not explorer.running:
                explorer.source.value = name

    def _add_typed(self, text: str) -> None:
        def add() -> None:
            asked = text.strip()
            if asked:
                known = notebook()
                self.add(known[asked] if asked.isidentifier() and asked in known else asked, None)
                self.models.text.value = ""

        self._attempt(add)

    def _tab_chosen(self) -> None:
        tab = self.tabs.value
        explorer = self.explorer(tab)
        if explorer.selection != self.selection:
            self._pass_on(explorer)  # first: what is drawn while the page makes the tab's plots is lost there
        self.page.children = [explorer]

    def _chosen(self, explorer: Explorer) -> None:
        """Layers were selected in the open tab, or in one that somebody was still looking at: they are in all."""
        looked = explorer.choosing or explorer is self._made.get(self.tabs.value)
        if looked and not self._showing and explorer.selection:
            self.selection = explorer.selection

    def _selected(self) -> None:
        """Only the tab on the screen is drawn anew; the others are when they are opened."""
        explorer = self._made.get(self.tabs.value)
        if explorer is not None and explorer.selection != self.selection:
            self._pass_on(explorer)

    def _pass_on(self, explorer: Explorer) -> None:
        self._showing = True
        try:
            explorer.selection = self.selection
        finally:
            self._showing = False

    def _arrived(self, tab: str, explorer: Explorer) -> None:
        """A result is shown: it is one of the history, and the session's code has it."""
        if explorer.made is not None and explorer.result is not None:
            known = [one for one in self.history.entries if one.result is explorer.result]
            if not known:
                self.history.keep(Entry(tab, explorer.made, explorer.result))
                self._offer()
        self.models.describe()
        self._on_code()

    def _show_entry(self, entry: Entry) -> None:
        def show() -> None:
            self.tabs.value = entry.tab
            self.explorer(entry.tab).show(entry.call, entry.result)

        self._attempt(show)

    def _released(self, entries: Sequence[Entry]) -> None:
        if self._closed:  # what would be told of the models that are left might have to open them
            return
        for entry in entries:
            explorer = self._made.get(entry.tab)
            if explorer is not None:
                explorer.forget_result(entry.result)
        self._offer()
        self.models.describe()
        self._on_code()

    def _on_code(self) -> None:
        self.code_box.value = self.code() if any(one.made is not None for one in self._made.values()) else NOT_SHOWN

    def _guarded_text(self, action: Callable[[str], Any]) -> Callable[[str], None]:
        return lambda text: self._attempt(lambda: action(text))

    def _tell(self) -> None:
        """What runs and waits."""
        busy = {tab: one for tab, one in self._made.items() if one.running}
        self.cancel_button.disabled = not busy
        lines = [f"{tab}: {one.status}" for tab, one in busy.items()]
        self.jobs.value = "".join(status_html(line) for line in lines) or status_html(self.status or "no run")
        if not busy and self._late:
            self._late, late = [], self._late
            self._attempt(lambda: [self.explorer(tab).start() for tab in late])

    def _fail(self, error: BaseException) -> None:
        self.error, self.status = error, error_text(error)
        self.jobs.value = status_html(self.status, error=True)

    def _say(self, text: str) -> None:
        self.error, self.status = None, text
        self._tell()


def _named(models: Any) -> list[tuple[str | None, Any]]:
    if models is None:
        return []
    several = wb.labelled(models)
    by_name = isinstance(models, Mapping) and not any(model is models for model in several.values())
    return [(name if by_name else None, model) for name, model in several.items()]
