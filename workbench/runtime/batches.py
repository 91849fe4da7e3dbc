"""Batches of any form: what is refused as data, how a batch reaches a device, and how one that fails is named."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from workbench.errors import ArgumentError, WorkbenchError

LABELS = "labels"  # the key of the targets in a batch that is a dict, as in Hugging Face's models


class EvaluationError(WorkbenchError, RuntimeError):
    """A batch could not be evaluated.

    Attributes:
        batch: the batch's number, counted from 0.
        shapes: the shapes of its tensors, as text.
        reason: what is wrong.
    """

    def __init__(self, batch: int, shapes: str, reason: str) -> None:
        super().__init__(f"batch {batch}, counted from 0 ({shapes}): {reason}")
        self.batch, self.shapes, self.reason = batch, shapes, reason

    def __reduce__(self) -> tuple[type["EvaluationError"], tuple[int, str, str]]:
        return type(self), (self.batch, self.shapes, self.reason)


def check_data(data: object) -> None:
    """Refuses data that cannot be walked a second time, or that is no collection of batches.

    Raises:
        ArgumentError: an iterator or generator, a function, one batch, a data set of samples, or nothing.
    """
    if isinstance(data, Iterator):
        raise ArgumentError(
            f"data is a one-shot {type(data).__name__}: it would be exhausted after one evaluation. "
            "Pass something that can be walked again: a DataLoader, or list(data) if it fits in memory."
        )
    if isinstance(data, Tensor | Mapping | str):
        raise ArgumentError(f"data is one {type(data).__name__}: expected an iterable of batches; pass [data].")
    if isinstance(data, torch.utils.data.Dataset) and not isinstance(data, Iterable):
        raise ArgumentError(
            f"data is a data set of samples ({type(data).__name__}): expected batches; pass DataLoader(data, 64)."
        )
    if not isinstance(data, Iterable):
        hint = "; pass a DataLoader, a list of batches, or an object whose __iter__ gives a new iterator"
        raise ArgumentError(f"data is {type(data).__name__}: expected a re-iterable of batches{hint}.")
    if isinstance(data, list | tuple) and not len(data):
        raise ArgumentError("data is empty: expected at least one batch.")


def iter_batches(data: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """Number and batch, one by one.

    Raises:
        EvaluationError: loading a batch failed.
        ArgumentError: there was none.
    """
    number = -1
    try:
        for number, batch in enumerate(data):  # noqa: B007 - the number is used after the loop
            yield number, batch
    except Exception as error:
        raise EvaluationError(number + 1, "not loaded", f"loading it failed: {_told(error)}") from error
    if number < 0:
        raise ArgumentError(
            "data gave no batch: it is empty, or wraps an iterator that is exhausted. "
            "Pass something that can be walked again: a DataLoader, or a list of batches."
        )


@contextmanager
def naming(number: int, batch: object) -> Iterator[None]:
    """Turns what fails inside into an EvaluationError that names the batch.

    Raises:
        EvaluationError: whatever was raised, except what stops the program, as `Cancelled` does.
    """
    try:
        yield
    except Exception as error:
        raise EvaluationError(number, shapes(batch), _told(error)) from error


def arguments(
    batch: object, device: torch.device, dtype: torch.dtype | None = None
) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """What the module is called with: positional and named arguments, copied to the device.

    A dict's items are named arguments, its labels left out; of a tuple or list the first element is the input. The
    copies keep the caller's data as it is where a module works in place. With a `dtype` real numbers are cast to it.

    Raises:
        ArgumentError: the batch is none of these.
    """
    if isinstance(batch, Mapping):
        return (), {
            name: _moved(value, device, dtype) if isinstance(value, Tensor) else value
            for name, value in batch.items()
            if name != LABELS
        }
    inputs = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(inputs, Tensor):
        raise ArgumentError(f"expected a tensor, a tuple (inputs, targets) or a dict of tensors; got {_kind(batch)}.")
    return (_moved(inputs, device, dtype),), {}


def targets_of(batch: object, device: torch.device) -> Tensor:
    """The targets of a batch: the second of a pair, or a dict's labels, copied to the device.

    Raises:
        ArgumentError: the batch has none.
    """
    if isinstance(batch, Mapping):
        labels = batch.get(LABELS)
        if not isinstance(labels, Tensor):
            raise ArgumentError(f"a dict needs a tensor of targets under {LABELS!r}; got the keys {list(batch)}.")
        return _moved(labels, device)
    if not (isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)):
        raise ArgumentError(f"expected a pair (inputs, targets) of tensors or a dict; got {_kind(batch)}.")
    targets: Tensor = batch[1]
    return _moved(targets, device)


def size_of(batch: object) -> int:
    """The number of samples: the length of the first axis of the batch's first tensor.

    Raises:
        ArgumentError: there is no tensor, it has no axis, or it has no samples.
    """
    first = next(_tensors(batch), None)
    if first is None or first.ndim == 0 or not len(first):
        raise ArgumentError("expected samples along the first axis of the first tensor; there are none.")
    return len(first)


def first_tensor(outputs: object) -> Tensor:
    """The tensor that a module's output stands for: itself, `.logits`, or the first tensor of a tuple or mapping.

    Raises:
        ArgumentError: there is none.
    """
    if isinstance(outputs, Tensor):
        return outputs
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    parts = outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, tuple | list) else ()
    for part in parts:
        if isinstance(part, Tensor):
            return part
    raise ArgumentError(
        f"the output is {_kind(outputs)}: expected a tensor, a tuple with one, or an object with .logits."
    )


def with_first_tensor(outputs: Any, tensor: Tensor) -> Any:
    """The same kind of output with `tensor` where `first_tensor` finds one; the given output stays as it is."""
    if isinstance(outputs, Tensor):
        return tensor
    if isinstance(outputs, Mapping):
        key = (
            "logits"
            if isinstance(outputs.get("logits"), Tensor)
            else next(key for key, part in outputs.items() if isinstance(part, Tensor))
        )
        changed: Any = copy.copy(outputs)
        changed[key] = tensor
        return changed
    if isinstance(getattr(outputs, "logits", None), Tensor):
        if hasattr(outputs, "_replace"):  # a namedtuple with a field of that name
            return outputs._replace(logits=tensor)
        other = copy.copy(outputs)
        other.logits = tensor
        return other
    place = next(place for place, part in enumerate(outputs) if isinstance(part, Tensor))
    parts = [*outputs[:place], tensor, *outputs[place + 1 :]]
    return type(outputs)(*parts) if hasattr(outputs, "_fields") else type(outputs)(parts)


def shapes(batch: object) -> str:
    """The shapes of a batch's tensors, as text."""
    if isinstance(batch, Mapping):
        return ", ".join(f"{name} {shapes(value)}" for name, value in batch.items()) or "an empty dict"
    if isinstance(batch, tuple | list):
        return ", ".join(shapes(part) for part in batch) or "an empty tuple"
    return str(list(batch.shape)) if isinstance(batch, Tensor) else type(batch).__name__


def _tensors(batch: object) -> Iterator[Tensor]:
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else (batch,)
    yield from (part for part in parts if isinstance(part, Tensor))


def _moved(value: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    return value.detach().to(device, dtype if value.is_floating_point() else None, copy=True)


def _kind(value: object) -> str:
    inner = f" of {', '.join(type(part).__name__ for part in value)}" if isinstance(value, tuple | list) else ""
    return f"{type(value).__name__}{inner}"


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {error}"
