"""Assignment, plain and nested: every permutation is tried."""

import itertools
from collections.abc import Mapping
from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import workbench as wb
from workbench.connectivity.layout import parsed
from workbench.connectivity.nested_assignment import Gains, Orders, solved
from workbench.connectivity.structure import Structure
from workbench.connectivity.weight_matching import Descent, WeightMatching
from workbench.linalg.assignment import assignment, entropic_prices

CPU = torch.device("cpu")


@given(st.integers(1, 6), st.integers(0, 2**32), st.sampled_from(["normal", "ties", "constant", "large"]))
def test_the_assignment_is_the_best_of_all_permutations(size: int, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    gain = {
        "normal": lambda: rng.normal(size=(size, size)),
        "ties": lambda: rng.integers(0, 2, (size, size)).astype(float),
        "constant": lambda: np.ones((size, size)),
        "large": lambda: 1e150 * rng.normal(size=(size, size)),
    }[kind]()
    found = assignment(gain)
    assert sorted(found) == list(range(size))
    assert found.dtype == np.int64
    best = max(sum(gain[i, order[i]] for i in range(size)) for order in permutations(range(size)))
    assert sum(gain[i, found[i]] for i in range(size)) == pytest.approx(best, rel=1e-14)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_a_gain_that_is_not_finite_is_refused(wrong: float) -> None:
    with pytest.raises(wb.WorkbenchError, match="a gain is NaN or infinite"):
        assignment(np.array([[1.0, wrong], [0.0, 1.0]]))


def structure(sizes: Mapping[str, int], within: Mapping[str, str], free: str, tensors: Mapping[str, str]) -> Structure:
    """Groups and tensors written out: `q="h*qk,#4"`."""
    return Structure(
        sizes=sizes,
        within=within,
        free=tuple(free.split()),
        layouts={name: tuple(parsed(axis, sizes) for axis in text.split(",")) for name, text in tensors.items()},
        tied={},
        buffers=frozenset(),
    )


def drawn(layout: Structure, seed: int) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)
    return {
        name: torch.from_numpy(rng.normal(size=[node.size for node in nodes])) for name, nodes in layout.layouts.items()
    }


def matched(layout: Structure, a: Mapping[str, Tensor], b: Mapping[str, Tensor], start: Orders) -> Descent:
    state = Descent(orders=dict(start))
    WeightMatching(layout, a.__getitem__, b.__getitem__, CPU).run(state, settle=False)
    return state


def all_rows(rows: int, units: int) -> list[np.ndarray]:
    """Every choice of an order of the units for each row."""
    return [np.array(orders) for orders in product(permutations(range(units)), repeat=rows)]


def heads(sizes: Mapping[str, int], free: str) -> Structure:
    tensors = {"q": "h*qk,#4", "k": "h*qk,#4", "bq": "h*qk", "v": "h*v,#4", "o": "#3,h*v", "s": "h"}
    return structure(sizes, {"qk": "h", "v": "h"}, free, tensors)


def head_value(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], outer: np.ndarray, qk: np.ndarray, v: np.ndarray
) -> float:
    """Σ⟨A, π(B)⟩ head by head and unit by unit."""
    count, width = qk.shape[0], {"qk": qk.shape[1], "v": v.shape[1]}
    total = 0.0
    for i in range(count):
        j = outer[i]
        total += float(a["s"][i] * b["s"][j])
        for group, order in (("qk", qk), ("v", v)):
            for unit in range(width[group]):
                mine, yours = i * width[group] + unit, j * width[group] + order[i, unit]
                for name in ("q", "k", "bq") if group == "qk" else ("v",):
                    total += float((a[name][mine] * b[name][yours]).sum())
                if group == "v":
                    total += float((a["o"][:, mine] * b["o"][:, yours]).sum())
    return total


@pytest.mark.parametrize(("count", "qk", "v"), [(2, 3, 3), (2, 2, 3), (3, 2, 2), (1, 3, 2), (3, 1, 2)])
@pytest.mark.parametrize("free", ["h qk v", "qk v"])
def test_heads_and_their_units_are_the_best_of_all_orders(count: int, qk: int, v: int, free: str) -> None:
    """heads!·(qk!·v!)^heads combinations: the two inner groups share no tensor, so each is searched by itself."""
    layout = heads({"h": count, "qk": qk, "v": v}, free)
    for seed in range(3):
        a, b = drawn(layout, seed), drawn(layout, seed + 100)
        outers = (
            [np.array(order) for order in permutations(range(count))] if "h" in free.split() else [np.arange(count)]
        )
        none = np.zeros((count, 0), int)
        best = max(
            max(head_value(a, b, outer, rows, none) for rows in all_rows(count, qk))
            + max(head_value(a, b, outer, none, rows) for rows in all_rows(count, v))
            - head_value(a, b, outer, none, none)
            for outer in outers
        )
        found = matched(layout, a, b, layout.identity())
        orders = {group: order.numpy() for group, order in found.orders.items()}
        outer = orders.get("h", np.arange(count))
        assert ("h" in orders) == ("h" in free.split())
        assert head_value(a, b, outer, orders["qk"], orders["v"]) == pytest.approx(best, rel=1e-12)
        assert found.objective == pytest.approx(best, rel=1e-12)


def queries(sizes: Mapping[str, int], free: str = "h r qk v") -> Structure:
    """Grouped queries: `r` queries share a head's key and value; o reads queries × values."""
    tensors = {"q": "h*r*qk,#5", "bq": "h*r*qk", "k": "h*qk,#5", "v": "h*v,#5", "o": "#4,h*r*v"}
    return structure(sizes, {"r": "h", "qk": "h", "v": "h"}, free, tensors)


def query_value(
    sizes: Mapping[str, int], a: Mapping[str, Tensor], b: Mapping[str, Tensor], orders: Mapping[str, np.ndarray]
) -> float:
    """Σ⟨A, π(B)⟩ by numpy's indexing of the folded tensors."""
    h, r, qk, v = (sizes[name] for name in ("h", "r", "qk", "v"))
    i = orders.get("h", np.arange(h))[:, None, None]
    rows, queries_, values = (orders[name] for name in ("r", "qk", "v"))
    total = 0.0
    for name in ("q", "bq"):
        mine, yours = (x[name].numpy().reshape(h, r, qk, -1) for x in (a, b))
        total += (mine * yours[i, rows[:, :, None], queries_[:, None, :]]).sum()
    for name, order, units in (("k", queries_, qk), ("v", values, v)):
        mine, yours = (x[name].numpy().reshape(h, units, -1) for x in (a, b))
        total += (mine * yours[i[:, :, 0], order]).sum()
    mine, yours = (x["o"].numpy().T.reshape(h, r, v, -1) for x in (a, b))
    return float(total + (mine * yours[i, rows[:, :, None], values[:, None, :]]).sum())


SMALL = {"h": 2, "r": 2, "qk": 3, "v": 2}


def every(sizes: Mapping[str, int]) -> list[dict[str, np.ndarray]]:
    outers = [np.array(order) for order in permutations(range(sizes["h"]))]
    rows = [all_rows(sizes["h"], sizes[name]) for name in ("r", "qk", "v")]
    return [dict(zip(("h", "r", "qk", "v"), chosen, strict=True)) for chosen in product(outers, *rows)]


@pytest.mark.parametrize("seed", range(4))
def test_queries_that_share_the_output_are_best_one_by_one_and_never_worse_than_they_were(seed: int) -> None:
    layout = queries(SMALL)
    a, b = drawn(layout, seed), drawn(layout, seed + 50)
    values = [query_value(SMALL, a, b, orders) for orders in every(SMALL)]
    candidates = every(SMALL)
    rng = np.random.default_rng(seed)
    for chosen in rng.choice(len(candidates), 3, replace=False):
        start = {name: torch.from_numpy(order) for name, order in candidates[chosen].items()}
        state = matched(layout, a, b, start)
        found = {name: order.numpy() for name, order in state.orders.items()}
        value = query_value(SMALL, a, b, found)
        assert state.objective == pytest.approx(value, rel=1e-12)
        assert values[chosen] - 1e-9 <= value <= max(values) + 1e-9
        for group in ("r", "qk", "v"):  # no other order of one group alone is better
            for other in all_rows(2, SMALL[group]):
                assert query_value(SMALL, a, b, found | {group: other}) <= value + 1e-9


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
def test_planted_orders_of_grouped_queries_are_found_again(noise: float) -> None:
    sizes = {"h": 3, "r": 4, "qk": 6, "v": 5}
    layout = queries(sizes)
    a = drawn(layout, 0)
    rng = np.random.default_rng(1)
    planted = {"h": rng.permutation(3)} | {
        name: np.array([rng.permutation(sizes[name]) for _ in range(3)]) for name in ("r", "qk", "v")
    }
    b = shuffled_queries(sizes, a, planted)
    b = {name: tensor + noise * torch.from_numpy(rng.normal(size=tensor.shape)) for name, tensor in b.items()}
    back = inverse_queries(planted)
    found = matched(layout, a, b, layout.identity())
    assert found.objective >= query_value(sizes, a, b, back) - 1e-9


def shuffled_queries(
    sizes: Mapping[str, int], a: Mapping[str, Tensor], orders: Mapping[str, np.ndarray]
) -> dict[str, Tensor]:
    h, r, qk, v = (sizes[name] for name in ("h", "r", "qk", "v"))
    i = orders["h"][:, None, None]
    rows, queries_, values = (orders[name] for name in ("r", "qk", "v"))
    q, bq = (a[name].numpy().reshape(h, r, qk, -1)[i, rows[:, :, None], queries_[:, None, :]] for name in ("q", "bq"))
    k = a["k"].numpy().reshape(h, qk, -1)[i[:, :, 0], queries_]
    value = a["v"].numpy().reshape(h, v, -1)[i[:, :, 0], values]
    o = a["o"].numpy().T.reshape(h, r, v, -1)[i, rows[:, :, None], values[:, None, :]]
    parts = {"q": q.reshape(h * r * qk, -1), "bq": bq.reshape(-1), "k": k.reshape(h * qk, -1)}
    parts |= {"v": value.reshape(h * v, -1), "o": o.reshape(h * r * v, -1).T}
    return {name: torch.from_numpy(array.copy()) for name, array in parts.items()}


def inverse_queries(orders: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    back = np.argsort(orders["h"])
    return {"h": back} | {name: np.argsort(orders[name], axis=1)[back] for name in ("r", "qk", "v")}


def test_blocks_of_several_inner_groups_are_worth_what_their_inner_products_say() -> None:
    """Weights keep the blocks, activations their products: two ways to the same orders."""
    sizes = {"h": 2, "r": 3, "v": 4}
    layout = structure(sizes, {"r": "h", "v": "h"}, "h r v", {"o": "h*r*v,#6"})
    a, b = (torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 3, 4, 6))) for seed in (0, 1))
    start = layout.identity()
    found = []
    for summed in (False, True):
        gains = Gains("h", ["r", "v"], sizes, summed=summed)
        gains.add(a, b, ("h", "r", "v", None), start)
        assert bool(gains.blocks) is not summed
        found.append(solved(gains, start, layout))
    assert found[0].gain == pytest.approx(found[1].gain, rel=1e-12)
    assert all(torch.equal(found[0].orders[name], found[1].orders[name]) for name in sizes)


def test_blocks_outlive_the_loan_of_a_tensor() -> None:
    """A tensor that is read from a file is on loan until the next is read."""
    sizes = {"h": 2, "r": 3, "v": 4}
    layout = structure(sizes, {"r": "h", "v": "h"}, "h r v", {"o": "h*r*v,#6"})
    a, b = (torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 3, 4, 6))) for seed in (0, 1))
    kept, lent = Gains("h", ["r", "v"], sizes), Gains("h", ["r", "v"], sizes)
    kept.add(a, b, ("h", "r", "v", None), {})
    borrowed = a.clone(), b.clone()
    lent.add(*borrowed, ("h", "r", "v", None), {})
    for tensor in borrowed:
        tensor.fill_(float("nan"))
    start = layout.identity()
    assert solved(lent, start, layout).gain == solved(kept, start, layout).gain


def test_the_memory_of_grouped_convolutions_in_a_row_is_that_of_their_tensors() -> None:
    """Two groups of 96·96: inner products of all units would take (2·96·96)² numbers, 2.7 GB."""
    sizes = {"h": 2, "i": 96, "o": 96}
    layout = structure(sizes, {"i": "h", "o": "h"}, "h i o", {"w": "h*o,i,#3", "b": "h*o", "before": "h*i,#2"})
    a = {name: tensor.float() for name, tensor in drawn(layout, 0).items()}
    state = matched(layout, a, a, layout.identity())
    assert all(
        torch.equal(order, start)
        for order, start in zip(state.orders.values(), layout.identity().values(), strict=True)
    )


QUADRATIC = {"w": "h,h", "b": "h", "x": "h,#2"}


def quadratic_value(a: Mapping[str, Tensor], b: Mapping[str, Tensor], order: list[int]) -> float:
    return float(sum((a[name] * (b[name][order][:, order] if name == "w" else b[name][order])).sum() for name in a))


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_a_group_on_both_axes_never_falls_and_is_never_above_the_best(size: int) -> None:
    layout = structure({"h": size}, {}, "h", QUADRATIC)
    for seed in range(6):
        a, b = drawn(layout, seed), drawn(layout, seed + 60)
        values = {order: quadratic_value(a, b, list(order)) for order in permutations(range(size))}
        for start in list(values)[:: max(1, len(values) // 4)]:
            state = matched(layout, a, b, {"h": torch.tensor(start)})
            objectives = [row["objective"] for row in state.history]
            assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(objectives))  # sums of gains
            assert objectives[0] == pytest.approx(values[start], abs=1e-9)
            assert state.objective == pytest.approx(values[tuple(state.orders["h"].tolist())], abs=1e-9)
            assert state.objective <= max(values.values()) + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_two_units_that_were_exchanged_on_both_axes_are_put_back(seed: int) -> None:
    layout = structure({"h": 8}, {}, "h", {"w": "h,h"})
    a = drawn(layout, seed)
    planted = torch.from_numpy(np.random.default_rng(seed).permutation(8))
    b = {"w": a["w"][planted][:, planted]}
    start = planted.argsort()
    start[[0, 5]] = start[[5, 0]]
    state = matched(layout, a, b, {"h": start})
    assert torch.equal(b["w"][state.orders["h"]][:, state.orders["h"]], a["w"])


KINDS = ["normal", "ties", "constant", "zero", "dead", "duplicates", "planted", "offset", "large", "tiny"]


def gains_of(kind: str, size: int, seed: int) -> np.ndarray:
    """Gains as two networks give them, and as badly as they come."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, size, 20))
    if kind == "dead":  # units without weights in both, as many or not
        a[rng.permutation(size)[: size // 3]], b[rng.permutation(size)[: size // 2]] = 0, 0
    if kind == "duplicates":
        a, b = a[rng.integers(0, size // 4 + 1, size)], b[rng.integers(0, size // 4 + 1, size)]
    if kind == "planted":
        b = a[rng.permutation(size)] + 0.1 * b
    gain = {"ties": lambda: rng.integers(0, 3, (size, size)).astype(float), "constant": lambda: np.ones((size, size))}
    made = gain.get(kind, lambda: a @ b.T)()
    return made * {"zero": 0.0, "large": 1e150, "tiny": 1e-200}.get(kind, 1.0) + (1e3 if kind == "offset" else 0.0)


def total(gain: np.ndarray, order: np.ndarray) -> float:
    assert sorted(order) == list(range(len(gain)))
    return float(gain[np.arange(len(gain)), order].sum())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 60, 127, 128, 200])
def test_prices_change_no_solution(size: int, kind: str) -> None:
    """Every permutation pays each price once; scipy's solver without prices is the oracle."""
    for seed in range(3):
        gain = gains_of(kind, size, seed)
        best = total(gain, linear_sum_assignment(gain, maximize=True)[1])
        spread = float(np.std(gain))
        near = entropic_prices(gain)
        again = entropic_prices(gain + 0.01 * spread * np.random.default_rng(seed).normal(size=gain.shape), near)
        drawn_prices = spread * np.random.default_rng(seed + 9).normal(size=size)
        for prices in (None, near, again, drawn_prices):
            assert prices is None or np.isfinite(prices).all()
            assert total(gain, assignment(gain, prices)) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("kind", ["normal", "dead", "duplicates", "planted", "offset"])
def test_entropic_prices_are_near_the_dual_solution_and_nearer_from_prices(kind: str) -> None:
    """Σ price + Σ max (gain − price) is no less than the best total, whatever the prices, and equals it at the end."""
    gain = gains_of(kind, 200, 0)
    best = total(gain, linear_sum_assignment(gain, maximize=True)[1])

    def gap(prices: np.ndarray) -> float:
        return float(prices.sum() + (gain - prices).max(1).sum()) - best

    near = entropic_prices(gain)
    nearer = entropic_prices(gain, near)
    assert gap(np.zeros(200)) > 0
    assert -1e-9 <= gap(near) < 0.1 * gap(np.zeros(200))
    assert -1e-9 <= gap(nearer) < 0.8 * gap(near) + 1e-9


@pytest.mark.parametrize("kind", ["constant", "zero", "large"])
def test_gains_that_no_kernel_holds_have_no_prices(kind: str) -> None:
    np.testing.assert_array_equal(entropic_prices(gains_of(kind, 200, 0)), np.zeros(200))
