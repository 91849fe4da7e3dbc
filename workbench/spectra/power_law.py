"""Continuous power-law fits of a spectrum's tail: p(λ) ∝ λ^−α for λ ≥ xmin."""

import math
import sys
from dataclasses import dataclass
from numbers import Real
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ArgumentError, nearest

Xmin = Literal["search", "median"] | float

SEARCH_LIMIT = 4096  # eigenvalues up to which every one is tried as xmin
CANDIDATES = 512  # quantiles tried above that: the spec measured 7.1 s → 0.5 s at n = 20000
NARROWEST = 64 * torch.finfo(torch.float32).eps  # in ln λ
CHUNK_ELEMENTS = 1 << 20  # of the candidate × eigenvalue table held at a time: 8 MB, in cache reach
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
        if xmin not in ("search", "median"):
            raise ArgumentError(
                f"xmin={xmin!r}: expected 'search', 'median' or a positive number."
                + nearest(xmin, ("search", "median"))
            )
        return xmin
    if isinstance(xmin, bool) or not isinstance(xmin, Real) or not 0 < xmin <= sys.float_info.max:
        raise ArgumentError(f"xmin={xmin!r}: expected 'search', 'median' or a positive number (a λ = σ², not a σ).")
    return float(xmin)


def power_law(
    eigenvalues: Float[Tensor, " n"], xmin: Xmin = "search", *, exhaustive: bool = False, resolution: float = 0.0
) -> PowerLaw:
    """Maximum-likelihood power law of the tail, α = 1 + n/Σ ln(λⱼ/xmin).

    Args:
        eigenvalues: positive values λ, ascending, float64.
        xmin: `search` takes the eigenvalue that minimises D among all of them but the last; `median` takes
            λ[n//2] (the Hill estimate of FARMS' vision code); a number takes the tail λ ≥ xmin.
        exhaustive: try every position as xmin, however many there are and also among equal values, as
            WeightWatcher does.
        resolution: relative precision ε at which the weights were stored. A tail narrower than 4ε + 64·2⁻²³ in ln λ is
            the rounding of equal eigenvalues, in storage and in float32 arithmetic before it, and has no spread.

    Returns:
        The fit, or NaN with a tail of 0 or 1 points where the tail has no spread.

    Raises:
        ArgumentError: `xmin` is neither a rule nor a positive number.

    Cost: `search` O(n²) exponentials in chunks of 8 MB; above 4096 eigenvalues 512 quantile candidates are
    tried instead of all (`candidates` tells).

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
    elif count > SEARCH_LIMIT and not exhaustive:
        starts = torch.linspace(0, count - 2, CANDIDATES, dtype=torch.float64, device=device).round().long()
    else:
        starts = torch.arange(count - 1, device=device)
    if not exhaustive:  # a tail holds all that lies at or above its xmin
        starts = torch.searchsorted(eigenvalues, eigenvalues[starts])
    alphas, distances = tail_fits(eigenvalues, starts, threshold)
    width = eigenvalues[-1].log() - (eigenvalues[starts].log() if threshold is None else math.log(threshold))
    usable = (
        torch.isfinite(alphas) & torch.isfinite(distances) & (width > (4 * resolution + NARROWEST if resolution else 0))
    )
    if not bool(usable.any()):
        return NO_FIT
    best = int(torch.where(usable, distances, torch.inf).argmin())
    start = int(starts[best])
    tail = count - start
    alpha = float(alphas[best])
    return PowerLaw(
        alpha=alpha,
        alpha_error=(alpha - 1) / math.sqrt(tail),
        ks_distance=float(distances[best]),
        xmin=float(eigenvalues[start]) if threshold is None else threshold,
        tail_size=tail,
        candidates=len(starts),
    )


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
    positions = torch.arange(len(logs), device=logs.device)
    sizes = (len(logs) - starts).to(logs.dtype)
    suffix = logs.flip(0).cumsum(0).flip(0)
    origin = logs[starts] if threshold is None else torch.full_like(sizes, math.log(threshold))
    spread = suffix[starts] - sizes * origin
    # a tail of equal values has a spread of a few roundings of its own sum, never exactly zero
    rounding = len(logs) * torch.finfo(logs.dtype).eps * (suffix[starts].abs() + sizes * origin.abs())
    exponents = torch.where(spread > rounding, (sizes - correction) / spread, torch.nan)
    distances = torch.empty_like(exponents)
    step = max(1, min(CHUNK_STARTS, CHUNK_ELEMENTS // len(logs)))
    for begin in range(0, len(starts), step):
        part = slice(begin, begin + step)
        first = starts[part, None]
        tail = slice(int(starts[begin]), None)  # starts ascend: what lies before the chunk's first is in no tail
        fitted = (exponents[part, None] * (origin[part, None] - logs[tail])).expm1_().neg_()
        empirical = (positions[tail] - first) / sizes[part, None]
        gaps = fitted.sub_(empirical).abs_().masked_fill_(positions[tail] < first, 0)
        distances[part] = gaps.amax(1)
    return exponents + 1, distances
