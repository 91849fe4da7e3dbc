"""Tensor axes as products and concatenations of leaves, unified where an operation lines them up.

An axis of n positions is a leaf, a product (row-major: the last factor runs fastest; made by views) or a concatenation
(made by cat, chunk and slices). Whatever an operation pairs position by position is unified, so that what remains at
the end as one leaf is one set of interchangeable units. What must keep its order is frozen, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod

ACROSS = "cut across its structure"


class Axis:
    """A node of the union-find forest; compare by `root`, never by identity of what was handed out earlier.

    Attributes:
        size: number of positions.
        kind: "leaf", "product" or "concatenation".
        parts: factors or pieces, outermost or first first; empty for a leaf.
        frozen: why the positions must keep their order, if they must.
        outer: the factors outside this one in the product that it was split from.
        members: (outer factor, position on it) → the axis that stands for this one at that position.
        torn: whether it was lined up across its structure, so that what lies inside it must be alike throughout.
    """

    def __init__(self, size: int, frozen: str | None = None, torn: bool = False) -> None:
        self.size, self.frozen, self.torn = size, frozen, torn
        self.kind, self.parts = "leaf", tuple[Axis, ...]()
        self.outer: list[Axis] = []
        self.members: dict[tuple[Axis, int], Axis] = {}
        self._link: Axis | None = None

    @property
    def root(self) -> Axis:
        """What this axis has become."""
        node = self
        while node._link is not None:
            node = node._link
        while self is not node and self._link is not node:
            self._link, self = node, self._link
        return node

    def factors(self) -> list[Axis]:
        """The factors of a product of products, in one list; a single one for anything else. Units are left out."""
        node = self.root
        if node.size == 1:
            return []
        return [factor for part in node.parts for factor in part.factors()] if node.kind == "product" else [node]

    def pieces(self) -> list[Axis]:
        """The pieces of a concatenation of concatenations, in one list; a single one for anything else."""
        node = self.root
        return [piece for part in node.parts for piece in part.pieces()] if node.kind == "concatenation" else [node]

    def leaves(self) -> Iterator[Axis]:
        """Every leaf below; one that occurs twice comes twice."""
        node = self.root
        if node.kind == "leaf":
            yield node
        for part in node.parts:
            yield from part.leaves()

    def member(self, outer: Axis, position: int) -> Axis:
        """What stands for this axis where `outer` is at `position`; the axis itself if it is not inside `outer`."""
        node = self.root
        if node.kind != "leaf":
            parts = [part.member(outer, position) for part in node.parts]
            return product(parts) if node.kind == "product" else concatenation(parts)
        if node.frozen or all(factor.root is not outer.root for factor in node.outer):
            return node
        for (factor, row), member in node.members.items():
            if factor.root is outer.root and row == position:
                return member
        member = Axis(node.size)
        node.members[outer.root, position] = member
        return member


def freeze(axis: Axis, reason: str) -> None:
    """Marks every leaf below; a leaf that is frozen keeps its first reason."""
    for leaf in axis.leaves():
        leaf.frozen = leaf.frozen or reason


def tear(axis: Axis, reason: str) -> None:
    """Freezes an axis whose positions are no longer told by its leaves."""
    for leaf in axis.leaves():
        leaf.frozen, leaf.torn = leaf.frozen or reason, True


def product(parts: Iterable[Axis]) -> Axis:
    """The axis whose positions are pairs of positions, the last factor running fastest."""
    factors = [factor for part in parts for factor in part.factors()]
    if len(factors) == 1:
        return factors[0]
    axis = Axis(prod(factor.size for factor in factors))
    if factors:
        axis.kind, axis.parts = "product", tuple(factors)
    return axis


def concatenation(parts: Iterable[Axis]) -> Axis:
    """The axis that runs through one part after the other."""
    pieces = [piece for part in parts for piece in part.pieces() if piece.size]
    if len(pieces) == 1:
        return pieces[0]
    axis = Axis(sum(piece.size for piece in pieces))
    axis.kind, axis.parts = "concatenation", tuple(pieces)
    return axis


def unify(a: Axis, b: Axis) -> None:
    """Makes two axes one: position i of the one is position i of the other from now on.

    What cannot be refined to a common structure is frozen on both sides, which is safe.
    """
    a, b = a.root, b.root
    if a is b or a.size == b.size == 1:
        return
    if a.size != b.size:
        _give_up(a, b)
        return
    if b.kind == "leaf":
        a, b = b, a
    if a.kind == "leaf":
        if a in b.leaves():
            _give_up(a, b)
            return
        _become(a, b)
    elif a.kind == b.kind == "product":
        _unify_products(a, b)
    elif a.kind == b.kind == "concatenation":
        _unify_concatenations(a, b)
    else:
        rows, pieces = (a, b) if a.kind == "product" else (b, a)
        parts = pieces.pieces()
        for part, piece in zip(cut(rows, [piece.size for piece in parts]), parts, strict=True):
            unify(part, piece)
        _link(pieces, rows)


def _link(a: Axis, b: Axis) -> None:
    a, b = a.root, b.root
    if a is not b:
        a._link = b


def _become(leaf: Axis, other: Axis) -> None:
    """Replaces a leaf by another axis of the same size, handing on what is known of it."""
    leaf._link = other
    for below in other.leaves():
        below.outer += [factor for factor in leaf.outer if factor not in below.outer]
    if leaf.frozen:
        (tear if leaf.torn else freeze)(other, leaf.frozen)
    members, leaf.members = leaf.members, {}
    for (outer, position), member in members.items():
        # an axis that lies inside itself, or is a member of what is a member of it, is the same at all positions
        alike = outer.root in other.leaves() or any(below.members for below in member.leaves())
        unify(other if alike else other.member(outer, position), member)


def _give_up(*axes: Axis) -> None:
    for axis in axes:
        tear(axis, "its structure is read in two ways that have no common refinement")


def _unify_products(a: Axis, b: Axis) -> None:
    left, right = a.factors(), b.factors()
    while left and right:
        left[:1], right[:1] = left[0].factors(), right[0].factors()  # what came before may have split them
        x, y = left.pop(0), right.pop(0)
        if x.size == y.size:
            unify(x, y)
            continue
        if x.size < y.size:
            x, y, left, right = y, x, right, left  # x is the longer
        halves = _halves(x, y.size)
        if halves is None:
            _give_up(a, b)
            return
        unify(halves[0], y)
        left[:0] = halves[1].factors()
    _link(a, b)


def _unify_concatenations(a: Axis, b: Axis) -> None:
    pieces = b.pieces()  # before a is cut, which may have pieces of b among its own
    for x, y in zip(cut(a, [piece.size for piece in pieces]), pieces, strict=True):
        unify(x, y)
    _link(a, b)


def _halves(axis: Axis, outer: int) -> tuple[Axis, Axis] | None:
    """An axis that is no product as a product of `outer` × the rest; None where its structure forbids that."""
    axis = axis.root
    if axis.size % outer:
        return None
    if axis.kind == "leaf":
        first, second = (Axis(size, axis.frozen, axis.torn) for size in (outer, axis.size // outer))
        first.outer, second.outer = list(axis.outer), [first, *axis.outer]
        axis._link = product([first, second])
        for key, member in axis.members.items():
            first.members[key], second.members[key] = split(member, [outer, second.size])
        return first, second
    if axis.kind == "concatenation":
        pieces = axis.pieces()
        if len(pieces) == outer and len({piece.size for piece in pieces}) == 1:
            # pieces of equal size, viewed as rows: an order of rows that cannot change, each with units of its own
            first, second = Axis(outer, "rows of unlike pieces"), Axis(pieces[0].size)
            second.outer = [first]
            second.members = {(first, position): piece for position, piece in enumerate(pieces)}
            axis._link = product([first, second])
            return first, second
        inner = axis.size // outer
        if all(piece.size % inner == 0 for piece in pieces):
            halves = [split(piece, [piece.size // inner, inner]) for piece in pieces]
            for _, second in halves[1:]:
                unify(halves[0][1], second)
            first, second = concatenation(first for first, _ in halves), halves[0][1]
            _link(axis, product([first, second]))
            return first, second
    return None


def split(axis: Axis, sizes: Sequence[int]) -> list[Axis]:
    """An axis as the axes of a view: the product of `sizes` is its size. Frozen throughout if it does not divide."""
    return view([axis], sizes)


def view(axes: Sequence[Axis], sizes: Sequence[int]) -> list[Axis]:
    """Axes of a tensor that is reshaped to `sizes`, row-major."""
    if empty := [axis for axis in axes if axis.size == 0]:  # an empty batch: the other axes as if it were full
        if len(empty) != sum(size == 0 for size in sizes):
            return _frozen_view(axes, sizes)
        found = iter(view([axis for axis in axes if axis.size], [size for size in sizes if size]))
        return [next(found) if size else empty.pop(0) for size in sizes]
    waiting = [factor for axis in axes for factor in axis.factors()]
    views: list[Axis] = []
    for size in sizes:
        parts: list[Axis] = []
        needed = size
        while needed > 1:
            if not waiting:
                return _frozen_view(axes, sizes)
            factor = waiting.pop(0)
            if needed % factor.size == 0:
                parts.append(factor)
                needed //= factor.size
                continue
            halves = _halves(factor, needed) if factor.size % needed == 0 else None
            if halves is None:
                return _frozen_view(axes, sizes)
            parts.append(halves[0])
            waiting[:0] = halves[1].factors()
            needed = 1
        views.append(product(parts) if size != 1 else Axis(1))
    return views if not waiting else _frozen_view(axes, sizes)


def _frozen_view(axes: Sequence[Axis], sizes: Sequence[int]) -> list[Axis]:
    reason = f"viewed as {list(sizes)}, which cuts across its structure"
    for axis in axes:
        tear(axis, reason)
    return [Axis(size, reason) for size in sizes]


def cut(axis: Axis, sizes: Sequence[int]) -> list[Axis]:
    """An axis as consecutive pieces of the given sizes, which sum to its size."""
    axis = axis.root
    if len(sizes) == 1:
        return [axis]
    if axis.kind == "leaf":
        pieces = [Axis(size, axis.frozen, axis.torn) for size in sizes]
        axis._link = concatenation(pieces)
        for piece in pieces:
            piece.outer = list(axis.outer)
        for key, member in axis.members.items():
            for piece, part in zip(pieces, cut(member, sizes), strict=True):
                piece.members[key] = part
        return pieces
    if axis.kind == "product":
        first, rest = axis.factors()[0], product(axis.factors()[1:])
        if first.size == len(sizes) and all(size == rest.size for size in sizes):
            freeze(first, "its positions are taken one by one")
            return [product([part.member(first, row) for part in rest.factors()]) for row in range(first.size)]
        if all(size % rest.size == 0 for size in sizes):
            outer = cut(first, [size // rest.size for size in sizes])
            return [product([piece, rest]) for piece in outer]
        tear(axis, ACROSS)
        return [Axis(size, ACROSS) for size in sizes]
    return _cut_pieces(axis, sizes)


def _cut_pieces(axis: Axis, sizes: Sequence[int]) -> list[Axis]:
    waiting = axis.pieces()
    found = []
    for size in sizes:
        parts: list[Axis] = []
        needed = size
        while needed:
            piece = waiting.pop(0)
            if piece.size > needed:
                head, tail = cut(piece, [needed, piece.size - needed])
                waiting[:0] = tail.pieces()
                waiting[:0] = head.pieces()
                continue
            parts.append(piece)
            needed -= piece.size
        found.append(concatenation(parts) if parts else Axis(0))
    return found
