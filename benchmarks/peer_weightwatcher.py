"""The peer's worker: weightwatcher's `analyze` with its defaults, on the same matrices as a dict of tensors.

Runs in the peers' environment (peers.py), where there is no workbench.
"""

import logging
import sys
import time
from typing import Any

import torch
from dialogue import serve
from minilm import minilm_matrices

torch.set_num_threads(int(sys.argv[1]))
MATRICES = minilm_matrices()


def analysed() -> tuple[float, Any]:
    import weightwatcher  # here, where `serve` discards what it prints

    logging.disable(logging.CRITICAL)
    watcher = weightwatcher.WeightWatcher(model=dict(MATRICES))
    begin = time.perf_counter()
    details = watcher.analyze()
    return time.perf_counter() - begin, details


def run() -> dict[str, Any]:
    seconds, details = analysed()
    return {"seconds": seconds, "layers": len(details)}


def alpha() -> dict[str, Any]:
    _, details = analysed()
    return dict(zip(details["longname"], map(float, details["alpha"]), strict=True))


serve({"run": run, "alpha": alpha})
