"""M′ = E[JᵀJ]: the Gram matrix of gradients that reach one layer from the directions of a later one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.degeneracy.passes import Passes
from workbench.errors import ArgumentError
from workbench.runtime.chain import Chain, Cut, mask_of
from workbench.seeds import generator

Positions: TypeAlias = Literal["all", "last"]


@dataclass(frozen=True, kw_only=True, eq=False)
class GradientGram:
    """M′ of a layer and how it was found.

    Attributes:
        matrix: (width, width), float64.
        samples: number of input datapoints n that it is an average over.
        estimator: `closed form`, `exact` or `Hutchinson`.
        error: relative standard error in the Frobenius norm; 0 where nothing was drawn.
    """

    matrix: Float[Tensor, "width width"]
    samples: int
    estimator: str
    error: float


def gradient_gram(
    chain: Chain,
    source: Cut,
    target: Cut,
    directions: Float[Tensor, "out nodes"] | None,
    *,
    probes: int | None = None,
    positions: Positions = "all",
    seed: int = 0,
    told: Passes | None = None,
) -> GradientGram:
    """M′ = 1/n Σ_x Σ_{i,t,s} ∂f̂_i(t)/∂f(s)ᵀ ∂f̂_i(t)/∂f(s) by vector-Jacobian products, over all batches.

    f̂ = f·C are the target's coordinates, t its positions, s the source's, n the number of source datapoints.

    Args:
        chain: the module over data, lent.
        source: the layer whose M′ it is.
        target: a later layer.
        directions: C, the target's directions as columns; None for the identity.
        probes: ±1 cotangents over all directions and positions in place of one product each (Hutchinson); None for
            exact.
        positions: cotangents at all of the target's positions, or only at each sample's last that is no padding.
        seed: of the probes.
        told: is told of batches and of their passes.

    Raises:
        ArgumentError: `positions` or `probes` is none of these, or nothing differentiable leads from source to target.
        EvaluationError: a batch failed.

    Cost: nodes·positions backward passes of the segment a batch, or `probes`; memory of one batch's graph and width²,
    with probes width² for each of them, from which the error is told.
    """
    if positions not in get_args(Positions):
        raise ArgumentError(f"positions={positions!r}: expected one of {list(get_args(Positions))}.")
    if probes is not None and probes < 1:
        raise ArgumentError(f"probes={probes!r}: expected at least 1 draw, or None for exact products.")
    total: Tensor | None = None
    single: list[Tensor] = []
    count = 0
    random = generator(seed, source.layer)
    width = target.width if directions is None else directions.shape[1]
    passes = probes or width * (1 if positions == "last" else target.positions)
    for batch in chain.batches():
        if told is not None:
            told(batch)
        leaf, output = chain.segment(batch, source, target)
        features = target.last(output)
        cotangents = (
            exact_cotangents(features, directions, batch.keep, positions)
            if probes is None
            else random_cotangents(features, directions, batch.keep, positions, probes, random)
        )
        for number, cotangent in enumerate(cotangents):
            rows = source.rows(pulled_back(source, target, leaf, output, cotangent), batch.keep).double()
            square = rows.T @ rows
            total = square if total is None else total.add_(square)
            if probes is not None:
                if len(single) <= number:
                    single.append(torch.zeros_like(square))
                single[number] += square
            if told is not None:
                told.passed(passes)
        count += len(source.rows(leaf, batch.keep))
    if total is None:
        total = torch.zeros(source.width, source.width, dtype=torch.float64, device=chain.device)
    total = (total + total.T) / 2  # a product of a matrix with itself is symmetric but for the last bit
    if probes is None:
        return GradientGram(matrix=total / count, samples=count, estimator="exact", error=0.0)
    matrix = total / (count * probes)
    return GradientGram(matrix=matrix, samples=count, estimator="Hutchinson", error=_spread(single, matrix, count))


def _spread(single: list[Tensor], mean: Tensor, count: int) -> float:
    """Relative standard error of a mean of probes; NaN of a single one."""
    if len(single) < 2:
        return float("nan")
    squares = sum(float((one / count - mean).square().sum()) for one in single)
    norm = float(mean.square().sum())
    return (squares / (len(single) * (len(single) - 1)) / norm) ** 0.5 if norm else 0.0


def pulled_back(source: Cut, target: Cut, leaf: Tensor, output: Tensor, cotangent: Tensor) -> Tensor:
    """Σ cotangent·∂output/∂leaf of a segment, whose graph stays; the cotangent has the features last.

    Raises:
        ArgumentError: nothing differentiable leads from source to target.
    """
    gradient = None
    if output.requires_grad:
        (gradient,) = torch.autograd.grad(target.last(output), leaf, cotangent, retain_graph=True, allow_unused=True)
    if gradient is None:
        raise cut_off(source, target)
    return gradient


def cut_off(source: Cut, target: Cut) -> ArgumentError:
    """What to say where nothing differentiable leads from source to target."""
    return ArgumentError(
        f"{target.layer!r} does not depend on {source.layer!r} by anything differentiable: a forward under "
        "torch.no_grad(), a detach or a rounding; take that out, or leave the layer out of `layers`."
    )


def exact_cotangents(
    features: Tensor, directions: Tensor | None, keep: Tensor | None, positions: Positions
) -> Iterator[Tensor]:
    """One cotangent for each direction and position, over all samples at once: samples do not meet in a pass."""
    samples, width = features.shape[0], features.shape[-1]
    basis = torch.eye(width, dtype=features.dtype, device=features.device) if directions is None else directions
    basis = basis.to(features.device, features.dtype)
    flat = counted(features, keep, positions)
    for places in range(flat.shape[1]) if positions == "all" else [slice(None)]:  # of the last, a sample has one
        if not bool(flat[:, places].any()):
            continue
        for direction in basis.T:
            cotangent = torch.zeros(samples, flat.shape[1], width, dtype=features.dtype, device=features.device)
            cotangent[:, places] = flat[:, places, None] * direction
            yield cotangent.reshape(features.shape)


def random_cotangents(
    features: Tensor,
    directions: Tensor | None,
    keep: Tensor | None,
    positions: Positions,
    probes: int,
    random: torch.Generator,
) -> Iterator[Tensor]:
    """Cotangents C·ε with ε = ±1 for every sample, position and direction, drawn on the CPU."""
    mask = counted(features, keep, positions)
    nodes = features.shape[-1] if directions is None else directions.shape[1]
    for _ in range(probes):
        signs = torch.randint(0, 2, (*mask.shape, nodes), generator=random).to(features.device, features.dtype) * 2 - 1
        along = signs if directions is None else signs @ directions.to(features.device, features.dtype).T
        yield (along * mask[..., None]).reshape(features.shape)


def counted(features: Tensor, keep: Tensor | None, positions: Positions) -> Tensor:
    """(samples, positions) of 0 and 1: the output positions that count; padding never does."""
    samples = features.shape[0]
    own = mask_of(features, keep)
    every = torch.ones(features.shape[:-1], dtype=torch.bool).reshape(samples, -1)
    mask = (every if own is None else own).to(features.device, features.dtype)
    if positions == "last":
        places = torch.arange(1, mask.shape[1] + 1, device=mask.device) * (mask != 0)
        last = torch.nn.functional.one_hot(places.argmax(1), mask.shape[1]).to(mask.dtype)
        mask = last * mask  # a sample that is all padding has none
    return mask
