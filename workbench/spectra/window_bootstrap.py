"""The standard error of a FARMS α: what it would be on other windows of the same matrix."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.spectra.power_law import Xmin, power_law

THINNED = 512  # quantiles of a resample that a searched xmin is fitted to: 1/512 is the resolution of its D
LEAST_BLOCK = 64
TABLE_ELEMENTS = 1 << 20  # of the block × window table, at most: 8 MB


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
    matrix. In simulations the spread then was 1.1 to 1.7 of the true one for noise, 0.8 to 1.2 for Student-t elements
    and for decaying spectra, 0.5 to 0.7 where rows and columns differ in scale; with as many draws as windows it was
    0.8, 0.5 to 0.7 and 0.3 to 0.45.

    Args:
        windows: eigenvalues of each window, on the CPU.
        xmin: the rule; `search` and `peak` fit 512 quantiles of each resample, the others all of it.
        above: eigenvalues at or below it count as zero and are left out, as in the fit itself.
        draws: windows in a resample.
        resamples: number of resamples.
        generator: where the draws come from.

    Returns:
        α of each resample; NaN where it has no fit.

    Cost: O(eigenvalues) and small matrix products; for a searched xmin a sort and 512² exponentials a resample.
    """
    picked = torch.randint(len(windows), (resamples, draws), generator=generator, device="cpu")
    if xmin in ("search", "peak"):
        fits = [power_law(_quantiles(windows[rows].flatten(), above), xmin).alpha for rows in picked]
        return torch.tensor(fits, dtype=torch.float64, device="cpu")
    times = torch.zeros(resamples, len(windows), dtype=torch.float64, device="cpu")
    times.scatter_add_(1, picked, torch.ones_like(picked, dtype=torch.float64))
    values, order = windows.flatten().sort()
    kept = values > above
    pool = _Pool(values[kept], (order // windows.shape[1])[kept], times)
    if len(pool.values) == 0:
        return torch.full((resamples,), torch.nan, dtype=torch.float64, device="cpu")
    if isinstance(xmin, float):
        begin = torch.full((resamples,), xmin, dtype=torch.float64, device="cpu")
    else:
        begin = pool.values[pool.upper_medians()]
    before, sums = pool.before(torch.searchsorted(pool.values, begin))
    tail = pool.sizes - before
    total, origin = pool.sums - sums, tail * begin.log()
    rounding = pool.sizes * torch.finfo(torch.float64).eps * (total.abs() + origin.abs())  # of equal values' spread
    return torch.where((tail > 1) & (total - origin > rounding), 1 + tail / (total - origin), torch.nan)


def standard_error(alphas: Float[Tensor, " resamples"]) -> float:
    """The standard deviation of the finite α; NaN below two of them."""
    finite = alphas[torch.isfinite(alphas)]
    return float(finite.std()) if len(finite) > 1 else math.nan


def _quantiles(values: Float[Tensor, " n"], above: float) -> Float[Tensor, " kept"]:
    """The values above a bound, ascending; 512 of them evenly spread by rank if there are more."""
    ascending = values[values > above].sort().values
    if len(ascending) <= THINNED:
        return ascending
    shares = (torch.arange(THINNED, dtype=torch.float64, device="cpu") + 0.5) / THINNED
    return ascending[(shares * len(ascending)).long()]


class _Pool:
    """Ascending values that count as often as their windows were drawn, in every resample at once.

    Counts and sums of logarithms before every `block`-th value are kept for each window, so that a resample's are a
    matrix product; only the values of one block are ever looked at one by one.

    Args:
        values: positive, ascending.
        owner: the window of each value.
        times: how often each resample drew each window.
    """

    def __init__(
        self, values: Float[Tensor, " n"], owner: Int[Tensor, " n"], times: Float[Tensor, "resamples windows"]
    ) -> None:
        self.values, self.logs, self._owner, self._times = values, values.log(), owner, times
        windows = times.shape[1]
        self._block = max(LEAST_BLOCK, len(values) * windows // TABLE_ELEMENTS)
        blocks = -(-len(values) // self._block)
        cell = (torch.arange(len(values), device="cpu") // self._block + 1) * windows + owner

        def accumulated(weights: Tensor) -> Tensor:
            table = torch.zeros((blocks + 1) * windows, dtype=torch.float64, device="cpu").scatter_add_(
                0, cell, weights
            )
            return times @ table.reshape(blocks + 1, windows).cumsum(0).T

        self._counts, self._sums = accumulated(torch.ones_like(values)), accumulated(self.logs)
        self.sizes, self.sums = self._counts[:, -1], self._sums[:, -1]

    def before(self, positions: Int[Tensor, " resamples"]) -> tuple[Tensor, Tensor]:
        """How many values of each resample lie before a position of `values`, and the sum of their logarithms."""
        blocks = positions // self._block
        inside, weights = self._inside(blocks)
        weights = weights.masked_fill(inside >= positions[:, None], 0)
        counts, sums = (table.gather(1, blocks[:, None])[:, 0] for table in (self._counts, self._sums))
        return counts + weights.sum(1), sums + (weights * self.logs[inside.clamp_max(len(self.logs) - 1)]).sum(1)

    def upper_medians(self) -> Int[Tensor, " resamples"]:
        """The position of each resample's value of rank floor(size/2), counted from zero."""
        half = (self.sizes / 2).floor()[:, None]
        blocks = torch.searchsorted(self._counts[:, 1:].contiguous(), half, right=True)
        inside, weights = self._inside(blocks[:, 0])
        ranks = self._counts.gather(1, blocks) + weights.cumsum(1)
        return inside.gather(1, torch.searchsorted(ranks, half, right=True).clamp_max_(self._block - 1))[:, 0]

    def _inside(self, blocks: Int[Tensor, " resamples"]) -> tuple[Tensor, Tensor]:
        """The positions in one block for each resample, and how often it drew their windows; 0 past the end."""
        inside = blocks[:, None] * self._block + torch.arange(self._block, device="cpu")
        owners = self._owner[inside.clamp_max(len(self.values) - 1)]
        return inside, self._times.gather(1, owners).masked_fill(inside >= len(self.values), 0)
