"""From a trace to groups: what may be permuted apart, inside what, under which name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice

from workbench.connectivity.axes import Axis, freeze, unify
from workbench.connectivity.layout import SPECIAL, Leaf, Node, joined, multiplied
from workbench.connectivity.rules import LOOKED_UP
from workbench.connectivity.tracing import Trace

MOST_ALTERNATIVES = 256  # pieces of one tensor looked at apart; beyond them it counts as one


@dataclass(frozen=True, kw_only=True)
class Group:
    """Units that one permutation moves, or several if it lies within another group.

    Attributes:
        name: from the first tensor that has it.
        size: number of units.
        within: the group that it lies in; empty if none.
        frozen: why it must keep its order (it is listed because others lie in it); empty if it need not.
    """

    name: str
    size: int
    within: str = ""
    frozen: str = ""


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """Groups, what each tensor's axes are made of, and why axes are frozen.

    Attributes:
        groups: name → group, in the order of the tensors.
        layouts: tensor → node of each axis.
        reasons: tensor → why parts of each axis are frozen; empty where none is.
    """

    groups: Mapping[str, Group]
    layouts: Mapping[str, tuple[Node, ...]]
    reasons: Mapping[str, tuple[str, ...]]


def resolved(trace: Trace) -> Resolved:
    """The groups of a trace."""
    _settle_members(trace)
    seen = list(_seen(trace.seen))
    for name in sorted(trace.unread):
        for axis in trace.tensors[name]:
            freeze(axis, "not read for these outputs")
    read = {leaf for leaves, _ in seen for leaf in leaves}
    stored = _stored_leaves(trace)
    for leaf in stored:
        if leaf not in read and leaf.size > 1:
            freeze(leaf, "not read with the example inputs")
    seen += [tensor for axes in trace.tensors.values() for tensor in _counted(axes)]
    parents = _parents(stored, seen)
    names = _names(trace, stored, parents)
    groups = {
        names[leaf]: Group(
            name=names[leaf],
            size=leaf.size,
            within=names[parents[leaf]] if leaf in parents else "",
            frozen=leaf.frozen or "",
        )
        for leaf in stored
        if leaf in names
    }
    layouts = {name: tuple(_node(axis, names) for axis in axes) for name, axes in trace.tensors.items()}
    reasons = {name: tuple(_reason(axis) for axis in axes) for name, axes in trace.tensors.items()}
    return Resolved(groups=groups, layouts=layouts, reasons=reasons)


def _stored_leaves(trace: Trace) -> list[Axis]:
    """The leaves of all tensors, each once, in the order of the tensors; where members differ, the members."""
    return list(
        dict.fromkeys(
            leaf
            for axes in trace.tensors.values()
            for axis in axes
            for piece in _alternatives([axis])
            for leaf in piece
        )
    )


def _alternatives(factors: Sequence[Axis]) -> Iterable[list[Axis]]:
    """Axes as lists of leaves: one list for every choice of pieces and of members."""
    factors = [factor for axis in factors for factor in axis.factors()]
    for place, factor in enumerate(factors):
        if factor.kind == "concatenation":
            for piece in factor.pieces():
                yield from _alternatives([*factors[:place], piece, *factors[place + 1 :]])
            return
        if any(_is_member_of(leaf, factor) for leaf in factors if leaf.kind == "leaf"):
            for row in range(factor.size):
                yield from _alternatives([part if part is factor else part.member(factor, row) for part in factors])
            return
    yield factors


def _is_member_of(leaf: Axis, outer: Axis) -> bool:
    return any(factor.root is outer.root for factor, _ in leaf.members)


Leaves = tuple[frozenset[Axis], frozenset[Axis]]  # all of them, and those that occur twice


def _counted(axes: Sequence[Axis]) -> Iterable[Leaves]:
    """The leaves of each alternative; a tensor of very many counts as one, whose leaves then occur twice."""
    choices = list(islice(_alternatives(axes), MOST_ALTERNATIVES + 1))
    if len(choices) > MOST_ALTERNATIVES:
        choices = [2 * list(dict.fromkeys(leaf for axis in axes for leaf in _every_leaf(axis)))]
    for choice in choices:
        leaves = [leaf for leaf in choice if leaf.size > 1]
        yield frozenset(leaves), frozenset(leaf for leaf in leaves if leaves.count(leaf) > 1)


def _every_leaf(axis: Axis) -> Iterable[Axis]:
    for leaf in axis.leaves():
        yield leaf
        for member in leaf.members.values():
            yield from _every_leaf(member)


def _seen(tensors: Iterable[Sequence[Axis]]) -> set[Leaves]:
    keys = {tuple(axis.root for axis in axes) for axes in tensors}
    return {leaves for axes in keys for leaves in _counted(axes)}


def _settle_members(trace: Trace) -> None:
    """Where positions were taken one by one, what lies inside may differ between them, if nothing mixes it before.

    An axis x inside f has members x₀, x₁, … for the positions of f. They stay apart if every tensor with x has f beside
    it, so that x can be ordered anew at each position; else they are x itself.
    """
    while True:
        tensors = [*trace.seen, *trace.tensors.values()]
        every = dict.fromkeys(leaf for axes in tensors for axis in axes for leaf in axis.leaves())
        families = [leaf for leaf in every if leaf.members]
        if not families:
            return
        plain = {}
        for leaf in families:
            plain[leaf], leaf.members = leaf.members, {}
        seen = [tensor for axes in tensors for tensor in _counted(axes)]
        beside = _beside(families, seen)
        joined = False
        for leaf in families:
            outers = {outer.root for outer, _ in plain[leaf]}
            outer = next(iter(outers))
            apart = len(outers) == 1 and outer.kind == "leaf" and not outer.torn and outer in beside[leaf]
            if apart and all(_inside(axis, leaf, outer) for axes in trace.tensors.values() for axis in axes):
                continue
            for member in plain.pop(leaf).values():
                unify(leaf, member)
                joined = True
            if leaf.root is leaf:
                leaf.members = {}
        if not joined:
            for leaf, members in plain.items():
                if not leaf.frozen:
                    leaf.members = members
                for member in members.values() if leaf.frozen else ():
                    freeze(member, leaf.frozen or "")
            return
        for leaf, members in plain.items():
            if leaf.root is leaf:
                leaf.members = members
            else:
                for (outer, row), member in members.items():
                    unify(leaf.root.member(outer, row), member)


def _inside(axis: Axis, leaf: Axis, outer: Axis) -> bool:
    """Whether `outer` comes before `leaf` among the factors wherever a stored axis has the leaf."""
    if leaf not in axis.leaves():
        return True
    node = axis.root
    if node.kind == "concatenation":
        return all(_inside(part, leaf, outer) for part in node.parts)
    for factor in node.factors():
        if factor.root is outer.root:
            return True
        if leaf in factor.leaves():
            return factor.root.kind == "concatenation" and _inside(factor, leaf, outer)
    return True


def _beside(leaves: Iterable[Axis], seen: Iterable[Leaves]) -> dict[Axis, frozenset[Axis]]:
    """Leaf → the leaves that every tensor with it has too, once each; none if one has the leaf twice."""
    wanted = set(leaves)
    found: dict[Axis, frozenset[Axis]] = {}
    for present, twice in seen:
        for leaf in present & wanted:
            others = frozenset() if leaf in twice else present - twice - {leaf}
            found[leaf] = found[leaf] & others if leaf in found else others
    return {leaf: found.get(leaf, frozenset()) for leaf in wanted}


def _parents(stored: Sequence[Axis], seen: Sequence[Leaves]) -> dict[Axis, Axis]:
    """Leaf → the leaf within which it has an order of its own; one level deep."""
    free = [leaf for leaf in stored if not leaf.frozen and leaf.size > 1]
    known = set(stored)
    beside = {leaf: others & known for leaf, others in _beside(free, seen).items()}
    place = {leaf: number for number, leaf in enumerate(stored)}
    parents: dict[Axis, Axis] = {}
    outer: set[Axis] = set()
    for leaf in sorted(free, key=lambda leaf: (len(beside[leaf]), place[leaf])):
        candidates = [other for other in beside[leaf] if other not in parents and other.size > 1 and not other.torn]
        if leaf in outer or not candidates:
            continue
        parents[leaf] = max(candidates, key=lambda other: (not other.frozen, other.size, -place[other]))
        outer.add(parents[leaf])
    return parents


def _names(trace: Trace, stored: Sequence[Axis], parents: Mapping[Axis, Axis]) -> dict[Axis, str]:
    """Names after the first module that makes the units, with their role where a module has several sets of them."""
    outer = set(parents.values())
    chosen = {leaf for leaf in stored if leaf.size > 1 and (not leaf.frozen or leaf in outer)}
    homes: dict[Axis, str] = {}
    for making in (True, False):
        for tensor, axes in trace.tensors.items():
            module = tensor.rpartition(".")[0]
            for leaves in _alternatives(_made(trace, module, axes) if making else axes):
                for leaf in leaves:
                    if leaf in chosen:
                        homes.setdefault(leaf, SPECIAL.sub("_", module or tensor))
    several = Counter(homes.values())
    roles: dict[Axis, str] = {}
    for role, axis in trace.roles:
        for leaves in _alternatives([axis]):
            for leaf in leaves:
                roles.setdefault(leaf, "queries" if role == "heads" and leaf in parents else role)
    names: dict[Axis, str] = {}
    taken: set[str] = set()
    for leaf in (leaf for leaf in stored if leaf in homes):
        name = homes[leaf]
        if several[name] > 1 or leaf in parents or leaf in outer:
            name += ":" + roles.get(leaf, "groups" if leaf in outer else "units")
        names[leaf] = next(n for n in chain([name], (f"{name}.{k}" for k in count(2))) if n not in taken)
        taken.add(names[leaf])
    return names


def _made(trace: Trace, module: str, axes: Sequence[Axis]) -> Sequence[Axis]:
    """The axis of a matrix along which its layer's outputs lie: its bias tells, else it is the first."""
    if len(axes) < 2:
        return ()
    bias = trace.tensors.get(f"{module}.bias")
    if bias and len(bias) == 1:
        return [axis for axis in axes if axis.root is bias[0].root]
    return axes[1:] if any(leaf.frozen == LOOKED_UP for leaf in axes[0].leaves()) else axes[:1]


def _node(axis: Axis, names: Mapping[Axis, str]) -> Node:
    node = axis.root
    if node.kind == "concatenation":
        return joined([_node(part, names) for part in node.pieces()])
    factors = node.factors()
    for place, factor in enumerate(factors):
        if any(_is_member_of(leaf, factor) for part in factors for leaf in part.leaves()):
            inner = [[part.member(factor, row) for part in factors[place + 1 :]] for row in range(factor.size)]
            rows = [multiplied([_node(part, names) for part in row]) for row in inner]
            return multiplied([*(_node(part, names) for part in factors[:place]), joined(rows)])
    if len(factors) > 1:
        return multiplied([_node(factor, names) for factor in factors])
    if not factors:
        return Leaf(node.size)
    return Leaf(node.size, names.get(node)) if node.kind == "leaf" else _node(factors[0], names)


def _reason(axis: Axis) -> str:
    told: dict[str, None] = {}
    for choice in _alternatives([axis]):
        # rows with units of their own are pieces, whose order is no loss
        rows = {outer.root for leaf in axis.leaves() for outer, _ in leaf.members}
        told |= dict.fromkeys(leaf.frozen for leaf in choice if leaf.frozen and leaf.size > 1 and leaf not in rows)
    return "; ".join(told)
