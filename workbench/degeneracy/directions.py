"""The directions of one layer: the rotation to the eigenvectors of M′, and what is dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.degeneracy.closed_form import closed_form
from workbench.degeneracy.gradients import GradientGram, Positions, gradient_gram
from workbench.degeneracy.integrated import integrated_gram
from workbench.degeneracy.whitening import Whitening, falling, relative_floor, signs
from workbench.errors import ArgumentError
from workbench.runtime.chain import Batch, Chain, Cut

PASSES = 1024  # backward passes of a batch up to which "auto" is exact


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How directions are found: the arguments of `interaction_basis` that each layer needs."""

    kind: str
    estimator: str
    probes: int
    positions: Positions
    rule: Sequence[tuple[float, float]]
    threshold: float | None
    seed: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Directions:
    """Directions of one layer and how they were found.

    Attributes:
        basis: C, (width, directions).
        inverse: C⁺, (directions, width).
        weights: Λ, (directions,).
        verdict: `complete`, `reduced`, `constant` or `no influence`.
        reason: what was dropped, and why.
        estimator: how M′ was found; empty where none was needed.
        error: its relative standard error.
    """

    basis: Float[Tensor, "width directions"]
    inverse: Float[Tensor, "directions width"]
    weights: Float[Tensor, " directions"]
    verdict: str
    reason: str
    estimator: str = ""
    error: float = 0.0


def output_directions(cut: Cut, white: Whitening, settings: Settings) -> Directions:
    """The last layer's: principal components for `pca`, else its own axes, so that every output counts alike."""
    return principal(cut, white) if settings.kind == "pca" else neurons(cut, white)


def principal(cut: Cut, white: Whitening) -> Directions:
    """C = U, Λ = D."""
    verdict, reason = _verdict(cut, white, len(white.eigenvalues), "")
    return Directions(
        basis=white.vectors,
        inverse=white.vectors.T.contiguous(),
        weights=white.eigenvalues,
        verdict=verdict,
        reason=reason,
    )


def neurons(cut: Cut, white: Whitening) -> Directions:
    """C = 1, Λ = the variances."""
    own = torch.eye(cut.width, dtype=torch.float64)
    variances = (white.vectors.square() * white.eigenvalues).sum(1)
    return Directions(basis=own, inverse=own, weights=variances, verdict="complete", reason="")


def layer_directions(
    chain: Chain,
    source: Cut,
    target: Cut,
    white: Whitening,
    following: Directions,
    settings: Settings,
    told: Callable[[Batch], None],
) -> Directions:
    """The directions of one layer, given those of the layer that its gradients come from.

    Raises:
        ArgumentError: gradients are NaN or infinite, or no closed form applies where one was asked for.
    """
    if settings.kind == "pca":
        return principal(source, white)
    if settings.kind == "neuron":
        return neurons(source, white)
    rank = len(white.eigenvalues)
    if not rank or not len(following.weights):
        empty = torch.zeros(source.width, 0, dtype=torch.float64)
        reason = f"{target.layer!r} has no directions that it could move" if rank else ""
        verdict, reason = _verdict(source, white, 0, reason)
        return Directions(basis=empty, inverse=empty.T, weights=empty[0], verdict=verdict, reason=reason)
    cross: Tensor | None = None
    if settings.kind == "integrated":
        gram, cross = integrated_gram(chain, source, target, following.basis, settings.rule, told)
    else:
        gram = chosen_gram(chain, source, target, following.basis, settings, told)
    if not bool(gram.matrix.isfinite().all()):
        raise ArgumentError(
            f"gradients from {target.layer!r} to {source.layer!r} are NaN or infinite: leave out the samples where the "
            "segment has no derivative, or choose other layers."
        )
    rotation, inverse = white.rotation, white.inverse
    values, vectors = falling(inverse @ gram.matrix.cpu() @ inverse.T)
    share = relative_floor(source.width, chain.activation_dtype) if settings.threshold is None else settings.threshold
    kept = values > share * values.max().clamp_min(0)
    values, vectors, notes = values[kept], vectors[:, kept], ""
    if cross is not None:
        values = ((vectors.T @ inverse) @ cross.cpu() * (rotation @ vectors).T).sum(1)
        if negative := int((values <= 0).sum()):
            notes = f"{negative} directions have a negative Λ and are dropped"
        order = values.argsort(descending=True, stable=True)[: len(values) - negative]
        values, vectors = values[order], vectors[:, order]
    basis = rotation @ vectors * values.sqrt()
    turn = signs(basis)
    verdict, reason = _verdict(source, white, len(values), notes)
    return Directions(
        basis=basis * turn,
        inverse=(vectors.T @ inverse) / values.sqrt()[:, None] * turn[:, None],
        weights=values,
        verdict=verdict,
        reason=reason,
        estimator=gram.estimator,
        error=gram.error,
    )


def chosen_gram(
    chain: Chain, source: Cut, target: Cut, basis: Tensor, settings: Settings, told: Callable[[Batch], None]
) -> GradientGram:
    """M′ by the cheapest way that is right, or by the one that was asked for.

    Raises:
        ArgumentError: no closed form applies where one was asked for.
    """
    if settings.estimator in ("auto", "closed form"):
        batch = next(iter(chain.batches()))
        form = closed_form(chain, source, target, batch, positions=settings.positions)
        if form is not None:
            return form.gram(chain, basis @ basis.T, told=told)
        if settings.estimator == "closed form":
            raise ArgumentError(
                f"{source.layer!r} to {target.layer!r} has no closed form: it is neither linear, nor a function of "
                "elements after or before a linear map. Take estimator='exact' or 'Hutchinson'."
            )
    places = 1 if settings.positions == "last" else target.positions
    exact = settings.estimator == "exact" or (settings.estimator == "auto" and basis.shape[1] * places <= PASSES)
    return gradient_gram(
        chain,
        source,
        target,
        basis,
        probes=None if exact else settings.probes,
        positions=settings.positions,
        seed=settings.seed,
        told=told,
    )


def _verdict(cut: Cut, white: Whitening, directions: int, notes: str) -> tuple[str, str]:
    """A word for what is left of a layer, and the numbers behind it."""
    rank = len(white.eigenvalues)
    if not rank:
        return "constant", "its output is the same for all data, up to rounding"
    told = [f"rank {rank} of {cut.width}"] if rank < cut.width else []
    if directions < rank:
        told.append(f"{rank - directions} directions of the activations do not move what follows")
    told += [notes] if notes else []
    if not directions:
        return "no influence", "; ".join(told)
    return ("complete" if not told else "reduced"), "; ".join(told)
