"""The spectrum of a change: ranks, what a LoRA of it would cost, whether it lies in the base's leading directions."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import LayerError
from workbench.layers import Layer, matrices
from workbench.linalg import gram, gram_eigenvalues, stable_rank

SHARES = (50, 90, 95, 99)  # per cent of Στ² for which a rank is given
EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Singular:
    """Singular values of the matrices of a layer, seen as one block-diagonal matrix, and its leading vectors.

    Attributes:
        values: all σ, descending, float64.
        left: leading left vectors, a column each, in the order of the values.
        right: leading right vectors.
    """

    values: Float[Tensor, " n"]
    left: Float[Tensor, "rows q"]
    right: Float[Tensor, "cols q"]


def singular(own: Float[Tensor, "groups rows cols"], vectors: int, exact: bool) -> Singular:
    """Singular values in float64 and the leading vectors.

    Args:
        own: matrices of one shape, float64.
        vectors: how many leading vectors are kept; fewer where there are fewer σ > 0.
        exact: by the singular value decomposition; else by Gram matrices, where σ ≤ √(ε·N)·σ₁ is rounding and given as
            0: that is below the rounding of weights stored in float32 or less.

    Raises:
        LayerError: an element is not finite, or the solver does not converge.
    """
    if not bool(torch.isfinite(own).all()):
        raise LayerError("an element is NaN or infinite")
    groups, rows, cols = own.shape
    try:
        if exact:
            left, values, right = torch.linalg.svd(own, full_matrices=False)
        else:
            grams = torch.stack([gram(one) for one in own])
            squares, inner = torch.linalg.eigh(grams)
            values, inner = squares.clamp_min(0).sqrt().flip(-1), inner.flip(-1)
            outer = (own if rows >= cols else own.mT) @ inner[..., :vectors]
            outer = outer / outer.norm(dim=-2, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
            left, right = (outer, inner.mT) if rows >= cols else (inner, outer.mT)
    except RuntimeError as error:
        raise LayerError(f"the solver did not converge on {groups} matrices of {rows}×{cols}") from error
    largest = float(values.max())
    zero = (EPS * max(rows, cols) if exact else math.sqrt(EPS * max(rows, cols))) * largest
    values = torch.where(values > zero, values, 0.0)
    pooled, order = values.flatten().sort(descending=True, stable=True)
    count = min(vectors, int((pooled > 0).sum()))
    found_left, found_right = own.new_zeros(groups * rows, count), own.new_zeros(groups * cols, count)
    for place, index in enumerate(order[:count].tolist()):
        group, number = divmod(index, values.shape[-1])
        found_left[group * rows : (group + 1) * rows, place] = left[group, :, number]
        found_right[group * cols : (group + 1) * cols, place] = right[group, number]
    return Singular(pooled, found_left, found_right)


def _stable_rank(values: Float[Tensor, " n"]) -> float:
    """Σσ²/σ₁² of descending σ, whose squares may leave the range of numbers."""
    return stable_rank((values / values[0]).square())


def effective_rank(values: Float[Tensor, " n"]) -> float:
    """exp(H(p)) with p = σ/Σσ: 1 for rank one, n if all are equal; NaN if all are zero.

    Source: Roy & Vetterli, "The effective rank" (2007).
    """
    total = float(values.sum())
    if not total > 0:
        return math.nan
    share = values / total
    return math.exp(-float(torch.xlogy(share, share).sum()))


def rank_of_share(values: Float[Tensor, " n"], share: float) -> int:
    """r_x, the least r with Σ_{≤r}σ² ≥ x·Σσ² of descending σ; 0 if all are zero.

    Example:
        >>> values = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64)
        >>> [rank_of_share(values, share) for share in (0.5, 0.66, 0.9, 1.0)]
        [1, 1, 3, 3]
    """
    if not len(values) or float(values[0]) <= 0:
        return 0
    sums = (values / values[0]).square().cumsum(0)
    needed = share * float(sums[-1]) * (1 - 4 * EPS)  # x = 1 must not ask for more than the rounded sum
    return min(int((sums < needed).sum()) + 1, len(values))


def overlap(one: Float[Tensor, "n q"], other: Float[Tensor, "n q"]) -> float:
    """‖AᵀB‖²/q of q orthonormal columns each: 1 for the same span, q/n on average for independent ones.

    Example:
        >>> axes = torch.eye(4, dtype=torch.float64)
        >>> overlap(axes[:, :2], axes[:, :2]), overlap(axes[:, :2], axes[:, 1:3])
        (1.0, 0.5)
    """
    return float((one.T @ other).square().sum()) / one.shape[1] if one.shape[1] else math.nan


def base_singular(layer: Layer, base: Tensor, directions: int) -> Singular:
    """Of W: computed once for all models."""
    return singular(matrices(layer, base, "flatten").double(), directions, base.dtype == torch.float64)


def change_spectra(
    layer: Layer, base: Tensor, other: Tensor, own: Singular, directions: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The row of one model's change in one layer, and σ of the change and of W′.

    Args:
        layer: what holds the matrices; kernel positions lie in the columns.
        base: the whole tensor W.
        other: W′ of the same shape.
        own: what `base_singular` gave.
        directions: leading singular vectors to compare, of a quarter of the smaller side at most.
    """
    before, after = (matrices(layer, tensor, "flatten").double() for tensor in (base, other))
    exact = torch.float64 in (base.dtype, other.dtype)
    groups, rows, cols = before.shape
    change = singular(after - before, directions, exact)
    if exact:
        later = torch.linalg.svdvals(after).flatten().sort(descending=True).values
    else:
        later = gram_eigenvalues(after).sqrt().flatten().sort(descending=True).values
        later = torch.where(later > math.sqrt(EPS * max(rows, cols)) * later[0], later, 0.0)
    count = min(change.left.shape[1], own.left.shape[1], max(min(rows, cols) // 4, 1))
    rank, size = rank_of_share(change.values, 0.9), base.dtype.itemsize
    norm = float(own.values.norm())
    row = {
        "rows": groups * rows,
        "cols": groups * cols,
        **{
            f"{prefix}{name}": function(values)
            for prefix, values in (("", change.values), ("base_", own.values), ("other_", later))
            for name, function in (("stable_rank", _stable_rank), ("effective_rank", effective_rank))
        },
        **{f"rank_{share}": rank_of_share(change.values, share / 100) for share in SHARES},
        "bytes_90": rank * (rows + cols) * size,
        "bytes_full": groups * rows * cols * size,
        "directions": count,
        "overlap": overlap(own.left[:, :count], change.left[:, :count]),
        "chance": count / (groups * rows),
        "overlap_right": overlap(own.right[:, :count], change.right[:, :count]),
        "chance_right": count / (groups * cols),
        "spectral_change": float((later - own.values).norm()) / norm if norm > 0 else math.nan,
    }
    return row, {"change": change.values, "after": later}
