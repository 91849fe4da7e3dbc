"""`wb.tempbalance`: a learning rate for every layer, from the tail exponents of its weights."""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from workbench.errors import ArgumentError, nearest
from workbench.layers import Layer, Selection, layer_views, selected
from workbench.progress import ProgressCallback
from workbench.results import LAYER_COLUMNS, Column, LayerResult, many, short_source
from workbench.spectra.farms import Farms
from workbench.spectra.layer_alphas import EQUAL, Estimator, estimate_meta, estimated, is_number, positions
from workbench.spectra.power_law import Xmin
from workbench.spectra.spectrum import Spectrum
from workbench.weights import ModelLike, Weights, load

Assignment = Literal["linear", "sqrt", "log2", "step"]

ASSIGNMENTS = ("linear", "sqrt", "log2", "step")
SCALE = (0.5, 1.5)  # the paper's range
BASE = "base"  # name of the group of all that is not scaled


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TempBalance(LayerResult):
    """Learning rates, one row per layer: the base rate times a factor that grows with α."""

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "layers": {
            **LAYER_COLUMNS,
            "tensor": Column("the tensor's name; layers of one tensor share its rate", str, ""),
            "shape": Column("the tensor's shape", str, ""),
            "alpha": Column("power-law exponent of the layer, NaN if it has none", low=1),
            "factor": Column("rate over base rate, of the mean α of the tensor's layers; 1 without α", low=0),
            "learning_rate": Column("the tensor's learning rate", low=0),
        }
    }
    NEXT: ClassVar[str] = ".frame(), .parameter_groups(module), wb.figure(tempbalance)"

    def facts(self) -> str:
        """Layers scaled, the range of their factors, and how many stay at the base rate."""
        table = self.tables["layers"]
        scaled = [f for f, alpha in zip(table["factor"], table["alpha"], strict=True) if math.isfinite(alpha)]
        span = f"factors {min(scaled):.3g} to {max(scaled):.3g}" if scaled else "no layer has an α"
        return (
            f"{self.title}: {many(len(table['layer']), 'layer')}, {span} ({self.meta['parameters']['assignment']}), "
            f"{many(len(table['layer']) - len(scaled), 'layer')} without α"
        )

    def factors(self) -> dict[str, float]:
        """Tensor → factor, of every tensor with a row."""
        return dict(zip(self.tables["layers"]["tensor"], self.tables["layers"]["factor"], strict=True))

    def parameter_groups(self, module: nn.Module) -> list[dict[str, Any]]:
        """Parameter groups for a torch optimizer: a group per tensor with a row, and one of all the rest.

        Every parameter of the module is in exactly one group, one with two names under its first. Biases, norms and
        tensors without an α are at the base rate. The rates are fixed; `TempBalanceScheduler` moves them.

        Args:
            module: the module that is trained; its tensors have the names and shapes of the analysed ones.

        Returns:
            Dictionaries with `params`, `param_names`, `lr`, `name` (the tensor, or `base`) and `factor`.

        Raises:
            ArgumentError: not a module, or one with other tensors.

        Example:
            >>> import torch
            >>> module = torch.nn.Sequential(torch.nn.Linear(30, 30), torch.nn.Linear(30, 30))
            >>> balance = tempbalance(module, learning_rate=0.1)
            >>> [(group["name"], group["param_names"]) for group in balance.parameter_groups(module)]
            [('0.weight', ['0.weight']), ('1.weight', ['1.weight']), ('base', ['0.bias', '1.bias'])]
        """
        table, rate = self.tables["layers"], self.meta["parameters"]["learning_rate"]
        if rate is None:
            raise ArgumentError("this TempBalance is a scheduler's, which has its groups: read .factors().")
        own = scaled_parameters(module, dict(zip(table["tensor"], table["shape"], strict=True)))
        groups: list[dict[str, Any]] = []
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for tensor, factor in self.factors().items():
            parameter = own[tensor]
            group = {"params": [parameter], "param_names": [names.pop(id(parameter))]}
            groups.append(group | {"lr": rate * factor, "name": tensor, "factor": factor})
        rest = [(name, parameter) for name, parameter in module.named_parameters() if id(parameter) in names]
        if rest:
            group = {"params": [parameter for _, parameter in rest], "param_names": [name for name, _ in rest]}
            groups.append(group | {"lr": rate, "name": BASE, "factor": 1.0})
        return groups


def tempbalance(
    model: ModelLike,
    *,
    learning_rate: float,
    scale: tuple[float, float] = SCALE,
    assignment: Assignment = "linear",
    estimator: Estimator = "farms",
    xmin: Xmin = "median",
    window: int | None = None,
    stride: int | None = None,
    layers: Selection = None,
    device: str = "auto",
    cache: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
) -> TempBalance:
    """A learning rate for every layer, ηᵢ = η·[s₁ + (αᵢ − α_min)/(α_max − α_min)·(s₂ − s₁)].

    A layer whose spectrum has a light tail (large α) counts as trained too little and learns faster.

    Args:
        model: anything `wb.load` takes.
        learning_rate: the base rate η > 0.
        scale: (s₁, s₂), 0 ≤ s₁ ≤ s₂; (0.5, 1.5) as in the paper. Of `linear` and `step` only.
        assignment: `linear` is the formula above; `sqrt` and `log2` take √α or log₂ α over its mean; `step` puts
            the ranks of α at equal distances from s₁ to s₂, equal α at their mean rank.
        estimator: `farms` takes α of windows of one aspect ratio, `spectrum` α of the full matrices (the paper's).
        xmin: where the tail begins, `median` as in the paper; see `wb.farms`.
        window: rows of FARMS' windows, 100 if None.
        stride: most rows between its windows, half a window if None; larger ones are faster.
        layers: names, globs or a predicate of a Layer; None for all. What is not chosen stays at the base rate. The
            released code leaves out the first and the last layer.
        device: `auto`, `cpu` or `cuda`.
        cache: a folder that keeps finished layers of the estimator by content fingerprint and parameters; a layer
            found there is read and not computed. `.meta["cache"]` counts both.
        progress: called before each layer with a Progress; it may raise `wb.Cancelled`.

    Returns:
        A TempBalance: a row per layer with α, factor and rate, and `.parameter_groups(module)`. Layers inside one
        tensor (q, k, v) share the factor of their mean α. Where all α are equal (to 1e-9) the factor is midway,
        (s₁ + s₂)/2, or 1 under `sqrt` and `log2`. A layer without α has the base rate, and its `reason` says why; so
        do all where fewer than two tensors have one.

    Raises:
        CheckpointError: the model cannot be opened.
        LayerNotFoundError: the selection matches nothing.
        ArgumentError: an argument is out of its range, or the layers are in a single tensor.
        Cancelled: the callback asked for it; `.partial` is the estimator's result so far, at the very end the whole.

    Cost: that of `wb.farms` without resamples and full matrices, or of `wb.spectrum`.

    Source: Zhou, Pang, Liu, Martin, Mahoney & Yang, "Temperature Balancing, Layer-wise Weight Analysis, and Neural
    Network Training" (NeurIPS 2023), and its released code; FARMS (ICML 2025, arXiv 2506.06280) for the windows.
    Ours: biases and norms stay at the base rate (the released code lets them follow their layer); `step` reaches s₂
    (there the last rank stays one step below); ties share a rate.

    Misreads: `linear` and `step` stretch any spread of α to the whole range, that of layers fresh from
    initialisation too. Without windows, α ranks shapes as much as training. It says which layer, not whether it helps:
    tune η for it as for the baseline.

    Example:
        >>> import torch
        >>> alpha = lambda a: torch.diag((torch.arange(1, 201) / 200.5) ** (-0.5 / (a - 1)))
        >>> model = {f"{a}.weight": alpha(a) for a in (2, 3, 4)}
        >>> balance = tempbalance(model, learning_rate=0.1, estimator="spectrum", assignment="step")
        >>> [round(rate, 3) for rate in balance.frame()["learning_rate"]]
        [0.05, 0.1, 0.15]
    """
    begin = time.perf_counter()
    if not is_number(learning_rate) or not 0 < learning_rate < math.inf:
        raise ArgumentError(f"learning_rate={learning_rate!r}: expected a positive number, the base rate.")
    rules = checked_rules(scale, assignment)
    weights = load(model)
    chosen = several_tensors(weights, layers)

    def built(estimate: Farms | Spectrum) -> TempBalance:
        parameters = {
            "learning_rate": float(learning_rate),
            **rules,
            "estimator": estimator,
            "xmin": estimate.meta["parameters"]["xmin"],
            "window": estimate.meta["parameters"].get("window"),
            "stride": stride,
            "layers": None if layers is None else [layer.layer for layer in chosen],
        }
        meta = weights.provenance("wb.tempbalance", **parameters)
        meta |= estimate_meta(estimate)
        return balanced(
            weights, chosen, estimate, lambda _: float(learning_rate), meta | {"seconds": time.perf_counter() - begin}
        )

    return estimated(
        built,
        weights,
        estimator=estimator,
        xmin=xmin,
        window=window,
        stride=stride,
        layers=[layer.layer for layer in chosen],
        device=device,
        cache=cache,
        progress=progress,
    )


def checked_rules(scale: tuple[float, float], assignment: Assignment) -> dict[str, Any]:
    """Scale and assignment as `Result.meta` keeps them.

    Raises:
        ArgumentError: one is out of its range, or a scale was given to an assignment that has none.
    """
    if assignment not in ASSIGNMENTS:
        raise ArgumentError(
            f"assignment={assignment!r}: expected one of {ASSIGNMENTS}." + nearest(assignment, ASSIGNMENTS)
        )
    pair = tuple(scale) if isinstance(scale, Sequence) else ()
    if len(pair) != 2 or not all(is_number(end) for end in pair) or not 0 <= pair[0] <= pair[1] < math.inf:
        raise ArgumentError(f"scale={scale!r}: expected two factors (s1, s2) with 0 <= s1 <= s2.")
    if assignment in ("sqrt", "log2") and pair != SCALE:
        raise ArgumentError(f"scale={scale!r} goes with 'linear' and 'step'; {assignment!r} has no range. Drop it.")
    return {"scale": [float(end) for end in pair], "assignment": assignment}


def several_tensors(weights: Weights, layers: Selection) -> list[Layer]:
    """The layers that a selection means, if they are in two tensors at least.

    Raises:
        LayerNotFoundError: the selection matches nothing.
        ArgumentError: they are all in one tensor.
    """
    chosen = selected(layer_views(weights), layers, short_source(weights.source))
    if len({layer.tensor for layer in chosen}) < 2:
        raise ArgumentError(
            f"all chosen layers are in {chosen[0].tensor!r}: α is compared between tensors, expected two or more; "
            "choose more layers, or use one rate."
        )
    return chosen


def balanced(
    weights: Weights,
    chosen: Sequence[Layer],
    estimate: Farms | Spectrum,
    rate: Callable[[str], float],
    meta: Mapping[str, Any],
) -> TempBalance:
    """The rows that follow from an estimate; `rate` gives a tensor's base rate."""
    rows = [estimate.row(layer.layer) | {"tensor": layer.tensor} for layer in chosen]
    alphas: dict[str, list[float]] = {}
    for row in rows:
        if math.isfinite(row["alpha"]):
            alphas.setdefault(row["tensor"], []).append(row["alpha"])
    means = {tensor: math.fsum(values) / len(values) for tensor, values in alphas.items()}
    rules = meta["parameters"]
    factors: dict[str, float] = {}
    if len(means) > 1:
        values = assigned(list(means.values()), rules["assignment"], rules["scale"])
        factors = dict(zip(means, values, strict=True))
    for row in rows:
        tensor, known = row["tensor"], math.isfinite(row["alpha"])
        if not known and tensor in factors:
            row["reason"] = f"rate of the tensor's other layers: {row['reason']}"
        elif tensor not in factors:
            row["reason"] = f"base rate: {'no other tensor has an α' if known else row['reason']}"
        row["shape"] = "×".join(map(str, weights.infos[tensor].shape))
        row["factor"] = factors.get(tensor, 1.0)
        row["learning_rate"] = rate(tensor) * row["factor"]
    return TempBalance(tables={"layers": TempBalance.columns("layers", rows)}, meta=meta)


def assigned(alphas: Sequence[float], assignment: Assignment, scale: Sequence[float]) -> list[float]:
    """The factor of each α.

    Example:
        >>> assigned([2.0, 3.0, 6.0], "linear", (0.5, 1.5))
        [0.5, 0.75, 1.5]
        >>> assigned([4.0, 16.0], "log2", (0.5, 1.5)), assigned([1.0, 9.0], "sqrt", (0.5, 1.5))
        ([0.6666666666666666, 1.3333333333333333], [0.5, 1.5])
    """
    low, high = scale
    if assignment in ("linear", "step"):
        values = _ranks(alphas) if assignment == "step" else list(alphas)
        return [low + where * (high - low) for where in positions(values)]
    values = [math.sqrt(alpha) if assignment == "sqrt" else math.log2(alpha) for alpha in alphas]
    mean = math.fsum(values) / len(values)
    return [value / mean if mean else 1.0 for value in values]


def _ranks(alphas: Sequence[float]) -> list[float]:
    """The rank of each α, the mean rank where some are equal."""

    def rank(alpha: float) -> float:
        same = EQUAL * alpha
        below = sum(other < alpha - same for other in alphas)
        return below + (sum(abs(other - alpha) <= same for other in alphas) - 1) / 2

    return [rank(alpha) for alpha in alphas]


def scaled_parameters(module: nn.Module, shapes: Mapping[str, str]) -> dict[str, nn.Parameter]:
    """The module's parameters by the tensors' names of a TempBalance.

    Raises:
        ArgumentError: not a module, or one that lacks a tensor, has it in another shape, or ties two of them.
    """
    if not isinstance(module, nn.Module):
        raise ArgumentError(f"module is {type(module).__name__}: expected the nn.Module that is trained.")
    infos, own = load(module).infos, dict(module.named_parameters(remove_duplicate=False))
    found: dict[str, nn.Parameter] = {}
    for tensor, shape in shapes.items():
        parameter = own.get(infos[tensor].stored) if tensor in infos else None
        if parameter is None:
            hint = nearest(tensor, infos)
            raise ArgumentError(f"{type(module).__name__} has no parameter {tensor!r}: pass the analysed module.{hint}")
        has = "×".join(map(str, parameter.shape))
        if has != shape:
            raise ArgumentError(
                f"{tensor!r} is {has} in {type(module).__name__}, {shape} where it was analysed: pass that module."
            )
        if twin := next((name for name, other in found.items() if other is parameter), None):
            raise ArgumentError(
                f"{twin!r} and {tensor!r} are one parameter of {type(module).__name__}, but were analysed as two: "
                "analyse the module itself."
            )
        found[tensor] = parameter
    return found
