"""How much each direction of one layer moves each direction of the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.degeneracy.gradients import counted, exact_cotangents, pulled_back
from workbench.degeneracy.passes import Passes
from workbench.runtime.chain import Chain, Cut
from workbench.seeds import generator

Formula: TypeAlias = Literal["squared", "functional", "stochastic"]
FORMULAS = ("squared", "functional", "stochastic")


@dataclass(frozen=True, kw_only=True, eq=False)
class Coordinates:
    """One layer's basis with the constant in front: f ≈ μ·f̂₀ + Σ f̂_j·C⁺_j, f̂₀ = 1."""

    mean: Float[Tensor, " width"]
    basis: Float[Tensor, "width directions"]
    inverse: Float[Tensor, "directions width"]

    def of(self, features: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch nodes"]:
        """f̂ of activations, features last."""
        inner = (features - self.mean.to(features)) @ self.basis.to(features)
        return torch.cat([inner.new_ones(*inner.shape[:-1], 1), inner], -1)

    def gradient(self, gradient: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch nodes"]:
        """∂/∂f̂ from ∂/∂f."""
        return gradient @ self.rows.to(gradient).T

    def restored(self, coordinates: Float[Tensor, "*batch nodes"]) -> Float[Tensor, "*batch width"]:
        """Activations of coordinates."""
        return coordinates @ self.rows.to(coordinates)

    @property
    def rows(self) -> Float[Tensor, "nodes width"]:
        """What each node adds to the activations."""
        return torch.cat([self.mean[None], self.inverse])


@dataclass(frozen=True, kw_only=True, eq=False)
class Edges:
    """E of one segment, and the relative standard error of its sum without the constant where signs were drawn."""

    matrix: Float[Tensor, "target source"]
    error: float


def segment_edges(
    chain: Chain,
    source: Cut,
    target: Cut,
    inner: Coordinates,
    outer: Coordinates,
    *,
    formula: Formula,
    rule: Sequence[tuple[float, float]],
    probes: int,
    seed: int,
    told: Passes,
) -> Edges:
    """E (nodes of target × nodes of source) over all batches, averaged over source datapoints.

    Activations are those of the nodes, μ + Σ_j f̂_j·C⁺_j: what the basis has dropped takes no part.

    Args:
        chain: the module over data, lent.
        source: the earlier layer.
        target: the next.
        inner: the source's coordinates.
        outer: the target's.
        formula: "squared" Σ_t (Σ_s ∫dα ∂f̂_i(t)/∂f̂_j(s)·f̂_j(s))²; "functional" −Σ ∫dα ∂_j(f̂_i(f)−f̂_i(αf))²·f̂_j;
            "stochastic" is squared with ±1 over target positions in place of one pass for each.
        rule: (α, weight) on the way from 0 to the activations.
        probes: draws of ±1 of "stochastic".
        seed: of the draws.
        told: is told of batches and of their passes.
    """
    nodes_in, nodes_out = inner.basis.shape[1] + 1, outer.basis.shape[1] + 1
    total = torch.zeros(nodes_out, nodes_in, dtype=torch.float64, device=chain.device)
    single = torch.zeros(max(probes, 1), dtype=torch.float64)
    count, random = 0, generator(seed, source.layer)
    draws = probes if formula == "stochastic" else 1
    passes = (nodes_out - 1) * len(rule) * (target.positions if formula == "squared" else draws)

    def moved(leaf: Tensor, output: Tensor, cotangent: Tensor, hat: Tensor) -> Tensor:
        found = _moved(source, target, leaf, output, cotangent, inner, hat)
        told.passed(passes)
        return found

    for batch in chain.batches():
        told(batch)
        (own,) = chain.outputs(batch, [source])
        hat = inner.of(source.last(own))
        nodes = inner.restored(hat)
        ways = [
            (weight, *chain.segment(batch, source, target, _at(source, nodes, alpha, batch.keep)))
            for alpha, weight in rule
        ]
        hat = hat.reshape(len(hat), -1, nodes_in) * counted(source.last(own), batch.keep, "all")[..., None]
        count += len(source.rows(own, batch.keep))
        if formula == "functional":
            whole = outer.of(target.last(chain.segment(batch, source, target, _at(source, nodes, 1.0, batch.keep))[1]))
            total[1:] += _functional(ways, target, outer, whole.detach(), hat, batch.keep, moved)
            continue
        for probe in range(draws):
            mask = counted(target.last(ways[0][2]), batch.keep, "all")
            signs = None if formula == "squared" else torch.randint(0, 2, mask.shape, generator=random) * 2 - 1
            part = torch.zeros_like(total)
            cotangents = _cotangents(target.last(ways[0][2]), outer.basis, batch.keep, signs)
            for node, cotangent in cotangents:
                slopes = sum(weight * moved(leaf, output, cotangent, hat) for weight, leaf, output in ways)
                part[1 + node] += torch.as_tensor(slopes).square().sum(0)
            total += part / draws
            single[probe] += float(part[:, 1:].sum())  # without the constant's, as in the sum that the error is of
    error = 0.0
    if formula == "stochastic" and bool(single.any()):
        error = float(single.std() / (probes**0.5 * single.mean())) if probes > 1 else float("nan")
    return Edges(matrix=total.cpu() / count, error=error)


def _at(source: Cut, nodes: Tensor, alpha: float, keep: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Puts α times the activations of the nodes in the place of a layer's output; padding stays as it is."""
    return lambda output: source.unfolded(source.rows(alpha * nodes.movedim(-1, source.axis), keep), output, keep)


def _cotangents(
    features: Tensor, basis: Tensor, keep: Tensor | None, signs: Tensor | None
) -> Iterator[tuple[int, Tensor]]:
    """Cotangents with the number of the target's node: one for each position, or one with signs over all."""
    directions = basis.shape[1]
    if signs is None:
        for number, cotangent in enumerate(exact_cotangents(features, basis, keep, "all")):
            yield number % directions, cotangent
        return
    weights = counted(features, keep, "all") * signs.to(features)
    for node, direction in enumerate(basis.to(features).T):
        yield node, (weights[..., None] * direction).reshape(features.shape)


def _moved(
    source: Cut, target: Cut, leaf: Tensor, output: Tensor, cotangent: Tensor, inner: Coordinates, hat: Tensor
) -> Tensor:
    """Σ_s ∂/∂f̂_j(s)·f̂_j(s) of each sample, for one direction of the target."""
    rows = source.last(pulled_back(source, target, leaf, output, cotangent))
    slopes = inner.gradient(rows.reshape(len(rows), -1, rows.shape[-1]))
    return (slopes * hat).sum(1)


def _functional(
    ways: Sequence[tuple[float, Tensor, Tensor]],
    target: Cut,
    outer: Coordinates,
    whole: Tensor,
    hat: Tensor,
    keep: Tensor | None,
    moved: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """−∫dα Σ ∂_j(f̂_i(f) − f̂_i(αf))²·f̂_j of one batch, for every direction of the target."""
    total = torch.zeros(whole.shape[-1] - 1, hat.shape[-1], dtype=torch.float64, device=hat.device)
    for weight, leaf, output in ways:
        features = target.last(output)
        mask = counted(features, keep, "all").reshape(features.shape[:-1])
        missing = (whole - outer.of(features.detach()))[..., 1:] * mask[..., None]
        for node, direction in enumerate(outer.basis.to(features).T):
            cotangent = 2 * missing[..., node, None] * direction  # −∂(f̂(f)−f̂(αf))² = 2·(f̂(f)−f̂(αf))·∂f̂(αf)
            total[node] += weight * moved(leaf, output, cotangent, hat).sum(0)
    return total
