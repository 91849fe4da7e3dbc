"""What operations that move, join and take apart axes do to them."""

from __future__ import annotations

from typing import Any

from workbench.connectivity.axes import Axis, concatenation, cut, freeze, product, unify, view
from workbench.connectivity.rules.call import (
    LOOKED_UP,
    Axes,
    TracedCall,
    aligned,
    freeze_all,
    freeze_order,
    fresh,
    is_axes,
    places,
    reduced,
    rule,
)


@rule("view", "reshape", "flatten", "unflatten", "_unsafe_view", "view_as", "reshape_as", "ravel")
def _reshape(call: TracedCall) -> Axes:
    return view(call.first, call.shapes[0])


@rule("squeeze", "unsqueeze")
def _units(call: TracedCall) -> Axes:
    long = [axis for axis in call.first if axis.size != 1]
    return [Axis(1) if size == 1 else long.pop(0) for size in call.shapes[0]]


@rule("transpose", "swapaxes", "swapdims")
def _transpose(call: TracedCall) -> Axes:
    axes = list(call.first)
    a, b = (call.get(*names) % len(axes) for names in (("dim0", "axis0"), ("dim1", "axis1")))
    axes[a], axes[b] = axes[b], axes[a]
    return axes


@rule("t", "numpy_T", "mT", "adjoint", "mH")
def _turned(call: TracedCall) -> Axes:
    axes = call.first
    return axes[::-1] if call.name in ("t", "numpy_T") else [*axes[:-2], axes[-1], axes[-2]]


@rule("permute")
def _permute(call: TracedCall) -> Axes:
    return [call.first[dim] for dim in call["dims"]]


@rule("movedim", "moveaxis")
def _movedim(call: TracedCall) -> Axes:
    axes = call.first
    source, target = (places(call[name], len(axes)) for name in ("source", "destination"))
    rest = [dim for dim in range(len(axes)) if dim not in source]
    order = dict(zip(target, source, strict=True))
    return [axes[order[dim]] if dim in order else axes[rest.pop(0)] for dim in range(len(axes))]


@rule("expand", "expand_as", "broadcast_to")
def _expand(call: TracedCall) -> Axes:
    axes, shape = call.first, call.shapes[0]
    axes = [*fresh([1] * (len(shape) - len(axes))), *axes]
    return [axis if axis.size == size else Axis(size) for axis, size in zip(axes, shape, strict=True)]


@rule("broadcast_tensors")
def _broadcast(call: TracedCall) -> tuple[Axes, ...]:
    aligned(*call.tensors())
    found = []
    for axes, shape in zip(call.tensors(), call.shapes, strict=True):
        padded = [*fresh([1] * (len(shape) - len(axes))), *axes]
        found.append([a if a.size == size else Axis(size) for a, size in zip(padded, shape, strict=True)])
    return tuple(found)


@rule("repeat", "tile")
def _repeat(call: TracedCall) -> Axes:
    shape = call.shapes[0]
    axes = [*fresh([1] * (len(shape) - len(call.first))), *call.first]
    return [
        axis if axis.size == size else product([Axis(size // axis.size), axis])
        for axis, size in zip(axes, shape, strict=True)
    ]


@rule("repeat_interleave")
def _repeat_interleave(call: TracedCall) -> Axes:
    if len(call.tensors()) > 1 or call.get("dim") is None:
        raise NotImplementedError("repeat_interleave with a tensor of repeats or without a dimension")
    axes = list(call.first)
    dim = call["dim"] % len(axes)
    axes[dim] = product([axes[dim], Axis(int(call["repeats"]))])
    return axes


@rule("cat", "concat", "concatenate")
def _cat(call: TracedCall) -> Axes:
    tensors = [axes for axes in call["tensors"] if not (len(axes) == 1 and axes[0].size == 0)]
    dim = call["dim"] % len(tensors[0])
    for place in range(len(tensors[0])):
        for axes in tensors[1:]:
            if place != dim:
                unify(tensors[0][place], axes[place])
    found = list(tensors[0])
    found[dim] = concatenation(axes[dim] for axes in tensors)
    return found


@rule("stack")
def _stack(call: TracedCall) -> Axes:
    tensors = call["tensors"]
    axes = list(aligned(*tensors))
    axes.insert(call["dim"] % (len(axes) + 1), Axis(len(tensors), "stacked tensors"))
    return axes


@rule("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_split", "unsafe_chunk", "hsplit")
def _split(call: TracedCall) -> tuple[Axes, ...]:
    axes = call.first
    dim = (call.get("dim") or 0) % len(axes)
    pieces = cut(axes[dim], [shape[dim] for shape in call.shapes])
    return tuple([*axes[:dim], piece, *axes[dim + 1 :]] for piece in pieces)


@rule("slice", "narrow")
def _slice(call: TracedCall) -> Axes:
    axes = list(call.first)
    dim = (call.get("dim") or 0) % len(axes)
    size, taken = axes[dim].size, call.shapes[0][dim]
    start = int(call.get("start") or 0)
    start = min(start + size if start < 0 else start, size)
    step = int(call.get("step") or 1)
    if step != 1 and size % step == 0 and start < step:  # one place of every row of `step`
        outer, inner = view([axes[dim]], [size // step, step])
        freeze_order(call, [*axes[:dim], outer, inner, *axes[dim + 1 :]], [dim + 1], "taken in steps")
        axes[dim] = outer
    elif step != 1:
        freeze_order(call, axes, [dim], "taken in steps")
        axes[dim] = Axis(taken, "taken in steps")
    elif taken != size:
        sizes = [start, taken, size - start - taken]
        pieces = iter(cut(axes[dim], [length for length in sizes if length]))
        axes[dim] = [next(pieces) if length else Axis(0) for length in sizes][1]
    return axes


@rule("select")
def _select(call: TracedCall) -> Axes:
    axes = call.first
    dim = call["dim"] % len(axes)
    return _taken(axes, dim, int(call["index"]) % axes[dim].size)


@rule("unbind")
def _unbind(call: TracedCall) -> tuple[Axes, ...]:
    axes = call.first
    dim = (call.get("dim") or 0) % len(axes)
    freeze(axes[dim], "its positions are taken one by one")
    return tuple(_taken(axes, dim, position) for position in range(axes[dim].size))


def _taken(axes: Axes, dim: int, position: int) -> Axes:
    """The axes at one position of one of them; what lies inside it may differ from position to position."""
    outer = axes[dim]
    rest = [*axes[:dim], *axes[dim + 1 :]]
    if outer.size == 1:
        return rest
    if all(leaf.frozen or leaf.size == 1 for leaf in outer.leaves()):
        pass
    elif outer.root.kind != "product" and not any(leaf.outer for axis in rest for leaf in axis.leaves()):
        cut(outer, [size for size in (position, 1, outer.size - position - 1) if size])
    else:
        freeze(outer, "its positions are taken one by one")
    return [axis.member(outer, position) for axis in rest]


@rule("index_select")
def _index_select(call: TracedCall) -> Axes:
    axes = list(call.first)
    dim = call["dim"] % len(axes)
    freeze_order(call, axes, [dim], LOOKED_UP)
    axes[dim] = call["index"][0] if call["index"] else Axis(1)
    return axes


@rule("index")
def _index(call: TracedCall) -> Axes:
    axes, indices = call.first, list(call["indices"])
    indices += [None] * (len(axes) - len(indices))
    used = [dim for dim, index in enumerate(indices) if index is not None]
    freeze_order(call, axes, used, LOOKED_UP)
    for dim in used:
        freeze_all(indices[dim], LOOKED_UP)
    rank = len(call.shapes[0]) - (len(axes) - len(used))
    together = used == list(range(used[0], used[-1] + 1))
    start = used[0] if together else 0
    rest = [axis for dim, axis in enumerate(axes) if dim not in used]
    found = fresh(call.shapes[0][start : start + rank], LOOKED_UP)
    return [*rest[:start], *found, *rest[start:]]


@rule("gather", "take_along_dim")
def _gather(call: TracedCall) -> Axes:
    axes, index = call.first, call.get("index", "indices")
    dim = call["dim"] % len(axes)
    moved = [place for place, axis in enumerate(axes) if place == dim or axis.size != index[place].size]
    for tensor in (axes, index):
        freeze_order(call, tensor, moved, LOOKED_UP)
    aligned(reduced(axes, moved, keep=False), reduced(index, moved, keep=False))
    return [Axis(axis.size, LOOKED_UP) if place in moved else axis for place, axis in enumerate(index)]


@rule("index_add", "index_copy")
def _index_add(call: TracedCall) -> Axes:
    axes, source = call["self"], call["source"]
    dim = call["dim"] % len(axes)
    for tensor in (axes, source):
        freeze_order(call, tensor, [dim], LOOKED_UP)
    freeze_all(call["index"], LOOKED_UP)
    aligned(reduced(axes, [dim], keep=False), reduced(source, [dim], keep=False))
    return list(axes)


@rule("scatter", "scatter_add", "scatter_reduce")
def _scatter(call: TracedCall) -> Axes:
    tensors = call.tensors()
    dim = call["dim"] % len(tensors[0])
    moved = [place for place, sizes in enumerate(zip(*tensors, strict=True)) if len({a.size for a in sizes}) > 1]
    for tensor in tensors:
        freeze_order(call, tensor, {dim, *moved}, LOOKED_UP)
    aligned(*(reduced(tensor, {dim, *moved}, keep=False) for tensor in tensors))
    return list(tensors[0])


@rule("one_hot")
def _one_hot(call: TracedCall) -> Axes:
    return [*call.first, Axis(call.shapes[0][-1], LOOKED_UP)]


@rule("constant_pad_nd", "pad")
def _pad(call: TracedCall) -> Axes:
    """Padding with one number is a concatenation; with mirrored or repeated positions it reads their order."""
    axes, pads = list(call.first), [int(pad) for pad in call["pad"]]
    constant = call.get("mode") in (None, "constant")
    for place in range(len(pads) // 2):
        before, after = pads[2 * place : 2 * place + 2]
        dim = len(axes) - 1 - place
        if before == after == 0:
            continue
        if not constant or min(before, after) < 0:
            freeze_order(call, axes, [dim], "padded by its own positions, or cropped")
            axes[dim] = Axis(call.shapes[0][dim], "padded by its own positions, or cropped")
        else:
            axes[dim] = concatenation([Axis(before), axes[dim], Axis(after)])
    return axes


@rule("reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d")
def _mirror(call: TracedCall) -> Axes:
    axes, why = call.first, "padded by its own positions, or cropped"
    dims = [dim for dim, size in enumerate(call.shapes[0]) if axes[dim].size != size]
    freeze_order(call, axes, dims, why)
    return [Axis(size, why) if dim in dims else axes[dim] for dim, size in enumerate(call.shapes[0])]


@rule("meshgrid")
def _meshgrid(call: TracedCall) -> Any:
    axes = [tensor[0] if is_axes(tensor) and tensor else Axis(1) for tensor in call["tensors"]]
    if call.get("indexing") == "xy":
        axes[:2] = axes[1::-1]
    return tuple(list(axes) for _ in call.shapes)
