"""What every reader of a source hands over, and what the workbench writes beside the tensors."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from workbench.errors import CheckpointError
from workbench.weights.naming import natural_key
from workbench.weights.weights import TensorInfo

NATURAL_ORDER = "depth is the natural order of the names: the file stores no order"
NATURAL = "natural"  # recorded as the order where the source's own order is the natural one
RECORD = "workbench"  # the metadata key under which wb.save keeps the order of depth, ties and provenance


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An open source.

    Attributes:
        infos: the tensors it holds, in order of depth.
        read: reads one of them.
        notes: what was noticed on opening.
        ordered: whether the order is the source's own.
        shared: whether reading hands out the source's own memory, and not a copy.
        metadata: what the file says of itself, as text.
        prefixes: prefixes that count as wrappers' in this source.
        borrow: reads into memory that the thread's next borrowing overwrites; None where `read` is as cheap.
    """

    infos: Sequence[TensorInfo]
    read: Callable[[TensorInfo], Tensor]
    notes: Sequence[str] = ()
    ordered: bool = True
    shared: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    prefixes: Sequence[str] = ()
    borrow: Callable[[TensorInfo], Tensor] | None = None


def recorded(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `wb.save` wrote into a file's metadata; empty for files of others, and for a damaged record."""
    record = metadata.get(RECORD)
    try:
        found = json.loads(record) if isinstance(record, str) else record
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}


def arranged(infos: Sequence[TensorInfo], record: Mapping[str, Any]) -> tuple[list[TensorInfo], bool]:
    """The tensors in order of depth, second names of tied tensors restored; and whether the order was recorded.

    Args:
        infos: the stored tensors, in any order.
        record: what `recorded` found; what does not fit the tensors is not believed.
    """
    found = {info.name: info for info in infos}
    ties = record.get("ties")
    for name, target in ties.items() if isinstance(ties, Mapping) else ():
        if name not in found and target in found:
            found[name] = replace(found[target], name=name, tied_to=target)
    order = record.get("order")
    natural = sorted(found, key=natural_key)
    if order == NATURAL:
        return [found[name] for name in natural], True
    if isinstance(order, list) and sorted(map(str, order)) == sorted(found):
        return [found[name] for name in order], True
    return [found[name] for name in natural], False


def while_unchanged(path: Path, read: Callable[[TensorInfo], Tensor]) -> Callable[[TensorInfo], Tensor]:
    """Reading from a file that refuses once the file has changed.

    A map of what is gone would end the process, and old offsets in a new file would read other numbers.
    """
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
