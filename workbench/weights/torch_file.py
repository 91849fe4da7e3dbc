"""torch files: zip archives and legacy pickles, always with `weights_only=True`."""

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.errors import CheckpointError
from workbench.weights.naming import AVERAGES, unnested
from workbench.weights.weights import TensorInfo

RESAVE = (
    "the file holds more than tensors, and loading it could run code; in the environment that made it run "
    "torch.save(module.state_dict(), path), or safetensors.torch.save_file, and open that"
)


@dataclass(frozen=True)
class Records:
    """What the directory of a zip archive that torch wrote tells: the storages' sizes, and what they are in all."""

    sizes: frozenset[int]
    bytes: int
    compressed: bool


def torch_content(path: Path, *, mapped: bool) -> Mapping[Any, Any]:
    """The dictionary in a torch file, its tensors mapped from the file or in memory.

    Never falls back to unpickling arbitrary objects: what `weights_only=True` refuses stays refused.

    Raises:
        CheckpointError: the file is damaged, hostile, or no dictionary.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        # torch raises one class for a refused object and a broken stream; its text, which ends in the advice to load
        # the file unsafely, is not passed on
        refused = any(word in str(error).casefold() for word in ("unsupported global", "blocked", "allowlist"))
        reason = f"refused: {RESAVE}" if refused else "a damaged pickle: it ends early or makes no sense"
        raise CheckpointError(str(path), None, reason) from error
    except Exception as error:
        raise CheckpointError(str(path), None, f"not a readable torch file: {_first_line(error)}") from error
    if isinstance(content, Tensor):
        raise CheckpointError(str(path), None, "a single tensor without a name; save a dictionary {name: tensor}")
    if not isinstance(content, Mapping):
        raise CheckpointError(str(path), None, f"holds a {type(content).__name__}, expected a dictionary of tensors")
    return content


def zip_records(path: Path) -> Records | None:
    """The storages in a zip archive that torch wrote, by its directory; None if it is another archive.

    Every record's own header is compared with the archive's directory, which mapping the file would skip.

    Raises:
        CheckpointError: the archive is truncated or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for record in archive.infolist():
                archive.open(record).close()
            records = {record.filename: record.file_size for record in archive.infolist()}
            compressed = any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist())
    except Exception as error:  # zipfile raises what it meets: BadZipFile, NotImplementedError, struct and OS errors
        raise CheckpointError(str(path), None, f"truncated or damaged zip archive: {_first_line(error)}") from error
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in records):
        reason = "a TorchScript archive holds code; save the module's state_dict() with torch.save and open that"
        raise CheckpointError(str(path), None, reason)
    if not any(name.endswith("data.pkl") for name in records):
        return None
    sizes = frozenset(size for name, size in records.items() if "data/" in name)
    return Records(sizes, sum(records.values()), compressed)


def mapping_infos(
    content: Mapping[Any, Any], source: str, sizes: frozenset[int] | None = None, *, ema: bool = False
) -> tuple[list[TensorInfo], dict[str, Tensor], list[str]]:
    """Infos, tensors by stored name and notes of a checkpoint dictionary.

    Args:
        content: the dictionary.
        source: its name, for messages.
        sizes: of the records that it was read from. Mapping believes the pickle's sizes; a damaged pickle would
            read its neighbours' bytes.
        ema: take the exponential moving average of the weights that is kept beside them.

    Raises:
        CheckpointError: it holds no tensor, or a tensor whose storage is no record.
    """
    try:
        tensors, path, skipped = unnested(content, ema=ema)
    except KeyError as error:
        raise CheckpointError(
            source, str(error.args[0]), "two keys of the dictionary read like this as text"
        ) from error
    if not tensors:
        held = [f"{str(key)!r} ({type(value).__name__})" for key, value in list(content.items())[:5]]
        inside = [str(key) for key, value in content.items() if isinstance(value, Mapping | torch.nn.Module)]
        hint = f"; open what is inside, as in wb.load(checkpoint[{inside[0]!r}])" if inside else ""
        reason = f"holds no tensors by name (it holds {', '.join(held) or 'nothing'}){hint}"
        raise CheckpointError(source, None, reason)
    for name, tensor in tensors.items():
        if (
            sizes is not None
            and tensor.layout == torch.strided
            and tensor.untyped_storage().nbytes() not in sizes | {0}
        ):
            reason = f"damaged: its storage of {tensor.untyped_storage().nbytes()} bytes is no record of the archive"
            raise CheckpointError(source, name, reason)
    averages = [name for name in skipped if name.rpartition(".")[2] in AVERAGES]
    if ema and not any(key in AVERAGES for key in path):
        raise CheckpointError(source, None, f"ema=True, but it keeps no moving average (none of {', '.join(AVERAGES)})")
    notes = [f"tensors found under {'.'.join(path)!r}"] if path else []
    if averages:
        notes.append(f"a moving average of the weights is kept under {averages[0]!r}: wb.load(…, ema=True) takes it")
    if skipped:
        listed = ", ".join(skipped[:5]) + (f" and {len(skipped) - 5} more" if len(skipped) > 5 else "")
        notes.append(f"left out, not tensors of the model: {listed}")
    return tensor_infos(tensors.items()), tensors, notes


def waste(tensors: Mapping[str, Tensor]) -> list[str]:
    """A note on the bytes of storage that a file holds beyond what its tensors need, or none.

    torch.save writes the whole storage of a tensor, also where the tensor is a few rows of it.
    """
    names: dict[tuple[int, int], str] = {}  # of the first tensor in each storage
    used: dict[tuple[int, int], dict[tuple[Any, ...], int]] = {}
    for name, tensor in tensors.items():
        if tensor.layout == torch.strided and not tensor.is_nested and tensor.device.type != "meta":
            storage = tensor.untyped_storage()
            place = storage.data_ptr(), storage.nbytes()
            view = tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
            names.setdefault(place, name)
            used.setdefault(place, {})[view] = tensor.numel() * tensor.element_size()
    unused = {names[place]: place[1] - sum(views.values()) for place, views in used.items()}
    wasted = sorted(((size, name) for name, size in unused.items() if size > 0), reverse=True)
    if not wasted:
        return []
    listed = ", ".join(f"{name} ({size:,} bytes)" for size, name in wasted[:5])
    more = f" and {len(wasted) - 5} more" if len(wasted) > 5 else ""
    total = sum(size for size, _ in wasted)
    return [f"wasted: {total:,} bytes of storage belong to no tensor, in {listed}{more}; wb.save leaves them out"]


def tensor_infos(
    tensors: Iterable[tuple[str, Tensor]], owners: Mapping[str, tuple[str, bool, int]] | None = None
) -> list[TensorInfo]:
    """Infos of tensors in memory, names of one storage tied to the first of them.

    Args:
        tensors: name and tensor.
        owners: name → class of the owning module, whether it is a buffer there, and the module's groups.
    """
    first: dict[tuple[Any, ...], str] = {}
    infos = []
    for name, tensor in tensors:
        layout = torch.jagged if tensor.is_nested else tensor.layout
        tied = None
        if layout == torch.strided and tensor.numel() and tensor.device.type != "meta":
            memory = (tensor.device, tensor.dtype, tensor.data_ptr(), tensor.shape, tensor.stride())
            place = (*memory, tensor.is_conj(), tensor.is_neg())  # such views read other numbers from it
            tied = first.setdefault(place, name)
        module, buffer, groups = (owners or {}).get(name, (None, False, 1))
        infos.append(
            TensorInfo(
                name=name,
                stored=name,
                shape=() if tensor.is_nested else tuple(tensor.shape),
                dtype=tensor.dtype,
                tied_to=None if tied == name else tied,
                module=module,
                buffer=buffer,
                groups=groups,
                layout=layout,
            )
        )
    return infos


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
