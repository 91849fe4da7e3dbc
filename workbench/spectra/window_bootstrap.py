"""The standard error of a FARMS α: what it would be on other windows of the same matrix."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.spectra.power_law import Xmin, power_law

THINNED = 1024  # quantiles of a resample that a searched xmin is fitted to: a sampling error of 1/1024 in D
CHUNK_ELEMENTS = 1 << 20  # of the resample × eigenvalue table: 8 MB


def window_bootstrap(
    windows: Float[Tensor, "windows small"],
    xmin: Xmin,
    *,
    above: float,
    draws: int,
    resamples: int,
    generator: torch.Generator,
) -> Float[Tensor, " resamples"]:
    """α of resamples of the windows, drawn with replacement and fitted anew under the same rule.

    Overlapping windows know less than their number says, so only as many are drawn as would lie side by side on the
    matrix. In simulations (noise, Student-t, a decaying spectrum) the spread then is 0.8 to 1.4 of the true one, and
    with as many draws as windows 0.5 to 0.85.

    Args:
        windows: eigenvalues of each window, on the CPU.
        xmin: the rule; `search` and `peak` fit 1024 quantiles of each resample, the others all of it.
        above: eigenvalues at or below it count as zero and are left out, as in the fit itself.
        draws: windows in a resample.
        resamples: number of resamples.
        generator: where the draws come from.

    Returns:
        α of each resample; NaN where it has no fit.

    Cost: O(resamples · eigenvalues), and 1024² exponentials a resample for a searched xmin.
    """
    picked = torch.randint(len(windows), (resamples, draws), generator=generator, device="cpu")
    times = torch.zeros(resamples, len(windows), dtype=torch.float64, device="cpu")
    times.scatter_add_(1, picked, torch.ones_like(picked, dtype=torch.float64))
    values, order = windows.flatten().sort()
    kept = values > above
    values, owner = values[kept], (order // windows.shape[1])[kept]
    if len(values) == 0:
        return torch.full((resamples,), torch.nan, dtype=torch.float64, device="cpu")
    size = max(CHUNK_ELEMENTS // len(values), 1)
    parts = (times[begin : begin + size, owner] for begin in range(0, resamples, size))
    return torch.cat([_alphas(values, weights, xmin) for weights in parts])


def standard_error(alphas: Float[Tensor, " resamples"]) -> float:
    """The standard deviation of the finite α; NaN below two of them."""
    finite = alphas[torch.isfinite(alphas)]
    return float(finite.std()) if len(finite) > 1 else math.nan


def _alphas(
    values: Float[Tensor, " n"], weights: Float[Tensor, "resamples n"], xmin: Xmin
) -> Float[Tensor, " resamples"]:
    """α of ascending values that count `weights` times, a row of weights per resample."""
    ranks = weights.cumsum(1)
    sizes = ranks[:, -1:]
    if xmin in ("search", "peak"):
        shares = (torch.arange(THINNED, dtype=torch.float64, device="cpu") + 0.5) / THINNED
        picked = torch.searchsorted(ranks, sizes * shares).clamp_max_(len(values) - 1)
        fits = [power_law(values[row], xmin).alpha for row in picked]
        return torch.tensor(fits, dtype=torch.float64, device="cpu")
    logs = values.log()
    if isinstance(xmin, float):
        first = torch.searchsorted(values, torch.tensor([[xmin]], dtype=torch.float64, device="cpu"))
        first, origin = first.expand(len(weights), 1), torch.full_like(sizes, math.log(xmin))
    else:
        median = torch.searchsorted(ranks, (sizes / 2).floor_(), right=True).clamp_max_(len(values) - 1)
        first, origin = torch.searchsorted(values, values[median]), logs[median]
    before = torch.nn.functional.pad(ranks, (1, 0)).gather(1, first)
    sums = torch.nn.functional.pad((weights * logs).cumsum(1), (1, 0))
    tail = sizes - before
    spread = sums[:, -1:] - sums.gather(1, first) - tail * origin
    return torch.where(spread > 0, 1 + tail / spread, torch.nan)[:, 0]
