"""What each xmin rule makes of pure noise, and whether a layer's tail is more than that.

Noise means independent entries of one variance, of the layer's shape and Frobenius norm. Its eigenvalues follow the
Marchenko–Pastur law so stiffly that nothing need be drawn: a sum over M of them fluctuates like one of them, and counts
like √(ln M)/π. What is not derived here is measured, and `benchmarks/calibrate_nulls.py` measures it again.
"""

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.results import many
from workbench.spectra.marchenko_pastur import (
    angles,
    finite_shift,
    ks_distance,
    largest_noise_eigenvalue,
    marchenko_pastur_quantiles,
    median_spread,
    orthogonal_edge,
    relaxed,
    share_above,
    stretched,
)
from workbench.spectra.power_law import PowerLaw, Xmin, power_law
from workbench.spectra.verdicts import HEAVY, MIN_TAIL, WEAK, degenerate

EDGE_LEVEL = 0.003  # chance that noise has an eigenvalue beyond its edge
DEVIATIONS = 3.3  # of 1/(α − 1): two-sided chance 0.1 %
LIGHT_KURTOSIS = -2.0  # excess kurtosis of ±1 entries, the least there is; uniform ones have −1.2, Gaussian ones 0
ABOVE_VARIANCE = 5.5  # n/(α − 1) of a tail of n above a number has less variance than (ln n + this)/π²
DISTANCE, DISTANCE_GROWTH = 1.5, math.sqrt(2) / math.pi  # 99.8 % of the distances M·√k·D: this + growth·ln M
SEARCH = 1.2  # the searched α − 1 of noise is 1.2·(0.55 + 0.22·(√(N/M) − 1))·n^0.4, …
SEARCH_LOW, SEARCH_HIGH = 0.3, 6.0  # … and 99 % of it lies within these multiples, half the lower one with κ
GRID_LIMIT = 4096  # eigenvalues of a grid, where it may be thinned
PEAK, PEAK_FROM = 0.3, 64  # 99 % of the α − 1 of noise under `peak` exceed 0.3·min(n/64, (n/64)^¼) of that of `median`


@dataclass(frozen=True, kw_only=True)
class NoiseAlpha:
    """The α that a rule finds in noise of one shape; NaN if it finds no tail there.

    Attributes:
        alpha: the centre.
        low: noise gives less once in a thousand layers, or once in a hundred where the rule chooses its tail.
        high: noise gives more as rarely; infinite where that is not judged.
        tail_size: eigenvalues that noise has in such a tail; NaN where the rule chooses.
    """

    alpha: float
    low: float
    high: float
    tail_size: float = math.nan

    def __str__(self) -> str:
        """As reasons quote it."""
        bounded = math.isfinite(self.high)
        return f"{self.alpha:.4g} ({self.low:.4g} to {self.high:.4g})" if bounded else f"{self.low:.4g} or more"


@dataclass(frozen=True, kw_only=True)
class Departure:
    """How far a spectrum is from noise of its shape and norm.

    Attributes:
        num_spikes: eigenvalues beyond the edge of such noise.
        ks_distance: distance of the spectrum's cdf from the Marchenko–Pastur law of that norm.
        ks_limit: the distance that noise hardly ever exceeds.
    """

    num_spikes: int
    ks_distance: float
    ks_limit: float

    @property
    def noise(self) -> bool:
        """Whether the spectrum is one of noise."""
        return self.num_spikes == 0 and self.ks_distance <= self.ks_limit

    def __str__(self) -> str:
        """As reasons quote it."""
        beyond = f"{many(self.num_spikes, 'eigenvalue')} beyond its edge"
        sign = "≤" if self.ks_distance <= self.ks_limit else ">"
        return f"{beyond}, {self.ks_distance:.2g} {sign} {self.ks_limit:.2g} from the Marchenko–Pastur law"


def departure(
    eigenvalues: Float[Tensor, " n"], rows: int, cols: int, matrices: int = 1, kurtosis: float = 0.0
) -> Departure:
    """The two tests of "all of it is noise": the largest eigenvalue against its edge, the cdf against its law.

    The scale is set by Σλ, which noise of a given variance fixes to 1 in √(N·M). Both tests together call noise
    something else in about 0.5 % of layers.

    Args:
        eigenvalues: the positive λ, ascending, in float64; those of several matrices are pooled.
        rows: rows of each matrix.
        cols: columns of each matrix.
        matrices: number of matrices.
        kurtosis: excess kurtosis κ of the noise's entries.

    Returns:
        Spikes beyond the Tracy–Widom edge of the largest of all, and D with its limit
        ((1.5 + √2/π·ln M)/√matrices + 1/π)/M; the last term allows entries of any sub-Gaussian kind.

    Cost: O(n).

    Example:
        >>> import torch
        >>> departure(torch.linspace(1, 2, 100, dtype=torch.float64), 100, 100).noise
        False
    """
    long_side, short_side = max(rows, cols), len(eigenvalues) / matrices
    ratio = min(short_side / long_side, 1.0)
    side = max(short_side, 1.0)
    relative = relaxed(eigenvalues / eigenvalues.mean(), ratio, kurtosis / math.sqrt(long_side * side))
    edge = largest_noise_eigenvalue(long_side, short_side, matrices, EDGE_LEVEL) / long_side
    limit = (DISTANCE + DISTANCE_GROWTH * math.log(side)) / math.sqrt(matrices) + abs(LIGHT_KURTOSIS) / (2 * math.pi)
    return Departure(
        num_spikes=int((relative > edge).sum()),
        ks_distance=ks_distance(noise_cdf(relative, ratio, side)),
        ks_limit=limit / side,
    )


def narrower_than_noise(eigenvalues: Float[Tensor, " n"], rows: int, cols: int, matrices: int = 1) -> bool:
    """Whether λ vary less than those of noise and none lies beyond the edge of an orthogonal matrix with some noise.

    Var(λ)/⟨λ⟩² = q·(1 − (1−w)²) has the noise's share w, and w the edge; chance has as much room there as at the edge
    of noise, as a part of the distance from the mean.

    Example:
        >>> narrower_than_noise(torch.linspace(0.9, 1.1, 100, dtype=torch.float64), 100, 100)
        True
    """
    long_side, short_side = max(rows, cols), len(eigenvalues) / matrices
    ratio = min(short_side / long_side, 1.0)
    relative = eigenvalues / eigenvalues.mean()
    remaining = 1 - float(relative.square().mean() - 1) / ratio
    if remaining <= 0:
        return False
    room = largest_noise_eigenvalue(long_side, short_side, matrices, EDGE_LEVEL) / long_side - 1
    edge = orthogonal_edge(1 - math.sqrt(min(remaining, 1.0)), ratio) - 1
    return float(relative.max()) - 1 <= edge * room / (orthogonal_edge(1.0, ratio) - 1)


def noise_cdf(
    values: Float[Tensor, " n"], ratio: float, short_side: float, kurtosis: float = 0.0
) -> Float[Tensor, " n"]:
    """The mean cdf of the eigenvalues of finite noise: Marchenko–Pastur + (θ/2π − ¼)/M, stretched by κ.

    Args:
        values: x = λ/(N·σ²).
        ratio: q = M/N.
        short_side: M.
        kurtosis: excess kurtosis κ of the entries.

    Example:
        >>> import torch
        >>> noise_cdf(torch.tensor([0.2, 1.25, 2.3], dtype=torch.float64), 0.25, 1e9).round(decimals=6).tolist()
        [0.0, 0.693869, 1.0]
    """
    angle = angles(relaxed(values, ratio, kurtosis * math.sqrt(ratio) / short_side), ratio)
    inside = (angle > 0) & (angle < math.pi)
    return (1 - share_above(angle, ratio) + finite_shift(angle, short_side) * inside).clamp(0, 1)


@functools.lru_cache(maxsize=256)
def noise_grid(long_side: int, short_side: float, count: int, kurtosis: float = 0.0) -> Tensor:
    """The λ/(N·σ²) of typical noise: quantiles of `noise_cdf` at (i − ½)/count, ascending. Not to be written to."""
    ratio = min(short_side / long_side, 1.0)
    if kurtosis:
        return stretched(noise_grid(long_side, short_side, count), ratio, kurtosis * math.sqrt(ratio) / short_side)
    shares = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    angle = angles(marchenko_pastur_quantiles(shares, ratio), ratio)
    moved = shares - finite_shift(angle, short_side)
    return marchenko_pastur_quantiles(moved.clamp(0.25 / count, 1 - 0.25 / count), ratio)


def noise_alpha(
    xmin: str | float,
    long_side: int,
    short_side: float,
    matrices: float = 1.0,
    count: int | None = None,
    kurtosis: float = 0.0,
) -> NoiseAlpha:
    """The α that a rule finds in noise, and its range.

    For `median` and a number the centre is the rule applied to `noise_grid`, and the range follows from the variance of
    a count. `search` and `peak` choose a tail by chance: their range is measured, and wide.

    Args:
        xmin: the rule; a number is in units of the mean eigenvalue, N·σ².
        long_side: N.
        short_side: M, the positive eigenvalues of a matrix.
        matrices: independent matrices whose eigenvalues are pooled.
        count: pooled eigenvalues, where they are more than M·matrices because windows overlap.
        kurtosis: excess kurtosis κ of the entries; it moves the centres of `median` and a number, while κ hardly
            moves the spread of a spectrum whose trace sets its scale.

    Returns:
        Centre and range.

    Cost: O(n), kept by shape.

    Source: Gustavsson (2005), O'Rourke (2010): counts of eigenvalues have the variance ln M/π². The rest is ours.

    Example:
        >>> noise = noise_alpha("median", 1000, 1000)
        >>> round(noise.alpha, 3), round(noise.low, 3), round(noise.high, 3)
        (2.124, 2.107, 2.141)
    """
    if xmin == "search":
        return _noise_alpha_searched(long_side, short_side, matrices, kurtosis)
    count = max(round(short_side * matrices) if count is None else count, 2)
    if xmin == "median":
        return _noise_alpha_kept(long_side, short_side, matrices, count, kurtosis)
    if xmin == "peak":
        return _noise_alpha_at_peak(long_side, short_side, matrices, count, kurtosis)
    return _noise_alpha_above(float(xmin), long_side, short_side, matrices, count, kurtosis)


@functools.lru_cache(maxsize=1024)
def _noise_alpha_kept(long_side: int, short_side: float, matrices: float, count: int, kurtosis: float) -> NoiseAlpha:
    ratio, side = min(short_side / long_side, 1.0), max(short_side, 1.0)
    grids = (noise_grid(long_side, side, _thinned(count, side), kurtosis + less) for less in (0.0, LIGHT_KURTOSIS))
    middle, other = (1 / (power_law(grid, "median").alpha - 1) for grid in grids)
    spread = median_spread(ratio, side, matrices)
    return _range(middle, DEVIATIONS * spread + abs(other - middle))


def _noise_alpha_above(
    threshold: float, long_side: int, short_side: float, matrices: float, count: int, kurtosis: float
) -> NoiseAlpha:
    """α above a number: 1/(α − 1) fluctuates like the count of its tail, by √(k·(ln(n/k) + 5.5))/(π·n)."""
    side = max(short_side, 1.0)
    sizes, means = [], []
    for less in (0.0, LIGHT_KURTOSIS):
        grid = noise_grid(long_side, side, _thinned(count, side), kurtosis + less)
        fit = power_law(grid, threshold)
        sizes.append(fit.tail_size * side * matrices / len(grid))
        means.append(1 / (fit.alpha - 1) if fit.tail_size else math.nan)
    size = sizes[0]
    if not min(sizes) >= 2:
        return NoiseAlpha(alpha=math.nan, low=math.nan, high=math.nan, tail_size=size)
    share = math.sqrt(matrices * (math.log(max(size / matrices, 1.0)) + ABOVE_VARIANCE)) / (math.pi * size)
    return _range(means[0], DEVIATIONS * share * means[0] + abs(means[1] - means[0]), size)


def _noise_alpha_searched(long_side: int, short_side: float, matrices: float, kurtosis: float) -> NoiseAlpha:
    """The searched tail of noise: it lies in the upper edge, and narrows as n grows; large entries smear it."""
    width = 0.55 + 0.22 * (math.sqrt(max(long_side / max(short_side, 1.0), 1.0)) - 1)
    excess = SEARCH * width * (short_side * matrices) ** 0.4
    low = SEARCH_LOW / 2 if kurtosis else SEARCH_LOW
    return NoiseAlpha(alpha=1 + excess, low=1 + low * excess, high=1 + SEARCH_HIGH * excess)


def _noise_alpha_at_peak(long_side: int, short_side: float, matrices: float, count: int, kurtosis: float) -> NoiseAlpha:
    """The fullest bin wanders over the bulk, and the tail with it: only a lower end is known."""
    median = _noise_alpha_kept(long_side, short_side, matrices, count, kurtosis)
    size = short_side * matrices / PEAK_FROM
    low = 1 + PEAK * min(size, size**0.25) * (median.alpha - 1)
    return NoiseAlpha(alpha=low, low=low, high=math.inf)


def _thinned(count: int, side: float) -> int:
    return min(count, max(GRID_LIMIT, round(side)))


def _range(middle: float, half: float, size: float = math.nan) -> NoiseAlpha:
    """The range of α of one of 1/(α − 1), which fluctuates symmetrically."""
    high = 1 + 1 / (middle - half) if middle > half else math.inf
    return NoiseAlpha(alpha=1 + 1 / middle, low=1 + 1 / (middle + half), high=high, tail_size=size)


def verdict(
    fit: PowerLaw,
    xmin: Xmin,
    eigenvalues: Float[Tensor, " n"],
    rows: int,
    cols: int,
    matrices: int = 1,
    kurtosis: float = 0.0,
) -> tuple[str, str]:
    """The verdict on one layer's tail against noise of the layer's shape, and its reason.

    Args:
        fit: the fitted tail.
        xmin: the rule that chose it.
        eigenvalues: the positive λ that it was fitted to, ascending, in float64.
        rows: rows of each matrix.
        cols: columns of each matrix.
        matrices: matrices whose eigenvalues are pooled.
        kurtosis: excess kurtosis κ of the noise's entries.

    Returns:
        `no tail` where there is too little for one, noise explains it, or `search` is asked about a spectrum narrower
        than noise. Else, for `search`, by WeightWatcher's folk thresholds on α, `heavy` (α < 2), `typical` (2 to 6) or
        `weak` (α > 6); for the other rules `heavier than noise` or `lighter than noise`. The reason names the numbers.

    Cost: O(n).

    Misreads: `no tail` does not say that the layer is untrained: changes below the noise's edge leave no trace in
    its spectrum.

    Example:
        >>> import torch
        >>> noise = noise_grid(300, 300, 300)
        >>> verdict(power_law(noise, "median"), "median", noise, 300, 300)
        ('no tail', 'α = 2.129; noise of this shape gives 2.129 (2.079 to 2.183)')
    """
    little = degenerate(fit, xmin, len(eigenvalues))
    if little is not None:
        return little
    apart = departure(eigenvalues, rows, cols, matrices, kurtosis)
    threshold = float(xmin) / float(eigenvalues.mean()) if not isinstance(xmin, str) else xmin
    null = noise_alpha(threshold, max(rows, cols), len(eigenvalues) / matrices, matrices, kurtosis=kurtosis)
    if xmin != "search":
        return _against_noise(fit.alpha, fit.tail_size, null, apart.num_spikes)
    quoted = f"α = {fit.alpha:.4g}; noise of this shape gives {null}"
    if apart.noise:
        return "no tail", f"{quoted}, and the spectrum is noise: {apart}"
    if apart.num_spikes == 0 and narrower_than_noise(eigenvalues, rows, cols, matrices):
        return "no tail", f"{quoted}: the spectrum is narrower than noise"
    called = "heavy" if fit.alpha < HEAVY else "typical" if fit.alpha <= WEAK else "weak"
    return called, f"a folk threshold on α; the spectrum is not noise: {apart}"


def farms_verdict(
    alpha: float,
    xmin: Xmin,
    eigenvalues: Float[Tensor, " n"],
    rows: int,
    cols: int,
    windows: int,
    independent: float,
    kurtosis: float = 0.0,
    pools: int = 1,
) -> tuple[str, str]:
    """The verdict on a FARMS α: noise cut into the same windows gives 2.12 at the aspect ratio 1, whatever the layer.

    Args:
        alpha: FARMS' α of the layer.
        xmin: the rule that chose the tail.
        eigenvalues: the positive λ of all windows, ascending, in float64.
        rows: rows of a window.
        cols: columns of a window.
        windows: number of windows; with a number as `xmin`, α belongs to their pooled λ.
        independent: how many windows' worth of elements they hold, the layer's elements that lie in a window over
            rows·cols: at most `windows`.
        kurtosis: excess kurtosis κ of the noise's entries.
        pools: fits of as many eigenvalues each that α is the mean of.

    Returns:
        `no tail`, `heavier than noise` or `lighter than noise`; for `search`, too. The reason names the numbers.

    Example:
        >>> import torch
        >>> noise = noise_grid(100, 100, 900)
        >>> farms_verdict(2.117, "median", noise, 100, 100, 9, 4.0)
        ('no tail', 'α = 2.117; noise of this shape gives 2.119 (2.047 to 2.202)')
    """
    count = len(eigenvalues)
    if min(rows, cols) < 2 <= count:
        return "no tail", f"windows of {rows}×{cols} have one eigenvalue each, and no spectrum"
    fitted = count // pools
    tail = fitted if math.isfinite(alpha) else 0
    few = PowerLaw(alpha=alpha, alpha_error=math.nan, ks_distance=math.nan, xmin=math.nan, tail_size=tail, candidates=1)
    little = degenerate(few, xmin, fitted)
    if little is not None:
        return little
    threshold = float(xmin) / float(eigenvalues.mean()) if not isinstance(xmin, str) else xmin
    short_side = count / windows
    alone = max(min(independent, windows), 1.0)
    if xmin in ("search", "peak"):  # their ranges are those of one fit
        alone = max(alone / pools, 1.0)
    null = noise_alpha(threshold, max(rows, cols), short_side, alone, fitted, kurtosis)
    spikes = departure(eigenvalues, rows, cols, windows, kurtosis).num_spikes
    return _against_noise(alpha, tail, null, spikes)


def _against_noise(alpha: float, tail_size: float, null: NoiseAlpha, spikes: int) -> tuple[str, str]:
    if math.isnan(null.alpha) or null.tail_size < MIN_TAIL:
        few = f"noise of this shape has {null.tail_size:.2g} eigenvalues in such a tail, the layer {tail_size:g}"
        return ("heavier than noise" if spikes else "no tail"), few
    quoted = f"α = {alpha:.4g}; noise of this shape gives {null}"
    lie = "eigenvalue lies" if spikes == 1 else "eigenvalues lie"
    beyond = f", and {spikes} {lie} beyond its edge" if spikes else ""
    if alpha > null.high:
        return "lighter than noise", quoted + beyond.replace("and", "yet")
    return ("heavier than noise" if spikes or alpha < null.low else "no tail"), quoted + beyond
