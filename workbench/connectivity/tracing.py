"""A module's computation as torch.export sees it, walked once to learn which axes belong together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from workbench.connectivity.axes import Axis, freeze, unify
from workbench.connectivity.exporting import exported, output_names
from workbench.connectivity.rules import RULES, Axes, AxesOf, TracedCall, is_axes
from workbench.errors import ArgumentError
from workbench.runtime.borrowing import check_module, name_of

IGNORED = ("_assert", "sym_", "_guards", "assert_")


@dataclass(kw_only=True)
class Trace:
    """What the walk found.

    Attributes:
        tensors: name of a parameter or buffer → its axes; tied names share theirs.
        seen: the axes of every tensor of the computation, shown or implied: what is used jointly.
        unknown: operations without a rule, whose axes were frozen: name → reason and number of calls.
        roles: what axes are called where they are used.
        tied: further name of a tensor → its first.
        buffers: names that are no parameters.
        unread: names on which the outputs do not depend.
        epsilon: the coarsest floating-point precision that it goes through.
    """

    tensors: dict[str, Axes] = field(default_factory=dict)
    seen: list[Axes] = field(default_factory=list)
    unknown: dict[str, list[Any]] = field(default_factory=dict)
    roles: list[tuple[str, Axis]] = field(default_factory=list)
    tied: dict[str, str] = field(default_factory=dict)
    buffers: set[str] = field(default_factory=set)
    unread: set[str] = field(default_factory=set)
    epsilon: float = 0.0


def traced(module: nn.Module, inputs: Any, outputs: Sequence[str | int] | None = None) -> Trace:
    """The axes of a module's tensors, unified by its computation on example inputs.

    Args:
        module: lent in evaluation mode, as before afterwards.
        inputs: a tensor, a tuple of positional arguments or a dict of named ones.
        outputs: names or positions of the outputs whose order matters; None for all of them.

    Raises:
        ArgumentError: torch.export cannot follow the module, or there is no such output, or its axes cannot be told.
    """
    check_module(module)
    program = exported(module, inputs, outputs)
    walk = _Walk(module)
    try:
        result = walk.run(program.graph, walk.sources(program))
    except RecursionError as error:  # seen with random algebra only, never with a network
        raise ArgumentError(
            f"the axes of {name_of(module)} lie inside one another in a way that cannot be resolved: pass an inner "
            "module, and report this one."
        ) from error
    for name, axes in zip(output_names(program), list(_flat(result)), strict=True):
        for axis in axes if is_axes(axes) else ():
            freeze(axis, f"output {name}".rstrip())
    return walk.trace


class _Walk:
    """One pass over an exported graph."""

    def __init__(self, module: nn.Module) -> None:
        self.trace = Trace()
        self.owners: dict[int, str] = {}
        tied = {
            **dict(module.named_parameters(remove_duplicate=False)),
            **dict(module.named_buffers(remove_duplicate=False)),
        }
        self.identity = {name: id(tensor) for name, tensor in tied.items()}

    def sources(self, program: Any) -> dict[str, Any]:
        """Placeholder → axes of what is fed into it."""
        from torch.export.graph_signature import InputKind

        found: dict[str, Any] = {}
        read: set[str] = set()
        metas = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
        live = {node.name for node in _live(program.graph)}
        for spec in program.graph_signature.input_specs:
            name = getattr(spec.arg, "name", None)
            value = metas.get(name)
            if not isinstance(value, Tensor):
                continue
            frozen = None
            target = (spec.target or "").removeprefix("module.")
            if spec.kind == InputKind.USER_INPUT:
                frozen = f"input {name}"
            elif spec.kind == InputKind.CONSTANT_TENSOR:
                frozen = f"constant {target}"
            elif spec.kind == InputKind.BUFFER and not (spec.persistent and value.is_floating_point()):
                frozen = f"buffer {target} is no part of the checkpoint, or counts"
            axes = AxesOf(Axis(int(size), frozen) for size in value.shape)
            found[str(name)] = axes
            if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and (
                spec.kind == InputKind.PARAMETER or spec.persistent
            ):
                self._own(target, axes)
                if spec.kind == InputKind.BUFFER:
                    self.trace.buffers.add(target)
                if name in live:
                    read.add(self._owner(target))
        self.trace.unread = {name for name in self.trace.tensors if self._owner(name) not in read}
        return found

    def _owner(self, name: str) -> str:
        return self.trace.tied.get(name, name)

    def _own(self, name: str, axes: AxesOf) -> None:
        first = self.owners.setdefault(self.identity.get(name, id(axes)), name)
        if first != name:
            self.trace.tied[name] = first
            for axis, other in zip(axes, self.trace.tensors[first], strict=True):
                unify(axis, other)
        self.trace.tensors[name] = axes

    def run(self, graph: Any, values: dict[str, Any]) -> Any:
        """Walks a graph whose placeholders have the given axes; returns the axes of what it gives."""
        live = _live(graph)
        for node in (node for node in graph.nodes if node in live):
            value = node.meta.get("val")
            if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
                self.trace.epsilon = max(self.trace.epsilon, torch.finfo(value.dtype).eps)
            if node.op == "get_attr":
                attribute = self._attribute(graph, node.target)
                shape = tuple(attribute.shape) if isinstance(attribute, Tensor) else None
                frozen = f"constant {node.target}"
                values[node.name] = attribute if shape is None else AxesOf(Axis(size, frozen) for size in shape)
            elif node.op == "call_function":
                values[node.name] = self._call(node, values)
            elif node.op == "output":
                return _mapped(node.args[0], values)
        return None

    @staticmethod
    def _attribute(graph: Any, target: str) -> Any:
        found = graph.owning_module
        for part in target.split("."):
            found = getattr(found, part)
        return found

    def _call(self, node: Any, values: dict[str, Any]) -> Any:
        target = node.target
        arguments, named = _mapped(list(node.args), values), _mapped(dict(node.kwargs), values)
        if getattr(target, "__name__", "") == "getitem":
            return arguments[0][arguments[1]]
        name = str(getattr(target, "_opname", getattr(target, "__name__", target)))
        if "set_grad_enabled" in name or "autocast" in name:
            return self._inner(arguments)
        if name.startswith(IGNORED):
            return None
        shapes, single = _shapes_of(node.meta.get("val"))
        found = self._by_rule(node, name, arguments, named, shapes)
        if isinstance(found, str):
            found = self._unknown(name, found, (arguments, named), shapes)
        return found[0] if single and found else tuple(found)

    def _by_rule(
        self, node: Any, name: str, arguments: list[Any], named: dict[str, Any], shapes: list[tuple[int, ...]]
    ) -> list[AxesOf] | str:
        """The axes of each output, or why they cannot be told."""
        target = node.target
        if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
            return "it is no operation of ATen"
        base = name if name in RULES else name.rstrip("_")
        rule = RULES.get(base)
        if rule is None:
            return "there is no rule for it"
        bound = {argument.name: argument.default_value for argument in target._schema.arguments}
        call = TracedCall(
            base, bound | dict(zip(bound, arguments, strict=False)) | named, shapes, _used(node, len(shapes))
        )
        try:
            found = rule(call)
        except NotImplementedError as error:
            return f"there is no rule for {error}"
        except (KeyError, ValueError, IndexError, StopIteration, TypeError):
            return "it is called in a way that its rule does not know"
        outputs = [AxesOf(axes) for axes in found] if isinstance(found, tuple) else [AxesOf(found)]
        if [tuple(axis.size for axis in axes) for axes in outputs] != shapes:
            return "its rule gives other shapes"
        self.trace.seen += [*outputs, *call.within]
        self.trace.roles += call.roles
        return outputs

    def _inner(self, arguments: list[Any]) -> Any:
        place = next(i for i, value in enumerate(arguments) if isinstance(value, torch.fx.GraphModule))
        graph = arguments[place].graph
        names = [node.name for node in graph.nodes if node.op == "placeholder"]
        return self.run(graph, dict(zip(names, arguments[place + 1 :], strict=True)))

    def _unknown(self, name: str, reason: str, touched: Any, shapes: list[tuple[int, ...]]) -> list[AxesOf]:
        """Freezes all that an operation touches: safe, and told."""
        self.trace.unknown.setdefault(name, [reason, 0])[1] += 1
        for axes in _flat(touched):
            for axis in axes if is_axes(axes) else ():
                freeze(axis, f"touched by {name}, which is not known")
        outputs = [AxesOf(Axis(size, f"made by {name}, which is not known") for size in shape) for shape in shapes]
        self.trace.seen += outputs
        return outputs


def _live(graph: Any) -> set[Any]:
    """The nodes on which the outputs depend, and those that write into others."""
    waiting = [node for node in graph.nodes if node.op == "output" or _writes(node.target)]
    found: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


def _writes(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _shapes_of(value: Any) -> tuple[list[tuple[int, ...]], bool]:
    """The shapes of what a node gives, and whether it is a tensor of its own and no tuple."""
    if isinstance(value, Tensor):
        return [tuple(int(size) for size in value.shape)], True
    if isinstance(value, list | tuple):
        return [tuple(int(size) for size in item.shape) for item in value if isinstance(item, Tensor)], False
    return [], True


def _used(node: Any, count: int) -> list[bool]:
    """Which outputs of a node are read; all of them where that cannot be told."""
    if any(getattr(user.target, "__name__", "") != "getitem" for user in node.users):
        return [True] * count
    read = {user.args[1] for user in node.users if user.users}
    return [number in read for number in range(count)]


def _mapped(value: Any, values: Mapping[str, Any]) -> Any:
    """A node's arguments with axes for tensors."""
    if isinstance(value, torch.fx.Node):
        return values.get(value.name)
    if isinstance(value, list | tuple) and not isinstance(value, AxesOf):
        return [_mapped(item, values) for item in value]
    if isinstance(value, dict):
        return {key: _mapped(item, values) for key, item in value.items()}
    return value


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple) and not isinstance(value, AxesOf):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _flat(item)
    else:
        yield value
