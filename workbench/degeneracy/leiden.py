"""Communities of a weighted graph: scikit-network's Leiden, repeated in float64 until no node's move raises Q."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

STARTS = 5  # orders of the nodes that Leiden is started from; the best is kept
TIE = 1e-12  # of Q, below which two partitions are equally good: the one with fewer communities is kept
FLOAT32 = 1e-7  # per node: gains below are noise of the library's float32, on which its passes would never end


def modularity(
    weights: Float[np.ndarray, "nodes nodes"], labels: Int[np.ndarray, " nodes"], resolution: float = 1.0
) -> float:
    """Newman's Q = Σ_c [w_cc/w − γ·(w_c/w)²]: w_cc the weight inside a community, w_c that of its nodes, w of all.

    Args:
        weights: symmetric, not negative; every edge in it twice.
        labels: community of each node, from 0 on.
        resolution: γ, 1 for Newman's own.

    Returns:
        Q, at most 1; NaN for a graph without weight.
    """
    total = float(weights.sum())
    if total == 0:
        return float("nan")
    member = np.eye(int(labels.max()) + 1)[labels]
    between = member.T @ weights @ member / total
    return float(np.trace(between) - resolution * np.square(between.sum(0)).sum())


def communities(
    weights: Float[np.ndarray, "nodes nodes"], *, resolution: float, generator: torch.Generator
) -> Int[np.ndarray, " nodes"]:
    """The partition of the highest Q found, every community connected: Leiden from several orders of the nodes.

    The connected components are a candidate too, so that a graph without communities is one. The library's refinement
    is replaced (see `_refined`), and after each start single nodes move in float64 until no move raises Q.

    Args:
        weights: symmetric, not negative, no empty row, no self-loop.
        resolution: γ of Q.
        generator: draws the orders.

    Returns:
        Labels from 0 on.
    """
    best = _connected(weights, np.zeros(len(weights), dtype=np.int64))
    reached = modularity(weights, best, resolution)
    for _ in range(STARTS):
        order = torch.randperm(len(weights), generator=generator).numpy()
        labels = np.empty_like(best)
        labels[order] = _leiden(weights[np.ix_(order, order)], resolution)
        labels = _settled(weights, labels, resolution)
        found = modularity(weights, labels, resolution)
        fewer = found > reached - TIE and labels.max() < best.max()
        if found > reached + TIE or fewer:
            best, reached = labels, found
    return best


def _leiden(weights: Float[np.ndarray, "nodes nodes"], resolution: float) -> Int[np.ndarray, " nodes"]:
    """scikit-network's Leiden, with our refinement: its own draws from C's rand() and may not end.

    `random_state` seeds numpy's shuffling only, so that equal calls differ (0.33.5), and rounding in float32 can move a
    node to and fro for ever (its issue 592).
    """
    from scipy import sparse
    from sknetwork.clustering import Leiden

    def refined(labels: Any, singletons: Any, adjacency: Any, strengths: Any, _: Any) -> Int[np.ndarray, " nodes"]:
        return _refined(labels, adjacency, strengths, resolution)

    least = max(1e-5, FLOAT32 * len(weights))
    leiden = Leiden(
        resolution=resolution,
        modularity="newman",
        tol_optimization=least,
        tol_aggregation=least,
        return_probs=False,
        return_aggregate=False,
        random_state=0,  # unused: nodes are shuffled by the caller; None would ask the system for entropy
    )
    leiden._optimize_refine = refined
    return np.asarray(leiden.fit_predict(sparse.csr_matrix(weights)), dtype=np.int64)


def _refined(labels: Any, adjacency: Any, strengths: Any, resolution: float) -> Int[np.ndarray, " nodes"]:
    """Communities split into well connected parts: single nodes join the part of their community with the largest gain.

    Traag et al., algorithm A.2 (MergeNodesSubset), with the largest gain in place of a draw, as leidenalg has it. Each
    node is looked at once, so that it ends.
    """
    count = len(labels)
    mass = np.asarray(strengths, dtype=np.float64).copy()  # of parts; a part is named after one of its nodes
    part, alone, own = np.arange(count), np.ones(count, dtype=bool), mass.copy()
    whole = np.bincount(labels, mass, count)
    starts, neighbours, values = adjacency.indptr, adjacency.indices, adjacency.data
    rows = np.repeat(np.arange(count), np.diff(starts))
    inside = (labels[rows] == labels[neighbours]) & (rows != neighbours)
    cut = np.bincount(rows[inside], values[inside], count)  # weight from a part to the rest of its community
    for node in range(count):
        here = slice(starts[node], starts[node + 1])
        community, kept = whole[labels[node]], inside[here]
        if not alone[node] or not kept.any() or cut[node] < resolution * own[node] * (community - own[node]):
            continue
        parts, place = np.unique(part[neighbours[here][kept]], return_inverse=True)
        link = np.bincount(place, values[here][kept])
        gain = link - resolution * own[node] * mass[parts]
        gain[cut[parts] < resolution * mass[parts] * (community - mass[parts])] = 0
        best = int(gain.argmax())
        if gain[best] > 0:
            chosen = parts[best]
            part[node], alone[node], alone[chosen] = chosen, False, False
            cut[chosen] += cut[node] - 2 * link[best]
            mass[chosen] += own[node]
    return part


def _settled(
    weights: Float[np.ndarray, "nodes nodes"], labels: Int[np.ndarray, " nodes"], resolution: float
) -> Int[np.ndarray, " nodes"]:
    """Single nodes moved, the largest gain first, until none raises Q; communities that fall apart are split."""
    while True:
        labels = _connected(weights, labels)
        moved = _moved(weights / weights.sum(), labels, resolution)
        if np.array_equal(moved, labels):
            return labels
        labels = moved


def _moved(
    shares: Float[np.ndarray, "nodes nodes"], labels: Int[np.ndarray, " nodes"], resolution: float
) -> Int[np.ndarray, " nodes"]:
    labels, nodes, strengths = labels.copy(), np.arange(len(labels)), shares.sum(0)
    member = np.eye(int(labels.max()) + 2)[labels]  # one community is empty: a node may leave for itself
    links, mass = shares @ member, strengths @ member
    while True:
        gain = links - resolution * strengths[:, None] * mass
        gain -= (gain[nodes, labels] + resolution * np.square(strengths))[:, None]
        gain[nodes, labels] = 0  # staying
        node, chosen = np.unravel_index(int(gain.argmax()), gain.shape)
        if 2 * gain[node, chosen] <= TIE:
            return labels
        for community, sign in ((labels[node], -1), (chosen, 1)):
            links[:, community] += sign * shares[:, node]
            mass[community] += sign * strengths[node]
        labels[node] = chosen


def _connected(
    weights: Float[np.ndarray, "nodes nodes"], labels: Int[np.ndarray, " nodes"]
) -> Int[np.ndarray, " nodes"]:
    """The connected parts of communities, numbered from 0; splitting never lowers Q."""
    from scipy import sparse

    inner = sparse.csr_matrix(np.where(labels[:, None] == labels, weights, 0.0))
    return np.asarray(sparse.csgraph.connected_components(inner, directed=False)[1], dtype=np.int64)
