"""Operations that sum over paired axes: products of matrices, attention."""

from __future__ import annotations

from workbench.connectivity.axes import Axis, freeze, product, unify, view
from workbench.connectivity.rules.call import (
    LOOKED_UP,
    Axes,
    TracedCall,
    aligned,
    freeze_all,
    rule,
)


def contracted(call: TracedCall, a: Axes, b: Axes) -> Axes:
    """Axes of torch.matmul: the last of `a` with the last but one of `b`, leading ones broadcast."""
    if len(a) == 1 or len(b) == 1:
        unify(a[-1], b[-2] if len(b) > 1 else b[-1])
        return [*a[:-1], *b[:-2], *b[-1:]] if len(b) > 1 else a[:-1]
    unify(a[-1], b[-2])
    leading = aligned(a[:-2], b[:-2])
    call.within.append([*leading, a[-2], a[-1], b[-1]])
    return [*leading, a[-2], b[-1]]


@rule("linear")
def _linear(call: TracedCall) -> Axes:
    inputs, weight, bias = call["input"], call["weight"], call["bias"]
    unify(inputs[-1], weight[-1])
    if bias is not None:
        unify(weight[0], bias[0])
    call.within.append([*inputs[:-1], *weight])
    return [*inputs[:-1], *weight[:-1]]


@rule("matmul", "mm", "bmm", "mv", "dot")
def _matmul(call: TracedCall) -> Axes:
    a, b = call.tensors()
    return contracted(call, a, b)


@rule("addmm", "baddbmm", "addmv", "addbmm")
def _addmm(call: TracedCall) -> Axes:
    bias, a, b = call.tensors()
    if call.name == "addbmm":
        unify(a[0], b[0])
        return aligned(bias, [a[1], b[2]])
    return aligned(bias, contracted(call, a, b))


@rule("vdot", "inner")
def _vdot(call: TracedCall) -> Axes:
    a, b = call.tensors()
    if len(a) != 1 or len(b) != 1:
        raise NotImplementedError(f"{call.name} of matrices")
    unify(a[0], b[0])
    return []


@rule("bilinear")
def _bilinear(call: TracedCall) -> Axes:
    a, b, weight, bias = call["input1"], call["input2"], call["weight"], call["bias"]
    unify(a[-1], weight[1])
    unify(b[-1], weight[2])
    if bias is not None:
        unify(weight[0], bias[0])
    leading = aligned(a[:-1], b[:-1])
    call.within.append([*leading, *weight])
    return [*leading, weight[0]]


@rule("cdist", "_cdist_forward")
def _distances(call: TracedCall) -> Axes:
    a, b = call.tensors()
    unify(a[-1], b[-1])
    return [*aligned(a[:-2], b[:-2]), a[-2], b[-2]]


@rule("outer", "ger")
def _outer(call: TracedCall) -> Axes:
    a, b = call.tensors()
    return [a[0], b[0]]


@rule("einsum")
def _einsum(call: TracedCall) -> Axes:
    left, arrow, right = call["equation"].replace(" ", "").partition("->")
    tensors = [axes for axes in call["tensors"]]
    letters: dict[str, Axis] = {}
    dots: list[Axes] = []
    for term, axes in zip(left.split(","), tensors, strict=True):
        before, ellipsis, after = term.partition("...")
        middle = len(axes) - len(before) - len(after)
        if ellipsis:
            dots.append(axes[len(before) : len(before) + middle])
        names = [*before, *after]
        values = [*axes[: len(before)], *axes[len(before) + middle :]]
        for letter, axis in zip(names, values, strict=True):
            known = letters.setdefault(letter, axis)
            if known.size == 1 and axis.size != 1:
                letters[letter] = axis
            elif axis.size != 1:
                unify(known, axis)
    shared = aligned(*dots) if dots else []
    call.within.append([*shared, *letters.values()])
    if not arrow:
        right = ("..." if dots else "") + "".join(sorted(x for x in letters if left.count(x) == 1))
    before, ellipsis, after = right.partition("...")
    return [*(letters[x] for x in before), *(shared if ellipsis else []), *(letters[x] for x in after)]


@rule("embedding")
def _embedding(call: TracedCall) -> Axes:
    weight, indices = call["weight"], call["indices"]
    freeze(weight[0], LOOKED_UP)
    return [*indices, *weight[1:]]


@rule("scaled_dot_product_attention")
def _attention(call: TracedCall) -> Axes:
    query, key, value = call["query"], call["key"], call["value"]
    if call.get("enable_gqa") and query[-3].size != key[-3].size:
        heads, repeats = view([query[-3]], [key[-3].size, query[-3].size // key[-3].size])
        unify(heads, key[-3])
        unify(heads, value[-3])
        leading = [*aligned(query[:-3], key[:-3], value[:-3]), product([heads, repeats])]
    else:
        leading = aligned(query[:-2], key[:-2], value[:-2])
    unify(query[-1], key[-1])
    unify(key[-2], value[-2])
    if call.get("is_causal"):
        freeze_all([query[-2], key[-2]], "causal order")
    if call.get("attn_mask") is not None:
        aligned([*leading, query[-2], key[-2]], call["attn_mask"])
    call.within += [[*leading, query[-2], key[-2]], [*leading, query[-2], query[-1]]]
    call.roles += [*(("heads", axis) for axis in leading), ("qk", query[-1]), ("v", value[-1])]
    return [*leading, query[-2], value[-1]]
