"""Other kinds of noise that may explain a layer: a variance of each matrix its own, copies, rare large entries.

`nulls` knows independent entries of one variance and of little kurtosis. What it calls something else is compared here
with noise of the kinds that the entries or the matrices tell of.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.spectra.entries import excess_kurtosis
from workbench.spectra.marchenko_pastur import largest_noise_eigenvalue, relaxed
from workbench.spectra.nulls import DEVIATIONS, EDGE_LEVEL

LARGEST_STRETCH = 0.5  # κ/√(N·M) up to which `stretched` is a law of noise; entries of infinite variance lie beyond
SAME = 1e-9  # of the largest λ: spectra this close are of one matrix and its multiples


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Eigenvalues of matrices, or of windows of them, and the entries they come from.

    Attributes:
        eigenvalues: the positive λ, in any order, in float64.
        rows: rows of each matrix or window.
        cols: columns of each.
        matrices: number of these.
        independent: how many would hold as many entries without overlap.
        entries: matrices that hold the entries.
        elements: entries of one of them that count, where dead rows and columns do not; None for all.
    """

    eigenvalues: Float[Tensor, " n"]
    rows: int
    cols: int
    matrices: int
    independent: float
    entries: Float[Tensor, "own its_rows its_cols"]
    elements: float | None = None

    @property
    def sides(self) -> tuple[int, float, float]:
        """N, M and q; M counts the positive eigenvalues of a matrix."""
        long_side, short_side = max(self.rows, self.cols), max(len(self.eigenvalues) / self.matrices, 1.0)
        return long_side, short_side, min(short_side / long_side, 1.0)


def excused(
    judged: tuple[str, str], kinds: Sequence[str], against: Callable[[float], tuple[str, str]], pool: Pool
) -> tuple[str, str]:
    """A verdict, or `no tail` where noise of other kinds explains all: of those told, then with the entries' κ too.

    Args:
        judged: the verdict against plain noise, and its reason.
        kinds: what else the noise has; none if it is plain.
        against: the verdict against noise of these kinds, by the excess kurtosis κ of its entries.
        pool: what is judged.

    Returns:
        The verdict and its reason. What is wider than such noise, by ⟨λ²⟩, keeps the one it had. A tail heavier than
        that of Gaussian noise and lighter than that of noise of κ, with nothing beyond its edge, is one of noise: where
        rows hold few entries, the law moves the median too far.

    Cost: O(1) where ⟨λ²⟩ or the largest λ decides; else one pass over the entries.
    """
    if judged[0] == "no tail":
        return judged
    kurtosis, tried = 0.0, judged
    if kinds and no_wider_than_noise(pool):
        tried = against(kurtosis)
    if tried[0] != "no tail" and (kurtosis := noise_kurtosis(pool)):
        kinds = [*kinds, f"entries of an excess kurtosis of {kurtosis:.2g}"]
        tried = against(kurtosis)
        if (judged[0], tried[0]) == ("heavier than noise", "lighter than noise") and within_edge(pool, kurtosis):
            tried = "no tail", f"{tried[1]}, and Gaussian noise more than this layer"
    return judged if tried[0] != "no tail" else ("no tail", f"noise of {' and '.join(kinds)}: {tried[1]}")


def within_edge(pool: Pool, kurtosis: float) -> bool:
    """Whether the largest λ does not exceed the edge of noise of this κ."""
    long_side, short_side, ratio = pool.sides
    edge = largest_noise_eigenvalue(long_side, short_side, pool.matrices, EDGE_LEVEL) / long_side
    top = pool.eigenvalues.max()[None] / pool.eigenvalues.mean()
    return float(relaxed(top, ratio, kurtosis / math.sqrt(long_side * short_side))) <= edge


def no_wider_than_noise(pool: Pool, kurtosis: float = 0.0) -> bool:
    """Whether ⟨λ²⟩/⟨λ⟩² is what noise has, or less, up to 3.3 deviations."""
    relative = pool.eigenvalues / pool.eigenvalues.mean()
    expected, deviation = second_moment(*pool.sides[:2], pool.independent, kurtosis)
    return float(relative.square().mean()) <= expected + DEVIATIONS * deviation


def second_moment(long_side: int, short_side: float, matrices: float, kurtosis: float) -> tuple[float, float]:
    """Mean and standard deviation of ⟨λ²⟩/⟨λ⟩² among noise: 1 + q + (1+κ)/N, and 2/N·√(1 + (κ+2)²(1+q)/2M)/√matrices.

    The mean is exact but for the division: E tr(WᵀW)² = N·M·(N + M + 1 + κ) for independent entries of any law. The
    deviation counts pairs of columns, and the squares that pairs of entries share in a row or a column.

    Example:
        >>> [round(number, 4) for number in second_moment(100, 100, 4, 0.0)]
        [2.01, 0.0102]
    """
    ratio = min(short_side / long_side, 1.0)
    shared = (kurtosis + 2) ** 2 * (1 + ratio) / (2 * short_side)
    return 1 + ratio + (1 + kurtosis) / long_side, 2 / long_side * math.sqrt((1 + shared) / matrices)


def noise_kurtosis(pool: Pool) -> float:
    """Excess kurtosis κ of the entries where noise of κ ≤ ½·√(N·M) may reach ⟨λ²⟩ and the largest λ; else 0.

    Beyond, rows hold a handful of entries, or entries have no variance: no law of noise knows their spectrum.
    """
    long_side, short_side, _ = pool.sides
    largest = LARGEST_STRETCH * math.sqrt(long_side * short_side)
    if not within_edge(pool, largest) or not no_wider_than_noise(pool, largest):
        return 0.0
    kurtosis = excess_kurtosis(pool.entries, pool.elements)
    return kurtosis if 0 < kurtosis <= largest and no_wider_than_noise(pool, kurtosis) else 0.0


def of_equal_variance(eigenvalues: Float[Tensor, "matrices small"]) -> Float[Tensor, "alive small"]:
    """λ of several matrices, each scaled to the mean of their Σλ; without those that are zero throughout."""
    sums = eigenvalues.sum(1, keepdim=True)
    alive = sums[:, 0] > 0
    return eigenvalues[alive] / sums[alive] * sums[alive].mean()


def distinct(spectra: Float[Tensor, "matrices n"]) -> Float[Tensor, "different n"]:
    """The spectra without those that another equals to 1e-9 of the largest λ: filters that are constant have one.

    Example:
        >>> distinct(torch.tensor([[1.0, 2.0], [0.5, 2.5], [1.0, 2.0]], dtype=torch.float64)).tolist()
        [[0.5, 2.5], [1.0, 2.0]]
    """
    if len(spectra) < 2:
        return spectra
    alike = spectra[spectra.square().sum(1).argsort(descending=True, stable=True)]
    new = alike.diff(dim=0).abs().amax(1) > SAME * float(spectra.max())
    return alike[torch.cat([new.new_ones(1), new])]


def unequal(matrices: int, different: int, noun: str) -> str:
    """The kind of noise whose matrices have a variance of their own, or are multiples of fewer."""
    if different < matrices:
        return f"{matrices} {noun} that are multiples of {different}"
    return f"a variance of its own in each of {matrices} {noun}"
