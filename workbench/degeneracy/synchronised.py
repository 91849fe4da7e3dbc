"""Which units fire on exactly the same datapoints: layers that a ReLU reads or makes, and counts of firing together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.linalg.gram import add_gram, row_blocks
from workbench.runtime.batches import first_tensor, naming
from workbench.runtime.chain import Batch, Chain
from workbench.runtime.hooks import hooked
from workbench.runtime.passing import Listening, replaced, result_of

ATEN = torch.ops.aten
COPIES = {ATEN.clone, ATEN._to_copy, ATEN.alias}  # the same numbers in another storage; views share theirs


@dataclass(frozen=True)
class Gate:
    """A ReLU at a layer.

    Attributes:
        layer: the layer's id.
        role: whether the layer's output is what the ReLU reads (`input`) or what it makes (`output`).
        level: a unit fires where its value is above it: 0 but for thresholds and clamps.
        given: what the ReLU read in the pass that was watched.
    """

    layer: str
    role: Literal["input", "output"]
    level: float
    given: Tensor


def relu_gates(chain: Chain, batch: Batch) -> dict[str, Gate]:
    """The layers whose output a ReLU reads or makes, found in one pass; functions (`F.relu`) are found like modules.

    A ReLU is what is linear on either side of a level: relu, leaky_relu, threshold and clamp from below. It reads a
    layer's output if it is given all of it, a view or a copy, before anything changed it in place.
    """
    with naming(batch.number, batch.shown), watched(chain) as gates:
        result_of(chain.module, batch.call)
    return gates


@contextmanager
def watched(chain: Chain) -> Iterator[dict[str, Gate]]:
    """A dict that after a pass holds the layers' gates."""
    gates: dict[str, Gate] = {}
    watch = _Watch(gates)
    parts = {cut.layer: chain.module.get_submodule(cut.path) for cut in chain.cuts}

    def heard(layer: str, output: object) -> None:
        watch.heard(layer, first_tensor(output))

    with hooked(parts, heard), watch:
        yield gates


@dataclass(frozen=True)
class _Seen:
    """A tensor that is a layer's output or a ReLU's result, kept alive so that no other takes its storage."""

    tensor: Tensor
    version: int  # of its storage: an operation in place raises it, and then the numbers are others


class _Watch(Listening):
    """Listens to every operation of a pass."""

    def __init__(self, gates: dict[str, Gate]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.gates = gates
        self.outputs: list[tuple[str, _Seen]] = []
        self.results: list[tuple[float, Tensor, _Seen]] = []

    def heard(self, layer: str, output: Tensor) -> None:
        """A layer gave its output."""
        self.outputs.append((layer, _Seen(output, output._version)))
        for level, given, result in self.results:
            if _is(result, output):
                self.gates[layer] = Gate(layer, "output", level, given)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        level = _level(func.overloadpacket, args, named)
        given = args[0].clone() if level is not None else None
        before = [layer for layer, seen in self.outputs if given is not None and _is(seen, args[0])]
        result = func(*args, **named)
        if level is not None and given is not None and isinstance(result, Tensor):
            in_place = result is args[0] or func.__name__.split(".")[0].endswith("_")
            self.results.append((level, given, _Seen(result, result._version + in_place)))
            for layer in before:
                self.gates.setdefault(layer, Gate(layer, "input", level, given))
        if func.overloadpacket in COPIES and isinstance(result, Tensor) and isinstance(args[0], Tensor):
            copies = [(layer, _Seen(result, result._version)) for layer, seen in self.outputs if _is(seen, args[0])]
            self.outputs += copies
            made = [
                (one, given, _Seen(result, result._version)) for one, given, seen in self.results if _is(seen, args[0])
            ]
            self.results += made
        return result


def _is(seen: _Seen, tensor: Tensor) -> bool:
    """Whether a tensor is the one that was seen, or a view of all of it, unchanged since."""
    return (
        tensor.numel() == seen.tensor.numel()
        and tensor.untyped_storage().data_ptr() == seen.tensor.untyped_storage().data_ptr()
        and tensor._version == seen.version
    )


def _level(packet: Any, args: Sequence[Any], named: Mapping[str, Any]) -> float | None:
    """Above which value the operation is one linear function and below it another; None where it is no ReLU."""
    if not args or not isinstance(args[0], Tensor):
        return None
    rest = list(args[1:])
    if packet in (ATEN.relu, ATEN.relu_):
        return 0.0
    if packet in (ATEN.leaky_relu, ATEN.leaky_relu_):
        slope = rest[0] if rest else named.get("negative_slope", 0.01)
        return 0.0 if slope >= 0 else None
    if packet in (ATEN.threshold, ATEN.threshold_):
        level, value = rest
        return float(level) if value <= level else None
    if packet in (ATEN.clamp_min, ATEN.clamp_min_, ATEN.clamp, ATEN.clamp_):
        low = rest[0] if rest else named.get("min")
        high = rest[1] if len(rest) > 1 else named.get("max")
        return float(low) if isinstance(low, int | float) and high is None else None
    return None


@dataclass(frozen=True)
class Cluster:
    """Units that fire on the same datapoints.

    Attributes:
        units: their numbers.
        always: whether they fire on all datapoints.
    """

    units: tuple[int, ...]
    always: bool


class CoFiring:
    """Counts on how many datapoints each pair of units fires together: integers in float64, exact below 2⁵³.

    Args:
        width: number of units.
        level: a unit fires where its value is above it.
        device: where it counts.

    Example:
        >>> firing = CoFiring(3)
        >>> firing.update(torch.tensor([[1.0, 2.0, -1.0], [-1.0, 0.0, 5.0]]))
        >>> [cluster.units for cluster in firing.clusters()], firing.pairs, firing.dead
        ([(0, 1)], 1, 0)
    """

    def __init__(self, width: int, level: float = 0.0, device: torch.device | None = None) -> None:
        self.level, self.count = level, 0
        self.together = torch.zeros(width, width, dtype=torch.float64, device=device)

    def update(self, rows: Float[Tensor, "datapoints width"]) -> None:
        """Adds datapoints."""
        for block in row_blocks(rows.detach()):
            add_gram(self.together, (block > self.level).to(self.together))
        self.count += len(rows)

    @property
    def fired(self) -> Float[Tensor, " width"]:
        """On how many datapoints each unit fires."""
        return self.together.diagonal()

    @property
    def dead(self) -> int:
        """Units that never fire."""
        return int((self.fired == 0).sum()) if self.count else 0

    @property
    def pairs(self) -> int:
        """Pairs of units that fire on exactly the same datapoints, dead units left out."""
        return sum(len(one.units) * (len(one.units) - 1) // 2 for one in self.clusters())

    def clusters(self) -> list[Cluster]:
        """Units that fire on exactly the same datapoints, two at least; and all that always fire, even one."""
        fired = self.fired
        same = (self.together == fired[:, None]) & (self.together == fired[None, :])
        first = same.to(torch.uint8).argmax(1).tolist()  # the same of each of them: synchronised is an equivalence
        members: dict[int, list[int]] = {}
        counts = fired.tolist()
        for unit, leader in enumerate(first):
            if counts[unit]:
                members.setdefault(leader, []).append(unit)
        return [
            Cluster(tuple(units), counts[leader] == self.count)
            for leader, units in members.items()
            if len(units) > 1 or counts[leader] == self.count
        ]


def free_directions(size: int, fan_in: int, fan_out: int, *, shifts: bool = False) -> int:
    """Directions in which k synchronised ReLUs can be changed and nothing else changes, beyond their k rescalings.

    Where they fire, k units are one linear map V·W of k × fan_in weights W (biases are a column of it) and fan_out × k
    weights V. All (V·A⁻¹, A·W) are the same map: k² directions, k of them the rescalings that any ReLU has, so k(k−1).
    With more units than fan_in or fan_out V·W can be any matrix, and what is left free is
    k·(fan_in + fan_out) − fan_in·fan_out − k. This holds where W and V have full rank: of units that are copies of each
    other more is free, which shows in the ranks of activations. Of convolutions it is a lower bound.

    Args:
        size: k.
        fan_in: weights and biases that one unit reads through.
        fan_out: weights that one unit is read through.
        shifts: the units always fire and both sides have a bias: then their own k biases are free as well.

    Example:
        >>> free_directions(2, 4, 4), free_directions(3, 4, 4), free_directions(3, 2, 4), free_directions(1, 4, 4)
        (2, 6, 7, 0)
    """
    columns = fan_in - shifts  # a bias that the next one can take over is no part of the map
    if size <= min(columns, fan_out):
        return size * (size - 1) + size * shifts
    return size * (columns + fan_out) - columns * fan_out - size + size * shifts


def changed_pass(
    chain: Chain, batch: Batch, changes: Mapping[str, Callable[[Tensor], Tensor]], readers: Iterable[str]
) -> tuple[dict[str, Gate], dict[str, Tensor]]:
    """The gates and the inputs of the submodules `readers` in a pass in which outputs are changed, both by path."""
    inputs: dict[str, Tensor] = {}
    handles = []

    def keep(path: str) -> Any:
        def hear(_: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
            inputs[path] = first_tensor((*given, *named.values())).detach().clone()

        return hear

    with naming(batch.number, batch.shown), replaced(chain.module, changes), watched(chain) as gates:
        try:
            for path in readers:
                part = chain.module.get_submodule(path)
                handles.append(part.register_forward_pre_hook(keep(path), with_kwargs=True))
            result_of(chain.module, batch.call)
        finally:
            for handle in handles:
                handle.remove()
    return gates, inputs
