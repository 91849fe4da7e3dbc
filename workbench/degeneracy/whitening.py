"""The first rotation of every basis: centre, rotate to the eigenvectors of the covariance, drop what is rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.degeneracy.numerical_rank import noise_floor, rounding_floor
from workbench.errors import ArgumentError
from workbench.linalg import Moments
from workbench.runtime.chain import Chain


@dataclass(frozen=True, kw_only=True, eq=False)
class Whitening:
    """G = U·D·Uᵀ of a layer's activations, without the directions that are rounding.

    Attributes:
        mean: μ; zero where activations are not centred.
        vectors: U, (width, rank), orthonormal, by falling eigenvalue.
        eigenvalues: D, (rank,), each above the noise floor.
        floor: the noise floor, an eigenvalue.
        samples: number of datapoints.
    """

    mean: Float[Tensor, " width"]
    vectors: Float[Tensor, "width rank"]
    eigenvalues: Float[Tensor, " rank"]
    floor: float
    samples: int

    @property
    def rotation(self) -> Float[Tensor, "width rank"]:
        """R = U·D^−½: coordinates f·R have unit variance."""
        return self.vectors / self.eigenvalues.sqrt()

    @property
    def inverse(self) -> Float[Tensor, "rank width"]:
        """R⁺ = D^½·Uᵀ."""
        return (self.vectors * self.eigenvalues.sqrt()).T


def whitening(
    moments: Moments, *, center: bool, threshold: float | None = None, dtype: torch.dtype | None = None
) -> Whitening:
    """The eigenvectors of the covariance (of the Gram matrix without `center`) above threshold·λmax.

    Without a threshold: above the noise floor of activations that were computed in `dtype`.
    """
    gram = moments.gram.cpu()
    mean = moments.mean.cpu() if center else torch.zeros(len(gram), dtype=torch.float64)
    values, vectors = falling(moments.covariance.cpu() if center else gram)
    largest, rounding = float(values[0].clamp_min(0)), rounding_floor(gram, dtype)
    floor = noise_floor(largest, moments.width, moments.count, threshold, rounding)
    kept = values > floor
    return Whitening(mean=mean, vectors=vectors[:, kept], eigenvalues=values[kept], floor=floor, samples=moments.count)


def chain_whitenings(
    chain: Chain, center: bool, threshold: float | None, told: Callable[[], None]
) -> dict[str, Whitening]:
    """Layer → its first rotation, of all layers from one pass; `told` is called before each batch.

    Raises:
        ArgumentError: activations are NaN or infinite.
    """
    moments = {cut.layer: Moments(cut.width, chain.device) for cut in chain.cuts}
    for batch in chain.batches():
        told()
        for cut, output in zip(chain.cuts, chain.outputs(batch, chain.cuts), strict=True):
            moments[cut.layer].update(cut.rows(output, batch.keep))
    for layer, own in moments.items():
        if not bool(own.covariance.isfinite().all()):
            raise ArgumentError(
                f"the outputs of {layer!r} are NaN or infinite for some of the data, so there is no basis of them: "
                "leave those samples out, or choose layers before it."
            )
    dtype = chain.activation_dtype
    return {layer: whitening(own, center=center, threshold=threshold, dtype=dtype) for layer, own in moments.items()}


def falling(symmetric: Float[Tensor, "n n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """Eigenvalues by size and their vectors as columns, each with its largest component positive."""
    values, vectors = torch.linalg.eigh((symmetric + symmetric.T) / 2)
    values, vectors = values.flip(0), vectors.flip(1)
    return values, vectors * signs(vectors)


def signs(vectors: Float[Tensor, "n k"]) -> Float[Tensor, " k"]:
    """±1 of each column's largest component: a direction is the same whatever library found it."""
    if not vectors.numel():
        return torch.ones(vectors.shape[1], dtype=vectors.dtype)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))[0]
    return torch.where(largest < 0, -1.0, 1.0).to(vectors.dtype)
