"""A module as a chain of layers, each of which determines the next, over data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from workbench.errors import ArgumentError
from workbench.runtime.activations import MASK, batch_count, kept_positions
from workbench.runtime.batches import arguments, check_data, iter_batches, naming, size_of
from workbench.runtime.borrowing import check_module, lent
from workbench.runtime.passing import Call, passed

OUTPUT = "output"  # the id of the module's own output, where no layer's is the same


def output_id(module: nn.Module) -> str:
    """The id of the module's own output: `output`, in brackets where a submodule is called that."""
    return OUTPUT if OUTPUT not in dict(module.named_children()) else f"({OUTPUT})"


def coarsest_dtype(module: nn.Module) -> torch.dtype | None:
    """The coarsest dtype of a module's parameters; None where it has none of real numbers."""
    kinds = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
    return max(kinds, key=lambda kind: torch.finfo(kind).eps, default=None)


def mask_of(features: Tensor, keep: Tensor | None) -> Tensor | None:
    """Which positions of (samples, steps, features) are no padding; None where all count, as in any other shape."""
    return keep if keep is not None and features.ndim == 3 and features.shape[:2] == keep.shape else None


class Batch(NamedTuple):
    """One batch on the device: what the module is called with, and which positions are no padding."""

    number: int
    call: Call
    size: int
    keep: Tensor | None
    shown: object  # the batch as it was given, for messages


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A layer through whose output everything passes that the module's output depends on.

    Attributes:
        layer: its id: the module path, or `output`.
        path: the path in `module.named_modules()`; empty for the module itself.
        axis: the axis of the features in its output: 1 for channels, −1 for the last.
        width: number of features.
        positions: positions of one sample in the batch that was looked at: pixels, tokens, or 1.
    """

    layer: str
    path: str
    axis: int
    width: int
    positions: int

    def last(self, output: Tensor) -> Tensor:
        """The output with features last: (samples, …, width); differentiable, whatever the mode.

        Raises:
            ArgumentError: it has another number of features.
        """
        with torch.enable_grad():
            features = output.movedim(self.axis, -1)
        if features.shape[-1] != self.width:
            raise ArgumentError(
                f"layer {self.layer!r} gives {list(output.shape)}: expected {self.width} features on axis {self.axis}, "
                "as in the first batch; where the axis is wrong, name it in `features`."
            )
        return features

    def rows(self, output: Tensor, keep: Tensor | None) -> Tensor:
        """The output as (samples·positions, width), without padding."""
        features = self.last(output)
        mask = mask_of(features, keep)
        return features.reshape(-1, self.width) if mask is None else features[mask]

    def unfolded(self, rows: Tensor, output: Tensor, keep: Tensor | None) -> Tensor:
        """`rows` in the shape of an output; padded positions are as in `output`."""
        features = self.last(output)
        mask = mask_of(features, keep)
        if mask is None:
            new = rows.to(features.dtype).reshape(features.shape)
        else:
            new = features.clone()
            new[mask] = rows.to(new.dtype)
        return new.movedim(-1, self.axis).contiguous()  # as a layer gives it: what follows may view it


@dataclass(frozen=True, kw_only=True, eq=False)
class Chain:
    """A module over data, seen at its cuts; made by `layer_chain`.

    Attributes:
        module: the network; lent while `lent()` is open.
        data: batches.
        device: where it runs.
        dtype: what it is cast to, None for its own.
        cuts: the layers in the order in which they run; each determines the next, and the last is the output.
        skipped: path → why it is no cut, of those that were looked at.
    """

    module: nn.Module
    data: Iterable[Any]
    device: torch.device
    dtype: torch.dtype | None
    cuts: tuple[Cut, ...]
    skipped: Mapping[str, str]

    @property
    def layers(self) -> list[str]:
        """Ids of the cuts."""
        return [cut.layer for cut in self.cuts]

    @property
    def batch_count(self) -> int:
        """Number of batches, 0 where unknown."""
        return batch_count(self.data)

    @property
    def activation_dtype(self) -> torch.dtype | None:
        """The coarsest dtype that activations are computed in; None where nothing tells."""
        return self.dtype or coarsest_dtype(self.module)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """The module in evaluation mode, on the device, in the dtype; as it was afterwards."""
        with lent(self.module, None, self.device, self.dtype):
            yield

    def batches(self) -> Iterator[Batch]:
        """The batches; what fails while one is worked on names it.

        Raises:
            EvaluationError: a batch could not be loaded or run.
            ArgumentError: there was none.
        """
        for number, given in iter_batches(self.data):
            with naming(number, given):
                batch = self.batch(number, given)
            yield batch

    def batch(self, number: int, given: object) -> Batch:
        """One batch on the device."""
        call = arguments(given, self.device, self.dtype)
        return Batch(number, call, size_of(given), kept_positions(call[1].get(MASK)), given)

    def outputs(
        self, batch: Batch, cuts: Sequence[Cut], changes: Mapping[str, Callable[[Tensor], Tensor]] | None = None
    ) -> list[Tensor]:
        """Outputs of cuts in one pass, in their order; `changes` are by layer id."""
        paths = {cut.layer: cut.path for cut in self.cuts}
        with naming(batch.number, batch.shown):
            found = passed(
                self.module,
                batch.call,
                [cut.path for cut in cuts],
                {paths[layer]: change for layer, change in (changes or {}).items()},
            )
            if missing := next((cut.layer for cut in cuts if cut.path not in found), None):
                raise ArgumentError(f"layer {missing!r} did not run, as it did in the first batch: leave it out.")
        return [found[cut.path] for cut in cuts]

    def segment(
        self, batch: Batch, source: Cut, target: Cut, start: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The source's output as a leaf that asks for gradients, and the target's as a function of it.

        Args:
            batch: what runs.
            source: the earlier cut.
            target: the later one.
            start: what takes the place of the source's output; None for itself.
        """

        def leaf(output: Tensor) -> Tensor:
            new = (output if start is None else start(output)).detach().clone()
            torch.set_grad_enabled(True)
            return new.requires_grad_()

        with torch.enable_grad():  # so that a no_grad() around the source alone ends in a pass with gradients
            first, second = self.outputs(batch, [source, target], {source.layer: leaf})
        return first, second


DTYPES = {"float64": torch.float64, "float32": torch.float32, "own": None}


def resolved_dtype(dtype: str) -> torch.dtype | None:
    """What a module is cast to; None for its own.

    Raises:
        ArgumentError: an unknown name.
    """
    if dtype not in DTYPES:
        raise ArgumentError(f"dtype={dtype!r}: expected {', '.join(map(repr, DTYPES))}.")
    return DTYPES[dtype]


def check_chain_arguments(module: object, data: object) -> None:
    """Refuses a module that cannot be lent and data that cannot be walked again."""
    check_module(module)
    check_data(data)
