"""`wb.activations`: moments and Gram spectra of what layers give, in one pass."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.degeneracy.numerical_rank import covariance_rank
from workbench.errors import Cancelled, LayerError
from workbench.linalg import resolved_device
from workbench.progress import ProgressCallback
from workbench.results import LAYER_COLUMNS, Column, LayerResult, many, versions
from workbench.runtime import ActivationMoments, LayerMoments, activation_moments
from workbench.runtime.activations import batch_count
from workbench.runtime.borrowing import name_of
from workbench.runtime.chain import coarsest_dtype, output_id
from workbench.runtime.hooks import listed
from workbench.weights.tensors import module_fingerprint


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Activations(LayerResult):
    """Moments of the outputs of submodules over data, a row per submodule.

    Attributes:
        means: layer → μ, (width,).
        covariances: layer → Σ(f−μ)(f−μ)ᵀ/n, (width, width).
        eigenvalues: layer → the covariance's eigenvalues, falling.
    """

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "layers": {
            **LAYER_COLUMNS,
            "width": Column("number of features; 0 where there are none", int, "1", low=0),
            "samples": Column("datapoints: positions of all outputs, without padding", int, "1", low=0),
            "rank": Column("eigenvalues of the covariance above the noise floor", int, "1", low=0),
            "effective_rank": Column("exp of the entropy of the eigenvalues' shares", float, "1", low=0),
            "largest": Column("largest eigenvalue of the covariance", float, "1", low=0),
            "trace": Column("total variance, the sum of the eigenvalues", float, "1", low=0),
            "mean_norm": Column("‖μ‖", float, "1", low=0),
            "noise_floor": Column("eigenvalue below which all is rounding", float, "1", low=0),
        }
    }
    NEXT: ClassVar[str] = ".frame(), .covariances, wb.figure(activations), wb.degeneracy(module, data)"

    means: Mapping[str, Tensor]
    covariances: Mapping[str, Tensor]
    eigenvalues: Mapping[str, Tensor]

    def gram(self, layer: str) -> Tensor:
        """E[f·fᵀ] = covariance + μμᵀ, uncentred."""
        self.row(layer)
        return self.covariances[layer] + torch.outer(self.means[layer], self.means[layer])

    def facts(self) -> str:
        """Layers by verdict, and whether the run was stopped."""
        return (
            f"{self.title}: {self.verdict_counts()} over {many(self.meta['batches'], 'batch')}{self.stopped('batches')}"
        )


def activations(
    module: nn.Module,
    data: Iterable[Any],
    layers: str | Iterable[str] | None = None,
    *,
    features: Mapping[str, int] | None = None,
    batch_first: bool | None = None,
    device: str = "auto",
    progress: ProgressCallback | None = None,
) -> Activations:
    """Mean μ, covariance Σ(f−μ)(f−μ)ᵀ/n and its eigenvalues, for the outputs f of submodules, all in one pass.

    Features are the channels of convolutions and of other outputs with 4 or 5 axes, else the last axis; every position
    of an image or a sequence is a datapoint, without those where a batch's `attention_mask` is 0.

    Args:
        module: the network, in its own dtype; lent, as before afterwards.
        data: a re-iterable of batches: tensors, tuples whose first element is the input, or dicts of named arguments.
        layers: paths or globs; None for every submodule without children.
        features: path → axis of the features, where the rule is wrong.
        batch_first: whether sequences are (batch, steps, width) where shapes leave it open and padding is left out.
        device: "auto" takes CUDA when there is one.
        progress: called before each batch; may raise `wb.Cancelled`.

    Returns:
        Activations. A submodule without moments is a row with its reason. `rank` counts eigenvalues above
        width·max(ε, ε_own²)·λmax, ε of float64 sums and ε_own of the module's dtype, and above width·ε_own²·E[f_j²] of
        the largest feature: what varies less than values are rounded is constant.

    Raises:
        ArgumentError: data that can be walked only once or give no batch; a layer that was named did not run.
        LayerNotFoundError: a name is unknown.
        EvaluationError: a batch failed.
        Cancelled: the callback asked for it; `.partial` are the moments of the batches that passed.

    Cost: a forward pass, n·width² flops and 8·width² bytes a layer, whatever the number of samples, and 4/3·width³ for
    the eigenvalues.

    Source: Chan, Golub & LeVeque (1983) for the moments; Roy & Vetterli 2007 for the effective rank.

    Misreads: a rank is of these data: fewer datapoints than features bound it. Rounding in float32 activations hides
    eigenvalues below 1e-14·width of the largest; in bfloat16 below 6e-5·width, so that nothing may be left.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3, bias=False))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]))
        >>> x = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> found = activations(net, [x])
        >>> found.row("0")["rank"], [round(value, 12) for value in found.eigenvalues["0"].tolist()]
        (2, [4.0, 2.0, 0.0])
    """
    begin = time.perf_counter()
    asked = None if layers is None else listed(layers)

    def built(found: ActivationMoments) -> Activations:
        meta = {
            "function": "wb.activations",
            "source": name_of(module),
            "parameters": {
                "layers": asked,
                "features": None if features is None else dict(features),
                "batch_first": batch_first,
                "device": device,
            },
            "fingerprint": module_fingerprint(module),
            "batches": found.batches,
            "seed": None,
            "dtype": "float64",
            "device": str(resolved_device(device)),
            "versions": versions(),
            "seconds": time.perf_counter() - begin,
        }
        if found.cut:
            meta["cancelled"] = {"done": found.batches, "total": max(batch_count(data), found.batches + 1)}
        return _result(module, found, meta)

    try:
        found = activation_moments(
            module, data, asked, features=features, batch_first=batch_first, device=device, progress=progress
        )
    except Cancelled as stop:
        if isinstance(stop.partial, ActivationMoments):
            stop.partial = built(stop.partial)
        raise
    return built(found)


def _result(module: nn.Module, found: ActivationMoments, meta: dict[str, Any]) -> Activations:
    coarsest = coarsest_dtype(module)
    rows: list[dict[str, Any]] = []
    means: dict[str, Tensor] = {}
    covariances: dict[str, Tensor] = {}
    eigenvalues: dict[str, Tensor] = {}
    paths = [path for path, _ in module.named_modules(remove_duplicate=False)]
    for depth, layer in enumerate(sorted([*found.layers, *found.skipped], key=lambda path: _order(path, found, paths))):
        name = layer or output_id(module)
        row = {"layer": name, "depth": depth}
        if layer in found.skipped:
            rows.append(row | _empty("not measured", found.skipped[layer]))
            continue
        try:
            cells, spectrum = _cells(found.layers[layer], coarsest)
        except LayerError as error:
            rows.append(row | _empty("not finite", str(error), found.layers[layer]))
            continue
        rows.append(row | cells)
        moments = found.layers[layer].moments
        means[name], covariances[name], eigenvalues[name] = moments.mean.cpu(), moments.covariance.cpu(), spectrum
    return Activations(
        tables={"layers": Activations.columns("layers", rows)},
        meta=meta,
        means=means,
        covariances=covariances,
        eigenvalues=eigenvalues,
    )


def _order(path: str, found: ActivationMoments, paths: list[str]) -> tuple[int, int]:
    """Those that ran first, as they ran; then the others as they are registered."""
    ran = list(found.layers)
    return (0, ran.index(path)) if path in found.layers else (1, paths.index(path))


def _cells(layer: LayerMoments, dtype: torch.dtype | None) -> tuple[dict[str, Any], Tensor]:
    counted = covariance_rank(layer.moments, None, dtype)
    if math.isnan(counted.rank):
        raise LayerError("some activations are NaN or infinite")
    values, rank = counted.eigenvalues, int(counted.rank)
    total = float(values.sum())
    shares = values[values > 0] / total if total else values[:0]
    return {
        "verdict": "constant" if not rank else "full rank" if rank == len(values) else "degenerate",
        "reason": "" if rank else "the output is the same for all data, up to rounding",
        "width": len(values),
        "samples": layer.samples,
        "rank": rank,
        "effective_rank": float(torch.exp(-(shares * shares.log()).sum())) if total else 0.0,
        "largest": float(values[0]),
        "trace": total,
        "mean_norm": float(layer.moments.mean.norm()),
        "noise_floor": counted.floor,
    }, values


def _empty(verdict: str, reason: str, layer: LayerMoments | None = None) -> dict[str, Any]:
    nothing = dict.fromkeys(("effective_rank", "largest", "trace", "mean_norm", "noise_floor"), float("nan"))
    width, samples = (0, 0) if layer is None else (layer.moments.width, layer.samples)
    return {"verdict": verdict, "reason": reason, "width": width, "samples": samples, "rank": 0} | nothing
