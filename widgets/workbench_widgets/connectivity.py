"""`wb.ui.ConnectivityExplorer`: two checkpoints, what permutes, how near they come, and the loss between them."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import ipywidgets as ipw
import pandas as pd

import workbench as wb
from workbench_widgets.arguments import one_of
from workbench_widgets.barrier_view import BarrierView
from workbench_widgets.call import Call, Memory
from workbench_widgets.connectivity_inputs import ConnectivityInputs, Network
from workbench_widgets.connectivity_view import Drawing, View, layer_of
from workbench_widgets.explorer import Explorer
from workbench_widgets.groups_view import GroupsView
from workbench_widgets.matching_view import AlignmentView, MatchingView
from workbench_widgets.path_view import PathView
from workbench_widgets.plot import Plot
from workbench_widgets.style import Theme
from workbench_widgets.surface_view import SurfaceView

VIEWS: tuple[type[View], ...] = (GroupsView, MatchingView, AlignmentView, BarrierView, PathView, SurfaceView)
FIRST, SECOND = "figure", "second figure"
LIVE = 4  # a run under way is drawn a fifth of the time at most
COLUMNS = ["layer", "kind", "shape", "rows", "cols", "elements", "dtype", "depth"]


class ConnectivityExplorer(Explorer):
    """Two checkpoints of one architecture: permutation groups, matching, barriers, a walk between them, a surface.

    Each view is a call: `wb.permutation_groups`, `wb.match`, `wb.barrier`, `wb.surface`. What a view needs of another
    is computed once and remembered. Without a module the groups come from a template, and nothing is evaluated.

    Args:
        a: a path, or a model: anything `wb.load` takes. It stays as it is.
        b: the checkpoint whose units are permuted.
        evaluator: of the module that both are checkpoints of, made by `wb.evaluator`.
        others: further checkpoints, all matched together.
        module: with `data` and `loss` in place of an evaluator.
        data: batches, as for `wb.evaluator`.
        loss: as for `wb.evaluator`.
        example_inputs: with a `module` and no data, what it takes: enough for groups and matching.
        view: `groups`, `matching`, `alignment`, `barrier`, `path` or `surface`.
        method: `weights`, `activations` or `correlation`.
        restarts: further starts of weight matching.
        seed: of random starts and directions.
        gammas: thresholds γ of the alignment.
        batch_norm: `reset` or `interpolate`; needed for losses of a module with batch norm, there or on the screen.
        points: of the lines.
        resolution: of the surface, along each side.
        theme: `auto` follows JupyterLab, `light` and `dark` do not.

    Example:
        >>> import torch, workbench as wb
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> shuffled = {"0.weight": net[0].weight[[2, 0, 1]], "0.bias": net[0].bias[[2, 0, 1]],
        ...             "2.weight": net[2].weight[:, [2, 0, 1]], "2.bias": net[2].bias}
        >>> explorer = wb.ui.ConnectivityExplorer(net, shuffled, module=net, example_inputs=torch.zeros(1, 2))
        >>> explorer.view.value = "matching"
        >>> explorer.run().reduction()
        1.0
    """

    TITLE: ClassVar[str] = "Click a row or a point to select its layers"
    SOURCE: ClassVar[str] = "Checkpoint A"
    FLOW: ClassVar[str] = "column"
    RESULTS: ClassVar[tuple[type[wb.Result], ...]] = (wb.PermutationGroups, wb.Matching, wb.Barrier, wb.Surface)

    def __init__(
        self,
        a: Any = None,
        b: Any = None,
        evaluator: Any = None,
        *,
        others: Any = (),
        module: Any = None,
        data: Any = None,
        loss: Any = "cross_entropy",
        example_inputs: Any = None,
        view: str = GroupsView.NAME,
        method: str = "weights",
        restarts: int = 0,
        seed: int = 0,
        gammas: Sequence[float] = (0.0, 0.3),
        batch_norm: str | None = None,
        points: int = 25,
        resolution: int = 21,
        theme: Theme = "auto",
    ) -> None:
        one_of("view", view, tuple(one.NAME for one in VIEWS))
        network = Network(evaluator, module, data, loss, example_inputs)
        self._shared = {
            "b": b,
            "others": others,
            "network": network,
            "method": method,
            "restarts": restarts,
            "seed": seed,
            "gammas": gammas,
            "batch_norm": batch_norm,
            "points": points,
        }
        self._initial = {"resolution": resolution, "view": view}
        self._memory = Memory()
        self._rests, self._listing, self._arriving = 0.0, False, False
        self._last: dict[str, tuple[Call | None, wb.Result]] = {}  # what each view showed
        self._tables: dict[str, str] = {}  # and which table
        super().__init__(a, theme=theme)

    def make_plots(self) -> dict[str, Plot]:
        """Two places for figures, one below the other."""
        return {FIRST: Plot(FIRST, self._picked, on_cell=self._cell_picked), SECOND: Plot(SECOND, self._picked)}

    def make_inputs(self, style: Mapping[str, str]) -> list[ipw.DOMWidget]:
        """The checkpoints, the view, and the controls that count in it."""
        self.inputs = ConnectivityInputs(style, first=lambda: self.source.model, **self._shared)
        del self._shared
        self.view = ipw.Dropdown(
            options=[one.NAME for one in VIEWS],
            value=self._initial["view"],
            description="View",
            tooltip="what is asked about the checkpoints",
            style=style,
        )
        self.views = {one.NAME: one(self.inputs, style, self._initial, self._memory) for one in VIEWS}
        self.table = ipw.Dropdown(
            options=[], description="Table", tooltip="what the table below lists", disabled=True, style=style
        )
        self.view.observe(self._guarded(self._view_chosen), "value")
        self.observe(lambda _: setattr(self.view, "disabled", self.running), "running")
        self.table.observe(self._guarded(self._list), "value")
        self.views[PathView.NAME].t.observe(self._guarded(self._moved), "value")
        shared = [*self.inputs.line_widgets, self.inputs.points, self.inputs.gammas]
        own = [*shared, *(control for view in self.views.values() for control in view.own)]
        controls = [self.inputs.b, self.inputs.others, self.view, *dict.fromkeys(own), self.table]
        for control in dict.fromkeys(own):
            control.observe(self._guarded(self._control_moved), "value")
        self._shown_controls(controls)
        return controls

    def sources(self) -> list[ipw.ValueWidget]:
        """The checkpoints."""
        return [self.source, self.inputs.b, self.inputs.others]

    def opened(self) -> wb.Weights:
        """A, open; B and the others are tried."""
        self._memory.forget()
        self._last = {}
        weights = super().opened()
        for model in [*([self.inputs.b.model] if self.inputs.b.filled else []), *self.inputs.others.models]:
            wb.load(model)
        return weights

    def call(self) -> Call:
        """The call of the view."""
        return self._view.call()

    def compute(self, call: Call, progress: Callable[[wb.Progress], None]) -> wb.Result:
        """The view's call; a surface's points are kept."""
        view = SurfaceView.NAME if call.function is wb.surface else BarrierView.NAME  # the others are alike
        return self.views[view].compute(call, progress)

    def show_model(self, model: tuple[wb.Weights, wb.LayerTable] | None) -> None:
        """The layers of A, from the header alone."""
        self.table.options, self.table.disabled = [], True
        self._layers = pd.DataFrame(columns=COLUMNS)
        if model is not None:
            self._layers = model[1].frame().query("verdict == 'analysed'")[COLUMNS]
        self.rows.show(self._layers)

    def show_progress(self, progress: wb.Progress) -> str:
        """The objective so far, and the figure of what is done."""
        now = time.monotonic()
        if progress.partial is not None and now >= self._rests:
            partial = progress.partial()
            if isinstance(partial, self._view.SHOWS):
                self._draw(FIRST, self._view.alive(partial))
            self._rests = time.monotonic() + LIVE * (time.monotonic() - now)
        told = super().show_progress(progress)
        if isinstance(progress, wb.MatchingProgress):
            told = f"sweep {progress.sweep}, objective {progress.objective:.6g}: {told}"
        return told

    def show_result(self, result: wb.Result) -> None:
        """The tables of the result, and the view that it belongs to."""
        if not isinstance(result, self._view.SHOWS):
            self._arriving = True
            self.view.value = next(name for name, view in self.views.items() if isinstance(result, view.SHOWS))
            self._arriving = False
        call = self._shown[0] if self._shown and self._shown[1] is result else None
        self._last[self.view.value] = (call, result)
        names = [name for name in result.TABLES if name in result.tables and len(result.frame(name))]
        chosen = self._tables.get(self.view.value, self._view.TABLE)
        self._listing = True
        self.table.options = names  # the drop-down chooses the first of them, which nobody has chosen
        self.table.value = chosen if chosen in names else next(iter(names), None)
        self._listing, self.table.disabled = False, not names
        self._list()

    def show_selection(self, layers: tuple[str, ...]) -> None:
        """The figures, with the selected layer."""
        if self.result is None:
            return
        drawings = self._drawings()
        for name, drawing in zip(self.plots, drawings, strict=False):
            self._draw(name, drawing)

    def figure_code(self) -> list[str]:
        """The plots, as `wb.figure` draws them for print."""
        return [one.code() for one, plot in zip(self._drawings(), self.plots.values(), strict=False) if plot.spec]

    def after_run(self) -> None:
        """Looks where the slider is now, if it has moved meanwhile."""
        if self._view.NAME == PathView.NAME and self.error is None and not self._closed:
            self._moved()

    def close(self) -> None:
        """Lets go of all models, the module, the data and what was computed."""
        if (memory := getattr(self, "_memory", None)) is not None:  # it may have failed to be made
            memory.forget()
            self._last = {}
        if (inputs := getattr(self, "inputs", None)) is not None:
            inputs.release()
        for view in getattr(self, "views", {}).values():
            view.release()
        super().close()

    @property
    def _view(self) -> Any:
        return self.views[self.view.value]

    def _shown_controls(self, controls: Sequence[ipw.DOMWidget]) -> None:
        shown = [*self._view.widgets, *controls[:3], self.table]
        for control in controls:
            control.layout.display = None if control in shown else "none"
        self._controls = controls
        self.plots[SECOND].layout.display = None if len(self._view.FIGURES) > 1 else "none"
        for plot in self.plots.values():
            plot.resize(self._view.HEIGHT)

    def _view_chosen(self) -> None:
        self._shown_controls(self._controls)
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
            self.table.options, self.table.disabled = [], True
            self.rows.show(self._layers)
            self._say(f"{self.view.value}: press Run")

    def _control_moved(self) -> None:
        self._shown_controls(self._controls)
        self._recall()

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

    def _moved(self) -> None:
        """Evaluates where the slider rests, unless it was there before."""
        if self.view.value == PathView.NAME and not self._recall() and not self.running:
            self.start()

    def _drawings(self) -> list[Drawing]:
        if self.result is None:
            return []
        call = self._shown[0] if self._shown and self._shown[1] is self.result else None
        return self._view.drawings(call, self.result, self.selection)

    def _draw(self, name: str, drawing: Drawing) -> None:
        try:
            self.plots[name].show(drawing.spec())
        except wb.FigureError as error:
            self.plots[name].clear(str(error))

    def _list(self) -> None:
        if self.result is not None and self.table.value is not None and not self._listing:
            self._tables[self.view.value] = self.table.value
            frame = self.result.frame(self.table.value)
            self.rows.show(frame, self._view.layers(self.result, frame))

    def _cell_picked(self, x: float, y: float) -> None:
        self._attempt(lambda: setattr(self, "selection", self._view.cell(self.result, x, y) or self.selection))

    def _picked(self, name: str) -> None:
        """A layer, or a group of the groups' graph, was clicked."""
        members = self.result.structure.members() if isinstance(self.result, wb.PermutationGroups) else {}
        layers = tuple(dict.fromkeys(map(layer_of, members.get(name, [name]))))
        self._attempt(lambda: setattr(self, "selection", layers))
