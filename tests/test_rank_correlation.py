"""Rank correlations within strata: scipy's numbers, all orders by hand, planted laws, and how often noise is taken."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, rankdata, spearmanr

from workbench.atlas.rank_correlation import (
    centred_ranks,
    cosine,
    holm,
    interval,
    kendall,
    layers_needed,
    mid_ranks,
    orders_of,
    orthonormal,
    permutation_p,
    residuals,
)

NUMBERS = st.lists(st.integers(-4, 4), min_size=3, max_size=14)


def one_stratum(count: int) -> np.ndarray:
    return np.zeros(count, dtype=np.int64)


@given(NUMBERS)
def test_ranks_are_scipys(values: list[int]) -> None:
    assert mid_ranks(np.array(values, dtype=float)).tolist() == rankdata(values).tolist()


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=14))
def test_rho_and_tau_are_scipys_also_with_ties(pairs: list[tuple[int, int]]) -> None:
    x, y = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    strata = one_stratum(len(x))
    a, b = centred_ranks(x, strata), centred_ranks(y, strata)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(cosine(a, b)) and math.isnan(kendall(a, b, strata))
        return
    assert cosine(a, b) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert kendall(a, b, strata) == pytest.approx(kendalltau(x, y).statistic, abs=1e-12)


def test_infinities_are_the_largest_ranks() -> None:
    assert mid_ranks(np.array([np.inf, -1.0, -np.inf, np.inf])).tolist() == [3.5, 2.0, 1.0, 3.5]


@pytest.mark.parametrize("sizes", [(5,), (3, 3), (2, 4)])
def test_p_is_the_share_of_all_orders_within_strata(sizes: tuple[int, ...]) -> None:
    random = np.random.default_rng(sum(sizes))
    strata = np.repeat(np.arange(len(sizes)), sizes)
    x, y = (centred_ranks(random.normal(size=len(strata)), strata) for _ in range(2))
    orders = [()]
    for number in range(len(sizes)):
        own = np.flatnonzero(strata == number).tolist()
        orders = [(*head, *tail) for head in orders for tail in permutations(own)]
    null = np.array([abs(cosine(x, y[list(order)])) for order in orders])
    p, least = permutation_p(x, y, np.zeros((len(x), 0)), strata, draws=99, seed=0, name="a ~ b")
    assert p == pytest.approx((null >= abs(cosine(x, y)) - 1e-9).mean(), abs=1e-12)
    assert least == pytest.approx((null >= null.max() - 1e-9).mean(), abs=1e-12)


def test_drawn_p_is_near_the_exact_one_and_depends_on_seed_and_name_alone() -> None:
    random = np.random.default_rng(0)
    strata = one_stratum(9)
    x, y = (centred_ranks(random.normal(size=9), strata) for _ in range(2))
    none = np.zeros((9, 0))
    p = permutation_p(x, y, none, strata, draws=9999, seed=0, name="a ~ b")[0]
    assert p == pytest.approx(spearmanr(x, y).pvalue, abs=0.03)
    assert p == permutation_p(x, y, none, strata, draws=9999, seed=0, name="a ~ b")[0]
    assert p != permutation_p(x, y, none, strata, draws=9999, seed=1, name="a ~ b")[0]
    assert p != permutation_p(x, y, none, strata, draws=9999, seed=0, name="a ~ c")[0]


def test_drawn_orders_stay_in_their_strata() -> None:
    (orders,) = orders_of((9, 3), 50, 0, "a ~ b")
    assert orders.shape == (50, 12)
    assert (np.sort(orders[:, :9]) == np.arange(9)).all() and (np.sort(orders[:, 9:]) == np.arange(9, 12)).all()


@pytest.mark.parametrize("controlled", [False, True])
def test_noise_is_called_a_correlation_as_often_as_the_level_says(controlled: bool) -> None:
    """600 pairs of noise over 7 layers; with a control that drives neither: 5 % have p ≤ 0.05, three errors allowed."""
    random = np.random.default_rng(1)
    strata, hits, runs = one_stratum(7), 0, 600
    for run in range(runs):
        x, y, z = (centred_ranks(random.normal(size=7), strata) for _ in range(3))
        basis = orthonormal([z] if controlled else [], 7)
        found = permutation_p(residuals(x, basis), residuals(y, basis), basis, strata, draws=99, seed=0, name=str(run))
        hits += found[0] <= 0.05
    assert hits / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert hits / runs >= 0.02


def test_a_common_cause_is_a_correlation_until_it_is_held_fixed() -> None:
    """Depth drives both columns: ρ is large, and the rest is tested as noise, in 100 draws."""
    random, strata = np.random.default_rng(2), one_stratum(20)
    depth = centred_ranks(np.arange(20.0), strata)
    raw, partial = [], []
    for run in range(100):
        x, y = (centred_ranks(np.arange(20) + random.normal(scale=4, size=20), strata) for _ in range(2))
        basis = orthonormal([depth], 20)
        none = np.zeros((20, 0))
        raw.append(permutation_p(x, y, none, strata, draws=199, seed=0, name=f"{run}")[0] <= 0.05)
        left = residuals(x, basis), residuals(y, basis)
        partial.append(permutation_p(*left, basis, strata, draws=199, seed=0, name=f"{run}")[0] <= 0.05)
    assert np.mean(raw) > 0.9 and np.mean(partial) < 0.15


def test_nothing_is_left_of_what_the_controls_give() -> None:
    depth = centred_ranks(np.arange(6.0), one_stratum(6))
    assert not residuals(-depth, orthonormal([depth], 6)).any()
    assert orthonormal([depth, 2 * depth], 6).shape == (6, 1)


def test_strata_are_not_compared_with_each_other() -> None:
    """Two architectures at different levels: falling inside of each, and rising between them."""
    x, y = np.array([1.0, 2, 3, 11, 12, 13]), np.array([3.0, 2, 1, 13, 12, 11])
    strata = np.array([0, 0, 0, 1, 1, 1])
    assert spearmanr(x, y).statistic > 0.3
    assert cosine(centred_ranks(x, strata), centred_ranks(y, strata)) == pytest.approx(-1)
    assert kendall(x, y, strata) == pytest.approx(-1)


def test_the_interval_holds_the_true_value_as_often_as_it_says() -> None:
    """Normal pairs with r = 0.6, whose ρ is 6/π·asin(r/2) = 0.5825; 1000 samples of 30."""
    random, strata, inside = np.random.default_rng(3), one_stratum(30), 0
    true = 6 / math.pi * math.asin(0.3)
    for _ in range(1000):
        x, y = random.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=30).T
        low, high = interval(cosine(centred_ranks(x, strata), centred_ranks(y, strata)), 27)
        inside += low <= true <= high
    assert 0.93 <= inside / 1000 <= 0.97


def test_the_interval_by_hand() -> None:
    low, high = interval(0.5, 27)
    width = 1.959964 * math.sqrt(1.125 / 27)
    assert (low, high) == pytest.approx((math.tanh(math.atanh(0.5) - width), math.tanh(math.atanh(0.5) + width)))
    assert interval(1.0, 2)[0] < 0.9 and interval(1.0, 2)[1] == 1.0
    assert interval(-1.0, 2)[0] == -1.0
    assert all(map(math.isnan, interval(0.5, 0)))


def test_layers_needed_find_it_four_times_in_five() -> None:
    """Normal pairs whose ρ is 0.5 over as many layers as are said to be needed."""
    random, count = np.random.default_rng(4), int(layers_needed(0.5, 0.05))
    true = 2 * math.sin(math.pi / 6 * 0.5)
    found = [
        spearmanr(*random.multivariate_normal([0, 0], [[1, true], [true, 1]], size=count).T).pvalue <= 0.05
        for _ in range(1000)
    ]
    assert count == 33 and np.mean(found) == pytest.approx(0.8, abs=0.05)
    assert layers_needed(1.0, 0.05) == 5.0, "2/5! is the first below 0.05"
    assert math.isinf(layers_needed(0.0, 0.05)) and math.isnan(layers_needed(math.nan, 0.05))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_the_definition(values: list[float]) -> None:
    """At every level the pairs that are found are those of the step-down procedure."""
    corrected = holm(values)
    for level in (0.01, 0.05, 0.3):
        rejected, places = set(), sorted(range(len(values)), key=values.__getitem__)
        for rank, place in enumerate(places):
            if (len(values) - rank) * values[place] > level:
                break
            rejected.add(place)
        assert {place for place, p in enumerate(corrected) if p <= level} == rejected


def test_what_is_no_test_is_not_corrected_for() -> None:
    assert holm([math.nan, 0.02])[1] == 0.02 and math.isnan(holm([math.nan])[0])


@settings(max_examples=30)
@given(st.lists(st.floats(-5, 5), min_size=4, max_size=7, unique=True), st.randoms())
def test_monotone_transforms_change_nothing(values: list[float], random: object) -> None:
    x = np.array(values)
    y = x[::-1].copy()
    strata, none = one_stratum(len(x)), np.zeros((len(x), 0))
    ways = [(x, y), (np.exp(x), 3 * y + 1)]
    if len(set(np.exp(x))) < len(x):
        return
    ranks = [(centred_ranks(a, strata), centred_ranks(b, strata)) for a, b in ways]
    found = [(cosine(a, b), permutation_p(a, b, none, strata, draws=99, seed=0, name="p")) for a, b in ranks]
    assert found[0] == found[1]
