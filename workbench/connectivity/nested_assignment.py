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
from workbench.linalg.assignment import assignment, entropic_prices
from workbench.linalg.pieces import MOST_UPCAST

Orders: TypeAlias = dict[str, Tensor]
Prices: TypeAlias = dict[str, Float[np.ndarray, " units"]]
Floats: TypeAlias = Float[np.ndarray, "..."]
InnerOrders: TypeAlias = dict[str, np.ndarray]

ROUNDS = 10  # of alternation between inner groups that share a tensor
NO_GAIN = 1e-12  # relative to what orders are worth; below it a change is rounding


class Gains:
    """What it is worth to put B's unit j in place i, for a group and, per pair (i, j), for the units within.

    For every set of inner groups that share a tensor block with the outer one, `parts` holds the inner products
    ⟨A[i, a, …], B[j, b, …]⟩ as an array (i, j, a, b, …), two axes per group. Where there are two inner groups or more
    these are units⁴ numbers and more, so that of weights the blocks themselves are kept, in `blocks`.

    Args:
        root: the outer group.
        inner: the groups within it.
        sizes: group → number of units.
        summed: inner products for any number of groups: of a stream of activations there is nothing else to keep.
    """

    def __init__(self, root: str, inner: Sequence[str], sizes: Mapping[str, int], *, summed: bool = False) -> None:
        self.root, self.inner, self.sizes, self.summed = root, tuple(inner), sizes, summed
        self.parts: dict[tuple[str, ...], Tensor] = {}
        self.blocks: list[_Blocks] = []

    def add(self, a: Tensor, b: Tensor, groups: Sequence[str | None], orders: Mapping[str, Tensor]) -> None:
        """Adds a block of a tensor of both networks, B's other groups permuted already."""
        family = {self.root, *self.inner}
        own = [group for group in (self.root, *self.inner) if group in groups]
        if own == [self.root] and groups.count(self.root) > 1:
            for place, group in enumerate(groups):  # W[i, j] with both in the group: linear around the others' order
                if group == self.root:
                    other = b
                    for axis, name in enumerate(groups):
                        if name == self.root and axis != place and self.root in orders:
                            other = other.index_select(axis, orders[self.root].to(b.device))
                    self._add((self.root,), a, other, [place])
        elif own[:1] == [self.root] and all(groups.count(group) == 1 for group in own):
            places = [list(groups).index(group) for group in own]
            if len(own) > 2 and not self.summed:
                rest = [axis for axis in range(a.ndim) if axis not in places]
                sizes = [a.shape[place] for place in places]
                folded = (x.permute([*places, *rest]).reshape(*sizes, -1) for x in (a, b))
                mine, yours = (x.to("cpu", copy=True) for x in folded)  # a tensor that is read may be on loan
                self.blocks.append(_Blocks(tuple(own[1:]), mine, yours))
            else:
                self._add(tuple(own), a, b, places)
        elif set(groups) & family:
            raise NotImplementedError(f"{self.root} occurs in a tensor in a way that matching does not know: {groups}")

    def _add(self, own: tuple[str, ...], a: Tensor, b: Tensor, places: Sequence[int]) -> None:
        sizes = [a.shape[place] for place in places]
        rest = [axis for axis in range(a.ndim) if axis not in places]
        order = [*places, *rest]
        units = int(np.prod(sizes))
        key, alone = own[1:], len(own) == 1
        known = self.parts.get(key) if alone else None  # which is added to in place: it has no axes to put in order
        total = torch.zeros(units, units, dtype=torch.float64, device=a.device) if known is None else known
        longest = max(rest, key=lambda axis: a.shape[axis], default=None)
        if longest is None:
            pieces = [(a, b)]
        else:
            step = max(1, MOST_UPCAST * a.shape[longest] // max(a.numel(), 1))
            pieces = list(zip(torch.split(a, step, longest), torch.split(b, step, longest), strict=True))
        for mine, yours in pieces:
            left, right = (x.permute(order).reshape(units, -1).to(torch.float64) for x in (mine, yours))
            total.addmm_(left, right.T)
        if alone:
            self.parts[key] = total
            return
        count = len(sizes)
        folded = total.reshape([*sizes, *sizes])
        paired = folded.permute([axis for k in range(count) for axis in (k, count + k)])
        self.parts[key] = self.parts[key] + paired if key in self.parts else paired.contiguous()


@dataclass(frozen=True)
class _Term:
    """What some inner groups' orders are worth together, once the outer units are a pair (i, j)."""

    groups: tuple[str, ...]

    def gain(self, i: int, j: int, group: str, orders: InnerOrders) -> Floats:
        """Of each assignment of one group's units, the others in their orders."""
        raise NotImplementedError

    def worth(self, i: int, j: int, orders: InnerOrders) -> float:
        """Of all orders."""
        gain = self.gain(i, j, self.groups[0], orders)
        return float(gain[np.arange(len(gain)), orders[self.groups[0]]].sum())


@dataclass(frozen=True)
class _Products(_Term):
    """Inner products of all units, (i, j, a, b, …)."""

    array: Floats

    def gain(self, i: int, j: int, group: str, orders: InnerOrders) -> Floats:
        part = self.array[i, j]
        for axis, other in reversed(list(enumerate(self.groups))):
            if other != group:
                part = np.moveaxis(part, (2 * axis, 2 * axis + 1), (0, 1))
                part = part[np.arange(len(orders[other])), orders[other]].sum(0)
        gain: Floats = part
        return gain


@dataclass(frozen=True)
class _Blocks(_Term):
    """Blocks of both networks, (outer, a, …, rest)."""

    a: Tensor
    b: Tensor

    def gain(self, i: int, j: int, group: str, orders: InnerOrders) -> Floats:
        place, yours = self.groups.index(group), self.b[j]
        for axis, other in enumerate(self.groups):
            if other != group:
                yours = yours.index_select(axis, torch.from_numpy(orders[other]))
        left, right = (x.movedim(place, 0).flatten(1).double() for x in (self.a[i], yours))
        gain: Floats = (left @ right.T).numpy()
        return gain


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Orders of a group and those within it, and what they gain over the orders of before."""

    orders: Orders
    gain: float


def solved(gains: Gains, orders: Mapping[str, Tensor], structure: Structure, prices: Prices | None = None) -> Solution:
    """The best order of a group, exactly; with groups within it, exactly if no two of them share a tensor.

    The worth of giving place i to unit j is that of the best inner orders for this pair: one assignment per pair and
    inner group, then one over the pairs. Inner groups that share a tensor (repeated queries and values) are improved in
    turn, so that each is the best for the others' orders; the result is never worse than what was. `prices` are kept
    from one time to the next, for speed.
    """
    size = gains.sizes[gains.root]
    frozen = gains.root not in structure.free
    outer = np.arange(size) if frozen else orders[gains.root].numpy()
    inner = {group: orders[group].numpy() for group in gains.inner}
    simple = gains.parts.get(())
    worth = np.zeros((size, size)) if simple is None else simple.cpu().numpy()
    worth = worth.copy() if gains.inner else worth  # pairs of inner orders are added to it
    terms: list[_Term] = [*gains.blocks]
    terms += [_Products(key, part.cpu().numpy()) for key, part in gains.parts.items() if key]
    best: InnerOrders = {group: np.empty((size, size, gains.sizes[group]), np.int64) for group in gains.inner}
    current = float(worth[np.arange(size), outer].sum())
    for i, j in [(i, i) for i in range(size)] if frozen else product(range(size), range(size)):
        if not gains.inner:
            break
        start = {group: inner[group][i] for group in gains.inner}
        if j == outer[i]:
            current += _worth(terms, i, j, start)
        chosen, value = _inner_orders(terms, i, j, start)
        worth[i, j] += value
        for group, order in chosen.items():
            best[group][i, j] = order
    if frozen:
        order = outer
    else:
        near = entropic_prices(worth, None if prices is None else prices.get(gains.root))
        order = assignment(worth, near)
        if prices is not None:
            prices[gains.root] = near
    gain = float(worth[np.arange(size), order].sum() - current)
    found: Orders = {} if frozen else {gains.root: torch.from_numpy(order.copy())}
    for group in gains.inner:
        found[group] = torch.from_numpy(best[group][np.arange(size), order])
    return Solution(orders=found, gain=gain)


def _worth(terms: Sequence[_Term], i: int, j: int, orders: InnerOrders) -> float:
    return sum(term.worth(i, j, orders) for term in terms)


def _gain(terms: Sequence[_Term], i: int, j: int, group: str, orders: InnerOrders) -> Floats:
    gains: Floats = np.sum([term.gain(i, j, group, orders) for term in terms], axis=0)
    return gains


def _inner_orders(terms: Sequence[_Term], i: int, j: int, start: InnerOrders) -> tuple[InnerOrders, float]:
    """The best order of each inner group for one pair of outer units, and what they are worth together.

    Groups that share a term are improved in turn until nothing changes, once from where they are and once from a start
    in which a group is decided by the terms whose other groups are decided already.
    """
    if all(len(term.groups) == 1 for term in terms):
        orders = _decided(terms, i, j, start)
        return orders, _worth(terms, i, j, orders)
    candidates = [_ascended(terms, i, j, orders) for orders in (start, _decided(terms, i, j, start))]
    return max(candidates, key=lambda found: found[1])


def _decided(terms: Sequence[_Term], i: int, j: int, start: InnerOrders) -> InnerOrders:
    """Each group from the terms whose other groups are decided, those with most such terms first."""
    orders, waiting = dict(start), list(start)
    while waiting:
        known = {group: [term for term in terms if set(term.groups) & set(waiting) == {group}] for group in waiting}
        group = max(waiting, key=lambda group: len(known[group]))
        if known[group]:
            orders[group] = assignment(_gain(known[group], i, j, group, orders))
        waiting.remove(group)
    return orders


def _ascended(terms: Sequence[_Term], i: int, j: int, start: InnerOrders) -> tuple[InnerOrders, float]:
    orders, value = dict(start), _worth(terms, i, j, start)
    for _ in range(ROUNDS):
        before = value
        for group in orders:
            own = [term for term in terms if group in term.groups]
            if not own:
                continue
            gain = _gain(own, i, j, group, orders)
            order, places = assignment(gain), np.arange(len(gain))
            rise = float(gain[places, order].sum() - gain[places, orders[group]].sum())
            if rise > NO_GAIN * abs(value):
                orders[group], value = order, value + rise
        if value == before:
            break
    return orders, value
