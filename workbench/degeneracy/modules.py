"""Modules of an interaction graph: directions that interact with each other more than with the rest."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.degeneracy.interaction_graph import InteractionGraph
from workbench.degeneracy.leiden import communities, modularity
from workbench.degeneracy.weighted_graph import Norm, WeightedGraph, is_positive, weighted_graph
from workbench.errors import ArgumentError, Cancelled
from workbench.progress import ProgressCallback, check_progress, reporter
from workbench.results import LAYER_COLUMNS, Column, Result, many, versions
from workbench.seeds import generator

SPREAD = 1e-9  # of Q over null graphs, below which a z-score would divide by rounding
ISOLATED = -1


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class InteractionModules(Result):
    """Communities of an interaction graph's nodes, and their Q beside that of graphs with the same edges shuffled.

    Tables: `nodes`, a row per node (node 0 of a layer, its constant, only where it took part); `modules`, by size;
    `segments`, what the norm left of the edges; `partitions`, Q of the graph (row 0) and of every null graph.

    Attributes:
        weights: source layer → weights of the edges after the norm, (nodes of the next layer, nodes of the source); 0
            where no edge took part.
    """

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "nodes": {
            "layer": LAYER_COLUMNS["layer"],
            "direction": Column("number of the direction in its layer; 0 is the constant", int, "1", low=0),
            "module": Column("its module; -1 for a node without edges", int, "", low=ISOLATED),
            "strength": Column("sum of the weights of its edges", float, "1", low=0),
        },
        "modules": {
            "module": Column("number, by size from 0 on", int, "", low=0),
            "size": Column("nodes in it", int, "1", low=1),
            "layers": Column("layers that it has nodes in", int, "1", low=1),
            "internal": Column("share of its nodes' strength that goes to its own nodes", float, "1", low=0, high=1),
        },
        "segments": {
            "source": Column("the earlier layer", str, ""),
            "target": Column("the next layer", str, ""),
            "edges": Column("edges with a weight above 0 after the norm", int, "1", low=0),
            "pairs": Column("pairs of nodes", int, "1", low=0),
            "epsilon": Column("ε of the norm log; NaN for others", float, "E", low=0),
        },
        "partitions": {
            "graph": Column("0 for the graph itself, then the null graphs", int, "", low=0),
            "modularity": Column("Newman's Q of the best partition found; NaN without edges", float, "1"),
            "modules": Column("modules in it", int, "1", low=0),
        },
    }
    NEXT: ClassVar[str] = '.modularity, .z, .frame("modules"), wb.figure(modules), wb.figure(modules, "modularity")'

    weights: Mapping[str, Tensor]

    @property
    def modularity(self) -> float:
        """Newman's Q = Σ_c [w_cc/w − γ(w_c/w)²] of the modules; NaN without edges or before it was reached."""
        values = self.tables["partitions"]["modularity"]
        return float(values[0]) if values else math.nan

    @property
    def null_mean(self) -> float:
        """Mean of Q over the null graphs; NaN without any."""
        values = self.tables["partitions"]["modularity"][1:]
        return float(np.mean(values)) if values else math.nan

    @property
    def null_sd(self) -> float:
        """Standard deviation of Q over the null graphs; NaN with fewer than two."""
        values = self.tables["partitions"]["modularity"][1:]
        return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan

    @property
    def z(self) -> float:
        """(Q − mean)/sd; NaN where the null graphs do not differ, as with equal weights."""
        return (self.modularity - self.null_mean) / self.null_sd if self.null_sd > SPREAD else math.nan

    def facts(self) -> str:
        """How many modules, Q beside its null, and whether the run was stopped."""
        isolated = self.tables["nodes"]["module"].count(ISOLATED)
        alone = f", {many(isolated, 'node')} without edges" if isolated else ""
        nulls = len(self.tables["partitions"]["graph"][1:])
        null = f" (null {self.null_mean:.4g} ± {self.null_sd:.2g}, z = {self.z:.3g})" if nulls > 1 else ""
        count = len(self.tables["modules"]["size"])
        return f"{self.title}: {many(count, 'module')}{alone}; Q = {self.modularity:.4g}{null}{self.stopped('graphs')}"


def interaction_modules(
    graph: InteractionGraph,
    *,
    norm: Norm = "log",
    epsilon: float | Mapping[str, float] | None = None,
    resolution: float = 1.0,
    constant: bool = False,
    nulls: int = 20,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> InteractionModules:
    """Communities of an interaction graph's nodes by Leiden, which seeks the largest Q = Σ_c [w_cc/w − γ(w_c/w)²].

    Args:
        graph: from `wb.interaction_graph`. Of functional edges, which may be negative, the size |E| is taken.
        norm: weights of the edges: "log" log₁₀(|E|/ε) where that is positive and else 0, "id" |E|, "sqrt" √|E|, "sum"
            |E|/Σ|E| and "max" |E|/max|E| of each segment.
        epsilon: of "log": a number for all segments, or source layer → number, as the smallest edge that an ablation
            needs (the authors' choice). None for 1e-6 times a segment's largest edge.
        resolution: γ of Q; larger gives more, smaller modules.
        constant: whether the constant of every layer (node 0) and its edges take part; it moves most of the next layer
            and so ties modules together.
        nulls: graphs to compare with, in which the weights of each segment are shuffled over all its pairs of nodes,
            the zeros too: were absent edges to stay absent, the null would keep the very blocks in question.
        seed: of shuffles and of Leiden.
        progress: called before the graph, before every null graph and at the end; may raise `wb.Cancelled`.

    Returns:
        An InteractionModules. The order of a layer's directions makes no difference, ties apart.

    Raises:
        ArgumentError: an argument is out of its range, or an edge is not finite.
        Cancelled: the callback asked for it; `.partial` has the graphs that are done.

    Cost: for the graph and every null graph five starts of Leiden, in nodes² numbers of memory: 20 null graphs of 70
        nodes take 0.5 s, of 300 nodes 5 s, of 900 nodes 50 s.

    Source: Newman's modularity; Leiden by Traag et al. 2019 (arXiv 1810.08473) from graspologic-native; norms and use
        of interaction graphs: "The Local Interaction Basis" (arXiv 2405.10928). The null is ours.

    Misreads: Q of random graphs is well above 0, so read it beside its null. The null has the weights, but not the
    strengths of nodes: directions of very different weight (Λ) can lift z without any module, and with heavy tails
    ("id", "sum", "max") shuffling scatters the few large edges, whose Q is high: z is then below 0 in spite of modules.
    Modules smaller than about √edges cannot be told apart at γ = 1. "log" weighs decades, so that ε decides which faint
    edges count; with "id" and "sqrt" the segment of the largest edges decides alone. A basis that mixes modules hides
    them.

    Example:
        >>> from workbench.results import versions
        >>> names = ("source", "target", "source_nodes", "target_nodes", "edges", "total", "constant", "error")
        >>> rows = {"layer": ["a", "b"], "depth": [0, 1], "nodes": [5, 5], "predicted_nodes": [5, 5]}
        >>> block = torch.ones(2, 2, dtype=torch.float64)
        >>> edges = torch.block_diag(torch.zeros(1, 1, dtype=torch.float64), block, block)
        >>> segments = {name: [cell] for name, cell in zip(names, ("a", "b", 5, 5, 8, 8.0, 0.0, 0.0))}
        >>> graph = InteractionGraph(tables={"segments": segments, "layers": rows}, edges={"a": edges},
        ...                          meta={"source": "two blocks", "parameters": {}, "versions": versions()})
        >>> found = interaction_modules(graph, norm="id", nulls=0)
        >>> found.modularity, found.tables["nodes"]["module"]
        (0.5, (0, 0, 1, 1, 0, 0, 1, 1))
    """
    begin = time.perf_counter()
    _check(graph, resolution, constant, nulls, seed)
    check_progress(progress)
    weighted = weighted_graph(graph, norm, epsilon, constant=constant)
    done: list[dict[str, Any]] = []
    labels = np.full(len(weighted.linked), ISOLATED)
    report = reporter(progress)
    given = dict(epsilon) if isinstance(epsilon, Mapping) else epsilon
    meta = _meta(
        graph, weighted, norm=norm, epsilon=given, resolution=resolution, constant=constant, nulls=nulls, seed=seed
    )

    def built() -> InteractionModules:
        own = meta | {"seconds": time.perf_counter() - begin}
        if len(done) <= nulls:
            own["cancelled"] = {"done": len(done), "total": nulls + 1}
        return InteractionModules(
            tables={
                "nodes": InteractionModules.columns("nodes", _node_rows(weighted, labels) if done else []),
                "modules": InteractionModules.columns("modules", _module_rows(weighted, labels) if done else []),
                "segments": InteractionModules.columns("segments", _segment_rows(weighted)),
                "partitions": InteractionModules.columns("partitions", done),
            },
            meta=own,
            weights={source: torch.from_numpy(matrix.copy()) for source, matrix in weighted.weights.items()},
        )

    try:
        for number in range(nulls + 1):
            report(f"null graph {number}" if number else "graph", number, nulls + 1)
            draws = generator(seed, f"interaction_modules/{number}")
            adjacency = weighted.adjacency(draws if number else None)
            found = _partition(adjacency, resolution, draws)
            count = int(found.max(initial=ISOLATED)) + 1
            q = modularity(adjacency, found, resolution) if count else math.nan
            done.append({"graph": number, "modularity": q, "modules": count})
            labels = labels if number else found
        report("", nulls + 1, nulls + 1)
    except Cancelled as stop:
        stop.partial = built()
        raise
    return built()


def _check(graph: object, resolution: object, constant: object, nulls: object, seed: object) -> None:
    if not isinstance(graph, InteractionGraph):
        raise ArgumentError(f"graph is {type(graph).__name__}: expected wb.interaction_graph(module, data, basis).")
    if not is_positive(resolution):
        raise ArgumentError(f"resolution={resolution!r}: expected a number above 0; 1 is Newman's Q.")
    if not isinstance(constant, bool):
        raise ArgumentError(f"constant={constant!r}: expected True or False.")
    if not isinstance(nulls, int) or isinstance(nulls, bool) or nulls < 0:
        raise ArgumentError(f"nulls={nulls!r}: expected a number of null graphs, 0 or more.")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ArgumentError(f"seed={seed!r}: expected an integer.")


def _partition(
    adjacency: Float[np.ndarray, "nodes nodes"], resolution: float, draws: torch.Generator
) -> Int[np.ndarray, " nodes"]:
    """Modules by size, then by strength; a shuffle may leave nodes without edges, which are in none."""
    labels = np.full(len(adjacency), ISOLATED)
    strengths = adjacency.sum(0)
    linked = np.flatnonzero(strengths)
    if len(linked):
        found = communities(adjacency[np.ix_(linked, linked)], resolution=resolution, generator=draws)
        order = np.lexsort((-np.bincount(found, strengths[linked]), -np.bincount(found)))
        labels[linked] = np.argsort(order)[found]
    return labels


def _meta(graph: InteractionGraph, weighted: WeightedGraph, **parameters: Any) -> dict[str, Any]:
    known = {key: graph.meta[key] for key in ("fingerprint", "basis", "skipped") if key in graph.meta}
    negative = sum(int((edges < 0).sum()) for edges in graph.edges.values())
    empty = [source for source, matrix in weighted.weights.items() if not matrix.any()]
    notes = [
        f"{many(negative, 'edge')} below 0: the size |E| counts" if negative else "",
        f"no edge from {', '.join(empty)} has a weight above 0" if empty else "",
        "the graph was cancelled: not all of its segments are in" if "cancelled" in graph.meta else "",
    ]
    return known | {
        "function": "wb.interaction_modules",
        "source": graph.meta["source"],
        "parameters": parameters,
        "graph": dict(graph.meta["parameters"]),
        "seed": parameters["seed"],
        "dtype": "float64",
        "device": "cpu",
        "versions": versions() | {"graspologic-native": version("graspologic-native")},
        "notes": [note for note in notes if note],
    }


def _node_rows(weighted: WeightedGraph, labels: Int[np.ndarray, " nodes"]) -> list[dict[str, Any]]:
    module = dict(zip(weighted.linked, labels.tolist(), strict=True))
    return [
        {
            "layer": node.layer,
            "direction": node.direction,
            "module": module.get(node, ISOLATED),
            "strength": node.strength,
        }
        for node in weighted.nodes
    ]


def _module_rows(weighted: WeightedGraph, labels: Int[np.ndarray, " nodes"]) -> list[dict[str, Any]]:
    adjacency, rows = weighted.adjacency(), []
    for module in range(int(labels.max(initial=ISOLATED)) + 1):
        own = np.flatnonzero(labels == module)
        inside, strength = float(adjacency[np.ix_(own, own)].sum()), float(adjacency[own].sum())
        layers = {weighted.linked[int(place)].layer for place in own}
        share = min(inside / strength, 1.0)  # two sums of the same numbers may differ in the last bit
        rows.append({"module": module, "size": len(own), "layers": len(layers), "internal": share})
    return rows


def _segment_rows(weighted: WeightedGraph) -> list[dict[str, Any]]:
    return [
        {
            "source": source,
            "target": target,
            "edges": int((weighted.weights[source] > 0).sum()),
            "pairs": sum(node.layer == source for node in weighted.nodes)
            * sum(node.layer == target and node.direction > 0 for node in weighted.nodes),
            "epsilon": weighted.floors[source],
        }
        for source, target in weighted.pairs
    ]
