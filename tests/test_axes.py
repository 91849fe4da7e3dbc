"""The algebra of axes: whatever is permuted, what was lined up stays lined up; and what need not be frozen is free."""

from collections.abc import Callable, Sequence
from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from workbench.connectivity.axes import (
    Axis,
    concatenation,
    cut,
    freeze,
    product,
    split,
    unify,
    view,
)

SIZES = (1, 2, 3, 4, 6, 8, 12)


def order(axis: Axis, orders: dict[Axis, Tensor]) -> Tensor:
    """The order of an axis that the orders of its leaves make: a tensor of indices, moved as the axes say."""
    node = axis.root
    if node.kind == "leaf":
        if node not in orders:
            orders[node] = torch.arange(node.size) if node.frozen else torch.randperm(node.size)
        return orders[node]
    indices = torch.arange(node.size)
    if node.kind == "product":
        indices = indices.reshape([part.size for part in node.parts])
        for place, part in enumerate(node.parts):
            indices = indices.index_select(place, order(part, orders))
        return indices.flatten()
    pieces = indices.split([part.size for part in node.parts])
    return torch.cat([piece[order(part, orders)] for piece, part in zip(pieces, node.parts, strict=True)])


def free(*axes: Axis) -> list[int]:
    """Sizes of the leaves that are not frozen, each leaf once, in order."""
    leaves = dict.fromkeys(leaf for axis in axes for leaf in axis.leaves())
    return [leaf.size for leaf in leaves if not leaf.frozen and leaf.size > 1]


def rows_unified(axis: Axis) -> None:
    """What stands for one axis at several positions becomes that axis."""
    for leaf in list(axis.leaves()):
        members, leaf.members = leaf.members, {}
        for member in members.values():
            unify(leaf, member)
            rows_unified(member)


class Program:
    """Random operations on axes, and what each of them promised."""

    def __init__(self, draw: Callable[[st.SearchStrategy[int]], int]) -> None:
        self.draw = draw
        self.axes = [Axis(SIZES[draw(st.integers(0, 6))]) for _ in range(4)]
        self.promises: list[tuple[list[Axis], list[Axis], Callable[[Sequence[Axis]], Axis]]] = []

    def pick(self) -> Axis:
        return self.axes[self.draw(st.integers(0, len(self.axes) - 1))]

    def promise(self, a: list[Axis], b: list[Axis], join: Callable[[Sequence[Axis]], Axis]) -> None:
        self.promises.append((a, b, join))
        self.axes += b

    def step(self) -> None:
        what = self.draw(st.integers(0, 4))
        if what == 0:
            a = self.pick()
            unify(a, b := next((x for x in reversed(self.axes) if x.size == a.size and x is not a), Axis(a.size)))
            self.promise([a], [b], product)
        elif what == 1:
            axes = [self.pick() for _ in range(self.draw(st.integers(1, 3)))]
            total = prod(axis.size for axis in axes)
            if total > 300:
                return
            first = self.draw(st.sampled_from([size for size in range(1, total + 1) if total % size == 0]))
            self.promise(axes, view(axes, [first, total // first]), product)
        elif what == 2:
            axis = self.pick()
            first = self.draw(st.integers(0, axis.size))
            sizes = [size for size in (first, axis.size - first) if size]
            self.promise([axis], cut(axis, sizes), concatenation)
        elif what == 3:
            parts = [self.pick(), self.pick()]
            if sum(part.size for part in parts) <= 100:
                self.promise(parts, [concatenation(parts)], concatenation)
        else:
            freeze(self.pick(), "the test says so")

    def kept(self, seed: int) -> bool:
        """Whether random orders of the free leaves keep every promise: what was paired moves together."""
        torch.manual_seed(seed)
        orders: dict[Axis, Tensor] = {}

        def whole(axes: list[Axis], join: Callable[[Sequence[Axis]], Axis]) -> Tensor:
            indices = [order(axis, orders) for axis in axes]
            if join is concatenation:
                starts = [sum(axis.size for axis in axes[:place]) for place in range(len(axes))]
                return torch.cat([start + index for start, index in zip(starts, indices, strict=True)])
            found = torch.zeros(1, dtype=torch.int64)
            for index in indices:
                found = (found[:, None] * len(index) + index).flatten()
            return found

        return all(torch.equal(whole(a, join), whole(b, join)) for a, b, join in self.promises)


@given(data=st.data())
def test_what_was_paired_moves_together(data: st.DataObject) -> None:
    with torch.random.fork_rng(devices=[]):
        program = Program(data.draw)
        for _ in range(data.draw(st.integers(1, 10))):
            program.step()
        for axis in program.axes:
            rows_unified(axis)
        assert program.kept(0) and program.kept(1)


def test_the_oracle_is_sharp() -> None:
    """A pair that is not unified is seen to move apart."""
    a, b = Axis(12), Axis(12)
    program = Program(lambda strategy: 0)
    program.promises = [([a], [b], product)]
    with torch.random.fork_rng(devices=[]):
        assert not program.kept(0)
        unify(a, b)
        assert program.kept(0)


def test_a_view_splits_and_a_view_joins() -> None:
    axis = Axis(24)
    a, b = split(axis, [4, 6])
    assert [a.size, b.size] == [4, 6] and axis.root.kind == "product" and free(axis) == [4, 6]
    assert view([a, b], [24])[0].factors() == [a, b]
    c, d = split(axis, [8, 3])  # the same axis read in another way: 4 × 2 × 3 is what both have in common
    assert [leaf.size for leaf in axis.leaves()] == free(axis) == [4, 2, 3]
    assert c.factors() == [a.root, b.factors()[0]] and d.root is b.factors()[1]
    assert [x.size for x in view([axis], [2, 12])] == [2, 12] and free(axis) == [2, 2, 2, 3]


def test_views_without_a_common_refinement_are_frozen() -> None:
    axis = Axis(24)
    split(axis, [4, 6])
    found = split(axis, [6, 4])
    assert free(axis) == [] and [x.size for x in found] == [6, 4] and free(*found) == []
    assert next(axis.leaves()).frozen == "viewed as [6, 4], which cuts across its structure"
    assert all(leaf.torn for leaf in axis.leaves())
    assert [x.size for x in view([Axis(6)], [4])] == [4]  # not the same number of positions: frozen, never an error


def test_units_do_not_count() -> None:
    axis = Axis(6)
    assert [x.size for x in view([Axis(1), axis, Axis(1)], [1, 2, 1, 3])] == [1, 2, 1, 3] and free(axis) == [2, 3]
    assert product([]).size == product([Axis(1)]).size == 1
    unify(Axis(1), Axis(1))


def test_an_empty_axis_does_not_hide_the_others() -> None:
    batch, channels, positions = Axis(0, "input"), Axis(8), Axis(9, "image")
    found = view([batch, channels, positions], [0, 72])
    assert found[0] is batch and found[1].factors() == [channels, positions] and free(channels) == [8]
    assert [x.size for x in view([batch, channels], [0, 3])] == [0, 3]  # legal in torch, and tells nothing
    assert free(channels) == []
    assert [x.size for x in view([batch, channels], [0, 0])] == [0, 0]


def test_pieces() -> None:
    axis = Axis(10)
    a, b = cut(axis, [4, 6])
    c, d = cut(axis, [7, 3])
    assert [leaf.size for leaf in axis.leaves()] == free(axis) == [4, 3, 3]
    assert c.pieces() == [a.root, b.pieces()[0]] and d.root is b.pieces()[1]
    assert cut(axis, [10]) == [axis.root]
    assert concatenation([c, d]).pieces() == axis.pieces()
    assert concatenation([Axis(0), a]) is a.root


def test_a_leaf_becomes_what_it_is_unified_with() -> None:
    rows, units = Axis(3), Axis(4)
    leaf = Axis(12)
    unify(leaf, product([rows, units]))
    assert leaf.factors() == [rows, units] and free(leaf) == [3, 4]
    pieces = concatenation([Axis(5), Axis(7)])
    other = Axis(12, "input")
    unify(pieces, other)
    assert free(pieces) == [] and {leaf.frozen for leaf in pieces.leaves()} == {"input"}
    unify(rows, rows)
    assert free(rows) == [3]


def test_a_product_and_a_concatenation() -> None:
    """Twice the same units, one after the other, are two rows of them: then both pieces are the same units."""
    first, second = Axis(4), Axis(4)
    rows, units = Axis(2), Axis(4)
    unify(product([rows, units]), concatenation([first, second]))
    rows_unified(units)
    assert first.root is second.root is units.root and free(units) == [4]
    assert rows.root.frozen == "its positions are taken one by one"


def test_pieces_along_the_outer_factor() -> None:
    heads, units = Axis(6), Axis(4)
    a, b = cut(product([heads, units]), [8, 16])
    assert [x.size for x in a.factors()] == [2, 4] and [x.size for x in b.factors()] == [4, 4]
    assert a.factors()[1] is b.factors()[1] is units and free(heads) == [2, 4]
    torn = product([Axis(6), Axis(4)])
    assert [x.size for x in cut(torn, [3, 21])] == [3, 21] and free(torn) == [] and next(torn.leaves()).torn


def test_equal_pieces_viewed_as_rows_keep_units_of_their_own() -> None:
    pieces = [Axis(4), Axis(4), Axis(4)]
    rows, units = split(concatenation(pieces), [3, 4])
    assert rows.frozen == "rows of unlike pieces"
    assert [units.member(rows, row) for row in range(3)] == pieces and free(*pieces) == [4, 4, 4]


def test_pieces_of_the_same_grain_are_viewed_as_such() -> None:
    """Two blocks of heads joined along the flat axis, then seen as heads × units."""
    a, b = Axis(8), Axis(12)
    heads, units = split(concatenation([a, b]), [5, 4])
    assert [x.size for x in heads.pieces()] == [2, 3] and units.size == 4
    assert a.factors()[1].root is b.factors()[1].root is units.root and free(a, b) == [2, 4, 3]


def test_members_split_and_cut_with_their_axis() -> None:
    rows, units = split(Axis(12), [2, 6])
    first = units.member(rows, 0)
    assert first is units.member(rows, 0) and first is not units.member(rows, 1) and first.size == 6
    assert rows.member(Axis(5), 0) is rows  # not inside that one
    split(units, [2, 3])
    assert [x.size for x in first.factors()] == [2, 3]
    assert units.member(rows, 0).factors() == first.factors()
    rows, units = split(Axis(12), [2, 6])
    first = units.member(rows, 0)
    cut(units, [1, 5])
    assert [x.size for x in first.pieces()] == [1, 5]


def test_members_go_where_their_axis_goes() -> None:
    rows, units = split(Axis(12), [2, 6])
    first = units.member(rows, 0)
    other = Axis(6)
    unify(units, other)
    assert other.root.member(rows, 0).root is first.root and units.member(rows, 1).root is not first.root


def test_reasons() -> None:
    axis = Axis(12)
    a, b = split(axis, [3, 4])
    freeze(a, "first")
    freeze(axis, "second")
    assert (a.frozen, b.frozen) == ("first", "second")
    c, d = split(b, [2, 2])
    assert c.frozen == d.frozen == "second" and not c.torn


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (Axis(4), Axis(5)),
        (product([Axis(4), Axis(6)]), product([Axis(6), Axis(4)])),
        (product([Axis(3), Axis(2)]), concatenation([Axis(3), Axis(3)])),
    ],
    ids=["sizes", "products", "across"],
)
def test_what_cannot_be_one_is_frozen_on_both_sides(a: Axis, b: Axis) -> None:
    unify(a, b)
    assert free(a, b) == [] and all(leaf.torn for leaf in a.leaves())


def test_factors_that_change_while_they_are_unified() -> None:
    """The second of two equal factors has been split when its turn comes."""
    twice, parts = Axis(8), [Axis(2), Axis(4), Axis(2), Axis(4)]
    unify(product([twice, twice]), product(parts))
    assert parts[0].root is parts[2].root and parts[1].root is parts[3].root and free(twice) == [2, 4]


def test_pieces_that_change_while_they_are_unified() -> None:
    """An axis and the same axis turned round: position by position all become one cycle, so nothing is told apart."""
    a, b = cut(Axis(5), [2, 3])
    unify(concatenation([a, b]), concatenation([b, a]))
    assert [leaf.size for leaf in concatenation([a, b]).leaves()] == [1] * 5
