"""Permutations compose and invert as the moves do that they stand for."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import workbench as wb
from workbench.connectivity import Permutations
from workbench.connectivity.layout import parsed, permuted

UNITS = {"fc": 5, "h": 3, "h:qk": 4}
WITHIN = {"h:qk": "h"}
LAYOUT = [parsed("h*h:qk", UNITS), parsed("fc", UNITS)]


def drawn(seed: int, groups: tuple[str, ...] = ("fc", "h", "h:qk")) -> Permutations:
    draws = torch.Generator().manual_seed(seed)
    orders = {}
    for group in groups:
        rows = [torch.randperm(UNITS[group], generator=draws) for _ in range(3 if group in WITHIN else 1)]
        orders[group] = torch.stack(rows) if group in WITHIN else rows[0]
    return Permutations(orders, WITHIN)


def moved(tensor: Tensor, permutations: Permutations) -> Tensor:
    return permuted(tensor, LAYOUT, permutations, permutations.within)


GROUPS = [("fc", "h", "h:qk"), ("fc",), ("h",), ("fc", "h:qk")]


@pytest.mark.parametrize("groups", GROUPS, ids=", ".join)
@given(a=st.integers(0, 10**6), b=st.integers(0, 10**6))
def test_composition_and_inverse(groups: tuple[str, ...], a: int, b: int) -> None:
    first, second = drawn(a, groups), drawn(b, groups)
    tensor = torch.arange(60).reshape(12, 5)
    assert torch.equal(moved(tensor, second @ first), moved(moved(tensor, first), second))
    assert torch.equal(moved(moved(tensor, first), first.inverse()), tensor)
    assert (first @ first.inverse()).is_identity and (first.inverse() @ first).is_identity
    third = drawn(a + b + 1, groups)
    left, right = (third @ second) @ first, third @ (second @ first)
    assert all(torch.equal(left[group], right[group]) for group in groups)


def test_by_hand() -> None:
    swap = Permutations({"fc": torch.tensor([2, 0, 1])})
    assert (swap @ swap)["fc"].tolist() == [1, 2, 0] == swap.inverse()["fc"].tolist()
    assert swap.moved == 3 and not swap.is_identity
    assert repr(swap) == "Permutations of 1 group: 3 of 3 units move"
    nested = Permutations(
        {"h": torch.tensor([1, 0]), "qk": torch.tensor([[0, 1, 2], [1, 2, 0]], dtype=torch.int32)}, {"qk": "h"}
    )
    back = nested.inverse()
    assert back["h"].tolist() == [1, 0] and back["qk"].tolist() == [[2, 0, 1], [0, 1, 2]]
    assert nested["qk"].dtype == torch.int64 and nested.moved == 5


def test_a_mapping() -> None:
    permutations = drawn(0)
    assert list(permutations) == ["fc", "h", "h:qk"] and len(permutations) == 3
    assert "fc" in permutations and "gone" not in permutations and permutations.get("gone") is None
    with pytest.raises(wb.LayerNotFoundError, match=r"there is no group 'fd'.*'fc'"):
        permutations["fd"]
    assert Permutations({}).is_identity and Permutations({}).moved == 0
    assert Permutations({"none": torch.zeros(0, dtype=torch.int64)}).is_identity


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (torch.tensor([0, 0, 2]), "'fc' is no permutation: a unit is missing or comes twice"),
        (torch.tensor([1, 2, 3]), "no permutation"),
        (torch.tensor([0.0, 1.0]), r"\[2\] of torch.float32: expected a vector of integers"),
        (torch.tensor([[0, 1]]), r"\[1, 2\] of torch.int64"),
    ],
)
def test_orders_that_are_none(order: Tensor, message: str) -> None:
    with pytest.raises((wb.ArgumentError, TypeError)) as raised:
        Permutations({"fc": order})
    if isinstance(raised.value, wb.ArgumentError):  # the run-time type checks of the tests may be first
        assert raised.match(message)


def test_copies() -> None:
    one = drawn(0)
    for other in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
        assert all(torch.equal(other[group], one[group]) for group in one) and other.within == one.within


def test_plain_orders_are_checked_before_they_are_applied(unchecked: Callable[..., Any]) -> None:
    told = unchecked(APPLIED)
    assert told[0] == "the order of '0' is no permutation: a unit is missing or comes twice."
    assert told[1] == "the order of '0' is list: expected a vector of integers."
    assert told[2].startswith("permutations is Tensor: expected those of the groups")
    assert told[3] == "permutations have 'fc', which is no group here."


APPLIED = """
import json, torch
import workbench as wb
net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
groups = wb.permutation_groups(net, torch.zeros(1, 2))
told = []
for orders in ({"0": torch.zeros(3, dtype=torch.int64)}, {"0": [0, 1, 2]}, torch.arange(3), {"fc": torch.arange(3)}):
    try:
        groups.apply(net, orders)
    except wb.ArgumentError as error:
        told.append(str(error))
print(json.dumps(told))
"""


def test_other_groups() -> None:
    with pytest.raises(wb.ArgumentError, match="of different groups: take both from one PermutationGroups"):
        drawn(0) @ drawn(1, ("fc",))
