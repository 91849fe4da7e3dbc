"""The audit: how degenerate every layer of a module is, over data."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from workbench.degeneracy.audit_rows import Audit
from workbench.degeneracy.provenance import chain_meta
from workbench.degeneracy.sweep import Sweep
from workbench.degeneracy.synchronised import relu_gates
from workbench.degeneracy.weight_blocks import weight_blocks
from workbench.errors import ArgumentError, Cancelled
from workbench.progress import ProgressCallback, check_progress, reporter
from workbench.results import LAYER_COLUMNS, Column, LayerResult, many
from workbench.runtime.chain import resolved_dtype
from workbench.runtime.cut_test import layer_chain

MOST_EXACT = 64  # backward passes a batch up to which every output and position has one of its own
PROBES = 8  # in their place beyond that

_FLOOR = "eigenvalues above it are counted"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Degeneracy(LayerResult):
    """What of a module's activations, gradients and weights does nothing, over data.

    Tables: `layers`, a row per layer's output; `blocks`, a row per submodule with parameters; `clusters`, a row per set
    of units that fire on exactly the same datapoints.

    Attributes:
        activation_eigenvalues: layer → eigenvalues of G = E[ffᵀ], uncentred, the largest first.
        gradient_eigenvalues: layer → eigenvalues of M′ = E[JᵀJ] of the module's output, the largest first.
    """

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "layers": {
            **LAYER_COLUMNS,
            "width": Column("features of the output: d", int, "features", low=1),
            "positions": Column("positions of a sample in the first batch: pixels, tokens or 1", int, low=0),
            "samples": Column("datapoints n: samples times positions, padding left out", int, low=0),
            "activation_rank": Column("r_G: rank of G = E[ffᵀ], uncentred", float, "1", low=0),
            "centred_rank": Column("rank of E[(f−μ)(f−μ)ᵀ]", float, "1", low=0),
            "gradient_rank": Column("r_M′: rank of M′ = E[JᵀJ], J of the module's output by this one", float, low=0),
            "hessian_rank": Column("Σ r_G·r_K of the weight blocks that read it; NaN if none do", float, low=0),
            "synchronised": Column("pairs of units that fire on the same datapoints; NaN: no ReLU", float, low=0),
            "dead": Column("units that never fire; NaN where no ReLU reads or makes it", float, "units", low=0),
            "relu": Column("whether it is a ReLU's `input` or `output`; `none` for neither", str, ""),
            "activation_floor": Column(f"noise floor of the eigenvalues of G: {_FLOOR}", float, "1", low=0),
            "gradient_floor": Column(f"noise floor of the eigenvalues of M′: {_FLOOR}", float, "1", low=0),
            "estimator": Column("of M′: `exact` or `Hutchinson`", str, ""),
            "gradient_error": Column("relative standard error of M′ (Frobenius), 0 where exact", float, "1", low=0),
        },
        "blocks": {
            **LAYER_COLUMNS,
            "reads": Column("the last layer before it; `input` if there is none, empty if it did not run", str, ""),
            "params": Column("parameters p of its own, tied ones counted once", int, "params", low=0),
            "fan_in": Column("inputs of a unit, the bias apart; 0 if not analysed", int, low=0),
            "fan_out": Column("units of a group; 0 if not analysed", int, low=0),
            "groups": Column("groups of a convolution; 0 if not analysed", int, low=0),
            "input_rank": Column(
                "r_G of its inputs, with the constant 1 that a bias reads; over groups Σ", float, low=0
            ),
            "gradient_rank": Column("r_K: rank of E[JᵀJ] of the module's output by its output", float, "1", low=0),
            "hessian_rank": Column(
                "r = r_G·r_K ≥ rank of the behavioural Hessian in its parameters", float, "1", low=0
            ),
            "lambda_low": Column("r/2 ≤ λ, if the rank is r", float, "1", low=0),
            "lambda_high": Column("r/2 + (p−r)/4 ≥ λ", float, "1", low=0),
            "effective_low": Column("2·lambda_low = r", float, "params", low=0),
            "effective_high": Column("2·lambda_high = r + (p−r)/2 ≥ N_eff", float, "params", low=0),
            "input_floor": Column(f"noise floor of the Gram matrix of inputs: {_FLOOR}", float, "1", low=0),
            "gradient_floor": Column(f"noise floor of E[JᵀJ]: {_FLOOR}", float, "1", low=0),
        },
        "clusters": {
            "layer": Column("the layer whose units they are", str, ""),
            "cluster": Column("number within the layer", int, "", low=0),
            "units": Column("the units' numbers", str, ""),
            "size": Column("units: k", int, "units", low=1),
            "kind": Column("`synchronised`, or `always` for those that fire on all datapoints", str, ""),
            "free_directions": Column("directions that are free beyond k rescalings; NaN if unknown", float, low=0),
            "reason": Column("why the free directions are unknown", str, ""),
        },
    }
    NEXT: ClassVar[str] = '.frame(), .frame("blocks"), .frame("clusters"), wb.figure(degeneracy)'

    activation_eigenvalues: Mapping[str, Float[Tensor, " width"]]
    gradient_eigenvalues: Mapping[str, Float[Tensor, " width"]]

    def facts(self) -> str:
        """Layers by verdict, what of the weight blocks' parameters is effective, clusters and dead units."""
        blocks, layers = self.tables["blocks"], self.tables["layers"]
        analysed = [(r, p) for r, p in zip(blocks["hessian_rank"], blocks["params"], strict=True) if not math.isnan(r)]
        rank, params = math.fsum(r for r, _ in analysed), sum(p for _, p in analysed)
        pairs, dead = (math.fsum(x for x in layers[name] if not math.isnan(x)) for name in ("synchronised", "dead"))
        left = sum(blocks["params"]) - params
        return (
            f"{self.title}: {many(len(layers['layer']), 'layer')}, {self.verdict_counts()}; Hessian rank at most "
            f"{rank:,.0f} of {many(params, 'parameter')} in {many(len(analysed), 'weight block')}"
            f"{f' ({left:,} elsewhere)' if left else ''}; "
            f"{many(int(pairs), 'synchronised pair')}, {many(int(dead), 'dead unit')}{self.stopped('batches')}"
        )


def degeneracy(
    module: nn.Module,
    data: Iterable[Any],
    layers: str | Iterable[str] | None = None,
    *,
    probes: int | Literal["exact"] | None = None,
    threshold: float | None = None,
    features: Mapping[str, int] | None = None,
    device: str = "auto",
    dtype: str = "float64",
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Degeneracy:
    """The audit of a module's degeneracies: rank of G = E[ffᵀ], rank of M′ = E[JᵀJ], and ReLUs that fire together.

    Args:
        module: the network; it is lent and as before afterwards: mode, weights, buffers, hooks, gradients, random
            states.
        data: a re-iterable of batches, as for `wb.activations`; labels are not looked at.
        layers: layers by path or glob, which must determine one another; None for all that do (see `layer_chain`).
        probes: ±1 cotangents a batch for M′ (Hutchinson), or "exact" for a backward pass of each output and position;
            None is exact up to 64 of those, else 8 probes.
        threshold: share of the largest eigenvalue below which another is rounding, in [0, 1); None for
            ε·max(d, √n) of float64, and, with a `dtype` other than that, at least what the rounding of activations
            leaves, (ε² + d·ε₃₂²)·max_j E[f_j²]. Always relative: no rank changes when a layer is scaled.
        features: path → axis of the features where the rule of `wb.activations` is wrong.
        device: "auto" takes CUDA when there is one.
        dtype: "float64", "float32" or "own": what the module is cast to meanwhile. Sums are float64 whatever it is.
        seed: of the probes.
        progress: called before each batch with a Progress, and once at the end; it may raise `wb.Cancelled`.

    Returns:
        A Degeneracy. A layer's verdict is `full rank`, `degenerate`, `dead` (no unit fires at all), `constant` (the
        same on all datapoints), `undersampled` (fewer datapoints than features), or `not finite`, with NaN for the
        ranks of what is not: of gradients also where the module's output is not finite. Parameters that are no matrix
        of a linear or convolutional layer are rows of `blocks` that are `not analysed`.

    Raises:
        ArgumentError: an argument is out of its range; a layer is no cut of the module, or the module is not
            deterministic (see `layer_chain`); the output does not depend on a layer by anything differentiable.
        LayerNotFoundError: a name is unknown.
        EvaluationError: a batch failed.
        Cancelled: the callback asked for it; `.partial` is the Degeneracy of the batches that were done.

    Cost: for each batch one forward pass and outputs·positions (or `probes`) backward passes through the whole module,
    which serve all layers and blocks at once; Gram matrices of every layer, of blocks' inputs (patches of
    convolutions) and outputs, in float64. Memory: these matrices and one batch's graph, whatever the number of samples.

    Source: Bushnaq et al. 2024 (arXiv 2405.10927): the three degeneracies, r_G·r_K, k(k−1) free directions,
    N_eff = 2λ and r/2 ≤ λ ≤ r/2 + (p−r)/4. Ours: thresholds, [x, 1] for biases, patches and sums over positions and
    groups; free directions of clusters larger than the weights around them, and of units that always fire; a cluster
    counts only if what lies between the weights around it is found to be linear.

    Misreads: r_G·r_K is an upper bound of a block's Hessian rank, which is reached where inputs and gradients are
    independent and may be far below that in a network with ReLUs; so `lambda_low` holds only if it is reached, while
    `lambda_high` holds always. Blocks are taken one at a time: directions that are free only when two blocks change
    together (rescaled ReLUs, the free directions of clusters) are in no block's count, so that ranks of blocks must not
    be added up to one of the module. G is uncentred: a constant is a direction (bases are centred: `centred_rank`). A
    spread that is 1e-8 of the values' size is below the floor. Ranks are those of this data; noise of inputs that were
    rounded to float32 counts as rank in float64. Hutchinson's ranks are right only with many more datapoints than
    features. Synchronised on these datapoints is not synchronised elsewhere. ReLUs inside a residual branch are no
    layer's output and are not seen.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
        >>> with torch.no_grad():
        ...     _ = net[0].weight.copy_(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
        >>> found = degeneracy(net, [torch.tensor([[1.0, 0.0], [-1.0, 2.0], [3.0, 1.0]])], device="cpu")
        >>> found.frame()[["layer", "width", "activation_rank", "gradient_rank", "synchronised"]].values.tolist()
        [['1', 2, 1.0, 1.0, 1.0], ['2', 1, 1.0, 1.0, nan]]
    """
    begin = time.perf_counter()
    check_progress(progress)
    _check(probes, threshold)
    chain = layer_chain(module, data, layers, features=features, device=device, dtype=resolved_dtype(dtype))
    parameters = {
        "layers": None if layers is None else chain.layers,
        "probes": probes,
        "threshold": threshold,
        "features": None if features is None else dict(features),
        "device": device,
        "dtype": dtype,
    }
    meta = chain_meta("wb.degeneracy", chain, parameters, seed)
    end = chain.cuts[-1]
    drawn = PROBES if probes is None and end.width * end.positions > MOST_EXACT else probes
    with chain.lent():
        first = next(chain.batches())
        blocks, gates = weight_blocks(chain, first), relu_gates(chain, first)
        sweep = Sweep(chain, blocks, gates, None if drawn in ("exact", None) else int(drawn), seed)
        audit = Audit(chain=chain, sweep=sweep, blocks=blocks, gates=gates, threshold=threshold)

        def built() -> Degeneracy:
            own = meta | {"seconds": time.perf_counter() - begin, "batches": sweep.batches}
            if sweep.batches < total():
                own["cancelled"] = {"done": sweep.batches, "total": total()}
            return _result(audit, audit.cluster_rows(first), own)

        done = False

        def total() -> int:
            return sweep.batches if done else max(chain.batch_count, sweep.batches + 1)

        report = reporter(progress, partial=built)
        try:
            for batch in chain.batches():
                report(f"batch {batch.number}", sweep.batches, total())
                sweep.add(batch)
            done = True
            report("", sweep.batches, total())
        except Cancelled as stop:
            stop.partial = built()
            raise
        return built()


def _check(probes: object, threshold: object) -> None:
    whole = isinstance(probes, int) and not isinstance(probes, bool) and probes >= 1
    if not (probes is None or probes == "exact" or whole):
        raise ArgumentError(f"probes={probes!r}: expected a number of at least 1, 'exact' or None.")
    share = isinstance(threshold, int | float) and not isinstance(threshold, bool) and 0 <= threshold < 1
    if not (threshold is None or share):
        raise ArgumentError(
            f"threshold={threshold!r}: expected a share of the largest eigenvalue, in [0, 1), or None for that of "
            "rounding."
        )


def _result(audit: Audit, clusters: list[dict[str, Any]], meta: Mapping[str, Any]) -> Degeneracy:
    blocks = audit.block_rows()
    layers, activations, gradients = audit.layer_rows(blocks)
    return Degeneracy(
        tables={
            "layers": Degeneracy.columns("layers", layers),
            "blocks": Degeneracy.columns("blocks", blocks),
            "clusters": Degeneracy.columns("clusters", clusters),
        },
        activation_eigenvalues=activations,
        gradient_eigenvalues=gradients,
        meta=meta,
    )
