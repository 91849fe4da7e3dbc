"""How many of a layer's nodes, or of the edges to the next layer, the network needs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

from jaxtyping import Bool
from torch import Tensor

from workbench.degeneracy.ablated import ablating
from workbench.degeneracy.basis import InteractionBasis
from workbench.degeneracy.interaction_graph import InteractionGraph
from workbench.degeneracy.provenance import other_weights
from workbench.degeneracy.schedules import Kind, schedule_of
from workbench.errors import ArgumentError, nearest
from workbench.progress import ProgressCallback, check_progress
from workbench.results import Column, Result
from workbench.runtime import Evaluator
from workbench.runtime.borrowing import lent
from workbench.runtime.evaluator import check_evaluator
from workbench.runtime.measuring import (
    MEASURED,
    METRIC,
    evaluator_meta,
    held,
    measured_cells,
    measurement,
    metric_rows,
    walked,
)
from workbench.weights import ModelLike, load
from workbench.weights.tensors import dtypes_of, module_fingerprint

JUDGED = ("accuracy", "loss")  # the metrics of which it is known which way is better
KEPT = Column("nodes that are kept, the constant first, or edges, the largest first", int, "1", low=0)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Ablation(Result):
    """Loss and metrics with the first nodes of a layer alone, or with the largest edges, in order of their number.

    Tables: `points`, a row per number kept; `metrics`, a row per number and metric.

    Attributes:
        mask: what is kept at `.needed`: (nodes,), or (nodes of the next layer, nodes of this layer) with the constant's
            column, which is free, and its row, which holds no edges that count. Everything before the first point.
    """

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "points": {"kept": KEPT, **MEASURED},
        "metrics": {"kept": KEPT, **METRIC},
    }
    NEXT: ClassVar[str] = ".needed, .mask, .unablated, .frame(), wb.figure(ablation)"

    mask: Bool[Tensor, "*_"]

    @property
    def unablated(self) -> dict[str, float]:
        """Loss and metrics of the network as it is."""
        return dict(self.meta["unablated"])

    @property
    def total(self) -> int:
        """All nodes, or all edges that count."""
        return int(self.meta["total"])

    @property
    def needed(self) -> int:
        """The smallest number that was evaluated from which on every one that was evaluated is within tolerance.

        All of them, where not even the largest number that was evaluated is.

        Raises:
            ArgumentError: the run was cancelled before the first point.
        """
        table = self.tables["points"]
        if not table["kept"]:
            raise ArgumentError(
                f"how many {self.meta['unit']} are needed is not known: the ablation was cancelled before the first "
                "point; run it once more."
            )
        rows = zip(table["kept"], table[self.meta["parameters"]["metric"]], strict=True)
        return _needed(dict(rows), self.unablated, self.meta["parameters"], self.total)

    def facts(self) -> str:
        """How many are needed of how many, for what, whether the basis is of other weights, or the run was stopped."""
        asked, points = self.meta["parameters"], len(self.tables["points"]["kept"])
        metric, of = asked["metric"], f"{self.total} {self.meta['unit']} of {self.meta['layer']!r}"
        if not points:
            return f"{self.title}: CANCELLED before the first point: nothing is known of the {of}"
        prints = self.meta.get("fingerprints", {})
        others = "; basis of other weights" if prints.get("basis") not in (None, prints.get("weights")) else ""
        return (
            f"{self.title}: {self.needed} of {of} keep the {metric} within {asked['tolerance']:g} of "
            f"{self.unablated[metric]:.4g}; {points} points{others}{self.stopped('points at most')}"
        )


def ablation(
    evaluator: Evaluator,
    basis: InteractionBasis,
    layer: str,
    *,
    graph: InteractionGraph | None = None,
    schedule: Kind = "exponential",
    counts: Iterable[int] | None = None,
    base: float = 1.05,
    every: int = 10,
    points: int | None = None,
    metric: str | None = None,
    tolerance: float = 0.001,
    weights: ModelLike | None = None,
    progress: ProgressCallback | None = None,
) -> Ablation:
    """Loss with the first k nodes of a layer, f → μ + Σ_{j<k} f̂_j·C⁺_j; with a graph, with its k largest edges alone.

    Nodes: the constant is the first, so that k = 1 leaves the mean and k = 0 nothing (f → 0). Edges: each node i of the
    next layer is computed from μ + Σ_j f̂_j·C⁺_j over the nodes j whose edge to i is kept; f̂_0 = 1 reaches every node
    for free. The rest of the network then runs on what these give. All nodes, or all edges, are the network as it is,
    also where the basis has dropped directions.

    Args:
        evaluator: of the module that the basis is of; its data, loss and metrics decide the numbers.
        basis: the nodes of each layer and their order. Of other weights than those that are evaluated (before a
            fine-tuning, say) the result's facts and `.meta["notes"]` tell so.
        layer: a layer of the basis, but not the last.
        graph: the interaction graph of this basis: ablates the edges from `layer` to the next, the largest |E| first,
            of equal ones the first by row and column. None ablates nodes.
        schedule: "exponential" evaluates each number up to `every`, then steps that grow by `base`, and all; "linear"
            evenly spaced numbers; "bisect" looks for the smallest number within tolerance.
        counts: the numbers themselves, whatever the schedule.
        base: growth of the steps of "exponential", above 1. 1.05 resolves a number to a twentieth of its distance from
            `every`.
        every: up to which number "exponential" leaves none out. 10: most layers of the published networks need more.
        points: numbers of "linear", both ends with them; None for 25.
        metric: what must stay: "accuracy" (at least that of the network less `tolerance`) or "loss" (at most that of
            the network and `tolerance`). None is accuracy where the evaluator has it.
        tolerance: at least 0, in the metric's unit. 0.001 as in Bushnaq et al.: 0.1 percentage points.
        weights: a checkpoint in place of the module's own weights.
        progress: called before each point with a Progress, and once at the end; it may raise `wb.Cancelled`.

    Returns:
        An Ablation: `.needed`, its `.mask`, `.unablated`, and a row for each number that was evaluated, the largest
        first. A loss that is NaN or infinite is a row with its reason and not within tolerance, and so is an evaluation
        that fails, unless it is the first.

    Raises:
        ArgumentError: the basis is of another module, or the graph of another basis; the layer is the last; an
            argument is out of its range; the metric is not the evaluator's, or that of the network is not finite.
        LayerNotFoundError: the layer is not in the basis.
        EvaluationError: the network itself, or the first point, cannot be evaluated.
        Cancelled: the callback asked for it; `.partial` is the Ablation of the points that were done.

    Cost: a forward pass over the data a point. Edges: two more, and one of the segment for each set of sources that
    some node sees, at most as many as the next layer has nodes; outputs before the layer are held for a batch.

    Source: Bushnaq et al. 2024 (arXiv 2405.10928, section 4, and their package rib) for both ablations and their
    schedules. Ours: exactly k edges also where some are equal, and the mask of the last number that passed, not of the
    last that was tried.

    Misreads: "bisect" takes for granted that more is never worse, which is not so: look at the curve of "exponential".
    Between numbers that were not evaluated `.needed` is an upper bound. One below all nodes is without what the basis
    has dropped as well. Nodes are kept in the basis's order, which is not that of the loss; another set of as many may
    do better. An accuracy on training data says little of that on others.

    Example:
        >>> import torch
        >>> from workbench import evaluator
        >>> from workbench.degeneracy.interaction_basis import interaction_basis
        >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(1, 1, bias=False))
        >>> _ = net[1].weight.data.fill_(2.0)
        >>> x = torch.tensor([[1.0], [3.0]])
        >>> error = evaluator(net, [(x, 2 * x)], "mse", device="cpu")
        >>> found = ablation(error, interaction_basis(net, [x], "0", device="cpu"), "0", tolerance=4.0)
        >>> found.tables["points"]["loss"], found.needed
        ((20.0, 4.0, 0.0), 1)
    """
    begin = time.perf_counter()
    check_evaluator(evaluator)
    check_progress(progress)
    chosen = _metric(evaluator, metric)
    _check_tolerance(tolerance)
    loaded = None if weights is None else load(weights)
    own = None if loaded is None else held(evaluator, "weights", loaded)
    what = ablating(evaluator, basis, layer, graph, own)
    plan = schedule_of(schedule, counts, what.total, points=points, every=every, base=base)
    unablated = evaluator(own)
    if not math.isfinite(unablated[chosen]):
        raise ArgumentError(
            f"the {chosen} of the network as it is is {unablated[chosen]}: nothing can be within a tolerance of it; "
            "choose other data, or the other metric."
        )
    parameters = {
        "layer": layer,
        "schedule": plan.kind,
        "counts": list(plan.counts) if plan.kind == "counts" else None,
        "base": float(base) if plan.kind == "exponential" else None,
        "every": every if plan.kind == "exponential" else None,
        "points": points if plan.kind == "linear" else None,
        "metric": chosen,
        "tolerance": float(tolerance),
    }
    tensors = own or {name: held for name, held in evaluator.module.state_dict().items() if isinstance(held, Tensor)}
    with lent(evaluator.module, own, evaluator.device):
        fingerprint = module_fingerprint(evaluator.module)
    meta = {
        **(load(evaluator.module) if loaded is None else loaded).provenance("wb.ablation", **parameters),
        "fingerprints": {"weights": fingerprint, "basis": basis.meta.get("fingerprint")},
        "notes": other_weights(fingerprint, basis.meta),
        "layer": layer,
        "unit": what.unit,
        "total": what.total,
        "predicted": basis.predicted_nodes(layer) if graph is None else None,
        "unablated": unablated,
        "basis": dict(basis.meta["parameters"]),
        "graph": None if graph is None else dict(graph.meta["parameters"]),
        "evaluator": evaluator_meta(evaluator),
        "seed": None,
        "dtype": dtypes_of(tensors),
        "device": str(evaluator.device),
    }
    rows: dict[int, float] = {}
    complete = False

    def walk() -> Iterator[int]:
        nonlocal complete
        yield from plan.walk(lambda kept: _passes(rows[kept], unablated, parameters))
        complete = True

    def measure(kept: int) -> dict[str, Any]:
        if kept == what.total:
            found = measurement(lambda: unablated, strict=True)
        else:
            found = measurement(lambda: what.measured(kept), strict=not set(rows) - {what.total})
        rows[kept] = found["values"].get(chosen, math.nan)
        return found

    def built(done: Mapping[int, dict[str, Any]]) -> Ablation:
        more: dict[str, Any] = {"seconds": time.perf_counter() - begin}
        if not complete:
            more["cancelled"] = {"done": len(done), "total": plan.length}
        needed = _needed({kept: rows[kept] for kept in done}, unablated, parameters, what.total)
        return Ablation(tables=_tables(dict(sorted(done.items()))), meta=meta | more, mask=what.mask(needed))

    return walked(walk(), measure, built, name=lambda kept: f"{kept} {what.unit}", progress=progress, total=plan.length)


def _metric(evaluator: Evaluator, metric: str | None) -> str:
    if metric is None:
        return "accuracy" if "accuracy" in evaluator.metrics else "loss"
    if metric not in JUDGED:
        raise ArgumentError(
            f"metric={metric!r}: expected 'accuracy' or 'loss', of which it is known which way is better."
            + nearest(metric, JUDGED)
        )
    if metric != "loss" and metric not in evaluator.metrics:
        raise ArgumentError(
            f"metric={metric!r}, which the evaluator has not: pass metric='loss', or an evaluator with "
            f"metrics={metric!r}."
        )
    return metric


def _check_tolerance(tolerance: object) -> None:
    if not isinstance(tolerance, Real) or isinstance(tolerance, bool) or not 0 <= float(tolerance) < math.inf:
        raise ArgumentError(f"tolerance={tolerance!r}: expected a number of at least 0, in the metric's unit.")


def _passes(value: float, unablated: Mapping[str, float], parameters: Mapping[str, Any]) -> bool:
    """Whether a value is within tolerance; NaN is not."""
    own, tolerance = unablated[parameters["metric"]], parameters["tolerance"]
    return bool(value >= own - tolerance if parameters["metric"] == "accuracy" else value <= own + tolerance)


def _needed(
    rows: Mapping[int, float], unablated: Mapping[str, float], parameters: Mapping[str, Any], total: int
) -> int:
    needed = total
    for kept in sorted(rows, reverse=True):
        if not _passes(rows[kept], unablated, parameters):
            break
        needed = kept
    return needed


def _tables(done: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    points = [{"kept": kept, **measured_cells(found)} for kept, found in done.items()]
    metrics = [{"kept": kept} | row for kept, found in done.items() for row in metric_rows(found)]
    return {"points": Ablation.columns("points", points), "metrics": Ablation.columns("metrics", metrics)}
