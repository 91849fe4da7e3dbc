"""A forward pass in which some outputs are replaced and others are caught, up to the last of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from workbench.runtime.batches import first_tensor, with_first_tensor
from workbench.runtime.borrowing import unfused

Call = tuple[tuple[Tensor, ...], dict[str, Any]]  # positional and named arguments
Change = Callable[[Tensor], Tensor]


class _Arrived(BaseException):  # noqa: N818 - no error; `except Exception` in a user's forward must not swallow it
    """Ends a pass whose remaining outputs nobody asked for."""


def fresh(call: Call) -> Call:
    """Copies of the tensors of a call, which a module may change in place: the next pass gets them as they were."""
    return mapped(call, lambda value: value.clone() if isinstance(value, Tensor) else value)


def mapped(call: Call, change: Callable[[Any], Any]) -> Call:
    """The call with each argument changed."""
    return tuple(change(value) for value in call[0]), {name: change(value) for name, value in call[1].items()}


def result_of(module: nn.Module, call: Call) -> Any:
    """What the module gives for a copy of the call."""
    positional, named = fresh(call)
    return module(*positional, **named)


def first_samples(call: Call, size: int, count: int) -> Call:
    """A call with the first `count` of its `size` samples."""
    return mapped(call, lambda value: value[:count] if by_sample(value, size) else value)


def by_sample(value: object, size: int) -> bool:
    """Whether it is a tensor with something for each of `size` samples."""
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == size


@contextmanager
def replaced(module: nn.Module, changes: Mapping[str, Change]) -> Iterator[None]:
    """Every call of the named submodules gives what `changes` makes of its output; the hooks go afterwards.

    torch's fast path of attention, which runs no submodules, and compiled code, which knows no new hooks, are off.
    """

    def hook(change: Change) -> Callable[[nn.Module, Any, Any], Any]:
        return lambda _, __, output: with_first_tensor(output, change(first_tensor(output)))

    handles = []
    try:
        for path, change in changes.items():
            handles.append(module.get_submodule(path).register_forward_hook(hook(change)))
        with unfused():
            yield
    finally:
        for handle in handles:
            handle.remove()


def passed(
    module: nn.Module, call: Call, wanted: Sequence[str], changes: Mapping[str, Change] | None = None
) -> dict[str, Tensor]:
    """The outputs of the wanted submodules, after their change if they have one; the pass ends with the last of them.

    What runs later works on a copy, so that operations in place change nothing here. A change may turn gradients on;
    the mode is as before afterwards.

    Args:
        module: the network, as a rule lent.
        call: what it is called with, a copy of it.
        wanted: paths as in `module.named_modules()`; the empty path is the module itself.
        changes: path → what makes another output of its output.

    Returns:
        Path → first tensor of its output. A submodule that did not run is not in it.
    """
    found: dict[str, Tensor] = {}

    def catch(path: str, change: Change | None) -> Change:
        def caught(output: Tensor) -> Tensor:
            new = output if change is None else change(output)
            if path in wanted:
                found[path] = new
                if len(found) == len(wanted):
                    raise _Arrived
            return new.clone()

        return caught

    given = dict(changes or {})
    paths = dict.fromkeys([*given, *wanted])
    mode = torch.is_grad_enabled()
    try:
        with replaced(module, {path: catch(path, given.get(path)) for path in paths}):
            result_of(module, call)
    except _Arrived:
        pass
    finally:
        torch.set_grad_enabled(mode)
    return found


class Listening(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that hears every operation of a pass; a subclass has `__torch_dispatch__`."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: to keep its compiler out, torch would import it, which takes seconds; nothing compiled runs here."""
        return False
