"""Inner products and signs of a tensor W and of its changes τ = W′ − W in several models, in one walk over them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = NDArray[Any]

PIECE = 1 << 17  # elements at a time: measured; with fewer Python's calls cost more than what leaves the cache
BLOCK = 1 << 9  # products that float32 adds up: 4096 equal ones would be off by 1e-6, and these are by 1e-7
EXACT = 1 << 16  # tensors up to this size are summed in float64 alone: nothing is gained by less
RANGE = 1e-30, 1e30  # mean squares between them neither underflow nor overflow float32
NARROW = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Sums over the elements of a base tensor W and of k others; each is additive, so that tensors can be pooled.

    Attributes:
        elements: number of elements.
        base: ΣW².
        others: ΣW′² of each, shape k.
        cross: ΣWW′ of each, shape k.
        changes: Στᵢτⱼ, shape k×k.
        changed: elements with τ ≠ 0, shape k.
        both: elements where W and W′ are not zero, shape k.
        flipped: those among them whose signs differ, shape k.
        pair_both: elements where τᵢ and τⱼ are not zero, shape k×k.
        pair_flipped: those among them whose signs differ, shape k×k.
    """

    elements: int
    base: float
    others: Array
    cross: Array
    changes: Array
    changed: Array
    both: Array
    flipped: Array
    pair_both: Array
    pair_flipped: Array

    def of(self, index: int) -> dict[str, float | int]:
        """The sums of one model, as they are pooled."""
        named = {name: float(getattr(self, name)[index]) for name in ("others", "cross", "changed", "both", "flipped")}
        return {"elements": self.elements, "base": self.base, "change": float(self.changes[index, index]), **named}

    @property
    def base_finite(self) -> bool:
        """Whether no element of the base is NaN or infinite, nor their sum of squares."""
        return math.isfinite(self.base)

    def finite_of(self, index: int) -> bool:
        """The same of one of the others, and of what it changes."""
        return bool(np.isfinite([self.others[index], self.cross[index], self.changes[index, index]]).all())

    @property
    def finite(self) -> bool:
        """Whether no element is NaN or infinite, and no square overflows."""
        return bool(np.isfinite([self.base, *self.others, *self.cross, *self.changes.flat]).all())


def element_sums(base: Tensor, others: Sequence[Tensor], pairs: Sequence[tuple[int, int]] = ()) -> Sums:
    """The sums of one tensor and of the same in other models.

    Args:
        base: real, of any floating dtype.
        others: tensors of the same shape.
        pairs: which of the others' changes are compared with each other, i < j.

    Returns:
        Sums in float64. Pieces of large tensors of float32 or less are multiplied in float32: the relative error of a
        sum of squares is about 1e-7. Signs and counts are exact.
    """
    count = len(others)
    total = {name: np.zeros(count) for name in ("others", "cross")}
    counts = {name: np.zeros(count, dtype=np.int64) for name in ("changed", "both", "flipped")}
    changes, base_squares = np.zeros((count, count)), 0.0
    pair_counts = np.zeros((2, count, count), dtype=np.int64)
    size = min(PIECE, max(base.numel(), 1))
    changed_by: list[Array] = []
    live, above = (np.empty((2 * count + 1, size), dtype=bool) for _ in range(2))
    one, two = (np.empty(size, dtype=bool) for _ in range(2))
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        for pieces in piece_arrays(base, *others):
            length = len(pieces[0])
            if not changed_by or changed_by[0].dtype != pieces[0].dtype:
                changed_by = [np.empty(size, dtype=pieces[0].dtype) for _ in others]
            taus = [own[:length] for own in changed_by]
            for tau, own in zip(taus, pieces[1:], strict=True):
                np.subtract(own, pieces[0], out=tau)
            base_squares += _dot(pieces[0], pieces[0])
            for place, own in enumerate(pieces[1:]):
                total["others"][place] += _dot(own, own)
                total["cross"][place] += _dot(pieces[0], own)
                changes[place, place] += _dot(taus[place], taus[place])
            for i, j in pairs:
                changes[i, j] += _dot(taus[i], taus[j])
            signs = [
                (np.not_equal(own, 0, out=live[row, :length]), np.greater(own, 0, out=above[row, :length]))
                for row, own in enumerate([*pieces, *taus])
            ]
            mine, scratch = signs[0], (one[:length], two[:length])
            for place in range(count):
                counts["changed"][place] += np.count_nonzero(signs[1 + count + place][0])
                both, flipped = _signs(mine, signs[1 + place], scratch)
                counts["both"][place] += both
                counts["flipped"][place] += flipped
            for i, j in pairs:
                pair_counts[:, i, j] += _signs(signs[1 + count + i], signs[1 + count + j], scratch)
    for matrix in (changes, *pair_counts):
        matrix += np.triu(matrix, 1).T
    return Sums(
        elements=base.numel(),
        base=base_squares,
        changes=changes,
        pair_both=pair_counts[0],
        pair_flipped=pair_counts[1],
        **total,
        **counts,
    )


def piece_arrays(*tensors: Tensor) -> Iterator[list[Array]]:
    """Consecutive elements of tensors of one size as vectors of one dtype: float64, or float32 for large tensors.

    Each is for reading only, and only until the next is asked for.
    """
    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    narrow = flat[0].numel() > EXACT and all(tensor.dtype in NARROW for tensor in flat)
    dtype = torch.float32 if narrow else torch.float64
    size = min(PIECE, flat[0].numel())
    cast = {place: torch.empty(size, dtype=dtype) for place, one in enumerate(flat) if one.dtype != dtype}
    for parts in zip(*(torch.split(one, PIECE) for one in flat), strict=True):
        yield [
            (cast[place][: len(part)].copy_(part) if place in cast else part.cpu()).numpy()
            for place, part in enumerate(parts)
        ]


def _dot(one: Array, other: Array) -> float:
    """⟨one, other⟩; in float64 where float32 would lose it."""
    if one.dtype == np.float64:
        return float(np.dot(one, other))
    even = len(one) - len(one) % BLOCK
    rows = np.vecdot(one[:even].reshape(-1, BLOCK), other[:even].reshape(-1, BLOCK))
    found = float(rows.sum(dtype=np.float64)) + float(np.dot(one[even:], other[even:]))
    if not RANGE[0] * len(one) < abs(found) < RANGE[1] * len(one):
        return float(np.dot(one.astype(np.float64), other.astype(np.float64)))
    return found


def _signs(one: tuple[Array, Array], other: tuple[Array, Array], scratch: tuple[Array, Array]) -> tuple[int, int]:
    """Elements where both are not zero, and those among them whose signs differ."""
    both, differ = scratch
    np.logical_and(one[0], other[0], out=both)
    np.not_equal(one[1], other[1], out=differ)
    np.logical_and(differ, both, out=differ)
    return int(np.count_nonzero(both)), int(np.count_nonzero(differ))


def kept_signs(base: Tensor, others: Sequence[Tensor], density: float) -> tuple[Array, Array]:
    """The pairwise counts of signs among the elements that are of the largest share of |τ| in both.

    Elements equal to the smallest that is kept are kept too, so that bf16's many equal ones are treated alike.

    Args:
        base: real, of any floating dtype.
        others: two or more of the same shape.
        density: the share kept, round(density · n) elements, one at least.

    Returns:
        Counts of elements kept in both and of those whose signs differ, k×k.

    Cost: a partition of each change; one copy of a tensor beside those given.
    """
    size, count = base.numel(), len(others)
    keep = max(round(density * size), 1)
    both, flipped = (np.zeros((count, count), dtype=np.int64) for _ in range(2))
    edges = []
    for other in others:
        magnitudes = change_magnitudes(base, other)
        magnitudes.partition(size - keep)
        edges.append(magnitudes[size - keep])
    for pieces in piece_arrays(base, *others):
        taus = [own - pieces[0] for own in pieces[1:]]
        signs = [((np.abs(tau) >= edge) & (tau != 0), tau > 0) for tau, edge in zip(taus, edges, strict=True)]
        scratch = (np.empty(len(pieces[0]), dtype=bool), np.empty(len(pieces[0]), dtype=bool))
        for i in range(count):
            for j in range(i, count):
                both[i, j], flipped[i, j] = np.array([both[i, j], flipped[i, j]]) + _signs(signs[i], signs[j], scratch)
    for matrix in (both, flipped):
        matrix += np.triu(matrix, 1).T
    return both, flipped


def change_magnitudes(base: Tensor, other: Tensor) -> Array:
    """|τ| of all elements as one vector, in the precision in which pieces are computed."""
    found, place = np.empty(0), 0
    for one in piece_arrays(base, other):
        if not place:
            found = np.empty(base.numel(), dtype=one[0].dtype)
        np.subtract(one[1], one[0], out=found[place : place + len(one[0])])
        place += len(one[0])
    return np.abs(found, out=found)


def not_finite(tensor: Tensor) -> tuple[int, int]:
    """Numbers of NaN and of infinite elements."""
    nan = infinite = 0
    for (piece,) in piece_arrays(tensor):
        nan += int(np.isnan(piece).sum())
        infinite += int(np.isinf(piece).sum())
    return nan, infinite


def not_finite_text(label: str, tensor: Tensor) -> str:
    """How many elements of a tensor are NaN or infinite; empty if none is."""
    counts = zip(not_finite(tensor), ("NaN", "infinite"), strict=True)
    told = " and ".join(f"{count} of {tensor.numel()} elements {word}" for count, word in counts if count)
    return f"{told} in {label}" if told else ""
