"""WeightWatcher 0.7.7's rules, for comparison with published numbers.

Where they differ from the workbench's own: convolution slices are scaled by √½, eigenvalues count as zero below
an absolute 1e-5, and fewer than 20 eigenvalues get a bias-corrected fit. One thing is not copied: its rank counts
σ > ε·N·σmax, which eigenvalues of a Gram matrix cannot resolve; here it is λ > ε·N·λmax, and differs only for
matrices with singular values between 1e-13 and 1e-7 of the largest. And a fit that failed is NaN with the status
`failed`, not its α = −1 that reads as "over-trained".

The columns of its `mp_fit` and `randomize` keep their definitions, and its margin for spikes, on other estimates:
- σ is that of the law with the bulk's median, and q counts positive eigenvalues. There σ minimises the squared distance
  of the law from a density smoothed over 0.1 of the mean λ; for Q = 1 it is the height of a quarter circle whose radius
  stays 2, and the edges made of it do not follow the bulk: in a ResNet-20 it is 0.99 to 1.05, ours 0.36 to 0.92.
- The shuffle is one, from the seed, where it draws two without a seed, `rand_distance`, `ww_softrank` and `ww_maxdist`
  from the second; and for fewer than 100 eigenvalues the first is five, of which it takes all spikes and the largest λ.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.layers import Layer
from workbench.linalg import stable_rank
from workbench.results import Column
from workbench.spectra import det_x
from workbench.spectra.marchenko_pastur import marchenko_pastur_fit
from workbench.spectra.norms import alpha_weighted, log_alpha_norm, zero_threshold
from workbench.spectra.power_law import NO_FIT, PowerLaw, power_law, tail_fits
from workbench.spectra.randomisation import jensen_shannon_distance

ZERO = 1e-5
WEAK_RANK = 1e-6
SMALL_SAMPLE = 20
SMALL_SAMPLE_TAIL = 8
KS_BIAS = 0.868  # its objective is D − 0.868/√n
SLICE_SCALE = math.sqrt(0.5)
OVER_TRAINED, UNDER_TRAINED = 2.0, 6.0
ENTROPY_EPSILON = 1e-10  # added to every share and to the rank

DRAWN: Mapping[str, Column] = {
    name: Column(f"{meaning}; NaN without detail='randomised'", unit=unit, low=low)
    for name, meaning, unit, low in (
        ("rand_distance", "Jensen–Shannon distance of λ and the shuffled elements' λ, by rank", "1", 0),
        ("max_rand_eval", "largest λ of the shuffled elements (there of five shuffles below 100 λ)", "λ", 0),
        ("ww_softrank", "max_rand_eval/λmax", "1", 0),
        ("ww_maxdist", "λmax − max_rand_eval", "λ", -math.inf),
        ("rand_W_scale", "W_scale of the shuffled elements, which is the same", "1", 0),
        ("rand_sigma_mp", "sigma_mp of the shuffled elements", "1", 0),
        ("rand_mp_softrank", "mp_softrank of the shuffled elements", "1", 0),
        ("rand_bulk_min", "bulk_min of the shuffled elements", "λ", 0),
        ("rand_bulk_max", "bulk_max of the shuffled elements", "λ", 0),
        ("rand_num_spikes", "num_spikes of the shuffled elements (there of five shuffles below 100 λ)", "1", 0),
        ("num_traps", "the same number; the detail `randomised` has those beyond noise", "1", 0),
    )
}
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
    "W_scale": Column("√(num_evals/Σλ): with it the mean λ is 1", low=0),
    "sigma_mp": Column(
        "σ of the bulk's law of λ·W_scale², here by the bulk's median (there by a density; for Q = 1 no scale)", low=0
    ),
    "mp_softrank": Column("bulk_max/λmax", low=0),
    "bulk_min": Column("(sigma_mp·(1 − √q)/W_scale)², where that law begins", unit="λ", low=0),
    "bulk_max": Column("(sigma_mp·(1 + √q)/W_scale)², where it ends", unit="λ", low=0),
    "num_spikes": Column("λ above bulk_max and its margin; the detail `noise` has those beyond noise", int, low=0),
    **DRAWN,
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
    empty |= dict.fromkeys(("detX_num", "num_ERG_spikes", "num_spikes"), 0)
    shape = {"longname": layer.layer, "M": small, "N": large, "Q": large / small, "rf": count}
    return empty | shape | {"status": "failed", "warning": ""}


def compatible_row(
    layer: Layer, slices: Float[Tensor, "slices small"], fit: PowerLaw, shuffled: Float[Tensor, " n"] | None = None
) -> dict[str, Any]:
    """One layer's columns under WeightWatcher's names (its `spectral_norm` is λmax, its `norm` Σλ).

    Args:
        layer: the layer.
        slices: λ of each of its matrices, ascending.
        fit: the power law of their tail.
        shuffled: λ of the layer with its elements shuffled, ascending, if that was asked for.
    """
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
        **_noise(layer, eigenvalues),
        **(_randomised(layer, eigenvalues, shuffled) if shuffled is not None else dict.fromkeys(DRAWN, math.nan)),
    }


def _noise(layer: Layer, eigenvalues: Float[Tensor, " n"]) -> dict[str, float]:
    """The columns of its `mp_fit`; σ is that of λ·W_scale², whose mean is 1."""
    count, rows, cols = layer.extent()
    small, large = min(rows, cols), max(rows, cols)
    law, total = marchenko_pastur_fit(eigenvalues, rows, cols, count), float(eigenvalues.sum())
    scale = math.sqrt(len(eigenvalues) / total) if total > 0 else math.nan
    edge = law.bulk_max * scale**2
    margin = (small / large) ** (1 / 4) * (edge / small) ** (1 / 3)
    return {
        "W_scale": scale,
        "sigma_mp": law.sigma * math.sqrt(large) * scale,
        "mp_softrank": law.softrank,
        "bulk_min": law.bulk_min,
        "bulk_max": law.bulk_max,
        "num_spikes": int((eigenvalues * scale**2 > edge + margin).sum()),
    }


def _randomised(layer: Layer, eigenvalues: Float[Tensor, " n"], shuffled: Float[Tensor, " n"]) -> dict[str, float]:
    """The columns of its `randomize`."""
    own, largest = _noise(layer, shuffled), float(shuffled[-1])
    return {
        "rand_distance": jensen_shannon_distance(eigenvalues, shuffled),
        "max_rand_eval": largest,
        "ww_softrank": largest / float(eigenvalues[-1]) if largest > 0 else math.nan,
        "ww_maxdist": float(eigenvalues[-1]) - largest,
        **{f"rand_{name}": value for name, value in own.items()},
        "num_traps": own["num_spikes"],
    }
