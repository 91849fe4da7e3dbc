"""The datapoints at both ends of a direction, as images, tokens or rows of numbers."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, ClassVar

import ipywidgets as ipw
import pandas as pd
from torch.utils.data import RandomSampler

import workbench as wb
from workbench_widgets.arguments import whole
from workbench_widgets.call import Call
from workbench_widgets.degeneracy_view import DegeneracyView
from workbench_widgets.samples import image_ends, sample_html, samples
from workbench_widgets.shared import FieldStyle
from workbench_widgets.style import status_html

MOST = 50
SHUFFLED = "the batches come in another order each time, so these may be others: give data in a fixed order"


class DatapointsView(DegeneracyView):
    """`wb.interaction_basis`, and `basis.datapoints` of the direction that is chosen."""

    NAME: ClassVar[str] = "datapoints"
    SHOWS: ClassVar[type[wb.Result]] = wb.InteractionBasis
    FIGURES: ClassVar[tuple[str, ...]] = ("weights",)
    RINGED: ClassVar[frozenset[str]] = frozenset(FIGURES)
    TABLE: ClassVar[str | None] = "layers"
    HEIGHT: ClassVar[int] = 340

    def make(self, style: FieldStyle, initial: Mapping[str, Any]) -> list[ipw.DOMWidget]:
        """The direction, and how many of each end."""
        whole("count", initial["count"], 1, MOST)
        self.direction = ipw.IntSlider(
            1, min=1, max=1, description="Direction", tooltip="of the layer, by its number; 0 is the constant",
            style=style,
        )  # fmt: skip
        self.count = ipw.BoundedIntText(
            initial["count"], 1, MOST, description="Of each end", tooltip="datapoints", style=style
        )
        return [self.direction, self.count]

    def make_panel(self) -> ipw.DOMWidget:
        """Where they are shown."""
        self.panel = ipw.HTML()
        return self.panel

    @property
    def widgets(self) -> list[ipw.DOMWidget]:
        """The controls of the basis, the layer, the direction."""
        return [*self.inputs.basis_widgets, self.inputs.layer, *self.own]

    @property
    def looks(self) -> list[ipw.DOMWidget]:
        """Direction and number: the basis stays."""
        return self.own

    def call(self) -> Call:
        """`wb.interaction_basis`."""
        return self.inputs.basis()

    def arrive(self, call: Call | None, result: Any) -> None:
        """The directions of the layer."""
        super().arrive(call, result)
        layer = self.layer(result)
        count = result.nodes(layer) - 1 if layer is not None else 0
        self.direction.disabled = count < 1
        self.direction.max = max(count, 1)
        if count < 1:
            self.panel.value = status_html(f"{layer} has no direction besides the constant")

    def options(self, kind: str, result: Any, layer: str | None) -> Mapping[str, Any]:
        """The direction is ringed."""
        return {"direction": self.direction.value}

    def lives(self, call: Call | None, result: Any) -> Sequence[Call]:
        """The datapoints of the direction."""
        layer = self.layer(result)
        if self.inputs.subject.network is None or layer is None or self.direction.disabled:
            return ()
        basis = self.shown(call, result, "basis")
        arguments = (basis, *self.inputs.subject.given(), layer, self.direction.value)
        return (Call(wb.InteractionBasis.datapoints, arguments, {"count": self.count.value}, "datapoints"),)

    def show_live(self, call: Call, value: Any) -> None:
        """The datapoints, or why there are none."""
        if isinstance(value, Exception):
            self.panel.value = status_html(str(value), error=True)
            return
        layer, direction = call.positional[3:]
        self.panel.value = self.html(value, layer, direction, self._positions(call, layer))

    def html(self, frame: pd.DataFrame, layer: str, direction: int, positions: int) -> str:
        """The datapoints as a page's fragment, the largest coordinates first."""
        data = self.inputs.subject.batches
        found = samples(data, zip(frame["batch"], frame["sample"], strict=True))
        ends = image_ends(sample for sample, _ in found.values())
        cards = []
        for row in frame.itertuples():
            if (row.batch, row.sample) in found:
                sample, label = found[row.batch, row.sample]
                shown = sample_html(sample, row.position, positions, self.inputs.tokens, ends)
                place = f"batch {row.batch} · sample {row.sample}"
                place += f"<br>position {row.position}" if positions > 1 else ""
                of = f" · label {escape(label)}" if label else ""
                cards.append(
                    f'<li>{shown}<span class="wb-coordinate">{row.coordinate:.4g}{of}</span><small>{place}</small></li>'
                )
        high = len(cards) - len(cards) // 2
        note = status_html(SHUFFLED, error=True) if isinstance(getattr(data, "sampler", None), RandomSampler) else ""
        head = f"layer {escape(layer)}, direction {direction}"
        return (
            f'<div class="wb-datapoints">{note}<h4>{head}: largest coordinates</h4><ul>{"".join(cards[:high])}</ul>'
            f"<h4>{head}: smallest coordinates</h4><ul>{''.join(cards[high:][::-1])}</ul></div>"
        )

    def _positions(self, call: Call, layer: str) -> int:
        basis = call.positional[0]
        result = self.memory.find(basis) if isinstance(basis, Call) else basis.value
        table = result.tables["layers"]
        return int(table["positions"][table["layer"].index(layer)])
