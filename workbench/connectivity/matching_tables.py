"""A Matching from what was found: tables of groups, sweeps, layers and alignment, and the check of the function."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.connectivity.groups import PermutationGroups
from workbench.connectivity.layout import permuted
from workbench.connectivity.matching import Matching
from workbench.connectivity.nested_assignment import Orders
from workbench.connectivity.permutations import moved_units
from workbench.connectivity.proof import relative_change
from workbench.connectivity.structure import Structure
from workbench.connectivity.weight_matching import Descent, Reader
from workbench.linalg.pieces import flat_pieces
from workbench.results import Table
from workbench.runtime import Evaluator
from workbench.runtime.batches import arguments, first_tensor, iter_batches, naming
from workbench.runtime.borrowing import lent
from workbench.weights import Weights


def matching(
    groups: PermutationGroups,
    readers: Sequence[Reader],
    runs: Mapping[int, Sequence[Descent]],
    meta: Mapping[str, Any],
    notes: Sequence[str],
    rounds: Sequence[Mapping[str, float]] = (),
) -> Matching:
    """The Matching of network 0 with each of `runs`, whose best run counts; without alignment and check yet."""
    rows: dict[str, list[dict[str, Any]]] = {"groups": [], "layers": []}
    rows["sweeps"] = [{"model": 0, "start": 0, **row} for row in rounds]
    orders: dict[str, Tensor] = {}
    table, members = groups.tables["groups"], groups.structure.members()
    copied = ("group", "size", "within", "orders", "parameters", "frozen")
    for model, own in runs.items():
        best = max(own, key=lambda run: run.objective if run.objective == run.objective else -float("inf"))
        orders |= {f"{model}/{group}": order.contiguous() for group, order in best.orders.items()}
        compared = _compared(groups.structure, readers[0], readers[model], best.orders)
        rows["layers"] += [
            {"model": model, "layer": name.removesuffix(".weight"), "tensor": name, **_distances(part)}
            for name, part in compared.items()
        ]
        total = sum(part["norm_a"] ** 2 + part["norm_b"] ** 2 for part in compared.values())
        rows["sweeps"] += [
            {
                "model": model,
                "start": start,
                **{name: row[name] for name in ("sweep", "objective", "changed", "seconds")},
                "distance": max(total - 2 * row["objective"], 0.0) ** 0.5,
            }
            for start, run in enumerate(own)
            for row in run.history
        ]
        for index, group in enumerate(table["group"]):
            own_parts = [compared[name] for name in members[group]]
            rows["groups"].append(
                {
                    "model": model,
                    **{name: table[name][index] for name in copied},
                    "moved": moved_units(best.orders[group]) if group in best.orders else 0,
                    "objective": sum(part["dot_after"] for part in own_parts),
                    "objective_before": sum(part["dot_before"] for part in own_parts),
                }
            )
    tables: dict[str, Table] = {name: Matching.columns(name, own) for name, own in rows.items()}
    tables["alignment"] = Matching.columns("alignment", [])
    tables["axes"] = groups.tables["axes"]
    notes = [*([] if groups.verified else [str(groups.meta["proof"])]), *notes]
    meta = {**meta, "verified": groups.verified, "proof": str(groups.meta["proof"])}
    return Matching(tables=tables, meta=meta | ({"notes": [*meta["notes"], *notes]}), orders=orders)


def _distances(part: Mapping[str, float]) -> dict[str, Any]:
    before, after = part["before"], part["after"]
    return {
        "elements": int(part["elements"]),
        "norm_a": part["norm_a"],
        "norm_b": part["norm_b"],
        "distance_before": before,
        "distance_after": after,
        "reduction": 1 - after / before if before else float("nan"),
        "objective": part["dot_after"],
        "objective_before": part["dot_before"],
    }


def _compared(structure: Structure, a: Reader, b: Reader, orders: Orders) -> dict[str, dict[str, float]]:
    """Norms, distances and inner products of every parameter, in float64."""
    found = {}
    for name in structure.parameters():
        own, other = a(name), b(name)
        moved = permuted(other, structure.layouts[name], orders, structure.within)
        sums = torch.zeros(6, dtype=torch.float64)
        for x, y, z in flat_pieces(own, other, moved):
            squares = [x @ x, y @ y, (x - y).square().sum(), (x - z).square().sum(), x @ y, x @ z]
            sums += torch.stack(squares)
        roots = sums[:4].sqrt().tolist()
        found[name] = dict(zip(("norm_a", "norm_b", "before", "after"), roots, strict=True))
        found[name] |= {"dot_before": float(sums[4]), "dot_after": float(sums[5]), "elements": own.numel()}
    return found


def function_change(evaluator: Evaluator, before: Weights, after: Weights) -> dict[str, Any]:
    """How much the outputs on the first batch and the loss changed; both should be rounding."""
    number, batch = next(iter_batches(evaluator.data))

    def outputs(weights: Weights, run: int) -> Tensor:
        with lent(evaluator.module, weights, evaluator.device), naming(number, batch):
            torch.manual_seed(run)  # the global state is put back when the module is
            positional, named = arguments(batch, evaluator.device)
            return first_tensor(evaluator.module(*positional, **named)).detach()

    first = outputs(before, 0)
    bound = torch.finfo(first.dtype).eps ** 0.5 if first.is_floating_point() else 0.0
    change = relative_change(first, outputs(after, 0))
    return {
        "function_change": change,
        "unchanged": change <= bound,
        "random": change > bound and relative_change(first, outputs(before, 1)) > bound,
        "loss": evaluator(before)["loss"],
        "loss_permuted": evaluator(after)["loss"],
    }


def completed(
    result: Matching, alignment: Sequence[Mapping[str, Any]], checks: Sequence[Mapping[str, Any]], seconds: float
) -> Matching:
    """The result with its alignment, and with what was seen of the function."""
    meta = {**result.meta, "seconds": seconds, "checks": list(map(dict, checks))}
    if checks:
        worst = max(check["function_change"] for check in checks)
        unchanged = all(check["unchanged"] for check in checks)
        meta["verified"] = unchanged
        if unchanged:
            meta["proof"] = f"the outputs were seen unchanged (relative change {worst:.0e})"
        elif all(check["unchanged"] or check["random"] for check in checks):
            meta["proof"] = "the outputs are random even in evaluation mode: they could not be compared"
        else:
            meta["proof"] = f"THE OUTPUTS CHANGED by {worst:.1g} (relative): do not use this matching"
        if not unchanged:
            meta["notes"] = [meta["proof"], *meta["notes"]]
    tables = {**result.tables, "alignment": Matching.columns("alignment", alignment)}
    return dataclasses.replace(result, tables=tables, meta=meta)
