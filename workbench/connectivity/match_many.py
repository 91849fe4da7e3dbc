"""Matching of several networks: each to the mean of the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from workbench.connectivity.groups import PermutationGroups
from workbench.connectivity.layout import permuted
from workbench.connectivity.matching import Matching
from workbench.connectivity.matching_run import (
    alignment_rows,
    cancellable,
    checked_gammas,
    readers_of,
    telling,
    told_last,
)
from workbench.connectivity.matching_tables import completed, function_change, matching
from workbench.connectivity.nested_assignment import Orders
from workbench.connectivity.permutations import Permutations
from workbench.connectivity.structure import Structure
from workbench.connectivity.weight_matching import (
    MOST_SWEEPS,
    Descent,
    Reader,
    WeightMatching,
)
from workbench.errors import ArgumentError
from workbench.linalg import resolved_device
from workbench.progress import ProgressCallback
from workbench.runtime import Evaluator
from workbench.seeds import generator
from workbench.weights import ModelLike, Weights, load


def match_many(
    groups: PermutationGroups,
    models: Sequence[ModelLike],
    *,
    evaluator: Evaluator | None = None,
    gammas: Sequence[float] = (0.0, 0.3),
    seed: int = 0,
    device: str = "auto",
    progress: ProgressCallback | None = None,
) -> Matching:
    """Permutations that bring several networks near each other: each is matched to the mean of the others (merge-many).

    Every network is first matched to the first one by weights; then, in an order drawn anew each round, each is matched
    to the mean of the others as they are, until a round changes nothing. Σ_{i<j}⟨π_i(W_i), π_j(W_j)⟩ never falls; the
    table `sweeps` has it for network 0. At the end all are turned back so that the first network stays as it is.

    Args:
        groups: of the architecture.
        models: two networks or more.
        evaluator: with it the outputs and the loss of every permuted network are checked.
        gammas: as for `match`; alignment with the first network.
        seed: of the order of the rounds.
        device: as for `match`.
        progress: as for `match`.

    Returns:
        A Matching; `.apply(models[i], model=i)` and `.permutations_of(i)` are those of network i, counted from 0.

    Raises:
        ArgumentError: fewer than two networks, another architecture than the groups', or NaN.
        Cancelled: the callback asked for it; `.partial` is the Matching of the orders found so far.

    Cost: rounds × networks × that of `match`, and a permuted copy of one tensor of each network at a time.

    Source: Ainsworth et al., Git Re-Basin (arXiv 2209.04836), algorithm 3 (MergeMany), with ours: the start from
    matching each with the first network.

    Misreads: near their mean is not near each other pair by pair; look at the barriers of all pairs.

    Example:
        >>> from workbench.connectivity import permutation_groups
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> groups = permutation_groups(net, torch.zeros(1, 2))
        >>> copies = [groups.apply(net, groups.random(seed)) for seed in range(3)]
        >>> match_many(groups, copies).reduction()
        1.0
    """
    begin = time.perf_counter()
    gammas = checked_gammas(groups, "weights", evaluator, 0, gammas, seed, progress)
    models = _several(models)
    structure, networks = groups.structure, [load(model) for model in models]
    readers = readers_of(structure, networks)
    where = resolved_device(device)
    orders = {number: structure.identity() for number in range(len(models))}
    runs = {number: Descent(orders=orders[number]) for number in range(1, len(models))}
    rounds: list[dict[str, float]] = []

    def found() -> Matching:
        first = Permutations(orders[0], structure.within).inverse()
        turned = {n: dict(first @ Permutations(order, structure.within)) for n, order in orders.items()}
        best = {n: [Descent(orders=turned[n], history=run.history)] for n, run in runs.items()}
        return matching(groups, readers, best, meta, [], rounds)

    sources = [network.source for network in networks]
    meta = networks[0].provenance("wb.match_many", models=sources, gammas=list(map(float, gammas)))
    meta |= {"seed": int(seed), "device": str(where), "dtype": "float64"}
    progress = telling(progress, found)
    with cancellable(found):
        for number, run in runs.items():
            WeightMatching(structure, readers[0], readers[number], where).run(run, settle=True, progress=progress)
        rounds.append(_pairwise(structure, readers, orders) | {"sweep": 0, "changed": 0})
        draw = generator(seed, "rounds")
        for sweep in range(1, MOST_SWEEPS + 1):
            rearranged = 0
            for number in torch.randperm(len(models), generator=draw).tolist():
                others = _mean(structure, readers, orders, without=number)
                state = Descent(orders=orders[number])
                before = {group: order.clone() for group, order in state.orders.items()}
                WeightMatching(structure, others, readers[number], where).run(state, settle=False, progress=progress)
                rearranged += sum(not torch.equal(before[group], order) for group, order in state.orders.items())
            rounds.append(_pairwise(structure, readers, orders) | {"sweep": sweep, "changed": rearranged})
            if not rearranged:
                break
        result = found()
        aligned = [row for n in runs for row in alignment_rows(result, [readers[0], readers[n]], gammas, progress, n)]
        checks = [function_change(evaluator, networks[n], result.apply(networks[n], n)) for n in runs if evaluator]
    return told_last(completed(result, aligned, checks, time.perf_counter() - begin), progress)


def _several(models: object) -> list[ModelLike]:
    """Two networks or more.

    Raises:
        ArgumentError: it is one network, or no collection of them.
    """
    if isinstance(models, str | Mapping | torch.nn.Module | Weights) or not isinstance(models, Iterable):
        raise ArgumentError(f"models is one {type(models).__name__}: expected a list of two networks or more.")
    found = list(models)
    if len(found) < 2:
        raise ArgumentError(f"models has {len(found)} networks: expected two or more.")
    return found


def _mean(
    structure: Structure, readers: Sequence[Reader], orders: Mapping[int, Orders], *, without: int
) -> Callable[[str], Tensor]:
    """The mean of the other networks as they are permuted now, a tensor at a time."""
    others = [number for number in orders if number != without]

    def mean(name: str) -> Tensor:
        layout = structure.layouts[name]
        total: Tensor | None = None
        for number in others:
            tensor = permuted(readers[number](name), layout, orders[number], structure.within).double()
            total = tensor if total is None else total + tensor
        return torch.zeros(()) if total is None else total / len(others)

    return mean


def _pairwise(structure: Structure, readers: Sequence[Reader], orders: Mapping[int, Orders]) -> dict[str, float]:
    """Σ_{i<j}⟨π_i(W_i), π_j(W_j)⟩ and the root of the sum of their squared distances."""
    squares, total = 0.0, 0.0
    for name in structure.parameters():
        layout = structure.layouts[name]
        moved = [permuted(read(name), layout, orders[n], structure.within).double() for n, read in enumerate(readers)]
        squares += sum(float(tensor.square().sum()) for tensor in moved)
        total += float(sum(moved[1:], start=moved[0]).square().sum())
    product = (total - squares) / 2
    distance = max((len(readers) - 1) * squares - 2 * product, 0.0) ** 0.5
    return {"objective": product, "distance": distance, "seconds": 0.0}
