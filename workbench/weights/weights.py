"""A checkpoint as a lazy, read-only mapping from names to tensors."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType
from typing import Any

import torch
import xxhash
from torch import Tensor

from workbench.errors import LayerNotFoundError, nearest
from workbench.results import many, short_source, versions


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """What a header tells about one tensor, without reading it.

    Attributes:
        name: the name after wrapper prefixes were removed.
        stored: the name in the source.
        shape: the shape.
        dtype: the dtype in the source.
        tied_to: the first name of the same storage, if this one is another name of it.
        module: class name of the module that owns the tensor, if the source is a module.
        buffer: True if that module calls it a buffer and not a parameter.
        groups: groups of the module, if it is a convolution.
        layout: torch's memory layout; sparse and nested tensors have others than strided.
    """

    name: str
    stored: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    tied_to: str | None = None
    module: str | None = None
    buffer: bool = False
    groups: int = 1
    layout: torch.layout = torch.strided

    @property
    def elements(self) -> int:
        """Number of elements; a tied name has none of its own."""
        return 0 if self.tied_to else prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of storage; a tied name has none of its own."""
        return self.elements * self.dtype.itemsize


class Weights(Mapping[str, Tensor]):
    """Tensors by name, read when asked for, in order of depth.

    Every access reads anew and hands out a copy: writing into it changes neither the checkpoint nor the model.

    Attributes:
        source: where it comes from, as text.
        infos: name → shape, dtype, stored name and ties, known without reading a tensor.
        notes: what was renamed, left out or guessed on opening, a sentence each.
        metadata: what the file says of itself, as text.
        ordered: True if the source itself tells the order of its tensors; else it is the names' natural order.
    """

    def __init__(
        self,
        infos: Sequence[TensorInfo],
        read: Callable[[TensorInfo], Tensor],
        *,
        source: str,
        notes: Sequence[str] = (),
        ordered: bool = True,
        shared: bool = False,
        metadata: Mapping[str, str] | None = None,
        borrow: Callable[[TensorInfo], Tensor] | None = None,
    ) -> None:
        self.source = source
        self.infos: Mapping[str, TensorInfo] = MappingProxyType({info.name: info for info in infos})
        self.notes = tuple(notes)
        self.ordered = ordered
        self.metadata: Mapping[str, str] = MappingProxyType(dict(metadata or {}))
        self._read, self._shared, self._borrow = read, shared, borrow or read

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.infos:
            raise LayerNotFoundError(f"{self.source} has no tensor {name!r}." + nearest(str(name), self.infos))
        tensor = self._read(self.infos[name])
        return tensor.clone() if self._shared else tensor

    def borrowed(self, name: str) -> Tensor:
        """The tensor for reading only, and only until this thread borrows the next from the same weights.

        Where the source is in memory this is the source's own tensor; from a file it is read into memory that is used
        again, because fresh memory for every tensor costs more than the reading.
        """
        return self._borrow(self.infos[name])

    def snapshot(self) -> "Weights":
        """The same weights, copied where the source is in memory, as a module that is trained on."""
        if not self._shared:
            return self
        kept = {name: self[name] for name, info in self.infos.items() if info.tied_to is None}

        def read(info: TensorInfo) -> Tensor:
            return kept[info.tied_to or info.name]

        return self._again(self.infos.values(), read=read, borrow=read)

    def only(self, names: Iterable[str]) -> "Weights":
        """Some of the tensors, read as before; a tie to one that is left out is one to the first that is not.

        Args:
            names: of tensors, in any order.

        Raises:
            LayerNotFoundError: one is not there.
        """
        wanted = set(names)
        if missing := next((name for name in wanted if name not in self.infos), None):
            raise LayerNotFoundError(f"{self.source} has no tensor {missing!r}." + nearest(missing, self.infos))
        heads: dict[str, str] = {}  # first name of a storage → its first name among those that are wanted
        kept = []
        for info in self.infos.values():
            if info.name in wanted:
                head = heads.setdefault(info.tied_to or info.name, info.name)
                kept.append(replace(info, tied_to=None if head == info.name else head))
        return self._again(kept)

    def told_as(
        self, source: str, *, notes: Sequence[str] = (), like: "Weights | None" = None, ordered: bool | None = None
    ) -> "Weights":
        """The same tensors with another account of them: where they come from, and whose they are.

        Args:
            source: where they come from, as text.
            notes: what is to be said of them.
            like: weights with the same names, whose modules own the tensors; None leaves that as it is.
            ordered: whether the names are in the source's order; None leaves it as it is.
        """
        infos = list(self.infos.values())
        if like is not None:
            owners = [like.infos[info.name] for info in infos]
            infos = [
                replace(info, module=owner.module, groups=owner.groups, buffer=owner.buffer)
                for info, owner in zip(infos, owners, strict=True)
            ]
        return self._again(infos, source=source, notes=notes, ordered=self.ordered if ordered is None else ordered)

    def _again(self, infos: Iterable[TensorInfo], **changed: Any) -> "Weights":
        """Weights with other infos, which are read by what they were."""
        own = self.infos
        read, borrow = self._read, self._borrow
        kept: dict[str, Any] = {
            "read": lambda info: read(own[info.name]),
            "borrow": lambda info: borrow(own[info.name]),
            "source": self.source,
            "notes": self.notes,
            "ordered": self.ordered,
            "shared": self._shared,
            "metadata": self.metadata,
        }
        return Weights(list(infos), **(kept | changed))

    def __contains__(self, name: object) -> bool:
        return name in self.infos  # the mixin's version would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)

    @property
    def renames(self) -> Mapping[str, str]:
        """New name → name in the source, for every tensor whose name was changed."""
        return {info.name: info.stored for info in self.infos.values() if info.name != info.stored}

    @property
    def elements(self) -> int:
        """Number of elements in all, tied tensors counted once."""
        return sum(info.elements for info in self.infos.values())

    @property
    def bytes(self) -> int:
        """Bytes in all, tied tensors counted once."""
        return sum(info.bytes for info in self.infos.values())

    @property
    def fingerprint(self) -> str:
        """A 128-bit fingerprint of names, shapes and dtypes: equal for every copy of one architecture."""
        rows = sorted(f"{info.name} {list(info.shape)} {info.dtype}" for info in self.infos.values())
        return hashlib.blake2b("\n".join(rows).encode(), digest_size=16).hexdigest()

    def provenance(self, function: str, **parameters: Any) -> dict[str, Any]:
        """What `Result.meta` says of the model and the call, to which an analysis adds what it used."""
        return {
            "function": function,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "elements": self.elements,
            "ordered": self.ordered,
            "notes": list(self.notes),
            "parameters": parameters,
            "versions": versions(),
        }

    def __repr__(self) -> str:
        size = f"{many(self.elements, 'element')}, {self.bytes / 1e6:,.1f} MB"
        lines = [
            f"Weights of {short_source(self.source)}: {many(len(self), 'tensor')}, {size}",
            *(f"note: {note}" for note in self.notes),
            "next: wb.layers(weights), wb.spectrum(weights)",
        ]
        return "\n".join(lines)


def content_fingerprint(tensor: Tensor) -> str:
    """A 128-bit fingerprint (XXH3) of a tensor's shape, dtype and bytes.

    Args:
        tensor: a dense tensor on any device.

    Returns:
        32 hexadecimal digits.

    Cost: one pass over the bytes, about the speed of memory.
    """
    data = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    digest = xxhash.xxh3_128(f"{list(tensor.shape)} {tensor.dtype}".encode())
    digest.update(data.data)
    return digest.hexdigest()
