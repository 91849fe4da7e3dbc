"""Prints the table of benchmarks: `python benchmarks/run.py [--only NAME]`; exit code 1 if a bound is missed."""

import argparse
import os
import platform
import statistics
import sys
import time

import checkpoints
import connectivity
import degeneracy
import diff
import farms
import imports
import merge
import screen
import slider
import spectra
from rows import Measurement, Row

ROWS: list[Row] = [
    *imports.ROWS,
    *spectra.ROWS,
    *farms.ROWS,
    *checkpoints.ROWS,
    *connectivity.ROWS,
    *degeneracy.ROWS,
    *diff.ROWS,
    *merge.ROWS,
    *screen.ROWS,
    *slider.ROWS,
]
Line = tuple[str, str, str, str, str, str]

HEAD: Line = ("name", "ours", "baseline", "ratio", "bound", "ok")


def main() -> int:
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="NAME", help=f"rows whose name begins with NAME: {', '.join(names)}")
    only = parser.parse_args().only or ""
    chosen = [row for row in ROWS if row.name.startswith(only)]
    if not chosen:
        parser.error(f"--only {only}: no such row; there are {', '.join(names)}")
    busy = os.getloadavg()[0]
    lines, kept = [HEAD], True
    notes: list[str] = []
    for row in chosen:
        begin = time.perf_counter()
        try:
            line, note, holds = measured(row, row.measure())
        except Exception as error:  # one row that cannot run must not hide the others; it still fails the run
            line, note, holds = (row.name, "", "", "", "", "FAILED"), f"{type(error).__name__}: {error}", False
        print(f"{row.name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
        lines.append(line)
        notes.append(f"  {row.name}: {note}")
        kept = kept and holds
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(*("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines), sep="\n")
    print(*notes, sep="\n")
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    print(f"{machine}; load {busy:.1f} before the first row (threads on busy cores give no ratio worth quoting)")
    return 0 if kept else 1


def measured(row: Row, measurement: Measurement) -> tuple[Line, str, bool]:
    """The row's cells, its note, and whether its bound holds."""
    unit = measurement.unit
    baseline = f"{statistics.median(measurement.baseline):.3g} {unit}" if measurement.baseline else ""
    ratio = f"{measurement.median('ratio'):.2f}" if measurement.baseline else ""
    holds = row.bound is None or row.bound.holds(measurement)
    bound = row.bound.against(measurement) if row.bound else "none"
    ok = "" if row.bound is None else "yes" if holds else "NO"
    judged = row.bound.judged if row.bound else "ours"
    each = measurement.each(judged)
    spread = f"; {judged} from {min(each):.3g} to {max(each):.3g}" if len(each) > 1 else ""
    line = (row.name, f"{measurement.median('ours'):.3g} {unit}", baseline, ratio, bound, ok)
    return line, measurement.note + spread, holds


if __name__ == "__main__":
    sys.exit(main())
