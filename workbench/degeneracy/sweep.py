"""One walk over the data: activations, firing, inputs of weight blocks, and gradients of the output everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor

from workbench.degeneracy.gradients import cut_off, exact_cotangents, random_cotangents
from workbench.degeneracy.numerical_rank import GradientSum
from workbench.degeneracy.synchronised import CoFiring, Gate
from workbench.degeneracy.weight_blocks import WeightBlock, block_input
from workbench.linalg import Moments
from workbench.runtime.batches import first_tensor, naming, with_first_tensor
from workbench.runtime.borrowing import unfused
from workbench.runtime.chain import Batch, Chain
from workbench.runtime.passing import result_of
from workbench.seeds import generator

Calls: TypeAlias = list[Tensor]  # a tensor for each call of one submodule


class Sweep:
    """What has been counted so far.

    Args:
        chain: the module over data, lent.
        blocks: its weight blocks.
        gates: ReLUs by layer.
        probes: ±1 cotangents a batch in place of one for each output and position; None for these.
        seed: of the probes.

    Attributes:
        activations: layer → moments.
        gradients: layer → M′ of the module's output.
        firing: layer with a ReLU → counts.
        inputs: block → moments of its inputs, a group each; blocks of one weight are counted together.
        outputs: block → M′ of the module's output with respect to its output.
        batches: batches that are counted.
    """

    def __init__(
        self, chain: Chain, blocks: Sequence[WeightBlock], gates: Mapping[str, Gate], probes: int | None, seed: int
    ) -> None:
        self.chain, self.probes, self.batches = chain, probes, 0
        self.blocks = {block.path: block for block in blocks if block.groups}
        self._random = generator(seed, "degeneracy")
        device = chain.device
        self.activations = {cut.layer: Moments(cut.width, device) for cut in chain.cuts}
        self.gradients = {cut.layer: GradientSum(1, cut.width, device) for cut in chain.cuts}
        self.firing = {
            cut.layer: CoFiring(cut.width, gates[cut.layer].level, device) for cut in chain.cuts if cut.layer in gates
        }
        self.inputs = {
            path: [Moments(block.fan_in, device) for _ in range(block.groups)]
            for path, block in self.blocks.items()
            if block.owner == path
        }
        self.outputs = {
            path: GradientSum(block.groups, block.fan_out, device)
            for path, block in self.blocks.items()
            if block.owner == path
        }

    def add(self, batch: Batch) -> None:
        """Counts a batch: one pass, and a backward pass for each cotangent.

        Raises:
            ArgumentError: the output does not depend on a layer by anything differentiable.
            EvaluationError: the batch failed.
        """
        taps = _taps(self.chain, self.blocks)
        with naming(batch.number, batch.shown), torch.enable_grad(), taps as (outputs, inputs):
            result_of(self.chain.module, batch.call)
        with torch.no_grad():
            self._add_values(batch, outputs, inputs)
        self._add_gradients(batch, outputs)
        self.batches += 1

    def _add_values(self, batch: Batch, outputs: Mapping[str, Calls], inputs: Mapping[str, Calls]) -> None:
        for cut in self.chain.cuts:
            rows = cut.rows(outputs[cut.path][0].detach(), batch.keep)
            self.activations[cut.layer].update(rows)
            if cut.layer in self.firing:
                self.firing[cut.layer].update(rows)
        for path, given in inputs.items():
            for tensor in given:
                for rows in self.blocks[path].input_rows(tensor, batch.keep):
                    for group, moments in enumerate(self.inputs[self.blocks[path].owner]):
                        moments.update(rows[:, group])

    def _add_gradients(self, batch: Batch, outputs: Mapping[str, Calls]) -> None:
        end = self.chain.cuts[-1]
        cuts = {cut.path: cut for cut in self.chain.cuts}
        features = end.last(outputs[end.path][0])
        flat = [(path, tensor) for path, tensors in outputs.items() for tensor in tensors if tensor.requires_grad]
        for cut in self.chain.cuts:
            if not outputs[cut.path][0].requires_grad:
                raise cut_off(cut, end)
        cotangents = (
            exact_cotangents(features, None, batch.keep, "all")
            if self.probes is None
            else random_cotangents(features, None, batch.keep, "all", self.probes, self._random)
        )
        for number, cotangent in enumerate(cotangents):
            found = torch.autograd.grad(
                features, [tensor for _, tensor in flat], cotangent, retain_graph=True, allow_unused=True
            )
            for (path, _), gradient in zip(flat, found, strict=True):
                if gradient is None and path in cuts:
                    raise cut_off(cuts[path], end)
                if gradient is None:
                    continue  # a block that the output does not depend on
                if path in cuts:
                    self.gradients[cuts[path].layer].add(cuts[path].rows(gradient, batch.keep), number)
                if path in self.blocks:
                    self.outputs[self.blocks[path].owner].add(
                        self.blocks[path].output_rows(gradient, batch.keep), number
                    )
        for path, tensor in ((path, tensor) for path, tensors in outputs.items() for tensor in tensors):
            if path in cuts:
                self.gradients[cuts[path].layer].drawn(len(cuts[path].rows(tensor, batch.keep)), self.probes or 0)
            if path in self.blocks:
                self.outputs[self.blocks[path].owner].drawn(
                    len(self.blocks[path].output_rows(tensor, batch.keep)), self.probes or 0
                )


@contextmanager
def _taps(chain: Chain, blocks: Mapping[str, WeightBlock]) -> Iterator[tuple[dict[str, Calls], dict[str, Calls]]]:
    """Outputs of layers and blocks, which can be differentiated by, and inputs of blocks; of every call, by path.

    What follows works on copies, so that operations in place change nothing here.
    """
    outputs: dict[str, Calls] = {}
    inputs: dict[str, Calls] = {}

    def before(path: str) -> Any:
        def hear(_: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
            inputs.setdefault(path, []).append(block_input(given, named).detach().clone())

        return hear

    def after(path: str) -> Any:
        def hear(_: Any, __: Any, output: Any) -> Any:
            tensor = first_tensor(output)
            if not tensor.requires_grad and torch.is_grad_enabled():
                tensor = tensor.detach().clone().requires_grad_()
            outputs.setdefault(path, []).append(tensor)
            return with_first_tensor(output, tensor.clone())

        return hear

    handles = []
    try:
        for path in dict.fromkeys([*blocks, *(cut.path for cut in chain.cuts)]):
            part = chain.module.get_submodule(path)
            handles.append(part.register_forward_hook(after(path)))
            if path in blocks:
                handles.append(part.register_forward_pre_hook(before(path), with_kwargs=True))
        with unfused():
            yield outputs, inputs
    finally:
        for handle in handles:
            handle.remove()
