"""The figures of a Comparison: the metric over the sequence of models, and its first beside its last over depth."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.errors import FigureError
from workbench.figures.provenance import depth_label, story
from workbench.figures.spec import Axis, FigureSpec, Heat, Line, Mark, Panel, Points, limits
from workbench.results import many, table_rows
from workbench.spectra import Comparison

SYMBOLS = {"alpha": "α", "lambda_max": "λmax", "alpha_full": "α of the full matrix"}
LINES = ("first", "second", "third", "fourth", "fifth")  # more layers than looks are a map
TAIL = {"alpha", "alpha_weighted", "log_alpha_norm"}  # metrics that mean nothing where the verdict is `no tail`
NAMED = 6  # models that the panel's title names one by one

Cell = Mapping[str, Any]


def trajectory(comparison: Comparison, layer: str | None) -> FigureSpec:
    """The metric over the place in the sequence: a line for each of up to five layers or for `layer`, else a map."""
    layers = comparison.tables["layers"]["layer"] if layer is None else [comparison.row(layer)["layer"]]
    cells = {name: [cell for cell in _values(comparison) if cell["layer"] == name] for name in layers}
    shown = [cell for own in cells.values() for cell in own if math.isfinite(cell["value"])]
    if not shown:
        raise FigureError(f"no number of {_metric(comparison)} to draw; see .frame().reason.")
    draw = _lines if len(cells) <= len(LINES) else _map
    return FigureSpec(
        kind="trajectory",
        title=f"{_metric(comparison)} over {_count(comparison)} models" + (f", {layer}" if layer else ""),
        panels=(draw(comparison, cells, shown),),
        provenance=story(comparison) | ({"layer": layer} if layer else {}),
    )


def first_and_last(comparison: Comparison, layer: str | None) -> FigureSpec:
    """The metric with its standard error over depth, in the first model and in the last; `layer` is ringed."""
    labels = comparison.tables["models"]["label"]
    depths = dict(zip(comparison.tables["layers"]["layer"], comparison.tables["layers"]["depth"], strict=True))
    shown = [cell for cell in _values(comparison) if math.isfinite(cell["value"])]
    marks: list[Mark] = []
    for place, role in ((0, "fifth"), (len(labels) - 1, "first")):
        own = [cell for cell in shown if cell["place"] == place]
        if own:
            marks.append(_points(own, [float(depths[cell["layer"]]) for cell in own], role, labels[place]))
    if not marks:
        raise FigureError(f"neither end has a number of {_metric(comparison)} to draw; see .frame().reason.")
    if layer is not None and math.isfinite(last := comparison.row(layer)["last"]):
        marks.append(Points(x=(float(depths[layer]),), y=(last,), ids=(layer,), role="accent"))
    panel = Panel(
        x=Axis(label=depth_label(comparison), unit="matrix layers", limits=limits(depths.values())),
        y=Axis(
            label=_metric(comparison), limits=limits(_ends([c for c in shown if c["place"] in (0, len(labels) - 1)]))
        ),
        marks=tuple(marks),
    )
    title = f"{_metric(comparison)} of the first model and of the last, {many(len(depths), 'layer')}"
    return FigureSpec(kind="change", title=title, panels=(panel,), provenance=story(comparison))


def _lines(comparison: Comparison, cells: Mapping[str, Sequence[Cell]], shown: Sequence[Cell]) -> Panel:
    marks: list[Mark] = []
    grey = comparison.meta["parameters"]["metric"] in TAIL
    for role, (layer, own) in zip(LINES, cells.items(), strict=False):
        numbers = [one for one in shown if one["layer"] == layer and not (grey and one["verdict"] == "no tail")]
        if any(math.isfinite(cell["value"]) for cell in own):  # the line keeps its NaN: a missing model is a gap
            label = "" if numbers else layer  # one entry in the legend, that of the points where there are some
            marks.append(Line(x=_floats(own, "place"), y=_floats(own, "value"), role=role, label=label))
        if numbers:
            marks.append(_points(numbers, _floats(numbers, "place"), role, layer))
    if grey and (numbers := [cell for cell in shown if cell["verdict"] == "no tail"]):
        marks.append(_points(numbers, _floats(numbers, "place"), "muted", "no tail"))
    return Panel(
        x=Axis(label="place in the sequence", limits=(-0.5, _count(comparison) - 0.5)),
        y=Axis(label=_metric(comparison), limits=limits(_ends(shown))),
        marks=tuple(marks),
        title=_names(comparison),
    )


def _map(comparison: Comparison, cells: Mapping[str, Sequence[Cell]], shown: Sequence[Cell]) -> Panel:
    low, high = min(cell["value"] for cell in shown), max(cell["value"] for cell in shown)
    heat = Heat(
        x=tuple(place - 0.5 for place in range(_count(comparison) + 1)),
        y=tuple(row - 0.5 for row in range(len(cells) + 1)),
        values=tuple(_floats(own, "value") for own in cells.values()),
        limits=(low, high if high > low else low + (abs(low) or 1.0)),
        label=_metric(comparison),
    )
    return Panel(
        x=Axis(label="place in the sequence", limits=(heat.x[0], heat.x[-1])),
        y=Axis(label="row of the table, by depth", limits=(heat.y[0], heat.y[-1]), descending=True),
        marks=(heat,),
        title=_names(comparison),
    )


def _points(own: Sequence[Cell], x: Sequence[float], role: str, label: str) -> Points:
    errors = _floats(own, "error")
    return Points(
        x=tuple(x),
        y=_floats(own, "value"),
        error=errors if any(map(math.isfinite, errors)) else (),
        ids=tuple(cell["layer"] for cell in own),
        role=role,
        label=label,
    )


def _values(comparison: Comparison) -> list[dict[str, Any]]:
    return table_rows(comparison.tables["values"])


def _floats(cells: Sequence[Cell], name: str) -> tuple[float, ...]:
    return tuple(float(cell[name]) for cell in cells)


def _ends(cells: Sequence[Cell]) -> list[float]:
    """Both ends of every error bar, and every number."""
    bars = [cell["value"] + side * cell["error"] for cell in cells for side in (-1, 1)]
    return [*bars, *(cell["value"] for cell in cells)]


def _names(comparison: Comparison) -> str:
    labels = comparison.tables["models"]["label"]
    if len(labels) <= NAMED:
        return " · ".join(f"{place}: {label}" for place, label in enumerate(labels))
    return f"0: {labels[0]} … {len(labels) - 1}: {labels[-1]}"


def _metric(comparison: Comparison) -> str:
    metric = str(comparison.meta["parameters"]["metric"])
    return SYMBOLS.get(metric, metric.replace("_", " "))


def _count(comparison: Comparison) -> int:
    return len(comparison.tables["models"]["label"])
