"""The figures of an InteractionGraph and its InteractionModules: layers of directions, and what ties them together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from workbench.degeneracy.interaction_graph import InteractionGraph
from workbench.degeneracy.modules import ISOLATED, SPREAD, InteractionModules
from workbench.errors import ArgumentError, FigureError, LayerNotFoundError, nearest
from workbench.figures.provenance import no_layer, story
from workbench.figures.spec import Axis, Bars, FigureSpec, Line, Mark, Panel, Points, Rule, limits, named_ticks
from workbench.results import many

LOOKS = ("first", "second", "third", "fourth", "fifth")  # of the largest modules: a colour and a symbol each
MUTED, OTHERS = "muted", "others"
NODES, EDGES = 40, 160  # drawn at most: directions of each layer, edges in all (lines of one width become a felt)
ENOUGH = 0.95  # of Σ|E|: weaker edges are drawn only if a number of edges is asked for
HALF = 0.5  # of Σ|E|: the edges that carry it stand out
CONSTANTS = (1.12, "constant")  # where constants stand, the directions being from 0 to 1
DOWN = (-0.06, CONSTANTS[0] + 0.06)

Budget: TypeAlias = int | Mapping[str, int] | None
Key: TypeAlias = tuple[str, int]  # layer and direction
Names: TypeAlias = Mapping[int, str] | None
Place: TypeAlias = tuple[float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """What is drawn where.

    Attributes:
        pairs: source and target of every segment drawn.
        matrices: source → E.
        sizes: layer → its directions.
        drawn: layer → how many of them are drawn, its first ones.
        places: node → its place, constants too.
    """

    pairs: Sequence[tuple[str, str]]
    matrices: Mapping[str, Tensor]
    sizes: Mapping[str, int]
    drawn: Mapping[str, int]
    places: Mapping[Key, Place]

    @property
    def whole(self) -> bool:
        """Whether every direction is drawn."""
        return all(self.sizes[layer] == count for layer, count in self.drawn.items())


def layered_graph(
    graph: InteractionGraph,
    layer: str | None,
    *,
    modules: InteractionModules | None = None,
    nodes: Budget = None,
    edges: Budget = None,
    names: Names = None,
) -> FigureSpec:
    """Layers as columns, directions as points in their order, the strongest edges of every segment as lines.

    The constants stand apart, and their edges are not drawn.

    Args:
        graph: whose edges are drawn.
        layer: only this layer and those next to it; None for all.
        modules: of the same graph; gives the largest modules their colours and symbols, and edges those of the module
            that both ends are in.
        nodes: directions drawn of each layer, its first ones; a mapping of layers to them; None for 40.
        edges: edges drawn in all, shared evenly by the segments; a mapping of source layers to them; None for 160, or
            fewer where these carry 95 % of a segment's Σ|E|.
        names: what modules are called, by their numbers.

    Raises:
        FigureError: there is no edge.
        LayerNotFoundError: the layer is not in the graph.
        ArgumentError: a budget is no whole number, the modules are of another graph, or a name is of none of them.
    """
    if modules is not None and _shapes(modules.weights) != _shapes(graph.edges):
        raise ArgumentError("the modules are of another graph: expected wb.interaction_modules(graph) of this one.")
    found = _columns(graph.layers, graph.edges, layer, nodes)
    labels = _labels(modules)
    lines, told = _lines(found, edges, labels)
    ends = (0.0, "first"), (1.0, "last" if found.whole else "last drawn")
    down = Axis(label="direction", limits=DOWN, descending=True, ticks=(*ends, CONSTANTS))
    called = _called(names, modules)
    panel = _panel(found, [*lines, *_points(found, labels, modules, called)], down, told, modules)
    formula = graph.meta["parameters"].get("edges")
    title = f"Interactions of {many(len(graph.layers), 'layer')}" + (f", {formula} edges" if formula else "")
    title = title if modules is None else _title(modules)
    return FigureSpec(kind="graph", title=title + _about(layer), panels=(panel,), provenance=story(graph))


def module_graph(modules: InteractionModules, layer: str | None, *, names: Names = None) -> FigureSpec:
    """The graph after its norm, directions of every layer grouped by module; `layer` and `names` as in `layered_graph`.

    Raises:
        ArgumentError: a name is of no module.
    """
    labels = _labels(modules)
    if not labels:
        raise FigureError(
            "no node is in a module, so there is nothing to draw: the run was cancelled before the first."
        )
    found = _columns(list(dict.fromkeys(name for name, _ in labels)), modules.weights, layer, None)
    places = dict(found.places)
    for x, name in enumerate(found.drawn):
        own = [key for key in places if key[0] == name and key[1]]
        own.sort(key=lambda key: (labels[key] == ISOLATED, labels[key], key[1]))
        steps = [1 + 2 * (labels[one] != labels[two]) for one, two in zip(own, own[1:], strict=False)]
        downs = np.cumsum([0, *steps]) / max(sum(steps), 1)
        places |= {key: (float(x), float(down)) for key, down in zip(own, downs, strict=True)}
    found = replace(found, places=places)
    lines, told = _lines(found, None, labels)
    down = Axis(label="directions by module", limits=DOWN, descending=True, ticks=(CONSTANTS,))
    called = _called(names, modules)
    panel = _panel(found, [*lines, *_points(found, labels, modules, called)], down, told, modules)
    title = _title(modules) + _about(layer)
    return FigureSpec(kind="graph", title=title, panels=(panel,), provenance=story(modules))


def _columns(layers: Sequence[str], matrices: Mapping[str, Tensor], layer: str | None, nodes: Budget) -> Columns:
    """The layers drawn and their directions in order."""
    near = list(layers)
    if not any((matrix[1:, 1:] != 0).any() for matrix in matrices.values()):
        raise FigureError("no edge is other than zero, so there is nothing to draw; see .frame().")
    if layer is not None:
        if layer not in near:
            raise LayerNotFoundError(f"the graph has no layer {layer!r}.{nearest(layer, near)}")
        near = near[max(near.index(layer) - 1, 0) : near.index(layer) + 2]
    pairs = [(source, target) for source, target in zip(near, near[1:], strict=False) if source in matrices]
    sizes = {source: int(matrices[source].shape[1]) - 1 for source, _ in pairs}
    sizes |= {target: int(matrices[source].shape[0]) - 1 for source, target in pairs}
    drawn = {name: min(sizes[name], _budget("nodes", nodes, name, NODES)) for name in near if name in sizes}
    places = {
        (name, direction): (float(x), (direction - 1) / max(count - 1, 1) if direction else CONSTANTS[0])
        for x, (name, count) in enumerate(drawn.items())
        for direction in range(count + 1)
    }
    return Columns(pairs=pairs, matrices=matrices, sizes=sizes, drawn=drawn, places=places)


def _budget(name: str, budget: Budget, layer: str, default: int) -> int:
    found = default if budget is None else budget.get(layer, default) if isinstance(budget, Mapping) else budget
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise ArgumentError(f"{name}={budget!r}: expected a whole number from 1 on, or a mapping of layers to such.")
    return found


def _shapes(matrices: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {source: tuple(matrix.shape) for source, matrix in matrices.items()}


def _panel(found: Columns, marks: Sequence[Mark], y: Axis, told: str, modules: InteractionModules | None) -> Panel:
    names = [
        f"{name} · {count}" + (f" of {found.sizes[name]}" if count < found.sizes[name] else "")
        for name, count in found.drawn.items()
    ]
    label = "layer · directions" + ("" if modules is None else "; below: module (nodes)")
    x = Axis(label=label, limits=(-0.25, len(names) - 0.75), ticks=named_ticks(names, 8, 24))
    return Panel(x=x, y=y, marks=tuple(marks), title=told)


def _title(modules: InteractionModules) -> str:
    null = f", null {modules.null_mean:.3g} ± {modules.null_sd:.1g}" if math.isfinite(modules.null_sd) else ""
    return f"{many(len(modules.tables['modules']['size']), 'module')}, Q = {modules.modularity:.3g}{null}"


def _about(layer: str | None) -> str:
    return "" if layer is None else f", about {layer}"


def _labels(modules: InteractionModules | None) -> dict[Key, int]:
    """Node → module; empty without modules."""
    if modules is None:
        return {}
    table = modules.tables["nodes"]
    return dict(zip(zip(table["layer"], table["direction"], strict=True), table["module"], strict=True))


def _lines(found: Columns, edges: Budget, labels: Mapping[Key, int]) -> tuple[list[Mark], str]:
    """The strongest edges by class, the muted ones below the others; and how much of the graph they are."""
    classes: dict[str, list[tuple[Key, Key]]] = {MUTED: []}
    count, shares, negative = 0, [], False
    for source, target in found.pairs:
        matrix = found.matrices[source][1:, 1:]
        inner = matrix[: found.drawn[target], : found.drawn[source]]
        total = float(matrix.abs().sum())
        values, order = inner.abs().flatten().sort(descending=True, stable=True)
        before = torch.cumsum(values, 0) - values  # what stronger edges carry
        most = EDGES if edges is None or isinstance(edges, Mapping) else _budget("edges", edges, source, EDGES)
        most = math.ceil(most / len(found.pairs))
        most = _budget("edges", edges, source, most) if isinstance(edges, Mapping) else most
        enough = total * ENOUGH if edges is None else math.inf
        kept = min(most, int(((values > 0) & (before < enough)).sum()))
        for rank in reversed(range(kept)):  # the strongest are drawn last
            row, col = divmod(int(order[rank]), inner.shape[1])
            ends = (source, 1 + col), (target, 1 + row)
            below = bool(inner[row, col] < 0)
            negative |= below
            role = _role(ends, labels, negative=below, strong=bool(before[rank] < HALF * total))
            classes.setdefault(role, []).append(ends)
        shares.append(float(values[:kept].sum()) / total if total else 1.0)
        count += int((matrix != 0).sum())
    strong = "strongest: half of Σ|E|" + (", positive" if negative else "")
    words = {} if labels else {MUTED: "weaker edges", "first": strong, "second": "negative"}
    marks: list[Mark] = []
    for role, lines in classes.items():
        points = [place for ends in lines for place in (*(found.places[end] for end in ends), (math.nan, math.nan))]
        if points:
            x, y = zip(*points[:-1], strict=True)
            marks.append(Line(x=x, y=y, role=role, label=words.get(role, "")))
    share = " to ".join(dict.fromkeys(f"{share:.0%}" for share in (min(shares), max(shares))))
    told = f"{sum(map(len, classes.values())):,} of {count:,} edges drawn: {share} of a segment's weight"
    return marks, f"{told}; the constants' are not"


def _role(ends: tuple[Key, Key], labels: Mapping[Key, int], *, negative: bool, strong: bool) -> str:
    if not labels:
        return ("second" if negative else "first") if strong else MUTED
    source, target = (labels.get(end, ISOLATED) for end in ends)
    return LOOKS[source] if source == target and 0 <= source < len(LOOKS) else MUTED


def _called(names: Names, modules: InteractionModules | None) -> dict[int, str]:
    """Modules by number as they are called: the number stays, so that a name is of one module."""
    numbers = () if modules is None else modules.tables["modules"]["module"]
    for number in names or ():
        if number not in numbers:
            raise ArgumentError(f"names has {number!r}: expected numbers of the {len(numbers)} modules.")
    return {number: f"{number} {names[number]}" if names and number in names else str(number) for number in numbers}


def _points(
    found: Columns, labels: Mapping[Key, int], modules: InteractionModules | None, called: Mapping[int, str]
) -> list[Mark]:
    """Directions by module; constants, small modules and nodes of none are muted."""
    sizes = () if modules is None else modules.tables["modules"]["size"]
    groups: dict[tuple[int, str, str], list[Key]] = {}
    for key in found.places:
        module = labels.get(key, ISOLATED)
        if 0 <= module < len(LOOKS):
            group = (module, LOOKS[module], f"{called[module]} ({sizes[module]})")
        elif modules is None and key[1]:
            group = (0, LOOKS[0], "")
        else:
            group = (len(LOOKS), MUTED, "" if modules is None or not key[1] else OTHERS)
        groups.setdefault(group, []).append(key)
    marks: list[Mark] = []
    for (_, role, label), own in sorted(groups.items()):
        x, y = zip(*(found.places[key] for key in own), strict=True)
        marks.append(Points(x=x, y=y, ids=tuple(f"{layer}[{number}]" for layer, number in own), role=role, label=label))
    return marks


def module_sizes(modules: InteractionModules, layer: str | None, *, names: Names = None) -> FigureSpec:
    """Nodes of every module, and Q of the graph beside Q of the null graphs; `names` as in `layered_graph`.

    Raises:
        FigureError: there are no modules.
        ArgumentError: a name is of none of them.
    """
    no_layer("modularity", layer)
    table = modules.tables["modules"]
    if not table["size"]:
        raise FigureError("there are no modules: no node has an edge, or the run was cancelled; see .frame().")
    bars = tuple(
        Bars(edges=(number - 0.4, number + 0.4), heights=(float(size),), role=(*LOOKS, MUTED)[min(number, len(LOOKS))])
        for number, size in enumerate(table["size"])
    )
    numbers = named_ticks(list(_called(names, modules).values()))
    count = Panel(
        x=Axis(label="module", limits=(-0.7, len(bars) - 0.3), ticks=numbers),
        y=Axis(label="nodes", limits=(0.0, 1.08 * max(table["size"]))),
        marks=bars,
        title=f"{min(table['internal']):.0%} or more of a module's weight stays inside",
    )
    nulls = [q for q in modules.tables["partitions"]["modularity"][1:] if math.isfinite(q)]
    panels = [count, _beside_null(modules, nulls)] if nulls else [count]
    return FigureSpec(kind="modularity", title=_title(modules), panels=tuple(panels), provenance=story(modules))


def _beside_null(modules: InteractionModules, nulls: Sequence[float]) -> Panel:
    low, high = min(nulls), max(nulls)
    air = 0.0 if high - low > SPREAD else 0.005
    heights, cells = np.histogram(nulls, max(4, round(math.sqrt(len(nulls)))), (low - air, high + air))
    q, z = modules.modularity, modules.z
    return Panel(
        x=Axis(label="modularity Q", limits=limits([*cells.tolist(), q])),
        y=Axis(label="null graphs", limits=(0.0, 1.08 * float(heights.max()))),
        marks=(
            Bars(edges=tuple(cells.tolist()), heights=tuple(map(float, heights)), role=MUTED, label="weights shuffled"),
            Rule(axis="x", value=q, role="fit", label="the graph"),
        ),
        title=f"{many(len(nulls), 'null graph')}" + (f", z = {z:.3g}" if math.isfinite(z) else ""),
    )
