"""Communities of a weighted graph by graspologic-native's Leiden, and their modularity."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int

TRIALS = 5  # independent starts, of which the library keeps the best
ITERATIONS = 10  # of a start: with one, single nodes are left whose move raises Q
SWEEPS = 1000  # over the nodes in one phase, far more than one takes: rounding cannot keep it going for ever
TIE = 1e-12  # of Q, below which two partitions are equally good


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
    """The partition of the highest Q that Leiden finds, every community connected.

    The connected components instead if they are as good, as in a uniform graph, that many partitions of Q = 0 cut up.

    Args:
        weights: symmetric, not negative, no empty row, no self-loop.
        resolution: γ of Q.
        generator: draws the library's seed.

    Returns:
        Labels from 0 on, in the order of each community's first node.
    """
    from graspologic_native import leiden_csr
    from scipy import sparse

    graph = sparse.csr_matrix(weights / weights.max())  # the library's draws depend on the scale of weights
    _, found = leiden_csr(
        graph.indptr.astype(np.int64),
        graph.indices.astype(np.int32),
        graph.data,
        len(weights),
        resolution=resolution,
        iterations=ITERATIONS,
        trials=TRIALS,
        seed=int(torch.randint(2**62, (), generator=generator)),
        max_local_moving_iterations=SWEEPS,
    )
    labels = _connected(weights, np.array([found[node] for node in range(len(weights))]))
    components = _connected(weights, np.zeros_like(labels))
    gain = modularity(weights, labels, resolution) - modularity(weights, components, resolution)
    return labels if gain > TIE else components


def _connected(
    weights: Float[np.ndarray, "nodes nodes"], labels: Int[np.ndarray, " nodes"]
) -> Int[np.ndarray, " nodes"]:
    """The connected parts of communities, numbered from 0; splitting never lowers Q."""
    from scipy import sparse

    inner = sparse.csr_matrix(np.where(labels[:, None] == labels, weights, 0.0))
    return np.asarray(sparse.csgraph.connected_components(inner, directed=False)[1], dtype=np.int64)
