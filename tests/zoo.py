"""Networks whose symmetries are known by hand, and what a test of permutation groups does with them.

A case is a function that builds a module and its inputs; `ZOO` has them all once `zoo_images`, `zoo_attention` and
`zoo_order` are imported.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

from workbench.connectivity import PermutationGroups, Permutations
from workbench.connectivity.layout import Concatenation, Leaf, Node, Product
from workbench.connectivity.structure import Structure

Built: TypeAlias = tuple[nn.Module, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and what must be found.

    Attributes:
        build: gives the module and its inputs.
        groups: of each group that may be permuted: "6", or "4 in 2" for 4 units in each of 2.
        unknown: operations without a rule.
        dead: tensor[axis] whose order the function does not feel, such as the bias of the keys: it shifts all scores of
            a query alike, which a softmax does not see.
    """

    build: Callable[[], Built]
    groups: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()


ZOO: dict[str, Case] = {}


def case(*groups: str, unknown: tuple[str, ...] = (), dead: tuple[str, ...] = ()) -> Callable[..., Any]:
    """Puts a builder into the zoo."""

    def registered(build: Callable[[], Built]) -> Callable[[], Built]:
        ZOO[build.__name__] = Case(build=build, groups=groups, unknown=unknown, dead=dead)
        return build

    return registered


class Net(nn.Module):
    """A module from its parts and a function of itself and its inputs."""

    def __init__(self, compute: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.compute = compute
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the function gives."""
        return self.compute(self, *inputs, **named)


def weight(*shape: int) -> nn.Parameter:
    """A random parameter."""
    return nn.Parameter(torch.randn(*shape) / math.sqrt(shape[-1]))


def in_double(build: Callable[[], Built]) -> Built:
    """A case's module and inputs in float64, from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, inputs = build()
    cast = lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x  # noqa: E731
    return module.double(), pytree.tree_map(cast, inputs)


def described(groups: PermutationGroups) -> list[str]:
    """The groups as a case lists them, sorted."""
    it = groups.structure
    return sorted(f"{it.sizes[g]} in {it.sizes[it.within[g]]}" if g in it.within else f"{it.sizes[g]}" for g in it.free)


def random_weights(module: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Every float tensor random; vectors positive, for some are variances, and none constant."""
    draws = torch.Generator().manual_seed(seed)
    found: dict[int, Tensor] = {}
    for tensor in module.state_dict(keep_vars=True).values():
        size = tuple(tensor.shape)
        if tensor.is_floating_point():
            drawn = torch.rand(size, generator=draws).double() + 0.5
            drawn = drawn if tensor.ndim < 2 else torch.randn(size, generator=draws).double() / math.sqrt(size[-1])
            found[id(tensor)] = drawn.to(tensor.dtype)
        else:
            found[id(tensor)] = tensor
    return {name: found[id(tensor)] for name, tensor in module.state_dict(keep_vars=True).items()}


def function(module: nn.Module, inputs: Any) -> Callable[[Mapping[str, Tensor]], list[Tensor]]:
    """Weights → all tensors that a copy of the module gives with them, in evaluation mode."""
    module = copy.deepcopy(module).eval()
    named = inputs if isinstance(inputs, Mapping) else {}
    positional = () if named else inputs if isinstance(inputs, tuple) else (inputs,)

    def outputs(weights: Mapping[str, Tensor]) -> list[Tensor]:
        module.load_state_dict(dict(weights))
        with torch.no_grad():
            return [x for x in pytree.tree_leaves(module(*positional, **named)) if isinstance(x, Tensor)]

    return outputs


def change(before: list[Tensor], after: list[Tensor]) -> float:
    """The largest relative change of an output."""
    pairs = [(x.double(), y.double()) for x, y in zip(before, after, strict=True)]
    return max(float((x - y).norm() / (x.norm() or 1)) for x, y in pairs)


def turned(structure: Structure) -> Permutations:
    """Every unit of every group moves, and nested groups differ from row to row where they can."""
    orders = {}
    for group in structure.free:
        units = torch.arange(structure.sizes[group])
        rows = structure.sizes[structure.within[group]] if group in structure.within else 1
        shifted = [units.roll(1 + row % max(len(units) - 1, 1)) for row in range(rows)]
        orders[group] = torch.stack(shifted) if group in structure.within else shifted[0]
    return Permutations(orders, structure.within)


def one_axis_less(structure: Structure) -> Iterator[tuple[str, Structure]]:
    """The structure without one group on one axis of one tensor, for each of them; with what lies inside the group."""
    for tensor, layout in structure.layouts.items():
        if tensor in structure.tied:
            continue
        for axis, node in enumerate(layout):
            for group in dict.fromkeys(leaf.group for leaf in leaves(node) if leaf.group in structure.free):
                gone = {group, *(inner for inner, outer in structure.within.items() if outer == group)}
                same = [tensor, *(name for name, first in structure.tied.items() if first == tensor)]
                kept = [(without(n, gone) if place == axis else n) for place, n in enumerate(layout)]
                if any(structure.within.get(g) == group for n in kept for g in map(lambda leaf: leaf.group, leaves(n))):
                    kept = [without(n, gone - {group}) for n in kept]  # its outer order would be unknown
                layouts = dict(structure.layouts) | dict.fromkeys(same, tuple(kept))
                yield f"{tensor}[{axis}]", replace(structure, layouts=layouts)


def leaves(node: Node) -> Iterator[Leaf]:
    """The leaves of an axis."""
    if isinstance(node, Leaf):
        yield node
    else:
        for part in node.parts:
            yield from leaves(part)


def without(node: Node, groups: set[str | None]) -> Node:
    """An axis whose positions keep their order where it had one of these groups."""
    if isinstance(node, Leaf):
        return Leaf(node.size) if node.group in groups else node
    parts = tuple(without(part, groups) for part in node.parts)
    return Product(parts) if isinstance(node, Product) else Concatenation(parts)
