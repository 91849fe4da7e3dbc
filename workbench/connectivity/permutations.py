"""Orders of the units of permutation groups, which compose and invert."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.errors import ArgumentError, LayerNotFoundError, nearest
from workbench.results import many


class Permutations(Mapping[str, Tensor]):
    """Group → order of its units: unit i of the permuted network is unit order[i] of the given one.

    A group within another (the units of a head) has a row for every unit of the outer one, told by the outer unit's new
    position: unit (i, j) is unit (outer[i], inner[i, j]).

    Attributes:
        within: group → the group that it lies in, for those that do.

    Example:
        >>> swap = Permutations({"fc1": torch.tensor([1, 0, 2])})
        >>> (swap @ swap).is_identity, swap.inverse()["fc1"].tolist()
        (True, [1, 0, 2])
    """

    def __init__(
        self, orders: Mapping[str, Int[Tensor, "*outer units"]], within: Mapping[str, str] | None = None
    ) -> None:
        self.within: Mapping[str, str] = MappingProxyType(dict(within or {}))
        checked = {}
        for group, order in orders.items():
            if not isinstance(order, Tensor) or order.is_floating_point() or order.ndim != 1 + (group in self.within):
                raise ArgumentError(f"the order of {group!r} is {_told(order)}: expected a vector of integers.")
            order = order.detach().to("cpu", torch.int64)
            if not torch.equal(order.sort(-1).values, torch.arange(order.shape[-1]).expand_as(order)):
                raise ArgumentError(f"the order of {group!r} is no permutation: a unit is missing or comes twice.")
            checked[group] = order
        self._orders = checked

    def __reduce__(self) -> tuple[type[Permutations], tuple[dict[str, Tensor], dict[str, str]]]:
        return type(self), (dict(self._orders), dict(self.within))

    def __getitem__(self, group: str) -> Tensor:
        if group not in self._orders:
            raise LayerNotFoundError(f"there is no group {group!r}." + nearest(group, self._orders))
        return self._orders[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self._orders)

    def __len__(self) -> int:
        return len(self._orders)

    @property
    def is_identity(self) -> bool:
        """Whether every unit stays."""
        return self.moved == 0

    @property
    def moved(self) -> int:
        """How many units do not stay where they are."""
        return sum(map(moved_units, self._orders.values()))

    def inverse(self) -> Permutations:
        """The orders that undo these."""
        found = {}
        for group, order in self._orders.items():
            back = order.argsort(-1)
            found[group] = back[self._orders[self.within[group]].argsort()] if self._nested(group) else back
        return Permutations(found, self.within)

    def __matmul__(self, first: Permutations) -> Permutations:
        """`first`, and then these: groups.apply(x, p @ q) is groups.apply(groups.apply(x, q), p)."""
        if set(first) != set(self):
            raise ArgumentError("the two permutations are of different groups: take both from one PermutationGroups.")
        found = {}
        for group, order in self._orders.items():
            before = first[group]
            if self._nested(group):
                before = before[self._orders[self.within[group]]]
            found[group] = before.gather(-1, order)
        return Permutations(found, self.within)

    def _nested(self, group: str) -> bool:
        return group in self.within and self.within[group] in self._orders

    def __repr__(self) -> str:
        units = sum(order.numel() for order in self._orders.values())
        return f"Permutations of {many(len(self), 'group')}: {self.moved:,} of {units:,} units move"


def moved_units(order: Int[Tensor, "*outer units"]) -> int:
    """How many units of an order do not stay where they are."""
    return int((order != torch.arange(order.shape[-1])).sum())


def _told(order: object) -> str:
    return f"{list(order.shape)} of {order.dtype}" if isinstance(order, Tensor) else type(order).__name__
