"""`wb.spectrum`: eigenvalue spectra of every weight matrix, with the power law of their tails."""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from workbench.cache import Cache, Entry
from workbench.errors import ArgumentError, Cancelled, LayerError
from workbench.layers import Conv, Exclusion, Layer, Selection, layer_views, matrices, selected
from workbench.linalg import gram_eigenvalues, resolved_device
from workbench.progress import Outcome, ProgressCallback, map_units
from workbench.results import LAYER_COLUMNS, Column, LayerResult, short_source
from workbench.spectra import weightwatcher
from workbench.spectra.norms import alpha_weighted, entropy, log_alpha_norm, stable_rank, zero_threshold
from workbench.spectra.power_law import PowerLaw, Xmin, checked_xmin, power_law
from workbench.spectra.verdicts import verdict
from workbench.weights import ModelLike, Weights, content_fingerprint, load

METRICS = (
    "num_eigenvalues rank alpha alpha_error ks_distance xmin tail_size alpha_weighted log_alpha_norm stable_rank "
    "entropy lambda_max frobenius_squared"
).split()
SMALL_ELEMENTS = 1 << 24  # 64 MB of float32: tensors up to this size are analysed several at a time
MOST_WORKERS = 8


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Spectrum(LayerResult):
    """Eigenvalue spectra λ = σ² of weight matrices, one row per layer.

    Attributes:
        eigenvalues: layer id → all λ of the layer, ascending, float64; layers that failed have none.
    """

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "layers": {
            **LAYER_COLUMNS,
            "rows": Column("rows of each matrix", int, low=1),
            "cols": Column("columns of each matrix", int, low=1),
            "matrices": Column("matrices whose eigenvalues are pooled", int, low=1),
            "num_eigenvalues": Column("eigenvalues in all: matrices · min(rows, cols)", int, low=0),
            "rank": Column("eigenvalues above ε·N·λmax, the hard rank", int, low=0),
            "alpha": Column("power-law exponent α = 1 + n/Σ ln(λ/xmin) of the tail", low=1),
            "alpha_error": Column("(α − 1)/√n: the standard error for a given xmin and independent eigenvalues", low=0),
            "ks_distance": Column("largest distance of the tail's one-sided empirical CDF and the fit", low=0, high=1),
            "xmin": Column("λ at which the tail begins", unit="λ", low=0),
            "tail_size": Column("number n of eigenvalues in the tail", int, low=0),
            "alpha_weighted": Column("α·log10 λmax"),
            "log_alpha_norm": Column("log10 Σ λ^α"),
            "stable_rank": Column("Σλ/λmax", low=0),
            "entropy": Column("−Σ p ln p / ln rank, p = λ/Σλ", low=0),
            "lambda_max": Column("largest eigenvalue, the squared spectral norm", unit="λ", low=0),
            "frobenius_squared": Column("Σλ, the squared Frobenius norm", unit="λ", low=0),
        },
        "excluded": {
            "tensor": Column("a tensor that is no weight matrix", str, ""),
            "depth": LAYER_COLUMNS["depth"],
            "elements": Column("its elements", int, low=0),
            "reason": Column("why it is none", str, ""),
        },
        "weightwatcher": weightwatcher.COLUMNS,
    }
    OPTIONAL: ClassVar[Mapping[str, str]] = {"weightwatcher": "it is made by wb.spectrum(..., compat='weightwatcher')"}
    NEXT: ClassVar[str] = ".frame(), wb.figure(spectrum), wb.figure(spectrum, 'esd', layer=…), wb.ui.SpectrumExplorer()"

    eigenvalues: Mapping[str, Tensor]

    def facts(self) -> str:
        """Layers, verdicts, what was excluded, and whether the run was stopped."""
        verdicts = self.tables["layers"]["verdict"]
        counts = ", ".join(f"{verdicts.count(word)} {word}" for word in dict.fromkeys(verdicts))
        stopped = self.meta.get("cancelled")
        return (
            f"{self.title}: {len(verdicts)} layers{f' ({counts})' if counts else ''}, "
            f"{len(self.tables['excluded']['tensor'])} tensors excluded"
            + (f"; CANCELLED after {stopped['done']} of {stopped['total']} layers" if stopped else "")
        )


@dataclass(frozen=True)
class LayerSpectrum:
    """One layer's part of a Spectrum."""

    row: dict[str, Any]
    eigenvalues: Tensor
    fingerprint: str
    weightwatcher: dict[str, Any] | None

    def entry(self) -> Entry:
        """As a cache keeps it."""
        values = {"row": self.row, "fingerprint": self.fingerprint, "weightwatcher": self.weightwatcher}
        return Entry(values, {"eigenvalues": self.eigenvalues})

    @classmethod
    def of(cls, entry: Entry) -> "LayerSpectrum":
        """From what a cache kept."""
        return cls(**entry.values, eigenvalues=entry.tensors["eigenvalues"])


def spectrum(
    model: ModelLike,
    *,
    layers: Selection = None,
    xmin: Xmin = "search",
    conv: Conv = "slices",
    compat: Literal["weightwatcher"] | None = None,
    device: str = "auto",
    cache: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
) -> Spectrum:
    """Eigenvalues λ = σ² of every weight matrix and the power law p(λ) ∝ λ^−α of their tails.

    Args:
        model: anything `wb.load` takes.
        layers: names, globs or a predicate of a Layer; None for all.
        xmin: where the tail begins: `search` (the λ that minimises D, the default as in WeightWatcher), `median`
            (λ[n//2], as in FARMS' vision code), `peak` (a search about the peak of the density of log10 λ, as in FARMS'
            code for language models), or a number λ > 0.
        conv: `slices` pools the eigenvalues of the out×in matrices of all kernel positions (default as in
            WeightWatcher), `flatten` takes the one out×(in·positions) matrix.
        compat: `weightwatcher` applies the rules of WeightWatcher 0.7.7 (slices scaled by √½, zero below 1e-5,
            its small-sample fit) and adds the table `weightwatcher` under its own names.
        device: `auto`, `cpu` or `cuda`.
        cache: a folder that keeps finished layers by content fingerprint and parameters; a layer found there is read
            and not computed. `.meta["cache"]` counts both.
        progress: called before each layer with a Progress; it may raise `wb.Cancelled`.

    Returns:
        A Spectrum: a row per layer, all eigenvalues, and a table of what was excluded and why. A layer that
        cannot be analysed (NaN, infinite) is a row with the verdict `failed` and its reason.

    Raises:
        CheckpointError: the model cannot be opened.
        LayerNotFoundError: the selection matches nothing.
        ArgumentError: an argument is out of its range.
        Cancelled: the callback asked for it; `.partial` is the Spectrum of the layers that were done.

    Cost: N·M² + 4/3·M³ flops a matrix in float64, and O(n²) for the search. One tensor in memory at a time, or one
    for each of torch's threads (8 at most) where no tensor exceeds 64 MB.

    Source: Martin & Mahoney, "Implicit self-regularization in deep neural networks" (2021); Clauset, Shalizi &
    Newman (2009) for the fit. Ours: float64 Gram matrices, a relative zero threshold ε·N·λmax, verdicts.

    Misreads: α depends on the aspect ratio of the matrix (the reason for FARMS), and the search finds a tail in
    pure noise too. Compare layers of one shape, and read the verdict first. `alpha_error` takes xmin as given and
    eigenvalues as independent; neither is true after a search.

    Example:
        >>> import torch
        >>> result = spectrum({"fc.weight": torch.eye(64)})
        >>> row = result.row("fc")
        >>> row["stable_rank"], round(row["entropy"], 12), row["verdict"], row["reason"]
        (64.0, 1.0, 'no tail', 'the eigenvalues are all equal: the tail has no spread')
    """
    begin = time.perf_counter()
    xmin = checked_xmin(xmin)
    if conv not in ("slices", "flatten"):
        raise ArgumentError(f"conv={conv!r}: expected 'slices' or 'flatten'.")
    if compat not in (None, "weightwatcher"):
        raise ArgumentError(f"compat={compat!r}: expected None or 'weightwatcher'.")
    if compat and (xmin, conv) != ("search", "slices"):
        raise ArgumentError(
            f"compat='weightwatcher' means xmin='search' and conv='slices'; got xmin={xmin!r}, conv={conv!r}. "
            "Drop compat to use other rules."
        )
    if progress is not None and not callable(progress):
        raise ArgumentError(f"progress={progress!r}: expected a function of a Progress, or None.")
    place = resolved_device(device)
    kept = None if cache is None else Cache(cache)
    weights = load(model)
    views = layer_views(weights)
    chosen = selected(views, layers, short_source(weights.source))

    def unit(layer: Layer) -> LayerSpectrum:
        tensor = weights.borrowed(layer.tensor)
        fingerprint = content_fingerprint(tensor)

        def compute() -> LayerSpectrum:
            return layer_spectrum(layer, tensor, fingerprint, xmin=xmin, conv=conv, compat=compat, device=place)

        if kept is None:
            return compute()
        rules = {"xmin": xmin, "conv": conv, "compat": compat, "device": str(place)}
        key = {"function": "wb.spectrum", "layer": asdict(layer), "fingerprint": fingerprint, **rules}
        return LayerSpectrum.of(kept.through(key, lambda: compute().entry()))

    def result(outcomes: Sequence[Outcome[Layer, LayerSpectrum]]) -> Spectrum:
        names = [layer.layer for layer in chosen] if layers is not None else None
        meta = weights.provenance("wb.spectrum", layers=names, xmin=xmin, conv=conv, compat=compat)
        meta |= {"seed": None, "dtype": "float64", "device": str(place), "seconds": time.perf_counter() - begin}
        if kept is not None:
            meta["cache"] = kept.facts()
        if len(outcomes) < len(chosen):
            meta["cancelled"] = {"done": len(outcomes), "total": len(chosen)}
        return _spectrum(weights, views, outcomes, conv, compat, meta)

    try:
        workers = _workers(weights, chosen) if place.type == "cpu" else 1
        return result(map_units(unit, chosen, name=lambda layer: layer.layer, progress=progress, workers=workers))
    except Cancelled as stop:
        stop.partial = result(stop.partial)
        raise


def _workers(weights: Weights, layers: Sequence[Layer]) -> int:
    """Layers at a time: as many as torch uses threads, but one where a tensor is so large that memory counts."""
    largest = max(weights.infos[layer.tensor].elements for layer in layers)
    return min(torch.get_num_threads(), MOST_WORKERS) if largest <= SMALL_ELEMENTS else 1


def layer_spectrum(
    layer: Layer,
    tensor: Tensor,
    fingerprint: str,
    *,
    xmin: Xmin,
    conv: Conv,
    compat: Literal["weightwatcher"] | None,
    device: torch.device,
) -> LayerSpectrum:
    """One layer's eigenvalues, metrics and verdict: the unit of work of `spectrum`, with arguments checked there."""
    count, rows, cols = layer.extent(conv)
    slices = gram_eigenvalues(matrices(layer, tensor.to(device), conv))
    if compat and layer.kind.startswith("conv"):
        slices = slices * weightwatcher.SLICE_SCALE**2
    pooled = slices.flatten().sort().values
    positive = pooled[pooled > zero_threshold(pooled, max(rows, cols))]
    if compat:
        fitted = pooled[pooled > weightwatcher.ZERO]
        fit = weightwatcher.compatible_fit(fitted)
    else:
        fitted, fit = positive, power_law(positive, xmin, resolution=torch.finfo(tensor.dtype).eps)
    word, reason = verdict(fit, xmin, len(fitted), weightwatcher.ZERO if compat else None)
    if not compat and xmin == "search" and 0 < fit.candidates < len(fitted) - 1:
        reason += f"; {fit.candidates} of {len(fitted)} eigenvalues were tried as xmin"
    reason = "; ".join(filter(None, [reason, layer.remark]))
    row = {
        "layer": layer.layer,
        "depth": layer.depth,
        "verdict": word,
        "reason": reason,
        "rows": rows,
        "cols": cols,
        "matrices": count,
        "num_eigenvalues": len(pooled),
        "rank": len(positive),
        **_metrics(pooled, positive, fit),
    }
    compatible = weightwatcher.compatible_row(layer, slices, fit) if compat else None
    return LayerSpectrum(row, pooled.cpu(), fingerprint, compatible)


def _metrics(pooled: Tensor, positive: Tensor, fit: PowerLaw) -> dict[str, Any]:
    return {
        "alpha": fit.alpha,
        "alpha_error": fit.alpha_error,
        "ks_distance": fit.ks_distance,
        "xmin": fit.xmin,
        "tail_size": fit.tail_size,
        "alpha_weighted": alpha_weighted(pooled, fit.alpha),
        "log_alpha_norm": log_alpha_norm(positive, fit.alpha),
        "stable_rank": stable_rank(pooled),
        "entropy": entropy(pooled, len(positive)),
        "lambda_max": float(pooled[-1]),
        "frobenius_squared": float(pooled.sum()),
    }


def _failed(layer: Layer, conv: Conv, error: Exception) -> dict[str, Any]:
    count, rows, cols = layer.extent(conv)
    known = isinstance(error, LayerError)
    row: dict[str, Any] = dict.fromkeys(METRICS, math.nan)
    row |= {"num_eigenvalues": 0, "rank": 0, "tail_size": 0, "layer": layer.layer, "depth": layer.depth}
    row |= {"verdict": "failed", "reason": str(error) if known else f"{type(error).__name__}: {error}"}
    return row | {"rows": rows, "cols": cols, "matrices": count}


def _spectrum(
    weights: Weights,
    views: Sequence[Layer | Exclusion],
    outcomes: Sequence[Outcome[Layer, LayerSpectrum]],
    conv: Conv,
    compat: str | None,
    meta: dict[str, Any],
) -> Spectrum:
    done = [(outcome.unit, outcome.value) for outcome in outcomes if outcome.value is not None]
    rows = [
        outcome.value.row if outcome.value else _failed(outcome.unit, conv, outcome.error or LayerError("no value"))
        for outcome in outcomes
    ]
    tables = {"layers": Spectrum.columns("layers", rows)}
    left_out = [view for view in views if isinstance(view, Exclusion)]
    tables["excluded"] = Spectrum.columns(
        "excluded", (vars(view) | {"elements": weights.infos[view.tensor].elements} for view in left_out)
    )
    if compat:
        compatible = [
            (outcome.value and outcome.value.weightwatcher) or weightwatcher.failed_row(outcome.unit)
            for outcome in outcomes
        ]
        tables["weightwatcher"] = Spectrum.columns("weightwatcher", compatible)
    meta["fingerprints"] = {layer.tensor: value.fingerprint for layer, value in done}
    eigenvalues = {layer.layer: value.eigenvalues for layer, value in done}
    return Spectrum(tables=tables, meta=meta, eigenvalues=eigenvalues)
