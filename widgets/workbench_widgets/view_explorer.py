"""The base of explorers of several views: each is a call, and what one computed serves the others."""

import functools
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.arguments import one_of
from workbench_widgets.call import MISSING, Call, Memory
from workbench_widgets.explorer import Explorer
from workbench_widgets.latest import Latest
from workbench_widgets.plot import Plot, take_places
from workbench_widgets.shared import FieldStyle
from workbench_widgets.style import Theme
from workbench_widgets.table import TableChoice, layers_and_parts
from workbench_widgets.view import Drawing, View

FIRST, SECOND = "figure", "second figure"
DRAWN = "drawn"
ABSENT = "none in this view"
LIVE = 4  # a run under way is drawn a fifth of the time at most


class ViewExplorer(Explorer):
    """What explorers of several views have; a subclass says its views and the inputs that they share.

    Args:
        source: what is looked at.
        view: the name of the first view.
        initial: arguments for the views.
        theme: `auto` follows JupyterLab, `light` and `dark` do not.
    """

    TITLE: ClassVar[str] = "Click a row or a point to select its layers"
    FLOW: ClassVar[str] = "column"
    VIEWS: ClassVar[tuple[type[View], ...]] = ()
    ASKED: ClassVar[str] = ""  # what about

    def __init__(self, source: Any, *, view: str, initial: Mapping[str, Any], theme: Theme) -> None:
        one_of("view", view, tuple(one.NAME for one in self.VIEWS))
        self._initial = {**initial, "view": view}
        self._memory = Memory()
        self._latest = Latest(self._lived)
        self._rests, self._arriving = 0.0, False
        self._refused: wb.WorkbenchError | None = None  # what a control was moved to last, if that was refused
        self._last: dict[str, tuple[Call | None, wb.Result]] = {}  # what each view showed
        self._tables: dict[str, str] = {}  # and which table
        super().__init__(source, theme=theme)

    # what a subclass says

    def make_shared(self, style: FieldStyle) -> Any:
        """The inputs that views share."""
        raise NotImplementedError

    def always(self) -> list[ipw.DOMWidget]:
        """The shared controls that count in every view."""
        return []

    def shared(self) -> list[ipw.DOMWidget]:
        """The shared controls that count in some."""
        return []

    def looks(self) -> list[ipw.DOMWidget]:
        """Those of them that change what is shown of results, and no result."""
        return []

    # what the base asks

    def make_plots(self) -> dict[str, Plot]:
        """Two places for figures, one below the other."""
        return {FIRST: Plot(FIRST, self._picked, on_cell=self._cell_picked), SECOND: Plot(SECOND, self._picked)}

    def make_inputs(self, style: FieldStyle) -> list[ipw.DOMWidget]:
        """What is looked at, the view, and the controls that count in it."""
        self.inputs = self.make_shared(style)
        self.view = ipw.Dropdown(
            options=[one.NAME for one in self.VIEWS],
            value=self._initial["view"],
            description="View",
            tooltip=f"what is asked about {self.ASKED}",
            style=style,
        )
        self.views = {one.NAME: one(self.inputs, style, self._initial, self._memory) for one in self.VIEWS}
        self.panels = {name: panel for name, view in self.views.items() if (panel := view.make_panel()) is not None}
        self.table = TableChoice(style)
        self.view.observe(self._guarded(self._view_chosen), "value")
        self.observe(lambda _: setattr(self.view, "disabled", self.running), "running")
        self.table.observe(self._guarded(self._list), "value")
        own = dict.fromkeys([*self.shared(), *(control for view in self.views.values() for control in view.own)])
        controls = [*self.always(), self.view, *own, self.table]
        looks = [*self.looks(), *(control for view in self.views.values() for control in view.looks)]
        for control in self.looks():
            control.observe(self._guarded(self._list), "value")
        for control in own:
            heard = self._look_moved if control in looks else self._control_moved
            control.observe(self._guarded(heard), "value")
        self._shown_controls(controls)
        take_places(self.plots.values(), len(self._view.FIGURES), self._view.HEIGHT)
        return controls

    def make_beside(self) -> list[ipw.DOMWidget]:
        """The views' panels."""
        return list(self.panels.values())

    def let_go(self) -> None:
        """Nothing that was computed for another counts any more."""
        self._memory.forget()
        self._last = {}

    def forget_result(self, result: wb.Result) -> None:
        """Lets go of a result, also where other views build on it."""
        self._last = {view: pair for view, pair in self._last.items() if pair[1] is not result}
        self._memory.drop_value(result)
        super().forget_result(result)

    def call(self) -> Call:
        """The call of the view."""
        return self._view.call()

    def compute(self, call: Call, progress: Callable[[wb.Progress], None]) -> wb.Result:
        """The call of a view, when nothing else runs."""
        with self._memory.alone:
            self._memory.refresh()
            return self.view_of(call).compute(call, progress)

    def view_of(self, call: Call) -> View:
        """The view whose call it is, as far as it matters."""
        return next(iter(self.views.values()))

    def show_model(self, model: tuple[wb.Weights, wb.LayerTable] | None) -> None:
        """The layers, from the header alone."""
        self.table.offer([])
        self._layers, parts = layers_and_parts(None if model is None else model[1])
        for view in self.views.values():
            view.parts = parts
        self.rows.show(self._layers)

    def show_progress(self, progress: wb.Progress) -> str:
        """The figure of what is done."""
        now = time.monotonic()
        if progress.partial is not None and now >= self._rests:
            partial = progress.partial()
            if isinstance(partial, self._view.SHOWS):
                self._draw(FIRST, self._view.alive(partial))
            self._rests = time.monotonic() + LIVE * (time.monotonic() - now)
        return super().show_progress(progress)

    def show_result(self, result: wb.Result) -> None:
        """The tables of the result, and the view that it belongs to."""
        if not isinstance(result, self._view.SHOWS):
            self._arriving = True
            self.view.value = next(name for name, view in self.views.items() if isinstance(result, view.SHOWS))
            self._arriving = False
        self._last[self.view.value] = (self.made, result)
        names = [name for name in result.TABLES if name in result.tables and len(result.frame(name))]
        chosen = self._tables.get(self.view.value, self._view.TABLE)
        self.table.offer(names, chosen)
        self._list()

    def show_selection(self, layers: tuple[str, ...]) -> None:
        """The figures, with the selected layer."""
        if self.result is not None:
            self._arriving = True  # controls that get the result's limits are moved by nobody
            self._view.arrive(self._made_here, self.result)
            self._arriving = False
            self._follow()
            self._draw_all()

    def figure_code(self) -> list[str]:
        """The plots, as `wb.figure` draws them for print."""
        return [one.code() for one, plot in zip(self._drawings(), self.plots.values(), strict=False) if plot.spec]

    def also(self) -> list[Call]:
        """The calls that were made as the controls moved, and those whose results are in the figures."""
        if self.result is None:
            return []
        options = [one for drawing in self._drawings() for one in drawing.options.values()]
        return [*self._lives(), *(one for one in options if isinstance(one, Call))]

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the run to end, and for what follows the controls."""
        return super().wait(timeout) and self._latest.wait(timeout)

    def close(self) -> None:
        """Lets go of all models, the module, the data and what was computed."""
        if (memory := getattr(self, "_memory", None)) is not None:  # it may have failed to be made
            memory.forget()
            self._last = {}
            self._latest.ask([])
        if (inputs := getattr(self, "inputs", None)) is not None:
            inputs.release()
        for view in getattr(self, "views", {}).values():
            view.release()
        super().close()

    # how it works

    @property
    def _view(self) -> View:
        return self.views[self.view.value]

    @property
    def _made_here(self) -> Call | None:
        """The call that made the result, if others can build on it: a cancelled run's partial result is not kept."""
        call = self.made
        return call if call is not None and self._memory.find(call) is self.result else None

    def _shown_controls(self, controls: Sequence[ipw.DOMWidget]) -> None:
        shown = [*self._view.widgets, *self.always(), self.view, self.table]
        for control in controls:
            control.layout.display = None if control in shown else "none"
        self._controls = controls
        for name, panel in self.panels.items():
            panel.layout.display = None if name == self.view.value else "none"

    def _view_chosen(self) -> None:
        self._shown_controls(self._controls)
        take_places(self.plots.values(), len(self._view.FIGURES), self._view.HEIGHT)
        if self._arriving:
            return
        self.result, self._shown = None, None
        if self._recall():
            return
        if self.view.value in self._last:
            call, result = self._last[self.view.value]
            self._shown = None if call is None else (call, result)
            self.result = result
        else:
            self._forget("press Run")
            self.table.offer([])
            self.rows.show(self._layers)
            self._say(f"{self.view.value}: press Run")

    def _control_moved(self) -> None:
        self._shown_controls(self._controls)
        if not self._arriving:
            self._recall()

    def _look_moved(self) -> None:
        """Shows the result as the controls now want it, beside the main thread: they may move on meanwhile."""
        if self._arriving or self.result is None:
            return
        try:
            self._follow(draw=True)
        except wb.WorkbenchError as error:
            self._refused = error
            raise
        if self.error is not None and self.error is self._refused:  # what was refused is moved away from
            self.error, self._refused = None, None
            self._say(self.result.facts())

    def _recall(self) -> bool:
        """Shows what the controls stand for, if it was computed before."""
        try:
            call = self.call()
        except wb.WorkbenchError:
            return False
        found = self._memory.find(call)
        if found is None or self.running:
            return False
        if found is not self.result:
            self._shown, self.result = (call, found), found
            self._say(found.facts())
        return True

    def _lives(self) -> list[Call]:
        """The calls that follow the controls."""
        return [] if self.result is None else list(self._view.lives(self._made_here, self.result))

    def _wanted(self) -> list[Call]:
        """The same; none where the controls stand for nothing, which they say themselves."""
        try:
            return self._lives()
        except wb.WorkbenchError:
            return []

    def _follow(self, *, draw: bool = False) -> None:
        """Makes the calls that follow the controls, each once; then draws, where that has not been done."""
        new: list[tuple[Any, Callable[[], Any]]] = []
        for call in self._lives():
            if (found := self._memory.find(call, MISSING)) is not MISSING:
                self._view.show_live(call, found)
            else:
                new.append((call, functools.partial(self._made, call)))
        if draw:
            new.append((DRAWN, lambda: self._attempt(self._draw_all)))
        self._latest.ask(new)

    def _made(self, call: Call) -> Any:
        with self._memory.alone:
            return call.run(None, self._memory)

    def _lived(self, call: Any, found: Any) -> None:
        def show() -> None:
            if call is DRAWN or self._closed:
                return
            told = isinstance(found, Exception) or self._memory.find(call) is found  # else of models before these
            if told and call in self._wanted():
                self._view.show_live(call, found)

        self._attempt(show)

    def _drawings(self) -> list[Drawing]:
        return [] if self.result is None else self._view.drawings(self.made, self.result, self.selection)

    def _draw_all(self) -> None:
        drawings = self._drawings()
        take_places(self.plots.values(), len(drawings), self._view.HEIGHT)
        for name, drawing in itertools.zip_longest(self.plots, drawings):
            if drawing is not None:
                self._draw(name, drawing)
            elif self.plots[name].why != ABSENT:  # another view's could still be exported
                self.plots[name].clear(ABSENT)

    def _draw(self, name: str, drawing: Drawing) -> None:
        try:
            self.plots[name].show(drawing.spec(self._memory))
        except wb.FigureError as error:
            self.plots[name].clear(str(error))

    def _list(self) -> None:
        if self.result is not None and self.table.value is not None and not self.table.offering:
            self._tables[self.view.value] = self.table.value
            frame = self._view.table(self.table.value, self.result.frame(self.table.value))
            self.rows.show(frame, self._view.layers(self.result, frame))

    def _cell_picked(self, x: float, y: float) -> None:
        self._attempt(lambda: self.choose(self._view.cell(self.result, x, y) or self.selection))
