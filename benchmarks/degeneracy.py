"""M′ of a segment with a closed form against the exact loop of vector-Jacobian products."""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from dialogue import Worker
from rows import Bound, Measurement, Row

CLOSED = 5  # turns of the closed form around the loop's one; the first, a warm-up, is not counted


@cache
def grams(segment: str) -> dict[str, Any]:
    """Both ways on one thread in one warm process."""
    with Worker(Path(sys.executable), "degeneracy_worker.py", threads=1) as worker:
        closed = [worker.ask(f"closed {segment}") for _ in range(CLOSED + 1)][1:]
        exact = worker.ask(f"exact {segment}")
        return {"closed": closed, "exact": exact, "difference": worker.ask(f"difference {segment}")["difference"]}


def speed(segment: str, what: str) -> Callable[[], Measurement]:
    def measure() -> Measurement:
        found = grams(segment)
        ours = tuple(turn["cpu_seconds"] for turn in found["closed"])
        note = f"{what}, {found['closed'][0]['pattern']}, float64, one thread; recognising and verifying included"
        return Measurement(ours=ours, baseline=(found["exact"]["cpu_seconds"],) * len(ours), unit="CPU s", note=note)

    return measure


def agreement(segment: str) -> Callable[[], Measurement]:
    def measure() -> Measurement:
        return Measurement(ours=(grams(segment)["difference"],), unit="relative", note="‖M′ − M′ exact‖/‖M′ exact‖")

    return measure


RELU, CONVOLUTION = "ReLU(Linear(256 → 256)), n = 4096", "conv1 → conv2 of digits-cnn32-seed0, 16 images of 8×8"
ROWS = [
    Row("closed-form-relu", Bound(judged="ratio", at_least=50), speed("relu", RELU)),
    Row("closed-form-relu-difference", Bound(judged="ours", at_most=1e-12), agreement("relu")),
    Row("closed-form-conv", Bound(judged="ratio", at_least=50), speed("convolution", CONVOLUTION)),
    Row("closed-form-conv-difference", Bound(judged="ours", at_most=1e-12), agreement("convolution")),
]
