"""`wb.save`: weights as safetensors, tensor by tensor, so that an earlier file is replaced whole or not at all."""

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from workbench.errors import ArgumentError
from workbench.progress import ProgressCallback, check_progress, reporter, told_whole
from workbench.results import short_source, versions
from workbench.weights.load import ModelLike, load
from workbench.weights.naming import natural_key
from workbench.weights.opened import NATURAL, RECORD
from workbench.weights.safetensors_file import DTYPES
from workbench.weights.sharded import INDEX_ENDINGS
from workbench.weights.weights import TensorInfo, Weights
from workbench.weights.written_behind import written_behind

NAMES = {dtype: name for name, dtype in DTYPES.items()}
SHARD_BYTES = 5_000_000_000  # as the transformers library splits
ALIGNMENT = 8  # bytes: where the data of a safetensors file begins
Borrow: TypeAlias = Callable[[TensorInfo], Tensor]  # for reading only, until the next
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def save(
    weights: ModelLike,
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
    metadata: Mapping[str, str] | None = None,
    progress: ProgressCallback | None = None,
) -> Path:
    """Writes weights as safetensors: one file, or a folder whose checkpoint is split above a size.

    A tensor that goes by several names is stored once; `wb.load` gives all names back, and the order of depth. What
    stood at the path before is replaced by a rename once everything is written: a crash or a full disk leaves it.

    Args:
        weights: anything `wb.load` takes.
        path: a file that ends in `.safetensors`, or a folder, which then holds `model.safetensors`, or shards and
            `model.safetensors.index.json`.
        dtype: floating tensors are cast to it; None keeps every dtype.
        shard_bytes: in a folder, the size in bytes above which the checkpoint is split (default 5 GB, as in the
            transformers library). A tensor is never split.
        metadata: text to keep in the file.
        progress: called before each tensor with a Progress, and once at the end; it may raise `wb.Cancelled`, and what
            stood at the path stays.

    Returns:
        The path.

    Raises:
        ArgumentError: a dtype that safetensors has not, a sparse tensor, a wrong path or metadata.
        CheckpointError: the weights cannot be read.
        OSError: the disk is full or refuses.
        Cancelled: the callback asked for it.

    Cost: one pass over the bytes; one tensor in memory at a time, and 64 MB that are written while the next one is
    read or computed.

    Source: the safetensors format; the index of the transformers library.

    Misreads: other tools see tied tensors under their first name only; frameworks tie the rest again from their
    configuration.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = save({"b": torch.ones(2), "a": torch.zeros(3)}, f"{folder}/net.safetensors")
        ...     list(load(file))
        ['b', 'a']
    """
    check_progress(progress)
    opened = load(weights)
    target = Path(path).expanduser()
    _check(opened, target, dtype, shard_bytes, metadata)
    stored = [info for info in opened.infos.values() if info.tied_to is None]
    record, text = _record(opened), {"format": "pt", **(metadata or {})}
    report, places = reporter(progress), {info.name: place for place, info in enumerate(stored)}

    def borrow(info: TensorInfo) -> Tensor:
        report(info.name, places[info.name], len(stored))
        return opened.borrowed(info.name)

    _replaced(target, stored, borrow, dtype, text, record, shard_bytes)
    return told_whole(target, lambda: report("", len(stored), len(stored)))


def _replaced(
    target: Path,
    stored: Sequence[TensorInfo],
    borrow: Borrow,
    dtype: torch.dtype | None,
    text: Mapping[str, str],
    record: Mapping[str, Any],
    shard_bytes: int,
) -> None:
    """Writes one file, or a folder's, in place of what stood there."""
    if target.suffix == ".safetensors":
        with replacing(target) as scratch:
            _write(borrow, stored, scratch, dtype, {**text, RECORD: json.dumps(record)})
        return
    target.mkdir(parents=True, exist_ok=True)
    before = _weight_files(target)
    shards = _shards(stored, dtype, shard_bytes)
    if len(shards) == 1:
        kept = [target / SINGLE]
        with replacing(kept[0]) as scratch:
            _write(borrow, stored, scratch, dtype, {**text, RECORD: json.dumps(record)})
    else:
        kept = _write_shards(borrow, shards, target, dtype, text, record)
    for file in before:
        if file not in kept:
            file.unlink()


def _write_shards(
    borrow: Borrow,
    shards: Sequence[Sequence[TensorInfo]],
    folder: Path,
    dtype: torch.dtype | None,
    text: Mapping[str, str],
    record: Mapping[str, Any],
) -> list[Path]:
    """Shards under names that no earlier checkpoint has, then the index that makes them the checkpoint."""
    tag = secrets.token_hex(4)
    files: list[Path] = []
    try:
        for number, infos in enumerate(shards, start=1):
            files.append(folder / f"model-{tag}-{number:05d}-of-{len(shards):05d}.safetensors")
            _write(borrow, infos, files[-1], dtype, text)
        size = sum(_size(info, dtype) for infos in shards for info in infos)
        index = {
            "metadata": {**text, "total_size": size, RECORD: record},
            "weight_map": {info.name: file.name for file, infos in zip(files, shards, strict=True) for info in infos},
        }
        with replacing(folder / INDEX) as scratch:
            scratch.write_text(json.dumps(index, indent=1), encoding="utf-8")
    except BaseException:
        for file in files:
            file.unlink(missing_ok=True)
        raise
    return [*files, folder / INDEX]


def _write(
    borrow: Borrow, infos: Sequence[TensorInfo], path: Path, dtype: torch.dtype | None, metadata: Mapping[str, str]
) -> None:
    """One safetensors file: header, then the tensors in order."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for info in infos:
        end = offset + _size(info, dtype)
        header[info.name] = {
            "dtype": NAMES[_dtype(info, dtype)],
            "shape": list(info.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    head = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    head += b" " * (-len(head) % ALIGNMENT)
    with written_behind(path, 8 + len(head) + offset) as file:
        file.write(len(head).to_bytes(8, "little"))
        file.write(head)
        for info in infos:
            tensor = borrow(info).to(device="cpu", dtype=_dtype(info, dtype)).contiguous()
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)


def _check(
    weights: Weights, target: Path, dtype: torch.dtype | None, shard_bytes: int, metadata: Mapping[str, str] | None
) -> None:
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point and dtype in NAMES):
        raise ArgumentError(f"dtype={dtype!r}: expected a floating dtype such as torch.bfloat16, or None to keep each.")
    if not isinstance(shard_bytes, int) or shard_bytes <= 0:
        raise ArgumentError(f"shard_bytes={shard_bytes!r}: expected a positive number of bytes.")
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(value, str) or key in (RECORD, "format"):
            raise ArgumentError(
                f"metadata[{key!r}]={value!r}: expected text under a key other than {RECORD!r} and 'format'."
            )
    if target.suffix != ".safetensors" and (target.is_file() or target.suffix):
        raise ArgumentError(f"{target}: expected a name that ends in .safetensors, or a folder (without an ending).")
    if target.suffix == ".safetensors" and not target.parent.is_dir():
        raise ArgumentError(f"{target.parent} is not a folder; make it first, or save elsewhere.")
    for info in weights.infos.values():
        if info.layout != torch.strided:
            raise ArgumentError(
                f"{info.name} is a {info.layout} tensor; safetensors stores dense ones: call .to_dense()."
            )
        if info.dtype not in NAMES:
            raise ArgumentError(f"{info.name} is {info.dtype}, which safetensors has not; cast it first.")


def _record(weights: Weights) -> dict[str, Any]:
    """Order, ties and provenance; the order in full only where the names do not tell it."""
    names = list(weights)
    record: dict[str, Any] = {
        "source": short_source(weights.source),
        "fingerprint": weights.fingerprint,
        "versions": versions(),
        "ties": {info.name: info.tied_to for info in weights.infos.values() if info.tied_to},
    }
    if weights.ordered:
        record["order"] = NATURAL if names == sorted(names, key=natural_key) else names
    return record


def _dtype(info: TensorInfo, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and info.dtype.is_floating_point else info.dtype


def _size(info: TensorInfo, dtype: torch.dtype | None) -> int:
    return info.elements * _dtype(info, dtype).itemsize


def _shards(infos: Sequence[TensorInfo], dtype: torch.dtype | None, limit: int) -> list[list[TensorInfo]]:
    """Consecutive tensors, at most `limit` bytes together; a larger tensor stands alone."""
    shards: list[list[TensorInfo]] = [[]]
    filled = 0
    for info in infos:
        size = _size(info, dtype)
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(info)
        filled += size
    return shards


def _weight_files(folder: Path) -> list[Path]:
    """The files of the checkpoint that a folder holds, which the new one replaces."""
    files = [folder / SINGLE, folder / INDEX]
    if (folder / INDEX).is_file():
        try:
            mapped = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
            files += [folder / name for name in sorted({Path(str(name)).name for name in mapped})]
        except (ValueError, KeyError, AttributeError, TypeError):
            pass  # a damaged index names no files of its own
    return [file for file in files if file.is_file() and file.name.endswith((".safetensors", *INDEX_ENDINGS))]


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write to beside `target`, which becomes `target` at the end, or is gone."""
    scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        yield scratch
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
