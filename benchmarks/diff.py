"""`wb.diff` on three checkpoints of 1 GB beside reading their bytes, and on MiniLM against a perturbed copy."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from typing import Any

from minilm import minilm_file
from rows import Bound, Measurement, Row

SIDE, REPETITIONS = 4096, 5
DTYPES = {"float32": 16, "bfloat16": 32}  # tensors of SIDE² elements: 1.07 GB

MAKE = f"""
import sys, torch, workbench as wb
folder, dtype, many = sys.argv[1], getattr(torch, sys.argv[2]), int(sys.argv[3])
base = torch.randn({SIDE}, {SIDE}, generator=torch.Generator().manual_seed(0))
for seed, name in enumerate("abc"):
    noise = torch.randn({SIDE}, {SIDE}, generator=torch.Generator().manual_seed(seed)) / 100
    own = (base + noise if seed else base).to(dtype)
    wb.save({{f"layers.{{n}}.weight": own.clone() for n in range(many)}}, f"{{folder}}/{{name}}.safetensors")
"""
MEASURE = f"""
import json, resource, sys, time
from pathlib import Path
import workbench as wb

folder, details = Path(sys.argv[1]), sys.argv[2].split()
paths = [folder / f"{{name}}.safetensors" for name in "abc"]
largest = max(info.bytes for info in wb.load(paths[0]).infos.values())

def clock(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin

def read_bytes(buffer):
    for path in paths:
        with path.open("rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass

def ours(**more):
    return wb.diff(paths[0], {{"b": paths[1], "c": paths[2]}}, **more)

ours()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
buffer = bytearray(largest)
read_bytes(buffer)
found = {{"ours": [], "theirs": [], "peak": peak, "largest": largest}}
for _ in range({REPETITIONS}):
    found["theirs"].append(clock(lambda: read_bytes(buffer)))
    found["ours"].append(clock(ours))
for detail in details:
    more = {{"density": 0.2}} if detail == "trimmed" else {{"detail": detail}}
    found[detail] = [clock(lambda: ours(**more))]
print(json.dumps(found))
"""
MINILM = f"""
import json, sys, time, torch
import workbench as wb

base = wb.load(sys.argv[1])
noise = torch.Generator().manual_seed(0)
copy = {{
    name: own + 0.01 * own.std() * torch.randn(own.shape, generator=noise) if own.is_floating_point() else own
    for name, own in base.items()
}}
path = wb.save(copy, sys.argv[2] + "/copy.safetensors")
times = []
for _ in range({REPETITIONS}):
    begin = time.perf_counter()
    wb.diff(sys.argv[1], path)
    times.append(time.perf_counter() - begin)
print(json.dumps(times))
"""


def make(folder: str, dtype: str) -> None:
    """Three checkpoints of 1.07 GB: a.safetensors, and b and c, each a plus 1 % of noise."""
    subprocess.run([sys.executable, "-c", MAKE, folder, dtype, str(DTYPES[dtype])], check=True)


@cache
def measured(dtype: str) -> dict[str, Any]:
    """Everything at once, in a process of its own that never held the checkpoints."""
    details = "lorenz outliers trimmed" if dtype == "float32" else ""
    with tempfile.TemporaryDirectory() as folder:
        make(folder, dtype)
        command = [sys.executable, "-c", MEASURE, folder, details]
        return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def elements(dtype: str) -> Callable[[], Measurement]:
    def measure() -> Measurement:
        found = measured(dtype)
        note = f"elementwise tier of three checkpoints of 1.07 GB ({dtype}), beside readinto of one reused buffer"
        return Measurement(ours=tuple(found["ours"]), baseline=tuple(found["theirs"]), note=note)

    return measure


def detail(name: str, note: str) -> Callable[[], Measurement]:
    return lambda: Measurement(ours=tuple(measured("float32")[name]), note=f"{note}; all of the call, float32")


def memory_over() -> Measurement:
    """Peak resident set of the elementwise tier, less six times the largest tensor."""
    found = measured("float32")
    over = (found["peak"] - 6 * found["largest"]) / 1e6
    note = f"peak {found['peak'] / 1e6:.0f} MB, imports included, less 6 × {found['largest'] / 1e6:.0f} MB"
    return Measurement(ours=(over,), unit="MB", note=note)


def real() -> Measurement:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", MINILM, str(minilm_file()), folder]
        times = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return Measurement(ours=tuple(times), note="MiniLM against a perturbed copy, after imports")


ROWS = [
    Row("diff-elements", Bound(judged="ratio", at_least=1 / 3), elements("float32")),
    Row("diff-elements-bf16", None, elements("bfloat16")),
    Row("diff-memory", Bound(judged="ours", at_most=400), memory_over),
    Row("diff-lorenz", None, detail("lorenz", "with the Lorenz curve of every layer and model")),
    Row("diff-outliers", None, detail("outliers", "with outlier channels")),
    Row("diff-trimmed", None, detail("trimmed", "with trimmed sign conflicts, density=0.2")),
    Row("diff-minilm", Bound(judged="ours", at_most=2.0), real),
]
