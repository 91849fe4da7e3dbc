"""Passes in which a layer has only some of its nodes, or the edges to the next layer only some of theirs."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.degeneracy.basis import InteractionBasis
from workbench.degeneracy.interaction_graph import InteractionGraph
from workbench.degeneracy.masks import Group, edge_mask, edge_order, groups
from workbench.errors import ArgumentError, LayerNotFoundError, nearest
from workbench.runtime import EvaluationError, Evaluator
from workbench.runtime.activations import MASK, kept_positions
from workbench.runtime.borrowing import name_of
from workbench.runtime.chain import Cut
from workbench.runtime.evaluator import check_evaluator
from workbench.runtime.passing import Call, passed, replaced

AT_A_TIME = 1 << 22  # numbers of the source's output that are run at a time: memory, and a cache's size
Nodes = slice | Int[Tensor, " nodes"]


class MisfitError(ArgumentError):
    """A basis is not of the module that runs; found while it does."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Coordinates:
    """A layer's outputs as coordinates f̂ = (f−μ)·C and back, without the constant's, in float64."""

    cut: Cut
    module: str
    mean: Float[Tensor, " width"]
    basis: Float[Tensor, "width directions"]
    inverse: Float[Tensor, "directions width"]

    def of(self, output: Tensor, keep: Tensor | None, nodes: Nodes) -> Float[Tensor, "datapoints some"]:
        """The coordinates of an output along some directions."""
        return (self.cut.rows(output, keep).double() - self.mean) @ self.basis[:, nodes]

    def put(self, found: Tensor, output: Tensor, keep: Tensor | None, nodes: Nodes) -> Tensor:
        """The output with these coordinates and no others, in the shape and dtype of `output`."""
        return self.put_rows(torch.addmm(self.mean, found, self.inverse[nodes]), output, keep)

    def put_each(
        self, found: Tensor, kept: Bool[Tensor, "groups directions"], output: Tensor, keep: Tensor | None
    ) -> Float[Tensor, "groups samples ..."]:
        """The output with some of the coordinates and no others, for several choices, in the output's own precision."""
        inverse = (kept[:, :, None] * self.inverse).to(output.dtype)
        rows = torch.baddbmm(self.mean.to(output.dtype), found.to(output.dtype).expand(len(kept), -1, -1), inverse)
        return torch.stack([self.put_rows(some, output, keep) for some in rows])

    def put_rows(self, rows: Float[Tensor, "datapoints width"], output: Tensor, keep: Tensor | None) -> Tensor:
        """Rows in the shape and dtype of `output`, with its padding."""
        return self.cut.unfolded(rows, output, keep)

    def check(self, output: Tensor | None) -> Tensor:
        """The output, if the basis can be of it.

        Raises:
            MisfitError: it has other features, or there is none.
        """
        if output is None:
            raise MisfitError(f"{self._named} did not run; pass the evaluator of the module that the basis is of.")
        axis, shape = self.cut.axis, list(output.shape)
        if output.ndim < 2 or not -output.ndim <= axis < output.ndim or shape[axis] != self.cut.width:
            raise MisfitError(
                f"{self._named} gives {shape}: the basis has {self.cut.width} features on its axis {axis}; pass the "
                "evaluator of the module that the basis is of."
            )
        return output

    def check_once(self, calls: int) -> None:
        """Refuses a layer that does not run, or several times.

        Raises:
            MisfitError: it does.
        """
        if calls != 1:
            raise MisfitError(f"{self._named} runs {calls} times in a pass: a basis is of layers that run once.")

    @property
    def _named(self) -> str:
        return f"layer {self.cut.layer!r} of {self.module}"


class Ablated:
    """Loss and metrics with `kept` of `total` nodes or edges; the whole is the evaluator's own number."""

    unit: str
    total: int

    def __init__(self, evaluator: Evaluator, weights: Mapping[str, Tensor] | None) -> None:
        self.evaluator, self.weights, self.module = evaluator, weights, evaluator.module

    def measured(self, kept: int) -> dict[str, float]:
        """Loss and metrics with `kept` of them.

        Raises:
            EvaluationError: a batch failed.
            ArgumentError: the basis is of another module.
        """
        if kept == self.total:
            return self.evaluator(self.weights)
        try:
            return self._measured(kept)
        except EvaluationError as error:
            if isinstance(error.__cause__, MisfitError):
                raise error.__cause__ from None
            raise

    def _measured(self, kept: int) -> dict[str, float]:
        raise NotImplementedError

    def mask(self, kept: int) -> Bool[Tensor, "*_"]:
        """What is kept."""
        raise NotImplementedError


class AblatedNodes(Ablated):
    """f → μ + Σ_{j<k} f̂_j·C⁺_j; nothing at all of no nodes."""

    unit = "nodes"

    def __init__(
        self, evaluator: Evaluator, weights: Mapping[str, Tensor] | None, basis: InteractionBasis, layer: str
    ) -> None:
        super().__init__(evaluator, weights)
        self.source = coordinates(evaluator, basis, layer)
        self.total = basis.nodes(layer)

    def _measured(self, kept: int) -> dict[str, float]:
        return self.evaluator.through(lambda call: self._pass(call, kept), self.weights)

    def _pass(self, call: Call, kept: int) -> Any:
        keep = kept_positions(call[1].get(MASK))
        source, nodes = self.source, slice(0, max(kept - 1, 0))
        calls = 0

        def change(output: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            source.check(output)
            if kept == 0:
                return source.put_rows(torch.zeros_like(source.cut.rows(output, keep)), output, keep)
            return source.put(source.of(output, keep, nodes), output, keep, nodes)

        with replaced(self.module, {source.cut.path: change}):
            outputs = self.module(*call[0], **call[1])
        source.check_once(calls)
        return outputs

    def mask(self, kept: int) -> Bool[Tensor, " nodes"]:
        """The first `kept` nodes."""
        return torch.arange(self.total) < kept


class AblatedEdges(Ablated):
    """f̂_i of the next layer from μ + Σ_j f̂_j·C⁺_j over the sources j whose edge to i is kept."""

    unit = "edges"

    def __init__(
        self,
        evaluator: Evaluator,
        weights: Mapping[str, Tensor] | None,
        basis: InteractionBasis,
        layer: str,
        graph: InteractionGraph,
    ) -> None:
        super().__init__(evaluator, weights)
        self.source = coordinates(evaluator, basis, layer)
        following = basis.layers[basis.layers.index(layer) + 1]
        self.target = coordinates(evaluator, basis, following)
        self.shape = basis.nodes(following), basis.nodes(layer)
        self.order = edge_order(_edges(graph, basis, layer, self.shape))
        self.total = len(self.order)
        self.batched = True

    def _measured(self, kept: int) -> dict[str, float]:
        where = self.evaluator.device
        seen = [Group(*(part.to(where) for part in group)) for group in groups(self.mask(kept))]
        return self.evaluator.through(lambda call: self._pass(call, seen), self.weights)

    def _pass(self, call: Call, seen: Sequence[Group]) -> Any:
        """Up to the source, the segment for each group of targets, then the whole from what these make together."""
        keep = kept_positions(call[1].get(MASK))
        source, target = self.source, self.target
        found = passed(self.module, call, [source.cut.path])
        output = source.check(found.get(source.cut.path))
        every = source.of(output, keep, slice(None))
        reached: Tensor | None = None
        size = max(1, AT_A_TIME // max(output.numel(), 1))
        for part in (seen[place : place + size] for place in range(0, len(seen), size)):
            starts = source.put_each(every, torch.stack([group.sources for group in part]), output, keep)
            for group, given in zip(part, self._segments(call, starts), strict=True):
                some = target.of(given, keep, group.targets)
                reached = some.new_empty(len(some), self.shape[0] - 1) if reached is None else reached
                reached[:, group.targets] = some
        calls: Counter[str] = Counter()

        def same(whole: Tensor) -> Tensor:
            calls[source.cut.path] += 1
            return whole

        def change(whole: Tensor) -> Tensor:
            calls[target.cut.path] += 1
            made = target.check(whole).new_empty(0, 0) if reached is None else reached
            return target.put(made, whole, keep, slice(None))

        with replaced(self.module, {source.cut.path: same, target.cut.path: change}):
            outputs = self.module(*call[0], **call[1])
        for one in (source, target):
            one.check_once(calls[one.cut.path])
        return outputs

    def _segments(self, call: Call, starts: Float[Tensor, "groups samples ..."]) -> Sequence[Tensor]:
        """The target's outputs for several of the source's.

        What runs before the source does so once for all of them: they are one batch to `vmap`, which what cannot be run
        so (on values that decide what is done, on numpy) refuses; then it runs once for each.
        """

        def one(start: Tensor) -> Tensor:
            path = self.target.cut.path
            return self.target.check(
                passed(self.module, call, [path], {self.source.cut.path: lambda _: start}).get(path)
            )

        if self.batched:
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="There is a performance drop")  # a loop inside, as below
                    return list(torch.func.vmap(one)(starts))
            except Exception:  # whatever is wrong with the pass itself is raised below
                self.batched = False
        return [one(start) for start in starts]

    def mask(self, kept: int) -> Bool[Tensor, "targets sources"]:
        """The `kept` largest edges, and those of the constant."""
        return edge_mask(self.order, *self.shape, kept)


def ablated(
    evaluator: Evaluator,
    basis: InteractionBasis,
    layer: str,
    kept: int,
    *,
    graph: InteractionGraph | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> dict[str, float]:
    """Loss and metrics with `kept` of a layer's nodes, or with a graph of its edges: one point of `ablation`.

    Args:
        evaluator: as in `ablation`.
        basis: as in `ablation`.
        layer: as in `ablation`.
        kept: nodes or edges that are kept, the largest first.
        graph: as in `ablation`.
        weights: as in `evaluator`.

    Returns:
        `{"loss": …, "accuracy": …}`, as the evaluator gives them; all nodes or all edges are the evaluator's own call.

    Raises:
        ArgumentError: as in `ablation`, or `kept` is out of its range.
        LayerNotFoundError: the layer is not in the basis.
        EvaluationError: a batch failed.

    Cost: a forward pass over the evaluator's data for nodes; for edges the segment once more for each set of sources
    that several targets see.

    Source: as `ablation`.

    Misreads: as `ablation`. One number says nothing of its neighbours: a loss may rise as nodes are added.

    Example:
        >>> from workbench import evaluator
        >>> from workbench.degeneracy.interaction_basis import interaction_basis
        >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(1, 1, bias=False))
        >>> _ = net[1].weight.data.fill_(2.0)
        >>> x = torch.tensor([[1.0], [3.0]])
        >>> error = evaluator(net, [(x, 2 * x)], "mse", device="cpu")
        >>> basis = interaction_basis(net, [x], "0", device="cpu")
        >>> [ablated(error, basis, "0", kept)["loss"] for kept in (0, 1, 2)]
        [20.0, 4.0, 0.0]
    """
    what = ablating(evaluator, basis, layer, graph, weights)
    if not isinstance(kept, int) or isinstance(kept, bool) or not 0 <= kept <= what.total:
        raise ArgumentError(f"kept={kept!r}: expected a number of {what.unit} from 0 to {what.total}.")
    return what.measured(kept)


def ablating(
    evaluator: Evaluator,
    basis: InteractionBasis,
    layer: str,
    graph: InteractionGraph | None,
    weights: Mapping[str, Tensor] | None,
) -> Ablated:
    """What measures an ablation of a layer's nodes, or with a graph of its edges.

    Raises:
        ArgumentError: the evaluator, the basis or the graph is none, or is of another module than the others; the layer
            is the last.
        LayerNotFoundError: the layer is not in the basis.
    """
    check_evaluator(evaluator)
    if not isinstance(basis, InteractionBasis):
        raise ArgumentError(f"basis is {type(basis).__name__}: expected wb.interaction_basis(module, data).")
    if layer not in basis.layers:
        raise LayerNotFoundError(
            f"the basis has no layer {layer!r}; it has {basis.layers}.{nearest(layer, basis.layers)}"
        )
    if layer == basis.layers[-1]:
        raise ArgumentError(
            f"layer {layer!r} is the last, the output itself: it has no edges, and its nodes are what the loss is of; "
            f"choose one of {basis.layers[:-1]}."
        )
    if graph is None:
        return AblatedNodes(evaluator, weights, basis, layer)
    return AblatedEdges(evaluator, weights, basis, layer, graph)


def coordinates(evaluator: Evaluator, basis: InteractionBasis, layer: str) -> Coordinates:
    """A layer's coordinates on the evaluator's device.

    Raises:
        ArgumentError: the evaluator's module has no such path.
    """
    found, module = basis.meta["cuts"][layer], evaluator.module
    paths = dict(module.named_modules(remove_duplicate=False))
    if found["path"] not in paths:
        raise ArgumentError(
            f"the basis has the layer {layer!r} and {name_of(module)} has not: pass the evaluator of the module that "
            f"the basis is of.{nearest(found['path'], paths)}"
        )
    cut = Cut(layer=layer, path=found["path"], axis=found["axis"], width=found["width"], positions=1)
    mean, inner, outer = (held[layer].to(evaluator.device) for held in (basis.means, basis.bases, basis.inverses))
    return Coordinates(cut=cut, module=name_of(module), mean=mean, basis=inner, inverse=outer)


def _edges(
    graph: InteractionGraph, basis: InteractionBasis, layer: str, shape: tuple[int, int]
) -> Float[Tensor, "to from"]:
    """The edges from a layer to the next.

    Raises:
        ArgumentError: there are none, or they are between the nodes of another basis.
    """
    if not isinstance(graph, InteractionGraph):
        raise ArgumentError(f"graph is {type(graph).__name__}: expected wb.interaction_graph(module, data, basis).")
    if layer not in graph.edges:
        raise ArgumentError(
            f"the graph has no edges from {layer!r}, only from {list(graph.edges)}: pass the graph of this basis."
        )
    edges = graph.edges[layer]
    if tuple(edges.shape) != shape:
        raise ArgumentError(
            f"the graph has edges from {edges.shape[1]} nodes of {layer!r} to {edges.shape[0]} of the next layer; the "
            f"basis has {shape[1]} and {shape[0]}: pass the graph of this basis."
        )
    own, other = basis.meta["parameters"], graph.meta.get("basis", {})
    if name := next((name for name, value in other.items() if own.get(name) != value), None):
        raise ArgumentError(
            f"the graph is of a basis with {name}={other[name]!r}, and this one has {name}={own.get(name)!r}: pass the "
            "graph of this basis."
        )
    if graph.meta.get("basis_fingerprint", basis.fingerprint) != basis.fingerprint:
        raise ArgumentError(
            "the graph is of another basis, with other directions (of other data or weights, or rounded elsewhere): "
            "pass the basis that it was computed with, or wb.interaction_graph(module, data, basis) of this one."
        )
    if bool(edges.isnan().any()):
        raise ArgumentError(
            f"the graph's edges from {layer!r} have NaN, which is neither large nor small: leave out the data that "
            "give it, and compute the graph once more."
        )
    return edges
