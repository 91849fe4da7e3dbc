"""The directions of one layer: the rotation to the eigenvectors of M′, and what is dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.degeneracy.closed_form import closed_form
from workbench.degeneracy.gradients import GradientGram, Positions, gradient_gram
from workbench.degeneracy.integrated import integrated_gram
from workbench.degeneracy.numerical_rank import noise_floor, rounding_floor
from workbench.degeneracy.passes import Passes
from workbench.degeneracy.whitening import Whitening, falling, signs
from workbench.errors import ArgumentError, nearest
from workbench.results import many
from workbench.runtime.chain import Chain, Cut

KINDS = ("local", "integrated", "pca", "gradient-flow", "neuron")
ESTIMATORS = ("auto", "closed form", "exact", "Hutchinson")
PASSES = 1024  # backward passes of a batch up to which "auto" is exact


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How directions are found: the arguments of `interaction_basis` that each layer needs.

    Raises:
        ArgumentError: one is out of its range.
    """

    kind: str
    center: bool
    estimator: str
    probes: int
    positions: Positions
    rule: Sequence[tuple[float, float]]
    threshold: float | None
    seed: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            known = ", ".join(map(repr, KINDS))
            raise ArgumentError(f"kind={self.kind!r}: expected {known}.{nearest(self.kind, KINDS)}")
        if self.estimator not in ESTIMATORS:
            raise ArgumentError(f"estimator={self.estimator!r}: expected {', '.join(map(repr, ESTIMATORS))}.")
        if not isinstance(self.probes, int) or isinstance(self.probes, bool) or self.probes < 2:
            raise ArgumentError(
                f"probes={self.probes!r}: expected a number of at least 2, so that there is an error to tell."
            )
        if self.positions not in ("all", "last"):
            raise ArgumentError(f"positions={self.positions!r}: expected 'all' or 'last'.")
        if not isinstance(self.center, bool):
            raise ArgumentError(f"center={self.center!r}: expected True or False.")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise ArgumentError(f"seed={self.seed!r}: expected an integer.")
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise ArgumentError(
                f"threshold={self.threshold!r}: expected a share of the largest eigenvalue, in [0, 1), or None."
            )


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


def output_directions(cut: Cut, white: Whitening) -> Directions:
    """The last layer's: its own axes in every kind, so that every output counts alike and bases can be compared."""
    return neurons(cut, white)


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
    verdict, reason = ("complete", "") if len(white.eigenvalues) else _verdict(cut, white, cut.width, "")
    return Directions(basis=own, inverse=own, weights=variances, verdict=verdict, reason=reason)


def layer_directions(
    chain: Chain,
    source: Cut,
    target: Cut,
    white: Whitening,
    following: Directions,
    origin: Float[Tensor, " out"],
    settings: Settings,
    told: Passes,
) -> Directions:
    """The directions of one layer, given those of the layer that its gradients come from and its mean `origin`.

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
        means = white.mean, origin
        gram, cross = integrated_gram(
            chain, source, target, following.basis, settings.rule, means, settings.positions, told
        )
    else:
        gram = chosen_gram(chain, source, target, following.basis, settings, told)
    if not bool(gram.matrix.isfinite().all()):
        raise ArgumentError(
            f"gradients from {target.layer!r} to {source.layer!r} are NaN or infinite: leave out the samples where the "
            "segment has no derivative, or choose other layers."
        )
    rotation, inverse = white.rotation, white.inverse
    rotated = inverse @ gram.matrix.cpu() @ inverse.T
    values, vectors = falling(rotated)
    largest, rounding = float(values[0].clamp_min(0)), rounding_floor(rotated, chain.activation_dtype)
    kept = values > noise_floor(largest, source.width, white.samples, settings.threshold, rounding)
    values, vectors, notes = values[kept], vectors[:, kept], ""
    if cross is not None:
        values = ((vectors.T @ inverse) @ cross.cpu() * (rotation @ vectors).T).sum(1)
        if negative := int((values <= 0).sum()):
            notes = f"dropped, with a negative Λ: {many(negative, 'direction')}"
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
    chain: Chain, source: Cut, target: Cut, basis: Tensor, settings: Settings, told: Passes
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
        verb = "does" if rank - directions == 1 else "do"
        told.append(f"{many(rank - directions, 'direction')} of the activations {verb} not move what follows")
    told += [notes] if notes else []
    if not directions:
        return "no influence", "; ".join(told)
    return ("complete" if not told else "reduced"), "; ".join(told)
