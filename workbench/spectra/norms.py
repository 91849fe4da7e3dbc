"""Norms and ranks that one spectrum gives, before any fit."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

LN10 = math.log(10)
BLOCK_ELEMENTS = 1 << 20  # elements looked at a time


def zero_threshold(eigenvalues: Float[Tensor, " n"], long_side: int) -> float:
    """ε·N·λmax in float64: eigenvalues at or below it are rounding of a Gram matrix, not weights."""
    return torch.finfo(torch.float64).eps * long_side * float(eigenvalues[-1])


def stable_rank(eigenvalues: Float[Tensor, " n"]) -> float:
    """Σλ/λmax: between 1 (rank one) and n (all equal); NaN if all are zero."""
    largest = float(eigenvalues[-1])
    return float(eigenvalues.sum()) / largest if largest > 0 else math.nan


def entropy(eigenvalues: Float[Tensor, " n"], rank: int) -> float:
    """−Σ p ln p / ln(rank) with p = λ/Σλ: 1 if all are equal; NaN below rank 2.

    Args:
        eigenvalues: λ ≥ 0.
        rank: the hard rank that normalises it.
    """
    if rank < 2:
        return math.nan
    share = eigenvalues / eigenvalues.sum()
    return -float(torch.xlogy(share, share).sum()) / math.log(rank)


def log_alpha_norm(eigenvalues: Float[Tensor, " n"], alpha: float) -> float:
    """log10 Σ λ^α, by a log-sum that neither overflows nor underflows."""
    positive = eigenvalues[eigenvalues > 0]
    return float(torch.logsumexp(alpha * positive.log(), 0)) / LN10 if len(positive) else math.nan


def alpha_weighted(eigenvalues: Float[Tensor, " n"], alpha: float) -> float:
    """α·log10 λmax."""
    largest = float(eigenvalues[-1])
    return alpha * math.log10(largest) if largest > 0 else math.nan


def live_length(matrices: Float[Tensor, "matrices rows cols"]) -> int:
    """The most rows of one of the matrices, or columns if these are more, that are not zero throughout; 1 at least.

    Dead rows on the long side leave no trace in the spectrum; on the short side they are zero eigenvalues.

    Example:
        >>> live_length(torch.tensor([[[1.0, 2.0], [0.0, 0.0], [0.0, 3.0]]]))
        2
    """
    long_axis = 1 if matrices.shape[1] >= matrices.shape[2] else 2
    step = max(BLOCK_ELEMENTS // max(matrices.shape[3 - long_axis], 1), 1)
    longest = 1
    for matrix in matrices:
        blocks = matrix.split(step, dim=long_axis - 1)
        longest = max(longest, sum(int((block != 0).any(dim=2 - long_axis).sum()) for block in blocks))
    return longest
