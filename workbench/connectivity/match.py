"""Matching of two networks: by their weights, or by what their units do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import torch

from workbench.connectivity.activation_matching import activation_orders
from workbench.connectivity.groups import PermutationGroups
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
from workbench.connectivity.permutations import Permutations
from workbench.connectivity.weight_matching import (
    Descent,
    WeightMatching,
)
from workbench.linalg import resolved_device
from workbench.progress import ProgressCallback
from workbench.runtime import Evaluator
from workbench.seeds import generator
from workbench.weights import ModelLike, Weights, load

Method = Literal["weights", "activations", "correlation"]
MOST_PASSES = 4  # of activation matching where samples lie along units of other groups


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
    tensors of each network at a time and gains of at most 268 MB. By activations: two forward passes over the data, or
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
    gammas = checked_gammas(groups, method, evaluator, restarts, gammas, seed, progress)
    structure, networks = groups.structure, [load(a), load(b)]
    readers = readers_of(structure, networks)
    problem = WeightMatching(structure, readers[0], readers[1], resolved_device(device))
    runs: list[Descent] = []
    notes: list[str] = []

    def found() -> Matching:
        return matching(groups, readers, {1: runs or [Descent(orders=structure.identity())]}, meta, notes)

    meta = networks[1].provenance(
        "wb.match", method=method, restarts=restarts, gammas=list(map(float, gammas)), against=networks[0].source
    )
    meta |= {"seed": int(seed), "device": str(problem.device), "dtype": "float64"}
    progress = telling(progress, found)
    with cancellable(found):
        if method == "weights" or evaluator is None:  # the other methods were refused without one
            _by_weights(problem, groups, runs, restarts, seed, progress)
        else:
            notes += _by_activations(problem, runs, evaluator, networks, method, progress)
        result = found()
        aligned = alignment_rows(result, readers, gammas, progress)
        checks = [function_change(evaluator, networks[1], result.apply(networks[1]))] if evaluator else []
    return told_last(completed(result, aligned, checks, time.perf_counter() - begin), progress)


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
        orders = dict(groups.random(number)) if start else groups.structure.identity()
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
    state = Descent(orders=problem.structure.identity())
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
            start=structure.identity(),
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
