"""The graph of interactions: layers of directions, and how much each moves those of the next."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from workbench.degeneracy.basis import InteractionBasis
from workbench.degeneracy.edges import FORMULAS, Coordinates, Edges, Formula, segment_edges
from workbench.degeneracy.passes import Passes
from workbench.degeneracy.provenance import chain_meta, other_weights
from workbench.degeneracy.quadrature import Quadrature, quadrature_points
from workbench.errors import ArgumentError, Cancelled, LayerNotFoundError, nearest
from workbench.progress import ProgressCallback, check_progress, reporter
from workbench.results import LAYER_COLUMNS, Column, Result

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class InteractionGraph(Result):
    """Edges between the directions of consecutive layers.

    Tables: `segments`, a row per pair of layers; `layers`, a row per layer. Node 0 of a layer is its constant: it moves
    the next layer, and nothing moves it.

    Attributes:
        edges: source layer → E, (nodes of the next layer, nodes of the source).
    """

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "segments": {
            "source": Column("the earlier layer", str, ""),
            "target": Column("the next layer", str, ""),
            "source_nodes": Column("its directions, with the constant", int, "1", low=1),
            "target_nodes": Column("the next layer's", int, "1", low=1),
            "edges": Column("edges other than zero between directions that are not constant", int, "1", low=0),
            "total": Column("their sum ΣE", float, "1"),
            "constant": Column("sum of the edges from the constant", float, "1"),
            "error": Column("relative standard error of ΣE; 0 where nothing was drawn", float, "1", low=0),
        },
        "layers": {
            "layer": LAYER_COLUMNS["layer"],
            "depth": LAYER_COLUMNS["depth"],
            "nodes": Column("directions, with the constant", int, "1", low=1),
            "predicted_nodes": Column("1 + number of Λ > 1e-3·Λmax", int, "1", low=1),
        },
    }
    NEXT: ClassVar[str] = (
        ".edges, .strongest(layer), wb.interaction_modules(graph), wb.ablation(evaluator, basis, layer, graph=graph)"
    )

    edges: Mapping[str, Tensor]

    @property
    def layers(self) -> list[str]:
        """Ids of the layers in the order in which they run."""
        return list(self.tables["layers"]["layer"])

    def strongest(self, layer: str, count: int = 20) -> pandas.DataFrame:
        """The largest edges |E| from a layer to the next, the constant's left out.

        Raises:
            LayerNotFoundError: nothing starts from this layer.
            ArgumentError: a count below 1.
        """
        import pandas

        if layer not in self.edges:
            raise LayerNotFoundError(f"no edges start from {layer!r}.{nearest(layer, self.edges)}")
        inner = self.edges[layer][1:, 1:]
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ArgumentError(f"count={count!r}: expected how many edges, at least 1.")
        order = inner.abs().flatten().argsort(descending=True, stable=True)[:count]
        width = inner.shape[1]
        return pandas.DataFrame(
            {
                "source": [1 + int(place) % width for place in order],
                "target": [1 + int(place) // width for place in order],
                "weight": [float(inner.flatten()[place]) for place in order],
            }
        )

    def facts(self) -> str:
        """Formula, segments and their sums, and whether the run was stopped."""
        table = self.tables["segments"]
        sums = ", ".join(
            f"{source} → {target} {total:.4g}"
            for source, target, total in zip(table["source"], table["target"], table["total"], strict=True)
        )
        told = f"ΣE: {sums}" if sums else "no segment"
        return f"{self.title}: {self.meta['parameters']['edges']} edges; {told}{self.stopped('segments')}"


def interaction_graph(
    module: nn.Module,
    data: Iterable[Any],
    basis: InteractionBasis,
    *,
    edges: Formula = "squared",
    quadrature: Quadrature | None = None,
    points: int = 8,
    probes: int = 8,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> InteractionGraph:
    """E_ij = 1/n Σ_x Σ_t (Σ_s ∫dα ∂f̂_i(t)/∂f̂_j(s)·f̂_j(s))²: how much direction j of a layer moves i of the next.

    Args:
        module: the module of the basis; lent, as before afterwards.
        data: a re-iterable of batches, as a rule those of the basis.
        basis: from `wb.interaction_basis`.
        edges: "squared" as above; "functional" −1/n Σ ∫dα ∂_j(f̂_i(f)−f̂_i(αf))²·f̂_j, whose row sums with the constant
            are E[(f̂_i(f)−f̂_i(0))²]; "stochastic" is squared with `probes` draws of ±1 over target positions.
        quadrature: of ∫dα over αf: "gradient" (α = 1 alone), "trapezoid" or "gauss-legendre"; None for "gradient" with
            squared and stochastic edges, and "gauss-legendre" with functional edges and integrated bases.
        points: its number of points.
        probes: draws of "stochastic".
        seed: of the draws.
        progress: called before every batch of every segment, and between the backward passes of a batch ten times a
            second at most; may raise `wb.Cancelled`.

    Returns:
        An InteractionGraph.

    Raises:
        ArgumentError: an argument is out of its range, or the module is not the basis's.
        EvaluationError: a batch failed.
        Cancelled: the callback asked for it; `.partial` has the segments that are done.

    Cost: for each segment directions × positions × points backward passes a batch (directions × points for functional,
    directions × probes × points for stochastic). Memory: nodes², and a batch's graph of the segment for each point.

    Source: Bushnaq et al. 2024 (arXiv 2405.10927) for functional edges, "The Local Interaction Basis" (arXiv
    2405.10928) for squared ones; the constant's share by completeness. Activations are those of the nodes, μ + f̂·C⁺.

    Misreads: an edge is large because its source varies much, its weight is large, or both. Squared edges do not add
    up: directions that cancel have large ones. Positions are summed, so that long sequences weigh more.

    Example:
        >>> from workbench.degeneracy.interaction_basis import interaction_basis
        >>> import torch
        >>> net = nn.Sequential(nn.Identity(), nn.Linear(2, 2, bias=False))
        >>> _ = net[1].weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        >>> x = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> basis = interaction_basis(net, [x], "0")
        >>> interaction_graph(net, [x], basis).edges["0"].tolist()
        [[0.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 1.0]]
    """
    begin = time.perf_counter()
    check_progress(progress)
    if not isinstance(basis, InteractionBasis):
        raise ArgumentError(f"basis is {type(basis).__name__}: expected wb.interaction_basis(module, data).")
    if edges not in FORMULAS:
        raise ArgumentError(f"edges={edges!r}: expected {', '.join(map(repr, FORMULAS))}.{nearest(edges, FORMULAS)}")
    if not isinstance(probes, int) or isinstance(probes, bool) or probes < 2:
        raise ArgumentError(f"probes={probes!r}: expected a number of at least 2, so that there is an error to tell.")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ArgumentError(f"seed={seed!r}: expected an integer.")
    if len(basis.layers) < 2 or "cancelled" in basis.meta:
        raise ArgumentError("the basis has no two consecutive layers, or was cancelled: there are no segments.")
    integrated = edges == "functional" or basis.meta["parameters"]["kind"] == "integrated"
    chosen = quadrature if quadrature is not None else "gauss-legendre" if integrated else "gradient"
    rule = quadrature_points(chosen, points)
    chain = basis.chain(module, data)
    parameters = {"edges": edges, "quadrature": chosen, "points": points, "probes": probes}
    meta = chain_meta("wb.interaction_graph", chain, parameters, seed) | {"basis": dict(basis.meta["parameters"])}
    meta["basis_fingerprint"] = basis.fingerprint
    meta["notes"] = other_weights(meta["fingerprint"], basis.meta)
    coordinates = {
        layer: Coordinates(mean=basis.means[layer], basis=basis.bases[layer], inverse=basis.inverses[layer])
        for layer in basis.layers
    }
    draws = probes if edges == "stochastic" else 1
    report = reporter(progress)
    found: dict[str, Edges] = {}
    pairs = list(zip(chain.cuts, chain.cuts[1:], strict=False))

    def built() -> InteractionGraph:
        own = meta | {"seconds": time.perf_counter() - begin}
        if len(found) < len(pairs):
            own["cancelled"] = {"done": len(found), "total": len(pairs)}
        if bad := [source for source, one in found.items() if not one.matrix.isfinite().all()]:
            told = f"edges from {', '.join(bad)} are NaN or infinite: activations or gradients are, on some of the data"
            own["notes"] = [*own["notes"], told]
        return _result(basis, found, own)

    try:
        with chain.lent():
            for source, target in pairs:
                told = Passes(lambda item: report(item, len(found), len(pairs)), source.layer, chain.batch_count)
                found[source.layer] = segment_edges(
                    chain,
                    source,
                    target,
                    coordinates[source.layer],
                    coordinates[target.layer],
                    formula=edges,
                    rule=rule,
                    probes=draws,
                    seed=seed,
                    told=told,
                )
            report("", len(pairs), len(pairs))
    except Cancelled as stop:
        stop.partial = built()
        raise
    return built()


def _result(basis: InteractionBasis, found: Mapping[str, Edges], meta: dict[str, Any]) -> InteractionGraph:
    layers = basis.layers
    segments = []
    for source, target in zip(layers, layers[1:], strict=False):
        if source in found:
            inner = found[source].matrix[1:, 1:]
            segments.append(
                {
                    "source": source,
                    "target": target,
                    "source_nodes": basis.nodes(source),
                    "target_nodes": basis.nodes(target),
                    "edges": int((inner != 0).sum()),
                    "total": float(inner.sum()),
                    "constant": float(found[source].matrix[:, 0].sum()),
                    "error": found[source].error,
                }
            )
    rows = [
        {
            "layer": layer,
            "depth": depth,
            "nodes": basis.nodes(layer),
            "predicted_nodes": basis.predicted_nodes(layer),
        }
        for depth, layer in enumerate(layers)
    ]
    return InteractionGraph(
        tables={
            "segments": InteractionGraph.columns("segments", segments),
            "layers": InteractionGraph.columns("layers", rows),
        },
        meta=meta,
        edges={source: one.matrix for source, one in found.items()},
    )
