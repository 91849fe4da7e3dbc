"""Our worker: `wb.spectrum` on MiniLM, what it is made of, and its details on a ResNet-20."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from dialogue import serve
from minilm import minilm_file, minilm_matrices
from resnet20 import resnet20

import workbench as wb
from workbench.layers import Layer
from workbench.layers.views import layer_views
from workbench.linalg.gram import gram, symmetric_eigenvalues

torch.set_num_threads(int(sys.argv[1]))
MATRICES = minilm_matrices()
FILE = os.fspath(minilm_file())
RESNET = resnet20()


def timed(call: Callable[[], int]) -> Callable[[], dict[str, Any]]:
    """The call's wall seconds and CPU seconds of all threads; it gives the number of layers."""

    def run() -> dict[str, Any]:
        begin, busy = time.perf_counter(), time.process_time()
        layers = call()
        return {
            "seconds": time.perf_counter() - begin,
            "cpu_seconds": time.process_time() - busy,
            "layers": layers,
        }

    return run


def analysed(model: Any, **options: Any) -> int:
    return len(wb.spectrum(model, **options).tables["layers"]["layer"])


def bare() -> int:
    """Loading, Gram and eigenvalues of the matrices of the file: the same functions of ours, and nothing else."""
    weights = wb.load(FILE)
    names = [view.tensor for view in layer_views(weights) if isinstance(view, Layer)]
    for name in names:
        symmetric_eigenvalues([gram(weights.borrowed(name))], overwrite=True)
    return len(names)


def alpha() -> dict[str, Any]:
    table = wb.spectrum(MATRICES, compat="weightwatcher").tables["weightwatcher"]
    return dict(zip(table["longname"], table["alpha"], strict=True))


serve(
    {
        "run": timed(lambda: analysed(MATRICES)),
        "whole": timed(lambda: analysed(FILE)),
        "bare": timed(bare),
        "details": timed(lambda: analysed(RESNET, detail=("noise", "randomised", "det_x"), compat="weightwatcher")),
        "alpha": alpha,
    }
)
