"""Interaction bases: directions of each layer's activations that matter to the next, in the order in which they do."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

from torch import nn

from workbench.degeneracy.basis import PREDICTING, InteractionBasis, predicted
from workbench.degeneracy.directions import Directions, Settings, layer_directions, output_directions
from workbench.degeneracy.passes import Passes, counted
from workbench.degeneracy.provenance import chain_meta
from workbench.degeneracy.quadrature import Quadrature, quadrature_points
from workbench.degeneracy.whitening import Whitening, chain_whitenings
from workbench.errors import Cancelled
from workbench.progress import ProgressCallback, check_progress, reporter
from workbench.runtime.chain import Chain, Cut, resolved_dtype
from workbench.runtime.cut_test import layer_chain
from workbench.runtime.hooks import listed

Kind: TypeAlias = Literal["local", "integrated", "pca", "gradient-flow", "neuron"]


def interaction_basis(
    module: nn.Module,
    data: Iterable[Any],
    layers: str | Iterable[str] | None = None,
    *,
    kind: Kind = "local",
    center: bool = True,
    estimator: Literal["auto", "closed form", "exact", "Hutchinson"] = "auto",
    probes: int = 32,
    positions: Literal["all", "last"] = "all",
    quadrature: Quadrature = "gauss-legendre",
    points: int = 8,
    threshold: float | None = None,
    features: Mapping[str, int] | None = None,
    device: str = "auto",
    dtype: str = "float64",
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> InteractionBasis:
    """Directions of each layer by their weight Λ: C = R·V·Λ^½ with G = U·D·Uᵀ, R = U·D^−½, R⁺·M′·R⁺ᵀ = V·Λ·Vᵀ.

    G is the covariance of a layer's activations f (rows of n datapoints), M′ the Gram matrix of gradients that reach it
    from the next layer's coordinates f̂ = (f−μ)·C, from the output backwards. So Λ are the eigenvalues of G·M′, which no
    invertible linear map of the layer changes; CᵀGC = Λ, C⁺M′C⁺ᵀ = 1.

    Args:
        module: the network; lent, in evaluation mode, as before afterwards.
        data: a re-iterable of batches, each a tensor, a tuple whose first element is the input, or a dict of named
            arguments; positions with 0 in its `attention_mask` count nowhere.
        layers: paths or globs; None for every layer through which all that matters passes (see Returns). Each must
            determine the next; the module's output is always the last.
        kind: "local" takes M′ = E[Σ ∂f̂_i/∂f ∂f̂_i/∂fᵀ] to the next layer (the Local Interaction Basis); "integrated"
            M′ = E[g·gᵀ] of g = ∫dα ∇[f̂(αf)·f̂(f)] and Λ from E[g·(f−μ)ᵀ]; "gradient-flow" as local, straight to the
            module's output; "pca" stops at C = U with Λ = D; "neuron" is C = 1 with the variances as Λ.
            The module's output keeps its own axes in every kind.
        center: subtract the mean first. False leaves μ = 0; the constant direction then carries nothing.
        estimator: "closed form" (exact, without a backward pass) where a segment is linear maps and functions of
            elements in the right order; "exact" by a backward pass per direction and position; "Hutchinson" by `probes`
            of ±1, with its error told. "auto" takes the first of them that applies and needs at most 1024 passes.
        probes: ±1 cotangents of Hutchinson. 32 gave 3 % of error in the Frobenius norm at n = 4096, width 256.
        positions: gradients from all positions of the target, or from each sample's last that is no padding.
        quadrature: rule for the integral of "integrated".
        points: its number of points.
        threshold: eigenvalues of G and Λ at or below threshold·largest are dropped; None for what is rounding:
            width·max(ε, ε_own²), ε of float64 sums and ε_own of `dtype`, and in G also width·ε_own² of the largest
            E[f_j²] (with "own", ε_own of the coarsest parameter).
        features: path → axis of the features, where channels-first or last is guessed wrong.
        device: "auto" takes CUDA when there is one.
        dtype: "float64", "float32" or "own": what the module is cast to. Sums are float64 always.
        seed: of the probes.
        progress: called before every batch of every layer, and between the backward passes of a batch ten times a
            second at most; may raise `wb.Cancelled`.

    Returns:
        An InteractionBasis. Taken without `layers`: outputs that hold all that reaches the module's output, the
        innermost where several are equal, after activations rather than before, layer norms joined with what follows.
        A layer without variance has the constant only, and a reason.

    Raises:
        ArgumentError: an argument is out of its range; a layer that was asked for is bypassed (by what, is named); the
            module is not deterministic; activations or gradients are NaN or infinite (the layer is named).
        EvaluationError: a batch failed.
        Cancelled: the callback asked for it; `.partial` has the layers that are done, those nearest the output.

    Cost: a forward pass for all G, then for each layer forward and backward passes of its segment: none for a closed
    form, nodes × positions of the next layer a batch for exact. Memory: a batch's graph, width² a layer, and for
    Hutchinson width² a probe of the layer at hand.

    Source: Bushnaq et al. 2024, "Using Degeneracy in the Loss Landscape for Mechanistic Interpretability" (arXiv
    2405.10927) for the integrated basis; "The Local Interaction Basis" (arXiv 2405.10928) for local. Ours: thresholds
    relative to the largest eigenvalue (absolute ones call a layer scaled by 1e-4 empty), no absolute values of Λ
    (directions of "integrated" with negative Λ are dropped and told), and closed forms.

    Misreads: Λ weighs the next layer's coordinates, not the loss: what moves the output in a direction that the loss
    does not see counts. On modular addition the local basis needs as many nodes as PCA; it is no better there. Bases
    are of these data: a direction that they do not vary has no node. Samples must not meet in a pass.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 2, bias=False))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        >>> x = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> net = nn.Sequential(nn.Identity(), *net)
        >>> interaction_basis(net, [x], "0").weights("0").tolist()
        [4.0, 1.0]
    """
    begin = time.perf_counter()
    check_progress(progress)
    settings = Settings(
        kind=kind,
        center=center,
        estimator=estimator,
        probes=probes,
        positions=positions,
        rule=quadrature_points(quadrature, points),
        threshold=threshold,
        seed=seed,
    )
    asked = None if layers is None else listed(layers)  # once: it may be an iterator
    chain = layer_chain(module, data, asked, features=features, device=device, dtype=resolved_dtype(dtype))
    parameters = {
        "layers": None if asked is None else list(asked),
        "kind": kind,
        "center": center,
        "estimator": estimator,
        "probes": probes,
        "positions": positions,
        "quadrature": quadrature,
        "points": points,
        "threshold": threshold,
        "features": None if features is None else dict(features),
        "device": device,
        "dtype": dtype,
    }
    meta = chain_meta("wb.interaction_basis", chain, parameters, seed)
    report = reporter(progress)
    total = len(chain.cuts)
    found: dict[str, Directions] = {}
    whitenings: dict[str, Whitening] = {}

    def tell(item: str) -> None:
        report(item, len(found), total)

    def built() -> InteractionBasis:
        own = meta | {"seconds": time.perf_counter() - begin}
        if len(found) < total:
            own["cancelled"] = {"done": len(found), "total": total}
        return _result(chain, whitenings, found, own)

    try:
        with chain.lent():
            numbers = itertools.count(1)
            whitenings |= chain_whitenings(
                chain,
                center,
                threshold,
                lambda: tell(f"activations, batch {counted(next(numbers), chain.batch_count)}"),
            )
            end = chain.cuts[-1]
            found[end.layer] = output_directions(end, whitenings[end.layer])
            for place in range(total - 2, -1, -1):
                source = chain.cuts[place]
                target = end if kind == "gradient-flow" else chain.cuts[place + 1]
                tell(source.layer)
                found[source.layer] = layer_directions(
                    chain,
                    source,
                    target,
                    whitenings[source.layer],
                    found[target.layer],
                    whitenings[target.layer].mean,
                    settings,
                    told=Passes(tell, source.layer, chain.batch_count),
                )
            report("", total, total)
    except Cancelled as stop:
        stop.partial = built()
        raise
    return built()


def _result(
    chain: Chain, whitenings: Mapping[str, Whitening], found: Mapping[str, Directions], meta: dict[str, Any]
) -> InteractionBasis:
    done: list[tuple[int, Cut]] = [(depth, cut) for depth, cut in enumerate(chain.cuts) if cut.layer in found]
    rows, layers = [], []
    for depth, cut in done:
        own, white = found[cut.layer], whitenings[cut.layer]
        rows += [
            {"layer": cut.layer, "direction": number, "weight": weight}
            for number, weight in enumerate([float("nan"), *own.weights.tolist()])
        ]
        layers.append(
            {
                "layer": cut.layer,
                "depth": depth,
                "verdict": own.verdict,
                "reason": own.reason,
                "width": cut.width,
                "positions": cut.positions,
                "samples": white.samples,
                "rank": len(white.eigenvalues),
                "nodes": 1 + len(own.weights),
                "predicted_nodes": predicted(own.weights, PREDICTING),
                "noise_floor": white.floor,
                "estimator": own.estimator,
                "error": own.error,
            }
        )
    return InteractionBasis(
        tables={
            "directions": InteractionBasis.columns("directions", rows),
            "layers": InteractionBasis.columns("layers", layers),
        },
        meta=meta,
        means={cut.layer: whitenings[cut.layer].mean for _, cut in done},
        bases={cut.layer: found[cut.layer].basis for _, cut in done},
        inverses={cut.layer: found[cut.layer].inverse for _, cut in done},
    )
