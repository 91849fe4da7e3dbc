"""`wb.ui.CheckpointBrowser`: what is in a checkpoint, read only where one looks."""

from collections.abc import Mapping
from typing import Any, ClassVar

import ipywidgets as ipw
import pandas as pd

import workbench as wb
from workbench_widgets.about import about_html
from workbench_widgets.amounts import count_text, size_text
from workbench_widgets.call import Call
from workbench_widgets.checkpoint import CheckpointField
from workbench_widgets.explorer import Explorer
from workbench_widgets.plot import Plot
from workbench_widgets.shared import FieldStyle
from workbench_widgets.style import Theme
from workbench_widgets.tree import TensorTree, tree_nodes

HISTOGRAM, HEAT = "histogram", "map of magnitudes"
SHOWN = (
    "layer verdict shape dtype elements zeros sparsity nan infinite minimum maximum mean std rms depth reason"
).split()
HEIGHT = 300
AT_ONCE = 500_000_000  # bytes: a larger tensor is looked into on request, not on a click


class CheckpointBrowser(Explorer):
    """The tree of a checkpoint, and what is inside the tensors that are selected.

    The tree comes from the header. A click on a tensor reads that tensor and shows its statistics, histogram and map
    of magnitudes; Run does so for all selected tensors and modules, or for the whole checkpoint.

    Args:
        source: a path, or a model: anything `wb.load` takes.
        base: the model that a PEFT adapter changes, if `source` is one.
        ema: show the moving average that a training script kept beside the weights.
        theme: `auto` follows JupyterLab, `light` and `dark` do not.

    Example:
        >>> import torch, workbench as wb
        >>> browser = wb.ui.CheckpointBrowser({"fc.weight": torch.eye(4), "fc.bias": torch.zeros(4)})
        >>> browser.run().row("fc")["sparsity"]
        0.75
    """

    TITLE: ClassVar[str] = "What is inside: the tensors that were looked into"
    LEFT: ClassVar[str] = "500px"
    FLOW: ClassVar[str] = "column"
    RESULTS: ClassVar[tuple[type[wb.Result], ...]] = (wb.Contents,)

    def __init__(self, source: Any = None, *, base: Any = None, ema: bool = False, theme: Theme = "auto") -> None:
        self._initial, self._looking = (base, ema), False
        super().__init__(source, theme=theme)

    def make_plots(self) -> dict[str, Plot]:
        """The histogram, or magnitudes over depth where several are selected; below it the map."""
        return {HISTOGRAM: Plot(HISTOGRAM, self._picked, HEIGHT), HEAT: Plot(HEAT, height=HEIGHT)}

    def make_inputs(self, style: FieldStyle) -> list[ipw.DOMWidget]:
        """The base of an adapter, the moving average, and the tree."""
        base, ema = self._initial
        if not isinstance(ema, bool):
            raise wb.ArgumentError(f"ema={ema!r}: expected True or False.")
        meaning = "the model that a PEFT adapter changes, if the checkpoint is one"
        self.base = CheckpointField(
            base, "Base model", style, "only for a PEFT adapter: the model that it changes", meaning
        )
        self.ema = ipw.Checkbox(
            ema,
            description="moving average (EMA) instead of the weights",
            tooltip="show the moving average that a training script kept beside the weights",
            indent=False,
        )
        self.tree = TensorTree()
        self.tree.observe(self._guarded(self._chosen), "value")
        return [self.base, self.ema, self.tree]

    def make_panels(self) -> dict[str, ipw.DOMWidget]:
        """What the checkpoint says of itself."""
        self.about = ipw.HTML()
        return {"About the checkpoint": self.about}

    def sources(self) -> list[ipw.ValueWidget]:
        """The checkpoint, the base of an adapter, and the choice of the moving average."""
        return [self.source, self.base, self.ema]

    @property
    def model(self) -> Any:
        """The checkpoint, or the call that opens it where it takes more than a path.

        Raises:
            wb.ArgumentError: there is no checkpoint yet.
        """
        keywords = {"base": self.base.model} if self.base.filled else {}
        keywords |= {"ema": True} if self.ema.value else {}
        return Call(wb.load, (self.source.model,), keywords, "weights") if keywords else self.source.model

    def call(self) -> Call:
        """`wb.contents` of what is selected in the tree; of everything if nothing or the root is."""
        if unknown := self.tree.unknown():
            raise wb.ArgumentError(f"the tree has no {unknown[0]!r}: expected a tensor's name, or the start of some.")
        nodes = self.tree.selected()
        patterns = [pattern for node in nodes for pattern in node.patterns]
        keywords = {"layers": patterns} if patterns and all(node.path for node in nodes) else {}
        return Call(wb.contents, (self.model,), keywords)

    def show_model(self, model: tuple[wb.Weights, wb.LayerTable] | None) -> None:
        """The tree, notes, renames and metadata, from the header alone."""
        self.rows.show(pd.DataFrame(columns=SHOWN))
        if model is None:
            self.tree.show([])
            self.about.value = ""
            return
        weights, table = model
        self.tree.show(tree_nodes(table, table.title.removeprefix("LayerTable of ")))
        self.about.value = about_html(weights)
        for plot in self.plots.values():
            plot.clear("select a tensor in the tree")

    def show_result(self, result: wb.Result) -> None:
        """Statistics in the table, and a mark in the tree beside what is not finite."""
        frame = result.frame()
        self.rows.show(frame[SHOWN])
        marks = dict(self.tree.marks)
        for layer, nan, infinite in zip(frame["layer"], frame["nan"], frame["infinite"], strict=True):
            if node := self.tree.node_of(layer):
                words = " ".join(word for count, word in ((nan, "NaN"), (infinite, "∞")) if count)
                marks = {path: mark for path, mark in marks.items() if path != node.path}
                marks |= {node.path: words} if words else {}
        self.tree.marks = marks

    def show_selection(self, layers: tuple[str, ...]) -> None:
        """One tensor: its histogram and map. Several: magnitudes over depth, if they were looked into."""
        nodes = [self.tree.node_of(layer) for layer in layers]
        seen = set(self.result.tables["layers"]["layer"]) if self.result is not None else set[str]()
        if None in nodes and not (
            len(layers) == 1 and layers[0] in seen
        ):  # a result of another checkpoint may be given
            return self._forget(f"{layers[nodes.index(None)]!r} is not in this checkpoint")
        if None not in nodes and set(layers) != set(self._layers_of_tree()):
            self.tree.value = [node.path for node in nodes if node]
        if len(layers) == 1 and layers[0] in seen:
            self._draw({HISTOGRAM: ("histogram", layers[0]), HEAT: ("heatmap", layers[0])})
        elif len(layers) != 1 and len(seen) > 1:
            self._draw({HISTOGRAM: ("rms", None)})
            self.plots[HEAT].clear("select one tensor")
        elif not layers:
            self._forget("select a tensor in the tree")
        else:
            size = sum(node.bytes for node in nodes if node)
            self._forget(f"{count_text(len(layers), 'tensor')}, {size_text(size)}: press Run to look into them")
            if nodes[1:] == [] and nodes[0] and nodes[0].read <= AT_ONCE and not self.running:
                self.start()
                self._looking = True

    def figure_code(self) -> list[str]:
        """The plots, as `wb.figure` draws them for print."""
        shown = [(name, self.plots[name].spec) for name in (HISTOGRAM, HEAT)]
        return [
            f"{spec.kind} = wb.figure(contents, {spec.kind!r}"
            + (f", layer={spec.provenance['layer']!r})" if "layer" in spec.provenance else ")")
            for _, spec in shown
            if spec is not None
        ]

    def shows(self, shown: Call, call: Call) -> bool:
        """Selecting among the tensors of a result changes what is drawn of it, and not the result."""
        layers = set(self.result.tables["layers"]["layer"]) if self.result is not None else set()
        return shown.positional == call.positional and bool(self.selection) and set(self.selection) <= layers

    def after_run(self) -> None:
        """Looks into a tensor that was selected while a run was under way."""
        self._looking = False
        if not self._closed and (self._started != self.call() or self._started_for != self._opened):
            self.show_selection(self.selection)

    def run(self) -> wb.Result:
        """Looks into what is selected, or into everything, and waits; a look that a click began is waited for first.

        Returns:
            The Contents.

        Raises:
            wb.Cancelled: the run was cancelled; its `.partial` is in `.result`.
            wb.WorkbenchError: whatever `wb.contents` raises.
        """
        while self._looking and self.running and not self._closed and self._started != self.call():
            self.wait()
        return super().run()

    def close(self) -> None:
        """Lets go of the base model too."""
        if (base := getattr(self, "base", None)) is not None:  # it may have failed to be made
            base.release()
        super().close()

    def _draw(self, figures: Mapping[str, tuple[str, str | None]]) -> None:
        for name, (kind, layer) in figures.items():
            try:
                self.plots[name].show(wb.figure(self.result, kind, layer=layer))
            except wb.FigureError as error:
                self.plots[name].clear(str(error))

    def _layers_of_tree(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(layer for node in self.tree.selected() for layer in node.layers))

    def _chosen(self) -> None:
        layers = self._layers_of_tree()
        if layers != self.selection:
            self.selection = layers
        else:
            self._on_selection()
