"""Which tensors are matrices, and how a tensor is seen as one or many of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.layers.parts import FUSED, FUSED_REMARK, Part, is_packed_experts, parts
from workbench.weights import TensorInfo, Weights

Conv = Literal["slices", "flatten"]

MAX_CONV1D_KERNEL = 31  # a 3-D `.weight` from a file with a longer last axis is as likely packed experts
GAINS = ("weight_g", ".original0")  # of torch's weight_norm, old and new
RAW = ("weight_v", "weight_orig", ".original", ".original1")  # of weight_norm, pruning and spectral_norm
RAW_REMARK = "the raw parameter of a reparametrised weight, not the weight that the network uses"
CONVOLUTIONS = {3: "conv1d", 4: "conv2d", 5: "conv3d"}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A tensor, or a part of one, that holds one or many weight matrices.

    Attributes:
        layer: the layer id, shared by every analysis.
        tensor: the tensor's name in the weights.
        depth: number of matrix layers before this one.
        kind: `linear`, `embedding`, `conv1d`, `conv2d` or `conv3d`.
        shape: the shape of the tensor, or of the part.
        part: which part of the tensor it is; None for all of it.
        groups: groups of a convolution; 1 where no code tells.
        transposed: whether it is a transposed convolution, whose first axis are the inputs.
        remark: what a reader of its numbers must know; empty if nothing.
    """

    layer: str
    tensor: str
    depth: int
    kind: str
    shape: tuple[int, ...]
    part: Part | None = None
    groups: int = 1
    transposed: bool = False
    remark: str = ""

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    def extent(self, conv: Conv = "slices") -> tuple[int, int, int]:
        """Number of matrices, rows and columns of the view that `matrices` gives."""
        first, second, kernel = self.shape[0] // self.groups, self.shape[1], prod(self.shape[2:])
        out, inside = (second, first) if self.transposed else (first, second)
        if conv == "slices":
            return self.groups * kernel, out, inside
        return self.groups, out, inside * kernel


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """A tensor that is not seen as a matrix, and why.

    Attributes:
        tensor: the tensor's name, which is its layer id too.
        depth: number of matrix layers before it.
        shape: its shape.
        reason: why it is no matrix.
    """

    tensor: str
    depth: int
    shape: tuple[int, ...]
    reason: str
    kind: ClassVar[str] = ""  # as layers have one, so that a predicate need not ask first
    part: ClassVar[None] = None

    @property
    def layer(self) -> str:
        """The layer id."""
        return self.tensor

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)


def matrices(layer: Layer, tensor: Tensor, conv: Conv = "slices") -> Float[Tensor, "matrices rows cols"]:
    """The weight matrices of a layer, without copying where the layout allows.

    Args:
        layer: what `layer_views` says of the tensor.
        tensor: the whole tensor, of any floating dtype.
        conv: `slices` gives one out×in matrix per kernel position and group, `flatten` one out×(in·positions) matrix
            per group.

    Returns:
        The matrices; for linear layers and embeddings there is one.
    """
    own = layer.part.of(tensor) if layer.part else tensor
    if own.ndim == 2:
        return own[None]
    grouped = own.reshape(layer.groups, own.shape[0] // layer.groups, own.shape[1], -1)
    if layer.transposed:
        grouped = grouped.transpose(1, 2)
    if conv == "flatten":
        return grouped.flatten(2)
    return grouped.permute(0, 3, 1, 2).flatten(0, 1)


def layer_views(weights: Weights) -> list[Layer | Exclusion]:
    """Every tensor of the weights in order, as a Layer or as an Exclusion with its reason."""
    kinds = {info.name: _kind(info) for info in weights.infos.values()}
    inside = {name: parts(weights.infos[name], weights.infos) for name, (kind, _) in kinds.items() if kind}
    ids = _ids(weights, inside)
    views: list[Layer | Exclusion] = []
    depth = 0
    for info in weights.infos.values():
        kind, reason = kinds[info.name]
        if kind is None:
            views.append(Exclusion(tensor=info.name, depth=depth, shape=info.shape, reason=reason))
            continue
        remark = RAW_REMARK if info.name.endswith(RAW) else ""
        if info.name.endswith(FUSED) and not inside[info.name]:
            remark = FUSED_REMARK
        whole: list[Part | None] = [None]
        for part in inside[info.name] or whole:
            layer, renamed = ids[info.name, part]
            views.append(
                Layer(
                    layer=layer,
                    tensor=info.name,
                    depth=depth,
                    kind=kind,
                    shape=part.shape(info.shape) if part else info.shape,
                    part=part,
                    groups=info.groups,
                    transposed=(info.module or "").startswith("ConvTranspose"),
                    remark="; ".join(filter(None, [remark, renamed])),
                )
            )
            depth += 1
    return views


def _ids(weights: Weights, inside: Mapping[str, Sequence[Part]]) -> dict[tuple[str, Part | None], tuple[str, str]]:
    """The id of every layer and what is to be said of it; no two are equal, in whatever order the tensors come."""
    ids: dict[tuple[str, Part | None], tuple[str, str]] = {}
    taken: dict[str, str] = {}  # by a part → the tensor that it is a part of
    for name, own in inside.items():
        for part in own:
            usual = layer = f"{_module_path(name, weights)}.{part.suffix}"
            while layer in weights:
                layer += ".part"
            taken[layer] = name
            ids[name, part] = layer, "" if layer == usual else f"called so because {usual!r} is a tensor's name"
    for name in inside:
        usual = _module_path(name, weights)
        known = f"called so because {usual!r} is a part of {taken[usual]!r}" if usual in taken else ""
        ids[name, None] = (name if known else usual), known
    return ids


def _module_path(name: str, weights: Weights) -> str:
    path = name.removesuffix(".weight")
    return name if path in weights else path  # a parameter may be called like a module


def layer_list(views: Sequence[Layer | Exclusion]) -> list[Layer]:
    """The layers among the views."""
    return [view for view in views if isinstance(view, Layer)]


def _kind(info: TensorInfo) -> tuple[str | None, str]:
    """The kind of layer that a tensor is, or None and the reason why it is none."""
    if info.tied_to:
        return None, f"tied to {info.tied_to}, counted there"
    if not info.dtype.is_floating_point:
        name = str(info.dtype).removeprefix("torch.")
        quantised = " (quantised storage? its scales are not known here)" if info.dtype.itemsize == 1 else ""
        return None, f"{name} tensor: not real weights{quantised}"
    if info.dtype.itemsize == 1:
        return None, "8-bit float storage: its scales are not known here"
    if info.layout != torch.strided:
        return None, f"{str(info.layout).removeprefix('torch.')} layout: only dense tensors are seen as matrices"
    if info.name.endswith(GAINS):
        return None, "the gain of a weight norm, not a weight matrix"
    if info.name.endswith("_mask"):
        return None, "a pruning mask, not a weight matrix"
    if 0 in info.shape:
        return None, "empty tensor"
    if info.buffer:
        return None, f"a buffer of {info.module}, not a parameter"
    dimensions = len(info.shape)
    if dimensions < 2:
        return None, f"a {'vector' if dimensions else 'scalar'} (bias, norm or gain): it has no spectrum"
    if dimensions == 2:
        embedding = "Embedding" in info.module if info.module else "embed" in info.name.lower()
        return ("embedding" if embedding else "linear"), ""
    if is_packed_experts(info):
        return "linear", ""
    if dimensions not in CONVOLUTIONS:
        return None, f"{dimensions}-D tensor: not a linear, embedding or convolution weight"
    shape = "×".join(map(str, info.shape))
    if info.module:
        if info.module.startswith(("Conv", "LazyConv")):
            return CONVOLUTIONS[dimensions], ""
        return None, f"{shape} parameter of {info.module}: its axes are not known to be a matrix"
    if not info.name.endswith("weight") or (dimensions == 3 and info.shape[2] > MAX_CONV1D_KERNEL):
        return None, f"{shape} tensor without code: packed experts or a convolution? Load it as its nn.Module"
    return CONVOLUTIONS[dimensions], ""
