"""The weight matrices of a module: which layer each reads, and its inputs and outputs as rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from workbench.runtime.batches import first_tensor, naming
from workbench.runtime.borrowing import unfused
from workbench.runtime.chain import Batch, Chain, mask_of
from workbench.runtime.passing import result_of

INPUT = "input"  # what blocks read that run before the first layer of the chain is done
ROOT = "weight"  # the id of a module that is itself a block, as `wb.layers` names its tensor
PATCHES = 1 << 22  # elements of unfolded images at a time, 34 MB


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightBlock:
    """A submodule with parameters of its own.

    Attributes:
        layer: its id.
        path: its path in the module.
        owner: path of the first block with the same weight: its own, as a rule.
        part: the submodule.
        reads: id of the last layer of the chain that was done before it ran; `input` where there was none.
        calls: how often it runs in a pass.
        depth: matrix layers that ran before it.
        params: its parameters.
        groups: groups of features that it keeps apart; 0 where it is no block of weights that is looked into.
        fan_in: inputs of a unit: of a convolution those of a patch.
        fan_out: units, of a group.
        bias: whether it adds one.
        reason: why it is not looked into, or what is remarkable about it.
    """

    layer: str
    path: str
    owner: str
    part: nn.Module
    reads: str
    calls: int
    depth: int
    params: int
    groups: int
    fan_in: int
    fan_out: int
    bias: bool
    reason: str

    def input_rows(self, given: Tensor, keep: Tensor | None) -> Iterator[Float[Tensor, "rows groups inputs"]]:
        """Its input as one row a datapoint, a piece at a time; a convolution's are patches, with their padding."""
        if isinstance(self.part, _ConvNd):
            yield from self._patches(given)
        else:
            yield _rows(given, keep)[:, None, :]

    def output_rows(self, output: Tensor, keep: Tensor | None) -> Float[Tensor, "rows units"]:
        """Its output, or a gradient of that form, as one row a datapoint."""
        if not isinstance(self.part, _ConvNd):
            return _rows(output, keep)
        batched = output if output.ndim == self.part.weight.ndim else output[None]
        return batched.movedim(1, -1).reshape(-1, self.groups * self.fan_out)

    def _patches(self, given: Tensor) -> Iterator[Tensor]:
        part: Any = self.part
        images = given if given.ndim == part.weight.ndim else given[None]
        mode = "constant" if part.padding_mode == "zeros" else part.padding_mode
        size = math.prod(part.kernel_size) * images[0].numel()
        step = max(1, PATCHES // max(size, 1))
        for few in torch.split(images, step):
            new = nn.functional.pad(few, part._reversed_padding_repeated_twice, mode=mode)
            for axis, (kernel, stride, dilation) in enumerate(
                zip(part.kernel_size, part.stride, part.dilation, strict=True), start=2
            ):
                new = new.unfold(axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
            dims = len(part.kernel_size)
            last = new.permute(0, *range(2, 2 + dims), 1, *range(2 + dims, 2 + 2 * dims))
            yield last.reshape(-1, self.groups, self.fan_in)


def weight_blocks(chain: Chain, batch: Batch) -> list[WeightBlock]:
    """All submodules with parameters of their own, in the order in which they run; those that do not run come last."""
    parts = {
        path: part
        for path, part in chain.module.named_modules()
        if "parametrizations" not in path.split(".") and (_own(part) or hasattr(part, "parametrizations"))
    }
    order = _order(chain, batch, parts)
    owners: dict[int, str] = {}
    blocks: list[WeightBlock] = []
    depth = 0
    for path in [*order, *(path for path in parts if path not in order)]:
        part = parts[path]
        groups, fan_in, fan_out, reason = _form(part) if path in order else (0, 0, 0, "it did not run")
        weight = part._parameters.get("weight")
        bias = groups > 0 and isinstance(getattr(part, "bias", None), Tensor)
        params = sum(t.numel() for t in _own(part).values())
        owner = path
        if groups and weight is None:
            params += part.weight.numel()
            reason = "its weight is computed from other parameters: what is counted are the elements of the matrix"
        elif groups and weight is not None and id(weight) in owners:
            owner, params = owners[id(weight)], params - weight.numel()
            reason = f"its weight is that of {owner or ROOT!r} and is counted there"
        if groups and weight is not None:
            owners.setdefault(id(weight), path)
        blocks.append(
            WeightBlock(
                layer=path or ROOT,
                path=path,
                owner=owner,
                part=part,
                reads=order[path][0] if path in order else "",
                calls=len(order.get(path, ())),
                depth=depth,
                params=params,
                groups=groups,
                fan_in=fan_in,
                fan_out=fan_out,
                bias=bias,
                reason=reason,
            )
        )
        depth += groups > 0
    return blocks


def _order(chain: Chain, batch: Batch, parts: Mapping[str, nn.Module]) -> dict[str, list[str]]:
    """Path → the layer that each of its calls reads, in the order of the first calls in one pass."""
    cuts = {cut.path: cut.layer for cut in chain.cuts}
    order: dict[str, list[str]] = {}
    last = [INPUT]
    handles = []

    def starts(path: str) -> Any:
        return lambda *_: order.setdefault(path, []).append(last[0])

    def ends(layer: str) -> Any:
        return lambda *_: last.__setitem__(0, layer)

    try:
        for path, part in parts.items():
            handles.append(part.register_forward_pre_hook(starts(path)))
        for path, layer in cuts.items():
            handles.append(chain.module.get_submodule(path).register_forward_hook(ends(layer)))
        with naming(batch.number, batch.shown), unfused():
            result_of(chain.module, batch.call)
    finally:
        for handle in handles:
            handle.remove()
    return order


def block_input(given: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor:
    """What a block was called with."""
    return first_tensor((*given, *named.values()))


def _own(part: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in part._parameters.items() if tensor is not None}


def _form(part: nn.Module) -> tuple[int, int, int, str]:
    """Groups, inputs of a patch, units of a group; and why it is no such block."""
    kind = type(part).__name__
    if isinstance(part, _ConvNd) and not isinstance(part, _ConvTransposeNd):
        inside = part.in_channels // part.groups * math.prod(part.kernel_size)
        return part.groups, inside, part.out_channels // part.groups, ""
    if isinstance(part, nn.Linear):
        return 1, part.in_features, part.out_features, ""
    if kind == "Conv1D" and isinstance(getattr(part, "weight", None), Tensor):  # Hugging Face's: x·W + b
        inside, units = part.weight.shape  # type: ignore[misc]
        return 1, int(inside), int(units), ""
    return 0, 0, 0, f"{kind}: only the matrices of linear and convolutional layers are looked into"


def _rows(tensor: Tensor, keep: Tensor | None) -> Tensor:
    mask = mask_of(tensor, keep)
    return tensor.reshape(-1, tensor.shape[-1]) if mask is None else tensor[mask]
