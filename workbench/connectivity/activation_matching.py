"""Activation matching: units that fire together on the same data (Li et al. 2016; Git Re-Basin, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workbench.connectivity.layout import Leaf, Node, groups_of, iter_blocks
from workbench.connectivity.nested_assignment import Gains, Orders, solved
from workbench.connectivity.structure import Structure
from workbench.connectivity.weight_matching import MatchingProgress
from workbench.errors import ArgumentError
from workbench.progress import ProgressCallback, reporter
from workbench.runtime import Evaluator
from workbench.runtime.activations import MASK, batch_count, feature_axis, kept_positions
from workbench.runtime.batches import arguments, first_tensor, iter_batches, naming
from workbench.runtime.borrowing import lent
from workbench.runtime.hooks import hooked
from workbench.weights import Weights

EPS = 1e-12  # of its mean: a unit whose standard deviation is below it is constant, what is left being rounding


@dataclass(frozen=True, kw_only=True)
class Site:
    """A submodule whose output has a group's units along one axis.

    Attributes:
        path: the submodule.
        node: what that axis is made of.
    """

    path: str
    node: Node


@dataclass(frozen=True, kw_only=True)
class _Call:
    """What a submodule gave: features first, samples second; and the lengths of its axes but for features and batch."""

    values: Tensor
    lengths: set[int]


class _CrossMoments:
    """Σ z_A z_Bᵀ, block by block, and for correlations the sums that centre and scale it.

    Correlations are taken about the first batch's means, so that nothing is lost where means are large.
    """

    def __init__(self, family: list[str], node: Node, sizes: Mapping[str, int], correlation: bool) -> None:
        self.family, self.node, self.sizes, self.correlation = family, node, sizes, correlation
        self.products, self.count = self._empty(), 0
        self.shifts: list[Tensor] = []
        self.sums = [torch.zeros(node.size, dtype=torch.float64) for _ in range(2)]
        self.squares = [torch.zeros(node.size, dtype=torch.float64) for _ in range(2)]

    def _empty(self) -> Gains:
        return Gains(self.family[0], self.family[1:], self.sizes, summed=True)

    def _add(self, gains: Gains, a: Tensor, b: Tensor) -> None:
        layout = (self.node, Leaf(a.shape[1]))
        for mine, yours in zip(iter_blocks(a, layout), iter_blocks(b, layout), strict=True):
            if set(mine.groups) & set(self.family):
                gains.add(mine.tensor, yours.tensor, mine.groups, {})

    def update(self, a: Tensor, b: Tensor) -> None:
        """Adds samples of both networks, features first."""
        if not a.shape[1]:
            return  # a batch of nothing but padding
        pair = [a, b]
        if self.correlation:
            pair = [values.double() for values in pair]
            self.shifts = self.shifts or [values.mean(1, keepdim=True) for values in pair]
            pair = [values - shift for values, shift in zip(pair, self.shifts, strict=True)]
            for index, values in enumerate(pair):
                self.sums[index] += values.sum(1).cpu()
                self.squares[index] += values.square().sum(1).cpu()
        self._add(self.products, *pair)
        self.count += a.shape[1]

    def gains(self) -> Gains:
        """Σ z_A z_Bᵀ, or the correlations; a unit that is constant correlates with nothing."""
        if not self.correlation or not self.count:
            return self.products
        means = [total / self.count for total in self.sums]
        spreads = []
        for mean, square, shift in zip(means, self.squares, self.shifts, strict=True):
            variance = (square / self.count - mean.square()).clamp_min(0)
            size = (mean + shift.squeeze(1).cpu()).square()
            alive = variance > EPS**2 * size
            spreads.append(torch.where(alive, variance.clamp_min(1e-300).rsqrt(), 0.0))
        centre, scale = self._empty(), self._empty()
        self._add(centre, means[0][:, None], means[1][:, None])
        self._add(scale, spreads[0][:, None], spreads[1][:, None])
        found = self._empty()
        for key, part in self.products.parts.items():
            found.parts[key] = (part.cpu() / self.count - centre.parts[key]) * scale.parts[key]
        return found


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
) -> tuple[Orders, list[str], bool]:
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
        The orders; the outer groups that no submodule shows with all that is within them, which keep theirs; and
        whether samples lie along units of other groups, so that those of a and b are pairs only once these are in order
        (token mixing, norms of each head): then what was found needs a further pass, with b in these orders.
    """
    report = reporter(progress, MatchingProgress, sweep=0, objective=float("nan"))
    sites = _sites(structure, evaluator.module)
    moments: dict[tuple[str, str], _CrossMoments] = {}
    for root, family in families.items():
        for site in sites:
            if set(groups_of([site.node])) & set(family):
                moments[root, site.path] = _CrossMoments(family, site.node, structure.sizes, correlation)
    parts = {path: evaluator.module.get_submodule(path) for _, path in moments}
    networks = [{name: weights[name] for name in weights} for weights in (a, b)]  # read once and not for every batch
    total, sizes = batch_count(evaluator.data), {structure.sizes[group] for group in structure.free}
    across = any(set(groups_of([moment.node])) - set(families[root]) for (root, _), moment in moments.items())
    for number, batch in iter_batches(evaluator.data) if parts else ():
        report(f"batch {number}", number, max(total, number + 1))
        seen = [_outputs(evaluator, parts, weights, number, batch) for weights in networks]
        lengths = {size for calls in seen[0].values() for call in calls for size in call.lengths}
        across = across or bool(sizes & lengths)
        for (_, path), moment in moments.items():
            for mine, yours in zip(seen[0].get(path, []), seen[1].get(path, []), strict=True):
                if mine.values.shape[0] == moment.node.size:
                    moment.update(mine.values, yours.values)
    orders, hidden = dict(start), []
    for root, family in families.items():
        own = [moment for (owner, _), moment in moments.items() if owner == root and moment.count]
        alone = [moment for moment in own if set(groups_of([moment.node])) <= set(family)]
        wanted = {group for group in family if group in structure.free}
        if wanted <= _shown(alone):  # the others show it together with groups that may be in disorder
            own = alone
        if not wanted <= _shown(own):
            hidden.append(root)
            continue
        gains = Gains(root, family[1:], structure.sizes, summed=True)
        for moment in own:
            for key, part in moment.gains().parts.items():
                gains.parts[key] = gains.parts[key] + part if key in gains.parts else part
        orders.update(solved(gains, orders, structure).orders)
    return orders, hidden, across


def _shown(moments: Iterable[_CrossMoments]) -> set[str]:
    return {group for moment in moments for group in groups_of([moment.node])}


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
    evaluator: Evaluator,
    parts: Mapping[str, nn.Module],
    weights: Mapping[str, Tensor],
    number: int,
    batch: Any,
) -> dict[str, list[_Call]]:
    """What each submodule gives for a batch without its padding."""
    found: dict[str, list[_Call]] = {}

    def heard(path: str, output: Any) -> None:
        try:
            tensor = first_tensor(output).detach()
        except ArgumentError:
            return  # no tensor: what no other submodule shows is matched by weights
        axis = feature_axis(parts[path], tensor.ndim)
        lengths = {size for place, size in enumerate(tensor.shape) if place not in (0, axis % tensor.ndim)} - {1}
        # where both layouts fit it is the mask's own, (batch, steps): both networks lose the same samples in any case
        if keep is not None and axis == -1 and tensor.ndim == 3:
            turned = getattr(parts[path], "batch_first", True) is False or tensor.shape[:2] != keep.shape
            if tensor.shape[:2] == (mask := keep.T if turned else keep).shape:
                tensor = tensor[mask]
        values = tensor.movedim(axis, 0).flatten(1).clone()
        found.setdefault(path, []).append(_Call(values=values, lengths=lengths))

    with lent(evaluator.module, weights, evaluator.device), hooked(parts, heard), naming(number, batch):
        positional, named = arguments(batch, evaluator.device)
        keep = kept_positions(named.get(MASK))
        evaluator.module(*positional, **named)
    return found
