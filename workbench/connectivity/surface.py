"""The loss on a plane in weight space."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.cache import Cache, Entry
from workbench.connectivity.directions import Plane, random_direction
from workbench.connectivity.mixing import Buffer, Policy, bisected, check_policy, opened, provenance
from workbench.errors import ArgumentError, nearest
from workbench.progress import ProgressCallback, check_progress
from workbench.results import Column, Result
from workbench.runtime import Evaluator
from workbench.runtime.evaluator import check_evaluator
from workbench.runtime.measuring import (
    MEASURED,
    METRIC,
    held,
    measured_cells,
    measurement,
    metric_rows,
    walked,
)
from workbench.weights import ModelLike
from workbench.weights.tensors import Tensors

NOT_DONE = "not evaluated yet: the run was cancelled before it"
MARGIN = 0.25  # of the longer side of the box around three checkpoints
PLACE: Mapping[str, Column] = {
    "x": Column("coordinate along the first direction", float, "1"),
    "y": Column("coordinate along the second direction", float, "1"),
}
Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Surface(Result):
    """Loss and metrics on a grid of a plane in weight space, and at the checkpoints that define it.

    Tables: `grid`, a row per point, y by y; `anchors`, a row per checkpoint with its coordinates; `metrics`, a row per
    point and metric. Coordinates are in units of the two random directions, or L2 distances where three checkpoints
    define the plane.
    """

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "grid": {**PLACE, **MEASURED},
        "anchors": {"name": Column("the checkpoint: a, b or c", str, ""), **PLACE, **MEASURED},
        "metrics": {**PLACE, **METRIC},
    }
    NEXT: ClassVar[str] = '.frame(), .frame("anchors"), .values(), wb.figure(surface)'

    def axes(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The coordinates of the columns and of the rows of the grid."""
        grid = self.tables["grid"]
        return tuple(dict.fromkeys(grid["x"])), tuple(dict.fromkeys(grid["y"]))

    def values(self, column: str = "loss") -> Float[Tensor, "rows cols"]:
        """The loss, or another column of numbers, as a grid: a row for each y, NaN where there is none.

        Raises:
            ArgumentError: there is no such column.
        """
        known = [name for name, one in self.COLUMNS["grid"].items() if one.kind is float]
        if column not in known:
            raise ArgumentError(f"column={column!r}: expected one of {known}." + nearest(column, known))
        cols, rows = self.axes()
        return torch.tensor(self.tables["grid"][column], dtype=torch.float64).reshape(len(rows), len(cols))

    def facts(self) -> str:
        """The plane, the loss at its checkpoints, the range on the grid, and whether the run was stopped."""
        grid, anchors = self.tables["grid"], self.tables["anchors"]
        finite = [loss for loss in grid["loss"] if math.isfinite(loss)]
        extent = f"{min(finite):.4g} to {max(finite):.4g}" if finite else "nowhere finite"
        at = ", ".join(
            f"{loss:.4g} at {name.upper()}" for name, loss in zip(anchors["name"], anchors["loss"], strict=True)
        )
        size = " × ".join(str(len(axis)) for axis in self.axes())
        return f"{self.title}: loss {extent} on {size} points; {at}{self.stopped('points')}"


def surface(
    evaluator: Evaluator,
    a: ModelLike,
    b: ModelLike | None = None,
    c: ModelLike | None = None,
    *,
    points: int | tuple[int, int] = 21,
    span: float | None = None,
    seed: int = 0,
    batch_norm: Policy | None,
    cache: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
) -> Surface:
    """Loss on a plane: L(A + x·d₁ + y·d₂) for random directions, or the plane through three checkpoints.

    With one checkpoint, d₁ and d₂ are Gaussian and filter-normalised: d_f ← d_f·‖w_f‖/‖d_f‖ for every filter f (slice
    along the first axis); biases, other vectors and the parameters of norm layers are zero. With three, A lies at
    (0, 0), B at (‖B−A‖, 0) and C where its distances say; coordinates are L2 distances of parameters.

    Args:
        evaluator: of the module that all are checkpoints of.
        a: anything `wb.load` takes.
        b: a second checkpoint; needs c.
        c: a third one.
        points: of the grid along x and y, or one number for both. An odd number has A in the middle of the grid.
        span: with one checkpoint, the grid goes from −span to span (default 1); with three, it goes beyond the box
            around them by this share of the box's longer side (default 0.25).
        seed: of the random directions, drawn for each tensor on the CPU.
        batch_norm: "reset" estimates running statistics anew at each point on the evaluator's data; "interpolate" mixes
            them like weights, which random directions leave as they are. None only for a module without batch norm.
        cache: a folder that keeps finished points, so that a run that was cancelled, or a finer grid, goes on from
            there. The checkpoints, one corner and the policy are its key: the checkpoints and the first corner are
            evaluated each time, and points kept by an evaluator that gives other numbers there are not found.
        progress: called before each point with a Progress, and once at the end; it may raise `wb.Cancelled`.

    Returns:
        A Surface. The checkpoints come first, then the corners, then grids of twice the resolution until all is done,
        so that a run that was cancelled is a coarse picture of all of it. A loss that is NaN or infinite, and an
        evaluation that fails (the first one apart), is a point with its reason.

    Raises:
        ArgumentError: a checkpoint is of another architecture (the first difference is named), two are given, three lie
            on one line, or an argument is out of its range.
        EvaluationError: A cannot be evaluated.
        Cancelled: the callback asked for it; `.partial` is the Surface so far, NaN where it was not done.

    Cost: a forward pass over the data a point, two with "reset". Memory: four sets of parameters on the evaluator's
    device, whatever the number of points; neither the module nor the data are copied.

    Source: Li et al. 2018, "Visualizing the loss landscape of neural nets" (arXiv 1712.09913), section 4; the plane as
    in Garipov et al. 2018 (arXiv 1802.10026), section 3. Ours: filters of a transposed convolution are slices along the
    first axis as well.

    Misreads: two of millions of directions. What looks convex here need not be, and another seed shows another slice.
    Widths are comparable between networks only as far as rescaling filters explains them. Sharp valleys between points
    of the grid are not seen. Running statistics beyond the checkpoints may get a negative variance under "interpolate",
    which is NaN.

    Example:
        >>> from workbench import evaluator
        >>> square = evaluator(torch.nn.Linear(1, 2, bias=False), [(torch.ones(1, 1), torch.zeros(1, 2))], "mse")
        >>> corners = [{"weight": torch.tensor([[x], [y]])} for x, y in ((0.0, 0.0), (2.0, 0.0), (0.0, 4.0))]
        >>> found = surface(square, *corners, points=3, span=0.0, batch_norm=None)
        >>> found.axes(), found.values().tolist()
        (((0.0, 1.0, 2.0), (0.0, 2.0, 4.0)), [[0.0, 0.5, 2.0], [2.0, 2.5, 4.0], [8.0, 8.5, 10.0]])
    """
    begin = time.perf_counter()
    check_evaluator(evaluator)
    check_progress(progress)
    check_policy(evaluator.module, batch_norm)
    if (b is None) != (c is None):
        raise ArgumentError(
            "two checkpoints: a surface takes one (random directions) or three; see wb.barrier for two."
        )
    if not isinstance(seed, Integral) or isinstance(seed, bool):
        raise ArgumentError(f"seed={seed!r}: expected a whole number.")
    seed = int(seed)  # numpy's own is no JSON
    counts = _counts(points)
    kept = None if cache is None else Cache(cache)
    given = {label: model for label, model in (("a", a), ("b", b), ("c", c)) if model is not None}
    models = opened(given)
    ends = {label: held(evaluator, label, weights) for label, weights in models.items()}
    plane = _Plane(evaluator, ends, seed)
    width, height = plane.extent(_checked_span(span, len(ends)))
    cols, rows = _places(*width, counts[0]), _places(*height, counts[1])
    buffer = Buffer(evaluator, ends["a"], batch_norm)
    own = {"points": list(counts), "span": span, "batch_norm": batch_norm}
    meta = provenance("wb.surface", models, ends, evaluator, **own) | plane.facts
    probe: dict[str, str] = {}  # the numbers at the checkpoints and a corner: what the evaluator is, for the cache
    corner = (cols[0], rows[0])
    fixed = [*plane.anchors.values(), corner]
    order = list(dict.fromkeys([*fixed, *_filling(cols, rows)]))

    def values(point: Point) -> Mapping[str, float]:
        def compute() -> dict[str, float]:
            return buffer.measured(lambda name, tensor: plane.write(point, name, tensor))

        if kept is None or point in fixed:
            return compute()
        key = {name: meta[name] for name in ("function", "fingerprints", "seed", "evaluator", "dtype", "device")}
        key |= {"batch_norm": batch_norm, "probe": dict(probe), "point": point}
        return kept.through(key, lambda: Entry(compute(), {})).values

    def measure(point: Point) -> dict[str, Any]:
        found = measurement(lambda: values(point), strict=point == plane.anchors["a"])
        if point in fixed:
            probe[str(point)] = _told(found["values"])
        return found

    def built(done: Mapping[Point, dict[str, Any]]) -> Surface:
        facts = meta | {"seconds": time.perf_counter() - begin}
        if kept is not None:
            facts["cache"] = kept.facts()
        if len(done) < len(order):
            facts["cancelled"] = {"done": len(done), "total": len(order)}
        return Surface(tables=_tables(cols, rows, plane.anchors, done), meta=facts)

    return walked(
        order, measure, built, name=lambda point: f"x = {point[0]:.4g}, y = {point[1]:.4g}", progress=progress
    )


class _Plane:
    """The points of a plane as mixtures: A with two directions, or the shares of three checkpoints.

    Attributes:
        anchors: label → coordinates of each checkpoint.
        facts: what `Result.meta` says of the plane.
    """

    def __init__(self, evaluator: Evaluator, ends: Mapping[str, Tensors], seed: int) -> None:
        self._plane: Plane | None = None
        self.facts: dict[str, Any] = {"seed": seed}
        if len(ends) == 3:
            self._plane = Plane.through(evaluator.module, *ends.values())
            self._parts = tuple(ends.values())
            self.anchors = {"a": (0.0, 0.0), "b": (self._plane.b, 0.0), "c": self._plane.c}
            self.facts = {"seed": None, "plane": "through a, b and c; units are L2 distances"}
        else:
            drawn = [random_direction(evaluator.module, ends["a"], seed, axis) for axis in "xy"]
            self._parts = (ends["a"], *drawn)
            self.anchors = {"a": (0.0, 0.0)}
            self.facts |= {"plane": "a and two filter-normalised random directions", "cosine": _cosine(*drawn)}

    def extent(self, span: float) -> tuple[Point, Point]:
        """The ends of the grid along x and along y."""
        if self._plane is None:
            return (-span, span), (-span, span)
        x, y = zip(*self.anchors.values(), strict=True)
        air = span * max(max(x) - min(x), max(y) - min(y))
        return (min(x) - air, max(x) + air), (min(y) - air, max(y) + air)

    def write(self, point: Point, name: str, tensor: Tensor) -> None:
        """Fills one tensor with the mixture at a point."""
        shares = (1.0, *point) if self._plane is None else self._plane.shares(*point)
        tensor.zero_()
        for share, part in zip(shares, self._parts, strict=True):
            if share and name in part:  # what has no share may be NaN
                tensor.add_(part[name], alpha=share)


def _tables(
    cols: Sequence[float], rows: Sequence[float], anchors: Mapping[str, Point], done: Mapping[Point, dict[str, Any]]
) -> dict[str, Any]:
    grid = [_row((x, y), done) for y in rows for x in cols]
    named = [{"name": label} | _row(point, done) for label, point in anchors.items()]
    metrics = [{"x": x, "y": y} | row for (x, y), found in done.items() for row in metric_rows(found)]
    made = {"grid": grid, "anchors": named, "metrics": metrics}
    return {table: Surface.columns(table, inside) for table, inside in made.items()}


def _row(point: Point, done: Mapping[Point, dict[str, Any]]) -> dict[str, Any]:
    return {"x": point[0], "y": point[1], **measured_cells(done.get(point, {"values": {}, "reason": NOT_DONE}))}


def _filling(cols: Sequence[float], rows: Sequence[float]) -> list[Point]:
    """The points of the grid, coarse grids before finer ones."""
    across, down = bisected(len(cols)), bisected(len(rows))
    places = [(max(across[i], down[j]), y, x) for j, y in enumerate(rows) for i, x in enumerate(cols)]
    return [(x, y) for _, y, x in sorted(places)]


def _places(low: float, high: float, count: int) -> list[float]:
    """Evenly spaced places with both ends, symmetric about the middle bit by bit."""
    middle, half = (low + high) / 2, (high - low) / 2
    return [middle + half * ((2 * place - count + 1) / (count - 1)) for place in range(count)]


def _counts(points: int | tuple[int, int]) -> tuple[int, int]:
    both = tuple(points) if isinstance(points, Sequence) else (points, points)
    if len(both) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 2 for n in both):
        raise ArgumentError(f"points={points!r}: expected the number of points along x and y, each at least 2.")
    return both[0], both[1]


def _checked_span(span: float | None, checkpoints: int) -> float:
    if span is None:
        return 1.0 if checkpoints == 1 else MARGIN
    valid = not isinstance(span, bool) and isinstance(span, int | float) and math.isfinite(span)
    if not valid or span < 0 or (span == 0 and checkpoints == 1):
        raise ArgumentError(f"span={span!r}: expected a positive number (0 with three checkpoints is no margin).")
    return float(span)


def _cosine(one: Tensors, other: Tensors) -> float:
    """Of the angle between two directions; Gaussian ones are nearly orthogonal."""

    def dot(first: Tensors, second: Tensors) -> float:
        return sum(float((first[name].double() * second[name].double()).sum()) for name in first)

    lengths = math.sqrt(dot(one, one) * dot(other, other))
    return dot(one, other) / lengths if lengths else math.nan


def _told(values: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.6g}" for name, value in sorted(values.items()))
