"""PEFT LoRA adapters: a base model with the adapter applied, tensor by tensor when one is asked for."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.errors import CheckpointError, CheckpointNotFoundError, nearest
from workbench.weights.adapter_config import CONFIG, DO, adapter_config, setting
from workbench.weights.files import open_file
from workbench.weights.opened import NATURAL_ORDER, Opened
from workbench.weights.weights import TensorInfo, Weights

FILES = ("adapter_model.safetensors", "adapter_model.bin")  # peft prefers them in this order
PREFIX = "base_model.model."
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
WRAPPED = ".base_layer."  # between a layer that peft wraps and what is its own
# peft 0.21.2 and those before add out_proj's ΔW twice, in training too (its pull request 3774)
TWICE = "LoRA on a part of a layer that has LoRA itself (nn.MultiheadAttention), whose ΔW depends on peft's version"
LORA = re.compile(r"(.+)\.lora_(?:([AB])(?:\.default)?\.weight|embedding_([AB])(?:\.default)?)")


@dataclass(frozen=True)
class _Delta:
    """One module's ΔW = scale · B A, or its transpose; A and B are entries of the adapter's file."""

    low: TensorInfo
    high: TensorInfo
    rank: int
    alpha: float
    scale: float
    transposed: bool


def is_adapter(path: Path) -> bool:
    """Whether `path` is a PEFT adapter: a directory with an adapter_config.json."""
    try:
        return (path / CONFIG).is_file()
    except (OSError, ValueError):  # no permission, a name too long, a NUL
        return False


def merged_adapter(path: Path, base: Weights) -> Weights:
    r"""The base model with a PEFT LoRA adapter applied, W′ = W + (α/r)·B A, computed as tensors are read.

    rsLoRA scales by α/√r; `rank_pattern` and `alpha_pattern` set r and α by module; `fan_in_fan_out` (GPT-2's
    Conv1D, W stored in × out) and embeddings add the transpose. Tensors that the adapter stores whole
    (`modules_to_save`, biases, resaved embeddings) replace the base's. Names may differ from the base's by one
    leading prefix, as in `model.layers.0` and `layers.0`.

    Args:
        path: the adapter's directory, with adapter_config.json and adapter_model.safetensors or .bin.
        base: the model that the adapter was trained on.

    Returns:
        Weights with the names, shapes, dtypes and order of `base`. A tied tensor that the adapter changes leaves
        its tie. `.notes` counts what was changed and gives rank, α and scale.

    Raises:
        CheckpointNotFoundError: the directory has no adapter file.
        CheckpointError: it is no LoRA adapter, of a kind that changes weights otherwise (DoRA, PiSSA, …), damaged,
            or a tensor of it has no place or another shape in the base.

    Cost: the headers; per changed tensor O(rank · elements), with one copy of it in float32 (float64 if W is).

    Source: Hu et al. 2021, arXiv:2106.09685, eq. 3; rsLoRA: Kalajdzievski 2023, arXiv:2312.03732; the names and the
    matching of patterns are those of Hugging Face peft. Our deviation: the sum is rounded to the base's dtype once,
    peft rounds ΔW too.

    Misreads: nothing in the files tells which model the adapter was trained on; one of equal shapes fits as well. For a
    square W from a file, `fan_in_fan_out` alone tells which way ΔW goes; an nn.Module as base tells it by its classes.
    Where two patterns match one module the first in the file counts, and peft sorts them when it saves.
    """
    config = adapter_config(path / CONFIG)
    file = next((path / name for name in FILES if (path / name).is_file()), None)
    if file is None:
        raise CheckpointNotFoundError(str(path), None, f"an adapter without weights; expected {' or '.join(FILES)}")
    opened = open_file(file)
    adapter = _Adapter(str(file), config, opened, base)
    deltas = adapter.deltas()
    replaced = adapter.replaced()
    changed = deltas.keys() | replaced.keys()
    parted = _parted(base, changed)
    if parted and config.get("ensure_weight_tying"):
        reason = f"ensure_weight_tying with {parted[0]!r}, which the base ties, is not supported; {DO}"
        raise CheckpointError(str(path / CONFIG), "ensure_weight_tying", reason)
    notes = [*base.notes, *adapter.notes, _summary(deltas.values(), len(replaced))]
    if parted:
        listed = ", ".join(parted)
        notes.append(
            f"tied in the base, changed alone by the adapter: {listed}; the other names keep the base's values"
        )
    return Weights(
        _infos(base, changed),
        _reader(base, opened, deltas, replaced),
        source=f"{base.source} + {path}",
        notes=notes,
        ordered=base.ordered,
    )


class _Adapter:
    """The tensors of an adapter's file, each given its place in the base."""

    def __init__(self, path: str, config: Mapping[str, Any], opened: Opened, base: Weights) -> None:
        self.path, self.config, self.opened, self.base = path, config, opened, base
        self.notes = [f"adapter: {note}" for note in opened.notes if note != NATURAL_ORDER]
        self.suffixes: dict[str, list[str]] = {}
        for name in base:
            for suffix in _suffixes(name):
                self.suffixes.setdefault(suffix, []).append(name)
        self.difference: tuple[str, str] | None = None
        self.pairs: dict[tuple[str, str], dict[str, TensorInfo]] = {}
        self.whole: dict[str, TensorInfo] = {}
        originals = 0
        for info in opened.infos:
            wrapped = info.name.removeprefix(PREFIX)
            name = wrapped.replace(WRAPPED, ".")
            if match := LORA.fullmatch(name):
                side, embedding = (match[2], "") if match[2] else (match[3], "embedding_")
                pair = self.pairs.setdefault((match[1], embedding), {})
                if side in pair:
                    raise self.error(info.name, f"says the same as {pair[side].name!r}: expected one lora_{side} each")
                if WRAPPED in wrapped:
                    raise self.error(info.name, f"{TWICE}; {DO}, with the version that trained it")
                pair[side] = info
            elif ".original_module." in name:
                originals += 1  # peft's copy of the base's own tensor beside the trained one
            elif "lora_" in name and any(part.startswith("lora_") for part in name.split(".")) and name not in base:
                what = "DoRA's magnitudes" if "magnitude" in name else "a LoRA tensor of a kind that is not supported"
                raise self.error(info.name, f"{what}; expected lora_A, lora_B or lora_embedding_A, _B only; {DO}")
            else:
                self.add_whole(name.replace(".modules_to_save.default.", ".").replace(".modules_to_save.", "."), info)
        if originals:
            self.notes.append(f"adapter: copies of the base's own tensors (original_module) left out: {originals}")
        if not self.pairs and not self.whole:
            raise CheckpointError(path, None, f"holds no tensors; expected lora_A and lora_B of some modules; {DO}")

    def error(self, key: str, reason: str) -> CheckpointError:
        return CheckpointError(self.path, key, reason)

    def add_whole(self, name: str, info: TensorInfo) -> None:
        other = self.whole.setdefault(name, info)
        if other is not info and not torch.equal(self.opened.read(other), self.opened.read(info)):
            raise self.error(info.name, f"differs from {other.name!r}, but both stand for {name!r}; remove one of them")

    def place(self, name: str, key: str) -> TensorInfo:
        """The base's tensor that `name` means: that very name, or the only one that ends alike."""
        if name in self.base.infos:
            return self.base.infos[name]
        found = [*self.suffixes.get(name, ()), *(end for end in _suffixes(name) if end in self.base.infos)]
        if not found:
            bias = ", and its biases cannot be left out" if name.endswith("bias") else ""
            hint = nearest(name, self.base.infos) or " Open the model that the adapter was trained on as the base."
            raise self.error(key, f"{self.base.source} has no tensor {name!r}{bias}.{hint}")
        if len(found) > 1:
            listed = ", ".join(map(repr, found[:4]))
            raise self.error(key, f"{name!r} could be any of {listed} in the base; rename the base's tensors to match")
        here = name[: max(len(name) - len(found[0]), 0)], found[0][: max(len(found[0]) - len(name), 0)]
        if self.difference is None:
            self.difference = here
            self.notes.append(f"adapter: prefix {here[0]!r} of its names stands for {here[1]!r} in the base")
        if self.difference != here:
            reason = f"only the prefix {here[0]!r} → {here[1]!r} finds {name!r} in the base, but other tensors need "
            raise self.error(key, f"{reason}{self.difference[0]!r} → {self.difference[1]!r}; expected one for all")
        return self.base.infos[found[0]]

    def deltas(self) -> dict[str, _Delta]:
        """The base's name → its ΔW, all shapes compared."""
        found: dict[str, _Delta] = {}
        for (module, kind), pair in self.pairs.items():
            one = next(iter(pair.values()))
            if len(pair) == 1:
                side, missing = ("A", "B") if "A" in pair else ("B", "A")
                reason = f"lora_{kind}{side} without lora_{kind}{missing}: expected both; save the adapter again"
                raise self.error(one.name, reason)
            target = self.place(f"{module}.weight", one.name)
            if target.name in found:
                raise self.error(one.name, f"a second LoRA for {target.name!r} of the base; expected one")
            found[target.name] = self.delta(module, target, pair["A"], pair["B"], embedding=bool(kind))
        return found

    def delta(self, module: str, target: TensorInfo, low: TensorInfo, high: TensorInfo, *, embedding: bool) -> _Delta:
        if target.dtype not in DTYPES or len(target.shape) < 2 or (embedding and len(target.shape) > 2):
            got = f"{target.name!r} of the base is {target.dtype} of shape {target.shape}"
            raise self.error(low.name, f"{got}, expected a matrix of floats; open the base before it was quantised")
        rank, alpha = setting(self.config, "rank_pattern", module), setting(self.config, "alpha_pattern", module)
        # peft lets a module's class overrule the flag, which is all that a file has
        flag = {"Linear": False, "Conv1D": True}.get(target.module or "", bool(self.config.get("fan_in_fan_out")))
        transposed = embedding or (flag and len(target.shape) == 2)
        rows, *cols = reversed(target.shape) if transposed else target.shape
        dims = [1] * (0 if embedding else len(cols) - 1)
        groups = low.shape[1] // max(cols[0], 1) if dims and len(low.shape) == len(target.shape) else 1
        if groups > 1 and high.shape == (rows, rank // groups, *dims):  # A sees every input, B is grouped
            what = f"LoRA on a grouped convolution sums over all {groups} groups of {target.name!r}, so no weights of"
            hint = "open the base without the adapter, or train it without this layer"
            raise self.error(low.name, f"{what} its shape {target.shape} equal it, nor can peft merge it; {hint}")
        for info, expected in ((low, (rank, *cols)), (high, (rows, rank, *dims))):
            if info.dtype not in DTYPES:
                raise self.error(info.name, f"{info.dtype}, expected one of {', '.join(map(str, DTYPES))}; {DO}")
            if info.shape != expected:
                hint = "" if embedding else f", fan_in_fan_out {str(transposed).lower()}"
                reason = f"shape {info.shape}, expected {expected} (rank {rank} of {CONFIG}, {target.name!r} of shape "
                raise self.error(info.name, f"{reason}{target.shape}{hint}); open the base that it was trained on")
        scale = alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)
        return _Delta(low, high, int(rank), alpha, scale, transposed)

    def replaced(self) -> dict[str, TensorInfo]:
        """The base's name → the adapter's tensor that stands in for it."""
        found: dict[str, TensorInfo] = {}
        for name, info in self.whole.items():
            target = self.place(name, info.name)
            if target.name in found:
                raise self.error(info.name, f"both this and {found[target.name].name!r} stand for {target.name!r}")
            if info.shape != target.shape:
                reason = f"shape {info.shape}, expected {target.shape} as in the base; resize the base as in training"
                raise self.error(info.name, reason)
            if info.dtype != target.dtype and not {info.dtype, target.dtype} <= {*DTYPES}:
                raise self.error(info.name, f"{info.dtype}, expected {target.dtype} as in the base; save it as that")
            found[target.name] = info
        return found


def _reader(
    base: Weights, opened: Opened, deltas: Mapping[str, _Delta], replaced: Mapping[str, TensorInfo]
) -> Callable[[TensorInfo], Tensor]:
    def read(info: TensorInfo) -> Tensor:
        name = info.name
        if name not in deltas and name not in replaced:
            return base[name]
        own = base.borrowed(name)
        tensor = opened.read(replaced[name]).to(own.device, own.dtype, copy=True) if name in replaced else own
        if name not in deltas:
            return tensor
        delta, dtype = deltas[name], torch.float64 if own.dtype == torch.float64 else torch.float32
        low, high = (opened.read(part).to(own.device, dtype).flatten(1) for part in (delta.low, delta.high))
        product = (high @ low).mul_(delta.scale)
        return (tensor.to(dtype) + (product.T if delta.transposed else product.reshape(own.shape))).to(own.dtype)

    return read


def _suffixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(1, len(parts))]


def _parted(base: Weights, changed: Iterable[str]) -> list[str]:
    tied = {head for info in base.infos.values() if info.tied_to for head in (info.tied_to, info.name)}
    return [name for name in base if name in tied.intersection(changed)]


def _infos(base: Weights, changed: Iterable[str]) -> list[TensorInfo]:
    """The base's infos; a changed tensor leaves its tie, and the rest of the tie holds together without it."""
    alone, heads, infos = set(changed), dict[str, str](), []
    for info in base.infos.values():
        head = info.name if info.name in alone else heads.setdefault(info.tied_to or info.name, info.name)
        infos.append(replace(info, tied_to=None if head == info.name else head))
    return infos


def _summary(deltas: Iterable[_Delta], replaced: int) -> str:
    used = list(deltas)
    spans = []
    for word in ("rank", "alpha", "scale") if used else ():
        values = sorted(getattr(delta, word) for delta in used)
        low, high = f"{values[0]:.4g}", f"{values[-1]:.4g}"
        spans.append(f"{word} {low}" if low == high else f"{word} {low} to {high}")
    settings = f" ({', '.join(spans)})" if spans else ""
    return f"adapter: tensors changed by LoRA: {len(used)}{settings}, replaced: {replaced}"
