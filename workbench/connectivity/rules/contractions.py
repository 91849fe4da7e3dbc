"""Operations that sum over paired axes: products of matrices, attention, recurrent layers."""

from __future__ import annotations

from workbench.connectivity.axes import Axis, concatenation, cut, freeze, product, unify, view
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


@rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def _recurrent(call: TracedCall) -> tuple[Axes, ...]:
    """Layers of 4, 3 or 1 gates whose units are one set; packed sequences and projections are not known."""
    gates = {"lstm": 4, "gru": 3}.get(call.name, 1)
    inputs, weights = call["input"], list(call["params"])
    directions, biases = 1 + bool(call["bidirectional"]), 2 * bool(call["has_biases"])
    states = call["hx"] if call.name == "lstm" else [call["hx"]]
    width = weights[1][1].size
    if weights[1][0].size != gates * width or len(weights) % (2 + biases):
        raise NotImplementedError("an LSTM with projections")
    below, finals = inputs[-1], []
    for layer in range(int(call["num_layers"])):
        units = []
        for direction in range(directions):
            start = (layer * directions + direction) * (2 + biases)
            read, carried, *more = weights[start : start + 2 + biases]
            unit = carried[1]
            unify(below, read[1])
            for rows in (read[0], carried[0], *(bias[0] for bias in more)):
                for piece in cut(rows, [width] * gates):
                    unify(piece, unit)
            for state in states:
                unify(state[-1], unit)
            units.append(unit)
        below = concatenation(units)
        finals += units
    for unit in finals[1:]:
        unify(finals[0], unit)  # the last states are one tensor with an axis of layers
    last = [*states[0][:-1], finals[0]]
    return ([*inputs[:-1], below], *(list(last) for _ in states))
