"""One layer of a FARMS run: its windows, the fit of their eigenvalues, and what is to be said about them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.cache import Entry
from workbench.layers import Conv, Layer, found, matrices
from workbench.linalg import gram_eigenvalues
from workbench.seeds import generator
from workbench.spectra import noise_kinds, nulls
from workbench.spectra.entries import live_rows
from workbench.spectra.norms import rounding_edge, zero_threshold
from workbench.spectra.power_law import CANDIDATES, NO_FIT, SEARCH_LIMIT, PowerLaw, Xmin, power_law
from workbench.spectra.verdicts import MIN_EIGENVALUES, rounded
from workbench.spectra.weightwatcher import SLICE_SCALE
from workbench.spectra.window_bootstrap import standard_error, window_bootstrap
from workbench.spectra.windows import Windows, cover, reference, reference_blocks, window_eigenvalues

Sampling = Literal["cover", "reference"]

RELEASED_LEAST = 5  # eigenvalues of a linear layer below which the released code drops it in silence
KEPT = 1 << 16  # eigenvalues kept of a layer: 0.5 MB


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The checked arguments of a run that decide a layer's numbers."""

    aspect_ratio: float
    window: int
    stride: int | None
    steps: int
    sampling: Sampling
    xmin: Xmin
    conv: Conv
    resamples: int
    seed: int
    full: bool


@dataclass(frozen=True)
class Estimate:
    """The fit of a layer's pools, its standard error, and what to say of it."""

    fit: PowerLaw
    error: float
    remarks: Sequence[str]


def layer_farms(layer: Layer, tensor: Tensor, *, rules: Rules, device: torch.device) -> Entry:
    """One layer's windows, estimate and verdict: the unit of work of `farms`, with arguments checked there."""
    layer = as_released(layer) if rules.sampling == "reference" else layer
    own = matrices(layer, tensor.to(device), rules.conv)
    count, rows, cols = own.shape
    sliced = layer.kind.startswith("conv") and rules.conv == "slices"
    tall = own.transpose(1, 2) if sliced and rows < cols else own
    windows, remarks = layer_windows(tall.shape[1], tall.shape[2], sliced, rules)
    whole = (windows.height, windows.width) == tall.shape[1:]
    looked_at = own if rules.full or whole else own.flatten(1)[:, None]  # in any shape it names NaN and infinities
    full = gram_eigenvalues(looked_at).cpu()
    values = full[:, None, None] if whole else window_eigenvalues(tall, windows).cpu()
    blocks = sliced and rules.sampling == "reference"
    if blocks:
        full, values = full * SLICE_SCALE**2, values * SLICE_SCALE**2
    pools = as_pools(values, blocks)
    resolution = torch.finfo(tensor.dtype).eps
    guess = estimate(pools, windows, windows.disjoint * count // len(pools), layer.layer, resolution, rules)
    pooled, full = values.flatten().sort().values, full.flatten().sort().values
    if len(pooled) > KEPT:
        remarks = [*remarks, f"{KEPT} order statistics of {len(pooled)} eigenvalues are kept"]
    word, reason = judged(guess.fit, pooled, values, own, windows, blocks, resolution, rules)
    if word != "no tail" and (live := without_dead(tall)).numel() < tall.numel():
        word, reason = judged_without_dead(live, (word, reason), sliced, blocks, resolution, rules)
    full = full[full > zero_threshold(full, max(rows, cols))]
    whole_fit = power_law(full, rules.xmin, resolution=resolution) if rules.full else NO_FIT
    row = shape_row(layer, rules) | {
        "verdict": word,
        "reason": "; ".join(filter(None, [reason, *remarks, *guess.remarks, layer.remark])),
        "window_rows": windows.height,
        "window_cols": windows.width,
        "windows": windows.count * count,
        "coverage": windows.elements / (rows * cols),
        "num_eigenvalues": len(pooled),
        "alpha": guess.fit.alpha,
        "alpha_error": guess.error,
        "ks_distance": guess.fit.ks_distance,
        "xmin": guess.fit.xmin,
        "tail_size": guess.fit.tail_size,
        "alpha_full": whole_fit.alpha,
        "alpha_full_error": whole_fit.alpha_error,
    }
    return found({"layers": [row]}, {"eigenvalues": order_statistics(pooled)})


def estimate(
    pools: Sequence[Float[Tensor, "windows small"]],
    windows: Windows,
    disjoint: int,
    name: str,
    resolution: float,
    rules: Rules,
) -> Estimate:
    """The fit of each pool of windows, their mean, and its standard error.

    Args:
        pools: eigenvalues of the windows that are fitted together, on the CPU.
        windows: where they lie.
        disjoint: windows without overlap that would hold as many elements as one pool.
        name: the layer id, which the resamples are drawn by.
        resolution: relative precision at which the weights were stored.
        rules: the checked arguments.
    """
    above = [zero_threshold(pool.max()[None], max(windows.height, windows.width)) for pool in pools]
    positive = [pool[pool > zero].sort().values for pool, zero in zip(pools, above, strict=True)]
    fits = [power_law(values, rules.xmin, resolution=resolution) for values in positive]
    fit, error, remarks = mean_fit(fits), math.nan, []
    if rules.resamples and len(pools[0]) == 1:
        remarks.append("one window: no standard error")
    elif rules.resamples and math.isfinite(fit.alpha):
        draws, random = max(disjoint, 2), generator(rules.seed, name)
        alphas = [
            window_bootstrap(pool, rules.xmin, above=zero, draws=draws, resamples=rules.resamples, generator=random)
            for pool, zero in zip(pools, above, strict=True)
        ]
        error = standard_error(torch.stack(alphas).nanmean(0))
        remarks.append(f"standard error from {rules.resamples} resamples of {draws} windows")
    if any(one.candidates == CANDIDATES and len(of) > SEARCH_LIMIT for one, of in zip(fits, positive, strict=True)):
        remarks.append(f"{CANDIDATES} quantiles were tried as xmin")
    return Estimate(fit, error, remarks)


def as_pools(values: Float[Tensor, "matrices tops lefts small"], blocks: bool) -> list[Float[Tensor, "windows small"]]:
    """The eigenvalues of the windows that are fitted together: those of each row block, or all."""
    return list(values.transpose(0, 1).flatten(1, 2)) if blocks else [values.flatten(0, 2)]


def judged(
    fit: PowerLaw,
    pooled: Float[Tensor, " n"],
    values: Float[Tensor, "matrices tops lefts small"],
    own: Float[Tensor, "matrices rows cols"],
    windows: Windows,
    blocks: bool,
    resolution: float,
    rules: Rules,
) -> tuple[str, str]:
    """The verdict against noise: first of one variance and of Gaussian entries, then of what is found in them.

    Slices may have a variance of their own, and so may windows, because that of a few large entries is another in each.
    A window of fewer than 20 eigenvalues would lose too much by it.
    """
    height, width, count = windows.height, windows.width, values[..., 0].numel()
    pools = values.shape[1] if blocks else 1
    independent = min(windows.elements / (height * width * windows.count), 1.0)  # of a window

    def positive(of: Tensor) -> Tensor:
        return of[of > zero_threshold(of.max()[None], max(height, width))]

    def verdict(alpha: float, seen: Tensor, kurtosis: float) -> tuple[str, str]:
        return nulls.farms_verdict(alpha, rules.xmin, seen, height, width, count, independent * count, kurtosis, pools)

    seen = positive(pooled)
    edges = rounding_edge(1.0, resolution) * values.amax(3, keepdim=True)
    if (few := rounded(len(seen), int((values > edges).sum()), resolution)) is not None:
        return few
    plain, alike, kinds = verdict(fit.alpha, seen, 0.0), values, []
    if plain[0] == "no tail":
        return plain
    if count > 1 and isinstance(rules.xmin, str):
        small = values.shape[3] < MIN_EIGENVALUES
        sums = values.sum((1, 2, 3) if small else 3, keepdim=True)
        scaled = values / torch.where(sums > 0, sums, 1) * sums[sums > 0].mean()
        alike = noise_kinds.distinct(scaled.flatten(1)).reshape(-1, *values.shape[1:])
        alive, kept = (int(((of.flatten(1) if small else of).sum(-1) > 0).sum()) for of in (scaled, alike))
        count = kept * count // sums.numel()
        if alive > 1:
            kinds.append(noise_kinds.unequal(alive, kept, "matrices" if small else "windows"))

    def against(kurtosis: float) -> tuple[str, str]:
        pools = [positive(pool).sort().values for pool in as_pools(alike, blocks)]
        refit = mean_fit([power_law(pool, rules.xmin, resolution=resolution) for pool in pools])
        return verdict(refit.alpha, positive(alike).sort().values, kurtosis)

    pool = noise_kinds.Pool(
        eigenvalues=positive(alike),
        rows=height,
        cols=width,
        matrices=count,
        independent=max(independent * count, 1.0),
        entries=own,
    )
    return noise_kinds.excused(plain, kinds, against, pool)


def without_dead(matrices: Float[Tensor, "matrices rows cols"]) -> Float[Tensor, "matrices live_rows live_cols"]:
    """The matrices without rows and columns that are zero in all of them."""
    rows = live_rows(matrices.transpose(0, 1).flatten(1))
    cols = live_rows(matrices.permute(2, 0, 1).flatten(1))
    if (len(rows), len(cols)) == matrices.shape[1:]:
        return matrices
    return matrices[:, rows][:, :, cols]


def judged_without_dead(
    live: Float[Tensor, "matrices rows cols"],
    judged_as_is: tuple[str, str],
    sliced: bool,
    blocks: bool,
    resolution: float,
    rules: Rules,
) -> tuple[str, str]:
    """The verdict of a layer with dead rows or columns, which share a window's noise out unevenly: that without them.

    Where that is not `no tail`, the layer keeps the one it had.
    """
    tall = live.transpose(1, 2) if sliced and live.shape[1] < live.shape[2] else live
    windows, _ = layer_windows(tall.shape[1], tall.shape[2], sliced, rules)
    values = window_eigenvalues(tall, windows).cpu() * (SLICE_SCALE**2 if blocks else 1)
    fit = estimate(as_pools(values, blocks), windows, 0, "", resolution, replace(rules, resamples=0)).fit
    pooled = values.flatten().sort().values
    word, reason = judged(fit, pooled, values, tall, windows, blocks, resolution, rules)
    return (word, f"without rows and columns of zeros: {reason}") if word == "no tail" else judged_as_is


def as_released(layer: Layer) -> Layer:
    """The layer as FARMS' released code sees it, which knows linear and Conv2d modules without groups."""
    if layer.kind not in ("linear", "conv2d") or layer.transposed:
        kind = f"transposed {layer.kind}" if layer.transposed else layer.kind
        remark = f"the released code skips {kind} layers: this is its rule applied to one"
        return replace(layer, groups=1, remark="; ".join(filter(None, [layer.remark, remark])))
    return replace(layer, groups=1)


def layer_windows(rows: int, cols: int, sliced: bool, rules: Rules) -> tuple[Windows, list[str]]:
    """The windows of each matrix of a layer, and what a reader must know of them."""
    width = max(round(rules.window * rules.aspect_ratio), 1)
    sizes = f"the window of {rules.window}×{width} does not fit in {rows}×{cols}"
    if rules.sampling == "cover":
        windows = cover(rows, cols, window=rules.window, aspect_ratio=rules.aspect_ratio, stride=rules.stride)
        shrunk = windows.height < rules.window
        return windows, [f"{sizes} and was shrunk to {windows.height}×{windows.width}"] if shrunk else []
    if sliced:
        windows = reference_blocks(rows, cols, aspect_ratio=rules.aspect_ratio)
        return windows, ["row blocks as in the released vision code; the one for language models crashes here"]
    windows = reference(rows, cols, window=rules.window, aspect_ratio=rules.aspect_ratio, steps=rules.steps)
    remarks = []
    if rows < rules.window or cols < width:
        seen = f"{windows.height}×{windows.width}"
        remarks.append(
            f"{sizes}: from a negative start the released vision code takes {seen}, the other one shrinks it"
        )
    if windows.count * min(windows.height, windows.width) < RELEASED_LEAST:
        remarks.append(f"the released code drops a layer of fewer than {RELEASED_LEAST} eigenvalues")
    return windows, remarks


def mean_fit(fits: Sequence[PowerLaw]) -> PowerLaw:
    """One fit as it is; of several the mean α, D and xmin of those that have a tail, and the sum of their tails."""
    found = [fit for fit in fits if fit.tail_size and math.isfinite(fit.alpha)]
    if len(fits) == 1 or not found:
        return fits[0] if fits else NO_FIT
    return PowerLaw(
        alpha=math.fsum(fit.alpha for fit in found) / len(found),
        alpha_error=math.hypot(*(fit.alpha_error for fit in found)) / len(found),
        ks_distance=math.fsum(fit.ks_distance for fit in found) / len(found),
        xmin=math.fsum(fit.xmin for fit in found) / len(found),
        tail_size=sum(fit.tail_size for fit in found),
        candidates=sum(fit.candidates for fit in found),
    )


def order_statistics(ascending: Float[Tensor, " n"]) -> Float[Tensor, " kept"]:
    """All values, or 65536 of them evenly spread by rank from the first to the last."""
    if len(ascending) <= KEPT:
        return ascending
    ranks = torch.linspace(0, len(ascending) - 1, KEPT, dtype=torch.float64, device=ascending.device)
    return ascending[ranks.round().long()]


def shape_row(layer: Layer, rules: Rules) -> dict[str, Any]:
    """The cells that are known before a layer is read."""
    layer = replace(layer, groups=1) if rules.sampling == "reference" else layer
    count, rows, cols = layer.extent(rules.conv)
    return {"layer": layer.layer, "depth": layer.depth, "rows": rows, "cols": cols, "matrices": count}
