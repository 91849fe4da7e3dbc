"""An interaction graph as one of non-negative weights between nodes, for what counts edges alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.degeneracy.interaction_graph import InteractionGraph
from workbench.errors import ArgumentError, nearest

Norm: TypeAlias = Literal["log", "id", "sqrt", "sum", "max"]
NORMS: tuple[str, ...] = get_args(Norm)
LEAST = float(np.finfo(np.float64).tiny)
EPSILON = 1e-6  # of a segment's largest edge: six decades of edges count


@dataclass(frozen=True, kw_only=True)
class Node:
    """One direction of one layer, with the sum of its edges' weights."""

    layer: str
    direction: int
    strength: float


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightedGraph:
    """Weights of the edges after a norm.

    Attributes:
        pairs: source and target of every segment.
        weights: source → weights, (nodes of the target, nodes of the source).
        floors: source → ε of the norm, NaN for norms without.
        nodes: the nodes that take part, by layer and direction.
        linked: those with edges, within a layer by strength: what a search finds depends on an order, and this one is
            the graph's own.
    """

    pairs: Sequence[tuple[str, str]]
    weights: Mapping[str, Float[np.ndarray, "target source"]]
    floors: Mapping[str, float]
    nodes: Sequence[Node]
    linked: Sequence[Node]

    def adjacency(self, shuffle: torch.Generator | None = None) -> Float[np.ndarray, "nodes nodes"]:
        """The symmetric matrix of the linked nodes; with a generator, each segment's weights change places."""
        whole = np.zeros((len(self.linked), len(self.linked)))
        places: dict[str, list[int]] = {}
        for place, node in enumerate(self.linked):
            places.setdefault(node.layer, []).append(place)
        for source, target in self.pairs:
            cols = places.get(source, [])
            rows = [place for place in places.get(target, []) if self.linked[place].direction]  # constants do not move
            ends = ([self.linked[place].direction for place in side] for side in (rows, cols))
            block = self.weights[source][np.ix_(*ends)]
            if shuffle is not None:
                order = torch.randperm(block.size, generator=shuffle).numpy()
                block = block.ravel()[order].reshape(block.shape)
            whole[np.ix_(rows, cols)] = block
        return whole + whole.T


def weighted_graph(
    graph: InteractionGraph, norm: str, epsilon: float | Mapping[str, float] | None, *, constant: bool
) -> WeightedGraph:
    """The graph after a norm of its edges' sizes |E|; see `wb.interaction_modules`.

    Raises:
        ArgumentError: an argument is out of its range, the graph has no segment, or an edge is not finite.
    """
    if norm not in NORMS:
        raise ArgumentError(f"norm={norm!r}: expected {', '.join(map(repr, NORMS))}.{nearest(norm, NORMS)}")
    if not graph.edges:
        raise ArgumentError("the graph has no segment: it was cancelled before the first; compute it once more.")
    for source, edges in graph.edges.items():
        if bad := int((~torch.isfinite(edges)).sum()):
            raise ArgumentError(
                f"{bad} of {edges.numel()} edges from {source!r} are not finite: the module's outputs overflow or are "
                "NaN on these data; leave such data out and compute the graph once more."
            )
    pairs = [pair for pair in zip(graph.layers, graph.layers[1:], strict=False) if pair[0] in graph.edges]
    sizes = {source: _sizes(edges, constant) for source, edges in graph.edges.items()}
    floors = _floors(sizes, norm, epsilon)
    weights = {source: _weights(own, norm, floors[source]) for source, own in sizes.items()}
    parts: dict[str, list[Float[np.ndarray, "nodes neighbours"]]] = {}
    for source, target in pairs:
        parts.setdefault(source, []).append(weights[source].T)
        parts.setdefault(target, []).append(weights[source])
    nodes = [
        Node(layer=layer, direction=direction, strength=float(strength))
        for layer in graph.layers
        if layer in parts  # numbers are sorted before they are added: their order then changes no bit of the sum
        for direction, strength in enumerate(np.sort(np.concatenate(parts[layer], 1), 1).sum(1))
        if direction or constant
    ]
    place = {layer: place for place, layer in enumerate(graph.layers)}
    linked = sorted((node for node in nodes if node.strength > 0), key=lambda one: (place[one.layer], -one.strength))
    return WeightedGraph(pairs=pairs, weights=weights, floors=floors, nodes=nodes, linked=linked)


def is_positive(value: object) -> bool:
    """Whether it is a finite number above 0."""
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf


def _sizes(edges: Tensor, constant: bool) -> Float[np.ndarray, "target source"]:
    """|E|, 0 to the constant, and from it where it takes no part."""
    sizes = edges.detach().abs().double().cpu().numpy().copy()
    sizes[0] = 0
    sizes[:, 0] *= constant
    return sizes


def _floors(
    sizes: Mapping[str, Float[np.ndarray, "target source"]],
    norm: str,
    epsilon: float | Mapping[str, float] | None,
) -> dict[str, float]:
    """ε of every segment."""
    if norm != "log":
        if epsilon is not None:
            raise ArgumentError(f"epsilon={epsilon!r} belongs to norm='log', and norm is {norm!r}: leave it out.")
        return dict.fromkeys(sizes, math.nan)
    if epsilon is None:
        largest = {source: float(own.max(initial=0)) for source, own in sizes.items()}
        return {source: max(EPSILON * edge, LEAST) if edge else 0.0 for source, edge in largest.items()}
    if isinstance(epsilon, Mapping):
        if set(epsilon) != set(sizes) or not all(map(is_positive, epsilon.values())):
            raise ArgumentError(
                f"epsilon={dict(epsilon)!r}: expected a number above 0 for each layer that edges start from, "
                f"{list(sizes)}."
            )
        return {source: float(epsilon[source]) for source in sizes}
    if not is_positive(epsilon):
        raise ArgumentError(
            f"epsilon={epsilon!r}: expected a number above 0, a mapping of source layers to such, or None."
        )
    return dict.fromkeys(sizes, float(epsilon))


def _weights(sizes: Float[np.ndarray, "target source"], norm: str, floor: float) -> Float[np.ndarray, "target source"]:
    weights: Float[np.ndarray, "target source"] = sizes  # "id", and a segment without edges
    if not sizes.any():
        return weights
    match norm:
        case "log":
            with np.errstate(divide="ignore"):  # of no edge: -inf, which becomes 0
                weights = np.maximum(np.log10(sizes) - math.log10(floor), 0.0)
        case "sqrt":
            weights = np.sqrt(sizes)
        case "sum":
            weights = sizes / np.sort(sizes, axis=None).sum()
        case "max":
            weights = sizes / sizes.max()
    return weights
