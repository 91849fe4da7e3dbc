"""Permutation groups: which units of a network may change places without changing its function."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.connectivity.layout import groups_of
from workbench.connectivity.permutations import Permutations
from workbench.connectivity.proof import function_check
from workbench.connectivity.resolution import Resolved, resolved
from workbench.connectivity.structure import AXIS_COLUMNS, Structure
from workbench.connectivity.templates import from_template
from workbench.connectivity.tracing import Trace, traced
from workbench.errors import ArgumentError
from workbench.results import Column, Result, Table, many, table_rows, versions
from workbench.runtime import Evaluator
from workbench.runtime.batches import arguments, iter_batches
from workbench.runtime.borrowing import check_module, name_of
from workbench.seeds import generator
from workbench.weights import ModelLike, Weights, load

GROUP_COLUMNS: Mapping[str, Column] = {
    "group": Column("name, after the first layer that makes the units", str, ""),
    "size": Column("number of units", int, "units", low=1),
    "within": Column("group in each of whose units it has an order of its own; empty if none", str, ""),
    "orders": Column("number of orders: 1, or the number of units of the outer group", int, "1", low=1),
    "parameters": Column("elements of the parameters that have it, tied ones once", int, "elements", low=0),
    "axes": Column("the axes that have it, as tensor[axis]", str, ""),
    "frozen": Column("why it keeps its order, where it is listed for the groups within it", str, ""),
}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PermutationGroups(Result):
    """Sets of interchangeable units, and where each tensor has them.

    Tables: `groups`, a row per group; `axes`, a row per axis of every tensor, with what it is made of; `frozen`, the
    axes that keep positions, with the reason; `unknown`, operations without a rule, whose axes were frozen.
    """

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "groups": GROUP_COLUMNS,
        "axes": AXIS_COLUMNS,
        "frozen": {name: AXIS_COLUMNS[name] for name in ("tensor", "axis", "size", "made_of", "frozen")},
        "unknown": {
            "operation": Column("an operation that the trace met without knowing it", str, ""),
            "calls": Column("how often", int, "calls", low=1),
            "reason": Column("why it is not known", str, ""),
        },
    }
    NEXT: ClassVar[str] = 'wb.match(groups, a, b), .frame("frozen"), .random(seed)'

    @property
    def verified(self) -> bool:
        """Whether random permutations were seen to leave the function unchanged."""
        return bool(self.meta["verified"])

    @cached_property
    def structure(self) -> Structure:
        """The tables as functions take them."""
        return Structure.of(self.tables["groups"], self.tables["axes"])

    def facts(self) -> str:
        """Groups, units, and whether the function was seen unchanged."""
        orders = self.structure.identity()
        units = sum(order.numel() for order in orders.values())
        return f"{self.title}: {many(len(orders), 'group')} of {many(units, 'unit')}; {self.meta['proof']}"

    def identity(self) -> Permutations:
        """The permutations that leave every unit in place."""
        return Permutations(self.structure.identity(), self.structure.within)

    def random(self, seed: int = 0) -> Permutations:
        """Permutations drawn uniformly and independently, every group from a generator of its own (seed, group)."""
        orders = {}
        for group, places in self.structure.identity().items():
            draws = generator(seed, group)
            rows = [torch.randperm(len(row), generator=draws) for row in places.reshape(-1, places.shape[-1])]
            orders[group] = torch.stack(rows).reshape(places.shape)
        return Permutations(orders, self.structure.within)

    def apply(self, weights: ModelLike, permutations: Mapping[str, Tensor]) -> Weights:
        """The same network with its units in another order: unit i is unit order[i] of the given one.

        Args:
            weights: a checkpoint of this architecture; running statistics and other buffers are permuted too.
            permutations: of these groups; groups that it lacks stay.

        Returns:
            Weights with the names, shapes and dtypes of before, permuted when a tensor is read.

        Raises:
            ArgumentError: the weights are of another architecture (the first difference is named), or the
                permutations of other groups.

        Cost: nothing here; a copy of each tensor on reading.
        """
        return self.structure.applied(weights, permutations)


def permutation_groups(
    module_or_weights: nn.Module | Evaluator | ModelLike,
    example_inputs: Any = None,
    *,
    outputs: Sequence[str | int] | str | int | None = None,
    template: str | None = None,
    heads: int | None = None,
    seed: int = 0,
) -> PermutationGroups:
    """Which units of a network may change places: f(x; π(θ)) = f(x; θ) for every product π of these permutations.

    The module is traced with torch.export. Every axis of every tensor is a product or concatenation of leaves; what an
    operation lines up is made one leaf (union-find); inputs, outputs, kernel positions, vocabularies and what meets
    constants that differ from position to position keep their order. An operation that is not known freezes all that it
    touches and is told in the table `unknown`: safe, and never wrong. A group g lies *within* h where every tensor with
    g has h beside it, as the units of a head: then each unit of h orders g in its own way.

    A checkpoint without code is read by a template of its architecture (bert, gpt2, llama, vit, resnet), as its module
    would be with all outputs held: where no head is stored or tied, the residual stream is an output and keeps its
    order. Such groups are never verified.

    Args:
        module_or_weights: a module; an evaluator, whose module and first batch are taken; or a checkpoint without code,
            for which `template` tells the architecture.
        example_inputs: what the module takes: a tensor, a tuple of positional arguments, or a dict of named ones. Its
            shapes matter; floating-point tensors that are constant are replaced by random ones in the check.
        outputs: names or positions of the outputs that must stay as they are; None for all of them. Of a checkpoint
            without code, "logits" says that a head is tied to the embeddings though it is not stored. A BERT whose
            pooled output alone is used has a residual stream that may be permuted; its `last_hidden_state` fixes it.
        template: for a checkpoint without code, which architecture it is of; None tells it from the names.
        heads: for a checkpoint of a transformer without a config.json beside it, the number of (query) heads of a
            layer, which shapes do not tell.
        seed: of the permutations and values with which the function is checked.

    Returns:
        PermutationGroups. The check runs the module once as it is and once with randomly permuted units, vectors
        (biases, norms, running statistics) replaced by random numbers because their defaults would hide mistakes; its
        relative change is in `.meta["function_error"]`.

    Raises:
        ArgumentError: torch.export cannot follow the module, the inputs do not fit, or there is no such output; no
            template fits, or several, a tensor is not in it, or the number of heads is needed or does not divide.
        SourceTypeError: it is neither a module nor a checkpoint.

    Cost: torch.export, one pass over its graph and three forward passes; a copy of the parameters. A template: names
    and shapes.

    Source: ours; the algebra follows the symmetries in Ainsworth et al. (Git Re-Basin, arXiv 2209.04836, section 3),
    written there by hand for each architecture.

    Misreads: found for the computation that the example inputs take, in evaluation mode. Units that could be permuted
    for a deeper reason (equal weights, dead units) are not looked for. Rescaling symmetries are no permutations.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> groups = permutation_groups(net, torch.zeros(1, 4))
        >>> groups.frame()[["group", "size", "axes"]].values.tolist()
        [['0', 3, '0.weight[0], 0.bias[0], 2.weight[1]']]
    """
    begin = time.perf_counter()
    names = [outputs] if isinstance(outputs, str | int) else outputs
    if isinstance(module_or_weights, Evaluator):
        example_inputs = example_inputs if example_inputs is not None else _first_inputs(module_or_weights)
        module_or_weights = module_or_weights.module
    if not isinstance(module_or_weights, nn.Module):
        weights = load(module_or_weights)
        if example_inputs is not None:
            raise ArgumentError("example_inputs go with a module: a checkpoint without code cannot be run.")
        return _by_template(weights, template, names, heads, begin)
    if template is not None or heads is not None:
        raise ArgumentError(
            "template and heads go with a checkpoint without code; a module tells both: leave them out."
        )
    return _by_module(module_or_weights, example_inputs, names, seed, begin)


def _by_module(
    module: nn.Module, example_inputs: Any, names: Sequence[str | int] | None, seed: int, begin: float
) -> PermutationGroups:
    """The groups that a trace tells, checked by running the module."""
    check_module(module)
    if example_inputs is None:
        raise ArgumentError(
            f"example_inputs is needed to follow {name_of(module)}: a tensor, a tuple of arguments or a dict of named "
            "ones, of the shapes that forward takes (the values do not matter)."
        )
    if not module.state_dict():
        raise ArgumentError(f"{name_of(module)} has no parameters or buffers, so nothing in it can be permuted.")
    trace = traced(module, example_inputs, names)
    found = resolved(trace)
    shapes = {name: tuple(tensor.shape) for name, tensor in _stored(module).items()}
    tables = _tables(found, trace, shapes)
    meta = {
        "function": "wb.permutation_groups",
        "source": name_of(module),
        "parameters": {"outputs": None if names is None else list(map(str, names)), "template": None},
        "seed": seed,
        "versions": versions(),
    }
    draft = PermutationGroups(tables=tables, meta=meta | {"verified": False, "proof": "not checked"})
    drawn = draft.random(seed)
    meta |= function_check(
        module, example_inputs, names, lambda weights: draft.apply(weights, drawn), trace.epsilon, seed
    )
    meta["seconds"] = time.perf_counter() - begin
    notes = [] if meta["verified"] else [str(meta["proof"])]
    notes += [f"{name}: {why}, so all that it touches keeps its order" for name, (why, _) in trace.unknown.items()]
    return PermutationGroups(tables=tables, meta=meta | ({"notes": notes} if notes else {}))


def _by_template(
    weights: Weights, template: str | None, outputs: Sequence[str | int] | None, heads: int | None, begin: float
) -> PermutationGroups:
    """The groups that a template tells: nothing was run."""
    found = from_template(weights, template, outputs, heads)
    proof = f"made from a template ({found.name}): its function was not checked"
    meta = weights.provenance(
        "wb.permutation_groups",
        outputs=None if outputs is None else list(map(str, outputs)),
        template=found.name,
        heads=found.heads,
    )
    meta |= {"verified": False, "proof": proof, "seconds": time.perf_counter() - begin}
    meta["notes"] = [*meta["notes"], proof, *found.notes]
    return PermutationGroups(tables=_tables(found.found, found.trace, found.shapes), meta=meta)


def _stored(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.state_dict(keep_vars=True))


def _first_inputs(evaluator: Evaluator) -> Any:
    _, batch = next(iter(iter_batches(evaluator.data)))
    positional, named = arguments(batch, evaluator.device)
    return named or positional


def group_tables(
    found: Resolved, trace: Trace, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """The tables `groups` and `axes`."""
    axes = []
    held: dict[str, list[str]] = {name: [] for name in found.groups}
    elements = dict.fromkeys(found.groups, 0)
    for tensor, layout in found.layouts.items():
        kind = "buffer" if tensor in trace.buffers else "parameter"
        row = {"tensor": tensor, "kind": kind, "tied_to": trace.tied.get(tensor, "")}
        if not layout:
            axes.append(row | {"axis": -1, "size": 0, "made_of": "", "frozen": ""})
        for axis, node in enumerate(layout):
            frozen = found.reasons[tensor][axis]
            axes.append(row | {"axis": axis, "size": node.size, "made_of": str(node), "frozen": frozen})
            for group in dict.fromkeys(groups_of([node])):
                held[group].append(f"{tensor}[{axis}]")
        if kind == "parameter" and tensor not in trace.tied:
            for group in dict.fromkeys(groups_of(layout)):
                elements[group] += prod(shapes[tensor])
    groups = [
        {
            "group": group.name,
            "size": group.size,
            "within": group.within,
            "orders": found.groups[group.within].size if group.within else 1,
            "parameters": elements[group.name],
            "axes": ", ".join(held[group.name]),
            "frozen": group.frozen,
        }
        for group in found.groups.values()
    ]
    return PermutationGroups.columns("groups", groups), PermutationGroups.columns("axes", axes)


def _tables(found: Resolved, trace: Trace, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Table]:
    """All tables of the result."""
    groups, axes = group_tables(found, trace, shapes)
    unknown = [{"operation": name, "calls": calls, "reason": why} for name, (why, calls) in trace.unknown.items()]
    return {
        "groups": groups,
        "axes": axes,
        "frozen": PermutationGroups.columns("frozen", [row for row in table_rows(axes) if row["frozen"]]),
        "unknown": PermutationGroups.columns("unknown", unknown),
    }
