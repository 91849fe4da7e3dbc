"""What every analysis returns: tables with declared columns, tensors, and where the numbers came from."""

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from workbench.errors import (
    ArgumentError,
    LayerNotFoundError,
    ResultError,
    nearest,
)

if TYPE_CHECKING:
    import pandas

Cells = Sequence[Any]
Table = Mapping[str, Cells]


@dataclass(frozen=True)
class Column:
    """What one column means: checked when a result is built, printed by `Result.describe`.

    Attributes:
        meaning: one line, with the formula.
        kind: `float` (NaN means "does not exist"), `int`, `str` or `bool`.
        unit: the unit, `"1"` if dimensionless, empty for names.
        low: smallest value allowed.
        high: largest value allowed.
    """

    meaning: str
    kind: type = float
    unit: str = "1"
    low: float = -math.inf
    high: float = math.inf


_KINDS: Mapping[type, type | tuple[type, ...]] = {
    float: Real,
    int: Integral,
    str: str,
    bool: (bool, np.bool_),
}

LAYER_COLUMNS: Mapping[str, Column] = MappingProxyType(
    {
        "layer": Column("module path: the tensor's name without `.weight` and wrapper prefixes", str, ""),
        "depth": Column(
            "number of matrix layers before it, in the order of the source (or of the names, where it has none)",
            int,
            "layers",
            low=0,
        ),
        "verdict": Column("what may be concluded about the layer", str, ""),
        "reason": Column("why the verdict is what it is, or why there is no number", str, ""),
    }
)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Result:
    """A frozen set of tables with provenance.

    Subclasses declare `COLUMNS` (table → column → what it means, the main table first); `TABLES` lists the tables, and
    `OPTIONAL` those that may be absent, with what makes them. Extra fields hold tensors, or mappings of names to them.

    Attributes:
        tables: table name → column name → cells.
        meta: source, fingerprints, every parameter, seed, dtype, device, versions, seconds.
    """

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {}
    TABLES: ClassVar[tuple[str, ...]] = ()
    OPTIONAL: ClassVar[Mapping[str, str]] = {}
    NEXT: ClassVar[str] = ".frame()"

    tables: Mapping[str, Table]
    meta: Mapping[str, Any]

    def __init_subclass__(cls) -> None:
        cls.TABLES = tuple(cls.COLUMNS)

    def __post_init__(self) -> None:
        if unknown := set(self.tables) - set(self.TABLES):
            raise ResultError(f"{type(self).__name__} has no tables {sorted(unknown)}; it has {list(self.TABLES)}.")
        frozen = {}
        for name, columns in self.COLUMNS.items():
            if name not in self.tables and name in self.OPTIONAL:
                continue
            if name not in self.tables:
                raise ResultError(f"{type(self).__name__} was built without its table {name!r}.")
            table = self.tables[name]
            if list(table) != list(columns):
                raise ResultError(
                    f"{type(self).__name__}.{name} has the columns {list(table)}, expected {list(columns)}."
                )
            if len({len(cells) for cells in table.values()}) > 1:
                lengths = {column: len(cells) for column, cells in table.items()}
                raise ResultError(f"{type(self).__name__}.{name} has columns of unequal length: {lengths}.")
            frozen[name] = MappingProxyType(
                {column: tuple(self._checked(name, column, cells)) for column, cells in table.items()}
            )
        object.__setattr__(self, "tables", MappingProxyType(frozen))
        object.__setattr__(self, "meta", MappingProxyType(dict(self.meta)))

    def _checked(self, table: str, name: str, cells: Cells) -> Iterator[Any]:
        column = self.COLUMNS[table][name]
        for row, cell in enumerate(cells):
            fits = type(cell) is column.kind or (
                isinstance(cell, _KINDS[column.kind]) and (column.kind is bool or not isinstance(cell, bool))
            )
            value = column.kind(cell) if fits else cell
            if fits and column.kind is not str:
                fits = not (value < column.low or value > column.high)  # NaN is in every range
            if not fits:
                raise ResultError(
                    f"{type(self).__name__}.{table}[{row}].{name} is {cell!r}; expected "
                    f"{column.kind.__name__} in [{column.low}, {column.high}] ({column.meaning})."
                )
            yield value

    def frame(self, name: str | None = None) -> "pandas.DataFrame":
        """A pandas copy of the main table, or of the table called `name` (`TABLES` lists them).

        Raises:
            ArgumentError: there is no such table.
        """
        import pandas

        name = self.TABLES[0] if name is None else name
        table = self._table(name)
        dtypes = {float: "float64", int: "int64", bool: "bool", str: "str"}
        kinds = {column: dtypes[declared.kind] for column, declared in self.COLUMNS[name].items()}
        return pandas.DataFrame({column: pandas.Series(cells, dtype=kinds[column]) for column, cells in table.items()})

    def _table(self, name: str | None) -> Table:
        name = self.TABLES[0] if name is None else name
        if name in self.tables:
            return self.tables[name]
        if name in self.OPTIONAL:
            raise ArgumentError(f"this {type(self).__name__} has no table {name!r}: {self.OPTIONAL[name]}.")
        known = list(self.tables)
        raise ArgumentError(f"{type(self).__name__} has no table {name!r}; it has {known}." + nearest(name, known))

    @classmethod
    def columns(cls, table: str, rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
        """Rows as the columns of a table, for building a result."""
        cells = list(rows)
        return {column: [row[column] for row in cells] for column in cls.COLUMNS[table]}

    @classmethod
    def describe(cls) -> str:
        """The meaning, unit and range of every column, a line each."""
        lines = [cls.__name__]
        for table, columns in cls.COLUMNS.items():
            lines.append(f"  {table}")
            for name, column in columns.items():
                bounds = (
                    ""
                    if math.isinf(column.low) and math.isinf(column.high)
                    else f" in [{column.low:g}, {column.high:g}]"
                )
                lines.append(f"    {name}: {column.meaning} [{column.unit or column.kind.__name__}]{bounds}")
        return "\n".join(lines)

    @property
    def title(self) -> str:
        """The result's kind and source, as reprs begin."""
        return f"{type(self).__name__} of {short_source(self.meta['source'])}"

    def facts(self) -> str:
        """The first line of the repr: what this is, in numbers. Subclasses say more."""
        return f"{self.title}: {many(len(next(iter(self._table(None).values()))), 'row')}"

    def stopped(self, units: str = "layers") -> str:
        """What `facts` add to a run that was cancelled; empty for one that was not."""
        stopped = self.meta.get("cancelled")
        return f"; CANCELLED after {stopped['done']} of {stopped['total']} {units}" if stopped else ""

    def preview(self) -> "pandas.DataFrame":
        """The table whose first rows the reprs show: the main one."""
        return self.frame()

    def __repr__(self) -> str:
        frame = self.preview()
        more = f"\n… {many(len(frame) - 5, 'more row')}" if len(frame) > 5 else ""
        body = frame.head(5).to_string(index=False, float_format=lambda value: f"{value:.4g}", max_colwidth=48)
        notes = "".join(f"note: {note}\n" for note in self.meta.get("notes", ()))
        return f"{self.facts()}\n{notes}{body}{more}\nnext: {self.NEXT}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Results travel between processes; frozen views of dictionaries do not."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields |= {"tables": {name: dict(table) for name, table in self.tables.items()}, "meta": dict(self.meta)}
        return _rebuilt, (type(self), fields)

    def _repr_html_(self) -> str:
        from html import escape

        frame = self.preview()
        table = frame.head(5).to_html(index=False, float_format=lambda value: f"{value:.4g}", border=0)
        more = f"<p>… {many(len(frame) - 5, 'more row')}</p>" if len(frame) > 5 else ""
        notes = "".join(f"<p>note: {escape(str(note))}</p>" for note in self.meta.get("notes", ()))
        return f"<p>{escape(self.facts())}</p>{notes}{table}{more}<p>next: <code>{escape(self.NEXT)}</code></p>"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the result as a directory of `result.json`, one CSV per table and `tensors.safetensors`.

        The directory appears whole or not at all. Floats are written so that they read back bit by bit.

        Args:
            path: the directory to make. An earlier saved result there is replaced; anything else is not.

        Returns:
            The path.

        Raises:
            ArgumentError: `path` exists and is not a saved result.
        """
        from workbench.stored import write

        return write(self, Path(path))

    @classmethod
    def extra_fields(cls) -> list[str]:
        """The fields that hold tensors."""
        return [field.name for field in dataclasses.fields(cls) if field.name not in ("tables", "meta")]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LayerResult(Result):
    """A result whose main table has one row per layer, under the ids that all analyses share."""

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = Counter(self._table(None)["layer"])
        if twice := sorted(layer for layer, count in counts.items() if count > 1):
            raise ResultError(f"{type(self).__name__} has more than one row of {twice[0]!r}.")

    def verdict_counts(self) -> str:
        """How many layers have each verdict, in order of appearance: `3 typical, 1 no tail`."""
        verdicts = self._table(None)["verdict"]
        return ", ".join(f"{verdicts.count(word):,} {word}" for word in dict.fromkeys(verdicts))

    def row(self, layer: str) -> dict[str, Any]:
        """One layer's cells in the main table.

        Raises:
            LayerNotFoundError: the layer is not in it; the nearest names are offered.
        """
        table = self._table(None)
        if layer not in table["layer"]:
            message = f"{type(self).__name__} has no layer {layer!r}."
            raise LayerNotFoundError(message + nearest(layer, table["layer"]))
        index = table["layer"].index(layer)
        return {column: cells[index] for column, cells in table.items()}


def _rebuilt(kind: type[Result], fields: dict[str, Any]) -> Result:
    return kind(**fields)


def table_rows(table: Table) -> list[dict[str, Any]]:
    """The rows of a table, as `Result.columns` takes them."""
    return [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]


def many(count: int, noun: str) -> str:
    """A number of things: `1 layer`, `2,000 layers`."""
    ending = "" if count == 1 else "es" if noun.endswith("ch") else "s"
    return f"{count:,} {noun}{ending}"


def short_source(source: str) -> str:
    """A source as reprs and saved figures show it: the last two parts of a path, never a home directory."""
    return "/".join(Path(source).parts[-2:])


def versions() -> dict[str, str]:
    """The versions that a number depends on, for `Result.meta`."""
    import torch

    from workbench.version import __version__

    return {"workbench": __version__, "torch": str(torch.__version__)}
