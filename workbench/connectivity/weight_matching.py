"""Weight matching: the permutation that brings one network's weights nearest to another's (Git Re-Basin)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from workbench.connectivity.kept_gains import KeptGains
from workbench.connectivity.layout import groups_of, iter_blocks, permuted
from workbench.connectivity.nested_assignment import NO_GAIN, Gains, Orders, Prices, solved
from workbench.connectivity.structure import Structure
from workbench.errors import ArgumentError
from workbench.linalg.pieces import flat_pieces
from workbench.progress import Progress, ProgressCallback, reporter
from workbench.weights import Weights

MOST_SWEEPS = 1000


@dataclass(frozen=True, kw_only=True)
class MatchingProgress(Progress):
    """Where a matching stands; `item` is the group about to be solved, `done` of `total` groups in this sweep.

    Attributes:
        sweep: 0 is the settled start.
        objective: Σ⟨A, π(B)⟩ over the parameters so far; NaN before the first is known.
    """

    sweep: int
    objective: float


class Reader:
    """A network's tensors under the structure's names.

    Attributes:
        weights: where they come from.
        names: the structure's name → theirs.
    """

    def __init__(self, structure: Structure, weights: Weights) -> None:
        self.weights, self.names = weights, structure.names_in(weights)

    def __call__(self, name: str) -> Tensor:
        """The tensor for reading only, until the next is read from the same weights."""
        return self.weights.borrowed(self.names[name])


@dataclass(kw_only=True)
class Descent:
    """What a run of weight matching has found so far.

    Attributes:
        orders: group → indices.
        objective: Σ⟨A, π(B)⟩.
        history: a row per sweep: sweep, objective, groups that changed, seconds.
    """

    orders: Orders
    objective: float = float("nan")
    history: list[dict[str, float]] = field(default_factory=list)


class WeightMatching:
    """Coordinate ascent on Σ⟨A, π(B)⟩, a group (with the groups within it) at a time.

    Args:
        structure: groups and tensors.
        a: the network that stays.
        b: the network that is permuted.
        device: where products of matrices are computed.
    """

    def __init__(
        self, structure: Structure, a: Callable[[str], Tensor], b: Callable[[str], Tensor], device: torch.device
    ) -> None:
        self.structure, self.a, self.b, self.device = structure, a, b, device
        self.gains = KeptGains(structure, a, b, device)
        self.prices: Prices = {}
        self.inner: dict[str, list[str]] = {root: [] for root in structure.sizes if root not in structure.within}
        for group, outer in structure.within.items():
            if group in structure.free:
                self.inner[outer].append(group)
        self.roots = [root for root in self.inner if root in structure.free or self.inner[root]]
        members = structure.members()
        self.tensors = {
            root: list(dict.fromkeys(name for group in (root, *self.inner[root]) for name in members[group]))
            for root in self.roots
        }
        having: dict[str, set[str]] = {name: set() for name in structure.parameters()}
        for root, names in self.tensors.items():
            for name in names:
                having[name].add(root)
        self.neighbours = {
            root: {other for name in names for other in having[name]} - {root} for root, names in self.tensors.items()
        }
        self.quadratic = {  # a tensor has such a group on two axes, so gains hold only near where it is
            root for root in self.roots if any(_twice_in_a_block(structure, name, root) for name in self.tensors[root])
        }
        self.elements = {
            name: int(np.prod([node.size for node in structure.layouts[name]])) for name in structure.parameters()
        }

    def family(self, root: str) -> list[str]:
        """A group and those within it."""
        return [root, *self.inner[root]]

    def objective(self, orders: Orders, names: Iterable[str] | None = None) -> float:
        """Σ⟨A, π(B)⟩ over parameters, in float64."""
        total = 0.0
        for name in self.structure.parameters() if names is None else names:
            own, other = self.a(name), self.b(name)
            other = permuted(other, self.structure.layouts[name], orders, self.structure.within)
            for mine, yours in flat_pieces(own, other):
                total += float(mine @ yours)
        return total

    def settled_order(self) -> list[tuple[str, list[str]]]:
        """Groups in the order of the settled start, each with the tensors whose other groups come before it."""
        outer = {
            name: {self.structure.within.get(group, group) for group in groups_of(self.structure.layouts[name])}
            for name in self.elements
        }
        waiting, settled = list(self.roots), {root for root in self.inner if root not in self.roots}
        found: list[tuple[str, list[str]]] = []
        while waiting:
            known = {root: [name for name in self.tensors[root] if outer[name] <= {root, *settled}] for root in waiting}
            best = max(waiting, key=lambda root: sum(self.elements[name] for name in known[root]))
            found.append((best, known[best]))
            settled.add(best)
            waiting.remove(best)
        return found

    def run(
        self,
        state: Descent,
        *,
        settle: bool,
        progress: ProgressCallback | None = None,
        roots: Sequence[str] | None = None,
    ) -> None:
        """Ascends from the state's orders, in place: they are valid at any time, also after a cancel.

        Args:
            state: where it starts and what it finds.
            settle: the first pass decides every group from the settled tensors alone, whatever its order was.
            progress: called before every group with a MatchingProgress.
            roots: the outer groups to improve; None for all.
        """
        begin, tell = time.perf_counter(), reporter(progress, MatchingProgress)
        wanted = self.roots if roots is None else list(roots)

        def report(root: str, done: int, sweep: int) -> None:
            tell(root, done, len(wanted), sweep=sweep, objective=state.objective)

        self.remember(state, -1, 0, 0.0)
        if settle:
            self._settle(state, report)
            self.remember(state, 0, len(wanted), time.perf_counter() - begin, anew=False)
        stale = set(wanted)
        for sweep in range(1, MOST_SWEEPS + 1):
            changed = 0
            for done, root in enumerate(wanted):
                if root in stale:
                    report(root, done, sweep)
                    stale.discard(root)
                    gain = self._improve(root, state.orders, NO_GAIN * abs(state.objective))
                    if gain:
                        changed += 1
                        state.objective += gain
                        stale |= self.neighbours[root] & set(wanted)
                        stale |= {root} if root in self.quadratic else set()
            self.remember(state, sweep, changed, time.perf_counter() - begin, anew=not stale)
            if not stale:
                break
        report("", len(wanted), int(state.history[-1]["sweep"]))

    def remember(self, state: Descent, sweep: int, changed: int, seconds: float, *, anew: bool = True) -> None:
        """Adds a row to the history, with the objective computed anew or as the gains add up."""
        state.objective = self.objective(state.orders) if anew else state.objective
        row = {"sweep": sweep, "objective": state.objective, "changed": changed, "seconds": seconds}
        state.history.append(row)

    def _settle(self, state: Descent, report: Callable[[str, int, int], None]) -> None:
        """The settled start; what was is kept if it is better."""
        orders = dict(state.orders)
        for done, (root, names) in enumerate(self.settled_order()):
            report(root, done, 0)
            if names:
                orders.update(solved(self._gains(root, orders, names), orders, self.structure).orders)
        objective = self.objective(orders)
        if objective > state.objective:
            state.orders.update(orders)
            state.objective = objective

    def _gains(self, root: str, orders: Orders, names: Sequence[str]) -> Gains:
        if self.inner[root] or root in self.quadratic:
            return self.gains(root, self.inner[root], orders, names)
        return self.gains.current(root, orders, names)

    def _improve(self, root: str, orders: Orders, least: float) -> float:
        """Improves one group in place; the gain in the objective, 0 where none above `least` was found.

        Orders that are as good but for rounding are left as they are, else equal units would change places for ever.
        """
        names = self.tensors[root]
        found = solved(self._gains(root, orders, names), orders, self.structure, self.prices)
        gain = found.gain
        if gain > least and root in self.quadratic:
            gain = self.objective({**orders, **found.orders}, names) - self.objective(orders, names)
        if gain <= least:
            return 0.0
        orders.update(found.orders)
        return gain


def _twice_in_a_block(structure: Structure, name: str, group: str) -> bool:
    sizes = [node.size for node in structure.layouts[name]]
    hollow = torch.empty(sizes, device="meta")
    return any(block.groups.count(group) > 1 for block in iter_blocks(hollow, structure.layouts[name]))


def check_finite(reader: Reader, names: Sequence[str]) -> None:
    """Refuses NaN, infinity and complex numbers, by name, before anything is matched.

    Raises:
        ArgumentError: a tensor has one.
    """
    for name in names:
        tensor = reader(name)
        if tensor.is_complex():
            raise ArgumentError(
                f"{reader.weights.source} has complex numbers in {name!r}: matching takes real ones; pass "
                "torch.view_as_real of it in a module that stores them so."
            )
        if not bool(torch.isfinite(tensor).all()):
            raise ArgumentError(
                f"{reader.weights.source} has NaN or infinite elements in {name!r}, so nothing is nearest to it."
            )


def check_tied(reader: Reader, tied: Mapping[str, str]) -> None:
    """Refuses two names of one tensor that hold different numbers, of which only the first would be matched.

    Raises:
        ArgumentError: they do.
    """
    for name, first in tied.items():
        names = [reader.names[name], reader.names[first]]
        if names[0] != names[1] and not torch.equal(*(reader.weights[own] for own in names)):
            raise ArgumentError(
                f"{reader.weights.source}'s {names[0]!r} and {names[1]!r} differ, but are one tensor in the groups' "
                "module: leave one out, or take the groups of an untied module."
            )
