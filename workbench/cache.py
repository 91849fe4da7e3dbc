"""Finished units of work on disk, found again by what they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
import xxhash
from torch import Tensor

from workbench.errors import ArgumentError
from workbench.version import __version__

FORMAT = 4  # raised when older entries would be misread
ENDING = ".unit"
CHECKSUM_BYTES = 16  # in front of a safetensors file


@dataclass(frozen=True)
class Entry:
    """One finished unit: plain values that JSON keeps bit by bit, and tensors."""

    values: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


class Cache:
    """A folder of finished units; several processes may share it.

    A unit's file is named by a hash of everything that its numbers depend on: the analysis, its parameters, the content
    fingerprint of the tensor, the device, and the versions of workbench and torch. It begins with a checksum of its
    name and bytes: an entry that was cut off, changed or renamed is computed again, and a folder that cannot be written
    to loses no run; both are counted in `facts`. Nothing is ever deleted: remove the folder to empty it. A checksum is
    no signature: use a folder that only those whom you trust can write to.

    Args:
        folder: where the units lie; made when the first one is kept.

    Raises:
        ArgumentError: `folder` is a file, lies in one, or is no path.

    Example:
        >>> import tempfile
        >>> cache = Cache(tempfile.mkdtemp())
        >>> once = cache.through({"unit": "fc1"}, lambda: Entry({"alpha": 2.5}, {}))
        >>> again = cache.through({"unit": "fc1"}, lambda: Entry({"alpha": 0.0}, {}))
        >>> again.values["alpha"], cache.facts()["found"], cache.facts()["computed"]
        (2.5, 1, 1)
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
            raise ArgumentError(f"cache={folder!r}: expected the path of a folder, or None for no cache.")
        try:
            self.folder = Path(folder).expanduser().resolve()
            with suppress(FileNotFoundError, NotADirectoryError):
                self.folder.stat()  # raises what exists() may keep to itself
            places = (self.folder, *self.folder.parents)
            file = next((place for place in places if place.exists() and not place.is_dir()), None)
        except (OSError, RuntimeError, TypeError, ValueError) as error:  # too long, an unknown user, bytes, a NUL
            reason = getattr(error, "strerror", None) or error
            raise ArgumentError(f"cache={folder!r:.80} cannot be a folder ({reason}); choose another path.") from error
        if file is not None:
            what = "is a file" if file == self.folder else f"lies in {file.name!r}, which is a file"
            raise ArgumentError(f"cache={str(folder)!r} {what}: expected a folder; choose another path.")
        self._lock = Lock()
        self._counts = {"found": 0, "computed": 0, "damaged": 0, "not_kept": 0}

    def through(self, key: Mapping[str, Any], compute: Callable[[], Entry]) -> Entry:
        """The entry kept under `key`, or what `compute` gives, which is kept from then on.

        Args:
            key: what the numbers depend on: plain values that JSON can write.
            compute: makes the entry; what it raises is passed on, and nothing is kept.
        """
        path = self._path(key)
        try:
            entry = _read(path)
        except (FileNotFoundError, NotADirectoryError):
            return self._kept(path, compute(), "computed")
        except Exception:  # cut off, changed, not ours: all of them are computed again
            return self._kept(path, compute(), "damaged")
        self._count("found")
        return entry

    def facts(self) -> dict[str, Any]:
        """Units found, computed, computed again because their entry was damaged, and not kept, for `Result.meta`."""
        with self._lock:
            return dict(self._counts)

    def _path(self, key: Mapping[str, Any]) -> Path:
        own = {"format": FORMAT, "workbench": __version__, "torch": str(torch.__version__)}
        text = json.dumps({**own, **key}, sort_keys=True)
        return self.folder / f"{hashlib.blake2b(text.encode(), digest_size=20).hexdigest()}{ENDING}"

    def _kept(self, path: Path, entry: Entry, how: str) -> Entry:
        self._count(how)
        try:
            self._write(path, entry)
        except OSError:  # a full disk must not lose the run
            self._count("not_kept")
        return entry

    def _write(self, path: Path, entry: Entry) -> None:
        from safetensors.torch import save

        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in entry.tensors.items()}
        data = save(tensors, {"values": json.dumps(dict(entry.values))})
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = self.folder / f".{secrets.token_hex(8)}"  # with the rights of any file, so that others can share it
        try:
            with scratch.open("xb") as file:
                file.write(_checksum(path, data))
                file.write(data)
            scratch.replace(path)  # whole or not at all, also when two processes keep the same unit
        finally:
            scratch.unlink(missing_ok=True)

    def _count(self, how: str) -> None:
        with self._lock:
            self._counts[how] += 1


def _checksum(path: Path, data: bytes) -> bytes:
    digest = xxhash.xxh3_128(path.name.encode())
    digest.update(data)
    return digest.digest()


def _read(path: Path) -> Entry:
    """A kept entry, read into memory of its own.

    Raises:
        FileNotFoundError: there is none.
        Exception: what is there cannot be read.
    """
    from safetensors.torch import load

    with path.open("rb") as file:
        checksum, data = file.read(CHECKSUM_BYTES), file.read()
    if checksum != _checksum(path, data):
        raise ValueError("other bytes than were kept")
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return Entry(json.loads(header["__metadata__"]["values"]), load(data))
