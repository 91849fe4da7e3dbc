"""A module's computation as torch.export sees it, and the names of its outputs."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import ArgumentError
from workbench.runtime.batches import LABELS
from workbench.runtime.borrowing import lent, name_of

TALKERS = ("torch.export", "torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes")


class _Straight(nn.Module):
    """A module whose outputs are the held tensors by name; a cache of keys and values is left out."""

    def __init__(self, module: nn.Module, outputs: Sequence[str | int] | None) -> None:
        super().__init__()
        self.module, self.outputs = module, outputs

    def forward(self, *positional: Any, **named: Any) -> dict[str, Tensor]:
        return dict(held_outputs(self.module(*positional, **named), self.outputs))


def exported(module: nn.Module, inputs: Any, outputs: Sequence[str | int] | None) -> Any:
    """The program that torch.export makes of a module in evaluation mode.

    Raises:
        ArgumentError: torch.export cannot follow the module, the inputs do not fit, or there is no such output.
    """
    import torch.utils._pytree as pytree

    positional, named = as_arguments(inputs)
    if on_meta(module):  # which cannot be lent, having no values; a copy costs nothing
        module = copy.deepcopy(module).to("meta").train(False)
        positional, named = pytree.tree_map_only(Tensor, lambda value: value.to("meta"), (positional, named))
        lending: Any = torch.no_grad()
    else:
        lending = lent(module, None, device_of(positional, named, module))
    try:
        with lending, _quiet():
            return torch.export.export(_Straight(module, outputs), positional, named, strict=False)
    except ArgumentError:
        raise
    except Exception as error:
        message = str(error).strip().splitlines()
        reason = next((line.strip() for line in message if line.strip()), type(error).__name__)
        raise ArgumentError(
            f"torch.export cannot follow {name_of(module)}: {reason}\n"
            "Control flow that depends on values (if x.sum() > 0, .item(), loops over tensors) cannot be traced: move "
            "it out of forward, replace it by torch.where, or pass the inner module that computes straight through; "
            "and check that example_inputs are what forward takes."
        ) from error


def device_of(positional: Any, named: Any, module: nn.Module) -> torch.device:
    """Where the inputs are, and so where the module is to be; the module's own device if it takes no tensor."""
    import torch.utils._pytree as pytree

    given = [value for value in pytree.tree_leaves((positional, named)) if isinstance(value, Tensor)]
    return [*given, *module.parameters(), torch.empty(0)][0].device


def on_meta(module: nn.Module) -> bool:
    """Whether some of the module's tensors have no values."""
    return any(tensor.is_meta for tensor in [*module.parameters(), *module.buffers()])


def as_arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs as positional and named arguments: all of a tuple, whose first alone counts in a batch."""
    if isinstance(inputs, Mapping):
        return (), {name: value for name, value in inputs.items() if name != LABELS}
    return (tuple(inputs), {}) if isinstance(inputs, tuple | list) else ((inputs,), {})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own talk; what matters of it is in its errors."""
    loggers = [logging.getLogger(name) for name in TALKERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # it prints graphs of what failed
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def output_names(program: Any) -> list[str]:
    """The name of each output, as `held_outputs` has them."""
    import torch.utils._pytree as pytree

    count = len(program.graph_signature.user_outputs)
    return list(pytree.tree_unflatten(list(range(count)), program.call_spec.out_spec))


def held_outputs(result: Any, outputs: Sequence[str | int] | None) -> list[tuple[str, Tensor]]:
    """Name and value of the outputs whose order matters: `logits`, `0`, `past.1`; empty for a single tensor.

    Raises:
        ArgumentError: there is no output of one of the names.
    """
    import torch.utils._pytree as pytree

    leaves = pytree.tree_flatten_with_path(result)[0]
    named = [(_path_name(path), value) for path, value in leaves if isinstance(value, Tensor)]
    if outputs is None:
        return named
    found = []
    for wanted in map(str, outputs):
        chosen = [(name, value) for name, value in named if name == wanted or name.startswith(f"{wanted}.")]
        if not chosen:
            gives = ", ".join(repr(name) for name, _ in named)
            if [name for name, _ in named] == [""]:
                gives = "one tensor without a name: leave outputs out"
            raise ArgumentError(f"outputs has {wanted!r}: the module gives {gives}.")
        found += chosen
    return found


def _path_name(path: Sequence[Any]) -> str:
    keys = [getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))) for key in path]
    return ".".join(str(key) for key in keys)
