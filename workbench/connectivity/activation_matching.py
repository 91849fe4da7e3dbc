"""Activation matching: units that fire together on the same data (Li et al. 2016; Git Re-Basin, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workbench.connectivity.layout import Leaf, Node, groups_of, iter_blocks
from workbench.connectivity.nested_assignment import Gains, Orders, solved
from workbench.connectivity.structure import Structure
from workbench.errors import ArgumentError
from workbench.progress import Progress, ProgressCallback
from workbench.runtime import Evaluator
from workbench.runtime.activations import feature_axis
from workbench.runtime.batches import arguments, first_tensor, iter_batches, naming
from workbench.runtime.borrowing import lent
from workbench.runtime.hooks import hooked
from workbench.weights import Weights

EPS = 1e-12  # relative to the largest variance: a unit below it is constant, and correlates with nothing


@dataclass(frozen=True, kw_only=True)
class Site:
    """A submodule whose output has a group's units along one axis.

    Attributes:
        path: the submodule.
        node: what that axis is made of.
    """

    path: str
    node: Node


class _Moments:
    """Σ z_A z_Bᵀ, block by block, and the sums that centre and scale it."""

    def __init__(self, family: list[str], node: Node, sizes: Mapping[str, int]) -> None:
        self.family, self.node, self.sizes = family, node, sizes
        self.products, self.count = self._empty(), 0
        self.sums = [torch.zeros(node.size, dtype=torch.float64) for _ in range(2)]
        self.squares = [torch.zeros(node.size, dtype=torch.float64) for _ in range(2)]

    def _empty(self) -> Gains:
        return Gains(self.family[0], self.family[1:], self.sizes)

    def _add(self, gains: Gains, a: Tensor, b: Tensor) -> None:
        layout = (self.node, Leaf(a.shape[1]))
        for mine, yours in zip(iter_blocks(a, layout), iter_blocks(b, layout), strict=True):
            if set(mine.groups) & set(self.family):
                gains.add(mine.tensor, yours.tensor, mine.groups, {})

    def update(self, a: Tensor, b: Tensor) -> None:
        self._add(self.products, a, b)
        self.count += a.shape[1]
        for index, values in enumerate((a.double(), b.double())):
            self.sums[index] += values.sum(1).cpu()
            self.squares[index] += values.square().sum(1).cpu()

    def gains(self, correlation: bool) -> Gains:
        if not correlation or not self.count:
            return self.products
        means = [total / self.count for total in self.sums]
        spreads = []
        for mean, square in zip(means, self.squares, strict=True):
            variance = (square / self.count - mean.square()).clamp_min(0)
            alive = variance > EPS * variance.max()
            spreads.append(torch.where(alive, variance.clamp_min(1e-300).rsqrt(), torch.zeros(())))
        centre, scale = self._empty(), self._empty()
        self._add(centre, means[0][:, None], means[1][:, None])
        self._add(scale, spreads[0][:, None], spreads[1][:, None])
        for key, part in self.products.parts.items():
            self.products.parts[key] = (part.cpu() / self.count - centre.parts[key]) * scale.parts[key]
        return self.products


def activation_orders(
    structure: Structure,
    families: Mapping[str, list[str]],
    evaluator: Evaluator,
    a: Weights,
    b: Weights,
    *,
    correlation: bool,
    start: Orders,
    progress: ProgressCallback | None = None,
) -> tuple[Orders, list[str]]:
    """The order of every group from what its units do on the evaluator's data; groups apart, one pass.

    Args:
        structure: groups and tensors.
        families: outer group → itself and the groups within it.
        evaluator: module, data and device.
        a: the network that stays.
        b: the network that is permuted.
        correlation: gains are correlations of two units' outputs, else their inner products.
        start: orders of groups that no submodule shows.
        progress: called before each batch.

    Returns:
        The orders, and the outer groups that no submodule shows, which keep theirs.
    """
    sites = _sites(structure, evaluator.module)
    moments: dict[tuple[str, str], _Moments] = {}
    for root, family in families.items():
        for site in sites:
            if set(groups_of([site.node])) & set(family):
                moments[root, site.path] = _Moments(family, site.node, structure.sizes)
    hidden = [root for root in families if not any(key[0] == root for key in moments)]
    parts = {path: evaluator.module.get_submodule(path) for _, path in moments}
    for number, batch in iter_batches(evaluator.data):
        if progress is not None:
            progress(Progress(done=number, total=number + 1, item=f"batch {number}", seconds=0.0))
        seen = [_outputs(evaluator, parts, weights, number, batch) for weights in (a, b)]
        for (_, path), moment in moments.items():
            for mine, yours in zip(seen[0].get(path, []), seen[1].get(path, []), strict=True):
                if mine.shape[0] == moment.node.size:
                    moment.update(mine, yours)
    orders = dict(start)
    for root, family in families.items():
        total = Gains(root, family[1:], structure.sizes)
        for (owner, _), moment in moments.items():
            for key, part in moment.gains(correlation).parts.items() if owner == root and moment.count else ():
                total.parts[key] = total.parts[key] + part if key in total.parts else part
        if total.parts:
            orders.update(solved(total, orders, structure).orders)
        elif root not in hidden:
            hidden.append(root)
    return orders, hidden


def _sites(structure: Structure, module: nn.Module) -> list[Site]:
    """The submodules whose outputs have units along an axis, as their bias or weight tells."""
    found = []
    for path, _ in module.named_modules():
        prefix = f"{path}." if path else ""
        weight, bias = (structure.layouts.get(f"{prefix}{name}") for name in ("weight", "bias"))
        node = bias[0] if bias and len(bias) == 1 else None
        if node is None and weight:
            part = module.get_submodule(path)
            turned = isinstance(part, nn.Embedding) or type(part).__name__.startswith("ConvTranspose")
            node = weight[1] if turned else weight[0]
        if node is not None and any(group in structure.free for group in groups_of([node])):
            found.append(Site(path=path, node=node))
    return found


def _outputs(
    evaluator: Evaluator, parts: Mapping[str, nn.Module], weights: Weights, number: int, batch: Any
) -> dict[str, list[Tensor]]:
    """What each submodule gives for a batch, features first, a matrix per call."""
    found: dict[str, list[Tensor]] = {}

    def heard(path: str, output: Any) -> None:
        tensor = first_tensor(output).detach()
        axis = feature_axis(parts[path], tensor.ndim)
        found.setdefault(path, []).append(tensor.movedim(axis, 0).flatten(1).clone())

    with lent(evaluator.module, weights, evaluator.device), hooked(parts, heard), naming(number, batch):
        positional, named = arguments(batch, evaluator.device)
        evaluator.module(*positional, **named)
    return found


def check_evaluator(evaluator: object, method: str) -> Evaluator:
    """The evaluator that a method needs.

    Raises:
        ArgumentError: there is none.
    """
    if not isinstance(evaluator, Evaluator):
        raise ArgumentError(f"method={method!r} needs evaluator=wb.evaluator(module, data, loss), for its data.")
    return evaluator
