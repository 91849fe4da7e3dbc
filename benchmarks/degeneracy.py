"""M′ in closed form against the exact loop of vector-Jacobian products; Grams, bases, sliders, memory."""

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


@cache
def reach(*commands: str) -> list[dict[str, Any]]:
    """Answers of one process with two threads."""
    with Worker(Path(sys.executable), "reach_worker.py", threads=2) as worker:
        return [worker.ask(command) for command in commands]


def minilm() -> Measurement:
    turns = reach(*["plain", "grams"] * 5)[2:]  # the first of each warms up
    ours, baseline = (tuple(turn["seconds"] for turn in turns[first::2]) for first in (1, 0))
    note = "MiniLM, 10 240 tokens, seven residual streams of 384, two threads; baseline: the forward pass alone"
    return Measurement(ours=ours, baseline=baseline, note=note)


def basis() -> Measurement:
    (found,) = reach("basis")
    return Measurement(ours=(found["seconds"],), note=f"digits-cnn32, 1437 images, float64; nodes {found['nodes']}")


def slider(name: str, unit: str) -> Callable[[], Measurement]:
    def measure() -> Measurement:
        turns = reach(*[f"slider {name} {unit}"] * 4)[1:]
        note = f"wb.ablated with {turns[0]['kept']} {unit} kept, 360 samples, two threads"
        return Measurement(ours=tuple(1000 * turn["seconds"] for turn in turns), unit="ms", note=note)

    return measure


def memory() -> Measurement:
    (few,), (many,) = reach("memory 8"), reach("memory 64")
    note = f"peak of wb.interaction_basis and wb.degeneracy over {many['samples']} samples against {few['samples']}"
    return Measurement(ours=(many["megabytes"],), baseline=(few["megabytes"],), unit="MB", note=note)


RELU, CONVOLUTION = "ReLU(Linear(256 → 256)), n = 4096", "conv1 → conv2 of digits-cnn32-seed0, 16 images of 8×8"
ROWS = [
    Row("closed-form-relu", Bound(judged="ratio", at_least=50), speed("relu", RELU)),
    Row("closed-form-relu-difference", Bound(judged="ours", at_most=1e-12), agreement("relu")),
    Row("closed-form-conv", Bound(judged="ratio", at_least=50), speed("convolution", CONVOLUTION)),
    Row("closed-form-conv-difference", Bound(judged="ours", at_most=1e-12), agreement("convolution")),
    Row("minilm-grams", Bound(judged="ratio", at_least=0.5), minilm),
    Row("basis-cnn", Bound(judged="ours", at_most=20), basis),
    Row("basis-memory", Bound(judged="difference", at_most=20), memory),
    *(
        Row(f"slider-{unit}-{name}", Bound(judged="ours", at_most=150), slider(name, unit))
        for name in ("digits-mlp512", "digits-cnn32", "modular-addition")
        for unit in ("nodes", "edges")
    ),
]
