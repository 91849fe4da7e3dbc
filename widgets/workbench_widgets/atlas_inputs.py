"""The inputs of `wb.ui.AtlasExplorer`, and the call that they stand for."""

import inspect
from collections.abc import Sequence
from typing import Any

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.arguments import choices, one_of, whole
from workbench_widgets.call import Call, Given
from workbench_widgets.naming import apart
from workbench_widgets.results_field import Item
from workbench_widgets.shared import FieldStyle
from workbench_widgets.table import TableChoice

ONE, POOLED, ACROSS = "one", "pooled", "across"
METHODS = ("rho", "tau")
DEFAULTS = {name: one.default for name, one in inspect.signature(wb.atlas).parameters.items()}
MOST_ORDERS, MOST_SEED = 1_000_000, 2**31 - 1
PANELS = 4  # columns of a scatter matrix


class AtlasInputs:
    """Controls that say what is compared, and how it is shown.

    Args:
        style: of the labels.
        models: `one`, `pooled` or `across`.
        columns: names or globs; None for one or two of each result.
        controls: columns that partial correlations hold fixed.
        rows: `layers` or `modules`.
        unread: `left out` or `kept`.
        permutations: orders drawn for a p.
        seed: of these.
        method: `rho` or `tau`, on the screen.

    Raises:
        wb.ArgumentError: a value that its control does not offer.
    """

    def __init__(
        self,
        style: FieldStyle,
        *,
        models: str,
        columns: str | Sequence[str] | None,
        controls: str | Sequence[str],
        rows: str,
        unread: str,
        permutations: int,
        seed: int,
        method: str,
    ) -> None:
        one_of("rows", rows, choices(wb.atlas, "rows"))
        one_of("unread", unread, choices(wb.atlas, "unread"))
        one_of("method", method, METHODS)
        whole("permutations", permutations, 99, MOST_ORDERS)
        whole("seed", seed, 0, MOST_SEED)
        self.note = ipw.HTML()
        self.models = ipw.Dropdown(
            options=[("one model", ONE), ("pooled, ranks within each", POOLED), ("joined by layer id", ACROSS)],
            value=models,
            description="Models",
            tooltip="results of several models: pooled as strata, or their layers joined by id all the same",
            style=style,
        )
        self.columns = self._names(
            "Compared", columns or (), "one or two of each; spectrum.*, depth", "columns that are compared", style
        )
        self.controls = self._names(
            "Held fixed", controls, "nothing", "columns that the partial correlations control for", style
        )
        self.rows = ipw.Dropdown(
            options=choices(wb.atlas, "rows"),
            value=rows,
            description="Rows",
            tooltip="layers by equal ids, or modules: fused q/k/v, experts and gates as one, with their mean",
            style=style,
        )
        self.unread = ipw.Dropdown(
            options=choices(wb.atlas, "unread"),
            value=unread,
            description="Unread",
            tooltip="numbers whose verdict says that they are not to be read: left out of correlations, or kept",
            style=style,
        )
        self.permutations = ipw.BoundedIntText(
            permutations,
            99,
            MOST_ORDERS,
            description="Orders",
            tooltip="drawn for a p where not all are tried; p is at least 1 over one more than these",
            style=style,
        )
        self.seed = ipw.BoundedIntText(seed, 0, MOST_SEED, description="Seed", tooltip="of the orders", style=style)
        self.method = ipw.Dropdown(
            options=[("ρ (Spearman)", "rho"), ("τ_b (Kendall)", "tau")],
            value=method,
            description="Correlation",
            tooltip="which rank correlation is shown; p and verdicts are those of ρ",
            style=style,
        )
        self.shown = ipw.SelectMultiple(
            options=[],
            rows=4,
            description="Matrix of",
            tooltip="two to four columns of the scatter matrix; none chosen: the first three that are compared",
            style=style,
        )
        self.x, self.y = (
            ipw.Dropdown(
                options=[], description=f"Column {axis}", tooltip=f"the {side} axis of the two columns", style=style
            )
            for axis, side in (("x", "horizontal"), ("y", "vertical"))
        )
        self.table = TableChoice(style)

    @property
    def asked(self) -> list[ipw.DOMWidget]:
        """The controls of what is computed."""
        return [self.models, self.columns, self.controls, self.rows, self.unread, self.permutations, self.seed]

    @property
    def looks(self) -> list[ipw.DOMWidget]:
        """The controls of what is shown of it."""
        return [self.method, self.shown, self.x, self.y]

    def call(self, chosen: Sequence[Item]) -> tuple[Call, list[Call | Given]]:
        """`wb.atlas` of results, defaults left out; and what stands for each of them in it.

        Raises:
            wb.ArgumentError: models are pooled, and of a result its model is not known.
        """
        named = apart([item.call for item in chosen])
        positional: list[Any] = []
        keywords: dict[str, Any] = {}
        if self.models.value == POOLED:
            keywords["models"] = _by_model(chosen, named)
        else:
            positional = _arguments(chosen, named)
        if names := _typed(self.columns.value):
            keywords["columns"] = names
        if (held := _typed(self.controls.value)) != list(DEFAULTS["controls"]):
            keywords["controls"] = held
        for name in ("rows", "unread", "permutations", "seed"):
            if (value := getattr(self, name).value) != DEFAULTS[name]:
                keywords[name] = value
        if self.models.value == ACROSS:
            keywords["across"] = True
        return Call(wb.atlas, tuple(positional), keywords), named

    def know(self, atlas: wb.Atlas) -> None:
        """Offers the columns that an atlas has; the chosen ones stay."""
        table = atlas.frame("columns")
        names = list(table.loc[table["used"] > 0, "column"])
        pairs = atlas.tables["correlations"]
        first = [pairs[side][0] if pairs[side] else None for side in ("first", "second")]
        for control, usual in ((self.x, first[0]), (self.y, first[1])):
            chosen = control.value
            control.options = names
            known = [one for one in (chosen, usual, *names) if one in names]
            control.value = known[0] if known else None
        several = [one for one in self.shown.value if one in names]
        self.shown.options, self.shown.value = names, several

    @staticmethod
    def _names(label: str, names: str | Sequence[str], empty: str, tooltip: str, style: FieldStyle) -> ipw.DOMWidget:
        asked = [names] if isinstance(names, str) else list(names)
        if bad := next((one for one in asked if not isinstance(one, str) or "," in one), None):
            raise wb.ArgumentError(f"{label.lower()} has {bad!r}: expected names or globs without commas.")
        return ipw.Text(
            ", ".join(asked),
            description=label,
            placeholder=empty,
            tooltip=f"{tooltip}: names or globs, comma-separated",
            continuous_update=False,
            style=style,
        )


def _typed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _arguments(chosen: Sequence[Item], named: Sequence[Call | Given]) -> list[Any]:
    """Results as `wb.atlas` takes them: alone, and by label where they have one or another is of their kind."""
    alone: list[Any] = []
    labelled: dict[str, Any] = {}
    taken: set[str] = {item.label for item in chosen if item.label}
    for item, call in zip(chosen, named, strict=True):
        if item.label:
            labelled[item.label] = call
        elif item.word not in taken or isinstance(item.result, wb.Ablation):  # ablations of layers make one column
            taken.add(item.word)
            alone.append(call)
        else:
            number = next(number for number in range(2, len(chosen) + 2) if f"{item.word}_{number}" not in taken)
            taken.add(f"{item.word}_{number}")
            labelled[f"{item.word}_{number}"] = call
    return [*alone, *([labelled] if labelled else [])]


def _by_model(chosen: Sequence[Item], named: Sequence[Call | Given]) -> dict[str, list[Any]]:
    if unknown := next((item for item in chosen if not item.model), None):
        raise wb.ArgumentError(
            f"{unknown}: of which model is not known. Pass results by model to pool them, as in "
            "wb.ui.AtlasExplorer(models={'seed 0': [spectrum, diff]})."
        )
    found: dict[str, list[Any]] = {}
    for model in dict.fromkeys(item.model for item in chosen):
        own = [place for place, item in enumerate(chosen) if item.model == model]
        found[model] = _arguments([chosen[place] for place in own], [named[place] for place in own])
    return found
