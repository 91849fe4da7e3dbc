"""`wb.ui.AtlasExplorer`: whatever was computed by layer beside each other, and which of it goes together."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import ipywidgets as ipw
import pandas as pd

import workbench as wb
from workbench_widgets.amounts import count_text
from workbench_widgets.atlas_inputs import ACROSS, ONE, PANELS, POOLED, AtlasInputs
from workbench_widgets.call import Call, Given, Memory
from workbench_widgets.explorer import Explorer
from workbench_widgets.plot import Plot
from workbench_widgets.results_field import LEAST, Item, ResultsField, items
from workbench_widgets.shared import FieldStyle
from workbench_widgets.style import Theme
from workbench_widgets.table import LayerRows
from workbench_widgets.view import Drawing

MATRIX, PAIR, MAP = "scatter matrix", "two columns", "map of correlations"
KINDS = {MATRIX: "pairs", PAIR: "scatter", MAP: "correlations"}
HEIGHTS = {MATRIX: 340, PAIR: 360, MAP: 400}
PAIRS: Mapping[str, list[str]] = {
    "rho": (
        "first second layers rho rho_low rho_high p p_holm verdict controls partial partial_low partial_high "
        "partial_p_holm partial_verdict layers_needed reason"
    ).split(),
    "tau": "first second layers tau rho p p_holm verdict layers_needed reason".split(),
}


class AtlasExplorer(Explorer):
    """Joins results by layer: a scatter matrix in which a layer is one in all panels, and rank correlations.

    Run is `wb.atlas`. A click on a point selects its layer; a click on a row of the correlations, or on a cell of their
    map, shows these two columns.

    Args:
        results: what analyses returned, and mappings of labels to such, as `wb.atlas` takes them.
        models: label → results of that model, to pool several; in place of `results`.
        columns: the columns that are compared, names or globs; None for one or two of each result.
        controls: columns that partial correlations hold fixed.
        rows: `layers`, or `modules` with the mean of their parts.
        unread: what becomes of numbers whose verdict says that they are not to be read: `left out` or `kept`.
        across: join results of different models by layer id.
        permutations: orders drawn for a p, 99 to 1e6.
        seed: of these.
        x: the column on the horizontal axis of the figure of two; None for the first that is compared.
        y: that on its vertical axis.
        method: what is shown: `rho` (Spearman) or `tau` (Kendall); p and verdicts are those of ρ.
        theme: `auto` follows JupyterLab, `light` and `dark` do not.

    Example:
        >>> import torch, workbench as wb
        >>> base = {f"{n}.weight": torch.diag(torch.arange(1.0, 30.0) ** n) for n in range(1, 5)}
        >>> tuned = {name: weight * (1 + 0.01 * n) for n, (name, weight) in enumerate(base.items(), start=1)}
        >>> names = ["spectrum.stable_rank", "diff.relative_norm"]
        >>> explorer = wb.ui.AtlasExplorer(wb.spectrum(base), wb.diff(base, tuned), columns=names)
        >>> explorer.run().pair(*names)["rho"]
        -1.0
    """

    TITLE: ClassVar[str] = "Layers and their numbers: click a row to mark the layer in every figure"
    FLOW: ClassVar[str] = "column"
    LEFT: ClassVar[str] = "260px"  # the matrix needs the room
    SOURCE: ClassVar[str] = "Results"
    RESULTS: ClassVar[tuple[type[wb.Result], ...]] = (wb.Atlas,)
    NOTHING: ClassVar[str] = "no result to join yet: compute spectra, changes or a degeneracy first"

    source: ResultsField

    def __init__(
        self,
        *results: Any,
        models: Mapping[str, Any] | None = None,
        columns: str | Sequence[str] | None = None,
        controls: str | Sequence[str] = ("depth", "size"),
        rows: str = "layers",
        unread: str = "left out",
        across: bool = False,
        permutations: int = 9999,
        seed: int = 0,
        x: str | None = None,
        y: str | None = None,
        method: str = "rho",
        theme: Theme = "auto",
    ) -> None:
        if models is not None and (results or across):
            raise wb.ArgumentError("got models= beside results or across=True: where models are pooled, each has its.")
        given = items(results)
        for label, own in (models or {}).items():
            given += items(own if isinstance(own, list | tuple) else [own], str(label))
        self._asked = {
            "models": POOLED if models is not None else ACROSS if across else ONE,
            "columns": columns,
            "controls": controls,
            "rows": rows,
            "unread": unread,
            "permutations": permutations,
            "seed": seed,
            "method": method,
        }
        self._first = (x, y)  # columns are known when there is a result
        self._arriving = False
        self._held: list[tuple[Call | Given, Any]] = []
        super().__init__(given, theme=theme)

    # what the base asks

    def make_source(self, source: Any, style: FieldStyle) -> Any:
        """The list of results."""
        return ResultsField(source, style)

    def make_plots(self) -> dict[str, Plot]:
        """The scatter matrix, one pair of columns, and the map of all pairs."""
        return {
            name: Plot(name, self._picked, height, self._cell_picked if name == MAP else None)
            for name, height in HEIGHTS.items()
        }

    def make_inputs(self, style: FieldStyle) -> list[ipw.DOMWidget]:
        """What is compared, and below it how it is shown."""
        self.inputs = AtlasInputs(style, **self._asked)
        inputs = self.inputs
        self.source.observe(self._guarded(self._on_controls), "value")
        for control in inputs.looks:
            control.observe(self._guarded(self._look_moved), "value")
        inputs.table.observe(self._guarded(self._list), "value")
        return [inputs.note, *inputs.asked, *inputs.looks, inputs.table]

    def make_panels(self) -> dict[str, ipw.DOMWidget]:
        """The correlations: a row per pair of columns."""
        self.pairs = LayerRows("Rank correlations: click a row to see its two columns")
        self.pairs.observe(self._guarded(lambda: self._show_pair(self.pairs.selection)), "selection")
        return {"Correlations": self.pairs}

    def sources(self) -> list[ipw.ValueWidget]:
        """None that is opened."""
        return []

    def suggested(self, names: list[str]) -> dict[str, str]:
        """Nothing: results are joined, and no models."""
        return {}

    def open_checkpoint(self) -> None:
        """Nothing is opened: results are there."""
        self._say(f"{count_text(len(self.source.items), 'result')}: press Run")

    def call(self) -> Call:
        """`wb.atlas` of the results that are chosen."""
        return self.inputs.call(self.source.chosen)[0]

    def start(self) -> None:
        """Starts a run on the results that are chosen now.

        Raises:
            wb.ArgumentError: a run is under way, or there is nothing to join.
        """
        with self._lock:
            if not self.running:
                chosen = self.source.chosen
                named = self.inputs.call(chosen)[1]
                self._held = [(one, item.result) for one, item in zip(named, chosen, strict=True)]
            super().start()

    def compute(self, call: Call, progress: Callable[[wb.Progress], None]) -> wb.Result:
        """`wb.atlas`, of results that are there: none is computed again."""
        memory, (held, self._held) = Memory(), (self._held, [])
        for one, result in held:
            if isinstance(one, Call):
                memory.keep(one, result, 0)
        try:
            return call.run(progress, memory)
        except wb.ArgumentError as error:
            if _of_several_models(call, memory):
                hint = "Here: choose the results of one under Results, or under Models what becomes of several."
                raise wb.ArgumentError(f"{error} {hint}") from None
            raise

    def show_progress(self, progress: wb.Progress) -> str:
        """How many pairs are done."""
        return f"{progress.done} of {progress.total} pairs done, at {progress.item}"

    def show_result(self, result: wb.Result) -> None:
        """The tables, and the columns that can be shown."""
        self._arriving = True
        self.inputs.know(result)
        for control, name in zip((self.inputs.x, self.inputs.y), self._first, strict=True):
            if name in control.options:
                control.value = name
        self._first = (None, None)
        tables = [name for name in result.TABLES if name != "correlations"]
        self.inputs.table.offer(tables, self.inputs.table.value)
        self._arriving = False
        self._list()

    def show_selection(self, layers: tuple[str, ...]) -> None:
        """The figures, with the selected layer marked."""
        if self.result is None:
            return
        for name, drawing in self._drawings().items():
            try:
                self.plots[name].show(drawing.spec())
            except wb.FigureError as error:
                self.plots[name].clear(str(error))

    def figure_code(self) -> list[str]:
        """The plots, as `wb.figure` draws them for print."""
        return [one.code() for name, one in self._drawings().items() if self.plots[name].spec is not None]

    # what a workbench calls

    def offer(self, given: Sequence[Item], refused: Sequence[str] = ()) -> None:
        """Lists the results that can be joined now, and says which cannot.

        Args:
            given: these.
            refused: kinds of those that have no table by layer.
        """
        with self._lock:
            self.source.offer(given)
            told = f"not joined, having no table by layer: {', '.join(sorted(set(refused)))}" if refused else ""
            self.inputs.note.value = f'<div class="wb-status">{told}</div>' if told else ""
            if self.result is None and not self.running and self.error is None:
                self.open_checkpoint() if self.source.filled else self._say(self.NOTHING)
            self._on_controls()

    def close(self) -> None:
        """Lets go of the results too."""
        self._held = []
        if (pairs := getattr(self, "pairs", None)) is not None:  # it may have failed to be made
            pairs.close()
        super().close()

    # how it works

    def _can_draw(self) -> bool:
        return self.source.filled

    def _drawings(self) -> dict[str, Drawing]:
        """What each place shows of the result."""
        if self.result is None:
            return {}
        inputs, known = self.inputs, set(self.result.tables["layers"]["layer"])
        layer = next((one for one in self.selection if one in known), None)
        method = None if inputs.method.value == "rho" else inputs.method.value
        own = {"columns": list(inputs.shown.value) or None}, {"x": inputs.x.value, "y": inputs.y.value}, {}
        name = self.made.variable if self.made else "atlas"
        return {
            place: Drawing(self.result, name, kind, None if place == MAP else layer, options | {"method": method})
            for (place, kind), options in zip(KINDS.items(), own, strict=True)
        }

    def _look_moved(self) -> None:
        if self._arriving or self.result is None:
            return
        if len(self.inputs.shown.value) > PANELS:
            raise wb.ArgumentError(f"a scatter matrix has two to {PANELS} columns: choose fewer under Matrix of.")
        self._list_pairs()
        self.show_selection(self.selection)
        if isinstance(self.error, wb.ArgumentError):  # what was refused is moved away from
            self.error = None
            self._say(self.result.facts())

    def _list(self) -> None:
        if self.result is None or self.inputs.table.value is None or self._arriving:
            return
        frame = self.result.frame(self.inputs.table.value)
        if self.inputs.table.value == "layers":
            frame = _ordered(frame, self.result.compared)
        self.rows.show(frame, None if "layer" in frame else [()] * len(frame))
        self._list_pairs()

    def _list_pairs(self) -> None:
        frame = self.result.frame("correlations")[PAIRS[self.inputs.method.value]]
        self.pairs.show(frame, list(zip(frame["first"], frame["second"], strict=True)))

    def _show_pair(self, columns: tuple[str, ...]) -> None:
        """Two columns were chosen: they are on the axes."""
        if len(columns) == 2 and set(columns) <= set(self.inputs.x.options):
            self._arriving = True
            self.inputs.x.value, self.inputs.y.value = columns
            self._arriving = False
            self.show_selection(self.selection)
            self._on_controls()

    def _cell_picked(self, x: float, y: float) -> None:
        names = self.result.compared if self.result is not None else []
        one, other = round(x), round(y)
        if one != other and max(one, other) < len(names):
            self._attempt(lambda: self._show_pair((names[one], names[other])))


def _ordered(frame: pd.DataFrame, compared: Sequence[str]) -> pd.DataFrame:
    """The columns that are compared first, and the model only where there are several."""
    head = ["layer", *(["model"] if any(frame["model"]) else []), "depth", "size"]
    first = [*head, *(name for name in compared if name not in head), "verdict", "reason"]
    return frame[[*first, *(name for name in frame if name not in (*first, "model"))]]


def _of_several_models(call: Call, memory: Memory) -> bool:
    """Whether results were refused because they are of different models."""
    if {"across", "models"} & set(call.keywords):
        return False
    for across, refused in ((False, True), (True, False)):
        try:
            Call(wb.atlas, call.positional, {"columns": [], "permutations": LEAST, "across": across}).run(None, memory)
        except wb.ArgumentError:
            if not refused:
                return False
        else:
            if refused:
                return False
    return True
