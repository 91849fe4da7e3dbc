"""Which edges of a graph are kept, and which nodes then see the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Group(NamedTuple):
    """Target nodes, counted from 0 without the constant, and which source nodes all of them see."""

    targets: Int[Tensor, " some"]
    sources: Bool[Tensor, " sources"]


def edge_order(edges: Float[Tensor, "targets sources"]) -> Int[Tensor, " edges"]:
    """Places of the edges, row by row, from the largest |E| on; of equal ones the first comes first.

    The constant's row and column are no edges that count.

    Example:
        >>> edge_order(torch.tensor([[9.0, 9.0, 9.0], [9.0, 1.0, 2.0], [9.0, 2.0, 0.0]])).tolist()
        [1, 2, 0, 3]
    """
    return torch.argsort(edges[1:, 1:].abs().flatten(), descending=True, stable=True)


def edge_mask(order: Int[Tensor, " edges"], targets: int, sources: int, kept: int) -> Bool[Tensor, "targets sources"]:
    """Exactly the first `kept` edges of the order, and all that leave the constant, which are free.

    Example:
        >>> edge_mask(torch.tensor([1, 2, 0, 3]), 3, 3, 1).int().tolist()
        [[1, 0, 0], [1, 0, 1], [1, 0, 0]]
    """
    inner = torch.zeros((targets - 1) * (sources - 1), dtype=torch.bool)
    inner[order[:kept]] = True
    mask = torch.zeros(targets, sources, dtype=torch.bool)
    mask[:, 0] = True
    mask[1:, 1:] = inner.reshape(targets - 1, sources - 1)
    return mask


def groups(mask: Bool[Tensor, "targets sources"]) -> Iterable[Group]:
    """The target nodes by what they see, in the order in which it first occurs."""
    rows = mask[1:, 1:]
    alike: dict[bytes, list[int]] = {}
    for target, row in enumerate(rows.numpy()):
        alike.setdefault(row.tobytes(), []).append(target)
    for targets in alike.values():
        yield Group(torch.tensor(targets), rows[targets[0]])
