"""Cells of several results on one grid: rows are layers of models, and nothing is dropped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from workbench.atlas.readings import Cell
from workbench.atlas.sources import Source
from workbench.results import Column, many

CONTROLS: Mapping[str, Column] = {
    "depth": Column("number of matrix layers before it", unit="layers", low=0),
    "size": Column("elements of the layer", unit="elements", low=0),
}


@dataclass(frozen=True)
class Place:
    """A row: a layer of a model."""

    model: str
    layer: str


@dataclass(frozen=True, kw_only=True)
class Grid:
    """All cells, by column and row.

    Attributes:
        places: rows, by model and depth.
        cells: column → row → cell; every row has one.
        depths: row → depth; NaN where no result knows.
        sizes: row → elements; NaN where no result knows.
        holders: row → labels of the results that have a row of it.
        notes: what is to be said of the join.
    """

    places: Sequence[Place]
    cells: Mapping[str, Mapping[Place, Cell]]
    depths: Mapping[Place, float]
    sizes: Mapping[Place, float]
    holders: Mapping[Place, Sequence[str]]
    notes: Sequence[str] = field(default_factory=tuple)


def grid(sources: Sequence[Source], *, modules: bool, keep: bool) -> Grid:
    """The join.

    Args:
        sources: the results.
        modules: parts of one tensor become a row of their module, with means.
        keep: numbers that a verdict says are not to be read are used all the same.
    """
    parents = {
        model: _parents([one for one in sources if one.model == model]) if modules else {}
        for model in dict.fromkeys(source.model for source in sources)
    }
    cells: dict[str, dict[Place, Cell]] = {}
    holders: dict[Place, list[str]] = {}
    depths: dict[Place, float] = {}
    sizes: dict[Place, float] = {}
    orders: dict[tuple[str, str], list[float]] = {}
    for source in sources:
        to = parents[source.model]
        own = _of_modules(source.reading.cells, to)
        for layer, row in own.items():
            place = Place(source.model, layer)
            holders.setdefault(place, []).append(source.label)
            for name, cell in row.items():
                kept = Cell(cell.value, used=keep and not math.isnan(cell.value) or cell.used, reason=cell.reason)
                cells.setdefault(f"{source.label}.{name}", {})[place] = kept
        for name in source.reading.columns:
            cells.setdefault(f"{source.label}.{name}", {})
    for source in sorted(sources, key=lambda one: (not one.reading.tensors, one.label)):  # whatever order they come in
        for layer, depth in _moved(source.reading.depths, parents[source.model], min).items():
            orders.setdefault((source.model, layer), []).append(depth)
            depths.setdefault(Place(source.model, layer), depth)
        for layer, size in _moved(source.reading.sizes, parents[source.model], math.fsum).items():
            sizes.setdefault(Place(source.model, layer), size)
    for place in holders:
        module = Place(place.model, place.layer.rpartition(".")[0])
        depths.setdefault(place, depths.get(module, math.nan))  # a bias without a depth has its module's
        sizes.setdefault(place, math.nan)
    models = list(parents)
    places = sorted(
        holders, key=lambda place: (models.index(place.model), math.isnan(depths[place]), depths[place], place.layer)
    )
    full = {
        column: {place: own[place] if place in own else _missing(sources, column, place) for place in places}
        for column, own in cells.items()
    }
    return Grid(
        places=places,
        cells=full,
        depths=depths,
        sizes=sizes,
        holders=holders,
        notes=_notes(sources, holders, orders, parents),
    )


def _missing(sources: Sequence[Source], column: str, place: Place) -> Cell:
    label = column.partition(".")[0]
    source = next((one for one in sources if (one.label, one.model) == (label, place.model)), None)
    if source is None:
        return Cell(math.nan, used=False, reason=f"{place.model} has no {label}")
    stopped = f" (cancelled {source.cancelled})" if source.cancelled else ""
    return Cell(math.nan, used=False, reason=f"no such row in {label}{stopped}")


def _parents(sources: Sequence[Source]) -> dict[str, str]:
    """Part of a tensor → its module: an id that is no tensor's, and that without its last word is one."""
    tensors = frozenset().union(*(source.reading.tensors for source in sources))
    modules = {name.removesuffix(".weight") for name in tensors} | tensors
    layers = {layer for source in sources for layer in source.reading.cells}
    found = {layer: layer.rpartition(".")[0] for layer in layers if layer not in modules}
    return {layer: module for layer, module in found.items() if module in modules}


def _of_modules(cells: Mapping[str, Mapping[str, Cell]], to: Mapping[str, str]) -> dict[str, Mapping[str, Cell]]:
    """Rows of modules: parts give their module the mean of their numbers, unless it has a row itself."""
    found: dict[str, Mapping[str, Cell]] = {layer: row for layer, row in cells.items() if layer not in to}
    parts: dict[str, list[str]] = {}
    for layer in cells:
        if layer in to and to[layer] not in found:
            parts.setdefault(to[layer], []).append(layer)
    for module, own in parts.items():
        names = dict.fromkeys(name for layer in own for name in cells[layer])
        found[module] = {name: _pooled([cells[layer][name] for layer in own if name in cells[layer]]) for name in names}
    return found


def _pooled(cells: Sequence[Cell]) -> Cell:
    used = [cell.value for cell in cells if cell.used]
    if used:
        left = f", {len(cells) - len(used)} left out: {_reasons(cells)}" if len(used) < len(cells) else ""
        return Cell(fmean(used), used=True, reason=f"mean of {len(used)} parts{left}")
    values = [cell.value for cell in cells if not math.isnan(cell.value)]
    return Cell(fmean(values) if values else math.nan, used=False, reason=_reasons(cells))


def _reasons(cells: Sequence[Cell]) -> str:
    return "; ".join(dict.fromkeys(cell.reason for cell in cells if not cell.used))


def _moved(
    values: Mapping[str, float], to: Mapping[str, str], merge: Callable[[Sequence[float]], float]
) -> dict[str, float]:
    gathered: dict[str, list[float]] = {}
    for layer, value in values.items():
        gathered.setdefault(to.get(layer, layer), []).append(value)
    return {layer: merge(own) for layer, own in gathered.items()}


def _notes(
    sources: Sequence[Source],
    holders: Mapping[Place, Sequence[str]],
    orders: Mapping[tuple[str, str], Sequence[float]],
    parents: Mapping[str, Mapping[str, str]],
) -> list[str]:
    notes = []
    for model in parents:
        own = [one for one in sources if one.model == model]
        where = f" in {model}" if model else ""
        for source in own:
            rows = [held for place, held in holders.items() if place.model == model and source.label in held]
            if len(own) > 1 and not any(len(held) > 1 for held in rows):
                example = next(iter(source.reading.cells), None)
                told = f"its rows are called like {example!r}" if example else "it has no rows"
                notes.append(f"{source.label}{where} shares no layer with any other result: {told}")
        moved = len(parents[model])
        if moved:
            notes.append(f"averaged into their modules{where}: {many(moved, 'part')} of tensors")
    apart = [layer for (_, layer), found in orders.items() if len(set(found)) > 1]
    if apart:
        notes.append(
            f"results count the depth of {many(len(apart), 'layer')} differently ({apart[0]!r}): the order of the "
            "tensors is taken"
        )
    return notes
