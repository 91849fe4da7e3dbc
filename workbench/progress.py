"""One way to run over many layers: progress, cancelling, and failures as outcomes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from workbench.errors import Cancelled

U = TypeVar("U")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands: `done` of `total` units are finished and `item` comes next.

    Attributes:
        done: units finished.
        total: units in all.
        item: name of the unit about to start; empty once all are done.
        seconds: wall time since the run began.
    """

    done: int
    total: int
    item: str
    seconds: float


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True)
class Outcome(Generic[U, R]):
    """What became of one unit: a value, or the error that stopped it."""

    unit: U
    value: R | None
    error: Exception | None


def map_units(
    function: Callable[[U], R],
    units: Sequence[U],
    *,
    name: Callable[[U], str],
    progress: ProgressCallback | None = None,
) -> list[Outcome[U, R]]:
    """`function` over `units` in order, each failure kept as its unit's outcome.

    Args:
        function: a plain function of one unit.
        units: what to run over.
        name: the unit's name, for the progress report.
        progress: called before each unit and once at the end; it may raise `Cancelled`.

    Returns:
        One outcome per unit.

    Raises:
        Cancelled: passed on from `progress`, its `partial` the outcomes so far.
    """
    begin = time.perf_counter()
    outcomes: list[Outcome[U, R]] = []

    def report(item: str) -> None:
        if progress is not None:
            seconds = time.perf_counter() - begin
            progress(Progress(done=len(outcomes), total=len(units), item=item, seconds=seconds))

    try:
        for unit in units:
            report(name(unit))
            try:
                outcomes.append(Outcome(unit, function(unit), None))
            except Exception as error:  # one layer must not lose the run: the caller turns this into a row
                outcomes.append(Outcome(unit, None, error))
        report("")
    except Cancelled as stop:
        stop.partial = outcomes
        raise
    return outcomes
