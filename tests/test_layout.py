"""What axes are made of, as text, as blocks, and moved: against a loop over elements."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.connectivity.layout import (
    Concatenation,
    Leaf,
    Node,
    Product,
    groups_of,
    iter_blocks,
    parsed,
    permuted,
)

UNITS = {"fc": 3, "h": 2, "h:qk": 3, "h:v": 2}
WITHIN = {"h:qk": "h", "h:v": "h"}
leaf = st.one_of(
    st.builds(Leaf, st.integers(1, 4)), st.sampled_from([Leaf(size, group) for group, size in UNITS.items()])
)


def nodes(depth: int) -> st.SearchStrategy[Node]:
    """Products of leaves and concatenations, concatenations of leaves and products."""
    if depth == 0:
        return leaf
    inner = nodes(depth - 1)
    factor = inner.filter(lambda node: not isinstance(node, Product))
    piece = inner.filter(lambda node: not isinstance(node, Concatenation))
    return st.one_of(
        leaf,
        st.lists(factor, min_size=2, max_size=3).map(lambda parts: Product(tuple(parts))),
        st.lists(piece, min_size=2, max_size=3).map(lambda parts: Concatenation(tuple(parts))),
    )


# the checks of types draw which items of a tuple they look at
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
@given(node=nodes(3))
def test_text_and_back(node: Node) -> None:
    again = parsed(str(node), UNITS)
    assert again == node and again.size == node.size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ends too early"),
        ("h*", "ends too early"),
        ("(h+fc", "a bracket is not closed"),
        ("h)", r"'\)' is one too many"),
        ("h+gone", "'gone' is no group"),
        ("#x", "'#x' is no group"),
    ],
)
def test_texts_that_are_no_axis(text: str, message: str) -> None:
    with pytest.raises(wb.ArgumentError, match=message):
        parsed(text, UNITS)


def leaves_at(node: Node, position: int) -> list[tuple[Leaf, int]]:
    """Where a position is on each leaf that it goes through."""
    if isinstance(node, Leaf):
        return [(node, position)]
    if isinstance(node, Product):
        found: list[tuple[Leaf, int]] = []
        for part in reversed(node.parts):
            position, inner = divmod(position, part.size)
            found = leaves_at(part, inner) + found
        return found
    for part in node.parts:
        if position < part.size:
            return leaves_at(part, position)
        position -= part.size
    raise IndexError


def source(node: Node, position: int, orders: dict[str, np.ndarray], at: dict[str, int]) -> int:
    """Where the unit comes from that is at this position afterwards."""
    if isinstance(node, Product):
        sizes = [part.size for part in node.parts]
        places = np.unravel_index(position, sizes)
        moved = [source(part, int(place), orders, at) for part, place in zip(node.parts, places, strict=True)]
        return int(np.ravel_multi_index(moved, sizes))
    if isinstance(node, Concatenation):
        start = 0
        for part in node.parts:
            if position < start + part.size:
                return start + source(part, position - start, orders, at)
            start += part.size
    assert isinstance(node, Leaf)
    if node.group not in orders:
        return position
    order = orders[node.group]
    return int(order[at[WITHIN[node.group]], position] if node.group in WITHIN else order[position])


def slow(tensor: np.ndarray, layout: list[Node], orders: dict[str, np.ndarray]) -> np.ndarray:
    found = np.empty_like(tensor)
    for index in np.ndindex(*tensor.shape):
        at = {}
        for node, position in zip(layout, index, strict=True):
            at |= {leaf.group: place for leaf, place in leaves_at(node, position) if leaf.group}
        found[index] = tensor[tuple(source(n, i, orders, at) for n, i in zip(layout, index, strict=True))]
    return found


LAYOUTS = [
    ["fc"],
    ["fc", "fc"],
    ["fc*#2", "#2+fc"],
    ["h*h:qk", "fc"],
    ["h:qk", "h"],  # the outer group on a later axis
    ["h", "#2", "h:v*#2"],
    ["h*h:qk+h*h:qk+h*h:v"],
    ["h*(h:qk+h:qk+h:v)", "fc+#1"],
    ["h*#2*h:v*#2"],
    ["h*h:qk", "#2*(fc+#1)+#3"],
    [],
    ["#0"],
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("texts", LAYOUTS, ids=", ".join)
def test_permuted(texts: list[str], seed: int) -> None:
    layout = [parsed(text, UNITS) for text in texts]
    draws = np.random.default_rng(seed)
    orders = {
        group: np.stack([draws.permutation(size) for _ in range(2)]) if group in WITHIN else draws.permutation(size)
        for group, size in UNITS.items()
    }
    tensor = torch.arange(int(np.prod([node.size for node in layout]))).reshape([node.size for node in layout])
    moved = permuted(tensor, layout, {group: torch.tensor(order) for group, order in orders.items()}, WITHIN)
    assert np.array_equal(moved.numpy(), slow(tensor.numpy(), layout, orders))
    some = {group: order for group, order in orders.items() if group != "h"}  # groups that are lacking stay
    moved = permuted(tensor, layout, {group: torch.tensor(order) for group, order in some.items()}, WITHIN)
    assert np.array_equal(moved.numpy(), slow(tensor.numpy(), layout, some))
    assert permuted(tensor, layout, {}, WITHIN) is tensor


@pytest.mark.parametrize("texts", LAYOUTS, ids=", ".join)
def test_blocks(texts: list[str]) -> None:
    """Every element is in one block, each dimension of which is one leaf; groups in the order of the axes."""
    layout = [parsed(text, UNITS) for text in texts]
    shape = [node.size for node in layout]
    tensor = torch.arange(int(np.prod(shape))).reshape(shape)
    blocks = list(iter_blocks(tensor, layout))
    assert sorted(x for block in blocks for x in block.tensor.flatten().tolist()) == tensor.flatten().tolist()
    for block in blocks:
        assert block.tensor.ndim == len(block.groups)
        for size, group in zip(block.tensor.shape, block.groups, strict=True):
            assert group is None or size == UNITS[group]
    first = [leaf.group for leaf in first_leaves(layout)]
    assert list(blocks[0].groups) == first


def first_leaves(layout: list[Node]) -> Iterator[Leaf]:
    for node in layout:
        if isinstance(node, Leaf):
            yield node
        else:
            yield from first_leaves(list(node.parts) if isinstance(node, Product) else [node.parts[0]])


def test_a_block_by_hand() -> None:
    layout = [parsed("h*(h:qk+h:v)", UNITS)]
    a, b = iter_blocks(torch.arange(10), layout)
    assert a.tensor.tolist() == [[0, 1, 2], [5, 6, 7]] and a.groups == ("h", "h:qk")
    assert b.tensor.tolist() == [[3, 4], [8, 9]] and b.groups == ("h", "h:v")
    assert list(groups_of(layout)) == ["h", "h:qk", "h:v"]
