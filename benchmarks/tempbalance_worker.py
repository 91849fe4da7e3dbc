"""A worker of benchmarks/spectra.py: an epoch of training with and without a `wb.TempBalanceScheduler`, and its step.

The network, the batches and the optimizer are those of data/checkpoints' digits-mlp512. Time does not ask what the
images show: they are random, as many as digits has.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from dialogue import serve
from torch import nn
from torch.nn.functional import cross_entropy

import workbench as wb

torch.set_num_threads(int(sys.argv[1]))
IMAGES, BATCH, WIDTH = 1437, 64, 512


def run() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    layers = [nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10)]
    module = nn.Sequential(*layers)
    return module, torch.optim.Adam(module.parameters(), 1e-3)


def epoch(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for rows in torch.randperm(IMAGES).split(BATCH):
        optimizer.zero_grad()
        cross_entropy(module(INPUTS[rows]), TARGETS[rows]).backward()
        optimizer.step()


def timed(call: Callable[[], Any]) -> Callable[[], dict[str, Any]]:
    def measure() -> dict[str, Any]:
        begin = time.process_time()
        call()
        return {"cpu_seconds": time.process_time() - begin}

    return measure


INPUTS, TARGETS = torch.rand(IMAGES, 64), torch.randint(10, (IMAGES,))
PLAIN, BALANCED = run(), run()
SCHEDULER = wb.TempBalanceScheduler(BALANCED[1], BALANCED[0])

serve(
    {
        "epoch": timed(lambda: epoch(*PLAIN)),
        "balanced": timed(lambda: epoch(*BALANCED)),
        "step": timed(SCHEDULER.step),
    }
)
