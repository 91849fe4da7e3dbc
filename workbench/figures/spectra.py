"""The figures of a Spectrum and of a Farms: α over depth, and one layer's eigenvalue density with its fit."""

import math

import torch

from workbench.errors import FigureError
from workbench.figures.provenance import depth_label, one_layer, story
from workbench.figures.spec import OTHER_ROLE, Axis, Bars, FigureSpec, Line, Mark, Panel, Points, Rule, limits, ordered
from workbench.spectra import Farms, Spectrum

VERDICT_ROLES = {
    "typical": "first",
    "heavy": "second",
    "weak": "third",
    "heavier than noise": "first",
    "lighter than noise": "third",
    "not judged": "fourth",
    "no tail": "muted",
}
MOST_BINS, LEAST_BINS = 80, 8


def alpha_over_depth(spectrum: Spectrum, layer: str | None) -> FigureSpec:
    """α with its standard error over depth, a symbol per verdict; `layer` is ringed."""
    table = spectrum.tables["layers"]
    marks: list[Mark] = verdict_points(spectrum)
    if not marks:
        raise FigureError("no layer of this spectrum has a fitted tail, so there is no α to draw; see .frame().reason.")
    if layer is not None and math.isfinite((row := spectrum.row(layer))["alpha"]):
        marks.append(Points(x=(float(row["depth"]),), y=(row["alpha"],), ids=(layer,), role="accent"))
    shown = [alpha for alpha in table["alpha"] if math.isfinite(alpha)]
    ends = [a + side * e for a, e in zip(table["alpha"], table["alpha_error"], strict=True) for side in (-1, 1)]
    thresholds = [Rule(axis="y", value=value) for value in (2.0, 6.0)] if "search" == _rule(spectrum) else []
    panel = Panel(
        x=Axis(label=depth_label(spectrum), unit="matrix layers", limits=limits(table["depth"])),
        y=Axis(label="α", limits=limits([1.0, *ends])),
        marks=(*thresholds, *marks),
    )
    return FigureSpec(
        kind="alpha",
        title=f"Power-law exponent α, {len(shown)} layers",
        panels=(panel,),
        provenance=story(spectrum),
    )


def farms_over_depth(farms: Farms, layer: str | None) -> FigureSpec:
    """α of the windows with its standard error, beside α of the full matrix, over depth; `layer` is ringed."""
    table = farms.tables["layers"]
    marks: list[Mark] = verdict_points(farms)
    if not marks:
        raise FigureError("no layer of this result has a fitted tail, so there is no α to draw; see .frame().reason.")
    rows = [row for row, alpha in enumerate(table["alpha_full"]) if math.isfinite(alpha)]
    full = Points(
        x=tuple(float(table["depth"][row]) for row in rows),
        y=tuple(table["alpha_full"][row] for row in rows),
        ids=tuple(table["layer"][row] for row in rows),
        role=OTHER_ROLE,
        label="full matrix",
    )
    if layer is not None and math.isfinite((ringed := farms.row(layer))["alpha"]):
        marks.append(Points(x=(float(ringed["depth"]),), y=(ringed["alpha"],), ids=(layer,), role="accent"))
    ends = [a + side * e for a, e in zip(table["alpha"], table["alpha_error"], strict=True) for side in (-1, 1)]
    panel = Panel(
        x=Axis(label=depth_label(farms), unit="matrix layers", limits=limits(table["depth"])),
        y=Axis(label="α", limits=limits([1.0, *ends, *table["alpha"], *table["alpha_full"]])),
        marks=(full, *marks),
    )
    rules, shown = farms.meta["parameters"], sum(map(math.isfinite, table["alpha"]))
    title = f"α of windows of {rules['window']} rows at aspect ratio {rules['aspect_ratio']:g}, {shown} layers"
    return FigureSpec(kind="alpha", title=title, panels=(panel,), provenance=story(farms))


def verdict_points(result: Spectrum | Farms) -> list[Mark]:
    """α with its standard error over depth, a symbol per verdict."""
    table = result.tables["layers"]
    marks: list[Mark] = []
    for word in ordered(table["verdict"], VERDICT_ROLES):
        rows = [
            row for row, found in enumerate(table["verdict"]) if found == word and math.isfinite(table["alpha"][row])
        ]
        if rows:
            marks.append(
                Points(
                    x=tuple(float(table["depth"][row]) for row in rows),
                    y=tuple(table["alpha"][row] for row in rows),
                    error=tuple(table["alpha_error"][row] for row in rows),
                    ids=tuple(table["layer"][row] for row in rows),
                    role=VERDICT_ROLES.get(word, OTHER_ROLE),
                    label=word,
                )
            )
    return marks


def eigenvalue_density(spectrum: Spectrum, layer: str | None) -> FigureSpec:
    """One layer's eigenvalue density on log–log axes, its fitted tail, and where the tail begins."""
    layer = one_layer(spectrum, "esd", layer)
    row = spectrum.row(layer)
    values = spectrum.eigenvalues.get(layer, torch.empty(0, dtype=torch.float64, device="cpu"))
    values = values[len(values) - row["rank"] :]
    if len(values) < 2:
        raise FigureError(f"{layer} has {len(values)} non-zero eigenvalues: no density to draw ({row['reason']}).")
    edges, heights = log_density(values)
    marks: list[Mark] = [Bars(edges=edges, heights=heights, role="first", label="eigenvalues")]
    lowest = [height for height in heights if height > 0]
    if row["tail_size"] and math.isfinite(row["alpha"]):
        share, start, end = row["tail_size"] / len(values), row["xmin"], row["lambda_max"]
        top = share * (row["alpha"] - 1) / start
        bottom = top * (end / start) ** -row["alpha"]
        marks.append(Line(x=(start, end), y=(top, bottom), role="fit", label="fit"))
        marks.append(Rule(axis="x", value=start, label="xmin"))
        lowest += [top, bottom]
    panel = Panel(
        x=Axis(label="eigenvalue λ", scale="log", limits=limits(edges, "log")),
        y=Axis(label="density", scale="log", limits=limits(lowest, "log")),
        marks=tuple(marks),
        title=_numbers(row),
    )
    return FigureSpec(kind="esd", title=layer, panels=(panel,), provenance=story(spectrum) | {"layer": layer})


def log_density(values: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
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


def _numbers(row: dict[str, object]) -> str:
    if not row["tail_size"]:
        return f"{row['verdict']}: {row['reason']}"
    return (
        f"α = {row['alpha']:.3f} ± {row['alpha_error']:.3f} · n = {row['tail_size']} of {row['rank']} · "
        f"D = {row['ks_distance']:.3f} · {row['verdict']}"
    )


def _rule(spectrum: Spectrum) -> object:
    return spectrum.meta["parameters"]["xmin"]
