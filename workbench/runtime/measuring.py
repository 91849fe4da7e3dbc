"""An evaluator at many points: what is found at each, as cells of a result, in an order, until it is cancelled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any, TypeVar

from torch import Tensor

from workbench.errors import ArgumentError, Cancelled
from workbench.progress import ProgressCallback, reporter
from workbench.results import Column
from workbench.runtime.batches import EvaluationError
from workbench.runtime.borrowing import lent, name_of
from workbench.runtime.evaluator import Evaluator
from workbench.weights import Weights

P = TypeVar("P")
R = TypeVar("R")

MEASURED: Mapping[str, Column] = {
    "loss": Column("mean loss over the evaluator's data, in the loss's own unit; NaN where it is none", float, "loss"),
    "accuracy": Column("the metric of this name, where the evaluator has it; NaN where not", float, "1"),
    "reason": Column("why the loss is no finite number; empty where it is one", str, ""),
}
METRIC: Mapping[str, Column] = {
    "metric": Column("name of a metric of the evaluator", str, ""),
    "value": Column("its mean over the evaluator's data", float, "1"),
}


def held(evaluator: Evaluator, label: str, weights: Weights) -> dict[str, Tensor]:
    """A checkpoint under the module's own names, on the evaluator's device and in the module's dtypes.

    Names of one tied tensor hold one tensor.

    Raises:
        ArgumentError: it is of another architecture (`label` and the first difference are named), or complex.
    """
    try:
        with lent(evaluator.module, weights, evaluator.device):
            stored = evaluator.module.state_dict(keep_vars=True)
    except ArgumentError as error:
        raise ArgumentError(f"{label} does not fit the evaluator's module: {error}") from error
    tensors = {name: tensor for name, tensor in stored.items() if isinstance(tensor, Tensor)}
    if name := next((name for name, tensor in tensors.items() if tensor.is_complex()), None):
        raise ArgumentError(
            f"{name!r} is {tensors[name].dtype}: expected real numbers; store both parts as two of them."
        )
    return tensors


def measurement(measure: Callable[[], Mapping[str, float]], *, strict: bool) -> dict[str, Any]:
    """What is found at one point: `values` by name and a `reason` where the loss is no finite number.

    Raises:
        EvaluationError: the evaluation failed, and `strict` asks for it.
    """
    try:
        values = dict(measure())
    except EvaluationError as error:
        if strict:
            raise
        return {"values": {"loss": math.nan}, "reason": str(error)}
    finite = math.isfinite(values["loss"])
    return {"values": values, "reason": "" if finite else f"the loss is {values['loss']}"}


def measured_cells(found: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of MEASURED for one point, as `measurement` gives it."""
    numbers = {name: found["values"].get(name, math.nan) for name in ("loss", "accuracy")}
    return {**numbers, "reason": found["reason"]}


def metric_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The metrics of one point, a row each."""
    return [{"metric": name, "value": value} for name, value in found["values"].items() if name != "loss"]


def walked(
    points: Iterable[P],
    measure: Callable[[P], Any],
    built: Callable[[Mapping[P, Any]], R],
    *,
    name: Callable[[P], str],
    progress: ProgressCallback | None,
    total: int = 0,
) -> R:
    """Measures the points in order and builds a result of what was done, also of what was done before a cancel.

    Args:
        points: what to measure; an iterator may choose the next by what was found at the last.
        measure: what is found at a point.
        built: makes the result of point → found.
        name: the point's name, for the progress report.
        progress: told before each point and once at the end.
        total: number of points at most, where `points` have no length.

    Raises:
        Cancelled: passed on, with the result so far as its `partial`.
    """
    done: dict[P, Any] = {}
    count = len(points) if isinstance(points, Sized) else total
    report = reporter(progress, partial=lambda: built(dict(done)))
    try:
        for point in points:
            report(name(point), len(done), max(count, len(done) + 1))
            done[point] = measure(point)
        report("", len(done), len(done))
    except Cancelled as stop:
        stop.partial = built(done)
        raise
    return built(done)


def evaluator_meta(evaluator: Evaluator) -> dict[str, Any]:
    """What `Result.meta` says of an evaluator."""
    return {
        "module": name_of(evaluator.module),
        "loss": _name(evaluator.loss),
        "metrics": {name: _name(metric) for name, metric in evaluator.metrics.items()},
    }


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
