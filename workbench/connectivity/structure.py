"""Groups and the tensors that have them, as every function of this package takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.connectivity.layout import Layout, Node, groups_of, parsed, permuted
from workbench.connectivity.permutations import Permutations
from workbench.errors import ArgumentError, nearest
from workbench.results import Column, Table
from workbench.weights import ModelLike, TensorInfo, Weights, load
from workbench.weights.naming import without_prefixes

AXIS_COLUMNS: Mapping[str, Column] = {
    "tensor": Column("name in the state dict", str, ""),
    "axis": Column("number of the axis; -1 for a tensor without axes", int, "1", low=-1),
    "size": Column("positions of the axis", int, "positions", low=0),
    "made_of": Column("groups (by name) and kept positions (#n): a*b is a product, a+b a concatenation", str, ""),
    "kind": Column("parameter or buffer", str, ""),
    "tied_to": Column("the first name of the same tensor, if this is another", str, ""),
    "frozen": Column("why positions must keep their order; empty if all may move", str, ""),
}


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What a permutation has to move.

    Attributes:
        sizes: group → number of units, frozen ones too.
        within: group → the group that it lies in, for those that lie in one.
        free: the groups that may be permuted.
        layouts: tensor → what each of its axes is made of.
        tied: further name of a tensor → its first.
        buffers: names that are no parameters: permuted, never compared.
    """

    sizes: Mapping[str, int]
    within: Mapping[str, str]
    free: tuple[str, ...]
    layouts: Mapping[str, Layout]
    tied: Mapping[str, str]
    buffers: frozenset[str]

    @classmethod
    def of(cls, groups: Table, axes: Table) -> Structure:
        """From the tables `groups` and `axes`."""
        rows = list(zip(groups["group"], groups["size"], groups["within"], groups["frozen"], strict=True))
        sizes = {group: size for group, size, _, _ in rows}
        layouts: dict[str, list[Node]] = {}
        for tensor, axis, text in zip(axes["tensor"], axes["axis"], axes["made_of"], strict=True):
            nodes = layouts.setdefault(tensor, [])
            if axis >= 0:
                nodes.append(parsed(text, sizes))
        names = list(zip(axes["tensor"], axes["kind"], axes["tied_to"], strict=True))
        return cls(
            sizes=sizes,
            within={group: outer for group, _, outer, _ in rows if outer},
            free=tuple(group for group, _, _, why in rows if not why),
            layouts={tensor: tuple(nodes) for tensor, nodes in layouts.items()},
            tied={tensor: first for tensor, _, first in names if first},
            buffers=frozenset(tensor for tensor, kind, _ in names if kind == "buffer"),
        )

    def parameters(self) -> list[str]:
        """The tensors that are compared: no buffers, tied ones once."""
        return [name for name in self.layouts if name not in self.buffers and name not in self.tied]

    def members(self) -> dict[str, list[str]]:
        """Group → the parameters that have it."""
        found: dict[str, list[str]] = {group: [] for group in self.sizes}
        for name in self.parameters():
            for group in dict.fromkeys(groups_of(self.layouts[name])):
                found[group].append(name)
        return found

    def identity(self) -> dict[str, Tensor]:
        """Free group → the order in which every unit is in its place, a row of them for every unit of the outer one."""
        found = {}
        for group in self.free:
            order, outer = torch.arange(self.sizes[group]), self.within.get(group)
            found[group] = order.expand(self.sizes[outer], -1).contiguous() if outer else order
        return found

    def names_in(self, weights: Weights) -> dict[str, str]:
        """The structure's name → the weights' name of every tensor; one of several tied names is enough.

        Raises:
            ArgumentError: the weights are of another architecture; the first difference is named.
        """
        short = {name: name for name in self.layouts}
        if not any(name in short for name in weights):
            short = without_prefixes(self.layouts)
        names = {own: name for name, own in short.items() if name in weights}
        for own in self.layouts:
            if own not in names:
                first = self.tied.get(own, own)
                alias = next((n for n in (first, *self.tied) if self.tied.get(n, n) == first and n in names), None)
                if alias is None:
                    raise ArgumentError(
                        f"{weights.source} has no tensor {own!r}, which the groups have: "
                        + (_prefixed(self.layouts, own, weights) or "it is of another architecture.")
                        + nearest(own, weights)
                    )
                names[own] = names[alias]
        for own, name in names.items():
            expected, shape = tuple(node.size for node in self.layouts[own]), weights.infos[name].shape
            if expected != shape:
                raise ArgumentError(
                    f"{weights.source} has {name!r} of the shape {list(shape)}, the groups expect {list(expected)}: "
                    "it is of another architecture or width."
                )
        known = set(names.values())
        if more := next((name for name in weights if name not in known), None):
            raise ArgumentError(
                f"{weights.source} has the tensor {more!r}, which the groups do not know: it is of another "
                f"architecture; leave it out if it is no part of the network.{nearest(more, self.layouts)}"
            )
        return names

    def applied(self, weights: ModelLike, permutations: Mapping[str, Tensor]) -> Weights:
        """The weights with permuted units, permuted when they are read; see `PermutationGroups.apply`."""
        if not isinstance(permutations, Mapping):
            raise ArgumentError(
                f"permutations is {type(permutations).__name__}: expected those of the groups, such as "
                "matching.permutations or groups.random(seed), or a mapping of groups to orders."
            )
        if unknown := next((group for group in permutations if group not in self.sizes), None):
            raise ArgumentError(f"permutations have {unknown!r}, which is no group here.{nearest(unknown, self.sizes)}")
        if not isinstance(permutations, Permutations):  # an order that is none would make another network
            permutations = Permutations(permutations, self.within)
        for group, order in permutations.items():
            expected = [self.sizes[self.within[group]]] if group in self.within else []
            if list(order.shape) != [*expected, self.sizes[group]]:
                raise ArgumentError(
                    f"the order of {group!r} has the shape {list(order.shape)}: expected "
                    f"{[*expected, self.sizes[group]]}."
                )
        source = load(weights)
        own = {name: own for own, name in self.names_in(source).items()}

        def read(info: TensorInfo) -> Tensor:
            return permuted(source[info.name], self.layouts[own[info.name]], permutations, self.within)

        return Weights(
            list(source.infos.values()),
            read,
            source=source.source,
            notes=[*source.notes, "its units are permuted"],
            ordered=source.ordered,
            metadata=source.metadata,
        )


def _prefixed(layouts: Mapping[str, Layout], own: str, weights: Weights) -> str:
    """What to do where all names have one prefix more, as those of a module that was an attribute of another."""
    longer = next((name for name in weights if name.endswith(f".{own}")), "")
    prefix = longer.removesuffix(own)
    if not prefix or any(f"{prefix}{name}" not in weights for name in layouts):
        return ""
    return (
        f"its names begin with {prefix!r}; pass {{name.removeprefix({prefix!r}): tensor for name, tensor in "
        "wb.load(…).items()}."
    )
