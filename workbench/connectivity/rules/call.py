"""One rule for each tensor operation, found by its name in torch's ATen: what it does to axes.

A rule unifies the axes that the operation pairs, freezes those whose order it reads, and returns the axes of what it
gives. `TracedCall.within` names axes that the operation uses jointly without showing it in its output (the rows over
which a softmax sums): whoever asks which units may be permuted apart needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from workbench.connectivity.axes import Axis, freeze, unify

Axes: TypeAlias = list[Axis]
Rule: TypeAlias = Callable[["TracedCall"], Any]
RULES: dict[str, Rule] = {}
LOOKED_UP = "looked up by index"


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule under the names of ATen operations, without overload and trailing underscore."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


class TracedCall:
    """One call of an operation: its arguments by name, with the axes of tensors in their place.

    Attributes:
        name: the operation, as in `RULES`.
        arguments: name in torch's schema → value; tensors are lists of axes.
        shapes: shape of each tensor that it returns.
        used: whether each of them is read later.
        within: joint axes that the output does not show.
        roles: what some axes are called where they are used: heads, qk, v.
    """

    def __init__(
        self, name: str, arguments: dict[str, Any], shapes: Sequence[Sequence[int]], used: Sequence[bool] = ()
    ) -> None:
        self.name, self.arguments = name, arguments
        self.shapes = [tuple(int(size) for size in shape) for shape in shapes]
        self.used = list(used) or [True] * len(shapes)
        self.within: list[Axes] = []
        self.roles: list[tuple[str, Axis]] = []

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, *names: str) -> Any:
        """The first of these arguments that the overload has; None if it has none of them."""
        return next((self.arguments[name] for name in names if name in self.arguments), None)

    @property
    def first(self) -> Axes:
        """The axes of the first argument that is a tensor."""
        return next(value for value in self.arguments.values() if is_axes(value))

    def tensors(self) -> list[Axes]:
        """The axes of every argument that is a tensor, in order."""
        found: list[Axes] = []
        for value in self.arguments.values():
            if is_axes(value):
                found.append(value)
            elif isinstance(value, list | tuple):
                found += [item for item in value if is_axes(item)]
        return found


class AxesOf(list[Axis]):
    """The axes of one tensor; a class of its own, so that lists of numbers are not taken for it."""


def is_axes(value: object) -> bool:
    """Whether an argument is a tensor."""
    return isinstance(value, AxesOf)


def fresh(sizes: Iterable[int], frozen: str | None = None) -> Axes:
    """New axes of the given sizes."""
    return [Axis(size, frozen) for size in sizes]


def aligned(*tensors: Sequence[Axis]) -> Axes:
    """Axes after broadcasting: from the right, equal sizes unified, units stretched."""
    width = max(map(len, tensors), default=0)
    found: Axes = []
    for place in range(-width, 0):
        here = [axes[place] for axes in tensors if len(axes) >= -place]
        long = [axis for axis in here if axis.size != 1]
        for other in long[1:]:
            unify(long[0], other)
        found.append(long[0] if long else here[0])
    return found


def places(dims: int | Sequence[int] | None, rank: int) -> list[int]:
    """Dimensions as non-negative numbers; None and an empty list are all of them."""
    if dims is None or (not isinstance(dims, int) and len(dims) == 0):
        return list(range(rank))
    return [dim % max(rank, 1) for dim in ([dims] if isinstance(dims, int) else dims)]


def reduced(axes: Sequence[Axis], dims: Iterable[int], keep: bool) -> Axes:
    """Axes without those that are summed over."""
    gone = set(dims)
    return [Axis(1) if place in gone else axis for place, axis in enumerate(axes) if keep or place not in gone]


def freeze_order(call: TracedCall, axes: Axes, dims: Iterable[int], reason: str) -> None:
    """Freezes axes along which the operation mixes positions or gives them new places.

    What lies inside such an axis cannot be ordered anew at each position, however the output's axis is used later.
    """
    gone = set(dims)
    freeze_all((axes[dim] for dim in gone), reason)
    call.within.append(reduced(axes, gone, keep=False))


def freeze_all(axes: Iterable[Axis], reason: str) -> None:
    """Freezes each of them."""
    for axis in axes:
        freeze(axis, reason)
