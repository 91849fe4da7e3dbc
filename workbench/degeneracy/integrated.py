"""M′ and Λ′ of the integrated basis: gradients of f̂(αf)·f̂(f), averaged on the way from zero to the activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.degeneracy.gradients import GradientGram
from workbench.runtime.chain import Batch, Chain, Cut


def integrated_gram(
    chain: Chain,
    source: Cut,
    target: Cut,
    directions: Float[Tensor, "out nodes"],
    rule: Sequence[tuple[float, float]],
    told: Callable[[Batch], None],
) -> tuple[GradientGram, Float[Tensor, "width width"]]:
    """M′ = E[g·gᵀ] and Λ′ = E[g·fᵀ] with g = ∫dα ∇_{αf}[f̂(αf)·f̂(f)], over source datapoints.

    f̂ are the target's outputs times its directions, summed over its positions.
    """
    gram = torch.zeros(source.width, source.width, dtype=torch.float64, device=chain.device)
    cross, count = torch.zeros_like(gram), 0
    for batch in chain.batches():
        told(batch)
        own, after = chain.outputs(batch, [source, target])
        basis = directions.to(after.device, target.last(after).dtype)
        cotangent = target.last(after) @ basis @ basis.T
        if batch.keep is not None and cotangent.ndim == 3 and cotangent.shape[:2] == batch.keep.shape:
            cotangent = cotangent * batch.keep[..., None]
        total = torch.zeros_like(own)
        for alpha, weight in rule:
            leaf, output = chain.segment(batch, source, target, _scaled(alpha))
            (gradient,) = torch.autograd.grad(target.last(output), leaf, cotangent)
            total += weight * gradient
        rows = source.rows(total, batch.keep).double()
        gram += rows.T @ rows
        cross += rows.T @ source.rows(own, batch.keep).double()
        count += len(rows)
    return GradientGram(matrix=gram / count, samples=count, estimator="exact", error=0.0), cross / count


def _scaled(alpha: float) -> Callable[[Tensor], Tensor]:
    return lambda value: alpha * value
