"""The Marchenko–Pastur law, the spectrum of noise, and its fit to a measured spectrum.

One scaling throughout: the law is that of x = λ/(N·σ²), where λ are the eigenvalues of WᵀW for an N×M matrix of
independent entries with variance σ², N ≥ M, and q = M/N ≤ 1. It has mean 1 and lives between (1 − √q)² and (1 + √q)².
A fit multiplies by N·σ² and speaks of λ. With x = 1 + q + 2√q·cos θ its square-root edges vanish, and so every
function below is smooth in θ.
"""

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ArgumentError
from workbench.spectra.norms import zero_threshold

LEVEL = 0.01  # chance that a noise spectrum has an eigenvalue called a spike
PASSES = 8  # fits at most; noise with some spikes settles in two or three
GRID = 4096  # points of the cdf that start a quantile
POLISH = 3  # Newton steps that finish it

COUNT_VARIANCE = 0.45  # a count of M stiff eigenvalues has the variance (ln M + this)/π²; benchmarks/calibrate_nulls.py

TRACY_WIDOM_MEAN, TRACY_WIDOM_DEVIATION = -1.2065, 1.2680
# the law of Tracy and Widom (β = 1) as a shifted gamma: Chiani (2014), table 1
CHIANI_SHAPE, CHIANI_SCALE, CHIANI_SHIFT = 46.446, 0.186054, 9.84801


@dataclass(frozen=True, kw_only=True)
class MarchenkoPastur:
    """A Marchenko–Pastur law fitted to the bulk of a spectrum; NaN throughout if there is nothing to fit.

    Attributes:
        sigma: standard deviation σ of the entries of the noise.
        ratio: q = M/N that was used, M the positive eigenvalues of a matrix.
        bulk_min: N·σ²(1 − √q)², where the bulk begins.
        bulk_max: N·σ²(1 + √q)², where it ends.
        spike_edge: λ that the largest eigenvalue of such noise exceeds with the chance `level`.
        num_spikes: eigenvalues above `spike_edge`.
        softrank: bulk_max/λmax; 1 for noise, small where a few eigenvalues rule.
        bulk_share: share of the positive eigenvalues between bulk_min and bulk_max.
        ks_distance: largest distance between the cdf of the bulk, all positive eigenvalues but the spikes, and the law.
        level: the chance that noise has a spike.
    """

    sigma: float
    ratio: float
    bulk_min: float
    bulk_max: float
    spike_edge: float
    num_spikes: int
    softrank: float
    bulk_share: float
    ks_distance: float
    level: float


def marchenko_pastur_edges(ratio: float) -> tuple[float, float]:
    """Both edges (1 ∓ √q)² of the law.

    Args:
        ratio: q = M/N in (0, 1].

    Raises:
        ArgumentError: q lies outside.

    Example:
        >>> marchenko_pastur_edges(0.25)
        (0.25, 2.25)
    """
    root = math.sqrt(checked_ratio(ratio))
    return (1 - root) ** 2, (1 + root) ** 2


def checked_ratio(ratio: float) -> float:
    """`ratio` itself, if it lies in (0, 1].

    Raises:
        ArgumentError: it does not.
    """
    if not 0 < ratio <= 1:
        raise ArgumentError(f"ratio={ratio!r}: expected q = M/N of the smaller over the larger side, in (0, 1].")
    return ratio


def marchenko_pastur_density(values: Float[Tensor, " n"], ratio: float) -> Float[Tensor, " n"]:
    """p(x) = √((x₊ − x)(x − x₋))/(2πqx) between the edges, 0 outside.

    Args:
        values: x = λ/(N·σ²).
        ratio: q = M/N in (0, 1].

    Returns:
        The density; infinite at x = 0 if q = 1, the hard edge.

    Raises:
        ArgumentError: q lies outside.

    Source: Marchenko & Pastur, "Distribution of eigenvalues for some sets of random matrices" (1967).

    Example:
        >>> import torch
        >>> x = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
        >>> [round(value, 9) for value in (marchenko_pastur_density(x, 0.25) * math.pi).tolist()]
        [0.0, 1.936491673, 0.0]
    """
    low, high = marchenko_pastur_edges(ratio)
    inside = ((high - values) * (values - low)).clamp_min(0).sqrt()
    density = inside / (2 * math.pi * ratio * values)
    return torch.where((values < low) | (values > high), 0.0, density.nan_to_num(nan=math.inf, posinf=math.inf))


def marchenko_pastur_cdf(values: Float[Tensor, " n"], ratio: float) -> Float[Tensor, " n"]:
    """P(X ≤ x), in closed form.

    Args:
        values: x = λ/(N·σ²).
        ratio: q = M/N in (0, 1].

    Returns:
        The cdf: 0 below the bulk, 1 above.

    Raises:
        ArgumentError: q lies outside.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 2.0, 4.0], dtype=torch.float64)
        >>> [round(share, 12) for share in marchenko_pastur_cdf(x, 1.0).tolist()]
        [0.0, 0.818309886184, 1.0]
    """
    checked_ratio(ratio)
    return 1 - share_above(angles(values, ratio), ratio)


def share_above(angle: Tensor, ratio: float) -> Tensor:
    """P(X > 1 + q + 2√q·cos θ) = (2/π)·∫₀^θ sin²t/(1 + q + 2√q·cos t) dt."""
    root = math.sqrt(ratio)
    half = angle / 2
    inner = torch.atan2((1 - root) * half.sin(), (1 + root) * half.cos())
    return (2 / math.pi) * (
        (1 + ratio) * angle / (4 * ratio) - angle.sin() / (2 * root) - (1 - ratio) / (2 * ratio) * inner
    )


def marchenko_pastur_quantiles(shares: Float[Tensor, " n"], ratio: float) -> Float[Tensor, " n"]:
    """The x with P(X ≤ x) = share, by one grid of the cdf and three Newton steps in θ.

    Args:
        shares: probabilities in [0, 1].
        ratio: q = M/N in (0, 1].

    Returns:
        The quantiles; their cdf is the share to 1e-6, and to 1e-12 away from both ends.

    Raises:
        ArgumentError: q lies outside.

    Cost: O(n), and one grid of 4096 points a ratio, which is kept.

    Example:
        >>> import torch
        >>> shares = torch.tensor([0.0, 0.5 + 1 / math.pi, 1.0], dtype=torch.float64)
        >>> [round(value, 9) for value in marchenko_pastur_quantiles(shares, 1.0).tolist()]
        [0.0, 2.0, 4.0]
    """
    grid, above = _grid(checked_ratio(ratio))
    target = 1 - shares
    right = torch.searchsorted(above, target).clamp(1, GRID)
    left = right - 1
    angle = grid[left] + (grid[right] - grid[left]) * (target - above[left]) / (above[right] - above[left])
    for _ in range(POLISH):
        value = 1 + ratio + 2 * math.sqrt(ratio) * angle.cos()
        slope = (2 / math.pi) * angle.sin() ** 2 / value
        step = (share_above(angle, ratio) - target) / slope
        angle = torch.where(step.isfinite(), angle - step, angle).clamp(grid[left], grid[right])
    return 1 + ratio + 2 * math.sqrt(ratio) * angle.cos()


@functools.lru_cache(maxsize=256)
def _grid(ratio: float) -> tuple[Tensor, Tensor]:
    angle = torch.linspace(0, math.pi, GRID + 1, dtype=torch.float64, device="cpu")
    above = share_above(angle, ratio)
    above[0], above[-1] = 0, 1  # exact, whatever rounding says
    return angle, above.cummax(0).values


@functools.lru_cache(maxsize=256)
def marchenko_pastur_median(ratio: float, short_side: float = math.inf) -> float:
    """The x with P(X ≤ x) = ½; with M = `short_side`, that of finite noise.

    Raises:
        ArgumentError: q lies outside (0, 1].

    Example:
        >>> round(marchenko_pastur_median(1.0), 6), round(marchenko_pastur_median(1.0, 16), 6)
        (0.652776, 0.632566)
    """
    half = torch.tensor([0.5], dtype=torch.float64, device="cpu")
    limit = marchenko_pastur_quantiles(half, ratio)
    if math.isinf(short_side):
        return float(limit)
    return float(marchenko_pastur_quantiles(half - finite_shift(angles(limit, ratio), short_side), ratio))


def angles(values: Float[Tensor, " n"], ratio: float) -> Float[Tensor, " n"]:
    """The θ with x = 1 + q + 2√q·cos θ: 0 at the upper edge and above, π at the lower and below."""
    return ((values - 1 - ratio) / (2 * math.sqrt(ratio))).clamp(-1, 1).acos()


def finite_shift(angle: Float[Tensor, " n"], short_side: float, kurtosis: float = 0.0) -> Float[Tensor, " n"]:
    """What M eigenvalues of finite noise add to the cdf: (θ/2π − ¼ − κ·sin 2θ/2π)/M.

    Args:
        angle: θ.
        short_side: M.
        kurtosis: excess kurtosis κ of the entries.

    Source: Bai & Silverstein, "CLT for linear spectral statistics of large-dimensional sample covariance matrices"
    (2004), eq. 1.19 (real entries); Pan & Zhou (2008) for κ.
    """
    return (angle / (2 * math.pi) - 0.25 - kurtosis / (2 * math.pi) * (2 * angle).sin()) / short_side


def median_spread(ratio: float, short_side: float, matrices: float = 1.0) -> float:
    """Standard deviation of ln median(λ) among noise: √(ln M + 0.45)/(π·M·√matrices·x½·p(x½)).

    Eigenvalues repel each other: M of them move their median by about a spacing, and not by √M spacings.

    Args:
        ratio: q = M/N.
        short_side: M.
        matrices: independent matrices whose eigenvalues are pooled.

    Source: Gustavsson (2005) and O'Rourke (2010) for the variance ln M/π² of a count; the 0.45 is measured.

    Example:
        >>> round(median_spread(1.0, 1000), 5)
        0.00367
    """
    median = marchenko_pastur_median(ratio)
    density = float(marchenko_pastur_density(torch.tensor([median], dtype=torch.float64, device="cpu"), ratio))
    count = math.sqrt(math.log(max(short_side, 1.0)) + COUNT_VARIANCE) / math.pi
    return count / (max(short_side, 1.0) * math.sqrt(matrices) * median * density)


def largest_noise_eigenvalue(
    long_side: int, short_side: float, matrices: float, level: float, *, spread: float = 0.0
) -> float:
    """λ/σ² that the largest eigenvalue of several matrices of noise exceeds with the chance `level`: μ + s·t.

    μ = (√(N−½) + √(M−½))², s = √μ·(1/√(N−½) + 1/√(M−½))^⅓, and t is the quantile of the Tracy–Widom law (β = 1) that
    one matrix exceeds with the chance level/matrices, moved out as far as an uncertain σ² widens that law.

    Args:
        long_side: N.
        short_side: M.
        matrices: independent matrices whose eigenvalues are pooled.
        level: chance, in (0, 1).
        spread: standard deviation of ln σ².

    Source: Johnstone, "On the distribution of the largest eigenvalue in principal components analysis" (2001), with
    the shifts by ½ of Ma (2012), which are exact to second order; the quantile by Chiani's gamma law (2014).

    Misreads: with M ≤ 3 and many matrices, noise has a spike up to three times as often.

    Example:
        >>> round(largest_noise_eigenvalue(4000, 1000, 1, 0.01) / 4000, 3)
        2.267
    """
    long_root, short_root = math.sqrt(long_side - 0.5), math.sqrt(max(short_side, 1) - 0.5)
    centre = (long_root + short_root) ** 2
    scale: float = (long_root + short_root) * (1 / long_root + 1 / short_root) ** (1 / 3)
    widened = math.hypot(1, spread * centre / scale / TRACY_WIDOM_DEVIATION)
    beyond = tracy_widom_quantile(level / max(matrices, 1)) - TRACY_WIDOM_MEAN
    return centre + scale * (TRACY_WIDOM_MEAN + widened * beyond)


@functools.lru_cache(maxsize=256)
def tracy_widom_quantile(level: float) -> float:
    """The value that the Tracy–Widom law (β = 1) exceeds with the chance `level`, by Chiani's shifted gamma law.

    Example:
        >>> round(tracy_widom_quantile(0.01), 2), round(tracy_widom_quantile(0.05), 2)
        (2.01, 0.98)
    """
    from scipy.special import gammainccinv

    return CHIANI_SCALE * float(gammainccinv(CHIANI_SHAPE, level)) - CHIANI_SHIFT


def marchenko_pastur_fit(
    eigenvalues: Float[Tensor, " n"], rows: int, cols: int, matrices: int = 1, *, level: float = LEVEL
) -> MarchenkoPastur:
    """The law whose median is the median of the bulk: σ² = median(λ)/(N·x½(q, M)), refitted without the spikes.

    A fit is repeated without its spikes for as long as that brings the rest closer to the law: heavy tails, which are
    no bulk with spikes, would be eaten up otherwise. Zero eigenvalues are left out and q = M/N counts the others, as if
    the short side had dead rows.

    Args:
        eigenvalues: all λ of the layer, ascending, in float64; those of several matrices of one shape are pooled.
        rows: rows of each matrix.
        cols: columns of each matrix.
        matrices: number of matrices.
        level: chance that noise of this shape has any spike.

    Returns:
        The fit; NaN where fewer than two eigenvalues are positive.

    Cost: O(n): the median is an index into what is sorted.

    Source: Marchenko & Pastur (1967); Gavish & Donoho, "The optimal hard threshold for singular values is 4/√3"
    (2014), for σ by the median. Ours: x½ of finite noise, and the repetition without the spikes.

    Misreads: σ is that of the noise with this median. A spectrum that is no Marchenko–Pastur law has one too; read
    `ks_distance` and `bulk_share` before the number of spikes.

    Example:
        >>> import torch
        >>> quantiles = marchenko_pastur_quantiles((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000, 0.25)
        >>> fit = marchenko_pastur_fit(4000 * 9 * quantiles, 4000, 1000)
        >>> round(fit.sigma, 2), fit.num_spikes, round(fit.bulk_max / 36000, 2), round(fit.bulk_share, 2)
        (3.0, 0, 2.25, 1.0)
    """
    long_side = max(rows, cols)
    positive = eigenvalues[eigenvalues > zero_threshold(eigenvalues, long_side)] if len(eigenvalues) else eigenvalues
    count = len(positive)
    if count < 2:
        names = ("sigma", "ratio", "bulk_min", "bulk_max", "spike_edge", "softrank", "bulk_share", "ks_distance")
        return MarchenkoPastur(**dict.fromkeys(names, math.nan), num_spikes=0, level=level)
    ratio = min(count / matrices / long_side, 1.0)
    short_side = ratio * long_side
    spread = median_spread(ratio, short_side, matrices)
    edge = largest_noise_eigenvalue(long_side, short_side, matrices, level, spread=spread)
    variance, spikes, distance = math.nan, 0, math.inf
    for _ in range(PASSES):
        bulk = count - spikes
        median = float(positive[(bulk - 1) // 2] + positive[bulk // 2]) / 2
        refitted = median / (long_side * marchenko_pastur_median(ratio, short_side))
        beyond = int((positive > refitted * edge).sum())
        closeness = ks_distance(marchenko_pastur_cdf(positive[: count - beyond] / (long_side * refitted), ratio))
        if closeness >= distance:
            break
        before, variance, spikes, distance = spikes, refitted, beyond, closeness
        if spikes == before:
            break
    low, high = (long_side * variance * end for end in marchenko_pastur_edges(ratio))
    return MarchenkoPastur(
        sigma=math.sqrt(variance),
        ratio=ratio,
        bulk_min=low,
        bulk_max=high,
        spike_edge=variance * edge,
        num_spikes=spikes,
        softrank=high / float(positive[-1]),
        bulk_share=float(((positive >= low) & (positive <= high)).sum()) / count,
        ks_distance=distance,
        level=level,
    )


def ks_distance(shares: Float[Tensor, " n"]) -> float:
    """Kolmogorov's maxᵢ max(Fᵢ − (i−1)/n, i/n − Fᵢ) for the cdf at the n ascending points of a sample.

    Example:
        >>> import torch
        >>> ks_distance(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
        0.25
    """
    count = len(shares)
    steps = torch.arange(count + 1, dtype=shares.dtype, device=shares.device) / count
    return float(torch.maximum(shares - steps[:-1], steps[1:] - shares).max())
