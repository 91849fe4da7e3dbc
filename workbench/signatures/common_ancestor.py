"""Checkpoints with a common ancestor, tensor by tensor: that they fit, and which of their tensors are arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from workbench.errors import ArgumentError, nearest
from workbench.weights import TensorInfo, Weights

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch and instance norm


def is_statistic(name: str) -> bool:
    """Whether a tensor is a running statistic, which no arithmetic makes right."""
    return name.rpartition(".")[2] in STATISTICS


def check_common(models: Mapping[str, Weights]) -> None:
    """Refuses checkpoints that are not of one architecture.

    Raises:
        ArgumentError: a name or a shape differs; the first difference is named, with both labels.
    """
    (label, first), *others = models.items()
    for other, weights in others:
        for name, info in first.infos.items():
            if name not in weights:
                raise ArgumentError(
                    f"{label} has the tensor {name!r} and {other} has not: expected checkpoints of one architecture."
                    + nearest(name, weights)
                )
            if (shape := weights.infos[name].shape) != info.shape:
                raise ArgumentError(
                    f"{name!r} has the shape {list(info.shape)} in {label} and {list(shape)} in {other}: expected "
                    "checkpoints of one architecture."
                )
            kinds = [one.dtype.is_floating_point for one in (info, weights.infos[name])]
            if kinds[0] != kinds[1]:
                raise ArgumentError(f"{name!r} is {info.dtype} in {label} and {weights.infos[name].dtype} in {other}.")
        if more := next((name for name in weights if name not in first), None):
            raise ArgumentError(
                f"{other} has the tensor {more!r} and {label} has not: expected checkpoints of one architecture."
                + nearest(more, first)
            )


def arithmetic(models: Sequence[Weights]) -> tuple[list[TensorInfo], list[str]]:
    """The tensors that can be subtracted, as the first checkpoint has them, and those that are no real numbers.

    Running statistics are in neither. A name that is tied in all checkpoints is tied in what is found; one that only
    some tie is a tensor of its own.

    Raises:
        ArgumentError: a tensor has numbers that differences mean nothing of: complex, 8-bit floats, or no dense layout.
    """
    found, left_out = [], []
    for info in models[0].infos.values():
        for one in (weights.infos[info.name] for weights in models):
            if one.layout != torch.strided:
                raise ArgumentError(f"{one.name!r} is a {one.layout} tensor: expected dense ones; call .to_dense().")
            if one.dtype.is_complex or (one.dtype.is_floating_point and one.dtype.itemsize == 1):
                raise ArgumentError(
                    f"{one.name!r} is {one.dtype}: expected real numbers whose scale is known, such as bfloat16."
                )
        if is_statistic(info.name):
            continue
        if info.dtype.is_floating_point:
            found.append(info)
        else:
            left_out.append(info.name)
    return found, left_out


def common_tie(name: str, models: Sequence[Weights]) -> str | None:
    """The first name of a tensor that has one and the same in all checkpoints."""
    ties = {weights.infos[name].tied_to for weights in models}
    return ties.pop() if len(ties) == 1 else None
