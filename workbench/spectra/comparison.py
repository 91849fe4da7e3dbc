"""`wb.comparison`: one metric of every layer over several models: seeds, or the checkpoints of a training run."""

import inspect
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from workbench.errors import ArgumentError, Cancelled, nearest
from workbench.layers import Layer, Selection
from workbench.progress import Progress, ProgressCallback, check_progress, reporter
from workbench.results import LAYER_COLUMNS, Column, LayerResult, many, short_source, versions
from workbench.spectra.comparison_models import Models, Planned, planned_models, union
from workbench.spectra.farms import Farms, farms
from workbench.spectra.spectrum import Spectrum, spectrum

BEYOND = 2.0  # standard errors of the change at which a layer is called changed
LISTED = 3  # models that a reason names one by one

Cells = dict[tuple[str, str], dict[str, Any]]  # (label, layer) → value, error, verdict, reason

ANALYSES: Mapping[str, tuple[Callable[..., LayerResult], type[LayerResult]]] = MappingProxyType(
    {"spectrum": (spectrum, Spectrum), "farms": (farms, Farms)}
)
OWN = {"model", "layers", "cache", "progress", "detail"}  # of the analysis's arguments, those not passed on


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparison(LayerResult):
    """One metric of every layer over a sequence of models, a row per layer."""

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "layers": {
            **LAYER_COLUMNS,
            "models": Column("models that have the layer", int, low=0),
            "numbers": Column("models in which the metric is a number there", int, low=0),
            "first": Column("the metric in the first model of the sequence"),
            "last": Column("the metric in the last"),
            "change": Column("last − first"),
            "change_error": Column("√(first's standard error² + last's²)", low=0),
            "mean": Column("mean over the models that have a number"),
            "std": Column("standard deviation over them (n − 1), NaN for one", low=0),
            "smallest": Column("smallest of them"),
            "largest": Column("largest of them"),
        },
        "values": {
            "layer": Column("the layer's id", str, ""),
            "label": Column("the model", str, ""),
            "place": Column("its place in the sequence, from 0", int, low=0),
            "value": Column("the metric"),
            "error": Column("its standard error, NaN where it has none", low=0),
            "verdict": Column("the analysis's verdict; `absent` or `not done` without one", str, ""),
            "reason": Column("the analysis's reason, or why there is no number", str, ""),
        },
        "models": {
            "label": Column("the model", str, ""),
            "place": Column("its place in the sequence, from 0", int, low=0),
            "source": Column("where it comes from, shortened", str, ""),
            "fingerprint": Column("of its names, shapes and dtypes", str, ""),
            "layers": Column("layers it has of those compared", int, low=0),
            "numbers": Column("layers of it in which the metric is a number", int, low=0),
            "mean": Column("mean of the metric over those"),
            "median": Column("median of the metric over those"),
        },
    }
    NEXT: ClassVar[str] = ".frame(), .frame('values'), wb.figure(comparison), wb.figure(comparison, 'change')"

    def facts(self) -> str:
        """Metric, models, layers, verdicts, and whether the run was stopped."""
        layers, metric = len(self.tables["layers"]["verdict"]), self.meta["parameters"]["metric"]
        source = self.meta["source"]
        return f"Comparison of {source}: {metric} of {many(layers, 'layer')} ({self.verdict_counts()}){self.stopped()}"


def comparison(
    models: Models,
    *,
    analysis: Literal["spectrum", "farms"] = "spectrum",
    metric: str = "alpha",
    layers: Selection = None,
    cache: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
    **arguments: Any,
) -> Comparison:
    """One metric of every layer over several models: its change, last − first, and its spread.

    The order of the models is the order of a training run, or of two models to compare; for seeds, whose order says
    nothing, read `mean` and `std`.

    Args:
        models: label → model, or models in a sequence, called by their sources; each is anything `wb.load` takes.
            Two or more.
        analysis: `spectrum` or `farms`.
        metric: a number of that analysis's main table: `alpha`, `stable_rank`, `lambda_max`, … (default α).
        layers: names, globs or a predicate of a Layer; None for all. A name must match in one model at least.
        cache: a folder that keeps finished layers, as in the analysis.
        progress: called before each layer of each model with a Progress over all of them; it may raise
            `wb.Cancelled`.
        **arguments: the analysis's own: `xmin`, `conv`, `window`, `seed`, `device`, …

    Returns:
        A Comparison with a row for every layer that any model has. Its verdict is `changed` where the change exceeds
        two of its standard errors, `within error` where it does not, `no tail` where neither end has one, `not judged`
        where the metric has no standard error (only `alpha` has), and `incomplete` where an end has no number. The
        table `values` has a row for every model and layer, `models` one for every model.

    Raises:
        CheckpointError: a model cannot be opened.
        SourceTypeError: one of the models is none.
        LayerNotFoundError: the selection matches nothing in any model, or no layer is in two models.
        ArgumentError: fewer than two models, a label twice, or an argument out of its range.
        Cancelled: the callback asked for it; `.partial` is the Comparison of what was done.

    Cost: the analysis's of every model, one model after the other; every header is read twice.

    Source: Martin & Mahoney, "Implicit self-regularization in deep neural networks" (2021), follow α over training.
    Ours: the standard error of the change, √(e₁² + e₂²), and every layer that one of the models lacks as a row.

    Misreads: the standard error of one spectrum's α takes xmin as given and eigenvalues as independent, and checkpoints
    of one run are not independent of each other: `changed` is a reason to look, not a test. Only seeds tell what
    training again would give. α of layers whose verdict is `no tail` is no exponent; `reason` has the verdicts of both
    ends. A mean over layers mixes shapes, on which α depends.

    Example:
        >>> import torch
        >>> found = comparison({"small": {"fc.weight": torch.eye(4)}, "large": {"fc.weight": 3 * torch.eye(4)}},
        ...                    metric="lambda_max")
        >>> row = found.row("fc")
        >>> row["first"], row["last"], row["change"], row["mean"], row["verdict"]
        (1.0, 9.0, 8.0, 5.0, 'not judged')
    """
    begin, report = time.perf_counter(), reporter(progress)
    analyse = _checked(analysis, metric, arguments)
    check_progress(progress)
    plan = planned_models(models, layers)
    total, done = sum(len(planned.depths) for planned in plan), 0
    cells, metas = Cells(), dict[str, Mapping[str, Any]]()

    def reported(label: str) -> ProgressCallback | None:
        def passed_on(inner: Progress) -> None:
            if inner.item or done + inner.done == total:  # one end, not one for each model
                report(f"{label}: {inner.item}" if inner.item else "", done + inner.done, total)

        return None if progress is None else passed_on

    def keep(label: str, result: LayerResult) -> None:
        cells.update(_cells(label, result, metric))
        metas[label] = result.meta

    def built() -> Comparison:
        own = {"analysis": analysis, "metric": metric, "layers": None if layers is None else list(union(plan))}
        meta = _meta(plan, metas, own) | {"seconds": time.perf_counter() - begin}
        if len(cells) < total:
            meta["cancelled"] = {"done": len(cells), "total": total}
        return _comparison(plan, cells, meta)

    for planned in plan:
        if not planned.depths:
            continue
        options = {"layers": _chosen(planned), "cache": cache, "progress": reported(planned.label)}
        try:
            keep(planned.label, analyse(planned.model, **options, **arguments))
        except Cancelled as stop:
            keep(planned.label, stop.partial)
            stop.partial = built()
            raise
        done = len(cells)
    return built()


def _chosen(planned: Planned) -> Callable[[Layer], bool]:
    return lambda layer: layer.layer in planned.depths


def _checked(analysis: str, metric: str, arguments: Mapping[str, Any]) -> Callable[..., LayerResult]:
    """The analysis, once it is known to have the metric and to take the arguments."""
    if analysis not in ANALYSES:
        hint = nearest(analysis, ANALYSES)
        raise ArgumentError(f"analysis={analysis!r}: expected {' or '.join(map(repr, ANALYSES))}.{hint}")
    analyse, kind = ANALYSES[analysis]
    columns = kind.COLUMNS["layers"]
    known = [name for name, column in columns.items() if column.kind in (int, float) and name != "depth"]
    if metric not in known:
        why = "is no number" if metric in columns else f"is no column of a {kind.__name__}"
        raise ArgumentError(f"metric={metric!r} {why}: expected one of {', '.join(known)}." + nearest(metric, known))
    takes = [name for name in inspect.signature(analyse).parameters if name not in OWN]
    for name in arguments:
        if name not in takes:
            hint = nearest(name, takes)
            raise ArgumentError(f"{name}={arguments[name]!r}: wb.comparison passes on {', '.join(takes)}.{hint}")
    return analyse


def _cells(label: str, result: LayerResult, metric: str) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    table = result.tables["layers"]
    errors = table.get(f"{metric}_error", [math.nan] * len(table["layer"]))
    rows = zip(table["layer"], table[metric], errors, table["verdict"], table["reason"], strict=True)
    for layer, value, error, verdict, reason in rows:
        number = math.nan if verdict == "failed" else float(value)  # the counts of a failed layer are placeholders
        yield (label, layer), {"value": number, "error": float(error), "verdict": verdict, "reason": reason}


def _comparison(plan: Sequence[Planned], cells: Cells, meta: dict[str, Any]) -> Comparison:
    values, rows, models = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    for layer, depth in union(plan).items():
        own = [
            {"layer": layer, "label": planned.label, "place": place} | _cell(planned, layer, cells)
            for place, planned in enumerate(plan)
        ]
        values += own
        rows.append({"layer": layer, "depth": depth, **_layer_row(own)})
    for place, planned in enumerate(plan):
        inside = [cells[planned.label, layer]["value"] for layer in planned.depths if (planned.label, layer) in cells]
        numbers = [value for value in inside if math.isfinite(value)]
        models.append(
            {
                "label": planned.label,
                "place": place,
                "source": short_source(planned.about["source"]),
                "fingerprint": planned.about["fingerprint"],
                "layers": len(planned.depths),
                "numbers": len(numbers),
                "mean": fmean(numbers) if numbers else math.nan,
                "median": median(numbers) if numbers else math.nan,
            }
        )
    tables = {"layers": rows, "values": values, "models": models}
    return Comparison(tables={name: Comparison.columns(name, inside) for name, inside in tables.items()}, meta=meta)


def _cell(planned: Planned, layer: str, cells: Cells) -> dict[str, Any]:
    if (planned.label, layer) in cells:
        return cells[planned.label, layer]
    verdict, reason = (
        ("not done", "cancelled before it") if layer in planned.depths else ("absent", "not among its analysed layers")
    )
    return {"value": math.nan, "error": math.nan, "verdict": verdict, "reason": reason}


def _layer_row(own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A layer's statistics from its cells, one for each model in their order."""
    numbers = [cell["value"] for cell in own if math.isfinite(cell["value"])]
    first, last = own[0], own[-1]
    change, error = last["value"] - first["value"], math.hypot(first["error"], last["error"])
    verdict, reason = _verdict(first, last, change, error)
    lacking = [f"{cell['label']} ({cell['reason']})" for cell in own if not math.isfinite(cell["value"])]
    if lacking:
        more = f" and {len(lacking) - LISTED} more" if len(lacking) > LISTED else ""
        reason = "; ".join(filter(None, [reason, f"no number in {', '.join(lacking[:LISTED])}{more}"]))
    return {
        "verdict": verdict,
        "reason": reason,
        "models": sum(cell["verdict"] != "absent" for cell in own),
        "numbers": len(numbers),
        "first": first["value"],
        "last": last["value"],
        "change": change,
        "change_error": error,
        "mean": fmean(numbers) if numbers else math.nan,
        "std": stdev(numbers) if len(numbers) > 1 else math.nan,
        "smallest": min(numbers, default=math.nan),
        "largest": max(numbers, default=math.nan),
    }


def _verdict(first: Mapping[str, Any], last: Mapping[str, Any], change: float, error: float) -> tuple[str, str]:
    if not math.isfinite(change):
        return "incomplete", ""
    words = (first["verdict"], last["verdict"])
    ends = f"{words[0]} at both ends" if words[0] == words[1] else f"{words[0]} → {words[1]}"
    if not math.isfinite(error):
        return "not judged", f"the metric has no standard error at one end or both; {ends}"
    if words == ("no tail", "no tail"):
        return "no tail", "no tail at both ends: what changes is no exponent"
    beyond = abs(change) > BEYOND * error
    size = f"{change:+.3g} ± {error:.2g}: {'beyond' if beyond else 'within'} {BEYOND:g} standard errors"
    return "changed" if beyond else "within error", f"{size}; {ends}"


def _meta(plan: Sequence[Planned], metas: Mapping[str, Mapping[str, Any]], own: Mapping[str, Any]) -> dict[str, Any]:
    """Where the numbers come from: the analysis's own account, and every model's."""
    one = next(iter(metas.values()))
    ends = [Path(planned.label).name or planned.label for planned in (plan[0], plan[-1])]
    notes = dict.fromkeys(note for planned in plan for note in planned.about["notes"])
    holders = {note: [one.label for one in plan if note in one.about["notes"]] for note in notes}
    meta = {
        "function": "wb.comparison",
        "source": f"{len(plan)} models: {ends[0]} to {ends[1]}",
        "fingerprint": " ".join(dict.fromkeys(planned.about["fingerprint"] for planned in plan)),
        "elements": sum(planned.about["elements"] for planned in plan),
        "ordered": all(planned.about["ordered"] for planned in plan),
        "notes": [note if len(by) == len(plan) else f"{', '.join(by)}: {note}" for note, by in holders.items()],
        "parameters": {**one["parameters"], **own},
        "versions": versions(),
        "sources": {planned.label: planned.about["source"] for planned in plan},
        "fingerprints": {label: each["fingerprints"] for label, each in metas.items()},
        **{name: one[name] for name in ("seed", "dtype", "device")},
    }
    if "cache" in one:
        meta["cache"] = {name: sum(each["cache"][name] for each in metas.values()) for name in one["cache"]}
    return meta
