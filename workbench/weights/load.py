"""`wb.load`: anything that holds weights becomes one kind of mapping."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from workbench.errors import CheckpointError, SourceTypeError
from workbench.weights.files import open_file, open_mapping, reader, weight_file
from workbench.weights.naming import without_prefixes
from workbench.weights.opened import Opened
from workbench.weights.torch_file import tensor_infos
from workbench.weights.weights import Weights

ModelLike: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | nn.Module | Weights


def load(source: ModelLike) -> Weights:
    """Opens a checkpoint as a lazy, read-only mapping from names to tensors.

    Nestings (`state_dict`, `model_state_dict`, `model`) are entered and wrapper prefixes (`module.`,
    `_orig_mod.`) removed where all names share them; `.notes` and `.renames` report both. The kind of a file is
    read from its first bytes, not from its name.

    Args:
        source: a safetensors or torch file, a directory with one of them or with shards and their index, the index
            itself, a mapping of tensors, an `nn.Module`, or Weights (returned as they are).

    Returns:
        Weights: names and shapes at once, each tensor when it is asked for.

    Raises:
        CheckpointNotFoundError: nothing is there, or a directory without weights.
        CheckpointError: the file is truncated, damaged, hostile or of a kind that is not supported.
        SourceTypeError: `source` is none of the above.

    Cost: the header. A legacy torch pickle costs its file size in memory, and says so in `.notes`.

    Source: the safetensors format; PyTorch's `torch.load(weights_only=True)`, never less strict.

    Misreads: safetensors stores no order, so depth is the natural order of the names there (`.ordered` is
    False); for `conv1, bn1, layer1, fc` that order is not the forward pass.

    Example:
        >>> import torch
        >>> weights = load({"module.fc.weight": torch.ones(2, 3)})
        >>> weights["fc.weight"].sum().item(), weights.renames
        (6.0, {'fc.weight': 'module.fc.weight'})
    """
    if isinstance(source, Weights):
        return source
    if isinstance(source, nn.Module):
        return _unwrapped(_open_module(source), f"{type(source).__name__} in memory")
    if isinstance(source, Mapping):
        return _unwrapped(open_mapping(source, "a mapping in memory"), "a mapping in memory")
    if isinstance(source, str | os.PathLike):
        path = weight_file(source)
        return _unwrapped(open_file(path), str(path))
    raise SourceTypeError(
        f"a model is a path, a directory, a mapping of tensors or an nn.Module; got {type(source).__name__}."
    )


def _unwrapped(opened: Opened, source: str) -> Weights:
    stored = without_prefixes(info.name for info in opened.infos)
    names = {original: name for name, original in stored.items()}
    infos = [
        replace(info, name=names[info.name], tied_to=names[info.tied_to] if info.tied_to else None)
        for info in opened.infos
    ]
    notes = list(opened.notes)
    if infos and infos[0].name != infos[0].stored:
        notes.append(f"prefix {infos[0].stored.removesuffix(infos[0].name)!r} removed from every name")
    return Weights(
        infos,
        opened.read,
        source=source,
        notes=notes,
        ordered=opened.ordered,
        shared=opened.shared,
        metadata=opened.metadata,
        borrow=opened.borrow,
    )


def _groups(module: nn.Module) -> int:
    groups = getattr(module, "groups", 1)
    return groups if isinstance(groups, int) else 1


def _open_module(module: nn.Module) -> Opened:
    tensors = module.state_dict()
    if lazy := next((name for name, tensor in tensors.items() if is_lazy(tensor)), None):
        reason = "an uninitialised lazy parameter: run the module once, so that it knows its shapes"
        raise CheckpointError(f"{type(module).__name__} in memory", lazy, reason)
    owners = {
        f"{path}.{name}" if path else name: (type(owner).__name__, buffer, _groups(owner))
        for path, owner in module.named_modules(remove_duplicate=False)
        for named, buffer in ((owner.named_parameters, False), (owner.named_buffers, True))
        for name, _ in named(recurse=False, remove_duplicate=False)
    }
    dense = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
    notes = [f"extra state left out: {name}" for name in tensors if name not in dense]
    name = f"{type(module).__name__} in memory"
    return Opened(infos=tensor_infos(dense.items(), owners), read=reader(dense, name), notes=notes, shared=True)
