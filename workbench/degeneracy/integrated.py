"""M′ and Λ′ of the integrated basis: gradients of f̂(αf)·f̂(f), averaged on the way from zero to the activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.degeneracy.gradients import GradientGram, Positions, counted, pulled_back
from workbench.degeneracy.passes import Passes
from workbench.runtime.chain import Chain, Cut


def integrated_gram(
    chain: Chain,
    source: Cut,
    target: Cut,
    directions: Float[Tensor, "out nodes"],
    rule: Sequence[tuple[float, float]],
    means: tuple[Float[Tensor, " width"], Float[Tensor, " out"]],
    positions: Positions,
    told: Passes,
) -> tuple[GradientGram, Float[Tensor, "width width"]]:
    """M′ = E[g·gᵀ] and Λ′ = E[g·(f−μ)ᵀ] with g = ∫dα ∇_{αf}[f̂(αf)·f̂(f)], over source datapoints.

    f̂ are the target's coordinates (f−μ)·C, multiplied at each of its positions and summed over them, or at the last
    alone; `means` are μ of source and target. Padding stays as it is.

    Raises:
        ArgumentError: nothing differentiable leads from source to target.
    """
    gram = torch.zeros(source.width, source.width, dtype=torch.float64, device=chain.device)
    cross, count = torch.zeros_like(gram), 0
    for batch in chain.batches():
        told(batch)
        own, after = chain.outputs(batch, [source, target])
        features = target.last(after)
        basis = directions.to(features)
        mask = counted(features, batch.keep, positions).reshape(features.shape[:-1])
        cotangent = (features - means[1].to(features)) @ basis @ basis.T * mask[..., None]
        total = torch.zeros_like(own)
        for alpha, weight in rule:
            leaf, output = chain.segment(batch, source, target, _scaled(source, alpha, batch.keep))
            total += weight * pulled_back(source, target, leaf, output, cotangent)
            told.passed(len(rule))
        rows = source.rows(total, batch.keep).double()
        gram += rows.T @ rows
        cross += rows.T @ (source.rows(own, batch.keep).double() - means[0].to(chain.device))
        count += len(rows)
    return GradientGram(matrix=gram / count, samples=count, estimator="exact", error=0.0), cross / count


def _scaled(source: Cut, alpha: float, keep: Tensor | None) -> Callable[[Tensor], Tensor]:
    return lambda output: source.unfolded(source.rows(alpha * output, keep), output, keep)
