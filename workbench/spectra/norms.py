"""Norms and ranks that one spectrum gives, before any fit."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

LN10 = math.log(10)


def zero_threshold(eigenvalues: Float[Tensor, " n"], long_side: int) -> float:
    """ε·N·λmax in float64: eigenvalues at or below it are rounding of a Gram matrix, not weights."""
    return torch.finfo(torch.float64).eps * long_side * float(eigenvalues[-1])


def rounding_edge(largest: float, resolution: float) -> float:
    """ε²·λmax/3: eigenvalues of what rounding the elements of a matrix adds to it hardly ever lie above.

    Independent errors of wᵢⱼ·ε/√12 at most have singular values up to ε/√12 times the largest norm of a row and that
    of a column, and neither exceeds √λmax.

    Args:
        largest: λmax.
        resolution: ε of the floating dtype in which the elements were stored.

    Source: Bandeira & van Handel, "Sharp nonasymptotic bounds on the norm of random matrices with independent entries"
    (2016), without the logarithm.

    Example:
        >>> rounding_edge(12.0, 0.5)
        1.0
    """
    return resolution**2 * largest / 3


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
