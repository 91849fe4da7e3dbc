"""How many eigenvalues of a Gram matrix are more than rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.linalg import Moments
from workbench.linalg.gram import symmetric_eigenvalues

EPS = torch.finfo(torch.float64).eps
SINGLE = torch.finfo(torch.float32).eps  # narrower floats are summed in float32 and rounded once


@dataclass(frozen=True, kw_only=True, eq=False)
class NumericalRank:
    """The rank of a Gram matrix and what it was counted from.

    Attributes:
        eigenvalues: by size, the largest first; negative rounding is 0. NaN where the matrix is not finite.
        floor: eigenvalues above it count; NaN where the matrix is not finite.
        rank: how many do; NaN where the matrix is not finite.
    """

    eigenvalues: Float[Tensor, " width"]
    floor: float
    rank: float


def numerical_rank(
    gram: Float[Tensor, "width width"], count: int, *, threshold: float | None = None, rounding: float = 0.0
) -> NumericalRank:
    """The number of eigenvalues above threshold·λmax, or above `rounding` if that is more.

    Args:
        gram: symmetric, float64.
        count: number n of samples that it is a sum over.
        threshold: as in `noise_floor`.
        rounding: as in `noise_floor`.

    Example:
        >>> numerical_rank(torch.diag(torch.tensor([1e-9, 0.0, 4e-9], dtype=torch.float64)), 10).rank
        2.0
    """
    width = len(gram)
    if not bool(torch.isfinite(gram).all()):
        return NumericalRank(eigenvalues=torch.full((width,), math.nan).double(), floor=math.nan, rank=math.nan)
    eigenvalues = symmetric_eigenvalues([(gram + gram.T) / 2])[0].flip(0).clamp_min(0).cpu()
    floor = noise_floor(float(eigenvalues[0]), width, count, threshold, rounding)
    return NumericalRank(eigenvalues=eigenvalues, floor=floor, rank=float((eigenvalues > floor).sum()))


def noise_floor(largest: float, width: int, count: int, threshold: float | None, rounding: float) -> float:
    """The eigenvalue of a Gram matrix below which all is rounding: that of the sums, or of what was summed.

    Args:
        largest: λmax.
        width: of the matrix.
        count: number n of samples that it is a sum over.
        threshold: share of λmax; None for ε·max(width, √n): an eigensolver errs by about width·ε·λmax, and n sums that
            are rounded at random by about √n·ε·λmax.
        rounding: what the rounding of the samples themselves leaves, as an eigenvalue (see `rounding_floor`); with a
            threshold of the caller's it does not count.
    """
    if threshold is not None:
        return threshold * largest
    return max(EPS * max(width, math.sqrt(count)) * largest, rounding)


def rounding_floor(gram: Float[Tensor, "width width"], dtype: torch.dtype | None) -> float:
    """The eigenvalue that rounding of the samples leaves where there is nothing: (ε² + d·ε₃₂²)·max_j G_jj.

    A value f rounded to a dtype of precision ε has an error with a variance of at most ε²f²/12, and a sum of m terms
    before that about m·ε₃₂²f²/12 (narrow floats are summed in float32), with d features for the unknown m. Errors of
    different features are as good as independent, so their covariance is diagonal and its largest eigenvalue is at
    most the largest of them, E[f_j²] = G_jj; the 12 left out is the margin for their spread over few samples.

    Args:
        gram: E[ffᵀ] of the samples, uncentred: rounding is relative to values, not to their spread, so that what is the
            same for all data but for its last bit is constant.
        dtype: what the samples were computed in; None for float64.
    """
    precision = torch.finfo(dtype or torch.float64).eps
    summed = min(precision, SINGLE)
    return (precision**2 + len(gram) * summed**2) * float(gram.diagonal().max())


def second_moment_rank(moments: Moments, threshold: float | None, dtype: torch.dtype | None) -> NumericalRank:
    """The rank of G = E[ffᵀ], uncentred."""
    gram = moments.gram
    return numerical_rank(gram, moments.count, threshold=threshold, rounding=rounding_floor(gram, dtype))


def covariance_rank(moments: Moments, threshold: float | None, dtype: torch.dtype | None) -> NumericalRank:
    """The rank of E[(f−μ)(f−μ)ᵀ]; that of [f, 1] is one more."""
    rounding = rounding_floor(moments.gram, dtype)
    return numerical_rank(moments.covariance, moments.count, threshold=threshold, rounding=rounding)


class GradientSum:
    """Σ gᵀg of gradients, a matrix for each group of features, in two halves whose difference tells the error.

    Args:
        groups: groups of features that no weight joins.
        width: features of a group.
        device: where it accumulates.
    """

    def __init__(self, groups: int, width: int, device: torch.device) -> None:
        self.groups, self.width, self.count, self.probes = groups, width, 0, 0
        self._halves = torch.zeros(2, groups, width, width, dtype=torch.float64, device=device)

    def add(self, rows: Float[Tensor, "datapoints features"], probe: int) -> None:
        """Adds the gradients of one cotangent; even and odd probes are kept apart."""
        grouped = rows.double().reshape(len(rows), self.groups, self.width).movedim(1, 0)
        self._halves[probe % 2] += grouped.mT @ grouped

    def drawn(self, rows: int, probes: int) -> None:
        """Says over how many datapoints and probes a batch went; 0 probes for all directions."""
        self.count, self.probes = self.count + rows, probes

    @property
    def matrices(self) -> Sequence[Float[Tensor, "width width"]]:
        """M′ = E[JᵀJ] of each group, a mean over datapoints, or an estimate of it."""
        return list(self._halves.sum(0) / (max(self.count, 1) * max(self.probes, 1)))

    @property
    def error(self) -> float:
        """Relative standard error in the Frobenius norm; 0 where nothing was drawn, NaN for a single probe."""
        if not self.probes:
            return 0.0
        if self.probes < 2 or not self.count:
            return math.nan
        shares = torch.tensor([(self.probes + 1) // 2, self.probes // 2], device=self._halves.device)
        means = self._halves / shares.view(2, 1, 1, 1)
        whole = self._halves.sum(0) / self.probes
        variance = float(((means - whole).square().sum((1, 2, 3)) * shares).sum()) / self.probes
        norm = float(whole.square().sum())
        return math.sqrt(variance / norm) if norm else 0.0

    def rank(self, threshold: float | None, dtype: torch.dtype | None) -> list[NumericalRank]:
        """The rank of each group's M′."""
        draws = self.count * max(self.probes, 1)
        return [
            numerical_rank(one, draws, threshold=threshold, rounding=rounding_floor(one, dtype))
            for one in self.matrices
        ]
