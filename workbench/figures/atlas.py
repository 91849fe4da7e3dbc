"""The figures of an Atlas: its columns against each other, layer by layer, and a map of their correlations."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

from workbench.atlas import Atlas
from workbench.errors import ArgumentError, FigureError
from workbench.figures.provenance import no_layer, story
from workbench.figures.spec import Axis, FigureSpec, Heat, Mark, Panel, Points, limits, named_ticks
from workbench.results import table_rows

THIRDS = ("first", "second", "third")  # looks of the layers, shallow to deep
DEFAULT, MOST = 3, 4  # columns of `pairs`: three panels, six at most
BESIDE = 3  # of these panels beside each other
MARKED = {"not distinguishable from 0": "accent", "too few": "second"}  # a grey cross is not seen on the map
METHODS = {"rho": ("ρ", "Spearman's ρ"), "tau": ("τ", "Kendall's τ_b")}
DIGITS = 12  # names of columns on a map


def correlation_map(atlas: Atlas, layer: str | None, *, method: str = "rho") -> FigureSpec:
    """ρ of every pair of compared columns, and beside it what the controls leave; what is not told from 0 is marked.

    τ in its place is marked by the verdict on ρ, and has no partial one beside it.
    """
    no_layer("correlations", layer)
    _known(method)
    names = atlas.compared
    rows = table_rows(atlas.tables["correlations"])
    if not any(math.isfinite(row["rho"]) for row in rows):
        raise FigureError("no pair of columns has a correlation: see .frame('correlations').reason, or compare others.")
    panels = [_map(names, rows, method, "verdict", *METHODS[method])]
    if method == "rho" and any(math.isfinite(row["partial"]) for row in rows):
        controls = ", ".join(atlas.meta["parameters"]["controls"])
        panels.append(
            _map(names, rows, "partial", "partial_verdict", f"partial ρ beside {controls}", METHODS["rho"][1])
        )
    title = f"Rank correlations of {len(names)} columns over layers"
    return FigureSpec(kind="correlations", title=title, panels=tuple(panels), provenance=story(atlas))


def _known(method: str) -> None:
    if method not in METHODS:
        raise ArgumentError(f"method={method!r}: expected 'rho' or 'tau'.")


def _map(
    names: Sequence[str], rows: Sequence[Mapping[str, Any]], value: str, verdict: str, title: str, label: str
) -> Panel:
    places = {name: place for place, name in enumerate(names)}
    grid = [[math.nan] * len(names) for _ in names]
    marked: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        i, j = places[row["first"]], places[row["second"]]
        grid[i][j] = grid[j][i] = row[value]
        if row[verdict] in MARKED and math.isfinite(row[value]):
            marked.setdefault(row[verdict], []).extend([(float(i), float(j)), (float(j), float(i))])
    edges = tuple(place - 0.5 for place in range(len(names) + 1))
    cells = tuple(tuple(line) for line in grid)
    marks: list[Mark] = [Heat(x=edges, y=edges, values=cells, limits=(-1.0, 1.0), label=label)]
    for word, role in MARKED.items():
        if word in marked:
            x, y = zip(*marked[word], strict=True)
            marks.append(Points(x=x, y=y, role=role, label=word))
    ticks = named_ticks(names, DIGITS)
    span = (edges[0], edges[-1])
    return Panel(
        x=Axis(label="", limits=span, ticks=ticks),
        y=Axis(label="", limits=span, ticks=ticks, descending=True),
        marks=tuple(marks),
        title=title,
    )


def scatter(
    atlas: Atlas, layer: str | None, *, x: str | None = None, y: str | None = None, method: str = "rho"
) -> FigureSpec:
    """Two columns, a point per layer with its standard error where the result has one; a symbol per third of depth.

    Without names the first pair of the table of correlations.
    """
    rows = atlas.tables["correlations"]
    if (x is None or y is None) and not rows["first"]:
        raise FigureError("fewer than two columns are compared: name two, as in x='spectrum.alpha', y='depth'.")
    one, other = x or rows["first"][0], y or rows["second"][0]
    panel = _panel(atlas, one, other, layer, method, errors=True)
    title = f"{other} over {one}, layer by layer"
    known = {"layer": layer} if layer else {}
    return FigureSpec(kind="scatter", title=title, panels=(panel,), provenance=story(atlas) | known)


def pairs(atlas: Atlas, layer: str | None, *, columns: Sequence[str] | None = None, method: str = "rho") -> FigureSpec:
    """Every pair of up to four columns, a panel each, a point per layer: a layer has one id in all of them.

    Without names the first three columns that are compared and have numbers of the same layers.
    """
    names: list[str] = []
    for name in atlas.compared:
        if len(names) < DEFAULT and all(_together(atlas, name, one) for one in (name, *names)):
            names.append(name)
    if columns is not None:
        names = list(dict.fromkeys([columns] if isinstance(columns, str) else columns))
    if not 2 <= len(names) <= MOST:
        raise FigureError(f"pairs shows two to {MOST} columns beside each other, got {names}: name them with columns=.")
    panels = tuple(_panel(atlas, one, other, layer, method, errors=False) for one, other in combinations(names, 2))
    title = f"{len(names)} columns against each other, a point per layer"
    known = {"layer": layer} if layer else {}
    return FigureSpec(kind="pairs", title=title, panels=panels, columns=BESIDE, provenance=story(atlas) | known)


def _together(atlas: Atlas, one: str, other: str) -> bool:
    """Whether a layer has numbers of both that are to be read."""
    both = zip(atlas.values(one, used=True), atlas.values(other, used=True), strict=True)
    return any(math.isfinite(a) and math.isfinite(b) for a, b in both)


def _panel(atlas: Atlas, one: str, other: str, layer: str | None, method: str, *, errors: bool) -> Panel:
    _known(method)
    x, y = atlas.values(one, used=True), atlas.values(other, used=True)
    table = atlas.tables["layers"]
    shown = [row for row, (a, b) in enumerate(zip(x, y, strict=True)) if math.isfinite(a) and math.isfinite(b)]
    if not shown:
        raise FigureError(
            f"no layer has numbers of both {one!r} and {other!r} that are to be read; see .frame('cells')."
        )
    if layer is not None and layer not in table["layer"]:
        atlas.row(layer)
    bars = _errors(atlas, other) if errors else []
    marks: list[Mark] = []
    for role, label, third in _thirds(table["depth"]):
        rows = [row for row in third if row in set(shown)]
        if not rows:
            continue
        marks.append(
            Points(
                x=tuple(x[row] for row in rows),
                y=tuple(y[row] for row in rows),
                error=tuple(bars[row] for row in rows) if bars else (),
                ids=tuple(table["layer"][row] for row in rows),
                role=role,
                label=label,
            )
        )
    ringed = [row for row in shown if table["layer"][row] == layer]
    if layer is not None and ringed:
        ring_x, ring_y = tuple(x[row] for row in ringed), tuple(y[row] for row in ringed)
        marks.append(Points(x=ring_x, y=ring_y, ids=(layer,) * len(ringed), role="accent", label=layer))
    ends = [y[row] + side * bars[row] for row in shown for side in (-1, 1)] if bars else []
    return Panel(
        x=Axis(label=one, limits=limits(x[row] for row in shown)),
        y=Axis(label=other, limits=limits([*(y[row] for row in shown), *ends])),
        marks=tuple(marks),
        title=_told(atlas, one, other, method, sum(map(math.isinf, [*x, *y]))),
    )


def _told(atlas: Atlas, one: str, other: str, method: str, endless: int) -> str:
    words = []
    try:
        row = atlas.pair(one, other)
    except ArgumentError:
        row = {method: math.nan}
    if math.isfinite(row[method]):
        known = method == "rho" and math.isfinite(row["rho_low"])
        span = f" [{row['rho_low']:.2f}, {row['rho_high']:.2f}]" if known else ""
        words.append(f"{METHODS[method][0]} = {row[method]:.2f}{span}")
    if endless:
        words.append(f"not drawn: {endless} infinite")
    return "; ".join(words)


def _errors(atlas: Atlas, name: str) -> list[float]:
    """Standard errors of a column, where its result has a column of them with a number."""
    known = f"{name}_error"
    if known not in atlas.tables["columns"]["column"]:
        return []
    found = atlas.values(known)
    return found if any(map(math.isfinite, found)) else []


def _thirds(depths: Sequence[float]) -> list[tuple[str, str, list[int]]]:
    """Rows by thirds of the depths that occur, each with its look and what the legend says."""
    known = sorted({depth for depth in depths if math.isfinite(depth)})
    count = min(len(THIRDS), len(known))
    cuts = [round(part * len(known) / count) for part in range(count + 1)] if count else []
    found = []
    for role, (start, end) in zip(THIRDS, pairwise(cuts), strict=False):
        inside = known[start:end]
        span = f"{inside[0]:g}" if len(inside) == 1 else f"{inside[0]:g}–{inside[-1]:g}"
        found.append((role, f"depth {span}", [row for row, depth in enumerate(depths) if depth in set(inside)]))
    if unknown := [row for row, depth in enumerate(depths) if math.isnan(depth)]:
        found.append(("muted", "depth not known", unknown))
    return found
