"""`wb.TempBalanceScheduler`: TempBalance in a training loop, on top of any other schedule."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from workbench.errors import ArgumentError
from workbench.layers import Selection
from workbench.spectra.layer_alphas import Estimator, estimate_meta, layer_alphas
from workbench.spectra.power_law import Xmin
from workbench.spectra.tempbalance import (
    SCALE,
    Assignment,
    TempBalance,
    balanced,
    checked_rules,
    scaled_parameters,
    several_tensors,
)
from workbench.weights import load

LISTED = 12  # layers that a message names


class TempBalanceScheduler:
    """Scales each layer's learning rate by `wb.tempbalance`'s factor while the optimizer steps.

    `group["lr"]` is the base rate at all times but inside `optimizer.step()`, where it is base rate × factor: torch's
    schedules, whether they compute from the present rate or from the first, find what they left. The factors are
    taken when this is made, and anew at each `every`-th call of `.step()`.

    Each tensor that is scaled needs a group of its own: groups with several parameters are split in place, with all
    their settings. Make this therefore before the learning-rate schedule, from an optimizer at base rates. A frozen
    layer that the optimizer has is one of those compared; leave it out by `layers` if it is to stay frozen.

    `copy.deepcopy((module, optimizer, scheduler))` is a run of its own. A copy of the optimizer alone is one without
    this, at base rates: torch leaves hooks behind.

    Args:
        optimizer: any torch optimizer of the module's parameters but LBFGS, which has one rate.
        module: the module that it trains.
        scale, assignment, estimator, xmin, window, stride, layers, device: as for `wb.tempbalance`.
        every: calls of `.step()` between two estimates; 1 as in the paper, where a call is an epoch.

    Attributes:
        result: the present TempBalance; its rates are those of the time when it was estimated.
        steps: calls of `.step()` so far.

    Raises:
        ArgumentError: an argument is out of its range; the optimizer lacks a parameter that is to be scaled, has a
            second TempBalanceScheduler or factors of `parameter_groups`, or must be split after a schedule was made.

    Cost: an estimate is `wb.farms` without resamples and full matrices (or `wb.spectrum`) on the module's weights as
    they are. Measured on one thread: six layers of 128 14 ms, ResNet-20's shapes 40 ms, MiniLM's encoder 1.3 s, 0.5 s
    with stride=100 (with `spectrum` 9 ms, 34 ms, 0.4 s); the digits' MLP 64-512-512-10 48 ms, two thirds of its epoch
    of 1437 images. `every` divides it. More groups make an optimizer's fused kernels smaller.

    Source: Zhou et al., "Temperature Balancing, Layer-wise Weight Analysis, and Neural Network Training" (NeurIPS
    2023), algorithm 1. Ours: the rates are exchanged around a step, so that it composes with other schedules.

    Misreads: a logger that reads `group["lr"]` sees the base rate; `.learning_rates()` has what is used.

    Example:
        >>> import torch
        >>> module = torch.nn.Sequential(torch.nn.Linear(30, 30), torch.nn.Linear(30, 30))
        >>> optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        >>> balance = TempBalanceScheduler(optimizer, module)
        >>> cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
        >>> for epoch in range(2):  # … train for an epoch here, then:
        ...     optimizer.step()
        ...     cosine.step()
        ...     _ = balance.step()
        >>> sorted(round(f, 9) for f in balance.result.factors().values()), len(optimizer.param_groups)
        ([0.5, 1.5], 3)
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        module: nn.Module,
        *,
        scale: tuple[float, float] = SCALE,
        assignment: Assignment = "linear",
        estimator: Estimator = "farms",
        xmin: Xmin = "median",
        window: int | None = None,
        stride: int | None = None,
        layers: Selection = None,
        every: int = 1,
        device: str = "auto",
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ArgumentError(f"optimizer is {type(optimizer).__name__}: expected a torch.optim.Optimizer.")
        if not isinstance(module, nn.Module):
            raise ArgumentError(f"module is {type(module).__name__}: expected the nn.Module that is trained.")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ArgumentError(f"every={every!r}: expected a whole number of calls, 1 or more.")
        hooks = optimizer._optimizer_step_pre_hooks.values()
        if any(isinstance(getattr(hook, "__self__", None), TempBalanceScheduler) for hook in hooks):
            raise ArgumentError("the optimizer has a TempBalanceScheduler already: .remove() it before making another.")
        if isinstance(optimizer, torch.optim.LBFGS):
            raise ArgumentError(
                "LBFGS takes one step for all parameters, along one direction: it has no rate for each layer. Train "
                "with SGD, AdamW or another optimizer with parameter groups."
            )
        if any(group.get("factor", 1.0) != 1.0 for group in optimizer.param_groups):
            raise ArgumentError(
                "the optimizer's groups carry the factors of a TempBalance's parameter_groups, which would be applied "
                "twice: make it from module.parameters() at the base rate."
            )
        self.optimizer, self.module, self.every, self.steps = optimizer, module, every, 0
        self._rules = checked_rules(scale, assignment)
        self._chosen = several_tensors(load(module), layers)
        self._options: dict[str, Any] = {"estimator": estimator, "xmin": xmin, "window": window, "stride": stride}
        self._device = device
        shapes = {layer.tensor: "×".join(map(str, load(module).infos[layer.tensor].shape)) for layer in self._chosen}
        self._parameters = scaled_parameters(module, shapes)
        self._check_optimizer()
        self.result = self._estimated()  # before anything of the optimizer is touched
        self._split()
        self._swapped: list[tuple[float | Tensor, float | Tensor]] = []
        self._hooks = self._registered()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_hooks": bool(self._hooks)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """A copy, which scales its own optimizer if the original does: torch copies an optimizer without its hooks."""
        self.__dict__.update(state)
        self._hooks = self._registered() if state["_hooks"] else []

    def step(self) -> TempBalance:
        """Counts a call, an epoch by convention, and estimates the factors anew at each `every`-th.

        Returns:
            The present `result`.
        """
        self.steps += 1
        if self.steps % self.every == 0:
            self.result = self._estimated()
        return self.result

    def learning_rates(self) -> dict[str, float]:
        """Tensor → the rate that the next `optimizer.step()` uses: present base rate × factor."""
        factors, base = self.result.factors(), self._base_rates()
        return {tensor: base[tensor] * factor for tensor, factor in factors.items()}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, in plain types: the count of calls and the present rows."""
        table = {column: list(cells) for column, cells in self.result.tables["layers"].items()}
        return {"steps": self.steps, "every": self.every, "layers": table}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken, without a new estimate.

        Raises:
            ArgumentError: the state is of other layers.
        """
        found = list(state["layers"]["layer"]) if {"steps", "every", "layers"} <= set(state) else None
        if found != (own := list(self.result.tables["layers"]["layer"])):
            raise ArgumentError(
                f"the state is of the layers {found}, this scheduler has {own}: "
                "load the state of a scheduler of the same module and layers."
            )
        self.result = replace(self.result, tables={"layers": state["layers"]})
        self.steps, self.every = state["steps"], state["every"]

    def remove(self) -> None:
        """Leaves the optimizer alone: from now on every layer learns at the base rate."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _registered(self) -> list[RemovableHandle]:
        return [
            self.optimizer.register_step_pre_hook(self._scale),
            self.optimizer.register_step_post_hook(self._restore),
        ]

    def _names(self) -> dict[int, str]:
        return {id(parameter): tensor for tensor, parameter in self._parameters.items()}

    def _estimated(self) -> TempBalance:
        weights = load(self.module)
        names = [layer.layer for layer in self._chosen]
        estimate = layer_alphas(weights, layers=names, device=self._device, cache=None, progress=None, **self._options)
        meta = weights.provenance(
            "wb.TempBalanceScheduler",
            learning_rate=None,
            **self._rules,
            **self._options,
            layers=names,
            every=self.every,
        )
        meta |= estimate_meta(estimate) | {"seconds": estimate.meta["seconds"]}
        return balanced(weights, self._chosen, estimate, self._base_rates().__getitem__, meta)

    def _base_rates(self) -> dict[str, float]:
        groups = self.optimizer.param_groups
        rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
        return {tensor: float(rates[id(parameter)]) for tensor, parameter in self._parameters.items()}

    def _check_optimizer(self) -> None:
        groups = self.optimizer.param_groups
        known = {id(parameter) for group in groups for parameter in group["params"]}
        missing = [tensor for tensor, parameter in self._parameters.items() if id(parameter) not in known]
        if missing:
            has = [layer.layer for layer in self._chosen if layer.tensor not in missing]
            listed = f": layers={has}" if 1 < len(has) <= LISTED else ""
            raise ArgumentError(
                f"the optimizer does not have {missing[0]!r} of {type(self.module).__name__}: pass the optimizer of "
                f"this module's parameters, or choose layers that it has{listed or ', two or more'}."
            )
        crowded = any(len(group["params"]) > 1 and self._inside(group) for group in groups)
        if crowded and any("initial_lr" in group for group in groups):
            raise ArgumentError(
                "the optimizer has a learning-rate schedule already, and its groups must be split for a rate per "
                "layer: make the TempBalanceScheduler before the schedule."
            )

    def _inside(self, group: Mapping[str, Any]) -> list[int]:
        names = self._names()
        return [place for place, parameter in enumerate(group["params"]) if id(parameter) in names]

    def _split(self) -> None:
        """A group for each scaled tensor, after the group that it was in, which keeps the rest."""
        groups: list[dict[str, Any]] = []
        names = self._names()
        for group in self.optimizer.param_groups:
            taken = self._inside(group) if len(group["params"]) > 1 else []
            rest = [place for place in range(len(group["params"])) if place not in taken]
            for places in filter(None, [rest, *([place] for place in taken)]):
                own = {
                    key: [group[key][place] for place in places] for key in ("params", "param_names") if key in group
                }
                name = {"name": names[id(own["params"][0])]} if taken and places is not rest else {}
                groups.append(group | own | name)
        self.optimizer.param_groups[:] = groups

    def _scale(self, *_: Any) -> None:
        self._restore()  # a step that raised left its rates behind
        factors, names = self.result.factors(), self._names()
        for group in self.optimizer.param_groups:
            base = used = group["lr"]
            if len(group["params"]) == 1 and (tensor := names.get(id(group["params"][0]))):
                used = base * factors[tensor]
            group["lr"] = used
            self._swapped.append((base, used))

    def _restore(self, *_: Any) -> None:
        for group, (base, used) in zip(self.optimizer.param_groups, self._swapped, strict=False):
            if group["lr"] is used:
                group["lr"] = base
        self._swapped = []
