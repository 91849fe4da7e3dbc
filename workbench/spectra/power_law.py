"""Continuous power-law fits of a spectrum's tail: p(λ) ∝ λ^−α for λ ≥ xmin."""

import math
import sys
from dataclasses import dataclass
from numbers import Real
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import ArgumentError, nearest

Xmin = Literal["search", "median", "peak"] | float

RULES = ("search", "median", "peak")
EXPECTED = "expected 'search', 'median', 'peak' or a positive number"
PEAK_BINS = 100  # of log10 λ, and the bounds of the search around the fullest, as in FARMS' released code
PEAK_LOW, PEAK_HIGH = 0.95, 1.5
SEARCH_LIMIT = 4096  # eigenvalues up to which every one is tried as xmin
CANDIDATES = 512  # quantiles tried above that: the spec measured 7.1 s → 0.5 s at n = 20000
NARROWEST = 64 * torch.finfo(torch.float32).eps  # in ln λ
CHUNK_ELEMENTS = 1 << 20  # of the candidate × eigenvalue table held at a time: 8 MB, in cache reach
PROBES = 16  # points of each tail whose gaps bound its D from below before D itself is taken
ROUNDING = 1 + 1e-9  # of such a bound
CHUNK_STARTS = 128  # candidates at a time: enough for speed, few enough to leave out what lies before them


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """A fitted tail; NaN and 0 throughout if there is none.

    Attributes:
        alpha: exponent α = 1 + n / Σ ln(λⱼ/xmin).
        alpha_error: (α − 1)/√n, the standard error for a given xmin and independent eigenvalues. A searched xmin
            adds to it; eigenvalues that repel each other take from it.
        ks_distance: D = maxⱼ |F_fit(λⱼ) − (j − i)/n| over the tail.
        xmin: where the tail begins.
        tail_size: number n of eigenvalues in the tail.
        candidates: number of xmin values that were compared.
    """

    alpha: float
    alpha_error: float
    ks_distance: float
    xmin: float
    tail_size: int
    candidates: int


NO_FIT = PowerLaw(alpha=math.nan, alpha_error=math.nan, ks_distance=math.nan, xmin=math.nan, tail_size=0, candidates=0)


def checked_xmin(xmin: Xmin) -> Xmin:
    """`xmin` itself, if it is a rule or a positive number.

    Raises:
        ArgumentError: it is neither.
    """
    if isinstance(xmin, str):
        if xmin not in RULES:
            raise ArgumentError(f"xmin={xmin!r}: {EXPECTED}." + nearest(xmin, RULES))
        return xmin
    if isinstance(xmin, bool) or not isinstance(xmin, Real) or not 0 < xmin <= sys.float_info.max:
        raise ArgumentError(f"xmin={xmin!r}: {EXPECTED} (a λ = σ², not a σ).")
    return float(xmin)


def power_law(
    eigenvalues: Float[Tensor, " n"], xmin: Xmin = "search", *, exhaustive: bool = False, resolution: float = 0.0
) -> PowerLaw:
    """Maximum-likelihood power law of the tail, α = 1 + n/Σ ln(λⱼ/xmin).

    Args:
        eigenvalues: positive values λ, ascending, float64.
        xmin: `search` takes the eigenvalue that minimises D among all of them but the last; `median` takes
            λ[n//2] (the Hill estimate of FARMS' vision code); `peak` searches where the density of log10 λ peaks,
            on [0.95·p, 1.5·p] for the left edge p of the fullest of 100 bins (FARMS' code for language models; both
            bounds in λ, where the released code takes the logarithm of the first); a number takes the tail λ ≥ xmin.
        exhaustive: try every position as xmin, however many there are and also among equal values, as
            WeightWatcher does.
        resolution: relative precision ε at which the weights were stored. A tail narrower than 4ε + 64·2⁻²³ in ln λ is
            the rounding of equal eigenvalues, in storage and in float32 arithmetic before it, and has no spread.

    Returns:
        The fit, or NaN with a tail of 0 or 1 points where the tail has no spread.

    Raises:
        ArgumentError: `xmin` is neither a rule nor a positive number.

    Cost: `search` O(n²) exponentials in chunks of 8 MB, `peak` its share of that; above 4096 eigenvalues 512
    quantile candidates are tried instead of all (`candidates` tells).

    Source: Clauset, Shalizi & Newman, "Power-law distributions in empirical data" (2009), eqs. 3.1–3.2 and §3.3,
    with the one-sided empirical CDF of WeightWatcher 0.7.7.

    Misreads: the search always finds some tail. α says nothing before the tail is compared with noise.

    Example:
        >>> import torch
        >>> n, a = 2000, 3.0
        >>> quantiles = (1 - (torch.arange(1, n + 1, dtype=torch.float64) - 0.5) / n) ** (-1 / (a - 1))
        >>> fit = power_law(quantiles)
        >>> round(fit.alpha, 5), fit.tail_size
        (3.00085, 2000)
    """
    xmin = checked_xmin(xmin)
    count = len(eigenvalues)
    if count < 2:
        return NO_FIT
    device = eigenvalues.device
    threshold = xmin if isinstance(xmin, float) else None
    if threshold is not None:
        starts = torch.searchsorted(eigenvalues, torch.tensor([threshold], dtype=eigenvalues.dtype, device=device))
        if int(starts[0]) >= count - 1:
            return NO_FIT
    elif xmin == "median":
        starts = torch.tensor([count // 2], device=device)
    else:
        first, last = peak_range(eigenvalues) if xmin == "peak" else (0, count - 2)
        starts = tried_positions(first, last, count if not exhaustive else 0).to(device)
    if not exhaustive:  # a tail holds all that lies at or above its xmin
        starts = torch.searchsorted(eigenvalues, eigenvalues[starts])
    tried, logs = len(starts), eigenvalues.log()
    exponents = _exponents(logs, starts, threshold, 0)
    width = logs[-1] - (logs[starts] if threshold is None else math.log(threshold))
    usable = torch.isfinite(exponents) & (width > (4 * resolution + NARROWEST if resolution else 0))
    starts, exponents = starts[usable], exponents[usable]
    if len(starts) > PROBES:
        contenders = _contenders(logs, starts, exponents)
        starts, exponents = starts[contenders], exponents[contenders]
    if not len(starts):
        return NO_FIT
    distances = _distances(logs, starts, exponents, threshold)
    best = int(distances.argmin())
    start = int(starts[best])
    tail = count - start
    alpha = 1 + float(exponents[best])
    return PowerLaw(
        alpha=alpha,
        alpha_error=(alpha - 1) / math.sqrt(tail),
        ks_distance=float(distances[best]),
        xmin=float(eigenvalues[start]) if threshold is None else threshold,
        tail_size=tail,
        candidates=tried,
    )


def peak_range(eigenvalues: Float[Tensor, " n"]) -> tuple[int, int]:
    """First and last position that the rule `peak` tries: 0.95·p ≤ λ ≤ 1.5·p, p the left edge of the fullest bin.

    Args:
        eigenvalues: positive values, ascending, float64.

    Returns:
        The two positions; the last is before the first where no eigenvalue but the largest is within the bounds.
    """
    logs = eigenvalues.log10()
    low, high = float(logs[0]), float(logs[-1])
    counts = torch.histc(logs, PEAK_BINS, min=low, max=high).tolist() if high > low else [1]
    peak = 10 ** (low + counts.index(max(counts)) * (high - low) / PEAK_BINS)
    bounds = torch.tensor([PEAK_LOW * peak, PEAK_HIGH * peak], dtype=eigenvalues.dtype, device=eigenvalues.device)
    first = int(torch.searchsorted(eigenvalues, bounds[0]))
    last = int(torch.searchsorted(eigenvalues, bounds[1], right=True)) - 1
    return first, min(last, len(eigenvalues) - 2)


def tried_positions(first: int, last: int, count: int) -> Int[Tensor, " positions"]:
    """The positions from first to last that a search tries: all of them, or 512 of many among over 4096 eigenvalues.

    Example:
        >>> tried_positions(2, 5, 4096).tolist(), len(tried_positions(5, 4, 9)), len(tried_positions(0, 999, 5000))
        ([2, 3, 4, 5], 0, 512)
    """
    every = max(last - first + 1, 0)
    steps = CANDIDATES if every > CANDIDATES and count > SEARCH_LIMIT else every
    return torch.linspace(first, last, steps, dtype=torch.float64, device="cpu").round().long()


def tail_fits(
    eigenvalues: Float[Tensor, " n"], starts: Tensor, threshold: float | None = None, *, correction: int = 0
) -> tuple[Float[Tensor, " starts"], Float[Tensor, " starts"]]:
    """α and D of the tails that begin at each of several positions.

    Suffix sums of ln λ give every α in O(n); D is a masked maximum over a table, in chunks.

    Args:
        eigenvalues: positive values, ascending, float64.
        starts: positions of the tails' first points, ascending.
        threshold: the tails' common xmin, if it is not the first point itself.
        correction: subtracted from n in the numerator of α (WeightWatcher's small-sample fit uses 1).

    Returns:
        α (NaN where the tail has no spread) and D for each start.
    """
    logs = eigenvalues.log()
    exponents = _exponents(logs, starts, threshold, correction)
    return 1 + exponents, _distances(logs, starts, exponents, threshold)


def _exponents(
    logs: Float[Tensor, " n"], starts: Int[Tensor, " starts"], threshold: float | None, correction: int
) -> Float[Tensor, " starts"]:
    sizes = (len(logs) - starts).to(logs.dtype)
    suffix = logs.flip(0).cumsum(0).flip(0)
    origin = logs[starts] if threshold is None else torch.full_like(sizes, math.log(threshold))
    spread = suffix[starts] - sizes * origin
    # a tail of equal values has a spread of a few roundings of its own sum, never exactly zero
    rounding = len(logs) * torch.finfo(logs.dtype).eps * (suffix[starts].abs() + sizes * origin.abs())
    return torch.where(spread > rounding, (sizes - correction) / spread, torch.nan)


def _contenders(
    logs: Float[Tensor, " n"], starts: Int[Tensor, " starts"], exponents: Float[Tensor, " starts"]
) -> Int[Tensor, " contenders"]:
    """Which starts can have the smallest D: those whose gaps at 16 points do not already exceed another's D.

    A tail's D is at least its gap at any of its points, so nothing is left out that could win.
    """
    sizes = (len(logs) - starts)[:, None]
    offsets = (sizes - 1) * torch.arange(PROBES, device=logs.device) // (PROBES - 1)
    fitted = (exponents[:, None] * (logs[starts][:, None] - logs[starts[:, None] + offsets])).expm1_().neg_()
    least = fitted.sub_(offsets / sizes.to(logs.dtype)).abs_().amax(1)
    likely = least.argmin()[None]
    limit = _distances(logs, starts[likely], exponents[likely], None)
    return (least <= limit * ROUNDING).nonzero()[:, 0]


def _distances(
    logs: Float[Tensor, " n"],
    starts: Int[Tensor, " starts"],
    exponents: Float[Tensor, " starts"],
    threshold: float | None,
) -> Float[Tensor, " starts"]:
    positions, distances = torch.arange(len(logs), device=logs.device), torch.empty_like(exponents)
    sizes = (len(logs) - starts).to(logs.dtype)
    origin = logs[starts] if threshold is None else torch.full_like(sizes, math.log(threshold))
    step = max(1, min(CHUNK_STARTS, CHUNK_ELEMENTS // len(logs)))
    for begin in range(0, len(starts), step):
        part = slice(begin, begin + step)
        first = starts[part, None]
        tail = slice(int(starts[begin]), None)  # starts ascend: what lies before the chunk's first is in no tail
        fitted = (exponents[part, None] * (origin[part, None] - logs[tail])).expm1_().neg_()
        empirical = (positions[tail] - first) / sizes[part, None]
        gaps = fitted.sub_(empirical).abs_().masked_fill_(positions[tail] < first, 0)
        distances[part] = gaps.amax(1)
    return distances
