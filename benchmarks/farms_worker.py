"""A worker of benchmarks/farms.py: `wb.farms`, and the procedures of FARMS' released code.

The released code is not ours to ship. What it does with a linear layer is done again here, with the same calls of
torch in the same order (github.com/HUST-AI-HYZ/FARMS at 8e07c3f): float32 singular values of 100 windows, one at a
time, sorted together, sorted again, and the fit at the median with its distance. Its α and D are compared with the
file of its own numbers by agreement.py. The code for language models, which wrote that file, stops there
(`released`); the code for vision analyses the full matrix too in every call (`released-both`), as `wb.farms` does.
Neither sets a number of threads: both take torch's.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from dialogue import serve
from minilm import minilm_matrices
from torch import Tensor

import workbench as wb

torch.set_num_threads(int(sys.argv[1]))
MATRICES = {name: one for name, one in minilm_matrices().items() if "embeddings" not in name}
WINDOW, STEPS = 200, 10


def released_windows(weight: Tensor) -> Tensor:
    matrix = weight.clone().float()
    steps = [max(1, (length - WINDOW) // (STEPS - 1)) for length in matrix.shape]
    many = [min(STEPS, (length - WINDOW) // step + 1) for length, step in zip(matrix.shape, steps, strict=True)]
    found = [
        torch.square(torch.linalg.svdvals(matrix[top : top + WINDOW, left : left + WINDOW]))
        for top in range(0, many[0] * steps[0], steps[0])
        for left in range(0, many[1] * steps[1], steps[1])
    ]
    return torch.sort(torch.cat(found)).values


def released_alpha(values: Tensor) -> float:
    total, largest = torch.sum(values), torch.max(values)
    (total / largest).item(), (total / len(values)).item()
    values = torch.sort(values).values
    values[-1].item(), torch.sum(values).item()
    logs, middle = torch.log(values), len(values) // 2
    size = float(len(values) - middle)
    alpha = 1 + size / (torch.sum(logs[middle:]) - size * logs[middle])
    fitted = 1 - (values[middle:] / values[middle]) ** (1 - alpha)
    torch.max(torch.abs(fitted - torch.arange(size) / size)).item()
    return alpha.item()


def released(full: bool) -> dict[str, float]:
    if full:
        for weight in MATRICES.values():
            released_alpha(torch.square(torch.linalg.svdvals(weight.clone().float())))
    return {name.removesuffix(".weight"): released_alpha(released_windows(one)) for name, one in MATRICES.items()}


def timed(alphas: Callable[[], dict[str, float]]) -> Callable[[], dict[str, Any]]:
    def run() -> dict[str, Any]:
        begin, busy = time.perf_counter(), time.process_time()
        found = alphas()
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - busy
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "alphas": found}

    return run


def ours(**options: Any) -> dict[str, float]:
    table = wb.farms(MATRICES, window=WINDOW, **options).tables["layers"]
    return dict(zip(table["layer"], table["alpha"], strict=True))


def errors() -> dict[str, Any]:
    table = wb.farms(MATRICES, window=WINDOW).tables["layers"]
    return dict(zip(table["layer"], table["alpha_error"], strict=True))


serve(
    {
        "released": timed(lambda: released(full=False)),
        "released-both": timed(lambda: released(full=True)),
        "reference": timed(lambda: ours(sampling="reference", steps=STEPS)),
        "cover": timed(ours),
        "errors": errors,
    }
)
