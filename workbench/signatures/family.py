"""A base and models of its architecture, side by side tensor by tensor, with a policy for what differs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from workbench.errors import ArgumentError, nearest
from workbench.results import many, short_source
from workbench.signatures.common_ancestor import is_statistic
from workbench.weights import TensorInfo, Weights, content_fingerprint
from workbench.weights.differences import Difference, differences, looks_like_buffer, numbers, refused

Mismatch: TypeAlias = Literal["error", "base", "overlap"]
MISMATCHES: Mapping[str, str] = {
    "error": "refuse",
    "base": "the tensor stays the base's",
    "overlap": "the first rows that all have are merged, the others stay the base's",
}
PIECE = 1 << 17  # elements that are worked on at a time: a few arrays of them stay in cache


class Aligned(NamedTuple):
    """One tensor of the base and of every model, flat, the same elements of each."""

    base: Tensor
    models: tuple[Tensor, ...]
    precision: torch.dtype

    def pieces(self) -> Iterator[tuple[slice, Tensor, list[Tensor]]]:
        """(place, θ₀, [τ_i = θ_i − θ₀]) piece by piece, in the precision to compute in; the changes are new."""
        for place, base, models in self.values():
            changes = [model - base for model in models]
            if not math.isfinite(float(base.sum())):  # ∞ − ∞ of a mask that nobody changed
                alike = [(model == base) | (model.isnan() & base.isnan()) for model in models]
                changes = [change.masked_fill_(own, 0) for change, own in zip(changes, alike, strict=True)]
            yield place, base, changes

    def values(self) -> Iterator[tuple[slice, Tensor, list[Tensor]]]:
        """(place, θ₀, [θ_i]) piece by piece on the CPU, in the precision to compute in; to be read only."""
        for start in range(0, len(self.base), PIECE):
            place = slice(start, start + PIECE)
            base, *models = (one[place].to("cpu", self.precision) for one in (self.base, *self.models))
            yield place, base, models

    @property
    def identical(self) -> bool:
        """Whether the base and all models have the same bits."""
        if any(model.dtype != self.base.dtype for model in self.models):
            return False
        pieces = zip(*(torch.split(one, PIECE) for one in (self.base, *self.models)), strict=True)
        for piece in pieces:
            base, *models = (one.cpu().contiguous().view(torch.uint8) for one in piece)
            if not all(torch.equal(base, model) for model in models):
                return False
        return True

    def overflows(self, found: Tensor) -> bool:
        """Whether an element of the result is NaN or infinite where none of the base and the models is."""
        sums = (float(piece.to(self.precision).sum()) for piece in torch.split(found, PIECE))
        if all(map(math.isfinite, sums)):  # as one is not where an element is not
            return False
        return any(
            bool((~found[place].isfinite() & torch.stack([base, *models]).isfinite().all(0)).any())
            for place, base, models in self.values()
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """A base, its models, and which tensors of them are merged.

    Attributes:
        base: whose names, shapes and dtypes the result has.
        models: what is merged into it.
        merged: names of tensors that are merged, in order of depth; those of running statistics are not among them.
        statistics: names of running statistics, which are averaged.
        rows: name → how many of its first rows all have, where that is fewer than the base's.
        notes: what is treated otherwise, a sentence each.
    """

    base: Weights
    models: tuple[Weights, ...]
    merged: tuple[str, ...]
    statistics: tuple[str, ...]
    rows: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def elements(self) -> int:
        """Number of elements n that are merged."""
        return sum(self._size(name) for name in self.merged)

    def aligned(self, name: str) -> Aligned:
        """One tensor of each, for reading only, until this thread asks for the next."""
        size = self._size(name)
        base, *models = (one.borrowed(name).reshape(-1)[:size] for one in (self.base, *self.models))
        return Aligned(base, tuple(models), self.precision)

    @property
    def precision(self) -> torch.dtype:
        """What is computed in: float32, or float64 where a tensor is."""
        kinds = {one.infos[name].dtype for one in (self.base, *self.models) for name in self.merged}
        return torch.float64 if torch.float64 in kinds else torch.float32

    def only(self, model: int) -> Family:
        """The base with one of the models."""
        return replace(self, models=(self.models[model],))

    def _size(self, name: str) -> int:
        shape = self.base.infos[name].shape
        return prod(shape) if name not in self.rows else self.rows[name] * prod(shape[1:])


def family(base: Weights, models: Sequence[Weights], mismatch: str) -> Family:
    """The models beside the base.

    Raises:
        ArgumentError: they differ under the policy "error", have nothing in common, or have numbers that differences
            mean nothing of; or the policy is unknown.
    """
    if mismatch not in MISMATCHES:
        known = ", ".join(f"{name!r} ({meaning})" for name, meaning in MISMATCHES.items())
        raise ArgumentError(f"mismatch={mismatch!r}: expected one of {known}.{nearest(mismatch, MISMATCHES)}")
    own = [info for info in base.infos.values() if info.tied_to is None]
    real = [info for info in own if numbers(info) != "whole"]
    labels = [f"model {number} ({short_source(model.source)})" for number, model in enumerate(models, start=1)]
    differ = [list(differences(base, model, ("the base", label))) for label, model in zip(labels, models, strict=True)]
    reasons: dict[str, str] = {}
    for found in (one for theirs in differ for one in theirs if one.kind in ("missing", "shape", "kind")):
        reasons.setdefault(found.name, found.text)
    shared = {info.name: _common_rows(info, models) for info in real if info.name in reasons}
    overlaps = {name: common for name, common in shared.items() if common}
    if all(info.name in reasons for info in real) and not (overlaps and mismatch != "base"):
        raise ArgumentError(_nothing_common(base, models, reasons))
    notes = [note for label, one in zip(labels, differ, strict=True) for note in _foreign(base, label, one, mismatch)]
    merged: list[str] = []
    statistics: list[str] = []
    rows: dict[str, int] = {}
    for info in own:
        if reason := reasons.get(info.name, ""):
            if mismatch == "error":
                raise ArgumentError(
                    f"{reason}; what is to become of tensors that differ? Say mismatch='base' ({MISMATCHES['base']}) "
                    f"or mismatch='overlap' ({MISMATCHES['overlap']})."
                )
            if mismatch != "overlap" or info.name not in overlaps:
                notes.append(f"{info.name} is the base's: {reason}")
                continue
            rows[info.name] = overlaps[info.name]
            notes.append(_overlap_text(info, overlaps[info.name], labels, models))
        if numbers(info) == "whole":
            continue
        for label, weights in zip(("the base", *labels), (base, *models), strict=True):
            if told := refused(weights.infos[info.name], label):
                raise ArgumentError(told)
        (statistics if is_statistic(info.name) else merged).append(info.name)
    if same := _identical_buffers(base, models, [name for name in merged if name not in rows]):
        notes.append(f"the base's bit by bit, as all models have them so: {', '.join(same)}")
    if statistics:
        notes.append(
            f"{len(statistics)} running statistics are averages over the models, which are right for none of them: "
            "estimate them anew (wb.repair)"
        )
    if kept := len(own) - len(real):
        notes.append(f"{many(kept, 'tensor')} of integers {'is' if kept == 1 else 'are'} the base's")
    return Family(
        base=base,
        models=tuple(models),
        merged=tuple(merged),
        statistics=tuple(statistics),
        rows=rows,
        notes=tuple(notes),
    )


def _foreign(base: Weights, label: str, differ: Sequence[Difference], mismatch: str) -> Iterator[str]:
    """What a model has beyond the base: own values where the base has a tie, and tensors of its own.

    Raises:
        ArgumentError: it has, under the policy "error".
    """
    if untied := next((one for one in differ if one.kind == "tie"), None):
        if mismatch == "error":
            raise ArgumentError(
                f"{untied.text}: untie the base's (save it with both), or say mismatch='base' to keep the tie."
            )
        yield f"{untied.text}: the tie stays, and what that model has there is left out"
    if own := [one.name for one in differ if one.kind == "added"]:
        verb, them = ("is", "it") if len(own) == 1 else ("are", "them")
        first = f"{own[0]!r}{', …' if own[1:] else ''}"
        told = f"{many(len(own), 'tensor')} of {label} {verb} not in the base ({first})"
        if mismatch == "error":
            raise ArgumentError(f"{told}.{nearest(own[0], base.infos)} Say mismatch='base' to leave {them} out.")
        yield f"{told} and left out"


def _common_rows(info: TensorInfo, models: Sequence[Weights]) -> int:
    """How many first rows all have; 0 where they differ in more than their number."""
    others = [model.infos.get(info.name) for model in models]
    if (
        numbers(info) != "real"
        or not info.shape
        or any(
            one is None or numbers(one) != "real" or not one.shape or one.shape[1:] != info.shape[1:] for one in others
        )
    ):
        return 0
    return min(info.shape[0], *(one.shape[0] for one in others if one is not None))


def _overlap_text(info: TensorInfo, common: int, labels: Sequence[str], models: Sequence[Weights]) -> str:
    """What of a tensor is merged, what stays the base's, and which rows of the models are lost."""
    kept = info.shape[0] - common
    first = f"the first {common} of {info.shape[0]} rows are merged" if kept else f"all {common} rows are merged"
    told = [f"{info.name}: {first}", *(["the others the base's"] if kept else [])]
    for label, model in zip(labels, models, strict=True):
        if lost := model.infos[info.name].shape[0] - common:
            told.append(f"the last {lost} of the {common + lost} rows of {label} are left out")
    return ", ".join(told)


def _identical_buffers(base: Weights, models: Sequence[Weights], names: Sequence[str]) -> list[str]:
    """Names of what looks like buffers, such as masks, and has the same bits everywhere; nothing else is read."""
    found = []
    for name in names:
        if looks_like_buffer(base.infos[name]) and len({one.infos[name].dtype for one in (base, *models)}) == 1:
            prints = {content_fingerprint(one.borrowed(name)) for one in (base, *models)}
            found += [name] if len(prints) == 1 else []
    return found


def _nothing_common(base: Weights, models: Sequence[Weights], reasons: Mapping[str, str]) -> str:
    """Why nothing can be merged: other names, or other shapes."""
    where = "the model" if len(models) == 1 else f"all {len(models)} models"
    message = f"no tensor of {short_source(base.source)} is in {where} in the same shape"
    if any(name in model.infos for model in models for name in reasons):
        return f"{message}: another architecture. The first difference: {next(iter(reasons.values()))}."
    first, second = (next(iter(weights), "no tensor") for weights in (base, models[0]))
    return (
        f"{message}: they are of another architecture, or their names have another prefix ({first!r} against "
        f"{second!r})."
    )
