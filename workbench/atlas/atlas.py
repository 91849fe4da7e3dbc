"""`wb.atlas`: whatever was computed by layer, in one table, and which of it goes together."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from workbench.atlas.correlations import COLUMNS as CORRELATIONS
from workbench.atlas.correlations import VERDICTS, column_pairs, judged, measured
from workbench.atlas.joining import CONTROLS, Grid, grid
from workbench.atlas.source_tables import source_tables
from workbench.atlas.sources import Source, agreements, families, sources
from workbench.errors import ArgumentError, Cancelled, LayerNotFoundError, nearest
from workbench.progress import ProgressCallback, check_progress, reporter, told_whole
from workbench.results import LAYER_COLUMNS, Column, Result, many, table_rows, versions

if TYPE_CHECKING:
    import pandas

ORDERS = 9999  # drawn where not all are tried: a p of 1e-4 at least, which 500 pairs can be corrected by
MODEL = Column("the model, where several are pooled; else empty", str, "")
LAYER = LAYER_COLUMNS["layer"]
COLUMN = Column("the column, LABEL.NAME", str, "")
REPR_COLUMNS = 4  # of numbers that a repr has room for


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Atlas(Result):
    """Results joined by layer: `.frame()` has a row per layer of a model and a column per number, `LABEL.NAME`.

    Tables: `layers`, which `.frame()` widens by the numbers; `correlations`, a row per pair of compared columns;
    `columns`, what each means; `sources`, the results; `cells`, every number with whether it is read, or why not.
    """

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "layers": {
            "layer": LAYER,
            "model": MODEL,
            **CONTROLS,
            "results": Column("results that have a row of it", int, low=1),
            "verdict": Column("`joined`, or `alone` where one result only has a row of it", str, ""),
            "reason": Column("which results have a row of it", str, ""),
        },
        "correlations": CORRELATIONS,
        "columns": {
            "column": COLUMN,
            "meaning": Column("what it is", str, ""),
            "unit": Column("its unit", str, ""),
            "source": Column("label of the result that it is from", str, ""),
            "numbers": Column("rows that have a number", int, low=0),
            "used": Column("rows whose number correlations read", int, low=0),
            "unread": Column("rows whose number a verdict says is not to be read", int, low=0),
            "distinct": Column("different numbers among those used", int, low=0),
            "compared": Column("whether it is in `correlations`", bool, ""),
        },
        "sources": {
            "label": Column("the prefix of its columns", str, ""),
            "model": MODEL,
            "kind": Column("the kind of result", str, ""),
            "source": Column("where its model comes from, shortened", str, ""),
            "agreement": Column("how its model agrees with that of the model's first result", str, ""),
            "architecture": Column("the first model of the same architecture, empty if nothing is pooled", str, ""),
            "rows": Column("rows that it has", int, low=0),
            "joined": Column("rows that another result has too", int, low=0),
            "cancelled": Column("how far it came where it was cancelled", str, ""),
        },
        "cells": {
            "layer": LAYER,
            "model": MODEL,
            "column": COLUMN,
            "value": Column("the number; NaN where there is none"),
            "used": Column("whether correlations read it", bool, ""),
            "reason": Column("why there is none, or why it is not to be read", str, ""),
        },
    }
    NEXT: ClassVar[str] = (
        ".frame('correlations'), .frame('columns'), .alone, wb.figure(atlas), wb.figure(atlas, 'pairs')"
    )

    def frame(self, name: str | None = None) -> pandas.DataFrame:
        """A pandas copy of a table; `layers`, the main one, with a column for each number beside its own.

        Raises:
            ArgumentError: there is no such table.
        """
        import pandas

        found = super().frame(name)
        if name not in (None, "layers"):
            return found
        numbers: dict[str, list[float]] = {}
        for column, value in zip(self.tables["cells"]["column"], self.tables["cells"]["value"], strict=True):
            numbers.setdefault(column, []).append(value)
        return pandas.concat([found, pandas.DataFrame(numbers, index=found.index)], axis=1)

    def preview(self) -> pandas.DataFrame:
        """What reprs show: the layers with the first columns that are compared."""
        shown = [name for name in self.compared if name not in CONTROLS][:REPR_COLUMNS]
        pooled = ["model"] if any(self.tables["layers"]["model"]) else []
        return self.frame()[["layer", *pooled, "depth", *shown, "verdict"]]

    @property
    def compared(self) -> list[str]:
        """The columns in `correlations`, in the order in which they were asked for."""
        return list(self.meta["compared"])

    @property
    def alone(self) -> pandas.DataFrame:
        """The layers that one result only has a row of."""
        return self.frame("layers").query("verdict == 'alone'")

    def values(self, column: str, *, used: bool = False) -> list[float]:
        """The numbers of a column, `depth` or `size`, in the order of the rows.

        Args:
            column: its name.
            used: NaN in place of those that a verdict says are not to be read.

        Raises:
            ArgumentError: there is no such column.
        """
        if column in CONTROLS:
            return list(self.tables["layers"][column])
        known = self.tables["columns"]["column"]
        if column not in known:
            raise ArgumentError(f"this Atlas has no column {column!r}.{nearest(column, known)}")
        cells = self.tables["cells"]
        return [
            value if read or not used else math.nan
            for name, value, read in zip(cells["column"], cells["value"], cells["used"], strict=True)
            if name == column
        ]

    def row(self, layer: str, model: str | None = None) -> dict[str, Any]:
        """One layer's cells in the wide table.

        Raises:
            LayerNotFoundError: there is no such row; the nearest names are offered.
            ArgumentError: several models have it, and none is told.
        """
        frame = self.frame()
        rows = frame[(frame["layer"] == layer) & ((frame["model"] == model) if model is not None else True)]
        if len(rows) == 1:
            return {str(name): value for name, value in rows.iloc[0].items()}
        if len(rows):
            raise ArgumentError(f"{list(rows['model'])} have a layer {layer!r}: say which, as in model=….")
        raise LayerNotFoundError(f"Atlas has no layer {layer!r}.{nearest(layer, self.tables['layers']['layer'])}")

    def pair(self, one: str, other: str) -> dict[str, Any]:
        """The row of two columns in `correlations`, whatever their order.

        Raises:
            ArgumentError: they are not compared.
        """
        for row in table_rows(self.tables["correlations"]):
            if {row["first"], row["second"]} == {one, other}:
                return row
        raise ArgumentError(f"{one!r} and {other!r} are not compared; the columns that are: {self.compared}.")

    def facts(self) -> str:
        """Results, layers, and the verdicts on all pairs."""
        layers, words = self.tables["layers"], list(self.tables["correlations"]["verdict"])
        models = len(set(self.tables["sources"]["model"]))
        pooled = f" of {models} models" if models > 1 else ""
        told = ", ".join(f"{words.count(word)} {word}" for word in VERDICTS if word in words)
        return (
            f"{self.title}: {many(len(layers['layer']), 'layer')}{pooled}, {layers['verdict'].count('alone')} of them "
            f"in one result only; {many(len(self.compared), 'column')} compared, pairs: {told or 'none'}"
            f"{self.stopped('pairs')}"
        )


def atlas(
    *results: Any,
    columns: str | Sequence[str] | None = None,
    models: Mapping[str, Any] | None = None,
    rows: Literal["layers", "modules"] = "layers",
    unread: Literal["left out", "kept"] = "left out",
    controls: Sequence[str] = ("depth", "size"),
    across: bool = False,
    permutations: int = ORDERS,
    seed: int = 0,
    progress: ProgressCallback | None = None,
    **named: Any,
) -> Atlas:
    """Results joined by layer id, and Spearman's ρ = cov(r_x, r_y)/(s_x·s_y) of ranks for every pair of columns.

    Args:
        results: what analyses returned (anything with a table by layer), and mappings of labels to such, which several
            of one kind need. Columns are called LABEL.NAME; without a label `spectrum`, `farms`, `diff`, `degeneracy`,
            `matching`, … Ablations of several layers make one column.
        columns: the columns that are compared, names or globs (`depth` and `size` are columns too); None for one or
            two of each result. Every further pair makes the correction of all stricter.
        models: label → results of that model, to pool several; in place of `results`. Ranks are taken within models.
        rows: `layers` joins equal ids. `modules` gives fused q/k/v, experts and gates one row, that of their module,
            with the mean of their numbers. A module's number is never copied to its parts: copies are no measurements.
        unread: what becomes of numbers whose verdict says that they are not to be read: `left out` of correlations
            (they stay in the table), or `kept`, to see what hangs on it.
        controls: columns that the partial correlations control for.
        across: join results of different models by layer id all the same; `.meta["notes"]` tells.
        permutations: orders drawn for a p where there are more than 8! of them; p is at least 1/(permutations + 1).
        seed: of these, with the names of the pair.
        progress: called before each pair of columns with a Progress, and once at the end; it may raise `wb.Cancelled`,
            whose `partial` has the pairs that were done, corrected for these alone.
        named: further results by label, as in `blur=diff`.

    Returns:
        An Atlas. Tables `layers` (`.frame()` has all numbers beside), `correlations`, `columns`, `sources`, `cells`
        (for each number that is missing or not read, why). A pair is `positive`, `negative`, `not distinguishable
        from 0`, `too few` (no order of so few layers could have been told from 0) or `constant`; `partial_verdict`
        says the same of what the controls leave. Layers that one result alone has are rows with the verdict `alone`.

    Raises:
        ArgumentError: no results; one has no table by layer (a Barrier, a Surface); the same twice; two of one label;
            results of different models; columns or controls that match nothing; an argument out of its range.
        Cancelled: the callback asked for it.

    Cost: permutations·layers operations a pair, some milliseconds for forty layers; no tensor is read.

    Source: Spearman (1904), Kendall (1938, τ_b); Bonett & Wright (2000) for the interval; Freedman & Lane (1983) for
    partial permutations; Holm (1979). Ours: architectures as strata, models of one architecture as repeats of the
    same layers, the verdict `too few`.

    Misreads: a correlation over layers is of this network: layers are neither drawn from a population nor independent,
    and neighbours are alike, which permutations do not know: p is then too small. Depth and size go with nearly
    everything: read `partial` beside ρ; it controls for what is linear in ranks, and nothing else. Columns of one
    result go together by definition (`alpha_weighted` has α in it). `not distinguishable from 0` is not 0: see the
    interval. Leaving `no tail` out looks at the layers with a tail only. `layers_needed` takes the ρ that was found
    for the true one.

    Example:
        >>> import torch
        >>> base = {f"{n}.weight": torch.diag(torch.arange(1.0, 30.0) ** n) for n in range(1, 5)}
        >>> tuned = {name: weight * (1 + 0.01 * n) for n, (name, weight) in enumerate(base.items(), start=1)}
        >>> import workbench as wb
        >>> names = ["spectrum.stable_rank", "diff.relative_norm"]
        >>> found = atlas(wb.spectrum(base), wb.diff(base, tuned), columns=names)
        >>> row = found.pair(*names)
        >>> row["layers"], row["rho"], round(row["p"], 4), row["verdict"]
        (4, -1.0, 0.0833, 'too few')
    """
    _check(rows, unread, permutations, seed)
    check_progress(progress)
    given = sources(results, named, models, across=across)
    found = grid(given, modules=rows == "modules", keep=unread == "kept")
    known = [*found.cells, *CONTROLS]
    chosen = _default(given, found) if columns is None else _matching(columns, known, "columns")
    controlled = _matching(controls, known, "controls") if controls else []
    family = families(given)
    told = agreements(given)
    notes = list(found.notes)
    for source, word in zip(given, told, strict=True):
        if word in ("another model", "same names and shapes", "not known"):
            first = next(one for one in given if one.model == source.model)
            notes.append(f"{source.label} and {first.label} are joined by layer id; whether of one model: {word}")
        if source.cancelled:
            notes.append(f"{source.label} was cancelled {source.cancelled}")
    if repeats := len(family) - len(set(family.values())):
        told_of = "1 model repeats" if repeats == 1 else f"{repeats} models repeat"
        notes.append(f"{told_of} the layers of another of the same architecture; these layers count once")
    parameters = {
        "columns": None if columns is None else chosen,
        "rows": rows,
        "unread": unread,
        "controls": controlled,
        "across": across,
        "permutations": permutations,
    }
    meta = {
        "function": "wb.atlas",
        "source": ", ".join(dict.fromkeys(source.label for source in given)),
        "sources": {f"{source.model}/{source.label}".lstrip("/"): source.origin for source in given},
        "ordered": all(source.result.meta.get("ordered", True) for source in given),
        "notes": list(dict.fromkeys(notes)),
        "compared": chosen,
        "parameters": parameters,
        "seed": seed,
        "versions": versions(),
    }
    tables, pairs = source_tables(given, found, chosen, family, told), column_pairs(chosen)
    done: list[dict[str, Any]] = []

    def built() -> Atlas:
        cut = {"cancelled": {"done": len(done), "total": len(pairs)}} if len(done) < len(pairs) else {}
        every = tables | {"correlations": judged(done)}
        return Atlas(tables={name: Atlas.columns(name, every[name]) for name in Atlas.COLUMNS}, meta=meta | cut)

    report = reporter(progress, partial=built)
    try:
        for one, other in pairs:
            report(f"{one} ~ {other}", len(done), len(pairs))
            done.append(measured(found, one, other, controlled, family, draws=permutations, seed=seed))
    except Cancelled as stop:
        stop.partial = built()
        raise
    return told_whole(built(), lambda: report("", len(pairs), len(pairs)))


def _check(rows: object, unread: object, permutations: object, seed: object) -> None:
    for name, value, words in (("rows", rows, ("layers", "modules")), ("unread", unread, ("left out", "kept"))):
        if value not in words:
            raise ArgumentError(f"{name}={value!r}: expected {words[0]!r} or {words[1]!r}.")
    if not isinstance(permutations, int) or isinstance(permutations, bool) or permutations < 99:
        raise ArgumentError(f"permutations={permutations!r}: expected a whole number, at least 99.")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ArgumentError(f"seed={seed!r}: expected a whole number.")


def _default(given: Sequence[Source], found: Grid) -> list[str]:
    """What each result is asked for most, where it has numbers."""
    names = dict.fromkeys(f"{source.label}.{name}" for source in given for name in source.reading.compared)
    return [name for name in names if any(cell.used for cell in found.cells[name].values())]


def _matching(wanted: str | Sequence[str], known: Sequence[str], argument: str) -> list[str]:
    chosen: dict[str, None] = {}
    for pattern in [wanted] if isinstance(wanted, str) else wanted:
        matched = [name for name in known if name == pattern] or fnmatch.filter(known, str(pattern))
        if not matched:
            raise ArgumentError(f"{argument}: no column {pattern!r}.{nearest(pattern, known)}")
        chosen |= dict.fromkeys(matched)
    return list(chosen)
