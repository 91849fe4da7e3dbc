"""What one result says by layer: numbers, which of them are to be read, and where it knows depth and size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.atlas.models import Identity
from workbench.results import Column, Result, table_rows

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """A number of one layer.

    Attributes:
        value: the number; NaN where there is none.
        used: whether correlations may read it.
        reason: why there is none, or why it is not to be read.
    """

    value: float
    used: bool
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A result by layer.

    Attributes:
        cells: layer → column → cell.
        columns: column → what it means.
        compared: columns that are compared unless others are asked for.
        depths: layer → matrix layers before it, where the result knows.
        sizes: layer → elements, where it knows.
        tensors: names of the model's tensors, by which parts of one are told from modules.
        identity: of which model it is.
    """

    cells: Mapping[str, Mapping[str, Cell]]
    columns: Mapping[str, Column]
    compared: Sequence[str]
    depths: Mapping[str, float] = field(default_factory=dict)
    sizes: Mapping[str, float] = field(default_factory=dict)
    tensors: frozenset[str] = frozenset()
    identity: Identity = field(default_factory=Identity)


@dataclass(frozen=True)
class Unread:
    """Numbers that a verdict says are not to be read.

    Attributes:
        holds: whether a row has such a verdict.
        columns: which numbers; None for all.
        why: the reason.
    """

    holds: Callable[[Row], bool]
    columns: frozenset[str] | None
    why: str


@dataclass(frozen=True)
class Derived:
    """A number made of others of its row: what it means, and how."""

    column: Column
    of: Callable[[Row], float]


def share(part: str, whole: str) -> Callable[[Row], float]:
    """One column over another; NaN over 0."""
    return lambda row: row[part] / row[whole] if row[whole] else math.nan


def table_cells(
    result: Result,
    table: str,
    *,
    unread: Iterable[Unread] = (),
    derived: Mapping[str, Derived] | None = None,
    leaving: Iterable[str] = (),
    prefix: str = "",
) -> tuple[dict[str, dict[str, Cell]], dict[str, Column]]:
    """The numbers of a table with one row per layer, and what they mean."""
    more, left = dict(derived or {}), {"depth", *leaving}
    declared = {
        name: column
        for name, column in result.COLUMNS[table].items()
        if column.kind in (int, float) and name not in left
    }
    rules = tuple(unread)
    cells: dict[str, dict[str, Cell]] = {}
    for row in table_rows(result.tables[table]):
        values = {name: float(row[name]) for name in declared} | {name: one.of(row) for name, one in more.items()}
        cells[row["layer"]] = {f"{prefix}{name}": _cell(row, name, value, rules) for name, value in values.items()}
    meanings = declared | {name: one.column for name, one in more.items()}
    return cells, {f"{prefix}{name}": column for name, column in meanings.items()}


def _cell(row: Row, name: str, value: float, rules: Sequence[Unread]) -> Cell:
    told = ": ".join(str(row[name]) for name in ("verdict", "reason") if row.get(name))
    if math.isnan(value):
        return Cell(value, used=False, reason=told or "NaN")
    for rule in rules:
        if rule.holds(row) and (rule.columns is None or name in rule.columns):
            return Cell(value, used=False, reason=f"{row['verdict']}: {rule.why}")
    return Cell(value, used=True)


def said(*words: str) -> Callable[[Row], bool]:
    """Whether a row's verdict is one of these."""
    return lambda row: row.get("verdict") in words


def by_layer(result: Result, table: str, of: Callable[[Row], float]) -> dict[str, float]:
    """Layer → a number of its row; those without one are left out."""
    found = {row["layer"]: float(of(row)) for row in table_rows(result.tables[table])}
    return {layer: value for layer, value in found.items() if math.isfinite(value)}


def means(rows: Iterable[tuple[str, Mapping[str, float]]]) -> dict[str, dict[str, Cell]]:
    """Layer → column → the mean over its rows of what is a number."""
    gathered: dict[str, dict[str, list[float]]] = {}
    for layer, values in rows:
        for name, value in values.items():
            gathered.setdefault(layer, {}).setdefault(name, []).append(value)
    return {layer: {name: _mean(values) for name, values in own.items()} for layer, own in gathered.items()}


def _mean(values: Sequence[float]) -> Cell:
    numbers = [value for value in values if not math.isnan(value)]
    if not numbers:
        return Cell(math.nan, used=False, reason="NaN")
    return Cell(math.fsum(numbers) / len(numbers), used=True)
