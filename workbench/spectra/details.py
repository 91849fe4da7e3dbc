"""What `wb.spectrum(detail=…)` adds: a table per question that costs more than the spectrum or is asked less often."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from jaxtyping import Float
from torch import Tensor

from workbench.errors import LayerError
from workbench.results import Column
from workbench.spectra.det_x import det_x
from workbench.spectra.goodness import goodness
from workbench.spectra.marchenko_pastur import marchenko_pastur_fit
from workbench.spectra.power_law import PowerLaw, Xmin
from workbench.spectra.randomisation import randomisation
from workbench.spectra.tails import tail_comparison
from workbench.spectra.vectors import leading_vectors

VECTORS = 5  # leading singular vectors of each matrix

_LAYER = Column("the layer's id", str, "")
COLUMNS: Mapping[str, Mapping[str, Column]] = MappingProxyType(
    {
        "noise": {
            "layer": _LAYER,
            "sigma": Column("standard deviation of the entries of noise with this bulk", unit="w", low=0),
            "ratio": Column("q = M/N, M the positive eigenvalues of a matrix", low=0, high=1),
            "bulk_min": Column("N·σ²(1 − √q)², where its Marchenko–Pastur law begins", unit="λ", low=0),
            "bulk_max": Column("N·σ²(1 + √q)², where it ends", unit="λ", low=0),
            "spike_edge": Column("λ that noise exceeds in one layer of a hundred (Tracy–Widom)", unit="λ", low=0),
            "num_spikes": Column("eigenvalues above spike_edge, which wb.smoothed has otherwise", int, low=0),
            "softrank": Column("bulk_max/λmax", low=0),
            "bulk_share": Column("share of the positive eigenvalues between bulk_min and bulk_max", low=0, high=1),
            "bulk_distance": Column("largest distance of the bulk's cdf and the law", low=0, high=1),
        },
        "randomised": {
            "layer": _LAYER,
            "rand_distance": Column("Jensen–Shannon distance to the spectrum of the shuffled elements", low=0),
            "max_rand_eval": Column("largest eigenvalue of the shuffled elements", unit="λ", low=0),
            "num_traps": Column("correlation traps: shuffled eigenvalues beyond the noise's edge", int, low=0),
            "rand_sigma": Column("σ of the law fitted to the shuffled spectrum", unit="w", low=0),
            "rand_bulk_max": Column("where that law ends", unit="λ", low=0),
            "rand_softrank": Column("rand_bulk_max/max_rand_eval", low=0),
        },
        "tails": {
            "layer": _LAYER,
            "preferred": Column("power law, truncated power law, log-normal, exponential or undecided", str, ""),
            "statement": Column("what may be said of the tail", str, ""),
            **{
                f"{law}_{name}": Column(meaning)
                for law, names in {
                    "truncated": {"alpha": "its α", "rate": "its Λ, per unit of λ"},
                    "log_normal": {"mu": "its μ of ln λ", "sigma": "its σ of ln λ"},
                    "exponential": {"rate": "its Λ, per unit of λ"},
                }.items()
                for name, meaning in (
                    names
                    | {"ratio": "Σ ln p(power law) − ln p(this law): negative where this law fits better"}
                    | {"p": "p of that ratio: small where its sign is to be trusted"}
                ).items()
            },
        },
        "goodness": {
            "layer": _LAYER,
            "p_value": Column("share of synthetic data from the fit that look worse than the layer", low=0, high=1),
            "p_error": Column("standard error of p_value", low=0, high=1),
            "resamples": Column("synthetic data sets", int, low=0),
        },
        "det_x": {
            "layer": _LAYER,
            "size": Column("largest eigenvalues whose product over the mean of all is nearest to 1", int, low=0),
            "det_x_min": Column("smallest of them", unit="λ", low=0),
            "log_product": Column("Σ ln(λ/⟨λ⟩) over them"),
            "scale": Column("1/√⟨λ⟩: times this the weights have the mean λ = 1", low=0),
        },
        "vectors": {
            "layer": _LAYER,
            "matrix": Column("which of the layer's matrices", int, low=0),
            "vector": Column("which of its leading singular vectors, the largest singular value first", int, low=0),
            "singular_value": Column("σ", unit="w", low=0),
            "degenerate": Column("whether it is known within a subspace only, whose mean is given", bool, ""),
            **{
                f"{side}_{name}": Column(f"{meaning}, over the {what}", low=0)
                for side, what in {"left": "rows", "right": "columns"}.items()
                for name, meaning in {
                    "participation": "1/Σv⁴: coordinates that it lives on",
                    "largest": "share of v² on the largest hundredth of the coordinates",
                    "entropy": "−Σ v² ln v² / ln n",
                }.items()
            },
        },
    }
)
DETAILS = tuple(COLUMNS)
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Spectral:
    """What is known of a layer when its details are asked for.

    Attributes:
        layer: its id.
        matrices: its matrices, on any device.
        pooled: all their λ, ascending.
        positive: those of them that are not zero.
        fit: the power law of their tail.
        xmin: the rule that chose it.
        seed: of all draws.
        resolution: relative precision at which the weights were stored.
    """

    layer: str
    matrices: Float[Tensor, "matrices rows cols"]
    pooled: Float[Tensor, " n"]
    positive: Float[Tensor, " positive"]
    fit: PowerLaw
    xmin: Xmin
    seed: int
    resolution: float


def details(spectral: Spectral, names: Sequence[str]) -> tuple[dict[str, list[Row]], dict[str, Tensor]]:
    """Rows by table, and tensors by field, of what was asked for."""
    rows, tensors = dict[str, list[Row]](), dict[str, Tensor]()
    for name in names:
        made, more = _MAKERS[name](spectral)
        rows[name] = [{**row, "layer": spectral.layer} for row in made]
        tensors |= more
    return rows, tensors


def _noise(of: Spectral) -> tuple[list[Row], dict[str, Tensor]]:
    count, rows, cols = of.matrices.shape
    fit = asdict(marchenko_pastur_fit(of.pooled, rows, cols, count))
    return [{**fit, "bulk_distance": fit["ks_distance"]}], {}


def _randomised(of: Spectral) -> tuple[list[Row], dict[str, Tensor]]:
    shuffled = randomisation(of.matrices, of.pooled, seed=of.seed, layer=of.layer)
    row = {"rand_distance": shuffled.rand_distance, "max_rand_eval": shuffled.max_rand_eval}
    row |= {"num_traps": shuffled.num_traps, "rand_sigma": shuffled.fit.sigma}
    row |= {"rand_bulk_max": shuffled.fit.bulk_max, "rand_softrank": shuffled.fit.softrank}
    return [row], {"randomised": shuffled.eigenvalues}


def _tails(of: Spectral) -> tuple[list[Row], dict[str, Tensor]]:
    row: Row = dict.fromkeys(COLUMNS["tails"], math.nan)
    try:
        compared = tail_comparison(of.positive[len(of.positive) - of.fit.tail_size :], of.fit.xmin)
    except LayerError as error:
        return [row | {"preferred": "undecided", "statement": str(error)}], {}
    for one, law in zip(compared.alternatives, ("truncated", "log_normal", "exponential"), strict=True):
        row |= {f"{law}_{name}": value for name, value in one.law.parameters.items()}
        row |= {f"{law}_ratio": one.ratio, f"{law}_p": one.p_value}
    return [row | {"preferred": compared.preferred, "statement": compared.statement}], {}


def _goodness(of: Spectral) -> tuple[list[Row], dict[str, Tensor]]:
    tested = goodness(of.positive, of.fit, of.xmin, seed=of.seed, layer=of.layer, resolution=of.resolution)
    return [asdict(tested)], {}


def _det_x(of: Spectral) -> tuple[list[Row], dict[str, Tensor]]:
    tail = det_x(of.positive)
    return [{**asdict(tail), "det_x_min": tail.xmin}], {}


def _vectors(of: Spectral) -> tuple[list[Row], dict[str, Tensor]]:
    return [row for number, matrix in enumerate(of.matrices) for row in _vector_rows(number, matrix)], {}


def _vector_rows(number: int, matrix: Tensor) -> Iterator[Row]:
    if not bool(matrix.any()):
        return
    leading = leading_vectors(matrix, VECTORS)
    for place, value in enumerate(leading.singular_values.tolist()):
        row = {"matrix": number, "vector": place, "singular_value": value}
        row["degenerate"] = bool(leading.degenerate[place])
        for side, found in (("left", leading.left), ("right", leading.right)):
            row[f"{side}_participation"] = float(found.participation_ratio[place])
            row[f"{side}_largest"] = float(found.largest_share[place])
            row[f"{side}_entropy"] = float(found.entropy[place])
        yield row


_MAKERS: Mapping[str, Callable[[Spectral], tuple[list[Row], dict[str, Tensor]]]] = {
    "noise": _noise,
    "randomised": _randomised,
    "tails": _tails,
    "goodness": _goodness,
    "det_x": _det_x,
    "vectors": _vectors,
}
