"""Checkpoints mixed in one work buffer and evaluated there, in an order that fills in."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from workbench.errors import ArgumentError, Cancelled
from workbench.progress import ProgressCallback, reporter
from workbench.results import Column, versions
from workbench.runtime import EvaluationError, Evaluator, reset_statistics
from workbench.runtime.batch_norm import normalised
from workbench.runtime.borrowing import lent, name_of
from workbench.weights import ModelLike, Weights, content_fingerprint, load

Policy: TypeAlias = Literal["reset", "interpolate"]
Tensors: TypeAlias = Mapping[str, Tensor]
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
POLICIES = (
    "'reset' (running statistics are estimated anew at each point on the evaluator's data, a second pass over them) or "
    "'interpolate' (running statistics are mixed like weights)"
)


def check_policy(module: nn.Module, batch_norm: str | None) -> None:
    """Refuses a batch-norm policy that is unknown, or missing where it decides the numbers.

    Raises:
        ArgumentError: it is not one of the two, or None for a module with running statistics.
    """
    if batch_norm not in ("reset", "interpolate", None):
        raise ArgumentError(f"batch_norm={batch_norm!r}: expected {POLICIES}, or None for a module without batch norm.")
    if batch_norm is None and (path := next(iter(normalised(module)), None)) is not None:
        raise ArgumentError(
            f"batch_norm=None, but {name_of(module)} has batch norm with running statistics ({path!r}), which decide "
            f"the numbers: say {POLICIES}."
        )
    if batch_norm != "interpolate" and (path := next(iter(_instances(module)), None)) is not None:
        raise ArgumentError(
            f"batch_norm={batch_norm!r}, but {name_of(module)} has instance norm with running statistics ({path!r}), "
            "which decide the numbers and cannot be estimated anew: say 'interpolate', which mixes them like weights."
        )


def _instances(module: nn.Module) -> list[str]:
    """The instance-norm layers that keep running statistics, by path."""
    parts = module.named_modules()
    return [path for path, part in parts if isinstance(part, _InstanceNorm) and part.running_mean is not None]


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


def opened(models: Mapping[str, ModelLike]) -> dict[str, Weights]:
    """The checkpoints as Weights, by their labels."""
    return {label: load(model) for label, model in models.items()}


class Buffer:
    """One set of tensors that is filled with a mixture and evaluated, as often as asked; made once.

    Args:
        evaluator: evaluates it.
        like: a checkpoint as `held` gives it; tensors that are no real numbers (counters) are its own for good.
        batch_norm: what becomes of running statistics.
    """

    def __init__(self, evaluator: Evaluator, like: Tensors, batch_norm: str | None) -> None:
        self.evaluator, self.batch_norm = evaluator, batch_norm
        first: dict[int, str] = {}
        for name, tensor in like.items():
            first.setdefault(id(tensor), name)  # names of one tied tensor share one buffer
        own = {
            name: torch.empty_like(like[name]) if like[name].is_floating_point() else like[name]
            for name in first.values()
        }
        self.mixed = tuple(name for name, tensor in own.items() if tensor.is_floating_point())
        self.tensors: Tensors = {name: own[first[id(tensor)]] for name, tensor in like.items()}

    def fill(self, write: Callable[[str, Tensor], object]) -> None:
        """Lets `write(name, tensor)` fill each tensor in place."""
        with torch.no_grad():
            for name in self.mixed:
                write(name, self.tensors[name])

    def measured(self, write: Callable[[str, Tensor], object]) -> dict[str, float]:
        """Loss and metrics of what `write` fills in."""
        self.fill(write)
        statistics = {}
        if self.batch_norm == "reset":
            where = str(self.evaluator.device)
            module, data = self.evaluator.module, self.evaluator.data
            statistics = reset_statistics(module, data, weights=self.tensors, device=where)
        return self.evaluator({**self.tensors, **statistics})


def bisected(count: int) -> list[int]:
    """Level of each of `count` places on a line: 0 for both ends, then 1 for the middle, 2 for the quarters.

    Example:
        >>> bisected(5)
        [0, 2, 1, 2, 0]
    """
    levels = [0] * count
    gaps, level = [(0, count - 1)], 1
    while gaps:
        halves = []
        for low, high in gaps:
            if high - low > 1:
                middle = (low + high) // 2
                levels[middle] = level
                halves += [(low, middle), (middle, high)]
        gaps, level = halves, level + 1
    return levels


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
    points: Sequence[P],
    measure: Callable[[P], Any],
    built: Callable[[Mapping[P, Any]], R],
    *,
    name: Callable[[P], str],
    progress: ProgressCallback | None,
) -> R:
    """Measures the points in order and builds a result of what was done, also of what was done before a cancel.

    Raises:
        Cancelled: passed on, with the result so far as its `partial`.
    """
    done: dict[P, Any] = {}
    report = reporter(progress, partial=lambda: built(dict(done)))
    try:
        for point in points:
            report(name(point), len(done), len(points))
            done[point] = measure(point)
        report("", len(done), len(points))
    except Cancelled as stop:
        stop.partial = built(done)
        raise
    return built(done)


def provenance(
    function: str,
    models: Mapping[str, Weights],
    tensors: Mapping[str, Tensors],
    evaluator: Evaluator,
    **parameters: Any,
) -> dict[str, Any]:
    """What `Result.meta` says of the checkpoints, the evaluator and the call."""
    sources = {label: weights.source for label, weights in models.items()}
    first = next(iter(models.values()))
    return {
        "function": function,
        "source": " to ".join(dict.fromkeys(Path(source).name for source in sources.values())),
        "sources": sources,
        "fingerprint": first.fingerprint,
        "fingerprints": {label: fingerprint_of(tensors[label]) for label in models},
        "elements": first.elements,
        "source_notes": {label: list(weights.notes) for label, weights in models.items()},
        "parameters": parameters,
        "evaluator": {
            "module": name_of(evaluator.module),
            "loss": _name(evaluator.loss),
            "metrics": {name: _name(metric) for name, metric in evaluator.metrics.items()},
        },
        "seed": None,
        "dtype": ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in floating(tensors["a"]).values()})),
        "device": str(evaluator.device),
        "versions": versions(),
    }


def fingerprint_of(tensors: Tensors) -> str:
    """One fingerprint of names, shapes, dtypes and contents."""
    rows = "\n".join(f"{name} {content_fingerprint(tensors[name])}" for name in sorted(tensors))
    return hashlib.blake2b(rows.encode(), digest_size=16).hexdigest()


def floating(tensors: Tensors) -> dict[str, Tensor]:
    """The tensors of real numbers."""
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
