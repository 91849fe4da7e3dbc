"""Layers that autograd's graph shows something to get around, in one pass and without a number."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import ArgumentError
from workbench.runtime.batches import first_tensor, with_first_tensor
from workbench.runtime.borrowing import unfused
from workbench.runtime.marks import tensors
from workbench.runtime.passing import Call, fresh


class _Unknown(Exception):  # noqa: N818 - says that the graph does not show where something comes from
    """A layer's output varies, and the graph does not show with what."""


def bypassed(
    module: nn.Module, parts: Mapping[str, nn.Module], call: Call, other: Call, varying: Collection[str]
) -> frozenset[str]:
    """The paths around which the graph has a way from an input that varies to the module's output.

    A layer is on every way exactly if (ways from the output to it)·(ways from it to the inputs) = all ways. What the
    graph does not show (indices, `detach`) may get around the others, so they are still to be tested; none is named
    where an output varies that the graph derives from nothing.

    Args:
        module: the network, lent.
        parts: path → submodule, the empty path for the module itself.
        call: what it is called with.
        other: another input.
        varying: paths whose outputs are different for it.

    Cost: one forward pass that keeps nothing for a backward one.
    """
    if any(parameter.requires_grad for parameter in module.parameters()):
        return frozenset()  # their own leaves would hide those of the tokens that they embed
    call = fresh(call)
    sources: list[Tensor] = []
    nodes: dict[str, Any] = {}
    seen: set[str] = set()
    tokens = {part.untyped_storage().data_ptr() for part in tensors(call) if not part.is_floating_point()}

    def leaf(value: Tensor) -> Tensor:
        sources.append(value.detach().clone().requires_grad_())
        return sources[-1].clone()

    def heard(path: str, given: tuple[Any, ...], output: Any) -> Any:
        try:
            tensor = first_tensor(output)
        except ArgumentError:
            return None
        if tensor.requires_grad:
            new = tensor.clone()
        elif path in varying and tensor.is_floating_point():
            known = [part for part in given if isinstance(part, Tensor)]
            if not known or not all(part.untyped_storage().data_ptr() in tokens for part in known):
                raise _Unknown
            new = leaf(tensor)
        else:
            return None
        if path in seen:
            nodes.pop(path, None)  # it runs several times
        else:
            nodes[path] = new.grad_fn
        seen.add(path)
        return with_first_tensor(output, new)

    def moving(value: Any, changed: Any) -> Any:
        varies = isinstance(value, Tensor) and value.is_floating_point() and not torch.equal(value, changed)
        return leaf(value) if varies else value

    try:
        with torch.enable_grad(), _listening(parts, heard), torch.autograd.graph.saved_tensors_hooks(_gone, _gone):
            named = {name: moving(value, other[1][name]) for name, value in call[1].items()}
            module(*map(moving, call[0], other[0]), **named)
    except Exception:  # the module cannot run with gradients (it asks for .numpy(), say): nothing is known
        return frozenset()
    return _avoidable(nodes, {id(source) for source in sources})


def _gone(_: object) -> Tensor:
    """In place of what a backward pass would need: there is none."""
    return torch.empty(0)


@contextmanager
def _listening(parts: Mapping[str, nn.Module], heard: Callable[[str, tuple[Any, ...], Any], Any]) -> Iterator[None]:
    """Each output is what `heard` makes of it, None to leave it."""

    def hook(path: str) -> Any:
        return lambda _, given, named, output: heard(path, (*given, *named.values()), output)

    handles = []
    try:
        for path, part in parts.items():
            handles.append(part.register_forward_hook(hook(path), with_kwargs=True))
        with unfused():
            yield
    finally:
        for handle in handles:
            handle.remove()


def _avoidable(nodes: Mapping[str, Any], sources: Collection[int]) -> frozenset[str]:
    """The paths whose node is on some ways from the module's output to a source, and not on all."""
    if nodes.get("") is None:
        return frozenset()
    order = _sorted(nodes[""])
    down = dict.fromkeys(order, 0)
    down[nodes[""]] = 1
    for node in order:
        for following, _ in node.next_functions:
            if following is not None:
                down[following] += down[node]
    up: dict[Any, int] = {}
    for node in reversed(order):
        own = int(hasattr(node, "variable") and id(node.variable) in sources)
        up[node] = own + sum(up[following] for following, _ in node.next_functions if following is not None)
    ways = up[nodes[""]]
    through = {path: down.get(node, 0) * up.get(node, 0) for path, node in nodes.items()}
    return frozenset(path for path, count in through.items() if 0 < count < ways)


def _sorted(root: Any) -> list[Any]:
    """The nodes of the graph, each before those that it follows from."""
    done: dict[Any, None] = {}
    stack = [(root, iter(root.next_functions))]
    entered = {root}
    while stack:
        node, rest = stack[-1]
        following = next((one for one, _ in rest if one is not None and one not in entered), None)
        if following is None:
            done[node] = None
            stack.pop()
        else:
            entered.add(following)
            stack.append((following, iter(following.next_functions)))
    return list(done)[::-1]
