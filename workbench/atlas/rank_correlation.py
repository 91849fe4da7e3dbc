"""Spearman's ρ and Kendall's τ within strata, with a permutation test, an interval, and what depth and size leave."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from workbench.seeds import generator

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

EXACT = math.factorial(8)  # orders up to which all are tried
CHUNK = 1 << 22  # numbers of a block of orders
TIE = 1e-9  # statistics this near are equal: sums of the same numbers in another order
CONFIDENCE, POWER = 0.95, 0.8
BLOCK = 512  # rows of pairs that are compared at a time


def mid_ranks(values: Floats) -> Floats:
    """Ranks from 1 on, equal values sharing the mean of theirs; infinities are ranked too.

    Example:
        >>> mid_ranks(np.array([5.0, 1.0, 5.0, np.inf])).tolist()
        [2.5, 1.0, 2.5, 4.0]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place], dtype=np.float64)


def centred_ranks(values: Floats, strata: Integers) -> Floats:
    """r/(n + 1) − ½ within each stratum of n: strata of different sizes have one scale, and each a mean of 0."""
    found = np.zeros(len(values))
    for stratum in np.unique(strata):
        inside = strata == stratum
        found[inside] = mid_ranks(values[inside]) / (inside.sum() + 1) - 0.5
    return found


def cosine(one: Floats, other: Floats) -> float:
    """⟨a, b⟩/(‖a‖‖b‖), in [−1, 1]; NaN where one is zero."""
    norms = math.sqrt(float(one @ one) * float(other @ other))
    return min(max(float(one @ other) / norms, -1.0), 1.0) if norms > TIE**2 else math.nan


def kendall(x: Floats, y: Floats, strata: Integers) -> float:
    """Kendall's τ_b over the pairs within strata: (concordant − discordant)/√(pairs untied in x · untied in y)."""
    score = own = other = 0.0
    for stratum in np.unique(strata):
        a, b = x[strata == stratum], y[strata == stratum]
        for start in range(0, len(a), BLOCK):
            dx, dy = (np.sign(v[start : start + BLOCK, None] - v) for v in (a, b))
            score, own, other = score + float((dx * dy).sum()), own + float((dx**2).sum()), other + float((dy**2).sum())
    return score / math.sqrt(own * other) if own and other else math.nan


def residuals(ranks: Floats, controls: Floats) -> Floats:
    """What a linear fit to the controls (n, k), all centred within strata, leaves; zero where that is rounding."""
    left = ranks - controls @ (controls.T @ ranks)
    return left if float(left @ left) > TIE * float(ranks @ ranks) else np.zeros_like(left)


def orthonormal(controls: Sequence[Floats], count: int) -> Floats:
    """An orthonormal basis (count, k) of what the controls span."""
    if not controls:
        return np.zeros((count, 0))
    left, sizes, _ = np.linalg.svd(np.stack(controls, axis=1), full_matrices=False)
    return np.asarray(left[:, sizes > TIE * max(float(sizes[0]), 1.0)], dtype=np.float64)


@lru_cache(maxsize=8)
def _all_orders(sizes: tuple[int, ...]) -> Integers:
    """Every order of the units that keeps them in their strata, a row each."""
    parts, start = [], 0
    for size in sizes:
        parts.append(np.array(list(itertools.permutations(range(start, start + size))), dtype=np.int64))
        start += size
    picks = np.indices([len(part) for part in parts]).reshape(len(parts), -1)
    return np.concatenate([part[pick] for part, pick in zip(parts, picks, strict=True)], axis=1)


def few_orders(sizes: tuple[int, ...]) -> bool:
    """Whether all orders within strata of these sizes are tried."""
    return math.prod(math.factorial(min(size, 9)) for size in sizes) <= EXACT


def orders_of(sizes: tuple[int, ...], draws: int, seed: int, name: str) -> Iterator[Integers]:
    """Blocks of orders of units that lie stratum by stratum: all of them up to 8!, else as many as are drawn."""
    if few_orders(sizes):
        yield _all_orders(sizes)
        return
    random, count = generator(seed, name), sum(sizes)
    step = max(CHUNK // count, 1)
    starts = np.cumsum([0, *sizes[:-1]])
    for begin in range(0, draws, step):
        rows = min(step, draws - begin)
        drawn = [torch.rand(rows, size, generator=random, dtype=torch.float64).argsort(1).numpy() for size in sizes]
        yield np.concatenate([part + start for part, start in zip(drawn, starts, strict=True)], axis=1)


def permutation_p(
    x: Floats, y: Floats, basis: Floats, strata: Integers, *, draws: int, seed: int, name: str
) -> tuple[float, float]:
    """Two-sided p of the cosine of x and y when y changes places within strata, and the least p that there can be.

    x and y are centred ranks or residuals of such; with controls every shuffled y is taken anew off their basis
    (Freedman and Lane 1983). All orders are tried up to 8! of them, else (1 + hits)/(1 + draws).

    Args:
        x: (n,), orthogonal to the basis.
        y: (n,), the same.
        basis: (n, k), orthonormal.
        strata: (n,), ascending.
        draws: orders drawn where there are too many.
        seed: of the draws.
        name: the same.
    """
    observed, sizes = abs(cosine(x, y)), tuple(np.unique(strata, return_counts=True)[1].tolist())
    if math.isnan(observed):
        return math.nan, math.nan
    found = []
    for orders in orders_of(sizes, draws, seed, name):
        moved = y[orders]
        left = (y @ y) - ((moved @ basis) ** 2).sum(axis=1)
        scale = np.sqrt(np.maximum(left, 0) * (x @ x))
        whole = scale > TIE * math.sqrt(float(x @ x) * float(y @ y))
        found.append(np.where(whole, np.abs(moved @ x) / np.where(whole, scale, 1.0), 1.0))  # of nothing left: a hit
    null = np.concatenate(found)
    drawn = 0 if few_orders(sizes) else 1
    most = max(float(null.max()), observed)
    hits, least = (int((null >= value - TIE).sum()) for value in (observed, most))
    return (hits + drawn) / (len(null) + drawn), (least + drawn) / (len(null) + drawn)


def interval(rho: float, freedom: int) -> tuple[float, float]:
    """The 95 % interval tanh(artanh ρ ± 1.96·√((1 + ρ²/2)/freedom)); freedom is n − 3 without strata and controls.

    At ±1, where it would be a point, ρ is taken half a neighbour exchange inside.
    """
    if freedom < 1 or math.isnan(rho):
        return math.nan, math.nan
    count = freedom + 3
    inside = math.copysign(min(abs(rho), 1 - 6 / (count * (count**2 - 1))), rho)
    width = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt((1 + inside**2 / 2) / freedom)
    low, high = (math.tanh(math.atanh(inside) + side * width) for side in (-1, 1))
    return (low if rho > -1 else -1.0), (high if rho < 1 else 1.0)


def layers_needed(rho: float, level: float) -> float:
    """Layers at which a ρ of this size is found at this level with a probability of 80 %; infinite at ρ = 0.

    n = 3 + (1 + ρ²/2)·((z_{1−level/2} + z_{0.8})/artanh |ρ|)², and at least so many that 2/n! is within the level.
    """
    if math.isnan(rho) or abs(rho) < TIE:
        return math.nan if math.isnan(rho) else math.inf
    least = next(n for n in itertools.count(2) if 2 / math.factorial(n) <= level)
    if abs(rho) >= 1:
        return float(least)
    quantile = NormalDist().inv_cdf(1 - level / 2) + NormalDist().inv_cdf(POWER)
    return float(max(least, math.ceil(3 + (1 + rho**2 / 2) * (quantile / math.atanh(abs(rho))) ** 2)))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's corrected p: max over smaller ones of (m − rank)·p, at most 1; NaN is no test and stays NaN.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    places = sorted((place for place, p in enumerate(values) if not math.isnan(p)), key=lambda place: values[place])
    found, so_far = [math.nan] * len(values), 0.0
    for rank, place in enumerate(places):
        so_far = max(so_far, min((len(places) - rank) * values[place], 1.0))
        found[place] = so_far
    return found
