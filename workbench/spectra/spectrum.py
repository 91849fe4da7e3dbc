"""`wb.spectrum`: eigenvalue spectra of every weight matrix, with the power law of their tails."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from workbench.cache import Entry
from workbench.errors import ArgumentError, known_names
from workbench.layers import Conv, Layer, Run, Selection, found, layer_run, matrices
from workbench.linalg import gram_eigenvalues, resolved_device, stable_rank
from workbench.progress import ProgressCallback
from workbench.results import LAYER_COLUMNS, Column, LayerResult, many
from workbench.spectra import details as detail_tables
from workbench.spectra import noise_kinds, nulls, verdicts, weightwatcher
from workbench.spectra.details import DETAILS, Spectral, details
from workbench.spectra.entries import copies, live_shape
from workbench.spectra.norms import alpha_weighted, entropy, log_alpha_norm, rounding_edge, zero_threshold
from workbench.spectra.power_law import PowerLaw, Xmin, checked_xmin, power_law
from workbench.weights import ModelLike

METRICS = (
    "num_eigenvalues rank alpha alpha_error ks_distance xmin tail_size alpha_weighted log_alpha_norm stable_rank "
    "entropy lambda_max frobenius_squared"
).split()
DRAWN = {"randomised", "goodness"}  # details that draw random numbers


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Spectrum(LayerResult):
    """Eigenvalue spectra λ = σ² of weight matrices, one row per layer.

    Attributes:
        eigenvalues: layer id → all λ of the layer, ascending, float64; layers that failed have none.
        randomised: layer id → λ of the layer with its elements shuffled; empty without `detail="randomised"`.
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
        **detail_tables.COLUMNS,
        "weightwatcher": weightwatcher.COLUMNS,
    }
    OPTIONAL: ClassVar[Mapping[str, str]] = {
        **{name: f"it is made by wb.spectrum(..., detail={name!r})" for name in detail_tables.DETAILS},
        "weightwatcher": "it is made by wb.spectrum(..., compat='weightwatcher')",
    }
    NEXT: ClassVar[str] = ".frame(), wb.figure(spectrum), wb.figure(spectrum, 'esd', layer=…), wb.ui.SpectrumExplorer()"

    eigenvalues: Mapping[str, Tensor]
    randomised: Mapping[str, Tensor] = field(default_factory=dict)

    def facts(self) -> str:
        """Layers, verdicts, what was excluded, and whether the run was stopped."""
        counts = self.verdict_counts()
        return (
            f"{self.title}: {many(len(self.tables['layers']['verdict']), 'layer')}{f' ({counts})' if counts else ''}, "
            f"{many(len(self.tables['excluded']['tensor']), 'tensor')} excluded{self.stopped()}"
        )


def spectrum(
    model: ModelLike,
    *,
    layers: Selection = None,
    xmin: Xmin = "search",
    conv: Conv = "slices",
    compat: Literal["weightwatcher"] | None = None,
    detail: str | Sequence[str] = (),
    seed: int = 0,
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
        detail: tables to add, a name or several: `noise` (the Marchenko–Pastur law of the bulk, its edges and the
            spikes beyond), `randomised` (the spectrum of the shuffled elements), `tails` (the power law against three
            others), `goodness` (its p-value by 100 bootstrap samples), `det_x` (the tail with Πλ/⟨λ⟩ = 1), `vectors`
            (localisation of the 5 leading singular vectors of each matrix).
        seed: of `randomised` and `goodness`, per layer.
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

    Misreads: α depends on the aspect ratio of the matrix (the reason for FARMS), and the search finds a tail in pure
    noise too. Compare layers of one shape, and read the verdict first. `alpha_error` takes xmin as given and
    eigenvalues as independent; neither is true after a search. Noise with fewer than about five entries other than
    zero in a row, or of no finite variance, is called a tail.

    Example:
        >>> import torch
        >>> result = spectrum({"fc.weight": torch.eye(64)})
        >>> row = result.row("fc")
        >>> row["stable_rank"], round(row["entropy"], 12), row["verdict"], row["reason"]
        (64.0, 1.0, 'no tail', 'the eigenvalues are all equal: the tail has no spread')
    """
    xmin, detail = checked_xmin(xmin), known_names("detail", detail, DETAILS)
    if conv not in ("slices", "flatten"):
        raise ArgumentError(f"conv={conv!r}: expected 'slices' or 'flatten'.")
    if compat not in (None, "weightwatcher"):
        raise ArgumentError(f"compat={compat!r}: expected None or 'weightwatcher'.")
    if compat and (xmin, conv) != ("search", "slices"):
        raise ArgumentError(
            f"compat='weightwatcher' means xmin='search' and conv='slices'; got xmin={xmin!r}, conv={conv!r}. "
            "Drop compat to use other rules."
        )
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ArgumentError(f"seed={seed!r}: expected a whole number.")
    place = resolved_device(device)

    def unit(layer: Layer, tensor: Tensor) -> Entry:
        return layer_spectrum(
            layer, tensor, xmin=xmin, conv=conv, compat=compat, detail=detail, seed=seed, device=place
        )

    return layer_run(
        model,
        layers,
        unit,
        lambda run: _spectrum(run, conv, compat, detail),
        function="wb.spectrum",
        parameters={"xmin": xmin, "conv": conv, "compat": compat, "detail": list(detail)},
        seed=seed if set(detail) & DRAWN else None,
        device=place,
        cache=cache,
        progress=progress,
    )


def layer_spectrum(
    layer: Layer,
    tensor: Tensor,
    *,
    xmin: Xmin,
    conv: Conv,
    compat: Literal["weightwatcher"] | None,
    detail: tuple[str, ...],
    seed: int,
    device: torch.device,
) -> Entry:
    """One layer's eigenvalues, metrics and verdict: the unit of work of `spectrum`, with arguments checked there."""
    count, rows, cols = layer.extent(conv)
    own = matrices(layer, tensor.to(device), conv)
    slices = gram_eigenvalues(own).cpu()
    if compat and layer.kind.startswith("conv"):
        own, slices = own * weightwatcher.SLICE_SCALE, slices * weightwatcher.SLICE_SCALE**2
    pooled = slices.flatten().sort().values
    positive = pooled[pooled > zero_threshold(pooled, max(rows, cols))]
    resolution = torch.finfo(tensor.dtype).eps
    if compat:
        fitted = pooled[pooled > weightwatcher.ZERO]
        fit = weightwatcher.compatible_fit(fitted)
        word, reason = verdicts.verdict(fit, len(fitted), weightwatcher.ZERO)
    else:
        fitted, fit = positive, power_law(positive, xmin, resolution=resolution)
        word, reason = _judged(fit, xmin, positive, slices, own, resolution)
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
    spectral = Spectral(
        layer=layer.layer,
        matrices=own,
        pooled=pooled,
        positive=fitted,
        fit=fit,
        xmin=xmin,
        seed=seed,
        resolution=resolution,
    )
    tables, tensors = details(spectral, detail)
    if compat:
        tables["weightwatcher"] = [weightwatcher.compatible_row(layer, slices, fit, tensors.get("randomised"))]
    return found({"layers": [row], **tables}, {"eigenvalues": pooled, **tensors})


def _judged(fit: PowerLaw, xmin: Xmin, seen: Tensor, slices: Tensor, own: Tensor, resolution: float) -> tuple[str, str]:
    """The verdict against noise: first of one variance and of Gaussian entries, then of what is found in them.

    Dead rows and columns are no noise: the shape is that of the others. Nulls count those of the short side by the
    eigenvalues that are zero.
    """
    edge = rounding_edge(float(slices.max()), resolution)
    if (few := verdicts.rounded(len(seen), int((seen > edge).sum()), resolution)) is not None:
        return few
    rows, cols = live_shape(own)
    length = max(rows, cols)
    plain = nulls.verdict(fit, xmin, seen, rows, cols, len(slices))
    if plain[0] == "no tail":
        return plain
    times, alike, kinds = copies(own), slices, []
    if times > 1:
        kinds.append(f"{times} copies of every row")
        rows, cols = (rows // times, cols) if own.shape[1] >= own.shape[2] else (rows, cols // times)
    if len(slices) > 1 and isinstance(xmin, str):
        own_sums = noise_kinds.of_equal_variance(slices)
        alike = noise_kinds.distinct(own_sums)
        kinds.append(noise_kinds.unequal(len(own_sums), len(alike), "matrices"))
        pooled = alike.flatten().sort().values
        seen = pooled[pooled > zero_threshold(pooled, max(own.shape[1:]))]
    pool = noise_kinds.Pool(
        eigenvalues=seen,
        rows=rows,
        cols=cols,
        matrices=len(alike),
        independent=len(alike),
        entries=own,
        elements=length * len(seen) / len(alike),
    )

    def against(kurtosis: float) -> tuple[str, str]:
        tail = fit if alike is slices else power_law(seen, xmin, resolution=resolution)
        return nulls.verdict(tail, xmin, seen, rows, cols, len(alike), kurtosis)

    return noise_kinds.excused(plain, kinds, against, pool)


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


def _failed(layer: Layer, conv: Conv, reason: str) -> dict[str, Any]:
    count, rows, cols = layer.extent(conv)
    row: dict[str, Any] = dict.fromkeys(METRICS, math.nan)
    row |= {"num_eigenvalues": 0, "rank": 0, "tail_size": 0, "layer": layer.layer, "depth": layer.depth}
    row |= {"verdict": "failed", "reason": reason}
    return row | {"rows": rows, "cols": cols, "matrices": count}


def _spectrum(run: Run, conv: Conv, compat: str | None, detail: tuple[str, ...]) -> Spectrum:
    rows = {"layers": run.rows("layers", lambda layer, reason: _failed(layer, conv, reason))}
    rows |= {"excluded": run.excluded()} | {name: run.rows(name) for name in detail}
    if compat:
        rows["weightwatcher"] = run.rows("weightwatcher", lambda layer, _: weightwatcher.failed_row(layer))
    return Spectrum(
        tables={name: Spectrum.columns(name, inside) for name, inside in rows.items()},
        meta=run.meta,
        eigenvalues=run.tensors("eigenvalues"),
        randomised=run.tensors("randomised"),
    )
