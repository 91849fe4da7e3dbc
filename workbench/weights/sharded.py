"""Checkpoints in several files, held together by an index of names."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from torch import Tensor

from workbench.errors import CheckpointError
from workbench.weights.opened import NATURAL_ORDER, RECORD, Opened, arranged, recorded
from workbench.weights.weights import TensorInfo

INDEX_ENDINGS = (".safetensors.index.json", ".bin.index.json", ".pt.index.json")


def open_sharded(index: Path, open_file: Callable[[Path], Opened]) -> Opened:
    """Opens the files that an index names, each by its header.

    Args:
        index: `*.safetensors.index.json` or `*.bin.index.json`, with `{"weight_map": {tensor: file}}`.
        open_file: opens one file.

    Raises:
        CheckpointError: the index is damaged, names a file outside its folder or one that is missing, or places a
            tensor in a file that does not hold it.
    """
    weight_map, metadata, twice = _read_index(index)
    first = {file: name for name, file in reversed(weight_map.items())}  # the tensor that messages about a file name
    shards = {file: open_file(_inside(index, file, first[file])) for file in dict.fromkeys(weight_map.values())}
    held = {
        file: {info.name: info for info in opened.infos if info.name == info.stored} for file, opened in shards.items()
    }
    for name, file in weight_map.items():
        if name not in held[file]:
            raise CheckpointError(str(index), name, f"the index places it in {file}, which does not hold it")
    extra = [f"{name} in {file}" for file, infos in held.items() for name in infos if weight_map.get(name) != file]
    infos, ordered = arranged(_indexed(weight_map, held), recorded(metadata))

    def read(info: TensorInfo) -> Tensor:
        return shards[weight_map[info.stored]].read(info)

    def borrow(info: TensorInfo) -> Tensor:
        shard = shards[weight_map[info.stored]]
        return (shard.borrow or shard.read)(info)

    notes = [f"{len(shards)} files, held together by {index.name}"]
    notes += [] if ordered else [NATURAL_ORDER]
    notes += [f"the index names {name} twice; the last entry counts" for name in twice]
    notes += [f"not in the index, left out: {', '.join(extra[:5])}{' …' if len(extra) > 5 else ''}"] if extra else []
    notes += sorted({note for opened in shards.values() for note in opened.notes if note != NATURAL_ORDER})
    return Opened(
        infos=infos,
        read=read,
        notes=notes,
        ordered=ordered,
        shared=any(opened.shared for opened in shards.values()),
        borrow=borrow,
        metadata={key: str(value) for key, value in metadata.items() if key != RECORD},
    )


def _indexed(weight_map: Mapping[str, str], held: Mapping[str, Mapping[str, TensorInfo]]) -> list[TensorInfo]:
    """The tensors that an index names; of tied names in a file the first that the index has stands for all."""
    first: dict[tuple[str, str], str] = {}
    infos = []
    for name, file in weight_map.items():
        tied = held[file][name].tied_to or name
        tied = tied if weight_map.get(tied) == file else first.setdefault((file, tied), name)
        infos.append(replace(held[file][name], tied_to=None if tied == name else tied))
    return infos


def _read_index(index: Path) -> tuple[dict[str, str], dict[str, object], list[str]]:
    twice: list[str] = []

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        twice.extend(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        return dict(pairs)

    try:
        content = json.loads(index.read_text(encoding="utf-8"), object_pairs_hook=once)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(str(index), None, f"not a readable index: {error}") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(str(index), None, 'an index without "weight_map": {tensor: file}')
    for name, file in weight_map.items():
        if not isinstance(file, str):
            raise CheckpointError(str(index), name, f"the index gives {file!r} for its file, expected a name")
    metadata = content.get("metadata")
    return weight_map, metadata if isinstance(metadata, dict) else {}, sorted(twice)


def _inside(index: Path, file: str, key: str) -> Path:
    """The path of a shard beside its index.

    Raises:
        CheckpointError: the name leads elsewhere, or to nothing.
    """
    parts = PurePosixPath(file).parts + PureWindowsPath(file).parts
    if PurePosixPath(file).is_absolute() or PureWindowsPath(file).drive or ".." in parts or "\\" in file:
        raise CheckpointError(
            str(index), key, f"the index places it in {file!r}, outside the checkpoint's folder: refused"
        )
    if file.endswith(INDEX_ENDINGS):
        raise CheckpointError(str(index), key, f"the index places it in {file}, another index; expected a weight file")
    path = index.parent / file
    try:
        there = path.is_file()
    except (OSError, ValueError) as error:  # a name too long, a NUL
        reason = (
            f"the index places it in {file!r:.80}, which cannot be read: {getattr(error, 'strerror', None) or error}"
        )
        raise CheckpointError(str(index), key, reason) from error
    if not there:
        raise CheckpointError(str(index), key, f"the index places it in {file}, which is missing")
    return path
