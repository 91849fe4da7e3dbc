"""Matching of two networks: by their weights, or by what their units do."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, Literal

import torch
from torch import Tensor

from workbench.connectivity.activation_matching import activation_orders, check_evaluator
from workbench.connectivity.alignment import alignments
from workbench.connectivity.groups import PermutationGroups
from workbench.connectivity.layout import permuted
from workbench.connectivity.matching import Matching
from workbench.connectivity.matching_tables import completed, function_check, matching
from workbench.connectivity.nested_assignment import Orders
from workbench.connectivity.permutations import Permutations
from workbench.connectivity.structure import Structure
from workbench.connectivity.weight_matching import (
    MOST_SWEEPS,
    Descent,
    MatchingProgress,
    Reader,
    WeightMatching,
    check_finite,
    check_tied,
    identity_orders,
)
from workbench.errors import ArgumentError, Cancelled, nearest
from workbench.linalg import resolved_device
from workbench.progress import ProgressCallback
from workbench.runtime import Evaluator
from workbench.seeds import generator
from workbench.weights import ModelLike, Weights, load

Method = Literal["weights", "activations", "correlation"]
MOST_PASSES = 4  # of activation matching where samples lie along units of other groups
METHODS = ("weights", "activations", "correlation")


def match(
    groups: PermutationGroups,
    a: ModelLike,
    b: ModelLike,
    *,
    method: Method = "weights",
    evaluator: Evaluator | None = None,
    restarts: int = 0,
    gammas: Sequence[float] = (0.0, 0.3),
    seed: int = 0,
    device: str = "auto",
    progress: ProgressCallback | None = None,
) -> Matching:
    """Permutations π of b's units that bring it near a.

    By weights: π maximises Σ⟨A, π(B)⟩, which minimises ‖A − π(B)‖². One group after another is assigned exactly, all
    others as they are, with C = Σ unfold(A)·unfold(B)ᵀ over its axes; a group with others within it (heads and their
    units) by the best inner orders for every pair of its units. The settled start takes, again and again, the group
    with most elements in tensors whose other groups are decided already, from those tensors alone.

    By activations: C = Z_AᵀZ_B (or correlations) of the outputs that each group's layers give on the evaluator's data,
    each group by itself; positions of images and sequences are samples, those with 0 in a batch's `attention_mask` are
    none. Where they may be units of another group (token mixing, norms of each head), further passes follow with b in
    the orders found. Groups that no submodule shows (packed projections of attention) are matched by weights after.

    Args:
        groups: of the architecture, from `wb.permutation_groups`.
        a: the network that stays.
        b: the network that is permuted.
        method: `weights`; `activations` and `correlation` need an evaluator.
        evaluator: with it the loss of b and of π(b) and the change of the outputs are recorded.
        restarts: further starts of weight matching from random orders; the best objective is kept.
        gammas: thresholds γ for the alignment of singular vectors, relative to σmax; () leaves it out, for it costs
            singular value decompositions of every layer.
        seed: of the random starts.
        device: where products of matrices are computed; "auto" takes CUDA when there is one.
        progress: called before every group, batch and layer with a MatchingProgress (it has the objective so far, NaN
            before one is known), and may raise `wb.Cancelled`; its `.partial` is then the Matching of the orders found
            so far, which are valid.

    Returns:
        A Matching: `.permutations`, `.apply(b)`, tables of sweeps, layers and alignment.

    Raises:
        ArgumentError: the networks are of another architecture than the groups, have NaN, or an argument is wrong.
        Cancelled: the callback asked for it.

    Cost: a sweep is 2·Σ elements·units flops in float64 and an assignment per group, O(units³) at worst; in memory two
    tensors of each network at a time and at most 268 MB of gains. By activations: two forward passes over the data, or
    eight at most, see above; in memory both networks and 8·units² bytes a submodule.

    Source: Ainsworth et al., Git Re-Basin (arXiv 2209.04836), algorithm 1, with ours: the settled start for a random
    order, exact nested assignments for heads. Alignment as in Ito et al. (arXiv 2402.04051).

    Misreads: a small ‖A − π(B)‖ is not why barriers vanish: weight matching reduces it by some per cent only (Ito et
    al.). An objective is a local optimum; `restarts` tells how local.

    Example:
        >>> from workbench.connectivity import permutation_groups
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> groups = permutation_groups(net, torch.zeros(1, 2))
        >>> shuffled = groups.apply(net, groups.random(seed=1))
        >>> match(groups, net, shuffled).reduction()
        1.0
    """
    begin = time.perf_counter()
    gammas = _check(groups, method, evaluator, restarts, gammas, seed, progress)
    structure, networks = groups.structure, [load(a), load(b)]
    readers = _readers(structure, networks)
    problem = WeightMatching(structure, readers[0], readers[1], resolved_device(device))
    runs: list[Descent] = []
    notes: list[str] = []

    def found() -> Matching:
        return matching(groups, readers, {1: runs or [Descent(orders=identity_orders(structure))]}, meta, notes)

    meta = networks[1].provenance(
        "match", method=method, restarts=restarts, gammas=list(map(float, gammas)), against=networks[0].source
    )
    meta |= {"seed": int(seed), "device": str(problem.device), "dtype": "float64"}
    progress = _telling(progress, found)
    with _cancellable(found):
        if method == "weights":
            _by_weights(problem, groups, runs, restarts, seed, progress)
        else:
            notes += _by_activations(problem, runs, check_evaluator(evaluator, method), networks, method, progress)
        result = found()
        aligned = _alignment_rows(result, readers, gammas, progress)
        checks = [function_check(evaluator, networks[1], result.apply(networks[1]))] if evaluator else []
        return completed(result, aligned, checks, time.perf_counter() - begin)


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
    gammas = _check(groups, "weights", evaluator, 0, gammas, seed, progress)
    models = _several(models)
    structure, networks = groups.structure, [load(model) for model in models]
    readers = _readers(structure, networks)
    where = resolved_device(device)
    orders = {number: identity_orders(structure) for number in range(len(models))}
    runs = {number: Descent(orders=orders[number]) for number in range(1, len(models))}
    rounds: list[dict[str, float]] = []

    def found() -> Matching:
        first = Permutations(orders[0], structure.within).inverse()
        turned = {n: dict(first @ Permutations(order, structure.within)) for n, order in orders.items()}
        best = {n: [Descent(orders=turned[n], history=run.history)] for n, run in runs.items()}
        return matching(groups, readers, best, meta, [], rounds)

    sources = [network.source for network in networks]
    meta = networks[0].provenance("match_many", models=sources, gammas=list(map(float, gammas)))
    meta |= {"seed": int(seed), "device": str(where), "dtype": "float64"}
    progress = _telling(progress, found)
    with _cancellable(found):
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
        aligned = [row for n in runs for row in _alignment_rows(result, [readers[0], readers[n]], gammas, progress, n)]
        checks = [function_check(evaluator, networks[n], result.apply(networks[n], n)) for n in runs if evaluator]
        return completed(result, aligned, checks, time.perf_counter() - begin)


def _check(
    groups: object, method: str, evaluator: object, restarts: object, gammas: object, seed: object, progress: object
) -> list[float]:
    """Refuses arguments out of their range; gives the γ as numbers."""
    if not isinstance(groups, PermutationGroups):
        raise ArgumentError(
            f"groups is {type(groups).__name__}: expected wb.permutation_groups(module, example_inputs)."
        )
    if method not in METHODS:
        raise ArgumentError(f"method={method!r}: expected one of {', '.join(METHODS)}.{nearest(method, METHODS)}")
    if not isinstance(restarts, int) or isinstance(restarts, bool) or restarts < 0:
        raise ArgumentError(f"restarts={restarts!r}: expected the number of further starts, 0 or more.")
    if evaluator is not None or method != "weights":
        check_evaluator(evaluator, method)
    if not isinstance(seed, Integral) or isinstance(seed, bool):
        raise ArgumentError(f"seed={seed!r}: expected a whole number.")
    if progress is not None and not callable(progress):
        raise ArgumentError(f"progress={progress!r}: expected a function of a Progress, or None.")
    if isinstance(gammas, str) or not isinstance(gammas, Iterable):
        raise ArgumentError(f"gammas={gammas!r}: expected several thresholds, such as (0.0, 0.3), or () for none.")
    shares = list(gammas)
    if wrong := [gamma for gamma in shares if not (isinstance(gamma, Real) and 0 <= float(gamma) <= 1)]:
        raise ArgumentError(f"gammas has {wrong[0]!r}: expected shares of the largest singular value, 0 to 1.")
    return list(dict.fromkeys(map(float, shares)))


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


def _readers(structure: Structure, networks: Sequence[Weights]) -> list[Reader]:
    readers = [Reader(structure, network) for network in networks]
    for reader in readers:
        check_finite(reader, structure.parameters())
        check_tied(reader, structure.tied)
    return readers


def _telling(progress: ProgressCallback | None, found: Callable[[], Matching]) -> ProgressCallback | None:
    """Reports that can also make the Matching of what was found so far."""
    if progress is None:
        return None
    return lambda report: progress(dataclasses.replace(report, partial=found))


@contextmanager
def _cancellable(found: Callable[[], Matching]) -> Iterator[None]:
    """A cancelled run leaves the Matching of what was found: orders are valid at any time."""
    try:
        yield
    except Cancelled as stop:
        partial = found()
        stop.partial = dataclasses.replace(partial, meta={**partial.meta, "cancelled": True})
        raise


def _by_weights(
    problem: WeightMatching,
    groups: PermutationGroups,
    runs: list[Descent],
    restarts: int,
    seed: int,
    progress: ProgressCallback | None,
) -> None:
    draw = generator(seed, "restarts")
    for start in range(restarts + 1):
        number = int(torch.randint(1 << 62, (), generator=draw)) if start else 0
        orders = dict(groups.random(number)) if start else identity_orders(groups.structure)
        runs.append(Descent(orders=orders))
        problem.run(runs[-1], settle=start == 0, progress=progress)


def _by_activations(
    problem: WeightMatching,
    runs: list[Descent],
    evaluator: Evaluator,
    networks: Sequence[Weights],
    method: str,
    progress: ProgressCallback | None,
) -> list[str]:
    """One run; what it says of groups that no submodule shows."""
    state = Descent(orders=identity_orders(problem.structure))
    runs.append(state)
    problem.remember(state, -1, 0, 0.0)
    begin = time.perf_counter()
    structure, families = problem.structure, {root: problem.family(root) for root in problem.roots}
    a, b = networks
    for number in range(MOST_PASSES):
        so_far = Permutations(state.orders, structure.within)
        found, hidden, across = activation_orders(
            structure,
            families,
            evaluator,
            a,
            structure.applied(b, so_far) if number else b,
            correlation=method == "correlation",
            start=identity_orders(structure),
            progress=progress,
        )
        further = Permutations(found, structure.within)
        state.orders = dict(further @ so_far)
        problem.remember(state, number, len(families) - len(hidden), time.perf_counter() - begin)
        if further.is_identity or not across:
            break
    if not hidden:
        return []
    problem.run(state, settle=False, progress=progress, roots=hidden)
    return [f"matched by weights, because no submodule gives their units: {', '.join(hidden)}"]


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


def _alignment_rows(
    result: Matching,
    readers: Sequence[Reader],
    gammas: Sequence[float],
    progress: ProgressCallback | None,
    model: int = 1,
) -> list[dict[str, Any]]:
    begin = time.perf_counter()

    def report(layer: str, done: int, total: int) -> None:
        if progress is not None:
            item = f"singular vectors of {layer}"
            seconds = time.perf_counter() - begin
            progress(
                MatchingProgress(
                    done=done, total=total, item=item, seconds=seconds, sweep=sweep, objective=result.objective
                )
            )

    a, b = (reader.weights for reader in readers)
    sweep = result.tables["sweeps"]["sweep"][-1]
    names = {own: readers[1].names[name] for name, own in readers[0].names.items()}
    return [{"model": model, **row} for row in alignments(a, b, result.apply(b, model), gammas, names, report)]
