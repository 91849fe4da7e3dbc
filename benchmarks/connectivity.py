"""Matching against the PyPI package rebasin, and a module of GPT-2-small's shape."""

import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from dialogue import ROOT, Worker
from peers import peers_python
from rows import Bound, Judged, Measurement, Row
from safetensors.torch import save_file

REPETITIONS = 21


@cache
def trained(width: int) -> Path:
    """A folder with two MLPs of this width, trained on the digits from seeds 0 and 1."""
    sys.path.insert(0, str(ROOT / "data"))
    import architectures
    import build

    folder = Path(tempfile.mkdtemp())
    recipe = dataclasses.replace(build.RECIPES["digits-mlp512"], module=lambda: architectures.mlp(width))
    for seed, name in enumerate("ab"):
        save_file(build.train(recipe, seed).state_dict(), folder / f"{name}.safetensors")
    return folder


@cache
def matched(width: int) -> dict[str, list[dict[str, Any]]]:
    """Both sides turn by turn on one thread, a warm-up apart."""
    os.environ["WORKBENCH_MATCHING"] = str(trained(width))
    with (
        Worker(Path(sys.executable), "matching_worker.py", threads=1) as mine,
        Worker(peers_python(), "matching_worker.py", threads=1) as theirs,
    ):
        turns = [(mine.ask("ours"), theirs.ask("peer")) for _ in range(REPETITIONS + 1)][1:]
    return {"ours": [turn[0] for turn in turns], "peer": [turn[1] for turn in turns]}


def speed(width: int) -> Callable[[], Measurement]:
    def measure() -> Measurement:
        found = matched(width)
        ours, theirs = (tuple(turn["cpu_seconds"] for turn in found[side]) for side in ("ours", "peer"))
        traced = [min(turn["traced"] for turn in found[side]) for side in ("ours", "peer")]
        note = (
            f"rebasin 0.0.47, one thread, {REPETITIONS} turns, results applied; following the network before costs us "
            f"{traced[0]:.2g} s and rebasin {traced[1]:.2g} s"
        )
        return Measurement(ours=ours, baseline=theirs, unit="CPU s", note=note)

    return measure


def objective(width: int) -> Callable[[], Measurement]:
    def measure() -> Measurement:
        found = matched(width)
        best = max(turn["objective"] for turn in found["peer"])
        note = f"Σ⟨A, π(B)⟩ {found['ours'][0]['objective']:.6g} against rebasin's best of {REPETITIONS}, {best:.6g}"
        return Measurement(ours=(found["ours"][0]["objective"] / best,), unit="of rebasin's", note=note)

    return measure


@cache
def gpt2(command: str) -> dict[str, Any]:
    with Worker(Path(sys.executable), "gpt2_worker.py", threads=2) as worker:
        return worker.ask(command)


def groups() -> Measurement:
    found = gpt2("groups")
    note = f"{found['groups']} groups, the function seen unchanged: {found['verified']}"
    return Measurement(ours=(found["seconds"],), note=note)


def large(kind: str, column: str, unit: str) -> Callable[[], Measurement]:
    def measure() -> Measurement:
        found = gpt2(kind)
        rate = found["gained"] / found["seconds"]
        note = (
            f"{kind} networks: objective {found['objective']:.6g}, {rate:.3g} gained a second; {found['seconds']:.0f} "
            f"s and {found['all_sweeps']} sweeps in all, two threads; ‖A − π(B)‖ {found['reduction']:.1%} below ‖A − B‖"
        )
        return Measurement(ours=(float(found[column]),), unit=unit, note=note)

    return measure


def at(judged: Judged, *, least: float | None = None, most: float | None = None) -> Bound:
    limits = {} if least is None else {"at_least": least}
    return Bound(judged=judged, **limits, **({} if most is None else {"at_most": most}))


ROWS = [
    Row("matching-512", at("ratio", least=4), speed(512)),
    Row("matching-512-objective", at("ours", least=1), objective(512)),
    Row("matching-1024", at("ratio", least=2), speed(1024)),
    Row("matching-1024-objective", at("ours", least=1), objective(1024)),
    Row("gpt2-groups", at("ours", most=15), groups),
    Row("gpt2-planted-sweeps", at("ours", most=4), large("planted", "sweeps", "sweeps to 99 %")),
    Row("gpt2-independent-sweeps", at("ours", most=4), large("independent", "sweeps", "sweeps to 99 %")),
    Row("gpt2-memory", at("ours", most=4), large("independent", "models", "models")),
]
