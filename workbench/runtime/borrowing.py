"""A module lent for a computation: other weights inside, everything as before afterwards."""

import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from workbench.errors import ArgumentError, nearest
from workbench.weights import Weights
from workbench.weights.naming import without_prefixes


def check_module(module: object) -> None:
    """Refuses what cannot be lent.

    Raises:
        ArgumentError: not a module, a wrapper or script that hides its tensors, or parameters without a shape yet.
    """
    if not isinstance(module, nn.Module):
        raise ArgumentError(f"module is {type(module).__name__}: expected an nn.Module.")
    if isinstance(module, nn.DataParallel):
        raise ArgumentError("module is nn.DataParallel, which computes on copies of it: pass module.module.")
    if isinstance(module, torch.jit.ScriptModule):
        raise ArgumentError("module is a ScriptModule, whose weights cannot be exchanged: pass the Python module.")
    if lazy := next((name for name, tensor in module.named_parameters() if is_lazy(tensor)), None):
        raise ArgumentError(f"{name_of(module)} has the uninitialised lazy parameter {lazy!r}: run it once before.")


def name_of(module: nn.Module) -> str:
    """The class of a module, as messages name it."""
    return type(module).__name__


@contextmanager
def lent(
    module: nn.Module, weights: Mapping[str, Tensor] | None, device: torch.device, dtype: torch.dtype | None = None
) -> Iterator[None]:
    """The module in evaluation mode on `device`, with `weights` for its own; then everything as it was.

    With a `dtype` its real numbers are cast to it, and none of them asks for gradients.

    Only references are exchanged, in every owner once, so modules and tensors under several names stay shared.
    `torch.func.functional_call` is not used: with a module under two names it leaves the exchanged tensors behind.
    Buffers are copies, so what a forward pass writes into them is dropped. Attributes that a forward pass sets are put
    back as well, and so are the global random states of torch, numpy and Python.

    Raises:
        ArgumentError: `weights` are not the module's; raised before anything is touched.
    """
    exchanged = _exchanged(module, weights, device, dtype)
    snapshot = [(vars(part), dict(vars(part))) for part in module.modules()]
    snapshot += [(store, dict(store)) for part in module.modules() for store in _stores(part)]
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global state is what is put back
    used = device.type == "cuda" or torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = range(torch.cuda.device_count() if used else 0)
    with torch.random.fork_rng(devices=cuda), torch.no_grad():
        try:
            for part in module.modules():
                part.training = False  # not .eval(): a subclass may do more there than set the mode
                for store in _stores(part):
                    for key, tensor in store.items():
                        store[key] = exchanged.get(id(tensor), tensor)
            yield
        finally:
            for store, before in snapshot:
                store.clear()
                store.update(before)
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


@contextmanager
def uncompiled() -> Iterator[None]:
    """Without code made by torch.compile, which takes long to make for a pass or two and calls no new hooks."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and importing it takes seconds
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def unfused() -> Iterator[None]:
    """Every submodule runs and calls its hooks: without torch's fast path of attention, and without compiled code."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with uncompiled():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _stores(part: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    return part._parameters, part._buffers


def _exchanged(
    module: nn.Module, weights: Mapping[str, Tensor] | None, device: torch.device, dtype: torch.dtype | None
) -> dict[int, Tensor]:
    """Identity of one of the module's tensors → what stands in for it."""
    own, names, buffers, needed = {}, dict[int, list[str]](), set(), set()
    for path, part in module.named_modules(remove_duplicate=False):
        for store in _stores(part):
            for key, tensor in store.items():
                if tensor is None:
                    continue
                name = f"{path}.{key}" if path else key
                own[name] = tensor
                names.setdefault(id(tensor), []).append(name)
                if store is part._buffers:
                    buffers.add(id(tensor))
                if key not in part._non_persistent_buffers_set:
                    needed.add(name)
    given = {} if weights is None else _by_own_name(module, weights, own)
    if weights is not None:
        _check_names(module, given, own, names, needed)
    exchanged = {}
    for identity, tied in names.items():
        tensor = own[tied[0]]
        found = [name for name in tied if name in given]
        if found and weights is not None:
            new = _fitting(weights, given, found, tensor)
        elif tensor.device.type == "meta":
            raise ArgumentError(
                f"{name_of(module)}'s {tied[0]!r} is on the meta device and has no values: pass weights."
            )
        else:
            new = tensor
        kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        if identity in buffers:
            exchanged[identity] = new.detach().to(device, kind, copy=True)
        elif found or new.device != device or dtype is not None:
            exchanged[identity] = new.detach().to(device, kind)
    return exchanged


def _by_own_name(module: nn.Module, weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, str]:
    """The module's name → the weights' name; `wb.load` removes wrapper prefixes that the module may carry."""
    if not isinstance(weights, Mapping):
        raise ArgumentError(
            f"weights are {type(weights).__name__}: expected a mapping of names to tensors, such as "
            "wb.load(path) or module.state_dict()."
        )
    if not any(name in own for name in weights):
        stored = without_prefixes(own)
        if any(name in stored for name in weights):
            return {stored.get(name, name): name for name in weights}
    return {name: name for name in weights}


def _check_names(
    module: nn.Module,
    given: Mapping[str, str],
    own: Mapping[str, Tensor],
    names: Mapping[int, list[str]],
    needed: set[str],
) -> None:
    missing = [
        tied[0] for tied in names.values() if needed.intersection(tied) and not any(name in given for name in tied)
    ]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ArgumentError(
            f"weights lack {missing[0]!r}{more}, which {name_of(module)} has: pass every parameter and buffer, "
            f"such as {{**module.state_dict(), **weights}}.{nearest(missing[0], given.values())}"
        )
    extra = [name for name in given if name not in own]
    if extra:
        more = f" (and {len(extra) - 1} more)" if len(extra) > 1 else ""
        raise ArgumentError(
            f"weights have {given[extra[0]]!r}{more}, which {name_of(module)} has not: leave it out, or pass the "
            f"module that it belongs to.{nearest(extra[0], own)}"
        )


def _fitting(weights: Mapping[str, Tensor], given: Mapping[str, str], found: list[str], own: Tensor) -> Tensor:
    """The given tensor for one of the module's, checked against it and against the names it is tied to."""
    tensors: list[Tensor] = []
    for name in (given[name] for name in found):
        if isinstance(weights, Weights):
            _check_shape(name, weights.infos[name].shape, own)  # from the header, before anything is read
        tensor = weights[name]  # not .borrowed: all of them are needed at a time, and a loan ends with the next
        if not isinstance(tensor, Tensor):
            raise ArgumentError(f"weights[{name!r}] is {type(tensor).__name__}: expected a tensor.")
        _check_shape(name, tuple(tensor.shape), own)
        if _kind(tensor.dtype) != _kind(own.dtype):
            raise ArgumentError(
                f"weights[{name!r}] is {tensor.dtype}: the module has {own.dtype} there, and a cast would not keep "
                "what the numbers mean; convert it first (dequantise, or take the module's own value)."
            )
        if tensors and not _same(tensors[0], tensor):
            raise ArgumentError(
                f"weights[{given[found[0]]!r}] and weights[{name!r}] differ, but are one tensor in the module: "
                "pass one of the two names, or untie the module."
            )
        tensors.append(tensor)
    return tensors[0]


def _check_shape(name: str, shape: tuple[int, ...], own: Tensor) -> None:
    if shape != tuple(own.shape):
        raise ArgumentError(
            f"weights[{name!r}] has the shape {list(shape)}: the module expects {list(own.shape)}; pass weights of "
            "the same architecture."
        )


def _kind(dtype: torch.dtype) -> str:
    """What a number of this dtype means; float8 is storage that needs a scale from elsewhere."""
    if dtype.is_complex or dtype == torch.bool:
        return "complex" if dtype.is_complex else "bool"
    return ("float8" if dtype.itemsize == 1 else "floating") if dtype.is_floating_point else "integer"


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape hold the same numbers, NaN equal to NaN."""
    if a.device == b.device and a.data_ptr() == b.data_ptr() and a.stride() == b.stride() and a.dtype == b.dtype:
        return True
    b = b.to(a.device)
    return bool(((a == b) | ((a != a) & (b != b))).all())
