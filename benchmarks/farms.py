"""`wb.farms` against the procedure of FARMS' released code, n = 200, on MiniLM's 37 matrices without embeddings."""

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from dialogue import Worker
from rows import Bound, Measurement, Row

REPETITIONS = 3
ASKED = {"reference": 2.5, "cover": 8.0}  # the issue, which names no number of threads
ONE_THREAD = {"reference": 1.4, "cover": 4.5}  # what holds on one, where LAPACK's float64 eigenvalues are 80 % of it
Sampling = Literal["reference", "cover"]
SAMPLINGS: tuple[Sampling, ...] = ("reference", "cover")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Seconds of each repetition by side, each side's α by layer, and our standard errors.

    On one thread the seconds are the processor's, which other processes disturb less; on several they are wall time.
    """

    seconds: dict[str, tuple[float, ...]]
    alphas: dict[str, dict[str, float]]
    errors: dict[str, float]

    def gaps(self, sampling: Sampling) -> dict[str, float]:
        """|Δα| of each layer against the released procedure."""
        released = self.alphas["released"]
        return {layer: abs(alpha - released[layer]) for layer, alpha in self.alphas[sampling].items()}


@cache
def compared(threads: int) -> Comparison:
    """The sides turn by turn in one warm process: one warm-up, then the repetitions."""
    sides, clock = ("released", "released-both", "reference", "cover"), "cpu_seconds" if threads == 1 else "seconds"
    with Worker(Path(sys.executable), "farms_worker.py", threads=threads) as worker:
        turns = [{side: worker.ask(side) for side in sides} for _ in range(REPETITIONS + 1)][1:]
        errors = worker.ask("errors")
    return Comparison(
        seconds={side: tuple(turn[side][clock] for turn in turns) for side in sides},
        alphas={side: turns[0][side]["alphas"] for side in sides},
        errors=errors,
    )


def seconds(sampling: Sampling, threads: int) -> Callable[[], Measurement]:
    """Seconds of the whole call, full-matrix α and standard errors included, on so many threads."""

    def measure() -> Measurement:
        found = compared(threads).seconds
        pairs = zip(found["released-both"], found[sampling], strict=True)
        both = statistics.median(theirs / ours for theirs, ours in pairs)
        note = (
            f"the released windows alone, 37 matrices of MiniLM, n = 200, {REPETITIONS} turns; {both:.2f} against "
            f"windows and full matrices, which ours includes; the issue asks for {ASKED[sampling]:g}"
        )
        unit = "CPU s" if threads == 1 else "s"
        return Measurement(ours=found[sampling], baseline=found["released"], unit=unit, note=note)

    return measure


def gap(sampling: Sampling) -> Callable[[], Measurement]:
    """Largest |Δα| of one layer."""

    def measure() -> Measurement:
        gaps = compared(1).gaps(sampling)
        inside = sum(value <= 2 * compared(1).errors[layer] for layer, value in gaps.items())
        note = f"within two of our standard errors on {inside} of {len(gaps)} layers"
        return Measurement(ours=(max(gaps.values()),), unit="|Δα|", note=note)

    return measure


ROWS = [
    Row(
        f"farms-{sampling}-{threads}-thread{'s' * (threads > 1)}",
        Bound(judged="ratio", at_least=(ONE_THREAD if threads == 1 else ASKED)[sampling]),
        seconds(sampling, threads),
    )
    for sampling in SAMPLINGS
    for threads in (1, 2)
] + [
    Row("farms-reference-alpha", Bound(judged="ours", at_most=1e-5), gap("reference")),
    Row("farms-cover-alpha", Bound(judged="ours", at_most=0.03), gap("cover")),
]
