"""Our worker: `wb.spectrum` on MiniLM's matrices."""

import sys
import time
from typing import Any

import torch
from dialogue import serve
from minilm import minilm_matrices

import workbench as wb

torch.set_num_threads(int(sys.argv[1]))
MATRICES = minilm_matrices()


def run() -> dict[str, Any]:
    begin = time.perf_counter()
    result = wb.spectrum(MATRICES)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "layers": len(result.tables["layers"]["layer"])}


def alpha() -> dict[str, Any]:
    table = wb.spectrum(MATRICES, compat="weightwatcher").tables["weightwatcher"]
    return dict(zip(table["longname"], table["alpha"], strict=True))


serve({"run": run, "alpha": alpha})
