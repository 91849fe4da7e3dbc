"""Saved results: a directory of JSON, CSV and safetensors that reads back bit by bit, and never a pickle."""

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from workbench.errors import ArgumentError, CheckpointError, CheckpointNotFoundError
from workbench.results import Result

R = TypeVar("R", bound=Result)

HEADER, TENSORS = "result.json", "tensors.safetensors"
FORMAT = 1  # raised when an older reader would misread a newer directory


def write(result: Result, target: Path) -> Path:
    """What `Result.save` does; see there."""
    from safetensors.torch import save_file

    target = target.expanduser().resolve()
    if target.exists() and not is_saved_result(target):
        raise ArgumentError(f"{target} exists and is not a saved result; choose another path.")
    if target.exists() and (foreign := sorted({child.name for child in target.iterdir()} - _file_names())):
        raise ArgumentError(f"{target} holds {foreign[0]!r} beside a saved result; move it, or choose another path.")
    if not target.parent.is_dir() and target.parent.exists():
        raise ArgumentError(f"{target.parent} is a file, not a folder; choose another path.")
    tensors = dict(_tensors(result))
    header = {"format": FORMAT, "type": type(result).__name__, "meta": dict(result.meta), "tensors": list(tensors)}
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        (scratch / HEADER).write_text(json.dumps(header, indent=1), encoding="utf-8")
        for name, table in result.tables.items():
            with (scratch / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
                writer.writerow(table)
                writer.writerows(zip(*table.values(), strict=True))
        save_file(tensors, scratch / TENSORS)
        scratch.chmod(0o755)  # mkdtemp's 0700 would hide a shared result from colleagues
        if target.exists():
            old = scratch.with_name(scratch.name + "-old")
            target.rename(old)
            try:
                scratch.rename(target)
            except OSError:
                old.rename(target)
                raise
            shutil.rmtree(old)
        else:
            scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def open_result(path: str | os.PathLike[str]) -> Result:
    """The result that `.save(path)` wrote, equal to it bit by bit.

    Args:
        path: the saved directory.

    Returns:
        A result of the class that was saved.

    Raises:
        CheckpointNotFoundError: there is no saved result at `path`.
        CheckpointError: the directory is damaged, or written by a newer workbench.
    """
    target = Path(path).expanduser()
    if not (target / HEADER).is_file():
        raise CheckpointNotFoundError(str(target), None, "no saved result here (expected a directory with result.json)")
    try:
        header = json.loads((target / HEADER).read_text(encoding="utf-8"))
        kinds = {kind.__name__: kind for kind in _subclasses(Result)}
        if header["format"] > FORMAT or header["type"] not in kinds:
            raise CheckpointError(
                str(target),
                None,
                f"a {header['type']} of format {header['format']}; this workbench reads {sorted(kinds)} up to "
                f"format {FORMAT}: update weight-workbench",
            )
        return _read(kinds[header["type"]], target, header)
    except CheckpointError:
        raise
    except Exception as error:  # JSON, CSV, safetensors and the column contract each raise their own
        raise CheckpointError(str(target), None, f"damaged result: {error}") from error


def _read(kind: type[R], path: Path, header: Mapping[str, Any]) -> R:
    from safetensors.torch import load_file

    tables = {
        name: _read_table(kind, name, path / f"{name}.csv")
        for name in kind.TABLES
        if name not in kind.OPTIONAL or (path / f"{name}.csv").exists()
    }
    stored = load_file(path / TENSORS)
    tensors = {key: stored[key] for key in header["tensors"]}
    extra: dict[str, Any] = {}
    for field in kind.extra_fields():
        inside = {key.split("/", 1)[1]: tensor for key, tensor in tensors.items() if key.startswith(f"{field}/")}
        extra[field] = tensors[field] if field in tensors else inside
    return kind(tables=tables, meta=header["meta"], **extra)


def is_saved_result(path: Path) -> bool:
    """Whether a directory is one that `write` made."""
    try:
        header = json.loads((path / HEADER).read_text(encoding="utf-8"))
        return {"format", "type", "tensors"} <= set(header)
    except (OSError, ValueError, TypeError):
        return False


def saved_result_of(path: Path) -> Path | None:
    """The saved result that a path is, or is the tensors or the header of, under its own name or by a link."""
    if path.is_dir():
        return path if is_saved_result(path) else None
    files = (file for file in (path, path.resolve()) if file.name in (HEADER, TENSORS))
    return next((file.parent for file in files if is_saved_result(file.parent)), None)


def _file_names() -> set[str]:
    """Every name that a saved result's files may have."""
    tables = {f"{table}.csv" for kind in _subclasses(Result) for table in kind.TABLES}
    return {HEADER, TENSORS, *tables}


def _read_table(kind: type[Result], name: str, file: Path) -> dict[str, list[Any]]:
    with file.open(newline="", encoding="utf-8") as lines:
        head, *rows = list(csv.reader(lines))
    declared = kind.COLUMNS[name]
    if head != list(declared):
        lacks, more = [one for one in declared if one not in head], [one for one in head if one not in declared]
        raise ValueError(
            f"{file.name} has other columns than this workbench writes: it lacks {lacks} and has {more}; recompute it"
        )
    cells = zip(*rows, strict=True) if rows else [()] * len(head)
    read = {column: (declared[column].kind, cell) for column, cell in zip(head, cells, strict=True)}
    return {name: [_cell(kind, text) for text in texts] for name, (kind, texts) in read.items()}


def _cell(kind: type, text: str) -> Any:
    if kind is not bool:
        return kind(text)
    if text not in ("True", "False"):
        raise ValueError(f"{text!r} is neither True nor False")
    return text == "True"


def _tensors(result: Result) -> Iterator[tuple[str, Tensor]]:
    """Name and a copy of every tensor: safetensors refuses tensors that share memory."""
    for field in result.extra_fields():
        value = getattr(result, field)
        named = {field: value} if isinstance(value, Tensor) else {f"{field}/{key}": one for key, one in value.items()}
        yield from ((name, tensor.clone(memory_format=torch.contiguous_format)) for name, tensor in named.items())


def _subclasses(kind: type[Result]) -> Iterator[type[Result]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)
