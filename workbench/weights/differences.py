"""Where two checkpoints are built differently, by their headers, and which tensors are no weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, TypeAlias

import torch

from workbench.weights.weights import TensorInfo, Weights

Kind: TypeAlias = Literal["missing", "shape", "kind", "tie", "added"]

BUFFERS = (  # what public models call theirs; a bias of more than two axes is GPT-2's causal mask
    "running_mean running_var num_batches_tracked inv_freq original_inv_freq masked_bias position_ids token_type_ids "
    "relative_position_index relative_coords_table cos_cached sin_cached pe"
).split()


class Difference(NamedTuple):
    """One tensor that two checkpoints do not have alike.

    Attributes:
        name: in the first checkpoint; in the second where the first has none.
        kind: `missing` in the second, another `shape`, another `kind` of numbers (real, complex or whole), a `tie` that
            the second has not, or `added` in the second.
        text: what differs, with both labels.
    """

    name: str
    kind: Kind
    text: str


def differences(
    one: Weights,
    other: Weights,
    labels: tuple[str, str],
    partners: Mapping[str, str] | None = None,
) -> Iterator[Difference]:
    """Where the second checkpoint is not built as the first: in the first's order, then what it has beyond that.

    A tensor that lost its tie may differ in its shape or numbers too, and is then named twice.

    Args:
        one: the first checkpoint.
        other: the second.
        labels: what both are called.
        partners: name in the first → name in the second; None for equal names.

    Example:
        >>> first, second = ({"w": torch.ones(size), name: torch.ones(1)} for size, name in ((2, "a"), (3, "b")))
        >>> from workbench.weights import load
        >>> for found in differences(load(first), load(second), ("the base", "model 1")):
        ...     print(f"{found.kind}: {found.text}")
        shape: 'w' is [2] in the base and [3] in model 1
        missing: 'a' is in the base and not in model 1
        added: 'b' is in model 1 and not in the base
    """
    pairs = {name: name for name in one.infos if name in other.infos} if partners is None else partners
    mine, theirs = labels
    for name, info in one.infos.items():
        own = other.infos.get(pairs[name]) if name in pairs else None
        if own is None:
            yield Difference(name, "missing", f"{name!r} is in {mine} and not in {theirs}")
        elif own.shape != info.shape:
            yield Difference(
                name, "shape", f"{name!r} is {list(info.shape)} in {mine} and {list(own.shape)} in {theirs}"
            )
        elif numbers(own) != numbers(info):
            yield Difference(name, "kind", f"{name!r} is {_word(info)} in {mine} and {_word(own)} in {theirs}")
        if own and info.tied_to and (own.tied_to or own.name) != _head(other, pairs.get(info.tied_to), own.name):
            yield Difference(name, "tie", f"{name!r} is tied to {info.tied_to!r} in {mine} and not in {theirs}")
    taken = set(pairs.values())
    for name in other.infos:
        if name not in taken:
            yield Difference(name, "added", f"{name!r} is in {theirs} and not in {mine}")


def _head(weights: Weights, name: str | None, alone: str) -> str:
    """The first name of a tensor's storage; `alone` where the weights have no such tensor."""
    return alone if name is None else weights.infos[name].tied_to or name


def numbers(info: TensorInfo) -> Literal["real", "complex", "whole"]:
    """What a tensor's elements are; booleans are whole numbers."""
    return "complex" if info.dtype.is_complex else "real" if info.dtype.is_floating_point else "whole"


def looks_like_buffer(info: TensorInfo) -> bool:
    """Whether a tensor is a buffer of a module, or by its name would be one: files do not tell buffers from weights.

    Example:
        >>> told = [TensorInfo(name=name, stored=name, shape=(2,), dtype=torch.float32) for name in ("w", "a.mask")]
        >>> [looks_like_buffer(info) for info in told]
        [False, True]
    """
    last = info.name.rpartition(".")[2]
    return info.buffer or last in BUFFERS or last.endswith("mask") or (last == "bias" and len(info.shape) > 2)


def not_weights(info: TensorInfo) -> str:
    """Why differences of a tensor's numbers mean nothing; empty where they do.

    Example:
        >>> not_weights(TensorInfo(name="w", stored="w", shape=(2,), dtype=torch.float8_e4m3fn))
        '8-bit float storage: its scales are not known here'
    """
    if info.layout != torch.strided:
        return f"{str(info.layout).removeprefix('torch.')} layout: expected dense, as .to_dense() gives"
    if info.dtype.is_complex:
        return "complex: compared element by element only"
    if not info.dtype.is_floating_point:
        return f"{_word(info)}: a count or an index, no weights"
    return "8-bit float storage: its scales are not known here" if info.dtype.itemsize == 1 else ""


def refused(info: TensorInfo, label: str) -> str:
    """Why a tensor of real or complex numbers cannot be computed with; empty where it can, or is of whole numbers."""
    if numbers(info) == "whole" or not not_weights(info):
        return ""
    what = _word(info) if info.layout == torch.strided else f"{str(info.layout).removeprefix('torch.')} {_word(info)}"
    return f"{info.name!r} in {label} is {what}: expected dense real numbers whose scale is known, such as bfloat16."


def _word(info: TensorInfo) -> str:
    return str(info.dtype).removeprefix("torch.")
