"""Norms and ranks that one spectrum gives, before any fit."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

LN10 = math.log(10)


def zero_threshold(eigenvalues: Float[Tensor, " n"], long_side: int) -> float:
    """ε·N·λmax in float64: eigenvalues at or below it are rounding of a Gram matrix, not weights."""
    return torch.finfo(torch.float64).eps * long_side * float(eigenvalues[-1])


def rounding_edge(total: float, rows: int, cols: int, resolution: float) -> float:
    """ε²·Σλ/12·(1/√N + 1/√M)²: eigenvalues of the rounding of N×M elements lie below it.

    Args:
        total: Σλ, the squared Frobenius norm.
        rows: rows of the matrix.
        cols: its columns.
        resolution: ε of the floating dtype in which the elements were stored; its errors are even within ε/2 of an
            element at most.

    Example:
        >>> rounding_edge(12.0, 4, 1, 0.5)
        0.5625
    """
    return resolution**2 * total / 12 * (1 / math.sqrt(rows) + 1 / math.sqrt(cols)) ** 2


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
