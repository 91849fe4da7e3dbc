"""One side of the comparison with rebasin: matches two MLPs of a folder; ours or the peer's by what is installed.

WORKBENCH_MATCHING names the folder with a.safetensors and b.safetensors.
"""

import copy
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from dialogue import serve
from safetensors.torch import load_file
from torch import nn

FOLDER = Path(os.environ["WORKBENCH_MATCHING"])


def network(name: str) -> nn.Sequential:
    """64 → width → width → 10 with the weights of a file."""
    weights = load_file(FOLDER / f"{name}.safetensors")
    width = len(weights["0.bias"])
    module = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    module.load_state_dict(weights)
    return module


A, B = network("a"), network("b")
INPUTS = torch.rand(8, 64, generator=torch.Generator().manual_seed(0))


def objective(other: nn.Module) -> float:
    return sum(
        float((x.detach().double() * y.detach().double()).sum())
        for x, y in zip(A.parameters(), other.parameters(), strict=True)
    )


def ours() -> dict[str, Any]:
    """Matching by weights without singular vectors, its result applied; finding the groups apart."""
    import workbench as wb

    cpu = time.process_time()
    groups = wb.permutation_groups(A, INPUTS)
    traced = time.process_time() - cpu
    moved = copy.deepcopy(B)
    begin, cpu = time.perf_counter(), time.process_time()
    found = wb.match(groups, A, B, gammas=(), device="cpu")
    moved.load_state_dict(dict(found.apply(B)))
    times = {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu}
    return times | {"traced": traced, "objective": objective(moved)}


def peer() -> dict[str, Any]:
    """Coordinate descent of rebasin, its result applied; its constructor traces the network."""
    from rebasin import PermutationCoordinateDescent

    moved, cpu = copy.deepcopy(B), time.process_time()
    descent = PermutationCoordinateDescent(A, moved, INPUTS)
    traced = time.process_time() - cpu
    begin, cpu = time.perf_counter(), time.process_time()
    descent.rebasin()
    times = {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu}
    return times | {"traced": traced, "objective": objective(moved)}


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    serve({"ours": ours, "peer": peer})
