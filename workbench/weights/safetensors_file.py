"""safetensors files: header first, then one tensor at a time into memory of its own."""

import json
import threading
from collections import Counter
from io import FileIO
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from workbench.errors import CheckpointError
from workbench.weights.opened import NATURAL_ORDER, Opened, arranged, recorded, while_unchanged
from workbench.weights.weights import TensorInfo

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    **({"F8_E8M0": torch.float8_e8m0fnu} if hasattr(torch, "float8_e8m0fnu") else {}),
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}


def open_safetensors(path: Path) -> Opened:
    """Opens a safetensors file by its header alone.

    The safetensors library judges the header (length, offsets, overlaps, dtypes); the tensors are then read
    from the file and not mapped, so that memory holds no more than what was asked for.

    Raises:
        CheckpointError: the library refuses the file, or it holds a dtype that torch has not.
    """
    try:  # "np" maps the file read-only; "pt" would map it privately and ask for as much memory
        with safetensors.safe_open(path, framework="np"):
            pass
    except Exception as error:  # the library's own error class is not the only one it raises
        raise CheckpointError(str(path), None, f"not a valid safetensors file: {error}") from error
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        pairs = json.loads(file.read(length), object_pairs_hook=list)
    header = {name: dict(entry) for name, entry in pairs}
    twice = sorted(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
    metadata = header.pop("__metadata__", {})
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise CheckpointError(str(path), name, f"dtype {entry['dtype']} is not one of {sorted(DTYPES)}")

    lent = threading.local()

    def fill(info: TensorInfo, memory: Tensor | None = None) -> Tensor:
        begin, end = header[info.stored]["data_offsets"]
        data = torch.empty(end - begin, dtype=torch.uint8, device="cpu") if memory is None else memory[: end - begin]
        if data.numel():
            try:
                with path.open("rb", buffering=0) as file:
                    file.seek(8 + length + begin)
                    got = _read_into(file, data.numpy().data)
            except OSError as error:
                raise CheckpointError(str(path), info.stored, f"cannot be read any more: {error}") from error
            if got != data.numel():
                raise CheckpointError(str(path), info.stored, f"the file ends after {got} of {data.numel()} bytes")
        return data.view(info.dtype).reshape(info.shape)

    def borrow(info: TensorInfo) -> Tensor:
        begin, end = header[info.stored]["data_offsets"]
        if getattr(lent, "memory", None) is None or lent.memory.numel() < end - begin:
            lent.memory = None  # gone before the larger one comes
            lent.memory = torch.empty(end - begin, dtype=torch.uint8, device="cpu")
            lent.name = None
        if lent.name != info.stored:  # the parts of one tensor, as experts, are borrowed one after the other
            lent.name = None
            fill(info, lent.memory)
            lent.name = info.stored
        memory: Tensor = lent.memory
        return memory[: end - begin].view(info.dtype).reshape(info.shape)

    infos, ordered = arranged(
        [
            TensorInfo(name=name, stored=name, shape=tuple(entry["shape"]), dtype=DTYPES[entry["dtype"]])
            for name, entry in header.items()
        ],
        recorded(metadata),
    )
    notes = [] if ordered else [NATURAL_ORDER]
    notes += [f"the header names {name} twice; the last entry counts" for name in twice]
    return Opened(
        infos=infos,
        read=while_unchanged(path, fill),
        notes=notes,
        ordered=ordered,
        metadata=metadata,
        borrow=while_unchanged(path, borrow),
    )


def _read_into(file: FileIO, memory: memoryview) -> int:
    """Fills memory from a file, which may give less than is asked for at a time; the bytes that came."""
    done = 0
    while done < len(memory) and (got := file.readinto(memory[done:])):
        done += got
    return done
