"""A sharded checkpoint of 5 GB, made on the spot: opening it, and a pass over every tensor beside reading the bytes."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from rows import Bound, Measurement, Row

LAYERS, SIDE = 150, 4096  # 150 × 33.6 MB of bfloat16
REPETITIONS = 5

MAKE = f"""
import sys, torch, workbench as wb
weight = torch.randn({SIDE}, {SIDE}, generator=torch.Generator().manual_seed(0)).bfloat16()
wb.save({{f"layers.{{n}}.weight": weight.clone() for n in range({LAYERS})}}, sys.argv[1], shard_bytes=1_000_000_000)
"""
MEASURE = f"""
import json, resource, sys, time
from pathlib import Path
import workbench as wb
from workbench.weights import content_fingerprint

def clock(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin

def read_bytes(buffer):
    for file in sorted(Path(sys.argv[1]).glob("*.safetensors")):
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass

def one_pass(weights):
    for name in weights:
        weights.borrowed(name)

opened, ours, theirs, marked = [], [], [], []
for _ in range({REPETITIONS} + 1):
    opened.append(clock(lambda: wb.layers(sys.argv[1])))
    weights = wb.load(sys.argv[1])
    ours.append(clock(lambda: one_pass(weights)))
largest = max(info.bytes for info in weights.infos.values())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
buffer = bytearray(largest)
for _ in range({REPETITIONS} + 1):
    theirs.append(clock(lambda: read_bytes(buffer)))
    ours.append(clock(lambda: one_pass(weights)))
    marked.append(clock(lambda: [content_fingerprint(weights.borrowed(name)) for name in weights]))
print(json.dumps({{"opened": opened[1:], "ours": ours[-{REPETITIONS}:], "theirs": theirs[1:], "marked": marked[1:],
                  "peak": peak, "largest": largest, "bytes": weights.bytes}}))
"""


@cache
def measured() -> dict[str, Any]:
    """Everything at once, in a process of its own that never held the checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", MAKE, folder], check=True)
        done = subprocess.run([sys.executable, "-c", MEASURE, folder], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def seconds(ours: str, baseline: str | None, note: str) -> Callable[[], Measurement]:
    """One of the measured lists, beside another."""

    def measure() -> Measurement:
        found = measured()
        size = f"{found['bytes'] / 1e9:.1f} GB in shards of 1 GB, files in the page cache"
        return Measurement(
            ours=tuple(found[ours]), baseline=tuple(found[baseline]) if baseline else (), note=f"{note}; {size}"
        )

    return measure


def memory_over() -> Measurement:
    """Peak resident set of opening and reading all, less twice the largest tensor."""
    found = measured()
    over = (found["peak"] - 2 * found["largest"]) / 1e6
    peak, largest = found["peak"] / 1e6, found["largest"] / 1e6
    note = f"peak {peak:.0f} MB, imports included, less twice the largest tensor ({largest:.0f} MB)"
    return Measurement(ours=(over,), unit="MB", note=note)


BROWSE = f"""
import json, sys, time
from pathlib import Path
import workbench as wb

size, many = 4096 * 4096 * 2, 300
entry = {{"dtype": "BF16", "shape": [4096, 4096]}}
header = {{f"layers.{{n}}.weight": entry | {{"data_offsets": [n * size, (n + 1) * size]}} for n in range(many)}}
text = json.dumps(header).encode()
with Path(sys.argv[1]).open("wb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    file.truncate(8 + len(text) + many * size)
wb.ui.CheckpointBrowser({{}}).close()
opened, clicked = [], []
for _ in range({REPETITIONS}):
    begin = time.perf_counter()
    browser = wb.ui.CheckpointBrowser(sys.argv[1])
    opened.append(time.perf_counter() - begin)
    browser.tree.value = ["layers.7.weight"]
    browser.wait()
    clicked.append(time.perf_counter() - begin - opened[-1])
    browser.close()
print(json.dumps({{"opened": opened, "clicked": clicked}}))
"""


def browsing(what: str, note: str) -> Callable[[], Measurement]:
    """Seconds of the kernel's share in showing a checkpoint of 10 GB, after imports."""

    def measure() -> Measurement:
        with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
            command = [sys.executable, "-c", BROWSE, file.name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        return Measurement(ours=tuple(json.loads(done.stdout)[what]), note=note)

    return measure


def painted() -> Measurement:
    """Seconds from the run of a cell to the tree in Chromium, in a JupyterLab of its own each time."""
    command = [sys.executable, "-m", "pytest", "tests/browser", "-m", "browser", "-q", "-k", "painted_from_the"]
    times = []
    for _ in range(3):
        with tempfile.NamedTemporaryFile() as file:
            environment = os.environ | {"WORKBENCH_PAINT": file.name}
            subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[1], env=environment)
            times.append(float(Path(file.name).read_text()) / 1000)
    return Measurement(
        ours=tuple(times), note="CheckpointBrowser of 10 GB: from the cell's run to the tree in the page"
    )


ROWS = [
    Row("browser-paint", Bound(judged="ours", at_most=1.0), painted),
    Row(
        "browser-open",
        Bound(judged="ours", at_most=1.0),
        browsing("opened", "the kernel's share in showing 10 GB"),
    ),
    Row("browser-click", None, browsing("clicked", "a click on one of its tensors of 34 MB, until drawn")),
    Row("checkpoint-open", Bound(judged="ours", at_most=0.3), seconds("opened", None, "wb.layers: names and shapes")),
    Row(
        "checkpoint-read",
        Bound(judged="ratio", at_least=1 / 1.3),
        seconds("ours", "theirs", "every tensor borrowed once, beside readinto of one buffer"),
    ),
    Row("checkpoint-fingerprints", None, seconds("marked", "theirs", "the same with XXH3 of every tensor")),
    Row("checkpoint-memory", Bound(judged="ours", at_most=400), memory_over),
]
