"""`wb.load`: anything that holds weights becomes one kind of mapping."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from workbench.errors import ArgumentError, CheckpointError, SourceTypeError
from workbench.weights.adapter import is_adapter, merged_adapter
from workbench.weights.files import open_file, open_mapping, reader, weight_file
from workbench.weights.hub import HUB
from workbench.weights.naming import COMPILED, PREFIXES, printable, without_prefixes
from workbench.weights.opened import Opened
from workbench.weights.torch_file import tensor_infos
from workbench.weights.weights import TensorInfo, Weights

PACKED = "packed signature"  # the metadata key of a signature in few bits, whose bytes are no weights
QUANTISED = {
    "GPTQ or AWQ": (".qweight", ".qzeros"),
    "bitsandbytes": (".absmax", ".quant_map", ".SCB", ".weight_format"),
}

ModelLike: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | nn.Module | Weights


def load(source: ModelLike, *, base: ModelLike | None = None, ema: bool = False) -> Weights:
    """Opens a checkpoint as a lazy, read-only mapping from names to tensors.

    Nestings (`state_dict`, `model_state_dict`, `model`) are entered and wrapper prefixes (`module.`,
    `_orig_mod.`) removed where all names share them; `.notes` and `.renames` report both. The kind of a file is
    read from its first bytes, not from its name.

    Args:
        source: a safetensors or torch file, a directory with one of them or with shards and their index, the index
            itself, `hf://org/name[@revision]`, a mapping of tensors, an `nn.Module`, or Weights (returned as they
            are).
        base: the model that a PEFT LoRA adapter changes; `source` is then the adapter's folder, and the weights are
            W + (α/r)·BA, computed as they are read.
        ema: take the exponential moving average that a training script kept beside the weights.

    Returns:
        Weights: names and shapes at once, each tensor when it is asked for.

    Raises:
        CheckpointNotFoundError: nothing is there, or a directory without weights.
        CheckpointError: the file is truncated, damaged, hostile or of a kind that is not supported.
        SourceTypeError: `source` is none of the above.
        ArgumentError: `base` without an adapter, or `ema` with what keeps no moving average.

    Cost: the header. A legacy torch pickle or a compressed archive costs its whole size in memory, and says so in
    `.notes`, as does a torch file whose storages hold more than its tensors.

    Source: the safetensors format; PyTorch's `torch.load(weights_only=True)`, never less strict.

    Misreads: safetensors stores no order, so depth is the natural order of the names there (`.ordered` is
    False); for `conv1, bn1, layer1, fc` that order is not the forward pass.

    Example:
        >>> import torch
        >>> weights = load({"module.fc.weight": torch.ones(2, 3)})
        >>> weights["fc.weight"].sum().item(), weights.renames
        (6.0, {'fc.weight': 'module.fc.weight'})
    """
    folder = Path(os.path.expanduser(source)) if isinstance(source, str | os.PathLike) else None  # noqa: PTH111 - leaves an unknown user as it is
    if folder is not None and is_adapter(folder):
        if base is None:
            reason = "a PEFT adapter changes a base model: pass it, as in wb.load(adapter, base=model)"
            raise CheckpointError(str(folder), None, reason)
        return merged_adapter(folder, load(base, ema=ema))
    if base is not None:
        raise ArgumentError(f"base= goes with a PEFT adapter's folder (adapter_config.json); {source!r:.80} is none.")
    if ema and isinstance(source, Weights | nn.Module):
        raise ArgumentError(f"ema=True goes with a checkpoint of a training script; {type(source).__name__} is none.")
    if isinstance(source, Weights):
        return source
    if isinstance(source, nn.Module):
        return _unwrapped(_open_module(source), f"{type(source).__name__} in memory")
    if isinstance(source, Mapping):
        return _unwrapped(open_mapping(source, "a mapping in memory", ema=ema), "a mapping in memory")
    if isinstance(source, str | os.PathLike):
        path = weight_file(source)
        text = os.fspath(source)
        return _unwrapped(open_file(path, ema=ema), text if text.startswith(HUB) else str(path))
    raise SourceTypeError(
        f"a model is a path, a directory, a mapping of tensors or an nn.Module; got {type(source).__name__}."
    )


def _unwrapped(opened: Opened, source: str) -> Weights:
    if PACKED in opened.metadata:
        raise CheckpointError(source, None, "a signature in few bits: open it with wb.Signature.load")
    _refuse_quantised(source, [info.name for info in opened.infos])
    stored = without_prefixes([info.name for info in opened.infos], opened.prefixes)
    names = {original: name for name, original in stored.items()}
    if lost := next((info.name for info in opened.infos if info.name not in names), None):
        reason = "no text (half a surrogate pair), and written out it is another tensor's name; rename one of them"
        raise CheckpointError(source, printable(lost), reason)
    infos = [
        replace(info, name=names[info.name], tied_to=names[info.tied_to] if info.tied_to else None)
        for info in opened.infos
    ]
    notes = list(opened.notes)
    prefix = _shared_prefix(infos[0], (*PREFIXES, *opened.prefixes)) if infos else ""
    if prefix:
        notes.append(f"prefix {prefix!r} removed from every name")
    if inner := sum(printable(info.stored.removeprefix(prefix)) != info.name for info in infos if not info.tied_to):
        notes.append(f"'_orig_mod.' of compiled submodules removed from {inner} names")
    if escaped := [info.name for info in infos if printable(info.stored) != info.stored]:
        notes.append(f"no text (half a surrogate pair), written out as its escape: {', '.join(escaped[:5])}")
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


def _shared_prefix(info: TensorInfo, prefixes: tuple[str, ...]) -> str:
    """The wrapper prefixes in front of a stored name, which `without_prefixes` removed; empty if there were none."""
    rest = info.stored
    while info.name not in (printable(rest), printable(rest.replace(COMPILED, "."))):
        shared = next((prefix for prefix in prefixes if rest.startswith(prefix)), None)
        if shared is None:
            break
        rest = rest.removeprefix(shared)
    return info.stored.removesuffix(rest)


def _refuse_quantised(source: str, names: list[str]) -> None:
    """Quantised storage is no weights: its integers mean nothing without scales that only its own code knows."""
    for form, endings in QUANTISED.items():
        if name := next((name for name in names if name.endswith(endings)), None):
            reason = f"{form} storage: open the checkpoint that was quantised, or dequantise it and save that"
            raise CheckpointError(source, name, reason)


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
