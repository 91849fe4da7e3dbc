"""Operations that work element by element, and tensors made from nothing."""

from __future__ import annotations

from typing import Any

from workbench.connectivity.axes import Axis, cut, freeze, unify
from workbench.connectivity.rules.call import (
    Axes,
    TracedCall,
    aligned,
    fresh,
    places,
    reduced,
    rule,
)

POINTWISE = """
abs acos add addcdiv addcmul alias alpha_dropout asin atan atan2 bitwise_and bitwise_not bitwise_or bitwise_xor ceil
celu clamp clamp_max clamp_min clip clone contiguous copy copysign cos cosh detach div divide dropout elu eq erf erfc
exp exp2 expm1 feature_dropout fill float_power floor floor_divide fmax fmin fmod ge gelu greater gt hardshrink
hardsigmoid hardswish hardtanh heaviside hypot imag isfinite isinf isnan le leaky_relu lerp less lift_fresh
lift_fresh_copy log log10 log1p log2 log_sigmoid logaddexp logical_and logical_not logical_or logical_xor lt masked_fill
maximum minimum mish mul multiply nan_to_num native_dropout ne neg negative polar positive pow prelu reciprocal real
relu relu6 remainder resolve_conj resolve_neg round rrelu rsqrt rsub selu sgn sigmoid sign silu sin sinh softplus
softshrink softsign special_erf special_expit sqrt square sub subtract tan tanh tanhshrink threshold to to_copy
true_divide trunc type_as where xlogy zero __and__ __lshift__ __or__ __rshift__ __xor__ _conj _to_copy
""".split()


@rule(*POINTWISE)
def _pointwise(call: TracedCall) -> Any:
    if call.name in ("to", "type_as"):
        return list(call.first)
    if call.name == "prelu":
        inputs, slopes = call.tensors()
        if slopes[0].size > 1:
            unify(inputs[1], slopes[0])
        return list(inputs)
    found = aligned(*call.tensors())
    return found if len(call.shapes) == 1 else (found, *(list(found) for _ in call.shapes[1:]))


@rule("_weight_norm", "_weight_norm_interface")
def _weight_norm(call: TracedCall) -> Any:
    direction, length = call["v"], call["g"]
    found = aligned(direction, length)
    return found if len(call.shapes) == 1 else (found, list(length))


@rule("view_as_complex")
def _as_complex(call: TracedCall) -> Axes:
    freeze(call.first[-1], "real and imaginary part")
    return call.first[:-1]


@rule("view_as_real")
def _as_real(call: TracedCall) -> Axes:
    return [*call.first, Axis(2, "real and imaginary part")]


@rule("glu")
def _glu(call: TracedCall) -> Axes:
    axes = list(call.first)
    dim = call["dim"] % len(axes)
    a, b = cut(axes[dim], [axes[dim].size // 2] * 2)
    unify(a, b)
    axes[dim] = a
    return axes


@rule("cosine_similarity", "pairwise_distance")
def _similarity(call: TracedCall) -> Axes:
    axes = aligned(*call.tensors())
    return reduced(axes, places(call.get("dim") if call.get("dim") is not None else -1, len(axes)), False)


@rule("zeros", "ones", "full", "empty", "scalar_tensor", "new_zeros", "new_ones", "new_full", "new_empty")
def _uniform(call: TracedCall) -> Axes:
    return fresh(call.shapes[0])


@rule("zeros_like", "ones_like", "full_like", "empty_like")
def _uniform_like(call: TracedCall) -> Axes:
    return fresh(call.shapes[0])


@rule("arange", "linspace", "eye", "tril_indices", "triu_indices", "logspace", "hann_window")
def _enumerated(call: TracedCall) -> Axes:
    return fresh(call.shapes[0], f"numbered by {call.name}")
