"""The peer's worker: weightwatcher's `analyze`, with its defaults on the same matrices, in full on the same ResNet-20.

Runs in the peers' environment (peers.py), where there is no workbench.
"""

import logging
import sys
import time
from typing import Any

import torch
from dialogue import serve
from minilm import minilm_matrices
from resnet20 import resnet20

torch.set_num_threads(int(sys.argv[1]))
MATRICES = minilm_matrices()


def analysed(model: Any, **options: bool) -> dict[str, Any]:
    """Seconds of the call, its CPU seconds, and the table."""
    import weightwatcher  # here, where `serve` discards what it prints

    logging.disable(logging.CRITICAL)
    watcher = weightwatcher.WeightWatcher(model=model)
    begin, busy = time.perf_counter(), time.process_time()
    table = watcher.analyze(**options)
    return {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - busy, "table": table}


def counted(measured: dict[str, Any]) -> dict[str, Any]:
    return {"layers": len(measured.pop("table"))} | measured


def alpha() -> dict[str, Any]:
    table = analysed(dict(MATRICES))["table"]
    return dict(zip(table["longname"], map(float, table["alpha"]), strict=True))


serve(
    {
        "run": lambda: counted(analysed(dict(MATRICES))),
        "details": lambda: counted(analysed(resnet20(), mp_fit=True, randomize=True, detX=True)),
        "alpha": alpha,
    }
)
