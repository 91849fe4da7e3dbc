"""The numbers behind a figure, as CSV."""

import csv
import io
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeAlias

from workbench.figures.spec import Axis, Bars, FigureSpec, Heat, Mark, Rule

COLUMNS = "panel mark label id x y error value x_name y_name x_is y_is value_is".split()
PLACE = "place, from 0"  # what an axis without a label counts

Span: TypeAlias = tuple[float, float]
Row: TypeAlias = tuple[list[Any], Span | None, Span | None]  # id, x, y, error, value; from where to where x and y are


def table(spec: FigureSpec) -> str:
    """What `FigureSpec.csv` says."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, panel in enumerate(spec.panels):
        for mark in panel.marks:
            what = panel.x.title or PLACE, panel.y.title or PLACE, mark.label if isinstance(mark, Heat) else ""
            for numbers, across, up in _rows(mark):
                names = _name(panel.x, across), _name(panel.y, up)
                head = panel.letter or number, type(mark).__name__.lower(), mark.label
                writer.writerow([*head, *numbers, *names, *what])
    return text.getvalue()


def _name(axis: Axis, span: Span | None) -> str:
    """The name of the place where a number is, if the axis has one there."""
    low, high = (1.0, 0.0) if span is None else span
    return next((name for place, name in axis.ticks if low <= place <= high), "")


def _rows(mark: Mark) -> Iterator[Row]:
    if isinstance(mark, Rule):
        at = (mark.value, mark.value)
        across, up = (at, None) if mark.axis == "x" else (None, at)
        yield ["", mark.value if across else "", mark.value if up else "", "", ""], across, up
    elif isinstance(mark, Heat):
        for up, row in zip(pairwise(mark.y), mark.values, strict=True):
            for across, value in zip(pairwise(mark.x), row, strict=True):
                yield ["", across[0], up[0], "", value], across, up
    elif isinstance(mark, Bars):
        for (left, right), height in zip(pairwise(mark.edges), mark.heights, strict=True):
            yield ["", left, height, right - left, ""], (left, right), None
    else:
        ids = getattr(mark, "ids", ()) or [""] * len(mark.x)
        errors = getattr(mark, "error", ()) or [""] * len(mark.x)
        for own, x, y, error in zip(ids, mark.x, mark.y, errors, strict=True):
            yield [own, x, y, error, ""], (x, x), (y, y)
