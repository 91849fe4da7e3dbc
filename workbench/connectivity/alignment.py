"""Alignment of singular vectors between two networks (Ito et al., arXiv 2402.04051)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.layers import layer_list, layer_views, matrices
from workbench.weights import Weights


def singular_alignment(
    a: Float[Tensor, "rows cols"], b: Float[Tensor, "rows cols"], gammas: Sequence[float]
) -> list[tuple[float, float]]:
    """⟨U_A V_Aᵀ, U_B V_Bᵀ⟩ and √(n_A·n_B) over the singular vectors with σ ≥ γ·σmax, for every γ.

    Args:
        a: a matrix; n_A are its vectors that are kept.
        b: another of the same shape; n_B are its.
        gammas: thresholds relative to each matrix's largest singular value, 0 to 1. At 0 what is zero to rounding is
            left out.

    Returns:
        Overlap and count for each γ. Their ratio lies in [−1, 1], and is 1 for equal matrices.

    Cost: two singular value decompositions in float64.

    Source: Ito et al., section 4.2: there the sum over layers is divided by Σ n, both networks having as many. Ours:
    √(n_A·n_B), which bounds the ratio by 1 also where they have not.

    Example:
        >>> [overlap for overlap, _ in singular_alignment(torch.eye(3), -torch.eye(3), [0.0])]
        [-3.0]
    """
    return _overlaps(_decomposed(a), _decomposed(b), gammas)


Decomposed: TypeAlias = tuple[Tensor, Tensor, Tensor]


def _overlaps(left: Decomposed, right: Decomposed, gammas: Sequence[float]) -> list[tuple[float, float]]:
    products = (left[0].T @ right[0]) * (left[2] @ right[2].T)
    found = []
    for gamma in gammas:
        n_a, n_b = (_kept(part, gamma) for part in (left, right))
        found.append((float(products[:n_a, :n_b].sum()), float((n_a * n_b) ** 0.5)))
    return found


def _decomposed(matrix: Tensor) -> Decomposed:
    u, s, vh = torch.linalg.svd(matrix.to(torch.float64), full_matrices=False)
    return u, s, vh


def _kept(decomposed: Decomposed, gamma: float) -> int:
    u, s, vh = decomposed
    if not len(s) or s[0] == 0:
        return 0
    rounding = torch.finfo(torch.float64).eps * max(len(u), vh.shape[1])
    return int((s >= max(gamma, rounding) * s[0]).sum())


def alignments(
    a: Weights,
    before: Weights,
    after: Weights,
    gammas: Sequence[float],
    names: Mapping[str, str],
    report: Callable[[str, int, int], None] = lambda layer, done, total: None,
) -> list[dict[str, Any]]:
    """A row per matrix layer and γ: the overlap with A before and after the permutation.

    Args:
        a: the network that stays.
        before: the other.
        after: the other, permuted.
        gammas: thresholds.
        names: a's name of a tensor → the other's.
        report: told layer, number and total before each.
    """
    layers = layer_list(layer_views(a)) if gammas else []
    rows = []
    for done, layer in enumerate(layers):
        report(layer.layer, done, len(layers))
        own, *others = (
            [_decomposed(matrix) for matrix in matrices(layer, tensor, "flatten")]
            for tensor in (a[layer.tensor], *(weights[names[layer.tensor]] for weights in (before, after)))
        )
        sums = [[_overlaps(x, y, gammas) for x, y in zip(own, other, strict=True)] for other in others]
        for index, gamma in enumerate(gammas):
            was, now = (sum(pair[index][0] for pair in pairs) for pairs in sums)
            count = sum(pair[index][1] for pair in sums[0])
            row = {"layer": layer.layer, "depth": layer.depth, "gamma": float(gamma), "vectors": count}
            rows.append(row | {"overlap_before": was, "overlap_after": now})
    return rows
