"""Whether synchronised units are one linear map from the weights before them to the weights after them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.degeneracy.synchronised import Gate, changed_pass
from workbench.degeneracy.weight_blocks import INPUT, WeightBlock
from workbench.runtime.chain import Batch, Chain, Cut
from workbench.runtime.passing import passed

WHAT = "which is no free matrix: not linear or convolutional, with groups, tied, or used more than once"


@dataclass(frozen=True, kw_only=True)
class LinearBlock:
    """The weights around a layer of ReLUs.

    Attributes:
        fan_in: weights and bias that a unit reads through; 0 where there is no such block.
        fan_out: weights that a unit is read through.
        shifts: both sides have a bias.
        reason: why there is no such block.
    """

    fan_in: int = 0
    fan_out: int = 0
    shifts: bool = False
    reason: str = ""


def linear_block(chain: Chain, batch: Batch, place: int, gate: Gate, blocks: Sequence[WeightBlock]) -> LinearBlock:
    """The matrices before and after the ReLUs of one layer, if nothing between them but the ReLUs is not linear.

    Found by running one batch: what the ReLU reads must be affine in the output of the matrix before it; with all
    signs as they are, what the matrices after it read must be affine in the layer's output; and with what those give
    held, the layer must not reach the next one.

    Args:
        chain: the module, lent.
        batch: what runs.
        place: the layer's place in the chain.
        gate: its ReLU.
        blocks: all weight blocks, in the order in which they run.
    """
    cut = chain.cuts[place]
    if place + 1 == len(chain.cuts):
        return LinearBlock(reason="no weights read them")
    after = next((one for one in range(place, len(chain.cuts) - 1) if _reading(blocks, chain.layers[one])), place)
    readers = _reading(blocks, chain.layers[after])
    before = next((name for name in reversed([INPUT, *chain.layers[:place]]) if _reading(blocks, name)), INPUT)
    writers = [block for block in _reading(blocks, before) if block.groups]
    if not writers or writers[-1].fan_out * writers[-1].groups != cut.width:
        return LinearBlock(reason=f"no matrix of {cut.width} units comes before the ReLUs")
    writer = writers[-1]
    readers, mixed = _direct(chain, batch, cut, readers)
    if mixed:
        return LinearBlock(reason=f"{mixed!r} reads them and what other weights make of them")
    if strange := next((one for one in readers if not _alone(one, blocks)), None):
        return LinearBlock(reason=f"{strange.layer!r} reads them, {WHAT}")
    if not readers or not _alone(writer, blocks):
        return LinearBlock(reason=f"{writer.layer!r} makes them, {WHAT}" if readers else "no weights read them")
    if not _affine_before(chain, batch, cut, writer):
        return LinearBlock(reason=f"what lies between {writer.layer!r} and the ReLUs is not linear")
    if crooked := _crooked_after(chain, batch, cut, gate.level, readers):
        return LinearBlock(reason=f"what lies between the ReLUs and {crooked!r} is not linear")
    if _gets_around(chain, batch, cut, chain.cuts[after + 1], readers):
        return LinearBlock(reason="something reads them beside the weights after them")
    shift = writer.bias or _shifted(chain, batch, cut, writer)
    return LinearBlock(
        fan_in=writer.fan_in + shift,
        fan_out=sum(one.part.weight.numel() // cut.width for one in readers),  # type: ignore[operator,misc]
        shifts=shift and all(one.bias for one in readers),
    )


def _reading(blocks: Sequence[WeightBlock], layer: str) -> list[WeightBlock]:
    return [block for block in blocks if block.reads == layer]


def _direct(chain: Chain, batch: Batch, cut: Cut, readers: Sequence[WeightBlock]) -> tuple[list[WeightBlock], str]:
    """The readers that the layer reaches without passing another; and the first that it reaches in both ways."""
    paths = [one.path for one in readers]
    _, own = changed_pass(chain, batch, {}, paths)
    outputs = passed(chain.module, batch.call, paths) if paths else {}
    direct: list[WeightBlock] = []
    for reader in readers:
        held = {one.path: (lambda _, value=outputs[one.path]: value) for one in direct if one.path in outputs}
        reached = changed_pass(chain, batch, {**held, cut.path: _moved}, [reader.path])[1][reader.path]
        if _near(reached, own[reader.path]):
            continue
        others = {one.path: _moved for one in direct}
        if not _near(changed_pass(chain, batch, others, [reader.path])[1][reader.path], own[reader.path]):
            return direct, reader.layer
        direct.append(reader)
    return direct, ""


def _moved(output: Tensor) -> Tensor:
    return output * _scales(output, 1) + 1


def _near(a: Tensor, b: Tensor) -> bool:
    precision = math.sqrt(torch.finfo(b.dtype).eps)
    return float((a - b).abs().max()) <= precision * (float(b.abs().max()) or 1.0)


def _alone(block: WeightBlock, blocks: Sequence[WeightBlock]) -> bool:
    """Whether its weights are one free matrix: without groups, and used once."""
    return block.groups == 1 and block.calls == 1 and sum(one.owner == block.owner for one in blocks) == 1


def _scales(like: Tensor, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return (0.5 + torch.rand(like.shape, generator=random, dtype=torch.float64)).to(like)


def _affine(values: Sequence[Tensor]) -> bool:
    """Whether g(a) + g(b) = g(a + b) + g(0), given these four."""
    first, second, both, none = (value.double() for value in values)
    scale = max(float(value.abs().max()) for value in values) or 1.0
    precision = math.sqrt(torch.finfo(values[0].dtype).eps)
    return float((first + second - both - none).abs().max()) <= precision * scale


def _affine_before(chain: Chain, batch: Batch, cut: Cut, writer: WeightBlock) -> bool:
    """Whether what the ReLU reads is affine in the writer's output."""
    changes: list[Callable[[Tensor], Tensor]] = [
        lambda output: output * _scales(output, 1),
        lambda output: output * _scales(output, 2),
        lambda output: output * (_scales(output, 1) + _scales(output, 2)),
        torch.zeros_like,
    ]
    if writer.path == cut.path:
        return True
    given = []
    for change in changes:
        gates, _ = changed_pass(chain, batch, {writer.path: change}, [])
        if cut.layer not in gates:
            return False
        given.append(gates[cut.layer].given)
    return _affine(given)


def _shifted(chain: Chain, batch: Batch, cut: Cut, writer: WeightBlock) -> bool:
    """Whether something adds a bias after the writer, as a batch norm does."""
    if writer.path == cut.path:
        return False
    gates, _ = changed_pass(chain, batch, {writer.path: torch.zeros_like}, [])
    return bool(gates[cut.layer].given.any())


def _crooked_after(chain: Chain, batch: Batch, cut: Cut, level: float, readers: Sequence[WeightBlock]) -> str:
    """The first reader whose input is not affine in the layer's output with its signs kept; empty if there is none."""

    def scaled(*seeds: int) -> Callable[[Tensor], Tensor]:
        def change(output: Tensor) -> Tensor:
            away = output - level
            return level + sum((away * _scales(away, seed) for seed in seeds), torch.zeros_like(away))

        return change

    paths = [one.path for one in readers]
    passes = [changed_pass(chain, batch, {cut.path: scaled(*seeds)}, paths)[1] for seeds in ((1,), (2,), (1, 2), ())]
    return next((one.layer for one in readers if not _affine([inputs[one.path] for inputs in passes])), "")


def _gets_around(chain: Chain, batch: Batch, cut: Cut, following: Cut, readers: Sequence[WeightBlock]) -> bool:
    """Whether the layer reaches the next one other than through its readers."""
    paths = [one.path for one in readers]
    found = passed(chain.module, batch.call, list(dict.fromkeys([*paths, following.path])))
    held = {path: (lambda _, value=found[path]: value) for path in paths}
    changed = passed(chain.module, batch.call, [following.path], {**held, cut.path: _moved})
    return not _near(changed[following.path], found[following.path])
