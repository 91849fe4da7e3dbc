"""Gains of each group, computed once and brought up to date where only some units of other groups have moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.connectivity.layout import groups_of, iter_blocks, permuted
from workbench.connectivity.nested_assignment import Gains, Orders
from workbench.connectivity.structure import Structure

MOST_KEPT = 1 << 25  # numbers kept in all, 268 MB
FEW = 0.75  # share of a group's units; beyond it all is computed anew


class KeptGains:
    """What each assignment of a group's units is worth, all other groups as they are.

    C changes by ΔC = A[:, Δ]·(B[:, new(Δ)] − B[:, old(Δ)])ᵀ where the units Δ of another group have moved, which is
    less work than C where they are few.

    Args:
        structure: groups and tensors.
        a: the network that stays, a tensor at a time.
        b: the network that is permuted.
        device: where products of matrices are computed.
    """

    def __init__(
        self, structure: Structure, a: Callable[[str], Tensor], b: Callable[[str], Tensor], device: torch.device
    ) -> None:
        self.structure, self.a, self.b, self.device = structure, a, b, device
        self._kept: dict[str, tuple[Gains, Orders, Sequence[str]]] = {}
        self._room = MOST_KEPT

    def __call__(self, root: str, inner: Sequence[str], orders: Orders, names: Sequence[str]) -> Gains:
        """The gains of a group from these tensors, computed anew."""
        gains = Gains(root, inner, self.structure.sizes)
        self._add(gains, orders, names)
        return gains

    def current(self, root: str, orders: Orders, names: Sequence[str]) -> Gains:
        """The same for a group with none within it, from what was kept of the last time if that is less work."""
        gains, before, known = self._kept.pop(root, (None, {}, ()))
        groups = {group for name in known for group in groups_of(self.structure.layouts[name])}
        nested = any(
            group in self.structure.within for name in names for group in groups_of(self.structure.layouts[name])
        )
        moved = {
            group: torch.nonzero(orders[group] != before[group]).flatten()
            for group in groups - {root}
            if group in orders and group not in self.structure.within
        }
        few = all(len(units) <= FEW * self.structure.sizes[group] for group, units in moved.items())
        if gains is None or nested or not few or not set(known) <= set(names):
            gains = self(root, (), orders, names)
            if before or self.structure.sizes[root] ** 2 <= self._room:
                self._room -= 0 if before else self.structure.sizes[root] ** 2
                before = dict(orders)
        else:
            for name in known:
                self._update(gains, name, before, orders, {g: units for g, units in moved.items() if len(units)})
            self._add(gains, orders, [name for name in names if name not in known])
            before = dict(orders)
        if before:
            self._kept[root] = gains, before, names
        return gains

    def _add(self, gains: Gains, orders: Orders, names: Sequence[str]) -> None:
        """Adds these tensors, all other groups in their orders."""
        others = {group: order for group, order in orders.items() if group not in (gains.root, *gains.inner)}
        for name in names:
            layout = self.structure.layouts[name]
            own = self.a(name).to(self.device)
            other = permuted(self.b(name).to(self.device), layout, others, self.structure.within)
            for mine, yours in zip(iter_blocks(own, layout), iter_blocks(other, layout), strict=True):
                gains.add(mine.tensor, yours.tensor, mine.groups, orders)

    def _update(
        self, gains: Gains, name: str, before: Orders, orders: Orders, moved: Mapping[str, Int[Tensor, " units"]]
    ) -> None:
        """Adds what has changed in one tensor, one moved group after the other."""
        layout = self.structure.layouts[name]
        changed = [group for group in dict.fromkeys(groups_of(layout)) if group in moved]
        if not changed:
            return
        blocks = zip(iter_blocks(self.a(name), layout), iter_blocks(self.b(name), layout), strict=True)
        for mine, yours in blocks:
            now = {group: before[group] for group in mine.groups if group in before and group != gains.root}
            for group in changed:
                if group not in mine.groups or gains.root not in mine.groups:
                    continue
                a, new, old = mine.tensor.to(self.device), yours.tensor.to(self.device), yours.tensor.to(self.device)
                for place, other in enumerate(mine.groups):
                    if other == group:
                        units = moved[group]
                        a = a.index_select(place, units.to(self.device))
                        new = new.index_select(place, orders[group][units].to(self.device))
                        old = old.index_select(place, before[group][units].to(self.device))
                    elif other in now:
                        new, old = (x.index_select(place, now[other].to(self.device)) for x in (new, old))
                gains.add(a, new - old, mine.groups, orders)
                now[group] = orders[group]
