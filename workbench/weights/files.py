"""Where a checkpoint's weights are, and what kind of file they are in, told from the first bytes."""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from workbench.errors import CheckpointError, CheckpointNotFoundError, nearest
from workbench.stored import saved_result_of
from workbench.weights.hub import HUB, hub_file
from workbench.weights.naming import LIGHTNING, LIGHTNING_PREFIX
from workbench.weights.opened import Opened, while_unchanged
from workbench.weights.safetensors_file import open_safetensors
from workbench.weights.sharded import INDEX_ENDINGS, open_sharded
from workbench.weights.torch_file import mapping_infos, torch_content, waste, zip_records
from workbench.weights.weights import TensorInfo

SUFFIXES = (".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt")
IN_MEMORY = "a {} cannot be mapped: the whole file ({:.1f} MB) is in memory"


def open_mapping(
    content: Mapping[Any, Any],
    source: str,
    sizes: frozenset[int] | None = None,
    *,
    ema: bool = False,
    file: bool = False,
) -> Opened:
    """Opens a checkpoint dictionary; of one from a file, it is noted what the file holds in vain."""
    infos, tensors, notes = mapping_infos(content, source, sizes, ema=ema)
    notes += waste(tensors) if file else []
    prefixes = (LIGHTNING_PREFIX,) if LIGHTNING in content else ()
    return Opened(infos=infos, read=reader(tensors, source), notes=notes, shared=True, prefixes=prefixes)


def reader(tensors: Mapping[str, Tensor], source: str) -> Callable[[TensorInfo], Tensor]:
    """Reads tensors that lie in memory; what is handed out is the source's own memory (but for conj() views)."""

    def read(info: TensorInfo) -> Tensor:
        tensor = tensors[info.stored]
        if tensor.device.type == "meta":
            raise CheckpointError(source, info.stored, "on the meta device: it has a shape but no data")
        return tensor.detach().resolve_conj().resolve_neg()

    return read


def open_file(path: Path, *, ema: bool = False) -> Opened:
    """Opens one file, or the files that an index names.

    Raises:
        CheckpointError: it cannot be read, or is of a kind that is not supported.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise CheckpointError(str(path), None, "neither a file nor a directory, but a pipe or a device")
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(str(path), None, f"cannot be read: {error.strerror}") from error
    if ema and (path.name.endswith(INDEX_ENDINGS) or head[8:9] == b"{"):
        raise CheckpointError(
            str(path), None, "ema=True, but only torch files keep a moving average beside the weights"
        )
    if path.name.endswith(INDEX_ENDINGS):
        return open_sharded(path, open_file)
    if size == 0:
        raise CheckpointError(str(path), None, "the file is empty")
    if head[:4] == b"GGUF":
        raise CheckpointError(str(path), None, "GGUF holds quantised blocks, not weights; open the original checkpoint")
    if head[:4] == b"PK\x03\x04":
        records = zip_records(path)
        if records is None:
            raise CheckpointError(str(path), None, "a zip archive, but not one that torch.save wrote (no data.pkl)")
        opened = _open_torch(path, records.sizes, mapped=not records.compressed, ema=ema)
        if records.compressed:  # torch would map the compressed bytes and take them for numbers
            return replace(
                opened, notes=[*opened.notes, IN_MEMORY.format("compressed zip archive", records.bytes / 1e6)]
            )
        return replace(opened, read=while_unchanged(path, opened.read))
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        return open_safetensors(path)
    if head[:1] == b"\x80":
        opened = _open_torch(path, None, mapped=False, ema=ema)
        return replace(opened, notes=[*opened.notes, IN_MEMORY.format("legacy torch pickle", size / 1e6)])
    raise CheckpointError(
        str(path),
        None,
        f"neither safetensors nor a torch file (it begins with {head!r}); expected {', '.join(SUFFIXES)}",
    )


def _open_torch(path: Path, sizes: frozenset[int] | None, *, mapped: bool, ema: bool) -> Opened:
    content = torch_content(path, mapped=mapped)
    return open_mapping(content, str(path), sizes, ema=ema, file=True)


def weight_file(source: str | os.PathLike[str]) -> Path:
    """The file that a path means: itself, or the one in a directory; an index of shards before single files.

    Raises:
        CheckpointNotFoundError: nothing is there.
        CheckpointError: the directory holds several, or cannot be read; it is a saved result, or its tensors.
    """
    text = os.fspath(source)
    if text.startswith(HUB):
        return hub_file(text)
    if not text:
        raise CheckpointNotFoundError("''", None, "an empty path; '.' is the current folder")
    try:
        path = Path(text).expanduser()
        if not path.exists():
            others = (child.name for child in path.parent.iterdir()) if path.parent.is_dir() else ()
            near = nearest(path.name, (name for name in others if name != path.name))
            raise CheckpointNotFoundError(str(path), None, f"no such file or directory.{near}")
        if (result := saved_result_of(path)) is not None:
            what = "a saved result" if path.is_dir() else "a file of a saved result"
            raise CheckpointError(str(path), None, f"{what}, and no model: wb.open_result({str(result)!r}) opens it")
        if not path.is_dir():
            return path
        files = sorted(child for child in path.iterdir() if child.is_file())
    except CheckpointError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # no permission, a name too long, no such user, a NUL
        raise CheckpointError(text, None, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    ranks = (*INDEX_ENDINGS, ".safetensors", SUFFIXES)
    chosen = next((found for rank in ranks if (found := [child for child in files if child.name.endswith(rank)])), [])
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        seen = ", ".join(sorted(child.name for child in path.iterdir())[:5]) or "nothing"
        reason = f"a directory without weights (no {', '.join(SUFFIXES)}); it holds {seen}"
        raise CheckpointNotFoundError(str(path), None, reason)
    listed = ", ".join(child.name for child in chosen[:5])
    raise CheckpointError(str(path), None, f"a directory with {len(chosen)} weight files ({listed}); name one of them")
