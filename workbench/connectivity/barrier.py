"""The loss along the straight line between two checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from workbench.connectivity.mixing import Buffer, Policy, bisected, check_policy, opened, provenance
from workbench.errors import ArgumentError
from workbench.progress import ProgressCallback, check_progress
from workbench.results import Column, Result, many
from workbench.runtime import Evaluator
from workbench.runtime.evaluator import check_evaluator
from workbench.runtime.measuring import MEASURED, METRIC, held, measured_cells, measurement, metric_rows, walked
from workbench.weights import ModelLike


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Barrier(Result):
    """Loss and metrics at points of the line θ_t = (1−t)·A + t·B, in order of t.

    Tables: `path`, a row per point; `metrics`, a row per point and metric. A loss that is NaN or infinite between the
    ends makes both barriers infinite; at an end, or where a cancel came before it, it makes them NaN.
    """

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "path": {
            "t": Column("place on the line: 0 is A, 1 is B", float, "1", low=0, high=1),
            "loss": MEASURED["loss"],
            "chord": Column("(1−t)·L(A) + t·L(B), the loss without a barrier", float, "loss"),
            "accuracy": MEASURED["accuracy"],
            "reason": MEASURED["reason"],
        },
        "metrics": {"t": Column("place on the line", float, "1", low=0, high=1), **METRIC},
    }
    NEXT: ClassVar[str] = (
        '.barrier, .loss_a, .loss_b, .frame(), wb.figure(barrier), wb.figure({"before": …, "after": …})'
    )

    @property
    def loss_a(self) -> float:
        """The loss of A; NaN if the run was cancelled before it."""
        return self._loss(0.0)

    @property
    def loss_b(self) -> float:
        """The loss of B; NaN if the run was cancelled before it."""
        return self._loss(1.0)

    @property
    def barrier(self) -> float:
        """max_t [L(θ_t) − ((1−t)·L(A) + t·L(B))], at least 0 as both ends are among the points."""
        path = self.tables["path"]
        return self._highest([loss - chord for loss, chord in zip(path["loss"], path["chord"], strict=True)])

    @property
    def barrier_frankle(self) -> float:
        """max_t L(θ_t) − (L(A) + L(B))/2, Frankle's: at least |L(A) − L(B)|/2, so 0 only between equal losses."""
        mean = (self.loss_a + self.loss_b) / 2
        return self._highest([loss - mean for loss in self.tables["path"]["loss"]])

    @property
    def gap_at_midpoint(self) -> float:
        """L(θ_½) − (L(A) + L(B))/2; negative where the middle is better than the ends, NaN where it is no point."""
        return self._loss(0.5) - (self.loss_a + self.loss_b) / 2

    def _loss(self, t: float) -> float:
        path = self.tables["path"]
        return float(dict(zip(path["t"], path["loss"], strict=True)).get(t, math.nan))

    def _highest(self, excess: list[float]) -> float:
        if not (math.isfinite(self.loss_a) and math.isfinite(self.loss_b)):
            return math.nan
        return max(excess) if all(map(math.isfinite, excess)) else math.inf

    def facts(self) -> str:
        """The barrier, the losses at both ends and in the middle, and whether the run was stopped.

        Of single places without both ends: the loss at each.
        """
        policy = self.meta["parameters"]["batch_norm"]
        path, stopped = self.tables["path"], self.stopped("points")
        if not stopped and not {0.0, 1.0} <= set(path["t"]):
            places = zip(path["t"], path["loss"], path["accuracy"], strict=True)
            told = (
                f"at t = {t:.4g} loss {loss:.4g}" + (f", accuracy {right:.4g}" if right == right else "")
                for t, loss, right in places
            )
            return f"{self.title}: {'; '.join(told)}{f'; batch norm: {policy}' if policy else ''}"
        middle = f"{self._loss(0.5):.4g} in the middle, " if stopped or 0.5 in path["t"] else ""
        return (
            f"{self.title}: barrier {self.barrier:.4g}; loss {self.loss_a:.4g} at A, {middle}{self.loss_b:.4g} at B; "
            f"{many(len(path['t']), 'point')}"
            f"{f', batch norm: {policy}' if policy else ''}{stopped}"
        )


def barrier(
    evaluator: Evaluator,
    a: ModelLike,
    b: ModelLike,
    *,
    points: int | np.integer[Any] | Sequence[float] | np.ndarray | Tensor = 25,
    batch_norm: Policy | None,
    progress: ProgressCallback | None = None,
) -> Barrier:
    """Loss along θ_t = (1−t)·A + t·B; its barrier is max_t [L(θ_t) − ((1−t)·L(A) + t·L(B))].

    Args:
        evaluator: of the module that both are checkpoints of; its data, loss and metrics decide the numbers.
        a: anything `wb.load` takes.
        b: the other end, such as `matching.apply(b)`.
        points: points on the line, evenly spaced, with both ends; an even number gets the middle in addition. 25 as in
            Ainsworth et al. Or the places themselves, each in 0…1 (a list or an array): then only these are evaluated,
            and without both ends among them there is no chord and no barrier (NaN).
        batch_norm: "reset" estimates running statistics anew at each point on the evaluator's data, the ends too;
            "interpolate" mixes them like weights. None only for a module without batch norm.
        progress: called before each point with a Progress, and once at the end; it may raise `wb.Cancelled`.

    Returns:
        A Barrier. The points are evaluated ends first, then the middle, the quarters, … A loss that is NaN or infinite
        is a row with its reason, and so is an evaluation that fails, unless it is the first.

    Raises:
        ArgumentError: a or b is of another architecture (the first difference is named), `batch_norm` is missing for a
            module that has batch norm, or an argument is out of its range.
        EvaluationError: the first point, A itself where it is one, cannot be evaluated.
        Cancelled: the callback asked for it; `.partial` is the Barrier of the points that were done.

    Cost: a forward pass over the data a point, two with "reset". Memory: A, B and one buffer of their size on the
    evaluator's device, whatever the number of points; neither the module nor the data are copied.

    Source: Frankle et al. 2020 (arXiv 1912.05671) and Entezari et al. 2022 (arXiv 2110.06296) for the two barriers;
    Ainsworth et al. (Git Re-Basin, arXiv 2209.04836); "reset" as in Jordan et al. (REPAIR, arXiv 2211.08403).
    Integer tensors (counters of batches) are A's. Between points no maximum is sought.

    Misreads: a broken permutation makes B itself bad, which lifts the chord and shows a barrier of 0: look at `loss_b`.
    A barrier on the data of training says little of that on others. With "reset" the ends too have new statistics, so
    that `loss_a` is not `evaluator(a)`; with "interpolate" a barrier may be that of the statistics alone. Statistics
    that are reset on held-out data have seen them.

    Example:
        >>> from workbench import evaluator
        >>> error = evaluator(torch.nn.Linear(1, 1, bias=False), [(torch.ones(1, 1), torch.zeros(1, 1))],
        ...                   lambda outputs, targets: -(outputs - targets).square().mean())
        >>> ends = [{"weight": torch.tensor([[w]])} for w in (-1.0, 1.0)]
        >>> found = barrier(error, *ends, points=3, batch_norm=None)
        >>> found.barrier, found.loss_a, found.tables["path"]["loss"]
        (1.0, -1.0, (-1.0, 0.0, -1.0))
    """
    begin = time.perf_counter()
    check_evaluator(evaluator)
    check_progress(progress)
    check_policy(evaluator.module, batch_norm)
    points = points.tolist() if isinstance(points, np.integer | np.ndarray | Tensor) else points
    places, asked = _places(points), points if isinstance(points, int) else [float(t) for t in points]
    models = opened({"a": a, "b": b})
    tensors = {label: held(evaluator, label, weights) for label, weights in models.items()}
    start, end = tensors["a"], tensors["b"]
    buffer = Buffer(evaluator, start, batch_norm)
    order = [t for _, t in sorted(zip(bisected(len(places)), places, strict=True))]
    meta = provenance("wb.barrier", models, tensors, evaluator, points=asked, batch_norm=batch_norm)

    def measure(t: float) -> dict[str, Any]:
        def write(name: str, tensor: Tensor) -> None:
            if t in (0.0, 1.0):  # exactly the end, also where the other is not finite
                tensor.copy_(end[name] if t else start[name])
            else:
                torch.lerp(start[name], end[name], t, out=tensor)

        return measurement(lambda: buffer.measured(write), strict=t == order[0])

    def built(done: Mapping[float, dict[str, Any]]) -> Barrier:
        own = meta | {"seconds": time.perf_counter() - begin}
        if len(done) < len(places):
            own["cancelled"] = {"done": len(done), "total": len(places)}
        return Barrier(tables=_tables(dict(sorted(done.items()))), meta=own)

    return walked(order, measure, built, name=lambda t: f"t = {t:.4g}", progress=progress)


def _places(points: int | Sequence[float]) -> list[float]:
    """The places on the line in order."""
    if isinstance(points, int) and not isinstance(points, bool) and points >= 2:
        return sorted({0.5, *(place / (points - 1) for place in range(points))})
    if isinstance(points, Sequence) and len(points) > 0:
        if all(isinstance(t, Real) and not isinstance(t, bool) and 0 <= t <= 1 for t in points):
            return sorted({float(t) for t in points})
    raise ArgumentError(
        f"points={points!r}: expected the number of points on the line with both ends, at least 2, or the places "
        "themselves, each from 0 to 1."
    )


def _tables(done: Mapping[float, dict[str, Any]]) -> dict[str, Any]:
    a, b = (done[t]["values"]["loss"] if t in done else math.nan for t in (0.0, 1.0))
    path = [{"t": t, "chord": _chord(a, b, t), **measured_cells(found)} for t, found in done.items()]
    metrics = [{"t": t} | row for t, found in done.items() for row in metric_rows(found)]
    return {"path": Barrier.columns("path", path), "metrics": Barrier.columns("metrics", metrics)}


def _chord(loss_a: float, loss_b: float, t: float) -> float:
    """Exact at both ends, and constant between equal ones."""
    step = loss_b - loss_a
    return loss_a + t * step if t < 0.5 else loss_b - (1 - t) * step
