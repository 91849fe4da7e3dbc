"""How the axes of a stored tensor are made of groups, as text that a table can hold and a reader can follow.

`fc1` is an axis of the group fc1; `#10` ten positions that keep their order; `conv2*#16` a product, row-major (each
unit of conv2 has 16 positions in a row); `h*qk+h*qk+h*v` a concatenation. A group inside another (`qk` within `h`) has
an order of its own for every unit of the outer one.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.errors import ArgumentError

SPECIAL = re.compile(r"[*+#()\s,]")


@dataclass(frozen=True)
class Leaf:
    """An axis, or a factor of one: a group's units, or positions that keep their order (group is None)."""

    size: int
    group: str | None = None

    def __str__(self) -> str:
        return self.group or f"#{self.size}"


@dataclass(frozen=True)
class Product:
    """Factors, the last of which runs fastest."""

    parts: tuple[Node, ...]

    def __str__(self) -> str:
        return "*".join(f"({part})" if isinstance(part, Concatenation) else str(part) for part in self.parts)

    @property
    def size(self) -> int:
        """Number of positions."""
        return prod(part.size for part in self.parts)


@dataclass(frozen=True)
class Concatenation:
    """One part after the other."""

    parts: tuple[Node, ...]

    def __str__(self) -> str:
        return "+".join(map(str, self.parts))

    @property
    def size(self) -> int:
        """Number of positions."""
        return sum(part.size for part in self.parts)


Node: TypeAlias = Leaf | Product | Concatenation
Layout: TypeAlias = tuple[Node, ...]


def multiplied(parts: Sequence[Node]) -> Node:
    """A product; neighbours that keep their order become one."""
    return _composed(Product, parts, operator.mul)


def joined(parts: Sequence[Node]) -> Node:
    """A concatenation; neighbours that keep their order become one."""
    return _composed(Concatenation, parts, operator.add)


def _composed(
    kind: type[Product] | type[Concatenation], parts: Sequence[Node], sized: Callable[[int, int], int]
) -> Node:
    found: list[Node] = []
    for part in (inner for node in parts for inner in (node.parts if isinstance(node, kind) else (node,))):
        last = found[-1] if found else None
        if isinstance(part, Leaf) and isinstance(last, Leaf) and part.group is None and last.group is None:
            found[-1] = Leaf(sized(last.size, part.size))
        else:
            found.append(part)
    return found[0] if len(found) == 1 else kind(tuple(found))


def parsed(text: str, sizes: Mapping[str, int]) -> Node:
    """The axis that a text describes.

    Args:
        text: as the module's docstring has it.
        sizes: group → number of units.

    Raises:
        ArgumentError: it is no such text, or names a group that is not in `sizes`.

    Example:
        >>> parsed("h*(q+q+v)", {"h": 12, "q": 64, "v": 32}).size
        1920
    """
    tokens = re.findall(r"[*+()]|[^*+()]+", text)
    node, rest = _sum(tokens, sizes, text)
    if rest:
        raise ArgumentError(f"{text!r} is no axis: {rest[0]!r} is one too many.")
    return node


def _sum(tokens: list[str], sizes: Mapping[str, int], text: str) -> tuple[Node, list[str]]:
    parts: list[Node] = []
    rest = ["+", *tokens]
    while rest and rest[0] == "+":
        factors: list[Node] = []
        rest = ["*", *rest[1:]]
        while rest and rest[0] == "*":
            if len(rest) < 2:
                raise ArgumentError(f"{text!r} is no axis: it ends too early.")
            word, rest = rest[1], rest[2:]
            if word == "(":
                node, rest = _sum(rest, sizes, text)
                if not rest or rest[0] != ")":
                    raise ArgumentError(f"{text!r} is no axis: a bracket is not closed.")
                factors.append(node)
                rest = rest[1:]
            elif word.startswith("#") and word[1:].isdigit():
                factors.append(Leaf(int(word[1:])))
            elif word in sizes:
                factors.append(Leaf(sizes[word], word))
            else:
                raise ArgumentError(f"{text!r} is no axis: {word!r} is no group.")
        parts.append(factors[0] if len(factors) == 1 else Product(tuple(factors)))
    return (parts[0] if len(parts) == 1 else Concatenation(tuple(parts))), rest


def groups_of(layout: Sequence[Node]) -> Iterator[str]:
    """The groups of a tensor's axes, once for every occurrence."""
    for node in layout:
        if isinstance(node, Leaf):
            if node.group is not None:
                yield node.group
        else:
            yield from groups_of(node.parts)


@dataclass(frozen=True)
class Block:
    """A part of a tensor whose dimensions are one leaf each.

    Attributes:
        tensor: a view, or a copy where no view exists.
        groups: the group of each dimension; None where the order is kept.
    """

    tensor: Tensor
    groups: tuple[str | None, ...]


def iter_blocks(tensor: Tensor, layout: Sequence[Node]) -> Iterator[Block]:
    """The blocks of a tensor: products become dimensions, concatenations are taken apart; always in the same order."""
    for block, leaves in _iter_leaves(tensor, list(layout)):
        yield Block(block, tuple(leaf.group for leaf in leaves))


def _iter_leaves(tensor: Tensor, layout: list[Node]) -> Iterator[tuple[Tensor, list[Leaf]]]:
    tensor, layout = _unfolded(tensor, layout)
    place = _concatenated(layout)
    if place is None:
        yield tensor, [node for node in layout if isinstance(node, Leaf)]
        return
    for piece, node in _pieces(tensor, layout, place):
        yield from _iter_leaves(piece, [*layout[:place], node, *layout[place + 1 :]])


def _concatenated(layout: Sequence[Node]) -> int | None:
    """The first axis that is a concatenation, if one is."""
    return next((place for place, node in enumerate(layout) if isinstance(node, Concatenation)), None)


def _unfolded(tensor: Tensor, layout: Sequence[Node]) -> tuple[Tensor, list[Node]]:
    while any(isinstance(node, Product) for node in layout):
        layout = [part for node in layout for part in (node.parts if isinstance(node, Product) else (node,))]
        tensor = tensor.reshape([node.size for node in layout])
    return tensor, list(layout)


def _pieces(tensor: Tensor, layout: Sequence[Node], place: int) -> list[tuple[Tensor, Node]]:
    node = layout[place]
    parts = node.parts if isinstance(node, Concatenation) else (node,)
    return list(zip(torch.split(tensor, [part.size for part in parts], place), parts, strict=True))


def permuted(
    tensor: Tensor, layout: Sequence[Node], orders: Mapping[str, Int[Tensor, "*_"]], within: Mapping[str, str]
) -> Tensor:
    """A tensor with the units of its groups in another order: out[i] = in[order[i]] along every axis of a group.

    Args:
        tensor: any tensor of the layout's sizes.
        layout: what each axis is made of.
        orders: group → indices (units,), or (outer units, units) for a group within another: the row of the outer
            group's new position. Groups without an order stay.
        within: group → the outer group, for those that have one.

    Returns:
        A new tensor, or `tensor` itself if none of its groups has an order.
    """
    if not any(group in orders for group in groups_of(layout)):
        return tensor
    shape = tensor.shape
    unfolded, nodes = _unfolded(tensor, layout)
    cut = _concatenated(nodes)
    if cut is not None:
        parts = [
            permuted(piece, [*nodes[:cut], node, *nodes[cut + 1 :]], orders, within)
            for piece, node in _pieces(unfolded, nodes, cut)
        ]
        return torch.cat(parts, cut).reshape(shape)
    groups = [node.group if isinstance(node, Leaf) else None for node in nodes]
    for inner in (False, True):  # the outer groups first: the inner orders are told by their new positions
        for place, group in enumerate(groups):
            if group is None or group not in orders or (group in within) is not inner:
                continue
            order = orders[group].to(unfolded.device)
            if not inner:
                unfolded = unfolded.index_select(place, order)
                continue
            outer = groups.index(within[group])
            order = order if outer < place else order.mT
            sizes = [1] * len(groups)
            sizes[outer], sizes[place] = unfolded.shape[outer], unfolded.shape[place]
            unfolded = unfolded.take_along_dim(order.reshape(sizes), place)
    return unfolded.reshape(shape)
