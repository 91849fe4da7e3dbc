"""torch files: zip archives and legacy pickles, always with `weights_only=True`."""

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.errors import CheckpointError
from workbench.weights.naming import unnested
from workbench.weights.weights import TensorInfo

RESAVE = (
    "the file holds more than tensors, and loading it could run code; in the environment that made it run "
    "torch.save(module.state_dict(), path), or safetensors.torch.save_file, and open that"
)


def torch_content(path: Path, *, legacy: bool) -> Mapping[str, Any]:
    """The dictionary in a torch file, its tensors mapped from the file (zip) or in memory (legacy pickle).

    Never falls back to unpickling arbitrary objects: what `weights_only=True` refuses stays refused.

    Raises:
        CheckpointError: the file is damaged, hostile, or no dictionary.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=not legacy)
    except pickle.UnpicklingError as error:
        # torch raises the same class for a refused object and for a broken stream; its text tells them apart
        refused = "Unsupported" in str(error) or "Unsupported global" in str(error) or "allowlist" in str(error)
        reason = f"refused: {RESAVE}" if refused else f"damaged pickle: {_first_line(error)}"
        raise CheckpointError(str(path), None, reason) from error
    except Exception as error:
        raise CheckpointError(str(path), None, f"not a readable torch file: {_first_line(error)}") from error
    if isinstance(content, Tensor):
        raise CheckpointError(str(path), None, "a single tensor without a name; save a dictionary {name: tensor}")
    if not isinstance(content, Mapping):
        raise CheckpointError(str(path), None, f"holds a {type(content).__name__}, expected a dictionary of tensors")
    return content


def is_torch_zip(path: Path) -> bool:
    """Whether a zip archive is one that torch wrote.

    Every record's own header is compared with the archive's directory, which mapping the file would skip.

    Raises:
        CheckpointError: the archive is truncated or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for record in archive.infolist():
                archive.open(record).close()
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except Exception as error:  # zipfile raises what it meets: BadZipFile, NotImplementedError, struct and OS errors
        raise CheckpointError(str(path), None, f"truncated or damaged zip archive: {_first_line(error)}") from error


def mapping_infos(content: Mapping[str, Any], source: str) -> tuple[list[TensorInfo], dict[str, Tensor], list[str]]:
    """Infos, tensors by stored name and notes of a checkpoint dictionary.

    Raises:
        CheckpointError: it holds no tensor.
    """
    tensors, path, skipped = unnested(content)
    if not tensors:
        keys = ", ".join(repr(str(key)) for key in list(content)[:5]) or "nothing"
        raise CheckpointError(source, None, f"holds no tensors (its keys: {keys})")
    notes = [f"tensors found under {'.'.join(path)!r}"] if path else []
    if skipped:
        listed = ", ".join(skipped[:5]) + (f" and {len(skipped) - 5} more" if len(skipped) > 5 else "")
        notes.append(f"left out, not tensors of the model: {listed}")
    return tensor_infos(tensors.items()), tensors, notes


def tensor_infos(
    tensors: Iterable[tuple[str, Tensor]], owners: Mapping[str, tuple[str, bool]] | None = None
) -> list[TensorInfo]:
    """Infos of tensors in memory, names of one storage tied to the first of them.

    Args:
        tensors: name and tensor.
        owners: name → class of the owning module and whether it is a buffer there.
    """
    first: dict[tuple[Any, ...], str] = {}
    infos = []
    for name, tensor in tensors:
        tied = None
        if tensor.layout == torch.strided and tensor.numel() and tensor.device.type != "meta":
            place = (tensor.device, tensor.dtype, tensor.data_ptr(), tensor.shape, tensor.stride())
            tied = first.setdefault(place, name)
        module, buffer = (owners or {}).get(name, (None, False))
        infos.append(
            TensorInfo(
                name=name,
                stored=name,
                shape=tuple(tensor.shape),
                dtype=tensor.dtype,
                tied_to=None if tied == name else tied,
                module=module,
                buffer=buffer,
            )
        )
    return infos


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
