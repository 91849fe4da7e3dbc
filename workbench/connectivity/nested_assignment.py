"""Assignment of a group's units together with the orders of the groups within it, as of heads and their units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.connectivity.structure import Structure
from workbench.linalg.assignment import assignment

Orders: TypeAlias = dict[str, Tensor]
Floats: TypeAlias = Float[np.ndarray, "..."]

CHUNK = 1 << 22  # elements upcast at a time
ROUNDS = 10  # of alternation between inner groups that share a tensor


class Gains:
    """What it is worth to put B's unit j in place i, for a group and, per pair (i, j), for the units within.

    For every set of inner groups that share a tensor block with the outer one, `parts` holds the inner products
    ⟨A[i, a, …], B[j, b, …]⟩ as an array (i, j, a, b, …), two axes per group.

    Args:
        root: the outer group.
        inner: the groups within it.
        sizes: group → number of units.
    """

    def __init__(self, root: str, inner: Sequence[str], sizes: Mapping[str, int]) -> None:
        self.root, self.inner, self.sizes = root, tuple(inner), sizes
        self.parts: dict[tuple[str, ...], Tensor] = {}

    def add(self, a: Tensor, b: Tensor, groups: Sequence[str | None], orders: Mapping[str, Tensor]) -> None:
        """Adds a block of a tensor of both networks, B's other groups permuted already."""
        family = {self.root, *self.inner}
        if groups.count(self.root) > 1:  # W[i, j] with both in the group: linear around the order of the other axis
            for place, group in enumerate(groups):
                if group == self.root:
                    other = b
                    for axis, name in enumerate(groups):
                        if name == self.root and axis != place and self.root in orders:
                            other = other.index_select(axis, orders[self.root].to(b.device))
                    self._add((self.root,), a, other, [place])
            return
        own = [group for group in (self.root, *self.inner) if group in groups]
        if own and all(groups.count(group) == 1 for group in own):
            self._add(tuple(own), a, b, [list(groups).index(group) for group in own])
        elif set(groups) & family:
            raise NotImplementedError(f"{self.root} occurs in a tensor in a way that matching does not know: {groups}")

    def _add(self, own: tuple[str, ...], a: Tensor, b: Tensor, places: Sequence[int]) -> None:
        sizes = [a.shape[place] for place in places]
        rest = [axis for axis in range(a.ndim) if axis not in places]
        order = [*places, *rest]
        units = int(np.prod(sizes))
        total = torch.zeros(units, units, dtype=torch.float64, device=a.device)
        longest = max(rest, key=lambda axis: a.shape[axis], default=None)
        if longest is None:
            pieces = [(a, b)]
        else:
            step = max(1, CHUNK * a.shape[longest] // max(a.numel(), 1))
            pieces = list(zip(torch.split(a, step, longest), torch.split(b, step, longest), strict=True))
        for mine, yours in pieces:
            left, right = (x.permute(order).reshape(units, -1).to(torch.float64) for x in (mine, yours))
            total.addmm_(left, right.T)
        count = len(sizes)
        folded = total.reshape([*sizes, *sizes])
        paired = folded.permute([axis for k in range(count) for axis in (k, count + k)])
        key = own[1:]
        self.parts[key] = self.parts[key] + paired if key in self.parts else paired.contiguous()


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Orders of a group and those within it, and what they gain over the orders of before."""

    orders: Orders
    gain: float


def solved(gains: Gains, orders: Mapping[str, Tensor], structure: Structure) -> Solution:
    """The best order of a group, exactly; with groups within it, exactly if no two of them share a tensor.

    The worth of giving place i to unit j is that of the best inner orders for this pair: one assignment per pair and
    inner group, then one over the pairs. Inner groups that share a tensor (repeated queries and values) are improved in
    turn from where they are, so that the result is never worse than what was.
    """
    parts = {key: part.cpu().numpy() for key, part in gains.parts.items()}
    size = gains.sizes[gains.root]
    outer = np.arange(size) if gains.root not in structure.free else orders[gains.root].numpy()
    inner = {group: orders[group].numpy() for group in gains.inner}
    worth = np.zeros((size, size)) + parts.get((), 0.0)
    frozen = gains.root not in structure.free
    best: dict[str, np.ndarray] = {group: np.empty((size, size, gains.sizes[group]), np.int64) for group in gains.inner}
    current = sum(worth[i, outer[i]] for i in range(size))
    for i, j in [(i, i) for i in range(size)] if frozen else product(range(size), range(size)):
        if not gains.inner:
            break
        pair = {key: part[i, j] for key, part in parts.items() if key}
        start = {group: inner[group][i] for group in gains.inner}
        if j == outer[i]:
            current += _worth(pair, start)
        chosen = _inner_orders(pair, start)
        worth[i, j] += _worth(pair, chosen)
        for group, order in chosen.items():
            best[group][i, j] = order
    order = outer if frozen else assignment(worth)
    gain = float(worth[np.arange(size), order].sum() - current)
    found: Orders = {} if frozen else {gains.root: torch.from_numpy(order.copy())}
    for group in gains.inner:
        found[group] = torch.from_numpy(best[group][np.arange(size), order])
    return Solution(orders=found, gain=gain)


def _worth(pair: Mapping[tuple[str, ...], Floats], orders: Mapping[str, np.ndarray]) -> float:
    total = 0.0
    for key, part in pair.items():
        indices = []
        for axis, group in enumerate(key):
            shape = [1] * len(key)
            shape[axis] = -1
            indices += [np.arange(len(orders[group])).reshape(shape), orders[group].reshape(shape)]
        total += float(part[tuple(indices)].sum())
    return total


def _inner_orders(pair: Mapping[tuple[str, ...], Floats], start: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The best order of each inner group for one pair of outer units, the others as they are, until nothing changes."""
    orders = dict(start)
    shared = any(len(key) > 1 for key in pair)
    for _ in range(ROUNDS if shared else 1):
        before = dict(orders)
        for group in orders:
            gain = sum(
                (_reduced(part, key, group, orders) for key, part in pair.items() if group in key),
                start=np.zeros((len(orders[group]),) * 2),
            )
            orders[group] = assignment(gain)
        if all(np.array_equal(before[group], orders[group]) for group in orders):
            break
    return orders


def _reduced(part: Floats, key: tuple[str, ...], group: str, orders: Mapping[str, np.ndarray]) -> Floats:
    """A part as gains of one inner group, the others in their orders."""
    for other in reversed(key):
        if other != group:
            axis = 2 * key.index(other)
            part = np.moveaxis(part, (axis, axis + 1), (0, 1))
            part = part[np.arange(len(orders[other])), orders[other]].sum(0)
    return part
