"""Linear CKA of a network's activations under two sets of weights, streaming over the data."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import ArgumentError, Cancelled
from workbench.linalg import Moments
from workbench.progress import ProgressCallback, reporter, told_whole
from workbench.runtime import captured
from workbench.runtime.activations import MASK, batch_count, feature_axis, kept_positions, leaf_modules
from workbench.runtime.batches import arguments, check_data, iter_batches, naming
from workbench.runtime.borrowing import check_module, lent
from workbench.weights import Weights

WIDEST = 4096  # features: the covariance of both models' takes 0.5 GB

Row = dict[str, Any]


def cka(covariance: Tensor) -> float:
    """‖S_xy‖²/(‖S_xx‖‖S_yy‖) from the covariance of (x, y), of equally many features each; NaN where one is constant.

    Source: Kornblith et al., "Similarity of neural network representations revisited" (2019), linear and centred.
    """
    width = len(covariance) // 2
    one, other, cross = covariance[:width, :width], covariance[width:, width:], covariance[:width, width:]
    norms = float(one.norm()) * float(other.norm())
    return float(cross.square().sum()) / norms if norms > 0 else math.nan


def activation_similarity(
    module: nn.Module,
    data: Iterable[Any],
    base: Weights,
    models: Sequence[tuple[str, Weights]],
    chosen: Iterable[str] | None,
    device: torch.device,
    progress: ProgressCallback | None,
) -> list[Row]:
    """A row per submodule without children and model: CKA of its outputs under the base's weights and the model's.

    Args:
        module: the network.
        data: a re-iterable of batches.
        base: the base's weights.
        models: label → weights.
        chosen: ids of the layers that are compared; None for every submodule without children.
        device: where it runs.
        progress: called before each batch and once at the end; it may raise Cancelled, whose `.partial` are the rows so
            far and, but for the last call, the batches `done` of the `total`.

    Raises:
        ArgumentError: the weights are not the module's, the data can be walked only once, or nothing is chosen.
        EvaluationError: a batch failed.
    """
    wanted = None if chosen is None else set(chosen)
    parts = {path: part for path, part in leaf_modules(module).items() if wanted is None or path in wanted}
    if not parts:
        raise ArgumentError("none of the chosen layers is a submodule without children, whose outputs compare.")
    stores = [{name: weights[name].to(device) for name in weights} for weights in (base, *(own for _, own in models))]
    moments: dict[tuple[str, str], Moments] = {}
    reasons: dict[str, str] = {}
    report, length, done = reporter(progress), batch_count(data), 0

    def rows() -> list[Row]:
        return [_row(path, label, moments.get((path, label)), reasons) for path in parts for label, _ in models]

    try:
        for number, batch in iter_batches(data):
            report(f"activations: batch {number}", done, max(length, done + 1))
            caught = []
            for weights in stores:
                with lent(module, weights, device), captured(module, list(parts)) as outputs, naming(number, batch):
                    positional, named = arguments(batch, device)
                    keep = kept_positions(named.get(MASK))
                    module(*positional, **named)
                    caught.append(
                        {path: _samples(parts[path], path, own, keep, reasons) for path, own in outputs.items()}
                    )
            for path, own in caught[0].items():
                for (label, _), other in zip(models, caught[1:], strict=True):
                    _add(moments, path, label, own, other.get(path), reasons)
            done += 1
    except Cancelled as stop:
        stop.partial = rows(), {"done": done, "total": max(length, done + 1)}
        raise
    whole, _ = told_whole((rows(), dict[str, int]()), lambda: report("", done, done))
    return whole


def check_similarity(module: object, data: object, model: object) -> nn.Module | None:
    """The network that the data are run through, or None where no data are given.

    Raises:
        ArgumentError: data without a network, a network without data, or either cannot be used.
    """
    if data is None:
        if module is not None:
            raise ArgumentError("module= goes with data=, the batches whose activations are compared: pass both.")
        return None
    network = model if module is None else module
    if module is None and not isinstance(model, nn.Module):
        raise ArgumentError(
            "data= compares activations, which needs the network that the weights belong to: pass it in module=."
        )
    check_module(network)
    check_data(data)
    return network if isinstance(network, nn.Module) else None


def _samples(part: nn.Module, path: str, output: Tensor, keep: Tensor | None, reasons: dict[str, str]) -> Tensor | None:
    """An output as samples × features, without padding; None where it is none."""
    axis = feature_axis(part, output.ndim)
    if not output.is_floating_point() or output.ndim < 2:
        reasons[path] = f"its output {list(output.shape)}, {output.dtype} has no real features"
        return None
    if output.shape[axis] > WIDEST:
        reasons[path] = f"{output.shape[axis]} features: more than {WIDEST} are not compared"
        return None
    if keep is not None and output.ndim == 3 and output.shape[:2] == keep.shape:
        return output[keep.to(output.device)]
    return output.movedim(axis, -1).reshape(-1, output.shape[axis])


def _add(
    moments: dict[tuple[str, str], Moments],
    path: str,
    label: str,
    own: Tensor | None,
    other: Tensor | None,
    reasons: Mapping[str, str],
) -> None:
    if own is None or other is None or path in reasons:
        return
    both = torch.cat([own.double(), other.double()], dim=1)
    if (path, label) not in moments:
        moments[path, label] = Moments(both.shape[1], both.device)
    moments[path, label].update(both)


def _row(path: str, label: str, own: Moments | None, reasons: Mapping[str, str]) -> Row:
    row: Row = {"layer": path, "label": label, "cka": math.nan, "samples": 0, "width": 0, "reason": ""}
    if own is None or path in reasons:
        return row | {"reason": reasons.get(path, "it did not run")}
    found = min(cka(own.covariance), 1.0)
    reason = "an output is constant or not finite" if math.isnan(found) else ""
    return row | {"cka": found, "samples": own.count, "width": own.width // 2, "reason": reason}
