"""A signature as one safetensors file, exact or packed, that opens again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.errors import ArgumentError, CheckpointError, CheckpointNotFoundError
from workbench.linalg.pieces import flat_pieces
from workbench.progress import ProgressCallback
from workbench.signatures.quantised import check_bits, packed, payload, unpacked
from workbench.weights import TensorInfo, Weights, save
from workbench.weights.load import PACKED
from workbench.weights.safetensors_file import open_safetensors

FORMAT = 1  # raised when an older reader would misread a newer file
EXACT = "signature"  # the metadata key of an exact file, which wb.load opens too; PACKED is that of a packed one
STATISTICS = "statistics/"  # before the names of running statistics

Numbers = Mapping[str, Mapping[str, float]]
Contents = tuple[Weights, dict[str, Tensor], Numbers, dict[str, Any]]


class StoredNumbers(Mapping[str, Mapping[str, float]]):
    """The numbers of a packed signature; each norm is that of what is stored, found when it is asked for."""

    def __init__(self, declared: Numbers, weights: Weights) -> None:
        self._declared, self._weights = declared, weights
        self._norms: dict[str, float] = {}

    def __getitem__(self, name: str) -> Mapping[str, float]:
        if name not in self._norms:
            pieces = flat_pieces(self._weights.borrowed(name))
            self._norms[name] = math.sqrt(math.fsum(float(piece.square().sum()) for (piece,) in pieces))
        return {**self._declared[name], "norm": self._norms[name]}

    def __iter__(self) -> Iterator[str]:
        return iter(self._declared)

    def __len__(self) -> int:
        return len(self._declared)


def fewest_bits(*bits: int | None) -> int | None:
    """Of what numbers went through, the fewest bits; None if all was exact."""
    return min((one for one in bits if one is not None), default=None)


def is_signature(path: Path) -> bool:
    """Whether a file is one that `Signature.save` wrote."""
    path = path.expanduser()
    return (
        path.suffix == ".safetensors" and path.is_file() and bool({PACKED, EXACT} & {*open_safetensors(path).metadata})
    )


def written(
    weights: Weights,
    statistics: Mapping[str, Tensor],
    numbers: Mapping[str, Mapping[str, float]],
    meta: Mapping[str, Any],
    path: Path,
    bits: int | None,
    progress: ProgressCallback | None,
) -> Path:
    """What `Signature.save` does; see there."""
    if path.suffix != ".safetensors":
        raise ArgumentError(f"{path}: expected a name that ends in .safetensors.")
    if bits is not None:
        check_bits(bits)
    extra = {f"{STATISTICS}{name}": tensor for name, tensor in statistics.items()}
    infos = [
        info if bits is None else replace(info, shape=(payload(_elements(info, weights), bits),), dtype=torch.uint8)
        for info in weights.infos.values()
    ]

    def read(info: TensorInfo) -> Tensor:
        if info.name in extra:
            return extra[info.name]
        tensor = weights.borrowed(info.name)
        if bits is None:
            return tensor
        try:
            return packed(tensor, bits)
        except ArgumentError as error:
            raise ArgumentError(f"{info.name!r}: {error}") from error

    told = {
        "format": FORMAT,
        "bits": bits,
        "source": weights.source,
        "tensors": {
            info.name: {"shape": list(info.shape), "dtype": str(info.dtype).removeprefix("torch.")}
            | {key: number for key, number in numbers[info.name].items() if number == number}
            for info in weights.infos.values()
        },
        "meta": {**meta, "bits": fewest_bits(bits, meta.get("bits"))},
    }
    infos += [
        TensorInfo(name=name, stored=name, shape=tuple(tensor.shape), dtype=tensor.dtype)
        for name, tensor in extra.items()
    ]
    whole = Weights(infos, read, source=weights.source, ordered=weights.ordered)
    kept = {EXACT if bits is None else PACKED: json.dumps(told, ensure_ascii=False)}
    return save(whole, path, metadata=kept, progress=progress)


def opened(path: Path) -> Contents:
    """What `Signature.load` does: tensors, running statistics, numbers and meta."""
    path = path.expanduser()
    if not path.is_file():
        raise CheckpointNotFoundError(str(path), None, "there is no such file")
    file = open_safetensors(path)
    text = file.metadata.get(PACKED, file.metadata.get(EXACT))
    if text is None:
        raise CheckpointError(str(path), None, "no signature: expected a file that Signature.save wrote")
    try:
        told = json.loads(text)
        if told["format"] > FORMAT:
            raise CheckpointError(str(path), None, f"format {told['format']}: update weight-workbench")
        return _contents(
            path, told, {info.name: info for info in file.infos}, Weights(file.infos, file.read, source="")
        )
    except CheckpointError:
        raise
    except Exception as error:  # JSON, types and missing keys each raise their own
        raise CheckpointError(str(path), None, f"damaged signature: {error!r}") from error


def _contents(path: Path, told: Mapping[str, Any], stored: Mapping[str, TensorInfo], raw: Weights) -> Contents:
    bits, declared = told["bits"], told["tensors"]
    if bits is not None:
        check_bits(bits)
    infos = []
    for name, own in declared.items():
        dtype, shape = getattr(torch, own["dtype"]), tuple(own["shape"])
        infos.append(replace(stored[name], shape=shape, dtype=dtype))
        as_stored = shape if bits is None else (payload(_product(shape), bits),)
        if stored[name].shape != as_stored or stored[name].dtype != (dtype if bits is None else torch.uint8):
            raise CheckpointError(str(path), name, f"{list(stored[name].shape)} stored, expected {list(as_stored)}")

    def read(info: TensorInfo) -> Tensor:
        if bits is None:
            return raw[info.name]
        try:
            return unpacked(raw[info.name], info.shape, bits, info.dtype)
        except ArgumentError as error:
            raise CheckpointError(str(path), info.name, str(error)) from error

    statistics = {name.removeprefix(STATISTICS): raw[name] for name in stored if name.startswith(STATISTICS)}
    keys = ("norm", "robust_norm", "clean_norm", "projection")
    numbers = {name: {key: float(own.get(key, "nan")) for key in keys} for name, own in declared.items()}
    meta = dict(told["meta"])
    if not isinstance(meta["notes"], list) or not isinstance(meta["fingerprints"], dict):
        raise CheckpointError(str(path), None, "damaged signature: its notes or fingerprints are none")
    weights = Weights(infos, read, source=str(told["source"]))
    return weights, statistics, numbers if bits is None else StoredNumbers(numbers, weights), meta


def _elements(info: TensorInfo, weights: Weights) -> int:
    return _product(weights.infos[info.name].shape)


def _product(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()
