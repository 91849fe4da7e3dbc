"""`wb.merge` of three checkpoints of 1 GB beside a plain weighted average through the same I/O, and beside mergekit."""

import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from dialogue import Worker
from diff import SIDE, make
from peers import peers_python
from rows import Bound, Measurement, Row

REPETITIONS = 5
METHODS = ("task_arithmetic", "ties")


@cache
def measured() -> dict[str, Any]:
    """The average, and each merge beside mergekit's, turn by turn; two threads; memory before mergekit has begun."""
    with tempfile.TemporaryDirectory() as folder:
        make(folder, "float32")
        os.environ["WORKBENCH_MERGE"] = folder
        with Worker(Path(sys.executable), "merge_worker.py", threads=2) as mine:
            mine.ask("average")
            for method in METHODS:
                mine.ask(f"ours {method}")
            found: dict[str, Any] = {"memory": mine.ask("memory")["bytes"]}
            with Worker(peers_python(), "merge_worker.py", threads=2) as theirs:
                found["difference"] = theirs.ask("difference")["difference"]
                turns = [turn(mine, theirs) for _ in range(REPETITIONS)]
    return found | {key: tuple(one[key] for one in turns) for key in turns[0]}


def turn(mine: Worker, theirs: Worker) -> dict[str, float]:
    """Seconds of everything once."""
    found = {"average": mine.ask("average")["seconds"]}
    for method in METHODS:
        found[f"ours {method}"] = mine.ask(f"ours {method}")["seconds"]
        found[f"peer {method}"] = theirs.ask(f"peer {method}")["seconds"]
    return found


def beside_average(method: str) -> Callable[[], Measurement]:
    def measure() -> Measurement:
        found = measured()
        note = "three checkpoints of 1.07 GB merged into a fourth, beside ¼a + ¼b + ½c through wb.load and wb.save"
        return Measurement(ours=found[f"ours {method}"], baseline=found["average"], note=note)

    return measure


def beside_mergekit(method: str) -> Callable[[], Measurement]:
    def measure() -> Measurement:
        found = measured()
        same = f"its task arithmetic is within {found['difference']:.1g} of θ₀ + ½Σ τ by hand"
        note = same if method == "task_arithmetic" else "it ranks each tensor by itself, ours the whole model"
        note = f"mergekit-pytorch 0.1.5, its options as they come, warm, the same files; {note}"
        return Measurement(ours=found[f"ours {method}"], baseline=found[f"peer {method}"], note=note)

    return measure


def memory_over() -> Measurement:
    """Peak resident set of all our merges, less six times the largest tensor."""
    peak, largest = measured()["memory"], 4 * SIDE**2
    note = f"peak {peak / 1e6:.0f} MB, imports and the average included, less 6 × {largest / 1e6:.0f} MB"
    return Measurement(ours=((peak - 6 * largest) / 1e6,), unit="MB", note=note)


ROWS = [
    Row("merge-task-arithmetic", Bound(judged="ratio", at_least=1 / 1.3), beside_average("task_arithmetic")),
    Row("merge-ties", Bound(judged="ratio", at_least=1 / 6), beside_average("ties")),
    Row("merge-memory", Bound(judged="ours", at_most=400), memory_over),
    Row("merge-mergekit-task-arithmetic", Bound(judged="ratio", at_least=1.5), beside_mergekit("task_arithmetic")),
    Row("merge-mergekit-ties", Bound(judged="ratio", at_least=1.5), beside_mergekit("ties")),
]
