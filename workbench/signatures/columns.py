"""What the columns of a Diff mean."""

from collections.abc import Mapping

from workbench.results import LAYER_COLUMNS, Column
from workbench.signatures import manifest

LABEL = Column("the model", str, "")
REASON = Column("layers that are missing from the total, and why; empty if none is", str, "")
LAYER = Column("the layer's id", str, "")


def _share(meaning: str) -> Column:
    return Column(meaning, low=0, high=1)


def _cosine(meaning: str) -> Column:
    return Column(meaning, low=-1, high=1)


NUMBERS: Mapping[str, Column] = {  # of one model in one layer
    "changed": _share("share of elements with τ = W′ − W ≠ 0"),
    "delta_norm": Column("‖τ‖", unit="w", low=0),
    "relative_norm": Column("‖τ‖/‖W‖", low=0),
    "over_floor": Column("relative_norm over that of the floor model; infinite over 0, NaN without one", low=0),
    "cosine": _cosine("⟨W, W′⟩/(‖W‖‖W′‖)"),
    "sign_conflict": _share("share, of elements neither zero in W nor in W′, whose signs differ"),
}
PAIR: Mapping[str, Column] = {
    "one": Column("a model", str, ""),
    "other": Column("another model", str, ""),
    "elements": Column("elements that both have", int, low=0),
    "cosine": _cosine("⟨τᵢ, τⱼ⟩/(‖τᵢ‖‖τⱼ‖)"),
    "null_sd": _share("1/√elements: standard deviation of the cosine of independent changes"),
    "sign_conflict": _share("share, of elements neither zero in τᵢ nor in τⱼ, whose signs differ"),
    "trimmed_conflict": _share("the same among the largest `density` of each layer in both; NaN without"),
}
OF_LAYER: Mapping[str, Column] = {"layer": LAYER, "label": LABEL}

COLUMNS: Mapping[str, Mapping[str, Column]] = {
    "layers": {
        **LAYER_COLUMNS,
        "kind": Column("linear, embedding, conv1d, conv2d, conv3d; empty if no weight matrix", str, ""),
        "shape": Column("the shape of the tensor, or of the part", str, ""),
        "elements": Column("elements; 0 for a second name of a tied tensor", int, low=0),
        "models": Column("models with numbers here; the numbers are means over them", int, low=0),
        "norm": Column("‖W‖ of the base", unit="w", low=0),
        **NUMBERS,
        "null_sd": _share("1/√elements: standard deviation of the cosine of independent tensors"),
        "floor": Column("relative_norm of the floor model, a second seed; NaN without one", low=0),
        "tau_cosine": _cosine("cosine of τᵢ and τⱼ, mean over pairs of models; NaN for one model"),
        "tau_conflict": _share("sign conflict of τᵢ and τⱼ, mean over pairs; NaN for one model"),
    },
    "manifest": manifest.COLUMNS,
    "models": {
        "label": LABEL,
        "source": Column("where it comes from, shortened", str, ""),
        "fingerprint": Column("of its names, shapes and dtypes", str, ""),
        "tensors": Column("tensors it has", int, low=0),
        "compared": Column("tensors compared with the base's", int, low=0),
        "identical": Column("those among them that are bit-identical", int, low=0),
        **{word: Column(f"tensors whose row in `manifest` says {word}", int, low=0) for word in manifest.CHANGES},
        "elements": Column("elements compared as weights; buffers and statistics of norm layers are not", int, low=0),
        **NUMBERS,
        "reason": REASON,
    },
    "values": {
        **OF_LAYER,
        "verdict": Column("as in `layers`, of this model alone", str, ""),
        "reason": Column("why there is no number", str, ""),
        **NUMBERS,
    },
    "pairs": {**PAIR, "reason": REASON},
    "layer_pairs": {"layer": LAYER, **PAIR},
    "lorenz": {
        **OF_LAYER,
        "top10": _share("share of Στ² in the tenth of the elements with the largest |τ|"),
        "gini": _share("1 − 2·area under the Lorenz curve of τ²: 0 if all are equal, 1 if one has all"),
        "half": _share("smallest share of the elements that has half of Στ²"),
    },
    "outliers": {
        **OF_LAYER,
        "axis": Column("output (a row of the matrix) or input (a column)", str, ""),
        "channel": Column("its number", int, low=0),
        "norm": Column("‖τ‖ of the channel", unit="w", low=0),
        "z": Column("(norm − median)/(1.4826·MAD) over the channels; ∞ where more than half are equal"),
    },
    "spectra": {
        **OF_LAYER,
        "rows": Column("rows of the matrix (kernel positions lie in the columns)", int, low=1),
        "cols": Column("columns of the matrix", int, low=1),
        "stable_rank": Column("Σσ²/σ₁² of τ", low=0),
        "effective_rank": Column("exp(H(σ/Σσ)) of τ", low=0),
        "base_stable_rank": Column("the same of W", low=0),
        "base_effective_rank": Column("the same of W", low=0),
        "other_stable_rank": Column("the same of W′", low=0),
        "other_effective_rank": Column("the same of W′", low=0),
        **{
            f"rank_{share}": Column(f"min r with Σ_{{≤r}}σ² ≥ {share / 100:g}·Σσ² of τ", int, low=0)
            for share in (50, 90, 95, 99)
        },
        "bytes_90": Column("bytes of a LoRA of rank rank_90 in the base's dtype: r·(rows + cols)", int, "B", low=0),
        "bytes_full": Column("bytes of τ itself", int, "B", low=0),
        "directions": Column("q, leading singular vectors compared", int, low=0),
        "overlap": Column("‖U_WᵀU_τ‖²/q of the q leading left singular vectors of W and τ", low=0, high=1 + 1e-9),
        "chance": _share("q/rows: its mean for independent directions"),
        "overlap_right": Column("the same of the right singular vectors", low=0, high=1 + 1e-9),
        "chance_right": _share("q/cols"),
        "spectral_change": Column("‖σ(W′) − σ(W)‖/‖σ(W)‖; at most relative_norm", low=0),
    },
    "activations": {
        "layer": Column("path of the submodule whose outputs are compared", str, ""),
        "label": LABEL,
        "cka": Column("linear CKA ‖S_xy‖²/(‖S_xx‖‖S_yy‖) of centred outputs", low=0, high=1 + 1e-9),
        "samples": Column("samples: positions of outputs but for the features", int, low=0),
        "width": Column("features", int, low=0),
        "reason": Column("why there is no number", str, ""),
    },
}
OPTIONAL: Mapping[str, str] = {
    **{name: f"it is made by wb.diff(..., detail={name!r})" for name in ("lorenz", "outliers", "spectra")},
    "activations": "it is made by wb.diff(..., data=batches, module=network)",
}
