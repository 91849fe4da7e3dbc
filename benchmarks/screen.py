"""`wb.ui.Workbench` on a page of JupyterLab: its first paint, a selection until it is drawn, and memory over runs."""

import ctypes
import functools
import gc
import os
import statistics
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rows import Bound, Measurement, Row

ROOT = Path(__file__).parents[1]
TURNS, CLICKS, RUNS, LAYERS = 3, 15, 12, 200
IMPORTS = "import torch, workbench as wb\nwb.ui.Workbench\n"
MODEL = f"""
torch.manual_seed(0)
weights = {{f"layers.{{n:03}}.weight": torch.randn(96, 64) for n in range({LAYERS})}}
"""
SHOW = "bench = wb.ui.Workbench({'a': weights}, tab='spectra')\nbench"
# milliseconds until the page has painted what `seen` looks for, after `begin` was called
UNTIL = """(begin, seen) => new Promise((done, failed) => {
  const start = performance.now();
  const painted = new MessageChannel();  // a message sent before a frame is painted is read after it
  painted.port1.onmessage = () => done(performance.now() - start);
  const look = () => {
    if (seen()) painted.port2.postMessage(null);
    else if (performance.now() - start > 30000) failed(new Error('it was never seen'));
    else requestAnimationFrame(look);
  };
  begin();
  look();
})"""
PAINTED = f"""() => ({UNTIL})(
  () => window.jupyterapp.commands.execute('notebook:run-cell'),
  () => [...document.querySelectorAll('.wb-tab-spectra button')].some(
    button => button.offsetParent && button.textContent.includes('Run')))"""
REDRAWN = f"""number => {{
  const cell = document.querySelectorAll('.wb-workbench .wb-table tbody tr')[number].querySelector('td');
  return ({UNTIL})(() => cell.click(), () => {{
    const plots = [...document.querySelectorAll('.wb-workbench .js-plotly-plot')].filter(one => one.offsetParent);
    return plots[1]?._fullLayout?.title?.text === cell.textContent;
  }});
}}"""


@contextmanager
def notebook(*codes: str) -> Iterator[Any]:
    """A notebook in a browser whose cells are not run yet; and the page that it is on."""
    sys.path.insert(0, str(ROOT / "tests"))
    from browser.jupyter import Tabs, browsing, chromium, forked_kernels, jupyterlab, lab_in

    path = chromium()
    if path is None:
        raise RuntimeError("no Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        home, root, kernels = (Path(folder) / name for name in ("home", "root", "kernels"))
        for one in (home, root, kernels):
            one.mkdir()
        with browsing(path) as browser, forked_kernels(kernels), jupyterlab(home, root, kernels) as server:
            lab = lab_in(Tabs(browser, server))
            lab.write("bench.ipynb", *codes)
            lab.open("bench.ipynb")
            yield lab


def first_paint() -> Measurement:
    """From the run of a cell to the frame with the buttons of its tab, in a page that loads what it needs."""
    seconds = []
    for _ in range(TURNS):
        with notebook(IMPORTS + MODEL, SHOW) as lab:
            lab.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell-and-select-next')")
            lab.page.wait_for_function("() => document.querySelector('.jp-InputPrompt').textContent.includes('1')")
            lab.page.wait_for_timeout(500)
            seconds.append(lab.page.evaluate(PAINTED) / 1000)
    return Measurement(ours=tuple(seconds), note=f"{TURNS} browsers and kernels that showed no widget before")


def selection_drawn() -> Measurement:
    """From the click on a row to the frame in which the layer's spectrum has its title."""
    run = "_ = bench.explorer('spectra').run()"
    with notebook(IMPORTS + MODEL, SHOW, run) as lab:
        lab.run_all()
        lab.page.wait_for_function("() => document.querySelectorAll('.wb-workbench .wb-table tbody tr').length > 20")
        lab.page.wait_for_timeout(3000)
        milliseconds = []
        for move in range(CLICKS):
            lab.page.wait_for_timeout(500)  # what the click before left to do, as α over depth, is done
            milliseconds.append(lab.page.evaluate(REDRAWN, 1 + move))
    return Measurement(ours=tuple(milliseconds), unit="ms", note=f"{CLICKS} clicks on rows of {LAYERS} layers")


def twelve_runs() -> Measurement:
    """What the process holds after each run, its result released before the next."""
    import torch

    import workbench as wb

    torch.manual_seed(0)
    weights = {f"layers.{n}.weight": torch.randn(768, 768) for n in range(24)}
    bench = wb.ui.Workbench({"a": weights}, tab="spectra")
    explorer, held, results = bench.explorer("spectra"), list[float](), list[weakref.ref[wb.Result]]()
    for run in range(RUNS):
        explorer.restore({"Layers": f"layers.*, layers.{run}"})
        results.append(weakref.ref(explorer.run()))
        bench.history.release(bench.history.entries)
        gc.collect()
        if kept := sum(one() is not None for one in results):  # small beside what else a process holds
            raise RuntimeError(f"{kept} of {run + 1} results are in memory after their release")
        held.append(_resident())
    bench.close()
    early, late = held[2 : RUNS // 2 + 1], held[RUNS // 2 + 1 :]  # the first runs load what all need
    note = "MB after each of them: " + ", ".join(f"{one:.0f}" for one in held)
    return Measurement(ours=(statistics.median(late) - statistics.median(early),), unit="MB", note=note)


@functools.cache
def _page_size() -> int:
    return os.sysconf("SC_PAGE_SIZE")


def _resident() -> float:
    """Megabytes in memory; what is free, and the C library keeps for a while, does not count."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * _page_size() / 1e6


ROWS = [
    Row("screen-paint", Bound(judged="ours", at_most=1.0), first_paint),
    Row("screen-selection", Bound(judged="ours", at_most=100.0), selection_drawn),
    Row("screen-memory", Bound(judged="ours", at_most=10.0), twelve_runs),
]
