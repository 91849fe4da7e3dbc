"""Finished units of work on disk, found again by what they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from workbench.errors import ArgumentError
from workbench.version import __version__

FORMAT = 1  # raised when older entries would be misread
ENDING = ".unit.safetensors"


@dataclass(frozen=True)
class Entry:
    """One finished unit: plain values that JSON keeps bit by bit, and tensors."""

    values: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


class Cache:
    """A folder of finished units; several processes may share it.

    A unit's file is named by a hash of everything that its numbers depend on: the analysis, its parameters, the content
    fingerprint of the tensor, the device, and the versions of workbench and torch. An entry that cannot be read is
    computed again, and a folder that cannot be written to loses no run: both are counted in `facts`. Nothing is ever
    deleted: remove the folder to empty it.

    Args:
        folder: where the units lie; made when the first one is kept.

    Raises:
        ArgumentError: `folder` is a file, or no path.

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
        self.folder = Path(folder).expanduser().resolve()
        if self.folder.exists() and not self.folder.is_dir():
            raise ArgumentError(f"cache={str(folder)!r} is a file: expected a folder; choose another path.")
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
        except FileNotFoundError:
            return self._kept(path, compute(), "computed")
        except Exception:  # cut off, of another format, not ours: all of them are computed again
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
        handle, scratch = tempfile.mkstemp(prefix=".", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(scratch).replace(path)  # whole or not at all, also when two processes keep the same unit
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise

    def _count(self, how: str) -> None:
        with self._lock:
            self._counts[how] += 1


def _read(path: Path) -> Entry:
    """A kept entry, read into memory of its own.

    Raises:
        FileNotFoundError: there is none.
        Exception: what is there cannot be read.
    """
    from safetensors.torch import load

    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return Entry(json.loads(header["__metadata__"]["values"]), load(data))
