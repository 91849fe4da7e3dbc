"""Convolutions, pooling and resampling."""

from __future__ import annotations

from typing import Any

from workbench.connectivity.axes import product, unify, view
from workbench.connectivity.rules.call import (
    Axes,
    TracedCall,
    freeze_all,
    freeze_order,
    fresh,
    rule,
)


@rule("conv1d", "conv2d", "conv3d")
def _convolution(call: TracedCall) -> Any:
    inputs, weight, bias, groups = call["input"], call["weight"], call["bias"], int(call["groups"])
    spatial = len(weight) - 2
    leading, channels = inputs[: -spatial - 1], inputs[-spatial - 1]
    freeze_all(weight[2:], "kernel positions")
    freeze_all(inputs[-spatial:], "image positions")
    if bias is not None:
        unify(weight[0], bias[0])
    if groups == 1:
        unify(channels, weight[1])
    else:
        group, within = view([channels], [groups, weight[1].size])
        block, _ = view([weight[0]], [groups, weight[0].size // groups])
        unify(group, block)
        unify(within, weight[1])
    call.within.append([*leading, *weight])
    return [*leading, weight[0], *fresh(call.shapes[0][-spatial:], "image positions")]


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed(call: TracedCall) -> Axes:
    inputs, weight, bias, groups = call["input"], call["weight"], call["bias"], int(call["groups"])
    spatial = len(weight) - 2
    leading, channels = inputs[: -spatial - 1], inputs[-spatial - 1]
    freeze_all(weight[2:], "kernel positions")
    freeze_all(inputs[-spatial:], "image positions")
    unify(channels, weight[0])
    outputs = weight[1]
    if groups > 1:
        outputs = product([view([channels], [groups, channels.size // groups])[0], weight[1]])
    if bias is not None:
        unify(outputs, bias[0])
    call.within.append([*leading, *weight])
    return [*leading, outputs, *fresh(call.shapes[0][-spatial:], "image positions")]


@rule(
    *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "lp_pool2d"),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_bilinear2d", "upsample_bicubic2d"),
    *("upsample_linear1d", "upsample_trilinear3d", "_upsample_bilinear2d_aa", "upsample_nearest_exact2d"),
    *("max_pool2d_with_indices", "max_pool1d_with_indices", "_adaptive_avg_pool2d", "_upsample_nearest_exact2d"),
)
def _pool(call: TracedCall) -> Any:
    axes = call.first
    spatial = next(int(digit) for digit in call.name if digit.isdigit())
    freeze_order(call, axes, range(len(axes) - spatial, len(axes)), "image positions")
    found = [[*axes[:-spatial], *fresh(shape[-spatial:], "image positions")] for shape in call.shapes]
    return found[0] if len(found) == 1 else tuple(found)


@rule("pixel_shuffle")
def _pixel_shuffle(call: TracedCall) -> Axes:
    axes, factor = call.first, int(call["upscale_factor"])
    channels, offsets = view([axes[-3]], [axes[-3].size // factor**2, factor**2])
    unshuffled = [*axes[:-3], channels, offsets, *axes[-2:]]
    freeze_order(call, unshuffled, range(len(axes) - 2, len(axes) + 1), "image positions")
    return [*axes[:-3], channels, *fresh(call.shapes[0][-2:], "image positions")]


@rule("pixel_unshuffle")
def _pixel_unshuffle(call: TracedCall) -> Axes:
    axes, factor = call.first, int(call["downscale_factor"])
    freeze_order(call, axes, [len(axes) - 2, len(axes) - 1], "image positions")
    positions = fresh([factor**2, *call.shapes[0][-2:]], "image positions")
    return [*axes[:-3], product([axes[-3], positions[0]]), *positions[1:]]


@rule("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(call: TracedCall) -> Axes:
    axes, groups = list(call.first), int(call["groups"])
    outer, inner = view([axes[1]], [groups, axes[1].size // groups])
    axes[1] = product([inner, outer])
    return axes


@rule("im2col")
def _patches(call: TracedCall) -> Axes:
    """Channels with the positions of a window, and the windows."""
    axes = call.first
    freeze_order(call, axes, [len(axes) - 2, len(axes) - 1], "image positions")
    offsets, windows = fresh([call.shapes[0][-2] // axes[-3].size, call.shapes[0][-1]], "image positions")
    return [*axes[:-3], product([axes[-3], offsets]), windows]
