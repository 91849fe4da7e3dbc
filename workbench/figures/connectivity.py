"""The figures of a Barrier and of a Surface: the loss along a line, and on a plane, in weight space."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from workbench.connectivity.barrier import Barrier
from workbench.connectivity.mixing import bisected
from workbench.connectivity.surface import NOT_DONE, Surface
from workbench.errors import FigureError
from workbench.figures.provenance import no_layer, story
from workbench.figures.spec import Axis, FigureSpec, Heat, Line, Mark, Panel, Points, edges, limits

CURVES = ("second", "first", "third", "fourth", "fifth")  # one for each of several barriers
ANCHORS = {"a": "second", "b": "fourth", "c": "fifth"}
LOGARITHMIC = 10  # largest by smallest loss from which on colours follow the logarithm: else a basin has one colour
CONTOURS = 12  # at most, of evenly spaced ones
LISTED = 6  # levels that the panel's title names one by one


def path(barrier: Barrier | Mapping[str, Barrier], layer: str | None) -> FigureSpec:
    """Loss along the line with its chord, ends and barrier marked, and accuracy beside it; several by label.

    Of single places without both ends each is marked.
    """
    no_layer("barrier", layer)
    named = {"": barrier} if isinstance(barrier, Barrier) else dict(barrier)
    if len(named) > len(CURVES):
        raise FigureError(f"{len(named)} barriers in one figure: it shows {len(CURVES)} at most; draw several figures.")
    marks: list[Mark] = []
    right: list[Mark] = []
    for role, (label, one) in zip(CURVES if len(named) > 1 else CURVES[1:], named.items(), strict=False):
        marks += _curve(one, role, label, chord="" if marks else "chord")
        if any(map(math.isfinite, one.tables["path"]["accuracy"])):
            right += _with_ends(one, "accuracy", role, "")
    drawn = [y for mark in marks if isinstance(mark, Line | Points) for y in mark.y]
    if not any(map(math.isfinite, drawn)):
        raise FigureError("no loss along the path is a finite number; see .frame().reason.")
    panels = [_panel("loss", marks)]
    if right:
        panels.append(_panel("accuracy", right))
    one = next(iter(named.values()))
    title = _headline(one) if len(named) == 1 else "Loss along the line from A to B"
    parts = [story(each) for each in named.values()]
    provenance = {key: "; ".join(dict.fromkeys(part[key] for part in parts)) for key in parts[0]}
    return FigureSpec(kind="barrier", title=title, panels=tuple(panels), provenance=provenance)


def _headline(barrier: Barrier) -> str:
    if _spans(barrier):
        return f"Loss barrier {barrier.barrier:.3g}"
    places = barrier.tables["path"]["t"]
    return f"Loss at t = {', '.join(f'{t:.4g}' for t in places)}" if len(places) <= LISTED else "Loss between A and B"


def _spans(barrier: Barrier) -> bool:
    """Whether both ends are among its points: else there is no chord."""
    return {0.0, 1.0} <= set(barrier.tables["path"]["t"])


def _curve(barrier: Barrier, role: str, label: str, *, chord: str) -> list[Mark]:
    """The chord, the height of the barrier over it, and the loss."""
    table = barrier.tables["path"]
    rows = [row for row in zip(table["t"], table["loss"], table["chord"], strict=True) if math.isfinite(row[1])]
    if not _spans(barrier):
        return _with_ends(barrier, "loss", role, label or "loss")
    marks: list[Mark] = [
        Line(x=(0.0, 1.0), y=(barrier.loss_a, barrier.loss_b), role="reference", label=chord),
    ]
    t, loss, base = max(rows, key=lambda row: row[1] - row[2], default=(math.nan,) * 3)
    if loss > base:
        height = Line(x=(t, t), y=(base, loss), role=role if label else "fit", label="" if label else "barrier")
        marks.append(height)
    return marks + _with_ends(barrier, "loss", role, f"{label}: barrier {barrier.barrier:.3g}" if label else "loss")


def _with_ends(barrier: Barrier, column: str, role: str, label: str) -> list[Mark]:
    """A column along the line, both of its ends marked; the places alone, if it lacks an end."""
    table = barrier.tables["path"]
    if not _spans(barrier):
        ids = tuple(f"t = {t:.4g}" for t in table["t"])
        return [Points(x=tuple(table["t"]), y=tuple(table[column]), ids=ids, role=role, label=label)]
    ends = [(t, y) for t, y in zip(table["t"], table[column], strict=True) if t in (0.0, 1.0) and math.isfinite(y)]
    marks: list[Mark] = [Line(x=tuple(table["t"]), y=tuple(table[column]), role=role, label=label)]
    if ends:
        ids = tuple("AB"[int(t)] for t, _ in ends)
        marks.append(Points(x=tuple(t for t, _ in ends), y=tuple(y for _, y in ends), ids=ids, role=role))
    return marks


def _panel(what: str, marks: Sequence[Mark]) -> Panel:
    values = [y for mark in marks if isinstance(mark, Line | Points) for y in mark.y]
    return Panel(
        x=Axis(label="t, from A (0) to B (1)", limits=limits((0.0, 1.0))),
        y=Axis(label=what, limits=limits(values)),
        marks=tuple(marks),
    )


def plane(surface: Surface, layer: str | None) -> FigureSpec:
    """Loss on the plane in colour with contours, and the checkpoints; by its logarithm where it spans a decade.

    Points that a cancelled run has not reached show the nearest that it has; contours are those of the finest grid that
    is complete.
    """
    no_layer("surface", layer)
    cols, rows = surface.axes()
    loss = surface.values().numpy()
    finite = loss[np.isfinite(loss)]
    if not len(finite):
        raise FigureError("no loss on this surface is a finite number; see .frame().reason.")
    done = np.array(surface.tables["grid"]["reason"]).reshape(loss.shape) != NOT_DONE
    least, most = float(finite.min()), float(finite.max())
    logarithmic = least > 0 and most > LOGARITHMIC * least
    shown = np.where(np.isfinite(loss), loss, math.nan)
    drawn = np.log10(shown) if logarithmic else shown
    low, high = (math.log10(least), math.log10(most)) if logarithmic else (least, most)
    heat = Heat(
        x=edges(cols),
        y=edges(rows),
        values=tuple(tuple(row) for row in _filled(drawn, done).tolist()),
        limits=(low, high if high > low else low + (abs(low) or 1.0)),
        label="log₁₀ loss" if logarithmic else "loss",
    )
    levels = _levels(least, most, logarithmic)
    random = len(surface.tables["anchors"]["name"]) == 1
    labels = ("first random direction", "second random direction") if random else ("along B − A", "across, towards C")
    unit = "filter norms" if random else "L2 distance"
    x, y = (
        Axis(label=label, unit=unit, limits=(places[0], places[-1]))
        for label, places in zip(labels, (heat.x, heat.y), strict=True)
    )
    named = [f"{level:g}" for level in levels]
    if len(named) > LISTED:
        named = [*named[:3], "…", named[-1]]
    told = [f"contours at a loss of {', '.join(named)}"] if levels else []
    if not done.all():
        told.append(f"{done.sum()} of {done.size} points, the others as the nearest")
    heights = [math.log10(level) if logarithmic else level for level in levels]
    contours = _contours(np.array(cols), np.array(rows), drawn, done, heights)
    panel = Panel(x=x, y=y, marks=(heat, *contours, *_anchors(surface)), title=" · ".join(told))
    title = "Loss on two filter-normalised random directions" if random else "Loss on the plane through A, B and C"
    return FigureSpec(kind="surface", title=title, panels=(panel,), provenance=story(surface))


def _anchors(surface: Surface) -> list[Mark]:
    table = surface.tables["anchors"]
    marks: list[Mark] = [
        Points(x=tuple(table["x"]), y=tuple(table["y"]), role="accent", ids=tuple(map(str.upper, table["name"])))
    ]
    for name, x, y, loss in zip(table["name"], table["x"], table["y"], table["loss"], strict=True):
        label = f"{name.upper()}: loss {loss:.3g}"
        marks.append(Points(x=(x,), y=(y,), ids=(name.upper(),), role=ANCHORS[name], label=label))
    return marks


def _levels(low: float, high: float, logarithmic: bool) -> list[float]:
    """Round losses between two: 1, 2, 5 of each power of ten or powers of ten alone, or evenly spaced ones."""
    if logarithmic:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        factors = (1, 2, 5) if 3 * len(powers) <= CONTOURS else (1,)
        found = [float(f"{factor}e{power}") for power in powers for factor in factors]
    elif high > low:
        power = math.floor(math.log10((high - low) / CONTOURS))
        step = next(s for f in (1, 2, 5, 10) if (s := float(f"{f}e{power}")) >= (high - low) / CONTOURS)
        found = [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
    else:
        found = []
    return [level for level in found if low < level < high]


def _contours(
    cols: Float[np.ndarray, " cols"],
    rows: Float[np.ndarray, " rows"],
    drawn: Float[np.ndarray, "rows cols"],
    done: Bool[np.ndarray, "rows cols"],
    levels: Sequence[float],
) -> list[Mark]:
    """One polyline per level, its pieces apart by a NaN, on the finest grid that is complete."""
    import contourpy

    across, down = np.array(bisected(len(cols))), np.array(bisected(len(rows)))
    for level in range(max(across.max(), down.max()), -1, -1):
        inner = np.ix_(down <= level, across <= level)
        if done[inner].all():
            break
    else:
        return []
    grid = np.ma.masked_invalid(drawn[inner])
    lines = contourpy.contour_generator(cols[across <= level], rows[down <= level], grid)
    marks: list[Mark] = []
    for height in levels:
        gap = [[math.nan, math.nan]]
        points = [point for piece in lines.lines(height) for point in [*np.asarray(piece).tolist(), *gap]][:-1]
        if points:
            marks.append(Line(x=tuple(p[0] for p in points), y=tuple(p[1] for p in points), role="contour"))
    return marks


def _filled(
    drawn: Float[np.ndarray, "rows cols"], done: Bool[np.ndarray, "rows cols"]
) -> Float[np.ndarray, "rows cols"]:
    """Points that were not reached have the value of the nearest that was, by steps of the grid."""
    filled, known = drawn.copy(), np.argwhere(done)
    for row, col in np.argwhere(~done):
        filled[row, col] = drawn[tuple(known[np.abs(known - (row, col)).max(1).argmin()])]
    return filled
