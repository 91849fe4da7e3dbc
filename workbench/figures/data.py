"""The numbers behind a figure, as CSV."""

import csv
import io
from collections.abc import Iterable
from typing import Any

from workbench.figures.spec import Bars, FigureSpec, Heat, Mark, Rule

COLUMNS = ("panel", "mark", "label", "id", "x", "y", "error", "value", "x_is", "y_is", "value_is")


def table(spec: FigureSpec) -> str:
    """What `FigureSpec.csv` says."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, panel in enumerate(spec.panels):
        for mark in panel.marks:
            axes = panel.x.title, panel.y.title, mark.label if isinstance(mark, Heat) else ""
            for row in _rows(mark):
                writer.writerow([panel.letter or number, type(mark).__name__.lower(), *row, *axes])
    return text.getvalue()


def _rows(mark: Mark) -> Iterable[list[Any]]:
    if isinstance(mark, Rule):
        x, y = (mark.value, "") if mark.axis == "x" else ("", mark.value)
        return [[mark.label, "", x, y, "", ""]]
    if isinstance(mark, Heat):
        cells = (
            (x, y, value)
            for y, row in zip(mark.y, mark.values, strict=False)
            for x, value in zip(mark.x, row, strict=False)
        )
        return [[mark.label, "", x, y, "", value] for x, y, value in cells]
    if isinstance(mark, Bars):
        bars = zip(mark.edges, mark.edges[1:], mark.heights, strict=False)
        return [[mark.label, "", left, height, right - left, ""] for left, right, height in bars]
    ids = getattr(mark, "ids", ()) or [""] * len(mark.x)
    errors = getattr(mark, "error", ()) or [""] * len(mark.x)
    return [[mark.label, *row, ""] for row in zip(ids, mark.x, mark.y, errors, strict=True)]
