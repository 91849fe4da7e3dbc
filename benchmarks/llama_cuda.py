"""CUDA against the CPU of the same machine on Llama-7B's shapes in bf16: `python benchmarks/llama_cuda.py`.

Every shape is made once, of Gaussian weights; a model's total is that times the number of its matrices, and labelled as
extrapolated. It is no row of run.py, since most machines have nothing to run it on. (A file named cuda.py would hide
the package of that name from torch.)
"""

import argparse
import importlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import workbench as wb

SOLVER = "symmetric_eigenvalues"
CALLERS = tuple(map(importlib.import_module, ("workbench.linalg.gram", "workbench.spectra.windows")))
SHAPES = {  # name → shape, and how many of it Llama-7B has: 32 blocks, an embedding and a head
    "attention": ((4096, 4096), 128),
    "gate_up": ((11008, 4096), 64),
    "down": ((4096, 11008), 32),
    "vocabulary": ((32000, 4096), 2),
}
MEMORY_LIMIT, DIFFERENCE_LIMIT = 8e9, 1e-6  # bytes and relative: what the issue asks for
Analysis = Callable[[dict[str, Tensor], str], Any]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One analysis of one matrix on one device: its result, wall seconds, those inside the eigensolver, peak bytes."""

    result: Any
    seconds: float
    solving: float
    peak: int


@contextmanager
def eigensolver_clock() -> Iterator[list[float]]:
    """Seconds of each call of the eigensolver meanwhile; on CUDA each is waited for."""
    solver, spent = getattr(CALLERS[0], SOLVER), list[float]()

    def clocked(symmetric: Any, **options: Any) -> Any:
        synchronise()
        begin = time.perf_counter()
        found = solver(symmetric, **options)
        synchronise()
        spent.append(time.perf_counter() - begin)
        return found

    try:
        for module in CALLERS:
            setattr(module, SOLVER, clocked)
        yield spent
    finally:
        for module in CALLERS:
            setattr(module, SOLVER, solver)


def synchronise() -> None:
    """Waits for CUDA, if there is any."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timing(analysis: Analysis, model: dict[str, Tensor], device: str) -> Timing:
    """The analysis on one device; CUDA is warmed up by a small matrix first."""
    analysis({"warm.weight": torch.randn(64, 64)}, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with eigensolver_clock() as spent:
        begin = time.perf_counter()
        result = analysis(model, device)
        synchronise()
        seconds = time.perf_counter() - begin
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return Timing(result=result, seconds=seconds, solving=sum(spent), peak=peak)


def difference(one: Any, other: Any) -> float:
    """Largest relative difference of any number of a layer, and of any eigenvalue relative to the largest."""
    worst = 0.0
    for name, column in one.tables["layers"].items():
        for mine, theirs in zip(column, other.tables["layers"][name], strict=True):
            if isinstance(mine, float) and not (math.isnan(mine) or math.isnan(theirs)):
                worst = max(worst, abs(mine - theirs) / max(abs(theirs), sys.float_info.min))
            elif name != "reason" and repr(mine) != repr(theirs):
                raise RuntimeError(f"{name} is {mine!r} on one device and {theirs!r} on the other")
    for layer, mine in one.eigenvalues.items():
        theirs = other.eigenvalues[layer]
        worst = max(worst, float((mine - theirs).abs().max() / theirs.max()))
    return worst


def compared(name: str, analysis: Analysis, device: str) -> tuple[int, float]:
    """Prints a line per shape and the extrapolated model; peak bytes and the largest difference."""
    peaks, gaps, totals = [0], [0.0], {device: 0.0, "cpu": 0.0}
    for kind, (shape, matrices) in SHAPES.items():
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(len(gaps))).mul_(0.02).to(torch.bfloat16)
        fast, slow = (timing(analysis, {f"{kind}.weight": weight}, place) for place in (device, "cpu"))
        peaks.append(fast.peak)
        gaps.append(difference(fast.result, slow.result))
        totals[device] += matrices * fast.seconds
        totals["cpu"] += matrices * slow.seconds
        print(
            f"{name:9} {kind:10} {shape[0]:5} × {shape[1]:5}  {device} {fast.seconds:7.2f} s "
            f"({fast.solving / fast.seconds:3.0%} eigensolver)  cpu {slow.seconds:7.2f} s "
            f"({slow.solving / slow.seconds:3.0%})  ratio {slow.seconds / fast.seconds:5.1f}  "
            f"peak {fast.peak / 1e9:.2f} GB  difference {gaps[-1]:.1e}",
            flush=True,
        )
    ratio = totals["cpu"] / totals[device]
    many = sum(matrices for _, matrices in SHAPES.values())
    print(
        f"{name:9} Llama-7B, {many} matrices, extrapolated: "
        f"{device} {totals[device]:.0f} s, cpu {totals['cpu']:.0f} s, ratio {ratio:.1f}"
    )
    return max(peaks), max(gaps)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--window", type=int, default=2000, help="rows of FARMS' windows; the paper's for Llama is 2000"
    )
    window = parser.parse_args().window
    if not torch.cuda.is_available():
        print("torch sees no CUDA device here: nothing was measured", file=sys.stderr)
        return 1
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {torch.get_num_threads()} CPU threads")
    found = [
        compared("spectrum", lambda model, device: wb.spectrum(model, device=device), "cuda"),
        compared("farms", lambda model, device: wb.farms(model, window=window, xmin="peak", device=device), "cuda"),
    ]
    peak, gap = (max(values) for values in zip(*found, strict=True))
    kept = peak <= MEMORY_LIMIT and gap <= DIFFERENCE_LIMIT
    print(f"peak {peak / 1e9:.2f} GB ≤ 8, difference {gap:.1e} ≤ 1e-6: {'yes' if kept else 'NO'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
