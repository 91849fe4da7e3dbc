"""How many nodes or edges an ablation keeps, one after the other."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias

from workbench.errors import ArgumentError, nearest

Kind: TypeAlias = Literal["linear", "exponential", "bisect"]
KINDS = ("linear", "exponential", "bisect")
POINTS = 25  # of a linear schedule, as many as on a line between two checkpoints


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The counts to evaluate; made by `schedule_of`.

    Attributes:
        kind: how the counts come about; `bisect` chooses each by what was found at the last.
        counts: those known beforehand, rising; empty for `bisect`.
        total: the count that keeps everything.
    """

    kind: str
    counts: tuple[int, ...]
    total: int

    @property
    def length(self) -> int:
        """Number of counts that are evaluated, at most."""
        return len(self.counts) or math.ceil(math.log2(self.total + 1))

    def walk(self, passes: Callable[[int], bool]) -> Iterator[int]:
        """The counts in the order in which they are evaluated, from the least ablation on.

        Args:
            passes: whether a count that was evaluated is good enough; only `bisect` asks.
        """
        if self.counts:
            yield from reversed(self.counts)
            return
        failed, passed = -1, self.total
        while passed - failed > 1:
            middle = (passed + failed) // 2
            yield middle
            passed, failed = (middle, failed) if passes(middle) else (passed, middle)


def schedule_of(kind: str, counts: Iterable[int] | None, total: int, **options: Any) -> Schedule:
    """A schedule of counts from 0 to `total`.

    Args:
        kind: one of KINDS.
        counts: the counts themselves, whatever the kind.
        total: the count that keeps everything.
        options: `points`, `every` and `base`, as in `ablation`.

    Raises:
        ArgumentError: something is out of its range.
    """
    if kind not in KINDS:
        raise ArgumentError(f"schedule={kind!r}: expected {', '.join(map(repr, KINDS))}.{nearest(kind, KINDS)}")
    points, every, base = options["points"], options["every"], options["base"]
    if points is not None and kind != "linear":
        raise ArgumentError(f"points={points!r} goes with schedule='linear'; got schedule={kind!r}.")
    if points is not None and (not _whole(points) or points < 2):
        raise ArgumentError(f"points={points!r}: expected a number of counts with both ends, at least 2, or None.")
    if not _whole(every) or every < 0:
        raise ArgumentError(f"every={every!r}: expected up to which count each one is evaluated, at least 0.")
    if not isinstance(base, Real) or isinstance(base, bool) or not 1 < float(base) < math.inf:
        raise ArgumentError(f"base={base!r}: expected the growth of the steps, a number above 1.")
    if counts is not None:
        return Schedule(kind="counts", counts=_given(counts, total), total=total)
    found = {
        "linear": lambda: linear(total, points or POINTS),
        "exponential": lambda: exponential(total, every, float(base)),
    }
    return Schedule(kind=kind, counts=found[kind]() if kind in found else (), total=total)


def linear(total: int, points: int) -> tuple[int, ...]:
    """Evenly spaced counts with both ends; fewer where there are not so many.

    Example:
        >>> linear(10, 5)
        (0, 2, 5, 8, 10)
    """
    return tuple(sorted({round(place * total / (points - 1)) for place in range(points)}))


def exponential(total: int, every: int, base: float) -> tuple[int, ...]:
    """Each count up to `every`, then steps that grow by the factor `base`, and `total`.

    Example:
        >>> exponential(24, 3, 2.0)
        (0, 1, 2, 3, 4, 6, 10, 18, 24)
    """
    counts = set(range(min(every, total) + 1))
    place, step = float(every), 1.0
    while place + step < total:
        place += step
        step *= base
        counts.add(int(place))
    return (*sorted(counts), total) if total not in counts else tuple(sorted(counts))


def _given(counts: Iterable[int], total: int) -> tuple[int, ...]:
    message = f"counts={counts!r}: expected whole numbers from 0 to {total}, at least one."
    try:
        given = list(counts)
        found = sorted({operator.index(count) for count in given})
    except TypeError as error:
        raise ArgumentError(message) from error
    if not found or found[0] < 0 or found[-1] > total or any(isinstance(count, bool) for count in given):
        raise ArgumentError(message)
    return tuple(found)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
