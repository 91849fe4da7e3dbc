"""Normalisation, softmax and reductions."""

from __future__ import annotations

from typing import Any

from workbench.connectivity.axes import Axis, unify, view
from workbench.connectivity.rules.call import (
    Axes,
    TracedCall,
    aligned,
    freeze_all,
    freeze_order,
    fresh,
    places,
    reduced,
    rule,
)


@rule("batch_norm", "instance_norm", "cudnn_batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training")
def _batch_norm(call: TracedCall) -> Any:
    inputs, *statistics = call.tensors()
    for axes in statistics:
        unify(inputs[1], axes[0])
    call.within.append(inputs[:2])
    first = list(inputs)
    return first if len(call.shapes) == 1 else (first, *(fresh(shape) for shape in call.shapes[1:]))


@rule("group_norm", "native_group_norm")
def _group_norm(call: TracedCall) -> Any:
    inputs, *affine = call.tensors()
    groups = int(call.get("num_groups", "group"))
    for axes in affine:
        unify(inputs[1], axes[0])
    outer, _ = view([inputs[1]], [groups, inputs[1].size // groups])
    call.within.append([inputs[0], outer])
    first = list(inputs)
    return first if len(call.shapes) == 1 else (first, *(fresh(s, "statistics") for s in call.shapes[1:]))


@rule("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def _layer_norm(call: TracedCall) -> Any:
    inputs, *affine = call.tensors()
    count = len(call["normalized_shape"])
    for axes in affine:
        for axis, other in zip(inputs[-count:], axes, strict=True):
            unify(axis, other)
    call.within.append(inputs[:-count])
    first = list(inputs)
    if len(call.shapes) == 1:
        return first
    return first, *([*inputs[:-count], *fresh([1] * count)] for _ in call.shapes[1:])


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax", "softmin")
def _softmax(call: TracedCall) -> Axes:
    axes = call.first
    call.within.append(reduced(axes, places(call["dim"], len(axes)), keep=False))
    call.roles += [("heads", axis) for axis in call.within[0]]
    return list(axes)


@rule(
    *("mean", "sum", "amax", "amin", "var", "std", "prod", "any", "all", "logsumexp", "norm", "linalg_vector_norm"),
    *("count_nonzero", "nansum", "nanmean", "var_mean", "std_mean", "aminmax"),
)
def _reduction(call: TracedCall) -> Any:
    axes = call.first
    found = reduced(axes, places(call.get("dim"), len(axes)), bool(call.get("keepdim")))
    return found if len(call.shapes) == 1 else tuple(list(found) for _ in call.shapes)


@rule("max", "min")
def _extremum(call: TracedCall) -> Any:
    tensors = call.tensors()
    if len(tensors) == 2:
        return aligned(*tensors)
    return _reduction(call) if len(call.shapes) == 1 else _index_of_reduction(call)


@rule("argmax", "argmin", "median", "mode", "kthvalue")
def _index_of_reduction(call: TracedCall) -> Any:
    axes = call.first
    if call.used[-1]:  # the values alone are those of a reduction
        freeze_order(call, axes, places(call.get("dim"), len(axes)), "its order is read")
    return _reduction(call)


@rule(
    *("cumsum", "cumprod", "flip", "roll", "sort", "argsort", "topk", "logcumsumexp", "cummax", "diff"),
    *(f"fft_{kind}{rank}" for kind in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft") for rank in ("", "2", "n")),
)
def _ordered(call: TracedCall) -> Any:
    axes = call.first
    dims = places(call.get("dim", "dims"), len(axes))
    freeze_order(call, axes, dims, "its order is read")
    found = [
        [Axis(size, "its order is read") if dim in dims else axes[dim] for dim, size in enumerate(shape)]
        for shape in call.shapes
    ]
    return found[0] if len(found) == 1 else tuple(found)


@rule("tril", "triu")
def _triangle(call: TracedCall) -> Axes:
    freeze_all(call.first[-2:], "its order is read")
    return list(call.first)
