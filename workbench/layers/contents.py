"""`wb.contents`: what is inside tensors: zeros, NaN and infinities, moments, a histogram and a map of magnitudes."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.cache import Entry
from workbench.errors import ArgumentError
from workbench.layers.run import Run, View, found, layer_run
from workbench.layers.selection import Selection
from workbench.layers.views import Exclusion
from workbench.progress import ProgressCallback
from workbench.results import LAYER_COLUMNS, Column, LayerResult, many
from workbench.weights import ModelLike, TensorInfo

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

TILE_ELEMENTS = 1 << 20  # elements upcast at a time: 8 MB of float64
SAFE = 1e-140, 1e140  # squares of elements between them neither underflow nor overflow float64
LARGEST = float(np.finfo(np.float64).max)
EXACT = 2**53  # from here on float64 has not every integer
NUMBERS = "sparsity minimum maximum mean std rms".split()
COUNTS = "zeros nan infinite".split()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Contents(LayerResult):
    """What is inside tensors, one row per tensor or part of one, under the ids of `wb.layers`.

    Attributes:
        edges: layer id → the bins + 1 edges of its histogram, float64, equally spaced from minimum to maximum.
        counts: layer id → finite elements in each bin, int64; the last bin holds its right edge.
        heat: layer id → root mean square of blocks of the tensor, float64, as many blocks as `cells` at most along each
            side: the first axis goes down, all others across; NaN where a block holds NaN or an infinity.
    """

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "layers": {
            **LAYER_COLUMNS,
            "kind": Column("linear, embedding, conv1d, conv2d, conv3d; empty if no weight matrix", str, ""),
            "shape": Column("the shape of the tensor, or of the part", str, ""),
            "dtype": Column("dtype as stored", str, ""),
            "elements": Column("elements looked at; 0 for a second name of a tied tensor", int, low=0),
            "zeros": Column("elements that are 0 or -0", int, low=0),
            "sparsity": Column("zeros/elements", low=0, high=1),
            "nan": Column("elements that are NaN", int, low=0),
            "infinite": Column("elements that are ∞ or −∞", int, low=0),
            "minimum": Column("smallest finite element", unit="w"),
            "maximum": Column("largest finite element", unit="w"),
            "mean": Column("mean of the finite elements", unit="w"),
            "std": Column("√(Σ(w − mean)²/n) of the n finite elements", unit="w", low=0),
            "rms": Column("√(Σw²/n) of the n finite elements", unit="w", low=0),
        }
    }
    NEXT: ClassVar[str] = ".frame(), wb.figure(contents), wb.figure(contents, 'histogram', layer=…)"

    edges: Mapping[str, Tensor]
    counts: Mapping[str, Tensor]
    heat: Mapping[str, Tensor]

    def facts(self) -> str:
        """Tensors and verdicts, what is not finite, and whether the run was stopped."""
        table, words = self.tables["layers"], self.verdict_counts()
        told = many(len(table["verdict"]), "tensor")
        return (
            f"{self.title}: {told}{f' ({words})' if words else ''}, {sum(table['nan']):,} NaN and "
            f"{sum(table['infinite']):,} infinite of {sum(table['elements']):,} elements{self.stopped('tensors')}"
        )


def contents(
    model: ModelLike,
    *,
    layers: Selection = None,
    bins: int = 100,
    cells: int = 64,
    cache: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
) -> Contents:
    """What is inside tensors: sparsity zeros/elements, NaN and ∞, mean, std, a histogram and a map of magnitudes.

    Args:
        model: anything `wb.load` takes.
        layers: names, globs or a predicate, of weight matrices, biases and buffers alike (a predicate is given a Layer,
            or what `wb.layers` excludes); None for all.
        bins: bins of the histogram, equally wide between the smallest and the largest finite element; 1 to 10,000.
        cells: blocks along each side of the map of magnitudes, at most; 1 to 1,000.
        cache: a folder that keeps finished tensors by content fingerprint and parameters.
        progress: called before each tensor with a Progress; it may raise `wb.Cancelled`.

    Returns:
        Contents: a row per tensor (fused q/k/v, experts and gates apart), histograms and maps. `verdict` is `finite`,
        `not finite` (the reason counts), `constant`, `empty`, `tied` (counted under its first name) or `failed`.

    Raises:
        CheckpointError: the model cannot be opened.
        LayerNotFoundError: the selection matches nothing.
        ArgumentError: an argument is out of its range.
        Cancelled: the callback asked for it; `.partial` is the Contents of the tensors that were done.

    Cost: two passes over each tensor in memory, some 20 ns an element; only what is asked for is read. One tensor in
    memory at a time, or one for each of torch's threads (8 at most) where no tensor exceeds 64 MB. Elements are upcast
    to float64 in blocks.

    Source: no paper. Means and deviations of blocks are joined by Chan, Golub & LeVeque's update (1979).

    Misreads: integers of 2⁵³ or more are rounded, complex numbers stand for their absolute values, and 8-bit floats
    lack their scales (`reason` says so). A block's root mean square hides signs and single outliers in a large block.

    Example:
        >>> import torch
        >>> row = contents({"fc.weight": torch.tensor([[0.0, 3.0], [torch.nan, -4.0]])}).row("fc")
        >>> row["sparsity"], row["nan"], row["minimum"], row["verdict"], row["reason"]
        (0.25, 1, -4.0, 'not finite', '1 of 4 elements is NaN')
    """
    for name, value, most in (("bins", bins, 10_000), ("cells", cells, 1_000)):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise ArgumentError(f"{name}={value!r}: expected a whole number from 1 to {most:,}.")

    def unread(view: View, info: TensorInfo) -> Entry | None:
        if not info.tied_to:
            return None
        return found({"layers": [_row(view, "tied", view.reason if isinstance(view, Exclusion) else "")]})

    return layer_run(
        model,
        layers,
        lambda view, tensor: tensor_contents(view, tensor, bins, cells),
        _contents,
        function="wb.contents",
        parameters={"bins": bins, "cells": cells},
        cache=cache,
        progress=progress,
        unread=unread,
    )


def tensor_contents(view: View, tensor: Tensor, bins: int, cells: int) -> Entry:
    """One tensor's row, histogram and map: the unit of work of `contents`."""
    own = view.part.of(tensor) if view.part else tensor
    if not own.numel():
        return found({"layers": [_row(view, "empty", "no elements")]})
    flat = own.reshape(own.shape[0], -1) if own.ndim > 1 else own.reshape(1, -1)
    down, across = (_bounds(side, min(side, cells)) for side in flat.shape)
    zeros = nan = infinite = 0
    low, high = math.inf, -math.inf
    for tile, _, _ in _tiles(flat):
        zeros += tile.size - int(np.count_nonzero(tile))
        if not np.isfinite(tile).all():
            nan += int(np.isnan(tile).sum())
            infinite += int(np.isinf(tile).sum())
            tile = tile[np.isfinite(tile)]
        if tile.size:
            low, high = min(low, float(tile.min())), max(high, float(tile.max()))
    finite = flat.numel() - nan - infinite
    largest = max(abs(low), abs(high)) if finite else 1.0
    scale = 1.0 if largest == 0 or SAFE[0] < largest < SAFE[1] else largest
    edges = _edges(low / scale, high / scale, bins) if finite else np.zeros(0)
    counts = np.zeros(max(len(edges) - 1, 0), dtype=np.int64)
    heat = np.zeros((len(down) - 1, len(across) - 1))
    done, mean, scatter = 0, 0.0, 0.0
    for tile, top, left in _tiles(flat):
        tile = tile / scale if scale != 1 else tile
        with np.errstate(invalid="ignore"):  # NaN and ∞ stay in the blocks that hold them
            squares = np.square(tile)
        (row, rows), (col, cols) = _cuts(down, top, tile.shape[0]), _cuts(across, left, tile.shape[1])
        bands = np.stack([band.sum(0) for band in np.split(squares, rows[1:])])
        heat[row : row + len(rows), col : col + len(cols)] += np.add.reduceat(bands, cols, axis=1)
        inside = tile[np.isfinite(tile)] if nan or infinite else tile.reshape(-1)
        if inside.size:
            counts += np.histogram(inside, len(counts), (edges[0], edges[-1]))[0]
            here = float(inside.mean())
            apart, total = here - mean, done + inside.size
            scatter += float(np.square(inside - here).sum()) + apart**2 * done * inside.size / total
            mean, done = mean + apart * inside.size / total, total
    blocks = np.diff(down)[:, None] * np.diff(across)[None, :]
    heat = np.where(np.isfinite(heat), np.sqrt(heat / blocks) * scale, np.nan)
    with np.errstate(over="ignore"):  # the bin around a single huge element ends at the largest number
        edges = np.clip(edges * scale, -LARGEST, LARGEST)
    verdict, reason = _verdict(view, own, nan, infinite, low, high)
    std = math.sqrt(scatter / finite) if finite else math.nan
    numbers = {
        "zeros": zeros,
        "sparsity": zeros / flat.numel(),
        "nan": nan,
        "infinite": infinite,
        "minimum": low if finite else math.nan,
        "maximum": high if finite else math.nan,
        "mean": mean * scale if finite else math.nan,
        "std": 0.0 if low == high else std * scale,
        "rms": math.hypot(mean, std) * scale if finite else math.nan,
    }
    tensors = {
        "edges": torch.from_numpy(edges),
        "counts": torch.from_numpy(counts),
        "heat": torch.from_numpy(heat),
    }
    return found({"layers": [_row(view, verdict, reason, own.numel()) | numbers]}, tensors)


def _tiles(flat: Tensor) -> Iterator[tuple[Floats, int, int]]:
    """A matrix in float64, at most TILE_ELEMENTS at a time, with the row and column where each tile begins."""
    wide = min(flat.shape[1], TILE_ELEMENTS)
    high = TILE_ELEMENTS // wide
    for top in range(0, flat.shape[0], high):
        for left in range(0, flat.shape[1], wide):
            tile = flat[top : top + high, left : left + wide]
            yield (tile.abs() if tile.is_complex() else tile).cpu().to(torch.float64).numpy(), top, left


def _cuts(bounds: Integers, start: int, length: int) -> tuple[int, Integers]:
    """The block in which a stretch of rows begins, and where in the stretch it and each further block begin."""
    first = int(np.searchsorted(bounds, start, "right")) - 1
    inside = bounds[(bounds > start) & (bounds < start + length)]
    return first, np.concatenate([[0], inside - start])


def _bounds(side: int, blocks: int) -> Integers:
    """Where blocks of nearly equal length begin and end."""
    return np.arange(blocks + 1, dtype=np.int64) * side // blocks


def _edges(low: float, high: float, bins: int) -> Floats:
    """Equally spaced edges; a single bin around a single value, fewer bins where float64 has no room for them."""
    if low == high:
        apart = abs(low) / 2 or 0.5
        return np.array([low - apart, high + apart])
    while bins > 1 and (high - low) / bins < 2 * max(math.ulp(low), math.ulp(high)):
        bins //= 2
    return np.linspace(low, high, bins + 1)


def _verdict(view: View, own: Tensor, nan: int, infinite: int, low: float, high: float) -> tuple[str, str]:
    reasons = []
    if nan or infinite:
        told = " and ".join(
            f"{count} of {own.numel()} elements {'is' if count == 1 else 'are'} {what}"
            for count, what in ((nan, "NaN"), (infinite, "infinite"))
            if count
        )
        reasons.append(told)
    elif low == high:
        reasons.append(f"{'the only element is' if own.numel() == 1 else f'all {own.numel()} elements are'} {low:g}")
    if not own.is_floating_point() and not own.is_complex() and max(-low, high) >= EXACT:
        reasons.append("integers of 2⁵³ or more: the numbers are rounded")
    if own.is_complex():
        reasons.append("complex: the numbers are those of the absolute values")
    if own.is_floating_point() and own.dtype.itemsize == 1:
        reasons.append("8-bit float storage: its scales are not known here")
    word = "not finite" if nan or infinite else "constant" if low == high else "finite"
    return word, "; ".join(reasons)


def _row(view: View, verdict: str, reason: str, elements: int = 0) -> dict[str, Any]:
    """A row without numbers."""
    row: dict[str, Any] = dict.fromkeys(NUMBERS, math.nan) | dict.fromkeys(COUNTS, 0)
    shape = "×".join(map(str, view.shape)) or "scalar"
    row |= {"layer": view.layer, "depth": view.depth, "kind": view.kind, "shape": shape, "elements": elements}
    return row | {"verdict": verdict, "reason": reason}


def _contents(run: Run) -> Contents:
    dtypes = {outcome.unit.layer: run.weights.infos[outcome.unit.tensor].dtype for outcome in run.outcomes}
    rows = (
        {**row, "dtype": str(dtypes[row["layer"]]).removeprefix("torch.")}
        for row in run.rows("layers", lambda view, reason: _row(view, "failed", reason))
    )
    return Contents(
        tables={"layers": Contents.columns("layers", rows)},
        meta=run.meta,
        edges=run.tensors("edges"),
        counts=run.tensors("counts"),
        heat=run.tensors("heat"),
    )
