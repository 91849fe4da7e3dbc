"""Merges of three checkpoints on disk: ours, a plain weighted average through the same I/O, or mergekit's.

WORKBENCH_MERGE names the folder with a.safetensors (the base), b.safetensors and c.safetensors.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from dialogue import serve

FOLDER = Path(os.environ["WORKBENCH_MERGE"])
BASE, *MODELS = (str(FOLDER / f"{name}.safetensors") for name in "abc")
PARAMETERS = {"task_arithmetic": {"scale": 0.5}, "ties": {"density": 0.2}}


def clocked(work: Callable[[Path], Any]) -> dict[str, Any]:
    """Seconds of a merge into a folder of its own, which is removed after the clock has stopped."""
    out = Path(tempfile.mkdtemp(dir=FOLDER))
    begin = time.perf_counter()
    work(out)
    found = {"seconds": time.perf_counter() - begin}
    shutil.rmtree(out)
    return found


def average(out: Path) -> None:
    """¼·a + ¼·b + ½·c, tensor by tensor."""
    import workbench as wb

    a, b, c = (wb.load(path) for path in (BASE, *MODELS))

    def read(info: Any) -> torch.Tensor:
        return a[info.name].mul_(0.25).add_(b[info.name], alpha=0.25).add_(c[info.name], alpha=0.5)

    wb.save(wb.Weights(list(a.infos.values()), read, source="average"), out / "merged.safetensors")


def ours(method: Any) -> Callable[[Path], Any]:
    import workbench as wb

    return lambda out: wb.save(wb.merge(BASE, MODELS, method=method, **PARAMETERS[method]), out / "merged.safetensors")


def peer(method: str) -> Callable[[Path], Any]:
    import yaml
    from mergekit.scripts.merge_raw_pytorch import main

    weighted = {"density": 0.2, "weight": 1.0} if method == "ties" else {"weight": 0.5}
    models = [{"model": path, "parameters": weighted} for path in MODELS]
    told = {"merge_method": method, "base_model": BASE, "models": [{"model": BASE}, *models], "dtype": "float32"}
    told["parameters"] = {"normalize": False} if method == "task_arithmetic" else {"normalize": True}

    def merged(out: Path) -> None:
        (out / "merge.yaml").write_text(yaml.safe_dump(told))
        main([str(out / "merge.yaml"), str(out / "merged"), "--quiet"], standalone_mode=False)

    return merged


def compared() -> dict[str, Any]:
    """The largest difference of the peer's task arithmetic from θ₀ + ½Σ τ taken by hand: both sides do the same."""
    from safetensors.torch import load_file

    out = Path(tempfile.mkdtemp(dir=FOLDER))
    peer("task_arithmetic")(out)
    theirs = load_file(next((out / "merged").glob("*.safetensors")))
    a, b, c = (load_file(path) for path in (BASE, *MODELS))
    worst = max(float((theirs[name] - (b[name] + c[name]) / 2).abs().max()) for name in a)
    shutil.rmtree(out)
    return {"difference": worst}


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    serve(
        {"average": lambda: clocked(average)}
        | {f"ours {method}": lambda method=method: clocked(ours(method)) for method in PARAMETERS}
        | {f"peer {method}": lambda method=method: clocked(peer(method)) for method in PARAMETERS}
        | {"difference": compared}
    )
