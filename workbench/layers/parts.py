"""Tensors that hold several layers' matrices: fused q/k/v, packed experts, the gates of recurrent cells."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from workbench.weights import TensorInfo

QKV = ("in_proj_weight", "qkv.weight", "Wqkv.weight")  # [3·width, width]: MultiheadAttention, ViT, MPT
QKV_CONV1D = ("c_attn.weight",)  # GPT-2's Conv1D: [width, 3·width]
FUSED = ("query_key_value.weight", "qkv_proj.weight", *QKV, *QKV_CONV1D)
FUSED_REMARK = "fused q/k/v whose split is not told by its shape: seen as one matrix"
RECURRENT = re.compile(r"weight_(ih|hh)_l\d+(_reverse)?$")
GATES = {4: ("i", "f", "g", "o"), 3: ("r", "z", "n")}  # torch's order for LSTM and GRU
CELLS = {"LSTM": 4, "GRU": 3}


@dataclass(frozen=True)
class Part:
    """A slice of a tensor along one axis; an axis of length one is dropped if `single`."""

    suffix: str
    axis: int
    start: int
    stop: int
    single: bool = False

    def of(self, tensor: Tensor) -> Tensor:
        """The part of a tensor, without a copy."""
        part = tensor.narrow(self.axis, self.start, self.stop - self.start)
        return part.squeeze(self.axis) if self.single else part

    def shape(self, whole: tuple[int, ...]) -> tuple[int, ...]:
        """The part's shape."""
        inside = () if self.single else (self.stop - self.start,)
        return (*whole[: self.axis], *inside, *whole[self.axis + 1 :])


def parts(info: TensorInfo, infos: Mapping[str, TensorInfo]) -> list[Part]:
    """The layers inside one tensor; none if the tensor is one layer.

    Args:
        info: the tensor.
        infos: all tensors of the model; a recurrent cell's gates are counted on its hidden-to-hidden weight.
    """
    if is_packed_experts(info):
        return [Part(str(number), 0, number, number + 1, single=True) for number in range(info.shape[0])]
    if len(info.shape) != 2:
        return []
    rows, cols = info.shape
    if info.name.endswith(QKV) and rows == 3 * cols:
        return _even(("q", "k", "v"), 0, rows)
    if info.name.endswith(QKV_CONV1D) and cols == 3 * rows:
        return _even(("q", "k", "v"), 1, cols)
    if RECURRENT.search(info.name):
        hidden = infos.get(info.name.replace("weight_ih", "weight_hh"), info).shape
        told = hidden[0] // hidden[1] if len(hidden) == 2 and hidden[1] and hidden[0] % hidden[1] == 0 else 0
        count = CELLS.get(info.module or "", told)
        return _even(GATES[count], 0, rows) if count in GATES and rows % count == 0 else []
    return []


def is_packed_experts(info: TensorInfo) -> bool:
    """Whether a 3-D tensor is a stack of experts' matrices, by its name."""
    return len(info.shape) == 3 and "experts" in info.name and not (info.module or "").startswith("Conv")


def _even(suffixes: tuple[str, ...], axis: int, length: int) -> list[Part]:
    step = length // len(suffixes)
    return [Part(suffix, axis, n * step, (n + 1) * step) for n, suffix in enumerate(suffixes)]
