"""REPAIR: an interpolated network whose units have the mean and spread that its two ends would give them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from workbench.connectivity.mixing import Buffer, opened
from workbench.errors import ArgumentError
from workbench.progress import ProgressCallback, check_progress, reporter, told_whole
from workbench.runtime import Evaluator, activation_moments, reset_statistics
from workbench.runtime.activations import WIDEST
from workbench.runtime.batch_norm import normalised
from workbench.runtime.batches import arguments, check_data, iter_batches, naming
from workbench.runtime.borrowing import lent, name_of
from workbench.runtime.evaluator import check_evaluator
from workbench.runtime.hooks import hooked, submodules
from workbench.runtime.measuring import held
from workbench.weights import ModelLike, TensorInfo, Weights, load
from workbench.weights.tensors import Tensors

Spread = tuple[Tensor, Tensor]  # mean and standard deviation of every unit


@dataclass(frozen=True)
class _Network:
    """What is run: the module, the batches and how their outputs are laid out."""

    module: nn.Module
    data: Iterable[Any]
    device: torch.device
    batch_first: bool | None

    def spreads(self, layers: Iterable[str], weights: Tensors, label: str) -> dict[str, Spread]:
        """Mean and standard deviation of the outputs of layers, in one pass.

        Raises:
            ArgumentError: some are not finite; the layer is named, and whose they are (`label`).
        """
        found = activation_moments(
            self.module,
            self.data,
            list(layers),
            weights=weights,
            batch_first=self.batch_first,
            device=str(self.device),
        )
        spreads = {name: (one.moments.mean, one.moments.variance.sqrt()) for name, one in found.items()}
        for name, (mean, spread) in spreads.items():
            if not bool((mean.isfinite() & spread.isfinite()).all()):
                raise ArgumentError(
                    f"the outputs of {name!r} are NaN or infinite in {label}, so they have no spread to match: repair "
                    "finite networks, or leave the layer out with layers=…"
                )
        return spreads

    def with_statistics(self, weights: Tensors) -> Tensors:
        """The weights with new running statistics, where the module has batch norm."""
        return {**weights, **reset_statistics(self.module, self.data, weights=weights, device=str(self.device))}


def repair(
    evaluator: Evaluator,
    a: ModelLike,
    b: ModelLike,
    *,
    t: float = 0.5,
    data: Iterable[Any] | None = None,
    layers: str | Iterable[str] | None = None,
    batch_first: bool | None = None,
    progress: ProgressCallback | None = None,
) -> Weights:
    """(1−t)·A + t·B with W ← W·σ*/σ̂ and b ← (b−μ̂)·σ*/σ̂ + μ*, so that every unit has mean μ* and spread σ*.

    μ̂, σ̂ are the mean and standard deviation of a unit's preactivation in the interpolated network, and
    μ* = (1−t)·μ_A + t·μ_B, σ* = (1−t)·σ_A + t·σ_B the targets. Layers are repaired in the order in which they run,
    each measured after those before it are repaired, so that the targets are met and not only approached.

    Args:
        evaluator: gives the module, the data and the device.
        a: anything `wb.load` takes.
        b: the other end, as a rule permuted to match a.
        t: place on the line, in 0…1.
        data: batches to measure on; None for the evaluator's own.
        layers: paths or globs of what is repaired; None for every linear layer and convolution that has a bias.
        batch_first: as in `activation_moments`, where an attention mask leaves it open.
        progress: called before each pass over the data with a Progress, and once at the end; it may raise
            `wb.Cancelled`.

    Returns:
        Weights under the module's own names. `.notes` tell the layers that were repaired, how far at most their means
        and spreads are from the targets (measured again at the end, relative to σ*), and what was left out and why:
        no bias, a weight that another layer shares, several calls in a pass, transposed convolutions, layers of more
        than 16384 units. In a module with batch norm all running statistics are estimated anew, before each layer is
        measured and at the end; a convolution without a bias in front of it then needs no repair.

    Raises:
        ArgumentError: a or b is of another architecture, t is out of its range, or no layer can be repaired and there
            is no batch norm either.
        LayerNotFoundError: a path is unknown or a glob matches nothing.
        EvaluationError: a batch failed.
        Cancelled: the callback asked for it; there is no partial network before the end.

    Cost: L + 3 forward passes over the data for L layers (twice as many with batch norm), and 8·width² bytes a layer
    while both ends are measured.

    Source: Jordan et al. 2023, "REPAIR: REnormalizing Permuted Activations for Interpolation Repair" (arXiv
    2211.08403), section 3. There, batch norm layers are put in, one pass estimates all of them, and they are folded in
    again; a batch's own statistics stand for those of the data. Ours measures layer after layer on all of the data.

    Misreads: the targets hold on the data that were measured. A unit whose preactivation is constant has no spread to
    scale: it gets its mean only. Repaired networks are no longer on the straight line between A and B.

    Example:
        >>> from workbench import evaluator
        >>> data = [(torch.tensor([[-1.0], [1.0]]), torch.zeros(2, 1))]
        >>> ends = [{"weight": torch.tensor([[w]]), "bias": torch.tensor([v])} for w, v in ((3.0, 0.0), (-1.0, 4.0))]
        >>> middle = repair(evaluator(torch.nn.Linear(1, 1), data, "mse"), *ends)
        >>> middle["weight"].item(), middle["bias"].item()
        (2.0, 2.0)
    """
    check_evaluator(evaluator)
    check_progress(progress)
    if isinstance(t, bool) or not isinstance(t, Real) or not 0 <= t <= 1:
        raise ArgumentError(f"t={t!r}: expected a place on the line from a (0) to b (1).")
    batches = evaluator.data if data is None else data
    check_data(batches)
    models = opened({"a": a, "b": b})
    ends = {label: held(evaluator, label, weights) for label, weights in models.items()}
    network = _Network(evaluator.module, batches, evaluator.device, batch_first)
    buffer = Buffer(evaluator, ends["a"], None)
    buffer.fill(lambda name, tensor: torch.lerp(ends["a"][name], ends["b"][name], float(t), out=tensor))
    names, left_out = _chosen(network, buffer.tensors, layers)
    statistics = bool(normalised(evaluator.module))
    if not names and not statistics:
        why = "; ".join(_told(left_out)) or "it has none"
        raise ArgumentError(
            f"{name_of(evaluator.module)} has no layer that can be repaired ({why}): expected an nn.Linear or a "
            "convolution of torch with a bias; other classes of layers are not known."
        )
    report = _passes(progress, len(names) + 3 if names else 1)
    notes = []
    targets: dict[str, Spread] = {}
    if names:
        of = dict[str, dict[str, Spread]]()
        for label, end in ends.items():
            report(label)
            of[label] = network.spreads(names, end, label)
        targets = {name: _between(of["a"][name], of["b"][name], float(t)) for name in names}
        still = {name: _repaired(network, buffer.tensors, name, targets[name], report) for name in names}
        notes += [f"constant units of {name} got their mean only: {count}" for name, count in still.items() if count]
    report("the repaired network")
    repaired = network.with_statistics(buffer.tensors)
    if names:
        far = _deviation(network.spreads(names, repaired, "the repaired network"), targets)
        notes.insert(0, f"REPAIR of {', '.join(names)}: means and spreads are within {far:.1g}·σ of their targets")
    if statistics:
        notes.append("running statistics of batch norm are estimated anew")
    notes += [f"not repaired, as {told}" for told in _told(left_out)]
    whole = _weights(repaired, models, float(t), notes)
    return told_whole(whole, lambda: report(""))


def _chosen(
    network: _Network, weights: Tensors, layers: str | Iterable[str] | None
) -> tuple[list[str], dict[str, str]]:
    """The layers to repair in the order in which they run, and why others are left out.

    Raises:
        ArgumentError: a layer that was asked for by its path is neither linear nor a convolution.
    """
    module = network.module
    asked = None if layers is None else [layers] if isinstance(layers, str) else list(layers)
    parts = dict(module.named_modules()) if asked is None else submodules(module, asked)
    if asked and (
        other := next((n for n in asked if n in parts and not isinstance(parts[n], nn.Linear | _ConvNd)), None)
    ):
        raise ArgumentError(
            f"layers has {other!r}, which is {name_of(parts[other])}: REPAIR rescales linear layers and convolutions."
        )
    parts = {name: part for name, part in parts.items() if isinstance(part, nn.Linear | _ConvNd)}
    calls: dict[str, int] = {}
    number, batch = next(iter(iter_batches(network.data)))
    with (
        lent(module, weights, network.device),
        hooked(parts, lambda name, _: calls.update({name: calls.get(name, 0) + 1})),
        naming(number, batch),
    ):
        positional, named = arguments(batch, network.device)
        module(*positional, **named)
    owners: dict[int, int] = {}
    for part in module.modules():
        for tensor in part._parameters.values():
            owners[id(tensor)] = owners.get(id(tensor), 0) + 1
    left_out = {}
    for name, part in parts.items():
        if reason := _reason(part, calls.get(name, 0), owners):
            left_out[name] = reason
    return [name for name in calls if name not in left_out], left_out


def _reason(part: nn.Module, calls: int, owners: Mapping[int, int]) -> str:
    """Why a layer cannot be repaired; empty if it can."""
    weight, bias = part._parameters.get("weight"), part._parameters.get("bias")
    if weight is None:
        return "the weight is computed (a parametrisation)"
    if bias is None:
        return "there is no bias to carry the mean"
    if isinstance(part, _ConvTransposeNd):
        return "transposed convolutions are not rescaled"
    if owners[id(weight)] > 1 or owners[id(bias)] > 1:
        return "another layer shares the weight or bias"
    if len(bias) > WIDEST:
        return f"{len(bias)} units would need a covariance of {8e-9 * len(bias) ** 2:.3g} GB"
    return "" if calls == 1 else f"there are {calls} calls in a pass" if calls else "there is no call in a pass"


def _told(left_out: Mapping[str, str]) -> list[str]:
    """Each reason with the layers that were left out for it."""
    return [
        f"{reason}: {', '.join(name for name, why in left_out.items() if why == reason)}"
        for reason in dict.fromkeys(left_out.values())
    ]


def _between(one: Spread, other: Spread, t: float) -> Spread:
    return torch.lerp(one[0], other[0], t), torch.lerp(one[1], other[1], t)


def _repaired(network: _Network, weights: Tensors, name: str, target: Spread, report: Callable[[str], None]) -> int:
    """Rescales one layer in place, as the layers before it are now; gives the number of constant units."""
    report(name)
    mean, spread = network.spreads([name], network.with_statistics(weights), "the interpolated network")[name]
    weight, bias = (weights[f"{name}.{kind}" if name else kind] for kind in ("weight", "bias"))
    still = spread <= torch.finfo(weight.dtype).eps * mean.abs()
    scale = torch.where(still, torch.ones_like(spread), target[1] / spread)
    with torch.no_grad():
        weight.copy_(weight.double() * scale.reshape(-1, *[1] * (weight.ndim - 1)))
        bias.copy_((bias.double() - mean) * scale + target[0])
    return int(still.sum())


def _deviation(found: Mapping[str, Spread], targets: Mapping[str, Spread]) -> float:
    """The largest distance of a mean or spread from its target, relative to the layer's typical spread."""
    largest = 0.0
    for name, (mean, spread) in targets.items():
        typical = float(spread.square().mean().sqrt()) or 1.0
        for one, wanted in zip(found[name], (mean, spread), strict=True):
            largest = max(largest, float((one - wanted).abs().max()) / typical)
    return largest


def _passes(progress: ProgressCallback | None, total: int) -> Callable[[str], None]:
    """Reports that count themselves: each is of the next of `total` passes over the data, the last of none."""
    report, passes = reporter(progress), count()
    return lambda item: report(item, next(passes) if item else total, total)


def _weights(tensors: Tensors, models: Mapping[str, Weights], t: float, notes: list[str]) -> Weights:
    plain = load({name: tensor.detach() for name, tensor in tensors.items()})

    def read(info: TensorInfo) -> Tensor:
        return plain[info.name]

    return Weights(
        list(plain.infos.values()),
        read,
        source=f"REPAIR at t = {t:g} of {' and '.join(Path(weights.source).name for weights in models.values())}",
        notes=[*plain.notes, *notes],
        ordered=plain.ordered,
    )
