"""Which layers cut a module: with their output held, nothing of the input reaches what follows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import activation, dropout
from torch.nn.modules.batchnorm import _NormBase

from workbench.errors import ArgumentError, LayerNotFoundError, WorkbenchError
from workbench.linalg import resolved_device
from workbench.runtime.activations import WIDEST, feature_axis
from workbench.runtime.batches import arguments, first_tensor, iter_batches, naming, size_of
from workbench.runtime.borrowing import lent, name_of
from workbench.runtime.chain import Chain, Cut, check_chain_arguments, output_id
from workbench.runtime.graph_paths import bypassed
from workbench.runtime.hooks import hooked, listed, submodules
from workbench.runtime.marks import Mark, few, mark_of, other_input, sample_count
from workbench.runtime.passing import Call, passed, result_of

TOLERANCE = 1e-9  # of how much an output differs between the two inputs: what gets around a layer is more
MIXING = ("MultiheadAttention", "Softmax", "Softmin", "LogSoftmax", "Softmax2d", "GLU")
ELEMENTWISE = (
    *(getattr(activation, name) for name in activation.__all__ if name not in MIXING),
    *(getattr(dropout, name) for name in dropout.__all__),
    nn.Identity,
    _NormBase,  # in evaluation mode a scale and a shift of each channel
)


def layer_chain(
    module: nn.Module,
    data: Iterable[Any],
    layers: str | Iterable[str] | None = None,
    *,
    features: Mapping[str, int] | None = None,
    device: str = "auto",
    dtype: torch.dtype | None = torch.float64,
) -> Chain:
    """The layers through which everything passes, in order, and the module's output at the end.

    A layer A is a cut if the module gives the same output for an input x′ once A's output is held at what it is for x.
    Of layers with equal outputs the innermost is taken. Left out without being asked: a layer that a function of each
    element or channel follows (an activation, batch norm: the result of that is taken), and layer norms, which are one
    segment with what follows them.

    Args:
        module: the network.
        data: a re-iterable of batches.
        layers: paths or globs, `output` for the module's own output; None for all cuts.
        features: path → axis of the features where the rule of `activation_moments` is wrong.
        device: "auto" takes CUDA when there is one.
        dtype: what the module is cast to; None for its own.

    Raises:
        ArgumentError: a layer that was asked for is no cut (what gets around it is named), runs several times or not at
            all, or gives no features; the module gives another output for the same input, or none that depends on it;
            the samples are all alike.
        LayerNotFoundError: a name is unknown.
        EvaluationError: the first batch failed.
    """
    check_chain_arguments(module, data)
    module = getattr(module, "_orig_mod", module)  # what torch.compile wraps: the same module, under its own paths
    where = resolved_device(device)
    asked = None if layers is None else listed(layers)
    if asked == []:
        raise LayerNotFoundError("an empty list of layers: name some, or pass None for all that there are.")
    chosen = None if asked is None else _chosen(module, [name for name in asked if name != output_id(module)])
    with lent(module, None, where, dtype):
        number, batch = next(iter(iter_batches(data)))
        with naming(number, batch):
            call = few(arguments(batch, where, dtype), size_of(batch))
        try:
            test = _CutTest(module, call, features or {})
            cuts, skipped = test.found() if chosen is None else test.checked(chosen)
        except WorkbenchError:
            raise  # about an argument, whatever the batch
        except Exception:
            with naming(number, batch):
                raise
    end = cuts[-1]
    if end.width > WIDEST and not {end.path, output_id(module)} & {*(asked or ()), *(chosen or ())}:
        raise ArgumentError(
            f"{name_of(module)}'s output {end.layer!r} has {end.width:,} features, whose covariance alone would take "
            f"{8e-9 * end.width**2:.3g} GB: wrap the module so that it returns what is to be looked into (the states "
            f"before its head, some of its logits), or name {end.layer!r} in `layers` to have it all the same."
        )
    return Chain(module=module, data=data, device=where, dtype=dtype, cuts=cuts, skipped=skipped)


def _chosen(module: nn.Module, names: Sequence[str]) -> list[str]:
    """The paths that are asked for, without the module's own; a module under several is known by its first."""
    first = {id(part): path for path, part in module.named_modules()}
    chosen = dict.fromkeys(first[id(part)] for part in submodules(module, names).values()) if names else {}
    return [path for path in chosen if path]


class _CutTest:
    """Runs one module on two inputs."""

    def __init__(self, module: nn.Module, call: Call, features: Mapping[str, int]) -> None:
        self.module, self.call, self.features = module, call, features
        self.parts = {path: part for path, part in module.named_modules() if "parametrizations" not in path.split(".")}
        if unknown := next((path for path in features if path not in self.parts), None):
            raise LayerNotFoundError(f"features names {unknown!r}, which is no layer of {name_of(module)}.")
        self.samples = sample_count(call)
        self.other, single, self.sample = other_input(call)
        self.calls: dict[str, int] = {}
        self.inputs: dict[str, Mark] = {}  # of those whose input says whether they are taken
        with self._inputs_heard():
            self.outputs = self._marks(call, self.calls)
        if "" not in self.outputs:
            what = f"{name_of(module)} gives no tensor of real numbers: {self._reason('')}"
            raise ArgumentError(f"{what}; wrap it so that it gives one.")
        self._check_repeatable()
        self.others = self._marks(self.other)
        if self._constant(""):
            raise ArgumentError(
                f"{name_of(module)} gives the same output for two different inputs, so that no layer can be tested: "
                "give samples on which it differs, and weights with which it gives numbers (NaN is like NaN)."
            )
        alone = self._marks(single) if self.samples > 1 else {}
        self.meeting = {
            path for path, mark in alone.items() if path in self.outputs and not self._rest_same(path, mark)
        }

    @contextmanager
    def _inputs_heard(self) -> Iterator[None]:
        """Marks the inputs of functions of elements and of layer norms."""

        def keep(path: str) -> Any:
            def hear(_: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
                first = next((value for value in (*given, *named.values()) if isinstance(value, Tensor)), None)
                if first is not None and _numbers(first):
                    self.inputs[path] = mark_of(first, self.sample)

            return hear

        parts = [
            (path, part) for path, part in self.parts.items() if isinstance(part, ELEMENTWISE) or _layer_norm(part)
        ]
        handles = [part.register_forward_pre_hook(keep(path), with_kwargs=True) for path, part in parts]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _marks(self, call: Call, calls: dict[str, int] | None = None) -> dict[str, Mark]:
        """Path → mark of its first output, in the order in which they come; `calls` counts them."""
        marks: dict[str, Mark] = {}
        counts = {} if calls is None else calls

        def heard(path: str, output: object) -> None:
            counts[path] = counts.get(path, 0) + 1
            try:
                tensor = first_tensor(output)
            except ArgumentError:
                return
            if counts[path] == 1 and _numbers(tensor):
                marks[path] = mark_of(tensor, self.sample)

        with hooked(self.parts, heard):
            result_of(self.module, call)
        return marks

    def _check_repeatable(self) -> None:
        again = self._marks(self.call)
        for path, mark in self.outputs.items():
            if path not in again or not again[path].same(mark):
                raise ArgumentError(
                    f"{name_of(self.module)} is not deterministic: {path or 'it'!r} gives another output for the same "
                    "input in evaluation mode; take out what draws random numbers (dropout with training=True, noise)."
                )

    def _constant(self, path: str) -> bool:
        """Whether a layer's output is the same for both inputs."""
        return path in self.others and self.others[path].same(self.outputs[path])

    def _rest_same(self, path: str, alone: Mark) -> bool:
        """Whether one sample changes no other's output."""
        here = self.outputs[path]
        return alone.shape == here.shape and (alone.shape[:1] != (self.samples,) or alone.same_rest(here))

    def _determined(self, held: Mapping[str, Tensor], target: str) -> bool:
        """Whether the target gives its first output for the other input, with some outputs held at their first."""
        changes = {path: lambda _, value=value: value for path, value in held.items()}
        found = passed(self.module, self.other, [target], changes)
        if target not in found or target not in self.others:
            return False
        first, other = self.outputs[target], self.others[target]
        mark = mark_of(found[target], self.sample)
        return mark.shape == first.shape and mark.close(first, TOLERANCE * abs(other.whole - first.whole))

    def _reason(self, path: str) -> str:
        """Why a layer can be no cut whatever passes around it; empty where it can."""
        if path not in self.calls:
            return "it did not run"
        if self.calls[path] > 1:
            return f"it runs {self.calls[path]} times in a pass"
        if path not in self.outputs:
            return "its output is no tensor of real floating numbers"
        shape = self.outputs[path].shape
        if not shape or shape[0] != self.samples:
            return f"the first axis of its output {list(shape)} is not the {self.samples} samples"
        if len(shape) < 2:
            return f"its output {list(shape)} has no features beside the samples"
        if not -len(shape) <= self._axis(path) < len(shape) or self._axis(path) % len(shape) == 0:
            return f"its output {list(shape)} has no features on axis {self._axis(path)}"
        if not all(shape):
            return f"its output {list(shape)} is empty"
        return "the samples of a batch change each other's outputs" if path in self.meeting else ""

    def _axis(self, path: str) -> int:
        if path in self.features:
            return self.features[path]
        return feature_axis(self.parts[path], len(self.outputs[path].shape))

    def cut(self, path: str) -> Cut:
        shape, axis, name = self.outputs[path].shape, self._axis(path), path or output_id(self.module)
        positions = math.prod(shape) // (shape[axis] * self.samples)
        return Cut(layer=name, path=path, axis=axis, width=shape[axis], positions=positions)

    def _end(self) -> str:
        """The innermost layer whose output is the module's."""
        whole = self.outputs[""]
        ends = (path for path, mark in self.outputs.items() if not self._reason(path) and mark.same(whole))
        end = next(ends, "")
        if reason := self._reason(end):
            raise ArgumentError(
                f"{name_of(self.module)}'s output cannot be taken apart: {reason}; wrap the module so that it returns "
                "features of each sample, by that sample alone."
            )
        return end

    def found(self) -> tuple[tuple[Cut, ...], dict[str, str]]:
        """All cuts, and why others are none."""
        end = self._end()
        skipped = {path: reason for path in self.parts if path and (reason := self._reason(path))}
        varying = {path for path in self.others if path in self.outputs and not self._constant(path)}
        around = bypassed(self.module, self.parts, self.call, self.other, varying)
        order = list(self.outputs)
        kept: list[str] = []
        for path in (path for path in order[: order.index(end)] if path not in skipped):
            mark = self.outputs[path]
            if path in around:
                skipped[path] = "the gradient's graph has a way around it"
            elif twin := next((one for one in kept if mark.same(self.outputs[one])), None):
                skipped[path] = f"its output is that of {twin!r}"
            elif path not in varying:
                skipped[path] = "its output does not depend on the input"
            else:
                kept.append(path)
        held = passed(self.module, self.call, kept)
        chain = [end]
        for path in reversed(kept):
            if self._determined({path: held.pop(path)}, chain[-1]):
                chain.append(path)
            else:
                skipped[path] = f"something gets around it to {chain[-1] or output_id(self.module)!r}"
        unasked = {path: reason for path in chain if path != end and (reason := self._unasked(path, chain))}
        return tuple(self.cut(path) for path in reversed(chain) if path not in unasked), skipped | unasked

    def _unasked(self, path: str, chain: Sequence[str]) -> str:
        """Why a cut is not taken unless it is asked for."""
        output = self.outputs[path]
        for after in (one for one in chain if one != path and isinstance(self.parts[one], ELEMENTWISE)):
            if after in self.inputs and self.inputs[after].same(output):
                return f"{after!r} is a function of each of its elements or channels: that one is taken"
        if _layer_norm(self.parts[path]):
            given = self.inputs.get(path)
            if before := next((one for one in chain if given is not None and self.outputs[one].same(given)), None):
                return f"a layer norm of {before!r}, one segment with what follows it"
        width = output.shape[self._axis(path)]
        return f"it has {width} features, more than {WIDEST}: name it to have it all the same" if width > WIDEST else ""

    def checked(self, chosen: Iterable[str]) -> tuple[tuple[Cut, ...], dict[str, str]]:
        """The chosen layers, each of which must determine the next one, and the output."""
        end = self._end()
        for path in chosen:
            if reason := self._reason(path):
                raise ArgumentError(
                    f"layer {path!r} of {name_of(self.module)} cannot be taken: {reason}; leave it out, or pass None "
                    "for all layers that can be."
                )
        ordered = [path for path in self.outputs if path in chosen]
        if not ordered or not self.outputs[ordered[-1]].same(self.outputs[""]):
            ordered.append(end)
        held = passed(self.module, self.call, ordered)
        for path, following in zip(ordered, ordered[1:], strict=False):
            if not self._determined({path: held[path]}, following):
                raise ArgumentError(
                    f"layer {path!r} does not determine {following or output_id(self.module)!r}: "
                    f"{self._bypass(path, following)} gets around it (a residual connection, as a rule); choose layers "
                    "through which everything passes, or None for all that there are."
                )
        return tuple(self.cut(path) for path in ordered), {}

    def _bypass(self, path: str, following: str) -> str:
        """What to hold besides `path` so that nothing gets around it: the last layer that does, or the input."""
        order = list(self.outputs)
        candidates = [one for one in order[: order.index(path)] if not self._reason(one)]
        held = passed(self.module, self.call, [*candidates, path])
        for candidate in reversed(candidates):
            if self._determined({path: held[path], candidate: held[candidate]}, following):
                return f"the output of {candidate!r}"
        return "the module's input"


def _layer_norm(part: nn.Module) -> bool:
    return isinstance(part, nn.LayerNorm | nn.RMSNorm) or type(part).__name__.endswith(("LayerNorm", "RMSNorm"))


def _numbers(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not tensor.is_nested and tensor.layout == torch.strided
