"""One layer's eigenvalue density with its fitted tail, noise and shuffled elements beside it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.errors import FigureError
from workbench.figures.provenance import one_layer, story
from workbench.figures.spec import Axis, Bars, FigureSpec, Line, Mark, Panel, Rule, limits
from workbench.results import LayerResult
from workbench.spectra import Farms, Spectrum, power_law
from workbench.spectra.marchenko_pastur import marchenko_pastur_density
from workbench.spectra.norms import zero_threshold

MOST_BINS, LEAST_BINS = 80, 8
LAW_POINTS = 200


@dataclass(frozen=True)
class Tail:
    """What is drawn and said of a fitted tail."""

    alpha: float
    alpha_error: float
    ks_distance: float
    xmin: float
    size: int


def eigenvalue_density(spectrum: Spectrum, layer: str | None, xmin: float | None = None) -> FigureSpec:
    """One layer's eigenvalue density on log–log axes, its fitted tail, and where the tail begins.

    Beside it stand the Marchenko–Pastur law of its bulk and the spectrum of its shuffled elements, if the result has
    them (`detail=["noise", "randomised"]`). With `xmin` the tail is fitted anew from there.
    """
    layer = one_layer(spectrum, "esd", layer)
    row = spectrum.row(layer)
    values = _kept(spectrum, layer, row["rank"])
    marks: list[Mark] = []
    if layer in spectrum.randomised:
        shuffled = spectrum.randomised[layer]
        marks += _outline(shuffled[shuffled > 0])
    if "noise" in spectrum.tables:
        noise = spectrum.tables["noise"]
        place = noise["layer"].index(layer)
        marks += _law({name: cells[place] for name, cells in noise.items()}, row, len(values))
    return _drawn(spectrum, layer, row, values, marks, xmin, len(values))


def window_density(farms: Farms, layer: str | None, xmin: float | None = None) -> FigureSpec:
    """The same of the pooled eigenvalues of one layer's windows."""
    layer = one_layer(farms, "esd", layer)
    row = farms.row(layer)
    values = farms.eigenvalues.get(layer, torch.empty(0, dtype=torch.float64, device="cpu"))
    above = zero_threshold(values, max(row["window_rows"], row["window_cols"])) if len(values) else 0.0
    positive = values[values > above]
    share = row["num_eigenvalues"] / max(len(values), 1)  # above 1 where order statistics stand for all
    return _drawn(farms, layer, row, positive, [], xmin, round(share * len(positive)))


def _kept(spectrum: Spectrum, layer: str, rank: int) -> Tensor:
    values = spectrum.eigenvalues.get(layer, torch.empty(0, dtype=torch.float64, device="cpu"))
    values = values[len(values) - rank :]
    if len(values) < 2:
        reason = spectrum.row(layer)["reason"]
        raise FigureError(f"{layer} has {len(values)} non-zero eigenvalues: no density to draw ({reason}).")
    return values


def _drawn(
    result: LayerResult,
    layer: str,
    row: Mapping[str, Any],
    values: Tensor,
    more: list[Mark],
    xmin: float | None,
    count: int,
) -> FigureSpec:
    """The figure of `values`, which stand for `count` eigenvalues."""
    if len(values) < 2:
        raise FigureError(f"{layer} has {len(values)} non-zero eigenvalues: no density to draw ({row['reason']}).")
    edges, heights = log_density(values)
    marks: list[Mark] = [Bars(edges=edges, heights=heights, role="first", label="eigenvalues"), *more]
    lowest = [height for height in heights if height > 0]
    tail = _tail(row) if xmin is None else _refitted(values, xmin, count, apart=isinstance(result, Spectrum))
    if tail is not None:
        share, end = tail.size / count, float(values[-1])
        top = share * (tail.alpha - 1) / tail.xmin
        bottom = top * (end / tail.xmin) ** -tail.alpha
        marks.append(Line(x=(tail.xmin, end), y=(top, bottom), role="fit", label="fit"))
        marks.append(Rule(axis="x", value=tail.xmin, label="xmin"))
        lowest += [top, bottom]
    panel = Panel(
        x=Axis(label="eigenvalue λ", scale="log", limits=limits(edges, "log")),
        y=Axis(label="density", scale="log", limits=limits(lowest, "log")),
        marks=tuple(marks),
        title=_numbers(row, tail, count, xmin),
    )
    told = story(result) | {"layer": layer} | ({} if xmin is None else {"refitted": f"xmin={xmin:g}"})
    return FigureSpec(kind="esd", title=layer, panels=(panel,), provenance=told)


def _tail(row: Mapping[str, Any]) -> Tail | None:
    if not row["tail_size"] or not math.isfinite(row["alpha"]):
        return None
    return Tail(row["alpha"], row["alpha_error"], row["ks_distance"], row["xmin"], row["tail_size"])


def _refitted(values: Tensor, xmin: float, count: int, *, apart: bool) -> Tail | None:
    """The tail from `xmin` on; it has a standard error if the values are `apart`, and not of overlapping windows."""
    if not 0 < xmin < math.inf:
        raise FigureError(f"xmin={xmin!r}: expected a positive number, an eigenvalue at which the tail begins.")
    fit = power_law(values, float(xmin))
    if not fit.tail_size:
        return None
    size = round(fit.tail_size * count / len(values))
    return Tail(fit.alpha, fit.alpha_error if apart else math.nan, fit.ks_distance, fit.xmin, size)


def _law(noise: Mapping[str, Any], row: Mapping[str, Any], count: int) -> list[Mark]:
    """The Marchenko–Pastur law of the bulk, as heavy as the bulk is."""
    if not math.isfinite(noise["sigma"]):
        return []
    scale, ratio = max(row["rows"], row["cols"]) * noise["sigma"] ** 2, noise["ratio"]
    low, high = noise["bulk_min"], noise["bulk_max"]
    places = torch.linspace(math.log(max(low, high * 1e-6)), math.log(high), LAW_POINTS + 2, dtype=torch.float64)
    places = places[1:-1].exp()
    heights = marchenko_pastur_density(places / scale, ratio) / scale * (1 - noise["num_spikes"] / count)
    line = Line(x=tuple(places.tolist()), y=tuple(heights.tolist()), role="third", label="noise (Marchenko–Pastur)")
    return [line]


def _outline(shuffled: Tensor) -> list[Mark]:
    """The density of the shuffled spectrum at the middles of its bins."""
    if len(shuffled) < 2:
        return []
    bounds, heights = log_density(shuffled)
    middles = [math.sqrt(left * right) for left, right in zip(bounds, bounds[1:], strict=False)]
    points = [(middle, height) for middle, height in zip(middles, heights, strict=True) if height > 0]
    x, y = zip(*points, strict=True)
    return [Line(x=x, y=y, role="fifth", label="shuffled elements")]


def log_density(values: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Edges and heights of a density histogram with bins of equal width in ln λ; an empty bin is NaN.

    Heights integrate to 1 over the bins. The number of bins follows √n, between 8 and 80.
    """
    logs = values.log()
    bins = max(LEAST_BINS, min(MOST_BINS, math.isqrt(len(values)) * 2))
    low, high = float(logs[0]), float(logs[-1])
    if high - low < 1e-9:  # all equal: one narrow bar, not a division by zero
        low, high, bins = low - 0.05, high + 0.05, 1
    counts = torch.histc(logs, bins=bins, min=low, max=high)
    edges = torch.linspace(low, high, bins + 1, dtype=torch.float64, device="cpu").exp()
    heights = counts / (len(values) * edges.diff())
    return tuple(edges.tolist()), tuple(height if height > 0 else math.nan for height in heights.tolist())


def _numbers(row: Mapping[str, Any], tail: Tail | None, count: int, xmin: float | None) -> str:
    if tail is None:
        return f"{row['verdict']}: {row['reason']}" if xmin is None else f"no tail from xmin = {xmin:.4g} on"
    said = row["verdict"] if xmin is None else f"refit at λ = {tail.xmin:.4g}"
    error = f" ± {tail.alpha_error:.3f}" if math.isfinite(tail.alpha_error) else ""
    return f"α = {tail.alpha:.3f}{error} · n = {tail.size} of {count} · D = {tail.ks_distance:.3f} · {said}"
