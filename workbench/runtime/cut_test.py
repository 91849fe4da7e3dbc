"""Which layers cut a module: with their output held, nothing of the input reaches what follows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import activation, dropout
from torch.nn.modules.batchnorm import _NormBase

from workbench.errors import ArgumentError, LayerNotFoundError
from workbench.linalg import resolved_device
from workbench.runtime.activations import MASK, WIDEST, feature_axis
from workbench.runtime.batches import arguments, first_tensor, iter_batches, naming, size_of
from workbench.runtime.borrowing import lent, name_of
from workbench.runtime.chain import OUTPUT, Chain, Cut, check_chain_arguments
from workbench.runtime.hooks import hooked, submodules
from workbench.runtime.passing import Call, passed

SAMPLES = 8  # enough to see whether anything gets around a layer
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
    where = resolved_device(device)
    asked = None if layers is None else [layers] if isinstance(layers, str) else list(layers)
    named = None if asked is None else [name for name in asked if name != OUTPUT]
    chosen = submodules(module, named) if named else None if asked is None else {}
    with lent(module, None, where, dtype):
        number, batch = next(iter(iter_batches(data)))
        with naming(number, batch):
            call = _few(arguments(batch, where, dtype), size_of(batch))
            test = _CutTest(module, call, features or {})
            cuts, skipped = test.found() if chosen is None else test.checked(chosen)
    return Chain(module=module, data=data, device=where, dtype=dtype, cuts=cuts, skipped=skipped)


class _CutTest:
    """Runs one module on two inputs."""

    def __init__(self, module: nn.Module, call: Call, features: Mapping[str, int]) -> None:
        self.module, self.call, self.features = module, call, features
        self.parts = {path: part for path, part in module.named_modules() if "parametrizations" not in path.split(".")}
        if unknown := next((path for path in features if path not in self.parts), None):
            raise LayerNotFoundError(f"features names {unknown!r}, which is no layer of {name_of(module)}.")
        self.order: list[str] = []
        self.calls: dict[str, int] = {}
        self.outputs: dict[str, Tensor] = {}
        self.inputs: dict[str, Tensor] = {}  # of those whose input says whether they are taken
        self.samples = _samples(call)
        with hooked(self.parts, self._heard), self._inputs_heard():
            module(*call[0], **call[1])
        if "" not in self.outputs:
            raise ArgumentError(f"{name_of(module)} gives no tensor of real numbers: {self._reason('')}")
        self._check_repeatable()
        self.other = _other(call)
        if _same(self._pass(self.other, {})[""], self.outputs[""]):
            raise ArgumentError(
                f"{name_of(module)} gives the same output for two different inputs, so that no layer can be tested: "
                "give samples on which it differs."
            )

    @contextmanager
    def _inputs_heard(self) -> Iterator[None]:
        """Keeps the inputs of functions of elements and of layer norms."""

        def keep(path: str) -> Any:
            def hear(_: nn.Module, given: tuple[Any, ...]) -> None:
                if given and isinstance(given[0], Tensor):
                    self.inputs[path] = given[0].clone()

            return hear

        parts = [
            (path, part) for path, part in self.parts.items() if isinstance(part, ELEMENTWISE) or _layer_norm(part)
        ]
        handles = [part.register_forward_pre_hook(keep(path)) for path, part in parts]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _heard(self, path: str, output: object) -> None:
        self.calls[path] = self.calls.get(path, 0) + 1
        try:
            tensor = first_tensor(output)
        except ArgumentError:
            return
        if self.calls[path] == 1 and tensor.is_floating_point():
            self.order.append(path)
            self.outputs[path] = tensor.clone()

    def _pass(self, call: Call, held: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All outputs of a pass with some of them held."""
        changes = {path: lambda _, value=value: value for path, value in held.items()}
        return passed(self.module, call, [*self.order], changes)

    def _check_repeatable(self) -> None:
        again = self._pass(self.call, {})
        for path in self.order:
            if not _same(again[path], self.outputs[path]):
                raise ArgumentError(
                    f"{name_of(self.module)} is not deterministic: {path or 'it'!r} gives another output for the same "
                    "input in evaluation mode; take out what draws random numbers (dropout with training=True, noise)."
                )

    def _reason(self, path: str) -> str:
        """Why a layer can be no cut whatever passes around it; empty where it can."""
        if path not in self.calls:
            return "it did not run"
        if self.calls[path] > 1:
            return f"it runs {self.calls[path]} times in a pass"
        if path not in self.outputs:
            return "its output is no tensor of real floating numbers"
        shape = tuple(self.outputs[path].shape)
        if not shape or shape[0] != self.samples:
            return f"the first axis of its output {list(shape)} is not the {self.samples} samples"
        if len(shape) < 2:
            return f"its output {list(shape)} has no features beside the samples"
        if not -len(shape) <= self._axis(path) < len(shape) or self._axis(path) % len(shape) == 0:
            return f"its output {list(shape)} has no features on axis {self._axis(path)}"
        return "" if all(shape) else f"its output {list(shape)} is empty"

    def _axis(self, path: str) -> int:
        if path in self.features:
            return self.features[path]
        return feature_axis(self.parts[path], self.outputs[path].ndim)

    def cut(self, path: str) -> Cut:
        output = self.outputs[path]
        width = output.shape[self._axis(path)]
        positions = output.numel() // (width * self.samples)
        return Cut(layer=path or self._output_id(), path=path, axis=self._axis(path), width=width, positions=positions)

    def _output_id(self) -> str:
        return OUTPUT if OUTPUT not in self.parts else f"({OUTPUT})"

    def _end(self) -> str:
        """The innermost layer whose output is the module's."""
        whole = self.outputs[""]
        ends = (path for path in self.order if not self._reason(path) and _same(self.outputs[path], whole))
        end = next(ends, "")
        if reason := self._reason(end):
            raise ArgumentError(f"{name_of(self.module)}'s output cannot be taken apart: {reason}.")
        return end

    def found(self) -> tuple[tuple[Cut, ...], dict[str, str]]:
        """All cuts, and why others are none."""
        end = self._end()
        skipped = {path: reason for path in self.parts if path and (reason := self._reason(path))}
        other = self._pass(self.other, {})
        kept: list[str] = []
        for path in (path for path in self.order[: self.order.index(end)] if path not in skipped):
            if twin := next((one for one in kept if _same(self.outputs[one], self.outputs[path])), None):
                skipped[path] = f"its output is that of {twin!r}"
            elif _same(other[path], self.outputs[path]):
                skipped[path] = "its output does not depend on the input"
            else:
                kept.append(path)
        chain = [end]
        for path in reversed(kept):
            held = self._pass(self.other, {path: self.outputs[path]})
            if _same(held[""], self.outputs[""]) and _same(held[chain[-1]], self.outputs[chain[-1]]):
                chain.append(path)
            else:
                skipped[path] = f"something gets around it to {chain[-1] or self._output_id()!r}"
        unasked = {path: reason for path in chain if path != end and (reason := self._unasked(path, chain))}
        return tuple(self.cut(path) for path in reversed(chain) if path not in unasked), skipped | unasked

    def _unasked(self, path: str, chain: Sequence[str]) -> str:
        """Why a cut is not taken unless it is asked for."""
        output = self.outputs[path]
        for after in (one for one in chain if one != path and isinstance(self.parts[one], ELEMENTWISE)):
            if after in self.inputs and _same(self.inputs[after], output):
                return f"{after!r} is a function of each of its elements or channels: that one is taken"
        if _layer_norm(self.parts[path]):
            given = self.inputs.get(path)
            if before := next((one for one in chain if given is not None and _same(self.outputs[one], given)), None):
                return f"a layer norm of {before!r}, one segment with what follows it"
        width = output.shape[self._axis(path)]
        return f"it has {width} features, more than {WIDEST}: name it to have it all the same" if width > WIDEST else ""

    def checked(self, chosen: Mapping[str, nn.Module]) -> tuple[tuple[Cut, ...], dict[str, str]]:
        """The chosen layers, each of which must determine the next one, and the output."""
        end = self._end()
        for path in chosen:
            if reason := self._reason(path):
                raise ArgumentError(f"layer {path!r} of {name_of(self.module)} cannot be taken: {reason}.")
        ordered = [path for path in self.order if path in chosen]
        if not ordered or not _same(self.outputs[ordered[-1]], self.outputs[""]):
            ordered.append(end)
        for path, following in zip(ordered, ordered[1:], strict=False):
            held = self._pass(self.other, {path: self.outputs[path]})
            if not _same(held[following], self.outputs[following]):
                raise ArgumentError(
                    f"layer {path!r} does not determine {following or OUTPUT!r}: {self._bypass(path, following)} gets "
                    "around it (a residual connection, as a rule); choose layers through which everything passes, or "
                    "None for all that there are."
                )
        return tuple(self.cut(path) for path in ordered), {}

    def _bypass(self, path: str, following: str) -> str:
        """What to hold besides `path` so that nothing gets around it: the last layer that does, or the input."""
        for candidate in reversed(self.order[: self.order.index(path)]):
            if self._reason(candidate):
                continue
            held = self._pass(self.other, {path: self.outputs[path], candidate: self.outputs[candidate]})
            if _same(held[following], self.outputs[following]):
                return f"the output of {candidate!r}"
        return "the module's input"


def _layer_norm(part: nn.Module) -> bool:
    return isinstance(part, nn.LayerNorm | nn.RMSNorm) or type(part).__name__.endswith(("LayerNorm", "RMSNorm"))


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    if torch.equal(a, b):
        return True
    scale = float(b.abs().nan_to_num(0, 0, 0).max()) if b.numel() else 0.0
    return bool(torch.allclose(a, b, rtol=0, atol=1e-12 * scale, equal_nan=True))


def _samples(call: Call) -> int:
    return len(next(part for part in (*call[0], *call[1].values()) if isinstance(part, Tensor)))


def _few(call: Call, size: int) -> Call:
    """The first samples of a batch."""

    def part(value: Any) -> Any:
        alike = isinstance(value, Tensor) and value.ndim > 0 and len(value) == size
        return value[:SAMPLES] if alike else value

    return tuple(part(value) for value in call[0]), {name: part(value) for name, value in call[1].items()}


def _other(call: Call) -> Call:
    """Another input of the same form: samples change places; a mask stays, as it is no input but says what is one."""
    size = _samples(call)

    def changes(how: Any) -> Call:
        def part(value: Any) -> Any:
            return how(value) if isinstance(value, Tensor) and value.ndim > 0 and len(value) == size else value

        named = {name: value if name == MASK else part(value) for name, value in call[1].items()}
        return tuple(part(value) for value in call[0]), named

    def noisy(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value.flip(-1)
        noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
        return value + noise.to(value.device, value.dtype)

    for how in (lambda value: value.roll(1, 0), noisy):
        other = changes(how)
        if not all(_alike(a, b) for a, b in zip(_tensors(call), _tensors(other), strict=True)):
            return other
    raise ArgumentError("the samples of the first batch are all alike, so that no layer can be tested: give others.")


def _alike(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b)


def _tensors(call: Call) -> Sequence[Tensor]:
    return [part for part in (*call[0], *call[1].values()) if isinstance(part, Tensor)]
