"""What `import workbench` costs beyond `import torch`."""

import json
import subprocess
import sys
from functools import cache

from dialogue import ROOT
from rows import Bound, Measurement, Row

PAIRS = 9  # one import varies by a tenth of a second
HEAVY = ("pandas", "matplotlib", "plotly", "scipy", "ipywidgets")

CHILD = """
import json, sys, time
begin = time.perf_counter()
import {module}
seconds = time.perf_counter() - begin
print(json.dumps([seconds, sorted({{name.partition(".")[0] for name in sys.modules}})]))
"""


def fresh_import(module: str) -> tuple[float, set[str]]:
    """Seconds that importing `module` takes in a fresh process, and every top-level module loaded after it."""
    child = [sys.executable, "-c", CHILD.format(module=module)]
    done = subprocess.run(child, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    seconds, loaded = json.loads(done.stdout)
    return seconds, set(loaded)


@cache
def pairs() -> list[tuple[float, float, set[str]]]:
    """Seconds of workbench and of torch, one after the other, and what workbench loaded; a first pair is dropped."""
    measured = []
    for repetition in range(PAIRS + 1):
        torch, _ = fresh_import("torch")
        workbench, loaded = fresh_import("workbench")
        if repetition:  # the first pair reads the files from disk and may write bytecode
            measured.append((workbench, torch, loaded))
    return measured


def seconds() -> Measurement:
    """`import workbench` against `import torch`."""
    return Measurement(
        ours=tuple(workbench for workbench, _, _ in pairs()),
        baseline=tuple(torch for _, torch, _ in pairs()),
        note=f"baseline: import torch; medians over {PAIRS} pairs of fresh processes",
    )


def heavy_modules() -> Measurement:
    """How many of the modules that only figures, frames and explorers need are loaded."""
    *_, (_, _, loaded) = pairs()
    found = [name for name in HEAVY if name in loaded]
    return Measurement(
        ours=(len(found),), unit="modules", note=f"loaded: {', '.join(found) or 'none'} of {', '.join(HEAVY)}"
    )


ROWS = [
    Row("import-seconds", Bound(judged="difference", at_most=0.3), seconds),
    Row("import-modules", Bound(judged="ours", at_most=0), heavy_modules),
]
