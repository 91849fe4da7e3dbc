"""What a benchmark row is: a name, a measurement, and the bound it must keep."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Judged = Literal["ours", "difference", "ratio"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Repetitions of ours and of what it is compared with.

    Attributes:
        ours: one value per repetition.
        baseline: the value that ran beside it, repetition by repetition; empty if there is nothing to compare with.
        unit: of both.
        note: what the reader must know, printed below the table.
    """

    ours: tuple[float, ...]
    baseline: tuple[float, ...] = ()
    unit: str = "s"
    note: str = ""

    def each(self, judged: Judged) -> tuple[float, ...]:
        """Ours, ours − baseline or baseline/ours of every repetition; one NaN if there is no baseline."""
        if judged == "ours":
            return self.ours
        if not self.baseline:
            return (math.nan,)
        pairs = zip(self.ours, self.baseline, strict=True)
        return tuple(ours - theirs if judged == "difference" else theirs / ours for ours, theirs in pairs)

    def median(self, judged: Judged) -> float:
        """The median over the repetitions: what a bound judges."""
        return statistics.median(self.each(judged))


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What an issue promised: limits on one of a measurement's numbers.

    Attributes:
        judged: `ours`, `difference` (ours − baseline) or `ratio` (baseline/ours).
        at_least: lower limit.
        at_most: upper limit.
    """

    judged: Judged
    at_least: float = -math.inf
    at_most: float = math.inf

    def holds(self, measurement: Measurement) -> bool:
        """Whether the measurement keeps the bound; NaN does not."""
        return self.at_least <= measurement.median(self.judged) <= self.at_most

    def against(self, measurement: Measurement) -> str:
        """The judged number beside its limits, as the table shows it."""
        limits = [f"≥ {self.at_least:g}"] if self.at_least > -math.inf else []
        limits += [f"≤ {self.at_most:g}"] if self.at_most < math.inf else []
        return f"{self.judged} {measurement.median(self.judged):.3g} {' and '.join(limits)}"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: what `run.py --only` takes.
        bound: the bound that an issue states; None for a number that is only shown.
        measure: runs the benchmark.
    """

    name: str
    bound: Bound | None
    measure: Callable[[], Measurement]
