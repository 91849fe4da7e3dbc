"""How each kind of result is read by layer: which table, which verdicts are heeded, and what is compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.atlas.models import Identity, tensor_identity
from workbench.atlas.readings import (
    Cell,
    Derived,
    Reading,
    Row,
    Unread,
    by_layer,
    means,
    said,
    share,
    table_cells,
)
from workbench.connectivity.matching import Matching
from workbench.degeneracy.ablation import Ablation
from workbench.degeneracy.activations import Activations
from workbench.degeneracy.audit import Degeneracy
from workbench.degeneracy.basis import InteractionBasis
from workbench.degeneracy.interaction_graph import InteractionGraph
from workbench.layers import Contents, LayerTable
from workbench.results import Column, LayerResult, Result, table_rows
from workbench.signatures import Diff, Signature, Similarity
from workbench.spectra import AlphaPruning, Comparison, Farms, Spectrum, TempBalance

TAIL = (
    "alpha alpha_error ks_distance xmin tail_size alpha_weighted log_alpha_norm alpha_full alpha_full_error "
    "factor learning_rate score ratio kept density sparsity"
).split()
FAILED = Unread(said("failed", "not analysed", "not finished"), None, "the row has no numbers, and its 0 are none")
NO_TAIL = Unread(
    said("no tail"), frozenset(TAIL), "α is then no exponent; that of noise follows the layer's shape, and so would ρ"
)
NOTHING = Unread(lambda row: not row["models"], None, "no model has numbers here, and its 0 are none")
EXCLUDED = Unread(said("excluded"), frozenset({"rows", "cols", "matrices"}), "it is no weight matrix")
UNSAMPLED = Unread(
    said("undersampled"),
    frozenset(
        {"activation_rank", "centred_rank", "gradient_rank", "hessian_rank", "activation_share", "gradient_share"}
    ),
    "fewer datapoints than features: ranks end at their number",
)

ASPECT = Derived(Column("longer side over the shorter", low=1), lambda row: _aspect(row))
SHARES = {
    "activation_share": Derived(Column("r_G/d: activation_rank/width", low=0), share("activation_rank", "width")),
    "gradient_share": Derived(Column("r_M′/d: gradient_rank/width", low=0), share("gradient_rank", "width")),
}
BLOCK_SHARES = {
    "gradient_share": Derived(
        Column("r_K over the block's outputs: gradient_rank/(fan_out·groups)", low=0),
        lambda row: float(row["gradient_rank"] / (row["fan_out"] * row["groups"])) if row["groups"] else math.nan,
    ),
    "hessian_share": Derived(Column("r_G·r_K/p: hessian_rank/params", low=0), share("hessian_rank", "params")),
}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How the main table of a LayerResult is read.

    Attributes:
        what: the prefix of its columns, unless a label is told.
        compared: the columns that are compared unless others are asked for.
        unread: verdicts that are heeded.
        derived: numbers made of others.
        size: elements of a row's layer.
        identity: how its model is known.
    """

    what: str
    compared: tuple[str, ...]
    unread: tuple[Unread, ...] = (FAILED,)
    derived: Mapping[str, Derived] | None = None
    size: Callable[[Row], float] = lambda row: math.nan
    identity: Callable[[Mapping[str, Any]], Identity] = tensor_identity


def _aspect(row: Row) -> float:
    return float(max(row["rows"], row["cols"]) / max(min(row["rows"], row["cols"]), 1))


def _matrix_elements(row: Row) -> float:
    return float(row["rows"] * row["cols"] * row["matrices"])


def _elements(row: Row) -> float:
    return float(row["elements"]) if row["elements"] else math.nan


def _of_module(meta: Mapping[str, Any]) -> Identity:
    return Identity(module=str(meta.get("fingerprint", "")))


def _unknown(meta: Mapping[str, Any]) -> Identity:
    return Identity()


KINDS: Mapping[type[Result], Kind] = {
    Spectrum: Kind(
        what="spectrum",
        compared=("alpha",),
        unread=(FAILED, NO_TAIL),
        derived={"aspect_ratio": ASPECT},
        size=_matrix_elements,
    ),
    Farms: Kind(
        what="farms",
        compared=("alpha",),
        unread=(FAILED, NO_TAIL),
        derived={"aspect_ratio": ASPECT},
        size=_matrix_elements,
    ),
    TempBalance: Kind(what="tempbalance", compared=("factor",), unread=(FAILED, NO_TAIL)),
    AlphaPruning: Kind(what="alphapruning", compared=("sparsity",), unread=(FAILED, NO_TAIL), size=_elements),
    Comparison: Kind(what="comparison", compared=("change",), identity=_unknown),
    LayerTable: Kind(what="layers", compared=(), unread=(EXCLUDED,), size=_elements),
    Contents: Kind(what="contents", compared=("rms",), size=_elements),
    Diff: Kind(what="diff", compared=("relative_norm", "over_floor"), unread=(FAILED, NOTHING), size=_elements),
    Degeneracy: Kind(
        what="degeneracy",
        compared=("gradient_share", "block_hessian_share"),
        unread=(FAILED, UNSAMPLED),
        derived=SHARES,
        identity=_of_module,
    ),
    Activations: Kind(what="activations", compared=("effective_rank",), identity=_of_module),
    InteractionBasis: Kind(what="basis", compared=("predicted_nodes",), identity=_of_module),
    InteractionGraph: Kind(what="graph", compared=("predicted_nodes",), identity=_of_module),
}
OTHERS: Mapping[type, str] = {
    Matching: "matching",
    Similarity: "similarity",
    Signature: "signature",
    Ablation: "ablation",
}


def what_of(result: object) -> str | None:
    """The prefix of a result's columns; None where it has no table by layer."""
    known = OTHERS.get(type(result))
    if known or not isinstance(result, Result):
        return known
    kind = KINDS.get(type(result))
    if kind is None and isinstance(result, LayerResult):
        return type(result).__name__.lower()
    return kind.what if kind else None


def reading(result: Any) -> Reading:
    """A result by layer; of a kind that `what_of` knows."""
    match result:
        case Matching():
            return _matching(result)
        case Similarity():
            return _similarity(result)
        case Signature():
            return _signature(result)
        case Ablation():
            return _ablation(result)
    kind = KINDS.get(type(result), Kind(what="", compared=()))
    table = "layers" if "layers" in result.TABLES else result.TABLES[0]
    cells, columns = table_cells(result, table, unread=kind.unread, derived=kind.derived)
    depths, sizes = by_layer(result, table, lambda row: row["depth"]), by_layer(result, table, kind.size)
    if isinstance(result, Degeneracy):
        blocks, more = table_cells(
            result, "blocks", unread=(FAILED,), derived=BLOCK_SHARES, leaving=("fan_in", "groups"), prefix="block_"
        )
        cells = {layer: {**cells.get(layer, {}), **blocks.get(layer, {})} for layer in {**cells, **blocks}}
        columns |= more
        depths = by_layer(result, "blocks", lambda row: row["depth"]) | depths
        sizes = by_layer(result, "blocks", lambda row: row["params"])
    identity = kind.identity(result.meta)
    tensors = {name for contents in identity.contents for name in contents}
    tensors |= set(result.tables[table].get("tensor", ()))
    return Reading(
        cells=cells,
        columns=columns,
        compared=kind.compared if kind.what else tuple(columns),
        depths=depths,
        sizes=sizes,
        tensors=frozenset(tensors),
        identity=identity,
    )


def _matching(result: Matching) -> Reading:
    """Distances of every tensor, and R(γ) = overlap/vectors of every weight matrix, means over permuted networks."""
    layers, aligned = table_rows(result.tables["layers"]), table_rows(result.tables["alignment"])
    numbers = [name for name, column in Matching.COLUMNS["layers"].items() if column.kind is float]
    gammas = sorted({row["gamma"] for row in aligned})
    columns = {name: Matching.COLUMNS["layers"][name] for name in numbers}
    for gamma in gammas:
        columns[f"alignment_{gamma:g}"] = Column(f"R = overlap_after/vectors at γ = {gamma:g}")
        columns[f"alignment_before_{gamma:g}"] = Column(f"overlap_before/vectors at γ = {gamma:g}")

    def rows() -> Iterator[tuple[str, Mapping[str, float]]]:
        yield from ((row["layer"], {name: row[name] for name in numbers}) for row in layers)
        for row in aligned:
            for name, side in (("alignment", "after"), ("alignment_before", "before")):
                value = row[f"overlap_{side}"] / row["vectors"] if row["vectors"] else math.nan
                yield row["layer"], {f"{name}_{row['gamma']:g}": value}

    return Reading(
        cells=means(rows()),
        columns=columns,
        compared=("reduction", *(f"alignment_{gamma:g}" for gamma in gammas[-1:])),
        depths=by_layer(result, "alignment", lambda row: row["depth"]),
        sizes=by_layer(result, "layers", _elements),
        tensors=frozenset(result.tables["layers"]["tensor"]),
        identity=Identity(header=str(result.meta.get("fingerprint", ""))),
    )


def _similarity(result: Similarity) -> Reading:
    """Mean cosines of different signatures: of all pairs, within types and between."""
    types, others = result.meta["types"], result.meta["others"]
    columns = {
        "cosine": Column("mean cosine of different signatures", low=-1, high=1),
        "within": Column("the same within types", low=-1, high=1),
        "between": Column("the same between types", low=-1, high=1),
    }

    def rows() -> Iterator[tuple[str, Mapping[str, float]]]:
        for row in table_rows(result.tables["layer_pairs"]):
            if others or row["one"] != row["other"]:
                one, other = types["one"][row["one"]], types["other"][row["other"]]
                told = {"cosine": row["cosine"], "within": math.nan, "between": math.nan}
                if one or other:
                    told["within" if one == other else "between"] = row["cosine"]
                yield row["layer"], told

    nothing = {
        row["layer"]: dict.fromkeys(columns, Cell(math.nan, used=False, reason=f"{row['verdict']}: {row['reason']}"))
        for row in table_rows(result.tables["layers"])
    }
    return Reading(
        cells=nothing | means(rows()),
        columns=columns,
        compared=("cosine",),
        depths=by_layer(result, "layers", lambda row: row["depth"]),
        sizes=by_layer(result, "layers", _elements),
    )


def _signature(result: Signature) -> Reading:
    """Norms of every tensor, and its share of ‖RWS‖² of all."""
    infos = {name: one for name, one in result.weights.infos.items() if not one.tied_to}
    whole = math.fsum(result.numbers[name]["norm"] ** 2 for name in infos)
    columns = {
        "energy": Column("share of ‖RWS‖² of all tensors", low=0, high=1),
        "norm": Column("‖RWS‖", unit="w", low=0),
        "robust_norm": Column("‖t‖, robust − ancestor", unit="w", low=0),
        "clean_norm": Column("‖c‖, clean − ancestor", unit="w", low=0),
        "projection": Column("⟨c,t⟩/⟨c,c⟩"),
    }
    rows = [
        (name.removesuffix(".weight"), {"energy": own["norm"] ** 2 / whole if whole else math.nan, **own})
        for name, own in ((name, dict(result.numbers[name])) for name in infos)
    ]
    return Reading(
        cells=means((layer, {name: float(values[name]) for name in columns}) for layer, values in rows),
        columns=columns,
        compared=("energy",),
        sizes={name.removesuffix(".weight"): float(one.elements) for name, one in infos.items()},
        tensors=frozenset(infos),
    )


def _ablation(result: Ablation) -> Reading:
    """How many nodes or edges of its one layer are needed."""
    unit, layer = result.meta["unit"], str(result.meta["layer"])
    columns = {
        "needed": Column(f"{unit} needed to keep the metric within tolerance", low=0),
        "needed_share": Column(f"the same over all {unit}", low=0, high=1),
    }
    if result.tables["points"]["kept"]:
        needed = float(result.needed)
        own = {"needed": Cell(needed, used=True), "needed_share": Cell(needed / max(result.total, 1), used=True)}
    else:
        own = dict.fromkeys(columns, Cell(math.nan, used=False, reason="cancelled before the first point"))
    weights = str(result.meta.get("fingerprints", {}).get("weights", ""))
    return Reading(cells={layer: own}, columns=columns, compared=("needed_share",), identity=Identity(module=weights))
