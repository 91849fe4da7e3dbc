"""A network with a signature on it: what was added, what became of running statistics, and the way back."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from workbench.errors import ArgumentError, CheckpointError, nearest
from workbench.layers import Selection
from workbench.linalg.pieces import flat_pieces
from workbench.progress import ProgressCallback, check_progress, reporter, told_whole
from workbench.results import many, short_source
from workbench.runtime import reset_statistics
from workbench.runtime.activations import batch_count
from workbench.signatures.chosen import chosen
from workbench.signatures.common_ancestor import is_statistic
from workbench.weights import ModelLike, TensorInfo, Weights, content_fingerprint, load, save
from workbench.weights.differences import refused

BatchNorm: TypeAlias = Literal["untouched", "copied", "re-estimated"]

POLICIES = (
    "'untouched' (the model's own running statistics), 'copied' (those of the robust network) or 're-estimated' (on "
    "data=…, with the signature on)"
)
UNDO = "undo"  # the metadata key of a file that takes a signature off


class Patched(Weights):
    """Weights with a signature on them; each tensor is added up when it is read.

    Attributes:
        original: the model as it was, to the last bit, also after the module that it came from was changed.
        touched: the tensors that the signature or the batch-norm policy touches, also where what they add is 0.
        record: scale, tensors that were chosen (None for all), batch-norm policy and fingerprint of the signature.
    """

    def __init__(
        self, original: Weights, read: Callable[[TensorInfo], Tensor], touched: Sequence[str], **record: Any
    ) -> None:
        told = f"{record['signature']} at α = {record['scale']:g}, {many(len(touched), 'tensor')} touched"
        super().__init__(
            list(original.infos.values()),
            read,
            source=original.source,
            notes=[*original.notes, told],
            ordered=original.ordered,
            metadata=original.metadata,
        )
        self.original, self.touched, self.record = original, tuple(touched), record

    def save_undo(self, path: str | os.PathLike[str]) -> Path:
        """Writes what takes the signature off again: the original tensors that it touches, and fingerprints of all.

        Args:
            path: a file that ends in `.safetensors`; `Signature.remove(weights, path)` takes it.

        Returns:
            The path.

        Raises:
            ArgumentError: another ending.
            OSError: the disk is full or refuses; nothing is left behind.

        Cost: a pass over the bytes, and as many written as the touched tensors have.
        """
        if Path(path).suffix != ".safetensors":
            raise ArgumentError(f"{path}: expected a name that ends in .safetensors.")
        originals = self.original.only(self.touched)
        told = self.record | {"patched": _fingerprints(self), "original": _fingerprints(originals)}
        return save(originals, path, metadata={UNDO: json.dumps(told)})


def patched(
    delta: Weights,
    statistics: Mapping[str, Tensor],
    model: ModelLike,
    *,
    fingerprint: str,
    scale: float,
    layers: Selection,
    batch_norm: BatchNorm | None,
    data: Iterable[Any] | None,
    module: nn.Module | None,
    device: str,
    progress: ProgressCallback | None,
) -> Patched:
    """What `Signature.apply` does; see there."""
    check_progress(progress)
    if isinstance(scale, bool) or not isinstance(scale, Real) or not math.isfinite(scale):
        raise ArgumentError(f"scale={scale!r}: expected a finite number α; 0 leaves every weight as it is.")
    original = load(model).snapshot()
    own = [name for name in original if is_statistic(name)]
    module = module if module is not None else model if isinstance(model, nn.Module) else None
    _check_policy(batch_norm, original, statistics, data, module)
    added = _added(delta, original, layers) if scale else {}
    replaced: dict[str, Tensor] = {}

    def read(info: TensorInfo) -> Tensor:
        name = info.tied_to or info.name
        if name in replaced:
            return replaced[name].to(original[name], copy=True)
        return _sum(name, original[name], delta.borrowed(added[name]), scale) if name in added else original[name]

    record = {
        "signature": delta.source,
        "fingerprint": fingerprint,
        "scale": float(scale),
        "tensors": None if layers is None else sorted(set(added.values())),
        "batch_norm": batch_norm,
    }
    report, done, total = reporter(progress), 0, 0 if data is None else batch_count(data)

    def told(number: int) -> None:
        nonlocal done
        report(f"batch {number}", done, max(total, done + 1))
        done += 1

    if batch_norm == "copied":
        replaced = {name: statistics[name] for name in own}
    elif batch_norm == "re-estimated" and own and module is not None and data is not None:
        stored = load(module).renames
        bare = Patched(original, read, (), **record)
        found = reset_statistics(module, data, weights=bare, device=device, before=told)
        replaced = {name: found[stored.get(name, name)] for name in own if stored.get(name, name) in found}
        if missing := next((name for name in own if name not in replaced), None):
            raise ArgumentError(
                f"{missing!r} cannot be re-estimated (instance norm, or a layer that the data do not reach): say "
                "'untouched' or 'copied'."
            )
    firsts = {*added, *replaced}
    touched = [name for name, info in original.infos.items() if (info.tied_to or name) in firsts]
    return told_whole(Patched(original, read, touched, **record), lambda: report("", done, done))


def restored(weights: ModelLike, undo: ModelLike | None) -> Weights:
    """What `Signature.remove` does; see there."""
    if undo is None:
        if isinstance(weights, Patched):
            return weights.original
        raise ArgumentError(
            "undo=None goes with what apply returned in this session: expected the file of its save_undo(path), as "
            "subtracting a signature does not restore every bit."
        )
    kept, found = load(undo), load(weights).snapshot()
    try:
        told = json.loads(kept.metadata[UNDO])
        expected, before = dict(told["patched"]), dict(told["original"])
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(kept.source, None, "no undo: expected a file that save_undo wrote") from error
    if more := next((name for name in found if name not in expected), None):
        raise ArgumentError(f"{found.source} has {more!r}, which the patched network has not.{nearest(more, expected)}")
    for name, fingerprint in expected.items():
        if name not in found:
            raise ArgumentError(f"{found.source} has no tensor {name!r}, which was patched.{nearest(name, found)}")
        if content_fingerprint(found.borrowed(name)) != fingerprint:
            raise ArgumentError(
                f"{name!r} in {found.source} is not as the signature left it: it was trained, cast or patched since, "
                "and what it was before is not known."
            )
    for name in kept:
        if content_fingerprint(kept.borrowed(name)) != before.get(name):
            raise CheckpointError(kept.source, name, "the original tensor is damaged")

    def read(info: TensorInfo) -> Tensor:
        name = info.name
        return kept[name].to(found.borrowed(name).device) if name in kept else found[name]

    source = f"{short_source(found.source)} without {told.get('signature', 'its signature')}"
    return Weights(list(found.infos.values()), read, source=source, ordered=found.ordered)


def _added(delta: Weights, original: Weights, layers: Selection) -> dict[str, str]:
    """First name of a tensor of the model → the signature's tensor that is added to it.

    Raises:
        ArgumentError: the model lacks one, has another shape or kind, or ties what the signature changes differently.
    """
    found: dict[str, str] = {}
    for name in chosen(delta, layers):
        info = original.infos.get(name)
        if info is None:
            raise ArgumentError(
                f"{original.source} has no tensor {name!r}, which the signature changes: expected a network of the "
                f"same architecture, or layers=… that both have.{nearest(name, original)}"
            )
        if told := refused(info, short_source(original.source)):
            raise ArgumentError(f"{told} Or leave it out with layers=….")
        if info.shape != delta.infos[name].shape or not info.dtype.is_floating_point:
            raise ArgumentError(
                f"{name!r} is {list(info.shape)} of {info.dtype} in {original.source} and "
                f"{list(delta.infos[name].shape)} in the signature: leave it out with layers=…."
            )
        first = info.tied_to or name
        other = found.setdefault(first, name)
        if other != name and not torch.equal(delta[other], delta[name]):
            raise ArgumentError(
                f"{original.source} ties {name!r} to {other!r}, and the signature changes them differently: choose one "
                "of them with layers=…."
            )
    return found


def _sum(name: str, tensor: Tensor, delta: Tensor, scale: float) -> Tensor:
    """θ + α·RWS in float64, rounded once.

    Raises:
        ArgumentError: it overflows the dtype.
    """
    total = torch.empty(tensor.numel(), dtype=tensor.dtype, device=tensor.device)
    start = 0
    for theta, added in flat_pieces(tensor, delta, device=tensor.device):
        piece = (theta + scale * added).to(tensor.dtype)
        if bool((theta.isfinite() & ~piece.isfinite()).any()):
            raise ArgumentError(f"{name!r} overflows {tensor.dtype} at scale={scale:g}: choose a smaller one.")
        total[start : start + len(piece)] = piece
        start += len(piece)
    return total.reshape(tensor.shape)


def _check_policy(
    batch_norm: str | None,
    original: Weights,
    statistics: Mapping[str, Tensor],
    data: Iterable[Any] | None,
    module: nn.Module | None,
) -> None:
    own = [name for name in original if is_statistic(name)]
    if batch_norm not in (None, "untouched", "copied", "re-estimated"):
        raise ArgumentError(
            f"batch_norm={batch_norm!r}: expected {POLICIES}, or None for a network without batch norm."
        )
    if batch_norm is None and own:
        raise ArgumentError(
            f"batch_norm=None, but {original.source} has running statistics ({own[0]!r}), which decide the numbers: "
            f"say {POLICIES}."
        )
    if batch_norm == "re-estimated" and (data is None or module is None):
        lacks = "data=…, batches to run" if data is None else "a model that is an nn.Module, or module=…"
        raise ArgumentError(f"batch_norm='re-estimated' runs the network: it needs {lacks}.")
    if batch_norm != "re-estimated" and data is not None:
        raise ArgumentError(f"data are for batch_norm='re-estimated'; it is {batch_norm!r}, so leave them out.")
    for name in own if batch_norm == "copied" else ():
        if name not in statistics:
            raise ArgumentError(
                f"batch_norm='copied', but the signature has no {name!r}: it is a mean, or of networks without it; say "
                "'untouched' or 're-estimated'."
            )
        info, tensor = original.infos[name], statistics[name]
        if info.shape != tensor.shape or info.dtype.is_floating_point != tensor.is_floating_point():
            raise ArgumentError(
                f"batch_norm='copied', but {name!r} is {list(info.shape)} of {info.dtype} in {original.source} and "
                f"{list(tensor.shape)} of {tensor.dtype} in the signature: say 'untouched' or 're-estimated'."
            )


def _fingerprints(weights: Weights) -> dict[str, str]:
    """Of every name; those of one tied tensor have the same."""
    found: dict[str, str] = {}
    for name, info in weights.infos.items():
        found[name] = found[info.tied_to] if info.tied_to else content_fingerprint(weights.borrowed(name))
    return found
