"""One way to run an analysis over the layers of a model: failures, cancelling, the cache and provenance."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from workbench.cache import Cache, Entry
from workbench.errors import Cancelled, LayerError
from workbench.layers.selection import Selection, selected, selected_views
from workbench.layers.views import Exclusion, Layer, layer_views
from workbench.progress import Outcome, ProgressCallback, check_progress, map_units
from workbench.results import short_source
from workbench.weights import ModelLike, TensorInfo, Weights, content_fingerprint, load

R = TypeVar("R")

CPU = torch.device("cpu")
SMALL_ELEMENTS = 1 << 24  # 64 MB of float32: tensors up to this size are analysed several at a time
MOST_WORKERS = 8

Row = Mapping[str, Any]
View = Layer | Exclusion


def found(rows: Mapping[str, Sequence[Row]], tensors: Mapping[str, Tensor] | None = None) -> Entry:
    """What a unit of work gives: rows by table, `layers` with one row of its own, and tensors by field."""
    return Entry({"rows": {table: [dict(row) for row in inside] for table, inside in rows.items()}}, tensors or {})


@dataclass(frozen=True)
class Run:
    """A finished or stopped run.

    Attributes:
        weights: the model.
        views: all its tensors.
        outcomes: what became of each selected layer that was started.
        meta: what `Result.meta` says.
    """

    weights: Weights
    views: Sequence[View]
    outcomes: Sequence[Outcome[Any, Entry]]
    meta: dict[str, Any]

    def rows(self, table: str, failed: Callable[[Any, str], Row] | None = None) -> Iterator[Row]:
        """The rows of a table, in order of depth.

        Args:
            table: its name.
            failed: makes the row of a layer that failed, from the layer and the reason; None leaves it out.
        """
        for outcome in self.outcomes:
            if outcome.value is not None:
                yield from outcome.value.values["rows"].get(table, ())
            elif failed is not None:
                known = isinstance(outcome.error, LayerError)
                reason = str(outcome.error) if known else f"{type(outcome.error).__name__}: {outcome.error}"
                yield failed(outcome.unit, reason)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Layer id → a tensor of every layer that has one."""
        return {
            outcome.unit.layer: outcome.value.tensors[name]
            for outcome in self.outcomes
            if outcome.value is not None and name in outcome.value.tensors
        }

    def excluded(self) -> Iterator[Row]:
        """A row per tensor that is no weight matrix."""
        for view in self.views:
            if isinstance(view, Exclusion):
                yield vars(view) | {"elements": self.weights.infos[view.tensor].elements}


def layer_run(
    model: ModelLike,
    layers: Selection,
    unit: Callable[[Any, Tensor], Entry],
    result: Callable[[Run], R],
    *,
    function: str,
    parameters: Mapping[str, Any],
    seed: int | None = None,
    device: torch.device = CPU,
    cache: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
    unread: Callable[[View, TensorInfo], Entry | None] | None = None,
    held: int = 1,
) -> R:
    """Runs a unit of work over the selected layers and makes a result of what was done.

    Args:
        model: anything `wb.load` takes.
        layers: names, globs or a predicate; None for all.
        unit: a plain function of a layer and its tensor, which it must not keep or change.
        result: makes the result of a run, complete or stopped.
        function: the public function, for provenance and the cache.
        parameters: every argument that could change a number, but for the seed.
        seed: the seed, if anything is drawn.
        device: where it is computed.
        cache: a folder that keeps finished units; units must then consist of plain values and tensors.
        progress: called before each layer; it may raise Cancelled.
        unread: answers for tensors that need not be read. With it every tensor is a unit, and not only matrices.
        held: tensors of the layer's size that a unit holds at a time, its own among them.

    Raises:
        Cancelled: passed on, with the result of what was done as its `partial`.
        ArgumentError: `progress` cannot be called, or `cache` is no folder.
        CheckpointError: the model cannot be opened.
        LayerNotFoundError: the selection matches nothing.
    """
    begin = time.perf_counter()
    check_progress(progress)
    kept = None if cache is None else Cache(cache)
    weights = load(model)
    views = layer_views(weights)
    choose = selected if unread is None else selected_views
    chosen: Sequence[View] = choose(views, layers, short_source(weights.source))
    fingerprints: dict[str, str] = {}  # parts of one tensor share it
    key = {"function": function, "seed": seed, "device": str(device), **parameters}

    def one(view: View) -> Entry:
        answer = unread(view, weights.infos[view.tensor]) if unread is not None else None
        if answer is not None:
            return answer
        tensor = weights.borrowed(view.tensor)
        if tensor.layout != torch.strided:
            raise LayerError(f"{str(tensor.layout).removeprefix('torch.')} layout: only dense tensors are looked into")
        fingerprint = fingerprints.get(view.tensor) or content_fingerprint(tensor)
        fingerprints[view.tensor] = fingerprint

        def compute() -> Entry:
            entry = unit(view, tensor)
            return Entry({**entry.values, "fingerprint": fingerprint}, entry.tensors)

        return (
            compute()
            if kept is None
            else kept.through(key | {"view": asdict(view), "fingerprint": fingerprint}, compute)
        )

    def run(outcomes: Sequence[Outcome[View, Entry]]) -> R:
        names = [view.layer for view in chosen] if layers is not None else None
        meta = weights.provenance(function, layers=names, **parameters)
        meta |= {"seed": seed, "dtype": "float64", "device": str(device), "seconds": time.perf_counter() - begin}
        meta["fingerprints"] = {
            outcome.unit.tensor: outcome.value.values["fingerprint"]
            for outcome in outcomes
            if outcome.value is not None and "fingerprint" in outcome.value.values
        }
        if kept is not None:
            meta["cache"] = kept.facts()
        if len(outcomes) < len(chosen):
            meta["cancelled"] = {"done": len(outcomes), "total": len(chosen)}
        return result(Run(weights, views, outcomes, meta))

    try:
        workers = _workers(weights, chosen, held) if device.type == "cpu" else 1
        return run(map_units(one, chosen, name=lambda view: view.layer, progress=progress, workers=workers))
    except Cancelled as stop:
        stop.partial = run(stop.partial)
        raise


def _workers(weights: Weights, views: Sequence[View], held: int) -> int:
    """Layers at a time: as many as torch uses threads, but one where a tensor is so large that memory counts."""
    largest = max((weights.infos[view.tensor].elements for view in views), default=0)
    most = SMALL_ELEMENTS * MOST_WORKERS // max(held * largest, 1) if held > 1 else MOST_WORKERS
    return min(torch.get_num_threads(), MOST_WORKERS, max(most, 1)) if largest <= SMALL_ELEMENTS else 1
