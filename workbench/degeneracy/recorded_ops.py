"""What a segment does to a layer's output: the operators of torch that touch it, in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._pytree import tree_leaves

from workbench.runtime.chain import Cut
from workbench.runtime.passing import Listening

COPIES = {"clone", "detach", "alias", "lift_fresh", "_to_copy"}  # every element stays where it is
RESHAPES = {"view", "_unsafe_view", "_reshape_alias"}
MOVES = {"t", "transpose", "permute", "unsqueeze", "squeeze", "expand", "slice", "select"}
BATCH_NORMS = {"native_batch_norm", "cudnn_batch_norm"}  # with the argument `training`
AFFINE = {"add", "sub", "rsub", "mul", "div", "neg", "masked_fill", "_native_batch_norm_legit_no_training"}
AFFINE |= BATCH_NORMS
CURVED = {
    *("relu", "leaky_relu", "_prelu_kernel", "elu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid"),
    *("hardtanh", "softplus", "softshrink", "hardshrink", "threshold", "log_sigmoid_forward", "sigmoid", "tanh"),
    *("clamp", "clamp_min", "clamp_max", "maximum", "minimum", "pow", "square", "sqrt", "rsqrt", "reciprocal", "abs"),
    *("exp", "exp2", "expm1", "log", "log1p", "log2", "sin", "cos", "atan", "sinh", "cosh", "asinh", "erf"),
}


class Step(NamedTuple):
    """An operator with everything but the tensor that came from the source."""

    operator: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    place: int

    def __call__(self, value: Tensor) -> Tensor:
        """The operator's first result for another tensor."""
        result = self.operator(*self.args[: self.place], value, *self.args[self.place + 1 :], **self.kwargs)
        return result if isinstance(result, Tensor) else result[0]


class Tap(NamedTuple):
    """A matrix and the pairs of rows that it joins: `output[written] += input[read] @ weight.T`; None is every row."""

    weight: Tensor
    read: Tensor | None
    written: Tensor | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear:
    """A linear map: what its input is made of, the input's elements as rows, and its taps."""

    before: Trace
    inputs: Int[Tensor, "rows cols"]
    taps: tuple[Tap, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """How a tensor comes from the source: a linear map or none, then functions of elements, which only change places.

    Attributes:
        base: the linear map's output, or the source's where there is none; no operation in place reaches it.
        axis: the axis of the features in the base.
        ids: the element of the base, counted with features last, that each element is a function of.
        steps: what is done to the base.
        names: those steps that change values.
        affine: whether each of them is a factor and a shift.
        linear: the linear map.
    """

    base: Tensor
    axis: int
    ids: Tensor
    steps: tuple[Step, ...] = ()
    names: tuple[str, ...] = ()
    affine: bool = True
    linear: Linear | None = None

    @property
    def width(self) -> int:
        """Features of the base."""
        return self.base.shape[self.axis]

    def slopes(self) -> Float[Tensor, "rows width"] | None:
        """The derivative of each element by that of the base it is a function of; None where nothing changes values."""
        if not self.names:
            return None
        with torch.enable_grad():
            leaf = self.base.detach().requires_grad_()
            value = leaf.clone()  # what the steps may change in place
            for step in self.steps:
                value = step(value)
            (slopes,) = torch.autograd.grad(value.sum(), leaf)
        return slopes.movedim(self.axis, -1).reshape(-1, self.width)


class Recorder(Listening):
    """While it is on, follows what becomes of the tensor that `begin` is given.

    A tensor made of the source's output by anything else than one linear map and functions of elements is kept with
    the reason, which counts only if the tensor that is asked for depends on it.
    """

    def __init__(self, source: Cut) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.source = source
        self._known: dict[int, Trace | str] = {}
        self._alive: list[Tensor] = []  # so that neither an id nor an address is given to another tensor
        self._addresses: set[int] = set()

    def begin(self, output: Tensor) -> Tensor:
        """A copy of the source's output, followed from here on."""
        base = output.detach().clone()
        self._keep(base, Trace(base=base, axis=self.source.axis, ids=numbered(base, self.source.axis)))
        return base

    def trace(self, output: Tensor) -> Trace | str:
        """How the tensor comes from the source, or why that cannot be told."""
        return self._of(output) or "it does not come from the source by operators that can be seen"

    def _keep(self, tensor: Tensor, trace: Trace | str) -> None:
        self._alive.append(tensor)
        self._known[id(tensor)] = trace
        self._addresses.add(_address(tensor))

    def _of(self, tensor: Tensor) -> Trace | str | None:
        if id(tensor) in self._known:
            return self._known[id(tensor)]
        return "memory of the source's output is used in another way" if _address(tensor) in self._addresses else None

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the operator; what it makes of a tensor that is followed is followed, too."""
        kwargs = kwargs or {}
        touched = [tensor for tensor in _tensors((args, kwargs)) if self._of(tensor) is not None] if self._alive else []
        result = func(*args, **kwargs)
        if not touched:
            return result
        new = self._of(touched[0])
        written = list(_written(func, args, kwargs))
        if isinstance(new, Trace):
            alone = len(touched) == 1 and all(tensor is touched[0] for tensor in written)
            new = _continued(func, args, kwargs, touched[0], new, result) if alone else f"{func} joins several tensors"
        for tensor in written:
            for other in self._alive:
                if _address(other) == _address(tensor):
                    self._known[id(other)] = f"{func} changes it in place"
            self._keep(tensor, f"{func} changes it in place")
        for number, tensor in enumerate(_tensors(result)):
            self._keep(tensor, new if number == 0 and new is not None else f"a further result of {func}")
        return result


def numbered(tensor: Tensor, axis: int) -> Tensor:
    """The number of each element, counted with the features last."""
    shape = tensor.movedim(axis, -1).shape
    return torch.arange(tensor.numel(), device=tensor.device).view(shape).movedim(-1, axis)


def _address(tensor: Tensor) -> int:
    """Where its memory is; −1, which is no address, for layouts that have several or none."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided and not tensor.is_nested else -1


def _tensors(tree: Any) -> Iterator[Tensor]:
    yield from (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.numel())


def _written(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors that an operator changes."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from _tensors(args[place] if place < len(args) else kwargs.get(argument.name))


def _continued(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], tensor: Tensor, trace: Trace, result: Any
) -> Trace | str:
    """What one operator makes of a tensor, where it is a change of place, a function of elements or a linear map."""
    out = next(_tensors(result), None)
    place = next((place for place, given in enumerate(args) if given is tensor), None)
    name = func._schema.name.removeprefix("aten::")
    reason = f"{func} is neither linear with constant weights nor a function of elements"
    if place is None or out is None or out.dtype != tensor.dtype:
        return reason
    step = Step(func, (*args[:place], None, *args[place + 1 :]), kwargs, place)
    if name in COPIES:
        return trace if name == "detach" else replace(trace, steps=(*trace.steps, step))
    if name in RESHAPES | MOVES:
        if out.numel() != tensor.numel():
            return f"{func} leaves elements out or repeats them"
        ids = trace.ids.reshape(out.shape) if name in RESHAPES else func(trace.ids, *args[1:], **kwargs)
        return replace(trace, ids=ids, steps=(*trace.steps, step))
    value = name.rstrip("_")
    if value in AFFINE | CURVED and out.shape == tensor.shape:
        if value in BATCH_NORMS and (place or args[5]):
            return f"{func} takes its statistics from the batch"
        affine = trace.affine and value in AFFINE and not (value == "div" and place)
        return replace(trace, steps=(*trace.steps, step), names=(*trace.names, value), affine=affine)
    found = _linear(name, args, kwargs, place, trace.ids, out)
    if found is None:
        return reason
    inputs, axis, taps = found
    linear = _merged(trace, inputs, taps)
    if linear is None:
        return f"{func} is a second linear map, with something between"
    return Trace(base=out.clone(), axis=axis, ids=numbered(out, axis), linear=linear)


def _merged(trace: Trace, inputs: Tensor, taps: tuple[Tap, ...]) -> Linear | None:
    """A linear map of a trace; two with nothing between are one, where each row is read and written by one tap."""
    first = trace.linear
    if first is None:
        return Linear(before=trace, inputs=inputs, taps=taps)
    plain = inputs.shape[1] == trace.width and in_order(inputs)
    if trace.names or not plain:
        return None
    if [one[1:] for one in first.taps] == [(None, None)]:
        joined = tuple(Tap(tap.weight @ first.taps[0].weight, tap.read, tap.written) for tap in taps)
    elif [one[1:] for one in taps] == [(None, None)]:
        joined = tuple(Tap(taps[0].weight @ tap.weight, tap.read, tap.written) for tap in first.taps)
    else:
        return None
    return replace(first, taps=joined)


def in_order(ids: Tensor) -> bool:
    """Whether ids are 0, 1, 2, … row by row."""
    return torch.equal(ids.reshape(-1), torch.arange(ids.numel(), device=ids.device))


def _linear(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], place: int, ids: Tensor, out: Tensor
) -> tuple[Tensor, int, tuple[Tap, ...]] | None:
    """The ids of the inputs as rows, the axis of the outputs' features, and the taps of a linear operator."""
    if name == "convolution" and place == 0 and not args[6]:
        return ids.movedim(1, -1).reshape(-1, ids.shape[1]), 1, _convolution(ids, out, args)
    if name == "linear" and place == 0:
        return ids.reshape(-1, ids.shape[-1]), -1, (Tap(args[1].double(), None, None),)
    begin = 1 if name == "addmm" else 0
    if name not in ("mm", "bmm", "addmm") or place < begin:
        return None
    other = args[begin + 1 - (place - begin)]
    if name == "bmm":
        if other.stride(0) and not torch.equal(other, other[:1].expand_as(other)):
            return None
        other = other[0]
    weight = kwargs.get("alpha", 1) * other.double()
    if place == begin:
        return ids.reshape(-1, ids.shape[-1]), -1, (Tap(weight.T, None, None),)
    return ids.mT.reshape(-1, ids.shape[-2]), out.ndim - 2, (Tap(weight, None, None),)


def _convolution(ids: Tensor, out: Tensor, args: tuple[Any, ...]) -> tuple[Tap, ...]:
    """A tap for each place of the kernel, with the positions inside the input."""
    weight, groups = args[1].double(), args[8]
    sizes = ids.shape[2:]
    stride, padding, dilation = ([*given] * (len(sizes) if len(given) == 1 else 1) for given in args[3:6])
    grid = torch.arange(len(ids) * sizes.numel(), device=ids.device).view(len(ids), *sizes)
    around = [width for width in reversed(padding) for _ in range(2)]
    padded = torch.nn.functional.pad(grid, around, value=-1)
    taps = []
    for offset in product(*map(range, weight.shape[2:])):
        steps = zip(offset, stride, dilation, out.shape[2:], strict=True)
        window = [slice(at * apart, at * apart + by * (count - 1) + 1, by) for at, by, apart, count in steps]
        read = padded[(slice(None), *window)].reshape(-1)
        kernel = weight[(slice(None), slice(None), *offset)]
        kernel = torch.block_diag(*kernel.chunk(groups)) if groups > 1 else kernel  # type: ignore[no-untyped-call]
        written = (read >= 0).nonzero().flatten()
        if len(written) == len(read):
            taps.append(Tap(kernel, None if torch.equal(read, grid.reshape(-1)) else read, None))
        else:
            taps.append(Tap(kernel, read[written], written))
    return tuple(taps)
