"""Checkpoints mixed in one work buffer and evaluated there, in an order that fills in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from workbench.errors import ArgumentError
from workbench.results import versions
from workbench.runtime import Evaluator, reset_statistics
from workbench.runtime.batch_norm import normalised
from workbench.runtime.borrowing import name_of
from workbench.runtime.measuring import evaluator_meta
from workbench.weights import ModelLike, Weights, load
from workbench.weights.tensors import Tensors, dtypes_of, fingerprint_of

Policy: TypeAlias = Literal["reset", "interpolate"]

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
        "evaluator": evaluator_meta(evaluator),
        "seed": None,
        "dtype": dtypes_of(tensors["a"]),
        "device": str(evaluator.device),
        "versions": versions(),
    }
