"""The base of all explorers: inputs left, plots right, a table, and the call that does the same without a screen."""

import threading
from collections.abc import Callable
from typing import Any, ClassVar

import ipywidgets as ipw
import traitlets

import workbench as wb
from workbench_widgets.arguments import error_text, one_of, say_of_hub
from workbench_widgets.call import Call
from workbench_widgets.checkpoint import CheckpointField
from workbench_widgets.export import ExportPanel, LateExports
from workbench_widgets.guard import Guard
from workbench_widgets.job import Job
from workbench_widgets.layout import accordion, beside, code_field, listen
from workbench_widgets.member import Member
from workbench_widgets.plot import Plot
from workbench_widgets.runbar import RunBar
from workbench_widgets.settings import labelled_controls
from workbench_widgets.shared import FieldStyle, family, fields
from workbench_widgets.style import PageStyle, Theme
from workbench_widgets.table import LayerRows
from workbench_widgets.unseen import Unseen


class Explorer(Member, Guard, Unseen, ipw.VBox):
    """What every explorer has; a subclass says its inputs, its call and how a result is shown.

    Attributes:
        result: the last result, also a cancelled run's partial one; assign a result to look at it.
        selection: ids of the selected layers.
        status: one line: what is going on.
        error: the last error, or None.
        running: whether a run is under way.
        choosing: whether the selection changes because somebody chose a row or a point.
    """

    TITLE: ClassVar[str] = ""
    LEFT: ClassVar[str] = "300px"  # width of the inputs
    RESULTS: ClassVar[tuple[type[wb.Result], ...]] = (wb.Result,)  # kinds of results that it shows
    FLOW: ClassVar[str] = "row"  # the plots: side by side, or "column"
    SOURCE: ClassVar[str] = "Checkpoint"  # the label of its field
    NOTHING: ClassVar[str] = "type the path of a checkpoint"  # what is said where there is none

    result = traitlets.Instance(wb.Result, allow_none=True)
    selection = traitlets.Tuple()
    status = traitlets.Unicode()
    error = traitlets.Instance(BaseException, allow_none=True)
    running = traitlets.Bool(False)

    def __init__(self, source: Any = None, *, theme: Theme = "auto") -> None:
        one_of("theme", theme, ("auto", "light", "dark"))
        self._lock = threading.RLock()
        self._job = Job(self._on_progress, self._on_done)
        self._item, self._closed, self.choosing = "", False, False
        self._started: Call | None = None
        self._shown: tuple[Call, wb.Result] | None = None
        self._opened = self._started_for = 0  # counts checkpoints, so that no result is shown for another's
        with family():
            wide = fields("96px")
            self.source = self.make_source(source, wide)
            self.controls = RunBar()
            self.rows = LayerRows(self.TITLE)
            self.plots = self.make_plots()
            self.code_box = code_field()
            self._export = LateExports(lambda: {name: plot.spec or plot.why for name, plot in self.plots.items()})
            controls, own = self.make_inputs(wide), self.make_panels()
            self._settings = labelled_controls([self.source, *controls])
            panels = {**own, "Code": self.code_box, "Export": self._export}
            inputs, right = [self.source, *controls, self.controls], [*self.plots.values(), *self.make_beside()]
            page = beside(inputs, right, self.LEFT, self.FLOW)
            folds = accordion(panels, unfolded=bool(own))
            brought = PageStyle(self._guarded(self._prepare))
            super().__init__([brought, page, self.rows, folds], _dom_classes=("wb-explorer", f"wb-{theme}"))
        self.controls.run.on_click(self._guarded(self.start))
        self.controls.cancel.on_click(self._guarded(self.cancel))
        listen(self.sources(), self._guarded(self._on_source))
        listen(controls, self._guarded(self._on_controls))
        folds.observe(self._guarded(lambda: self.export_panel), "selected_index")
        self.rows.observe(self._guarded(lambda: self.choose(self.rows.selection)), "selection")
        self.observe(self._guarded(self._on_selection), "selection")
        self.observe(self._guarded(self._on_result), "result")
        self.open_checkpoint() if self.source.filled else self._say(self.NOTHING)
        self._on_controls()

    # what a subclass says

    def make_source(self, source: Any, style: FieldStyle) -> CheckpointField:
        """The field that says what is looked at."""
        return CheckpointField(source, self.SOURCE, style)

    def make_inputs(self, style: FieldStyle) -> list[ipw.DOMWidget]:
        """The controls, top to bottom: widgets with a trait `value`."""
        raise NotImplementedError

    def make_panels(self) -> dict[str, ipw.DOMWidget]:
        """Panels beside Code and Export, by title."""
        return {}

    def make_plots(self) -> dict[str, Plot]:
        """The plots by name, left to right; made before the inputs."""
        raise NotImplementedError

    def make_beside(self) -> list[ipw.DOMWidget]:
        """What stands after the plots; made after the inputs."""
        return []

    def call(self) -> Call:
        """The call that the controls stand for."""
        raise NotImplementedError

    def show_model(self, model: tuple[wb.Weights, wb.LayerTable] | None) -> None:
        """Shows a checkpoint that was opened and not yet analysed; None if it did not open."""
        raise NotImplementedError

    def show_result(self, result: wb.Result) -> None:
        """Shows a result."""
        raise NotImplementedError

    def show_selection(self, layers: tuple[str, ...]) -> None:
        """Shows what is special to the selected layers."""
        raise NotImplementedError

    def figure_code(self) -> list[str]:
        """Lines of Python that draw the plots of the result shown."""
        return []

    def also(self) -> list[Call]:
        """Calls beside that of the result shown, whose values are shown or drawn too."""
        return []

    def shows(self, shown: Call, call: Call) -> bool:
        """Whether the result of `shown` is what the controls stand for now, though they stand for `call`."""
        return shown == call

    def let_go(self) -> None:
        """Lets go of what was computed for another checkpoint."""

    def after_run(self) -> None:
        """Called when a run has ended and another may begin."""

    def compute(self, call: Call, progress: Callable[[wb.Progress], None]) -> wb.Result:
        """What a run does, in a thread of its own."""
        return call.run(progress)

    def show_progress(self, progress: wb.Progress) -> str:
        """What the status says of a run under way; more of it may be shown."""
        return f"{progress.done} of {progress.total} done, at {progress.item}"

    def opened(self) -> wb.Weights:
        """The checkpoint, open; any checkpoint beside it is tried too."""
        model = self.model
        return wb.load(model.run() if isinstance(model, Call) else model)

    def sources(self) -> list[ipw.ValueWidget]:
        """The controls that say which checkpoint is looked at."""
        return [self.source]

    # what a user calls

    @property
    def export_panel(self) -> ExportPanel:
        """The panel that writes figures, which is made when it is first asked for.

        Raises:
            wb.ArgumentError: the explorer is closed.
        """
        with self._lock:
            self._must_be_open()
            return self._export.panel

    @property
    def model(self) -> Any:
        """What the next run analyses: the object that was given, the path in the field, or a call that makes it.

        Raises:
            wb.ArgumentError: there is none.
        """
        return self.source.model

    def open_checkpoint(self) -> None:
        """Opens the checkpoint and lists its layers; a checkpoint that does not open is an inline error.

        A run under way is cancelled, and its result dropped.
        """
        with self._lock:
            self._opened += 1
            self._job.cancel()
        self.result, self.error, self._shown = None, None, None
        self.selection, self.controls.bar.value = (), 0
        self._started = self._started if self.running else None
        self.let_go()
        if not self.source.filled:
            self._forget("no checkpoint")
            self.show_model(None)
            self._say(self.NOTHING)
            return
        try:
            say_of_hub(self.source.value, self._say)
            table = wb.layers(weights := self.opened())
        except Exception as error:
            self._forget("no checkpoint")
            self.show_model(None)
            self._fail(error)
            return
        self._forget("press Run")
        self._say(table.facts())
        self.show_model((weights, table))

    def start(self) -> None:
        """Starts a run beside the kernel's main thread.

        Raises:
            wb.ArgumentError: a run is under way, there is nothing to run on, or the explorer is closed.
        """
        with self._lock:
            self._must_be_open()
            call = self.call()
            self._job.start(lambda progress: self.compute(call, progress))
            self.error, self._item, self._started, self._started_for = None, "", call, self._opened
            self._set_running(True)
            self._say("waiting for its turn" if self._job.turns and self._job.turns.waiting > 1 else "starting")

    def cancel(self) -> None:
        """Asks the run to stop after the layers it is at; what is done is kept."""
        with self._lock:
            if self._job.running:
                self._job.cancel()
                self.controls.cancel.disabled = True
                self._say(f"stopping after {self._item}" if self._item else "stopping")

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the run to end; False if it did not within `timeout` seconds."""
        return self._job.wait(timeout)

    def run(self) -> wb.Result:
        """Runs and waits: what Run does, for notebooks without a screen.

        Returns:
            The result.

        Raises:
            wb.Cancelled: the run was cancelled; its `.partial` is in `.result`.
            wb.WorkbenchError: whatever the analysis raises. A kernel interrupt cancels the run.
        """
        self._must_be_open()
        if not (self.running and self._started == self.call() and self._started_for == self._opened):
            self.start()
        try:
            self.wait()
        except KeyboardInterrupt:
            self.cancel()
            self.wait()
            raise
        if self.error is not None:
            raise self.error
        return self.result

    @traitlets.validate("result")
    def _shown_here(self, proposal: Any) -> wb.Result | None:
        if proposal.value is not None and not isinstance(proposal.value, self.RESULTS):
            kinds = " or ".join(kind.__name__ for kind in self.RESULTS)
            raise wb.ArgumentError(f"result is a {type(proposal.value).__name__}: {type(self).__name__} shows {kinds}.")
        return proposal.value

    def choose(self, layers: tuple[str, ...]) -> None:
        """Selects layers as somebody does who looks at them."""
        self.choosing, self.selection = True, layers
        self.choosing = False

    def said(self) -> str:
        """The status."""
        return self.status

    # how it works

    def _picked(self, layer: str) -> None:
        """A point of a plot was clicked."""
        self._attempt(lambda: self.choose((layer,)))

    def _end(self) -> None:
        self._job.cancel()
        self.result, self.error, self._shown, self._started, self.running = None, None, None, None, False
        self.source.release()

    def _prepare(self) -> None:
        """A page has painted the explorer: what is folded away or needs plotly comes now."""
        if not self._closed:
            self.export_panel  # noqa: B018
            for plot in self.plots.values() if self._can_draw() else ():
                plot.prepare()

    def _can_draw(self) -> bool:
        """Whether there can be anything to draw; if not, the page is not kept busy with loading plotly."""
        return True

    def _forget(self, why: str) -> None:
        for plot in self.plots.values():
            plot.clear(why)

    def _on_source(self) -> None:
        self.open_checkpoint()
        self._on_controls()

    def _on_controls(self) -> None:
        try:
            self.code_box.value = self.code()
        except wb.WorkbenchError as error:
            self.code_box.value = f"# {error}"

    def _on_selection(self) -> None:
        self.rows.selection = self.selection
        self.show_selection(self.selection)
        self._on_controls()

    def _on_result(self) -> None:
        if self.result is not None:
            self.show_result(self.result)
            self.show_selection(self.selection)
            self._on_controls()

    def _on_progress(self, progress: wb.Progress) -> None:
        with self._lock:
            self._item = progress.item
            self.controls.at(progress)
            if progress.item and not self._job.stopping:
                self._say(self.show_progress(progress))

    def _on_done(self, result: wb.Result | None, error: BaseException | None) -> None:
        with self._lock:
            self._job.release()
            if self._closed:
                return
            try:
                if self._started_for == self._opened:  # else it is another checkpoint's, and would be misread here
                    self._take(result, error)
            except Exception as shown:  # the thread's end: an error here would be seen by nobody
                self._fail(shown)
            finally:
                self._set_running(False)
        self._attempt(self.after_run)

    def _take(self, result: wb.Result | None, error: BaseException | None) -> None:
        if error is None or isinstance(error, wb.Cancelled):
            self.error = error
            self._say(result.facts() if result is not None else "cancelled")
        else:
            self._fail(error)
        if result is not None and self._started and (error is None or len(result.frame())):
            self._shown = self._started, result
            self.result = result
        self._on_controls()

    def _set_running(self, running: bool) -> None:
        self.controls.running(running, self.sources())
        self.running = running

    def _fail(self, error: BaseException) -> None:
        self.error = error
        self.status = error_text(error)
        self.controls.say(self.status, error=True)

    def _say(self, text: str) -> None:
        self.status = text
        self.controls.say(text)
