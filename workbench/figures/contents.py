"""The figures of Contents: magnitudes over depth, and one tensor's histogram and map."""

import math
from collections.abc import Sequence

from workbench.errors import FigureError
from workbench.figures.provenance import depth_label, one_layer, story
from workbench.figures.spec import OTHER_ROLE, Axis, Bars, FigureSpec, Heat, Panel, Points, limits, ordered
from workbench.layers import Contents

DRAWN = 1e300  # beyond, the axes of matplotlib overflow
VERDICT_ROLES = {"finite": "first", "not finite": "second", "constant": "third"}


def magnitudes(contents: Contents, layer: str | None) -> FigureSpec:
    """Root mean square of every tensor over depth, a symbol per verdict; `layer` is ringed."""
    table = contents.tables["layers"]
    marks: list[Points] = []
    for word in ordered(table["verdict"], VERDICT_ROLES):
        rows = [row for row, found in enumerate(table["verdict"]) if found == word and 0 < table["rms"][row] <= DRAWN]
        if rows:
            marks.append(
                Points(
                    x=tuple(float(table["depth"][row]) for row in rows),
                    y=tuple(table["rms"][row] for row in rows),
                    ids=tuple(table["layer"][row] for row in rows),
                    role=VERDICT_ROLES.get(word, OTHER_ROLE),
                    label=word,
                )
            )
    if not marks:
        raise FigureError(f"no magnitude to draw ({_not_drawn(table['rms']) or 'no tensors'}); see .frame().reason.")
    if layer is not None and 0 < (row := contents.row(layer))["rms"] <= DRAWN:
        marks.append(Points(x=(float(row["depth"]),), y=(row["rms"],), ids=(layer,), role="accent"))
    panel = Panel(
        x=Axis(label=depth_label(contents), unit="matrix layers", limits=limits(table["depth"])),
        y=Axis(label="root mean square", scale="log", limits=limits((y for mark in marks for y in mark.y), "log")),
        marks=tuple(marks),
        title=_not_drawn(table["rms"]),
    )
    return FigureSpec(kind="rms", title="Magnitude of every tensor", panels=(panel,), provenance=story(contents))


def _not_drawn(magnitudes: Sequence[float]) -> str:
    """What a logarithmic axis of magnitudes leaves out, counted."""
    counts = {
        "all zero": sum(rms == 0 for rms in magnitudes),
        "without a finite element": sum(math.isnan(rms) for rms in magnitudes),
        f"above {DRAWN:g}": sum(rms > DRAWN for rms in magnitudes),
    }
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"not drawn: {told}" if told else ""


def _check(name: str, values: Sequence[float]) -> None:
    if largest := max((abs(value) for value in values if abs(value) > DRAWN), default=0.0):
        raise FigureError(
            f"{name} has elements of {largest:.3g}: a figure takes {DRAWN:g} at most; see .row({name!r})."
        )


def histogram(contents: Contents, layer: str | None) -> FigureSpec:
    """How many of one tensor's finite elements lie in each bin, on a logarithmic axis."""
    name = one_layer(contents, "histogram", layer)
    row = contents.row(name)
    if name not in contents.counts or not len(contents.counts[name]):
        raise FigureError(f"{name} has no finite element to draw ({row['reason'] or row['verdict']}).")
    edges = tuple(contents.edges[name].tolist())
    _check(name, edges)
    heights = tuple(float(count) if count else math.nan for count in contents.counts[name].tolist())
    panel = Panel(
        x=Axis(label="element", unit="w", limits=limits(edges)),
        y=Axis(label="elements in the bin", scale="log", limits=(0.5, 2 * max(h for h in heights if h > 0))),
        marks=(Bars(edges=edges, heights=heights, role="first"),),
        title=_numbers(row),
    )
    return FigureSpec(kind="histogram", title=name, panels=(panel,), provenance=story(contents) | {"layer": name})


def heat_map(contents: Contents, layer: str | None) -> FigureSpec:
    """Root mean square of one tensor's blocks: its first axis down, all others across."""
    name = one_layer(contents, "heatmap", layer)
    row = contents.row(name)
    if name not in contents.heat:
        raise FigureError(f"{name} has no elements to draw ({row['reason'] or row['verdict']}).")
    grid = contents.heat[name]
    finite = grid[grid.isfinite()]
    _check(name, finite.tolist())
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    sides = [1] if row["shape"] == "scalar" else [int(side) for side in row["shape"].split("×")]
    height, width = (sides[0], math.prod(sides[1:])) if len(sides) > 1 else (1, sides[0])
    down, across = (
        tuple(float(side * number // blocks) for number in range(blocks + 1))
        for side, blocks in zip((height, width), grid.shape, strict=True)
    )
    empty = grid.numel() - len(finite)
    blocks = f"{grid.shape[0]}×{grid.shape[1]} blocks of {row['shape']}"
    panel = Panel(
        x=Axis(label="all other axes" if len(sides) > 2 else "column", limits=(0.0, float(width))),
        y=Axis(label="first axis" if len(sides) > 2 else "row", limits=(0.0, float(height)), descending=True),
        marks=(
            Heat(
                x=across,
                y=down,
                values=tuple(tuple(line) for line in grid.tolist()),
                limits=(low, high if high > low else low + (abs(low) or 1.0)),
                label="root mean square",
            ),
        ),
        title=blocks + (f" · {empty} empty: NaN or infinite" if empty else ""),
    )
    return FigureSpec(kind="heatmap", title=name, panels=(panel,), provenance=story(contents) | {"layer": name})


def _numbers(row: dict[str, object]) -> str:
    parts = [f"mean {row['mean']:.4g}", f"std {row['std']:.4g}", f"{row['sparsity']:.2%} zeros"]
    parts += [f"{row[name]} {word}" for name, word in (("nan", "NaN"), ("infinite", "infinite")) if row[name]]
    return " · ".join(parts)
