"""`wb.load`: anything that holds weights becomes one kind of mapping."""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from workbench.errors import CheckpointError, CheckpointNotFoundError, SourceTypeError, nearest
from workbench.weights.naming import without_prefixes
from workbench.weights.safetensors_file import Opened, open_safetensors
from workbench.weights.torch_file import mapping_infos, record_sizes, tensor_infos, torch_content
from workbench.weights.weights import TensorInfo, Weights

ModelLike: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | nn.Module | Weights

SUFFIXES = (".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt")
LEGACY_NOTE = "a legacy torch pickle cannot be mapped: the whole file ({:.1f} MB) is in memory"


def load(source: ModelLike) -> Weights:
    """Opens a checkpoint as a lazy, read-only mapping from names to tensors.

    Nestings (`state_dict`, `model_state_dict`, `model`) are entered and wrapper prefixes (`module.`,
    `_orig_mod.`) removed where all names share them; `.notes` and `.renames` report both. The kind of a file is
    read from its first bytes, not from its name.

    Args:
        source: a safetensors or torch file, a directory with one of them, a mapping of tensors, an
            `nn.Module`, or Weights (returned as they are).

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
        return _unwrapped(_open_mapping(source, "a mapping in memory"), "a mapping in memory")
    if isinstance(source, str | os.PathLike):
        path = _weight_file(source)
        return _unwrapped(_open_file(path), str(path))
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
    return Weights(infos, opened.read, source=source, notes=notes, ordered=opened.ordered, shared=opened.shared)


def _open_module(module: nn.Module) -> Opened:
    tensors = module.state_dict()
    if lazy := next((name for name, tensor in tensors.items() if is_lazy(tensor)), None):
        reason = "an uninitialised lazy parameter: run the module once, so that it knows its shapes"
        raise CheckpointError(f"{type(module).__name__} in memory", lazy, reason)
    owners = {
        f"{path}.{name}" if path else name: (type(owner).__name__, buffer)
        for path, owner in module.named_modules(remove_duplicate=False)
        for named, buffer in ((owner.named_parameters, False), (owner.named_buffers, True))
        for name, _ in named(recurse=False, remove_duplicate=False)
    }
    dense = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
    notes = [f"extra state left out: {name}" for name in tensors if name not in dense]
    return Opened(
        tensor_infos(dense.items(), owners), _reader(dense, f"{type(module).__name__} in memory"), notes, True, True
    )


def _open_mapping(content: Mapping[Any, Any], source: str, sizes: set[int] | None = None) -> Opened:
    infos, tensors, notes = mapping_infos(content, source, sizes)
    return Opened(infos, _reader(tensors, source), notes, True, True)


def _reader(tensors: Mapping[str, Tensor], source: str) -> Callable[[TensorInfo], Tensor]:
    def read(info: TensorInfo) -> Tensor:
        tensor = tensors[info.stored]
        if tensor.device.type == "meta":
            raise CheckpointError(source, info.stored, "on the meta device: it has a shape but no data")
        return tensor.detach()

    return read


def _while_unchanged(path: Path, read: Callable[[TensorInfo], Tensor]) -> Callable[[TensorInfo], Tensor]:
    """Reading from a mapped file that refuses once the file has changed: a map of what is gone ends the process."""
    opened = path.stat()

    def checked(info: TensorInfo) -> Tensor:
        try:
            now = path.stat()
        except OSError as error:
            raise CheckpointError(str(path), info.stored, f"cannot be read any more: {error.strerror}") from error
        if (now.st_ino, now.st_size, now.st_mtime_ns) != (opened.st_ino, opened.st_size, opened.st_mtime_ns):
            raise CheckpointError(str(path), info.stored, "the file changed since it was opened; open it again")
        return read(info)

    return checked


def _open_file(path: Path) -> Opened:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise CheckpointError(str(path), None, "neither a file nor a directory, but a pipe or a device")
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(str(path), None, f"cannot be read: {error.strerror}") from error
    if size == 0:
        raise CheckpointError(str(path), None, "the file is empty")
    if head[:4] == b"GGUF":
        raise CheckpointError(str(path), None, "GGUF holds quantised blocks, not weights; open the original checkpoint")
    if head[:4] == b"PK\x03\x04":
        sizes = record_sizes(path)
        if sizes is None:
            raise CheckpointError(str(path), None, "a zip archive, but not one that torch.save wrote (no data.pkl)")
        opened = _open_mapping(torch_content(path, legacy=False), str(path), sizes)
        return replace(opened, read=_while_unchanged(path, opened.read))
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        return open_safetensors(path)
    if head[:1] == b"\x80":
        opened = _open_mapping(torch_content(path, legacy=True), str(path))
        return replace(opened, notes=[*opened.notes, LEGACY_NOTE.format(size / 1e6)])
    raise CheckpointError(
        str(path),
        None,
        f"neither safetensors nor a torch file (it begins with {head!r}); expected {', '.join(SUFFIXES)}",
    )


def _weight_file(source: str | os.PathLike[str]) -> Path:
    text = os.fspath(source)
    if text.startswith("hf://"):
        raise CheckpointError(text, None, "hub ids are not supported yet; download the files and give their directory")
    if not text:
        raise CheckpointNotFoundError("''", None, "an empty path; '.' is the current folder")
    try:
        path = Path(text).expanduser()
        if not path.exists():
            others = (child.name for child in path.parent.iterdir()) if path.parent.is_dir() else ()
            near = nearest(path.name, (name for name in others if name != path.name))
            raise CheckpointNotFoundError(str(path), None, f"no such file or directory.{near}")
        if not path.is_dir():
            return path
        files = sorted(child for child in path.iterdir() if child.suffix in SUFFIXES and child.is_file())
    except CheckpointError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # no permission, a name too long, no such user, a NUL
        raise CheckpointError(text, None, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    chosen = [child for child in files if child.suffix == ".safetensors"] or files
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        seen = ", ".join(sorted(child.name for child in path.iterdir())[:5]) or "nothing"
        reason = f"a directory without weights (no {', '.join(SUFFIXES)}); it holds {seen}"
        raise CheckpointNotFoundError(str(path), None, reason)
    listed = ", ".join(child.name for child in chosen[:5])
    raise CheckpointError(str(path), None, f"a directory with {len(chosen)} weight files ({listed}); name one of them")
