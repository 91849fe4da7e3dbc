"""A sortable table whose selected rows are layer ids, and what is listed in it."""

import warnings
from collections.abc import Sequence
from typing import Any

import ipywidgets as ipw
import pandas as pd
import traitlets
from itables.widget import ITable

import workbench as wb
from workbench_widgets.page_code import PageCode, UsesLibrary, drawn_by
from workbench_widgets.shared import FieldStyle

# No scrolling by DataTables: it puts the header into a table of its own, and sizes that before the page shows it.
OPTIONS: dict[str, Any] = {
    # a click selects one row, a click with Ctrl one more; to count what is selected DataTables asks every cell
    "select": {"style": "os", "info": False},
    "paging": False,
    "maxBytes": 0,
    "showIndex": False,
    "autoWidth": False,
    "format_floats_in_python": True,
    "text_in_header_can_be_selected": False,  # so that a click anywhere in a header sorts
    "classes": "display compact nowrap",
    "style": "table-layout:auto;width:100%;float:left",
    "layout": {"topStart": "info", "topEnd": "search", "bottomStart": None, "bottomEnd": None},
}


COLUMNS = ["layer", "kind", "shape", "rows", "cols", "elements", "dtype", "depth"]


def layers_and_parts(model: wb.LayerTable | None) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """The layers of a model that can be analysed, and tensor → ids of its layer or of its parts; none of no model."""
    if model is None:
        return pd.DataFrame(columns=COLUMNS), {}
    frame = model.frame()
    return frame.query("verdict == 'analysed'")[COLUMNS], frame.groupby("tensor")["layer"].agg(list).to_dict()


class Table(UsesLibrary, ITable):  # type: ignore[misc]
    """itables' table, whose page has its code once, and which tells of a click once."""

    _esm = drawn_by("table.js")

    def __init__(self, *args: Any, **options: Any) -> None:
        with self.hold_sync():  # what itables sets when it is made is one message
            super().__init__(*args, **options)

    @traitlets.default("_library")
    def _itables(self) -> PageCode:
        return PageCode.of("itables", "widget", "static", "widget.js")


class TableChoice(ipw.Dropdown):
    """Which table of a result is listed.

    Attributes:
        offering: whether the value changes because other tables are offered, and nobody has chosen it.
    """

    offering = False

    def __init__(self, style: FieldStyle) -> None:
        super().__init__(
            options=[], description="Table", tooltip="what the table below lists", disabled=True, style=style
        )

    def offer(self, names: Sequence[str], chosen: str | None = None) -> None:
        """Offers tables; the chosen one if it is among them, else the first."""
        self.offering = True
        self.options = names
        self.value = chosen if chosen in names else next(iter(names), None)
        self.offering, self.disabled = False, not names


class LayerRows(ipw.VBox):
    """Rows of a frame, each of a layer, of several or of none; `selection` holds the layers of the selected rows."""

    selection = traitlets.Tuple()

    def __init__(self, caption: str) -> None:
        self._layers: list[tuple[str, ...]] = []
        self._table = Table(pd.DataFrame({"layer": pd.Series([], dtype="str")}), caption=caption, **OPTIONS)
        super().__init__([self._table], _dom_classes=("wb-table",))
        self._table.observe(self._row_selected, "selected_rows")
        self.observe(self._id_selected, "selection")

    def show(self, frame: pd.DataFrame, layers: Sequence[Sequence[str]] | None = None) -> None:
        """Shows a frame, numbers to four digits; the selection stays where its layers are.

        Args:
            frame: what to show.
            layers: the layers that each row stands for; by default the one in its column `layer`.
        """
        self._layers = [(str(one),) for one in frame["layer"]] if layers is None else [tuple(row) for row in layers]
        with (
            warnings.catch_warnings(),
            pd.option_context("display.float_format", "{:.4g}".format),
            self._table.hold_trait_notifications(),
        ):
            warnings.simplefilter("ignore")  # itables warns of its own deprecations
            self._table.update(frame, selected_rows=self._rows(), **OPTIONS)

    def _rows(self) -> list[int]:
        chosen = {layer: place for place, layer in enumerate(self.selection)}
        rows = [row for row, layers in enumerate(self._layers) if layers and chosen.keys() >= set(layers)]
        return sorted(rows, key=lambda row: chosen[self._layers[row][0]])

    def _row_selected(self, change: Any) -> None:
        if list(change.new) != self._rows():  # else it is an echo: selected layers without a row here stay selected
            rows = [self._layers[row] for row in change.new if row < len(self._layers)]
            self.selection = tuple(dict.fromkeys(layer for layers in rows for layer in layers))

    def _id_selected(self, _: Any) -> None:
        if self._table.selected_rows != self._rows():
            self._table.selected_rows = self._rows()

    def close(self) -> None:
        """Lets go of the frame too: the table's library keeps every table that it made."""
        self._table._df = None
        super().close()
