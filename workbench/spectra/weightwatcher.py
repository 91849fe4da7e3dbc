"""WeightWatcher 0.7.7's rules, for comparison with published numbers.

Where they differ from the workbench's own: convolution slices are scaled by √½, eigenvalues count as zero below
an absolute 1e-5, and fewer than 20 eigenvalues get a bias-corrected fit. One thing is not copied: its rank counts
σ > ε·N·σmax, which eigenvalues of a Gram matrix cannot resolve; here it is λ > ε·N·λmax, and differs only for
matrices with singular values between 1e-13 and 1e-7 of the largest. And a fit that failed is NaN with the status
`failed`, not its α = −1 that reads as "over-trained".
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.layers import Layer
from workbench.results import Column
from workbench.spectra import det_x
from workbench.spectra.norms import alpha_weighted, log_alpha_norm, stable_rank, zero_threshold
from workbench.spectra.power_law import NO_FIT, PowerLaw, power_law, tail_fits

ZERO = 1e-5
WEAK_RANK = 1e-6
SMALL_SAMPLE = 20
SMALL_SAMPLE_TAIL = 8
KS_BIAS = 0.868  # its objective is D − 0.868/√n
SLICE_SCALE = math.sqrt(0.5)
OVER_TRAINED, UNDER_TRAINED = 2.0, 6.0
ENTROPY_EPSILON = 1e-10  # added to every share and to the rank

COLUMNS: Mapping[str, Column] = {
    "longname": Column("the layer's name", str, ""),
    "M": Column("smaller dimension of each matrix", int, low=1),
    "N": Column("larger dimension of each matrix", int, low=1),
    "Q": Column("N/M", low=1),
    "rf": Column("matrices (kernel positions)", int, low=1),
    "num_evals": Column("eigenvalues in all", int, low=0),
    "alpha": Column("exponent; NaN if the fit failed (there it is −1)"),
    "sigma": Column("standard error of alpha"),
    "D": Column("distance of tail and fit, one-sided"),
    "xmin": Column("where the tail begins", unit="λ"),
    "xmax": Column("largest eigenvalue", unit="λ"),
    "num_pl_spikes": Column("eigenvalues in the tail", int),
    "alpha_weighted": Column("α·log10 λmax"),
    "log_alpha_norm": Column("log10 Σ λ^α"),
    "norm": Column("Σλ", unit="λ"),
    "log_norm": Column("log10 Σλ"),
    "spectral_norm": Column("λmax: σ², not σ", unit="λ"),
    "log_spectral_norm": Column("log10 λmax"),
    "lambda_max": Column("λmax", unit="λ"),
    "stable_rank": Column("Σλ/λmax"),
    "entropy": Column("−Σ p ln p / ln rank with 1e-10 added to every p = λ/Σλ"),
    "matrix_rank": Column("the hard rank", int),
    "rank_loss": Column("eigenvalues at or below ε·N·λmax, matrix by matrix", int),
    "weak_rank_loss": Column("eigenvalues below 1e-6", int),
    "sv_max": Column("largest singular value", unit="σ"),
    "sv_min": Column("largest of the matrices' smallest singular values", unit="σ"),
    "status": Column("`success` or `failed`", str, ""),
    "warning": Column("`over-trained` below α = 2, `under-trained` above 6", str, ""),
    **det_x.COLUMNS,
}


def compatible_fit(eigenvalues: Float[Tensor, " n"]) -> PowerLaw:
    """Its power-law fit of the eigenvalues above `ZERO`: the plain search, or below 20 of them the small-sample one."""
    if len(eigenvalues) >= SMALL_SAMPLE:
        return power_law(eigenvalues, "search", exhaustive=True)
    return _small_sample(eigenvalues) if len(eigenvalues) >= 2 else NO_FIT


def _small_sample(eigenvalues: Float[Tensor, " n"]) -> PowerLaw:
    """α with n − 1 in the numerator, xmin minimising D − 0.868/√n among tails of at least 8."""
    count = len(eigenvalues)
    starts = torch.arange(max(count - SMALL_SAMPLE_TAIL + 1, 1), device=eigenvalues.device)
    alphas, distances = tail_fits(eigenvalues, starts, correction=1)
    objective = distances - KS_BIAS / (count - starts).to(distances.dtype).sqrt()
    usable = torch.isfinite(objective)
    if not bool(usable.any()):
        return NO_FIT
    best = int(torch.where(usable, objective, torch.inf).argmin())
    alpha, tail = float(alphas[best]), count - best
    return PowerLaw(
        alpha=alpha,
        alpha_error=(alpha - 1) / math.sqrt(tail),
        ks_distance=float(distances[best]),
        xmin=float(eigenvalues[best]),
        tail_size=tail,
        candidates=len(starts),
    )


def failed_row(layer: Layer) -> dict[str, Any]:
    """The columns of a layer that could not be analysed: its shape and status, and no number."""
    count, rows, cols = layer.extent()
    small, large = min(rows, cols), max(rows, cols)
    empty: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan)
    empty |= dict.fromkeys(("num_evals", "num_pl_spikes", "matrix_rank", "rank_loss", "weak_rank_loss"), 0)
    empty |= dict.fromkeys(("detX_num", "num_ERG_spikes"), 0)
    shape = {"longname": layer.layer, "M": small, "N": large, "Q": large / small, "rf": count}
    return empty | shape | {"status": "failed", "warning": ""}


def compatible_row(layer: Layer, slices: Float[Tensor, "slices small"], fit: PowerLaw) -> dict[str, Any]:
    """One layer's columns under WeightWatcher's names (its `spectral_norm` is λmax, its `norm` Σλ)."""
    _, rows, cols = layer.extent()
    long_side, eigenvalues = max(rows, cols), slices.flatten().sort().values
    largest, total = float(eigenvalues[-1]), float(eigenvalues.sum())
    rank = int((eigenvalues > zero_threshold(eigenvalues, long_side)).sum())
    zeros = [int((one <= zero_threshold(one, long_side)).sum()) for one in slices]
    share = eigenvalues / total + ENTROPY_EPSILON
    failed = fit.tail_size == 0
    warning = "over-trained" if fit.alpha < OVER_TRAINED else "under-trained" if fit.alpha > UNDER_TRAINED else ""
    return {
        "longname": layer.layer,
        "M": min(rows, cols),
        "N": long_side,
        "Q": long_side / min(rows, cols),
        "rf": len(slices),
        "num_evals": len(eigenvalues),
        "alpha": fit.alpha,
        "sigma": fit.alpha_error,
        "D": fit.ks_distance,
        "xmin": fit.xmin,
        "xmax": largest,
        "num_pl_spikes": fit.tail_size,
        "alpha_weighted": alpha_weighted(eigenvalues, fit.alpha),
        "log_alpha_norm": log_alpha_norm(eigenvalues, fit.alpha),
        "norm": total,
        "log_norm": math.log10(total) if total > 0 else -math.inf,
        "spectral_norm": largest,
        "log_spectral_norm": math.log10(largest) if largest > 0 else -math.inf,
        "lambda_max": largest,
        "stable_rank": stable_rank(eigenvalues),
        "entropy": -float((share * share.log()).sum()) / math.log(rank + ENTROPY_EPSILON) if rank > 1 else math.nan,
        "matrix_rank": rank,
        "rank_loss": sum(zeros),
        "weak_rank_loss": int((eigenvalues < WEAK_RANK).sum()),
        "sv_max": math.sqrt(largest),
        "sv_min": math.sqrt(float(slices.amin(1).max())),  # the largest of the slices' smallest, as there
        "status": "failed" if failed else "success",
        "warning": "" if failed else warning,
        **det_x.compatible_det_x(eigenvalues, fit.tail_size),
    }
