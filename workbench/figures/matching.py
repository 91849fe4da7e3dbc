"""The figures of PermutationGroups and of a Matching: what shares units, and what permuting them did."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from workbench.connectivity.groups import PermutationGroups
from workbench.connectivity.layout import groups_of
from workbench.connectivity.matching import Matching
from workbench.errors import FigureError, LayerNotFoundError, nearest
from workbench.figures.provenance import no_layer, story
from workbench.figures.spec import Axis, FigureSpec, Heat, Line, Mark, Panel, Points, Rule, edges, limits, named_ticks
from workbench.results import many, table_rows

LOOKS = ("first", "second", "third", "fourth", "fifth")  # one for each of several lines
GROUP_ROLES = {"group": "first", "outer group": "second", "within an outer group": "third", "group that stays": "fifth"}
KEPT = "muted"
POSITIONS = ("", "kernel positions")  # reasons that no network's end gives: they tell no tensor from another

Row: TypeAlias = Mapping[str, Any]
Place: TypeAlias = tuple[float, float]


def graph(groups: PermutationGroups, layer: str | None) -> FigureSpec:
    """A rail per group with a point for every tensor that has it, joined where a tensor has several.

    Under the groups stand the tensors of which another axis keeps its order, as at inputs, outputs and vocabularies.
    `layer` is ringed.
    """
    structure, rows = groups.structure, table_rows(groups.tables["groups"])
    if not structure.free:
        raise FigureError("there is no free group to draw; .frame('frozen') says why each axis keeps its order.")
    number = {row["group"]: float(index) for index, row in enumerate(rows)}
    held = {name: [number[group] for group in own] for name, own in _members(groups).items()}
    for name in _kept(groups) & held.keys():
        held[name].append(float(len(rows)))
    x = {name: float(place) for place, name in enumerate(held)}
    marks: list[Mark] = [_joints([[(x[name], y) for y in ys] for name, ys in held.items()])]
    outer = set(structure.within.values())
    for kind, role in GROUP_ROLES.items():
        if ys := [number[row["group"]] for row in rows if _kind(row, outer) == kind]:
            rails = [[(x[name], y) for name in held if y in held[name]] for y in ys]
            marks += [_segments([(rail[0], rail[-1]) for rail in rails], role), _dots(held, x, ys, role, kind)]
    names = [f"{row['group']} · {row['size']}" for row in rows]
    if any(float(len(rows)) in ys for ys in held.values()):
        marks.append(_dots(held, x, [float(len(rows))], KEPT, "keeps its order"))
        names.append("inputs, outputs")
    if layer is not None:
        marks.append(_ring([(x[name], y, _id(name)) for name, ys in held.items() for y in ys], layer))
    down = Axis(label="", limits=(-0.7, len(names) - 0.3), descending=True, ticks=named_ticks(names, longest=34))
    across = Axis(
        label="parameters in their order", limits=limits(x.values()), ticks=named_ticks(list(map(_id, held)), 5, 14)
    )
    whose = "its" if len(structure.free) == 1 else "their"
    title = f"{many(len(structure.free), 'permutation group')} and {whose} units, in {many(len(held), 'parameter')}"
    panel = Panel(x=across, y=down, marks=tuple(marks))
    return FigureSpec(kind="graph", title=title, panels=(panel,), provenance=story(groups))


def _members(groups: PermutationGroups) -> dict[str, list[str]]:
    """Parameter → its groups: those that have several axes, and the vectors of groups that no other has."""
    structure = groups.structure
    own = {name: list(dict.fromkeys(groups_of(structure.layouts[name]))) for name in structure.parameters()}
    wide = {group for name, has in own.items() if len(structure.layouts[name]) > 1 for group in has}
    return {
        name: has for name, has in own.items() if has and (len(structure.layouts[name]) > 1 or not wide.issuperset(has))
    }


def _kept(groups: PermutationGroups) -> set[str]:
    """The tensors with an axis that has no group and keeps its order, kernels apart."""
    return {
        row["tensor"]
        for row in table_rows(groups.tables["axes"])
        if row["made_of"] == f"#{row['size']}" and row["size"] > 1 and row["frozen"] not in POSITIONS
    }


def _kind(row: Row, outer: set[str]) -> str:
    if row["frozen"]:
        return "group that stays"
    return "within an outer group" if row["within"] else "outer group" if row["group"] in outer else "group"


def _joints(columns: Sequence[Sequence[Place]]) -> Line:
    """A vertical line through the points of every tensor that has several."""
    ends = [(min(column), max(column)) for column in columns if len(column) > 1]
    return _segments(ends, KEPT)


def _segments(ends: Iterable[tuple[Place, Place]], role: str) -> Line:
    """Straight lines as one, a NaN between them."""
    places = [place for pair in ends for place in (*pair, (math.nan, math.nan))][:-1]
    return Line(x=tuple(x for x, _ in places), y=tuple(y for _, y in places), role=role)


def _dots(
    held: Mapping[str, Sequence[float]], x: Mapping[str, float], rows: Sequence[float], role: str, label: str
) -> Points:
    found = [(x[name], y, _id(name)) for y in rows for name in held if y in held[name]]
    xs, ys, ids = zip(*found, strict=True)
    return Points(x=xs, y=ys, ids=ids, role=role, label=label)


def objective(matching: Matching, layer: str | None) -> FigureSpec:
    """Objective and distance per sweep, a line per start or network; of several networks also all pairs per round."""
    no_layer("objective", layer)
    runs: dict[tuple[int, int], list[Row]] = {}
    for row in table_rows(matching.tables["sweeps"]):
        if math.isfinite(row["objective"]):
            runs.setdefault((row["model"], row["start"]), []).append(row)
    rounds = runs.pop((0, 0), [])
    if not runs and not rounds:
        raise FigureError("no sweep has an objective: the run was cancelled before the first; match once more.")
    panels = []
    if runs:
        panels.append(_sweeps(_runs(runs, "objective"), "Σ⟨A, π(B)⟩", "sweep", "each with network 0" if rounds else ""))
    if rounds:
        panels.append(_sweeps(_curve(rounds, "objective", LOOKS[-1], "all pairs"), "Σ⟨πA, πB⟩", "round", "all pairs"))
    else:
        panels.append(_sweeps(_runs(runs, "distance"), "‖A − π(B)‖", "sweep", ""))
    title = f"Matching: ‖A − π(B)‖ is {matching.reduction():.1%} below ‖A − B‖"
    title += ", cancelled" if matching.meta.get("cancelled") else ""
    return FigureSpec(kind="objective", title=title, panels=tuple(panels), provenance=story(matching))


def _runs(runs: Mapping[tuple[int, int], Sequence[Row]], column: str) -> list[Mark]:
    """A line per run; where there are more than looks, the best apart from all others."""
    models = {model for model, _ in runs}
    best = {max((run for run in runs if run[0] == one), key=lambda run: runs[run][-1]["objective"]) for one in models}
    if len(runs) > len(LOOKS):
        others = [own for run, own in runs.items() if run not in best]
        kept = [own for run, own in runs.items() if run in best]
        told = "networks" if len(models) > 1 else "kept start"
        return [
            mark
            for own, role, label in ((others, KEPT, "other starts"), (kept, LOOKS[0], told))
            for number, rows in enumerate(own)
            for mark in _curve(rows, column, role, label if number == 0 else "")
        ]
    marks: list[Mark] = []
    for role, (run, rows) in zip(LOOKS, runs.items(), strict=False):
        label = f"network {run[0]}" if len(models) > 1 else f"start {run[1]}" if run[1] else "settled start"
        marks += _curve(rows, column, role, label + (" (kept)" if run in best and len(runs) > len(best) else ""))
    return marks


def _curve(rows: Sequence[Row], column: str, role: str, label: str) -> list[Mark]:
    x, y = (tuple(float(row[name]) for row in rows) for name in ("sweep", column))
    return [Line(x=x, y=y, role=role), Points(x=x, y=y, role=role, label=label)]


def _sweeps(marks: Sequence[Mark], label: str, unit: str, title: str) -> Panel:
    lines = [mark for mark in marks if isinstance(mark, Line)]
    xs = [x for line in lines for x in line.x]
    counted = named_ticks([str(sweep) for sweep in range(int(max(xs, default=0.0)) + 1)], 8)
    given = ((-1.0, "given"),) if min(xs, default=0.0) < 0 else ()
    x = Axis(label=unit, limits=limits(xs), ticks=(*given, *counted))
    y = Axis(label=label, limits=limits(y for line in lines for y in line.y))
    return Panel(x=x, y=y, marks=tuple(marks), title=title)


def reduction(matching: Matching, layer: str | None) -> FigureSpec:
    """1 − ‖A − π(B)‖/‖A − B‖ of every parameter in their order, and of all together; `layer` is ringed."""
    rows = table_rows(matching.tables["layers"])
    models = sorted({row["model"] for row in rows})
    place = {tensor: float(index) for index, tensor in enumerate(dict.fromkeys(row["tensor"] for row in rows))}
    shown = [row for row in rows if math.isfinite(row["reduction"])]
    if not shown:
        raise FigureError("no parameter differs between the networks (A = B), so there is no reduction to draw.")
    vectors = {name for name, layout in matching.structure.layouts.items() if len(layout) < 2}
    parts: list[tuple[str, list[Row]]] = [
        (f"network {model}", [row for row in shown if row["model"] == model]) for model in models
    ]
    if len(models) == 1:
        parts = [
            ("matrices", [row for row in shown if row["tensor"] not in vectors]),
            ("vectors", [row for row in shown if row["tensor"] in vectors]),
        ]
    total = matching.reduction()
    marks: list[Mark] = [Rule(axis="y", value=total, role="fit", label=f"all parameters: {total:.1%}")]
    several = len(parts) > len(LOOKS)
    for number, (label, own) in enumerate(parts):
        if own:
            marks.append(
                Points(
                    x=tuple(place[row["tensor"]] for row in own),
                    y=tuple(row["reduction"] for row in own),
                    ids=tuple(row["layer"] for row in own),
                    role=LOOKS[0] if several else LOOKS[number],
                    label=("" if number else "networks") if several else label,
                )
            )
    if layer is not None:
        marks.append(_ring([(place[row["tensor"]], row["reduction"], row["layer"]) for row in shown], layer))
    same = len(rows) - len(shown)
    panel = Panel(
        x=Axis(
            label="parameters in their order",
            limits=limits(place.values()),
            ticks=named_ticks([_id(name) for name in place], 5, 14),
        ),
        y=Axis(label="1 − ‖A − π(B)‖ / ‖A − B‖", limits=limits([0.0, total, *(row["reduction"] for row in shown)])),
        marks=(Rule(axis="y", value=0.0), *marks),
        title=f"not drawn: {same} where A = B" if same else "",
    )
    title = f"What permutation took off the distance, {many(len(place), 'parameter')}"
    return FigureSpec(kind="reduction", title=title, panels=(panel,), provenance=story(matching))


def alignment(matching: Matching, layer: str | None) -> FigureSpec:
    """R of every layer over γ, before the permutation and after it, in the same colours; a rule through `layer`.

    R is overlap by count of singular vectors; of several networks both are summed first.
    """
    rows = table_rows(matching.tables["alignment"])
    if not rows:
        raise FigureError(
            "no alignment of singular vectors was computed (gammas was empty, or the run was cancelled): match again "
            "with gammas=(0, 0.3)."
        )
    names = list(dict.fromkeys(row["layer"] for row in sorted(rows, key=lambda row: row["depth"])))
    gammas = sorted({row["gamma"] for row in rows})
    grids = [_shares(rows, names, gammas, f"overlap_{side}") for side in ("before", "after")]
    finite = [value for grid in grids for line in grid for value in line if math.isfinite(value)]
    if not finite:
        raise FigureError("no layer has singular vectors to align: its matrices are zero.")
    low, high = min(finite), max(finite)
    ends = (low, high if high > low else low + (abs(low) or 1.0))
    y = tuple(index - 0.5 for index in range(len(names) + 1))
    x = edges(gammas)
    ring: tuple[Mark, ...] = ()
    if layer is not None:
        _known(layer, names)
        ring = (Rule(axis="y", value=float(names.index(layer)), role="fit", label=layer),)
    ticks = named_ticks(names, 16)
    panels = tuple(
        Panel(
            x=Axis(label="γ: σ ≥ γ·σmax", limits=(x[0], x[-1]), ticks=tuple((g, f"{g:g}") for g in gammas)),
            y=Axis(label="", limits=(y[0], y[-1]), descending=True, ticks=ticks),
            marks=(Heat(x=x, y=y, values=grid, limits=ends, label="R"), *ring),
            title=f"{side}: {_total(matching, gammas[-1], before=side == 'before')}",
        )
        for side, grid in zip(("before", "after"), grids, strict=True)
    )
    title = f"Alignment of singular vectors, {many(len(names), 'layer')}"
    return FigureSpec(kind="alignment", title=title, panels=panels, provenance=story(matching))


def _shares(
    rows: Sequence[Row], names: Sequence[str], gammas: Sequence[float], column: str
) -> tuple[tuple[float, ...], ...]:
    """R = Σ overlap / Σ count for every layer and γ, over the networks; NaN where no vector counts."""
    sums = {(name, gamma): [0.0, 0.0] for name in names for gamma in gammas}
    for row in rows:
        cell = sums[row["layer"], row["gamma"]]
        cell[0] += row[column]
        cell[1] += row["vectors"]
    shares = {key: overlap / count if count else math.nan for key, (overlap, count) in sums.items()}
    return tuple(tuple(shares[name, gamma] for gamma in gammas) for name in names)


def _total(matching: Matching, gamma: float, *, before: bool) -> str:
    return f"R({gamma:g}) = {matching.alignment(gamma, before=before):.2g}"


def _ring(places: Sequence[tuple[float, float, str]], layer: str) -> Points:
    """Rings about the points of one layer."""
    _known(layer, [name for *_, name in places])
    ringed = [(x, y) for x, y, name in places if name == layer]
    return Points(
        x=tuple(x for x, _ in ringed), y=tuple(y for _, y in ringed), ids=(layer,) * len(ringed), role="accent"
    )


def _known(layer: str, names: Sequence[str]) -> None:
    if layer not in names:
        raise LayerNotFoundError(f"the figure has no layer {layer!r}.{nearest(layer, dict.fromkeys(names))}")


def _id(tensor: str) -> str:
    """A layer's name, as in the tables of other results."""
    return tensor.removesuffix(".weight")
