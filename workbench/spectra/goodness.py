"""Goodness of fit of a power-law tail: how often data that do follow the fit look worse."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from workbench.errors import ArgumentError
from workbench.seeds import generator
from workbench.spectra.power_law import NARROWEST, PowerLaw, Xmin, checked_xmin, peak_range, tried_positions

CHUNK_ELEMENTS = 1 << 19  # of a table of tails × eigenvalues held at a time: 4 MB
PROBES = 16  # points of a tail whose distance is looked at before that of all of them


@dataclass(frozen=True, kw_only=True)
class Goodness:
    """The bootstrap's answer; NaN and 0 throughout if there is no tail.

    Attributes:
        p_value: share of synthetic data sets whose own fit has a larger KS distance than the data's.
        p_error: its standard error √(p̃(1 − p̃)/resamples) with p̃ = (larger + 1)/(resamples + 2), which is not zero
            where p is.
        resamples: synthetic data sets that had a fit.
    """

    p_value: float
    p_error: float
    resamples: int


def goodness(
    eigenvalues: Float[Tensor, " n"],
    fit: PowerLaw,
    xmin: Xmin = "search",
    *,
    seed: int = 0,
    layer: str = "",
    resamples: int = 100,
    resolution: float = 0.0,
) -> Goodness:
    """The p-value of a power-law tail by a semi-parametric bootstrap of its KS distance.

    Each of n values is drawn anew: with the chance tail_size/n from the fitted power law, else from the eigenvalues
    below xmin. The same rule chooses xmin in the new data (`peak` by the peak of their own) and refits.

    Args:
        eigenvalues: the positive λ that were fitted, ascending, float64.
        fit: what `power_law(eigenvalues, xmin, resolution=resolution)` gave.
        xmin: the rule or number that gave it.
        seed: any integer; with `layer` it decides the draws, which are made on the CPU.
        layer: the layer's id.
        resamples: synthetic data sets. 100 (the default) gives p = 0.1 a standard error of 0.03; Clauset et al. use
            2500 for 0.01.
        resolution: as for `power_law`.

    Returns:
        p with its standard error. They call a power law ruled out at p ≤ 0.1.

    Raises:
        ArgumentError: `resamples` is below 1, or `xmin` is neither a rule nor a positive number.

    Cost: that of `resamples` fits, less the tails that a few of their points tell to be worse than the data's: a
    fifth of it was measured on spectra of 384.

    Source: Clauset, Shalizi & Newman, "Power-law distributions in empirical data" (2009), section 4.1.

    Misreads: a small p rules the power law out; a large one does not rule it in, least of all for a short tail. A
    searched xmin moves to where the data look like a power law: on power laws p is then 0.6 in the mean instead of
    0.5, and 1000 points of an exponential still have a median p of 0.2. A given xmin or the median has neither fault.
    `peak` is level (0.5 in the mean), but rejects little where the fullest bin lies within the body: samples of the fit
    have it elsewhere, and the fits there are no closer; for an exponential p is 0.1 in the mean, and up to 0.4.
    Eigenvalues of one matrix repel each other: they lie closer to any smooth law than independent draws, so that p is
    too large.

    Example:
        >>> import torch
        >>> from workbench.spectra import power_law
        >>> n = 500
        >>> exponential = 1 - (1 - (torch.arange(1, n + 1, dtype=torch.float64) - 0.5) / n).log()
        >>> goodness(exponential, power_law(exponential, 1.0), 1.0).p_value
        0.0
    """
    xmin = checked_xmin(xmin)
    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 1:
        raise ArgumentError(f"resamples={resamples!r}: expected an int ≥ 1; 100 gives p a standard error below 0.05.")
    if fit.tail_size == 0:
        return Goodness(p_value=math.nan, p_error=math.nan, resamples=0)
    logs = eigenvalues.cpu().log()
    draws = generator(seed, f"{layer}/goodness")
    step = max(1, CHUNK_ELEMENTS // len(logs))
    larger = fitted = 0
    for begin in range(0, resamples, step):
        samples = _synthetic(logs, fit, min(step, resamples - begin), draws)
        closer, any_fit = _at_least_as_close(samples, xmin, fit.ks_distance, resolution)
        fitted += int(any_fit.sum())
        larger += int((any_fit & ~closer).sum())
    share, smooth = larger / max(fitted, 1), (larger + 1) / (fitted + 2)
    return Goodness(
        p_value=share if fitted else math.nan,
        p_error=math.sqrt(smooth * (1 - smooth) / fitted) if fitted else math.nan,
        resamples=fitted,
    )


def _synthetic(
    logs: Float[Tensor, " n"], fit: PowerLaw, count: int, draws: torch.Generator
) -> Float[Tensor, "samples n"]:
    """Sorted ln λ of synthetic data: body and tail in the data's shares, the tail from the fit."""
    body = len(logs) - fit.tail_size
    chosen, level = torch.rand(2, count, len(logs), generator=draws, dtype=torch.float64, device="cpu")
    tail = math.log(fit.xmin) - torch.log1p(-level) / (fit.alpha - 1)
    if body == 0:
        return tail.sort(1).values
    below = logs[(level * body).long().clamp(max=body - 1)]
    return torch.where(chosen * len(logs) < fit.tail_size, tail, below).sort(1).values


def _at_least_as_close(
    samples: Float[Tensor, "samples n"], xmin: Xmin, distance: float, resolution: float
) -> tuple[Bool[Tensor, " samples"], Bool[Tensor, " samples"]]:
    """Whether each sample's own fit has a KS distance of at most the data's; and whether it has a fit.

    The smallest D of many tails need not be known, only whether one is small enough. A few points of a tail bound its
    D from below, and rule out most.
    """
    threshold = math.log(xmin) if isinstance(xmin, float) else None
    rows, starts, exponents, origins = _tails(samples, xmin, threshold, resolution)
    any_fit = torch.zeros(len(samples), dtype=torch.bool, device="cpu").index_fill_(0, rows, True)
    last = samples.shape[1] - 1
    bound = torch.zeros_like(exponents)
    for probe in range(PROBES):
        place = starts + ((last - starts) * ((probe + 0.5) / PROBES)).long()
        fitted = -torch.expm1(exponents * (origins - samples[rows, place]))
        bound = torch.maximum(bound, (fitted - (place - starts) / (last + 1 - starts)).abs())
    closer = torch.zeros_like(any_fit)
    left = (bound <= distance).nonzero()[:, 0]
    left = left[bound[left].argsort()]
    step = max(1, CHUNK_ELEMENTS // samples.shape[1])
    while len(left):
        part, left = left[:step], left[step:]
        found = _distances(samples[rows[part]], starts[part], exponents[part], origins[part])
        closer[rows[part[found <= distance]]] = True
        left = left[~closer[rows[left]]]  # one tail that is close enough answers for its sample
    return closer, any_fit


def _tails(
    samples: Float[Tensor, "samples n"], xmin: Xmin, threshold: float | None, resolution: float
) -> tuple[Int[Tensor, " tails"], Int[Tensor, " tails"], Float[Tensor, " tails"], Float[Tensor, " tails"]]:
    """Sample, first point, α − 1 and ln xmin of every tail that `power_law` compares under the rule."""
    count, length = samples.shape
    if threshold is not None:
        starts = torch.searchsorted(samples, samples.new_full((count, 1), threshold))
    elif xmin == "median":
        starts = torch.full((count, 1), length // 2, device="cpu")
    elif xmin == "peak":
        own = [tried_positions(*peak_range(sample.exp()), length) for sample in samples]
        starts = pad_sequence(own, batch_first=True, padding_value=length - 1)  # a last point makes no tail
    else:
        starts = tried_positions(0, length - 2, length).expand(count, -1)
    fits = starts < length - 1
    starts = starts.clamp(max=length - 1)
    suffix = samples.flip(1).cumsum(1).flip(1)
    first = samples.gather(1, starts)
    if threshold is None:  # a tail holds all that is equal to its first point: the first of equals stands for them
        starts = torch.searchsorted(samples, first)
        fits &= torch.cat([fits.new_ones(count, 1), starts[:, 1:] > starts[:, :-1]], 1)
    origins = first if threshold is None else torch.full_like(first, threshold)
    sizes = (length - starts).to(samples.dtype)
    sums = suffix.gather(1, starts)
    spread = sums - sizes * origins
    fits &= spread > length * torch.finfo(samples.dtype).eps * (sums.abs() + sizes * origins.abs())
    fits &= samples[:, -1:] - origins > (4 * resolution + NARROWEST if resolution else 0)
    rows, places = fits.nonzero(as_tuple=True)
    return rows, starts[fits], (sizes / spread)[fits], origins[fits]


def _distances(
    samples: Float[Tensor, "tails n"],
    starts: Int[Tensor, " tails"],
    exponents: Float[Tensor, " tails"],
    origins: Float[Tensor, " tails"],
) -> Float[Tensor, " tails"]:
    """D of each tail, the one-sided distance of `power_law`."""
    positions = torch.arange(samples.shape[1], device="cpu")
    fitted = (exponents[:, None] * (origins[:, None] - samples)).clamp_(max=0).expm1_().neg_()
    empirical = (positions - starts[:, None]) / (len(positions) - starts[:, None])
    return fitted.sub_(empirical).abs_().masked_fill_(positions < starts[:, None], 0).amax(1)
