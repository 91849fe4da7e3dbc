"""The figures of a Diff: ranked changes over the floor, cosines between models, how a change is spread and where."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.errors import FigureError, nearest
from workbench.figures.provenance import one_layer, story
from workbench.figures.spec import (
    Axis,
    Bars,
    FigureSpec,
    Heat,
    Line,
    Mark,
    Panel,
    Rule,
    limits,
    named_ticks,
)
from workbench.results import many, short_source, table_rows
from workbench.signatures import Diff

LOOKS = ("first", "second", "third", "fourth", "fifth")  # one for each of several models
CHANGE = "‖τ‖/‖W‖"


def ranked(diff: Diff, layer: str | None, *, model: str | None = None) -> FigureSpec:
    """Bars of ‖τ‖/‖W‖, largest over the floor first, the floor dashed; beside it the same over the floor.

    Of several models the mean, or `model` alone; a rule through `layer`.
    """
    floors = dict(zip(diff.tables["layers"]["layer"], diff.tables["layers"]["floor"], strict=True))
    rows = table_rows(diff.tables["layers"])
    if model is not None:
        check_model(diff, model)
        rows = [row for row in table_rows(diff.tables["values"]) if row["label"] == model]
    with_floor = any(math.isfinite(floor) for floor in floors.values())
    column = "over_floor" if with_floor else "relative_norm"
    shown = [row for row in rows if math.isfinite(row["relative_norm"])]
    if not shown:
        raise FigureError("no layer has a relative norm to draw; see .frame().reason.")
    shown.sort(key=lambda row: (math.inf if math.isnan(row[column]) else -row[column], -row["relative_norm"]))
    names = [row["layer"] for row in shown]
    if layer is not None:
        diff.row(layer)
        if layer not in names:
            raise FigureError(f"{layer} has no relative norm ({diff.row(layer)['reason'] or 'see its verdict'}).")
    norms = [row["relative_norm"] for row in shown]
    noise = [floors[name] for name in names]
    floor_line: tuple[Mark, ...] = ()
    if with_floor:
        places = tuple(float(place) for place in range(len(names)))
        floor_line = (
            Line(
                x=places,
                y=tuple(noise),
                role="reference",
                label=f"floor: {short_source(diff.meta['floor']['source'])} against the base",
            ),
        )
    left = len(rows) - len(shown)
    note = f"{left} without a number are not drawn" if left else ""
    panels = [_bars(names, norms, CHANGE, floor_line, layer, note)]
    if with_floor:
        over = [row["over_floor"] for row in shown]
        endless = sum(map(math.isinf, over))
        parted = sum(row["verdict"].startswith("beyond in ") for row in rows)
        told = [f"not drawn: {endless} over a floor of 0"] if endless else []
        told += [f"means; in {many(parted, 'layer')} only some models are beyond the floor"] if parted else []
        note = "; ".join(told)
        heights = [math.nan if math.isinf(value) else value for value in over]
        panels.append(_bars(names, heights, f"{CHANGE} over the floor", (Rule(axis="y", value=1.0),), layer, note))
    whose = model or (diff.labels[0] if len(diff.labels) == 1 else f"mean of {len(diff.labels)} models")
    title = f"What changed most: {many(len(names), 'layer')}, {whose}"
    return FigureSpec(kind="norms", title=title, panels=tuple(panels), provenance=story(diff))


def _bars(
    names: Sequence[str], values: Sequence[float], label: str, more: tuple[Mark, ...], layer: str | None, title: str
) -> Panel:
    edges = tuple(place - 0.5 for place in range(len(names) + 1))
    marks: list[Mark] = [Bars(edges=edges, heights=tuple(values), role="first"), *more]
    if layer is not None:
        marks.append(Rule(axis="x", value=float(names.index(layer)), role="fit", label=layer))
    drawn = [0.0, *values, *(value for mark in more for value in getattr(mark, "y", ()))]
    top = limits([*drawn, *(mark.value for mark in more if isinstance(mark, Rule))])[1]
    return Panel(
        x=Axis(label="layers, by rank", limits=(edges[0], edges[-1]), ticks=named_ticks(names, 6, 16)),
        y=Axis(label=label, limits=(0.0, top)),
        marks=tuple(marks),
        title=title,
    )


def cosines(diff: Diff, layer: str | None) -> FigureSpec:
    """cos(τᵢ, τⱼ) of all pairs of models over all weights, or in one layer, clustered by average linkage of 1 − cos."""
    labels = list(diff.labels)
    if len(labels) < 2:
        raise FigureError("cosines of changes need two models or more: wb.diff(base, [one, other]).")
    if layer is not None:
        diff.row(layer)
    rows = table_rows(diff.tables["pairs" if layer is None else "layer_pairs"])
    rows = [row for row in rows if layer is None or row["layer"] == layer]
    grid = np.full((len(labels), len(labels)), np.nan)
    for row in rows:
        if math.isfinite(row["cosine"]):
            i, j = labels.index(row["one"]), labels.index(row["other"])
            grid[i, j] = grid[j, i] = row["cosine"]
            grid[i, i] = grid[j, j] = 1.0
    if np.isnan(grid).all():
        raise FigureError(f"no two models changed {'anything' if layer is None else layer}: there is no cosine.")
    order = clustered(grid)
    names = [labels[place] for place in order]
    values = tuple(tuple(float(grid[i, j]) for j in order) for i in order)
    edges = tuple(place - 0.5 for place in range(len(names) + 1))
    off = [row["cosine"] for row in rows if math.isfinite(row["cosine"])]
    ticks = named_ticks(names, 12, 16)
    panel = Panel(
        x=Axis(label="", limits=(edges[0], edges[-1]), ticks=ticks),
        y=Axis(label="", limits=(edges[0], edges[-1]), descending=True, ticks=ticks),
        marks=(Heat(x=edges, y=edges, values=values, limits=(min(0.0, *off), 1.0), label="cos(τᵢ, τⱼ)"),),
        title=f"independent changes: ±{next(row['null_sd'] for row in rows if math.isfinite(row['cosine'])):.2g}",
    )
    title = f"Cosines of the changes of {len(labels)} models" + (f" in {layer}" if layer else "")
    known = {"layer": layer} if layer else {}
    return FigureSpec(kind="cosines", title=title, panels=(panel,), provenance=story(diff) | known)


def clustered(cosine: "np.ndarray[Any, np.dtype[np.float64]]") -> list[int]:
    """The order of the leaves of a tree of average linkage of 1 − cos, like beside like; NaN counts as 0."""
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    if len(cosine) < 3:
        return list(range(len(cosine)))
    apart = 1 - np.nan_to_num(cosine)
    np.fill_diagonal(apart, 0.0)
    condensed = squareform(np.clip(apart, 0, None), checks=False)
    return [int(leaf) for leaf in leaves_list(optimal_leaf_ordering(linkage(condensed, "average"), condensed))]


def lorenz(diff: Diff, layer: str | None, *, model: str | None = None) -> FigureSpec:
    """The share of Στ² that the elements with the smallest |τ| have, a line for each of up to five models."""
    check_detail(diff, "lorenz")
    name = one_layer(diff, "lorenz", layer)
    diff.row(name)
    rows = {row["label"]: row for row in table_rows(diff.tables["lorenz"]) if row["layer"] == name}
    curves = dict(zip(rows, diff.lorenz.get(name, ()), strict=False))
    shown = [label for label in chosen_models(diff, model) if label in curves and math.isfinite(rows[label]["top10"])]
    if not shown:
        raise FigureError(f"{name} has no change to draw a curve of ({diff.row(name)['verdict']}).")
    x = tuple(place / (len(curves[shown[0]]) - 1) for place in range(len(curves[shown[0]])))
    marks: list[Mark] = [Line(x=(0.0, 1.0), y=(0.0, 1.0), role="reference", label="all equal")]
    for role, label in zip(LOOKS, shown, strict=False):
        text = f"{label}: top 10 % have {rows[label]['top10']:.0%}"
        marks.append(Line(x=x, y=tuple(curves[label].tolist()), role=role, label=text))
    panel = Panel(
        x=Axis(label="share of elements, smallest |τ| first", limits=(0.0, 1.0)),
        y=Axis(label="share of Στ²", limits=(0.0, 1.0)),
        marks=tuple(marks),
        title=left_out(diff, model),
    )
    return of_layer(diff, "lorenz", f"Lorenz curve of τ² in {name}", (panel,), name)


def of_layer(diff: Diff, kind: str, title: str, panels: tuple[Panel, ...], layer: str) -> FigureSpec:
    """A figure of one layer."""
    return FigureSpec(kind=kind, title=title, panels=panels, provenance=story(diff) | {"layer": layer})


def chosen_models(diff: Diff, model: str | None) -> list[str]:
    """The models that are drawn: the one that was named, or all.

    Raises:
        FigureError: there is none of that label.
    """
    if model is not None:
        check_model(diff, model)
        return [model]
    return list(diff.labels)


def left_out(diff: Diff, model: str | None) -> str:
    """What a panel says where there are more models than looks."""
    count = len(diff.labels)
    return (
        f"the first {len(LOOKS)} of {count} models; model= for another" if model is None and count > len(LOOKS) else ""
    )


def check_model(diff: Diff, model: str) -> None:
    """Refuses a label that no model has.

    Raises:
        FigureError: as it says.
    """
    if model not in diff.labels:
        raise FigureError(f"model={model!r}: this Diff has {list(diff.labels)}." + nearest(model, diff.labels))


def check_detail(diff: Diff, name: str) -> None:
    """Refuses a figure of a table that was not asked for.

    Raises:
        FigureError: it says how the table is made.
    """
    if name not in diff.tables:
        raise FigureError(f"this Diff has no {name}: {Diff.OPTIONAL[name]}.")
