"""Groups and matching of a module of GPT-2-small's shape with random weights: time, sweeps, memory."""

import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from dialogue import serve
from torch import Tensor, nn

import workbench as wb


def gpt2() -> tuple[nn.Module, Any]:
    """Transformers' GPT2LMHeadModel in its default size, and what it takes."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config()).eval(), {"input_ids": torch.arange(8)[None], "use_cache": False}


MODULE, INPUTS = gpt2()
BYTES = sum(tensor.numel() * tensor.element_size() for tensor in MODULE.parameters())


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def groups() -> dict[str, Any]:
    begin = time.perf_counter()
    found = wb.permutation_groups(MODULE, INPUTS)
    return {"seconds": time.perf_counter() - begin, "groups": len(found.frame()), "verified": found.verified}


def other(kind: str, found: wb.PermutationGroups) -> dict[str, Tensor]:
    """A second network: independent weights, or the first one's with noise of their spread in another order."""
    state = {name: tensor for name, tensor in MODULE.state_dict().items() if name != "lm_head.weight"}
    draw = torch.Generator().manual_seed(1)
    noise = {
        name: torch.randn(t.shape, generator=draw) * (t.std() if t.numel() > 1 else 0.0) for name, t in state.items()
    }
    if kind == "independent":
        return noise
    near = {name: tensor + noise[name] for name, tensor in state.items()}
    return dict(found.apply(near, found.random(seed=2)))


def match(kind: str) -> dict[str, Any]:
    found = wb.permutation_groups(MODULE, INPUTS)
    second = other(kind, found)
    first = {name: tensor for name, tensor in MODULE.state_dict().items() if name in second}
    peak, base, running = 0, resident(), True

    def watch() -> None:
        nonlocal peak
        while running:
            peak = max(peak, resident())
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = wb.match(found, first, second, gammas=(), device="cpu")
    finally:
        running = False
        watcher.join()
    sweeps = result.frame("sweeps")
    start, end = sweeps["objective"].iloc[0], sweeps["objective"].iloc[-1]
    enough = sweeps[sweeps["objective"] - start >= 0.99 * (end - start)]
    return {
        "seconds": float(sweeps["seconds"].iloc[-1]),
        "objective": float(end),
        "gained": float(end - start),
        "sweeps": int(max(enough["sweep"].iloc[0], 0)) + 1,  # the settled start is one
        "all_sweeps": int(sweeps["sweep"].iloc[-1]) + 1,
        "models": 2 + (peak - base) / BYTES,
        "reduction": result.reduction(),
    }


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    serve({"groups": groups, "independent": lambda: match("independent"), "planted": lambda: match("planted")})
