"""Opening weights: every form gives the same tensors, and what cannot be read says why."""

import argparse
import contextlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import workbench as wb
from workbench.weights import content_fingerprint
from workbench.weights.naming import without_prefixes

Saved = Callable[[Any, Path], Any]
Bits = tuple[torch.dtype, tuple[int, ...], bytes]


def bits(tensor: Tensor) -> Bits:
    """Dtype, shape and bytes: equal only if every bit is, NaN and −0 included."""
    plain = tensor.detach().contiguous().reshape(-1)
    return tensor.dtype, tuple(tensor.shape), plain.view(torch.uint8).numpy().tobytes()


def path_of(name: str) -> tuple[list[int], str]:
    """Where a tensor of `network` lies: `10.1.bias` is ([10, 1], "bias")."""
    *numbers, last = name.split(".")
    return [int(number) for number in numbers], last


def network() -> nn.Module:
    """Twelve blocks, so that `10` sorts before `2` as text; buffers, an int and two dtypes."""
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)) for _ in range(12)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(8, 3).bfloat16())


def as_safetensors(state: Mapping[str, Tensor], path: Path) -> Path:
    safetensors.torch.save_file(dict(state), path)
    return path


def as_zip(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def as_legacy(content: Any, path: Path) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def under(*keys: str, saved: Saved = as_zip) -> Saved:
    def nested(state: Any, path: Path) -> Any:
        for key in reversed(keys):
            state = {"epoch": 3, key: state, "optimizer": {"lr": 0.1}}
        return saved(state, path)

    return nested


def prefixed(prefix: str, saved: Saved = as_zip) -> Saved:
    return lambda state, path: saved({prefix + name: tensor for name, tensor in state.items()}, path)


def in_folder(state: Any, path: Path) -> Path:
    path.mkdir()
    (path / "config.json").write_text("{}")
    as_legacy({"unread": torch.zeros(1)}, path / "training_args.bin")  # a safetensors file goes first
    as_safetensors(state, path / "model.safetensors")
    return path


def module_with(state: Mapping[str, Tensor], _: Path) -> nn.Module:
    module = network()
    module.load_state_dict(state)
    return module


FORMS: dict[str, Saved] = {
    "safetensors": as_safetensors,
    "zip": as_zip,
    "legacy": as_legacy,
    "folder": in_folder,
    "text path": lambda state, path: str(as_zip(state, path)),
    "state_dict": under("state_dict"),
    "model_state_dict": under("model_state_dict", saved=as_legacy),
    "model": under("model"),
    "model, state_dict": under("model", "state_dict"),
    "mapping": lambda state, _: dict(state),
    "nested mapping": under("state_dict", saved=lambda content, _: content),
    "module.": prefixed("module."),
    "_orig_mod.": prefixed("_orig_mod.", as_legacy),
    "both": prefixed("module._orig_mod."),
    "both, reversed": prefixed("_orig_mod.module.", as_safetensors),
    "twice": prefixed("module.module."),
    "prefix under a nesting": prefixed("module.", under("state_dict")),
    "nn.Module": module_with,
    "DataParallel": lambda state, path: nn.DataParallel(module_with(state, path)),
    "Weights": lambda state, path: wb.load(as_zip(state, path)),
}


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return dict(network().state_dict())


@pytest.fixture(scope="module")
def expected(state: dict[str, Tensor]) -> dict[str, Bits]:
    return {name: bits(tensor) for name, tensor in state.items()}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_bits_and_fingerprint(
    form: str, state: dict[str, Tensor], expected: dict[str, Bits], tmp_path: Path
) -> None:
    weights = wb.load(FORMS[form](state, tmp_path / "checkpoint"))
    assert {name: bits(tensor) for name, tensor in weights.items()} == expected
    assert weights.fingerprint == wb.load(state).fingerprint
    assert (weights.elements, weights.bytes) == (
        sum(tensor.numel() for tensor in state.values()),
        sum(tensor.numel() * tensor.element_size() for tensor in state.values()),
    )
    assert {name: (info.dtype, info.shape) for name, info in weights.infos.items()} == {
        name: (dtype, shape) for name, (dtype, shape, _) in expected.items()
    }
    # safetensors stores no order: natural order is this network's own, but for bias and weight within a module
    assert list(weights) == (list(state) if weights.ordered else sorted(state, key=path_of))
    assert weights.ordered == (not any("no order" in note for note in weights.notes))


@pytest.mark.parametrize("form", FORMS)
def test_every_access_is_a_copy_that_may_be_written_to(
    form: str, state: dict[str, Tensor], expected: dict[str, Bits], tmp_path: Path
) -> None:
    source = FORMS[form](state, tmp_path / "checkpoint")
    weights = wb.load(source)
    for name in weights:
        tensor = weights[name]
        assert not tensor.requires_grad
        tensor.fill_(7)
    assert {name: bits(tensor) for name, tensor in weights.items()} == expected
    assert {name: bits(tensor) for name, tensor in state.items()} == expected
    if isinstance(source, nn.Module):
        assert [bits(tensor) for tensor in source.state_dict().values()] == list(expected.values())
        assert all(parameter.requires_grad for parameter in source.parameters())


@pytest.mark.parametrize(
    ("form", "prefix", "notes"),
    [
        ("zip", "", []),
        ("safetensors", "", ["depth is the natural order of the names: the file stores no order"]),
        ("legacy", "", ["a legacy torch pickle cannot be mapped: the whole file ("]),
        ("nn.Module", "", []),
        ("model", "", ["tensors found under 'model'", "left out, not tensors of the model: epoch, optimizer"]),
        ("model, state_dict", "", ["tensors found under 'model.state_dict'", "model.epoch, model.optimizer"]),
        ("module.", "module.", ["prefix 'module.' removed from every name"]),
        ("DataParallel", "module.", ["prefix 'module.' removed from every name"]),
        ("both", "module._orig_mod.", ["prefix 'module._orig_mod.' removed from every name"]),
        ("twice", "module.module.", ["prefix 'module.module.' removed"]),
    ],
)
def test_renames_and_what_was_left_out_are_reported(
    form: str, prefix: str, notes: list[str], state: dict[str, Tensor], tmp_path: Path
) -> None:
    weights = wb.load(FORMS[form](state, tmp_path / "checkpoint"))
    assert dict(weights.renames) == ({name: prefix + name for name in state} if prefix else {})
    assert len(weights.notes) == len(notes)
    assert all(any(note in told for told in weights.notes) for note in notes), weights.notes
    assert all(f"note: {note}" in repr(weights) for note in weights.notes)


def test_the_repr_counts_tensors_elements_and_bytes_and_teaches_the_next_call() -> None:
    text = repr(wb.load({"a": torch.zeros(1000, 2000), "b": torch.zeros(3, dtype=torch.int8)}))
    assert "Weights of a mapping in memory: 2 tensors, 2,000,003 elements, 8.0 MB" in text
    assert text.endswith("next: wb.layers(weights), wb.spectrum(weights)")


def test_weights_are_handed_through_as_they_are(state: dict[str, Tensor]) -> None:
    weights = wb.load(state)
    assert wb.load(weights) is weights


@pytest.mark.parametrize("prefix", ["module", "_orig_mod"])
def test_a_submodule_called_like_a_wrapper_keeps_its_name_beside_others(prefix: str, tmp_path: Path) -> None:
    net = nn.ModuleDict({"head": nn.Linear(2, 2), prefix: nn.Linear(2, 2)})
    names = ["head.weight", "head.bias", f"{prefix}.weight", f"{prefix}.bias"]
    for source in (net, net.state_dict(), as_zip(net.state_dict(), tmp_path / "net.pt")):
        assert list(wb.load(source)) == names
        assert not wb.load(source).renames
    wrapped = wb.load(nn.DataParallel(net))
    assert list(wrapped) == names
    assert wrapped.renames["head.weight"] == "module.head.weight"


@pytest.mark.parametrize(
    ("form", "ordered"), [("safetensors", False), ("zip", True), ("legacy", True), ("mapping", True)]
)
def test_depth_is_the_sources_order_or_the_natural_one(form: str, ordered: bool, tmp_path: Path) -> None:
    names = ["stem", "block.10.a", "block.9.a", "block.2.b", "block.2.a10", "block.2.a9", "Head"]
    natural = ["Head", "block.2.a9", "block.2.a10", "block.2.b", "block.9.a", "block.10.a", "stem"]
    weights = wb.load(FORMS[form]({name: torch.zeros(2) for name in names}, tmp_path / "net"))
    assert list(weights) == (names if ordered else natural)
    assert weights.ordered is ordered


def test_the_fingerprint_of_an_architecture_forgets_order_and_values_and_nothing_else() -> None:
    def fingerprint(**tensors: Tensor) -> str:
        return wb.load(tensors).fingerprint

    first = fingerprint(a=torch.zeros(2, 3), b=torch.zeros(4))
    assert first == fingerprint(b=torch.ones(4), a=torch.ones(2, 3))
    others = [
        fingerprint(a=torch.zeros(3, 2), b=torch.zeros(4)),
        fingerprint(a=torch.zeros(2, 3), b=torch.zeros(4, dtype=torch.float16)),
        fingerprint(a=torch.zeros(2, 3), c=torch.zeros(4)),
        fingerprint(a=torch.zeros(2, 3)),
    ]
    assert len({first, *others}) == 5


def test_the_fingerprint_of_a_content_sees_every_bit_shape_and_dtype_but_no_stride() -> None:
    base = torch.arange(6, dtype=torch.int32).reshape(2, 3)
    flipped = base.clone()
    flipped[1, 2] ^= 1
    others = [flipped, base.reshape(3, 2), base.view(torch.float32), base.to(torch.int64), base.T, base[:1], base[0, 0]]
    assert len({content_fingerprint(tensor) for tensor in (base, *others)}) == 8
    assert content_fingerprint(base.T.contiguous().T) == content_fingerprint(base.clone().requires_grad_(False))
    assert content_fingerprint(torch.tensor([0.0])) != content_fingerprint(torch.tensor([-0.0]))


SHAPES = {"scalar": (), "one": (1,), "empty": (0,), "empty matrix": (3, 0), "matrix": (2, 3), "deep": (1, 2, 1, 2, 1)}
DTYPES = (
    "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 float8_e4m3fn float8_e5m2".split()
)


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy", "mapping"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_shape_is_read_bit_by_bit(form: str, dtype: str, tmp_path: Path) -> None:
    if form == "legacy" and dtype.startswith("float8"):
        pytest.skip("torch.save has no legacy storage of 8-bit floats")
    kind = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in SHAPES.items():
        count = int(np.prod(shape)) * kind.itemsize
        raw = torch.randint(0, 2 if dtype == "bool" else 256, (count,), dtype=torch.uint8, generator=generator)
        tensors[name] = raw.view(kind).reshape(shape)
    weights = wb.load(FORMS[form](tensors, tmp_path / "net"))
    assert {name: bits(weights[name]) for name in weights} == {name: bits(one) for name, one in tensors.items()}


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64", "float8_e8m0fnu"])
def test_the_rarer_dtypes_of_safetensors_are_read_bit_by_bit(dtype: str, tmp_path: Path) -> None:
    kind = getattr(torch, dtype)
    raw = torch.arange(4 * kind.itemsize, dtype=torch.uint8)
    name = {"uint16": "U16", "uint32": "U32", "uint64": "U64", "float8_e8m0fnu": "F8_E8M0"}[dtype]
    text = json.dumps({"a": {"dtype": name, "shape": [2, 2], "data_offsets": [0, raw.numel()]}})
    path = header(text, 0)(tmp_path / "net.safetensors")
    path.write_bytes(path.read_bytes() + raw.numpy().tobytes())
    assert bits(wb.load(path)["a"]) == bits(raw.view(kind).reshape(2, 2))


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
def test_what_is_not_finite_is_told_by_the_tables_and_loses_no_bit(form: str, tmp_path: Path) -> None:
    matrix, vector = torch.randn(40, 30, generator=torch.Generator().manual_seed(0)), torch.tensor([1.0, -torch.inf])
    matrix[3, 4] = torch.nan
    tensors = {"matrix": matrix, "vector": vector, "scalar": torch.tensor(2.0), "none": torch.empty(0, 3)}
    weights = wb.load(FORMS[form](tensors, tmp_path / "net"))
    assert {name: bits(weights[name]) for name in weights} == {name: bits(one) for name, one in tensors.items()}
    table = wb.contents(weights).frame().set_index("layer")
    assert (table.loc["matrix", "nan"], table.loc["vector", "infinite"]) == (1, 1)
    assert table.loc["matrix", "reason"] == "1 of 1200 elements is NaN"
    assert dict(table["verdict"][["scalar", "none"]]) == {"scalar": "constant", "none": "empty"}
    reasons = wb.layers(weights).frame().set_index("tensor")["reason"]
    assert reasons["none"] == "empty tensor" and reasons["scalar"].startswith("a scalar")
    row = wb.spectrum(weights, layers="matrix").row("matrix")
    assert row["verdict"] == "failed" and "NaN" in row["reason"]


def test_a_view_of_a_large_storage_is_read_as_what_it_shows(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    views = {"part": whole[1:3], "column": whole[:, 2], "transposed": whole.T, "expanded": whole[:1].expand(3, 6)}
    for saved in (as_zip, as_legacy):
        weights = wb.load(saved(views, tmp_path / saved.__name__))
        assert {name: bits(weights[name]) for name in weights} == {name: bits(view) for name, view in views.items()}


class Tied(nn.Module):
    """An embedding whose weight is also the head's."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10)
        self.head.weight = self.embedding.weight


@pytest.mark.parametrize("form", ["nn.Module", "DataParallel", "zip", "legacy", "module.", "mapping", "state_dict"])
def test_tied_tensors_stay_readable_under_every_name_and_count_once(form: str, tmp_path: Path) -> None:
    net = Tied()
    wrappers: dict[str, Callable[[], Any]] = {"nn.Module": lambda: net, "DataParallel": lambda: nn.DataParallel(net)}
    source = wrappers[form]() if form in wrappers else FORMS[form](net.state_dict(), tmp_path / "net")
    weights = wb.load(source)
    assert list(weights) == ["embedding.weight", "head.weight", "head.bias"]
    assert [info.tied_to for info in weights.infos.values()] == [None, "embedding.weight", None]
    assert bits(weights["head.weight"]) == bits(weights["embedding.weight"]) == bits(net.head.weight)
    assert weights.elements == 10 * 4 + 10
    assert weights.bytes == 4 * weights.elements


def test_neither_views_of_one_storage_nor_empty_tensors_are_taken_for_ties() -> None:
    whole = torch.arange(8.0)
    weights = wb.load({"a": whole[:4], "b": whole[4:], "c": torch.empty(0), "d": torch.empty(0)})
    assert all(info.tied_to is None for info in weights.infos.values())
    assert weights.elements == 8


META = """
import json, torch
import workbench as wb
weights = wb.load(torch.nn.Linear(3, 2, device="meta"))
infos = [[info.name, list(info.shape)] for info in weights.infos.values()]
table = wb.layers(weights).frame()
failed = wb.spectrum(weights).row("weight")
try:
    weights["bias"]
except wb.CheckpointError as error:
    print(json.dumps([infos, table["elements"].tolist(), failed["verdict"], failed["reason"], error.key, str(error)]))
"""


def test_a_meta_module_tells_its_shapes_and_says_why_it_has_no_values(unchecked: Callable[..., Any]) -> None:
    infos, elements, verdict, reason, key, message = unchecked(META)
    assert infos == [["weight", [2, 3]], ["bias", [2]]]
    assert elements == [6, 2]
    assert (verdict, key) == ("failed", "bias")
    assert "[weight]: on the meta device: it has a shape but no data" in reason
    assert "[bias]: on the meta device: it has a shape but no data" in message


def test_a_lazy_module_says_that_it_has_no_shapes_yet() -> None:
    with pytest.raises(wb.CheckpointError, match="uninitiali"):
        wb.load(nn.Sequential(nn.LazyLinear(3)))


HUGE = """
import json, resource, sys
import workbench as wb
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
weights = wb.load(sys.argv[1])
table = wb.layers(weights).frame()
tail = weights["tail"].tolist()
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([weights.elements, table["elements"].tolist(), tail, grown]))
"""


def test_a_file_larger_than_memory_opens_and_one_of_its_tensors_is_read(
    unchecked: Callable[..., Any], tmp_path: Path
) -> None:
    elements = 2**40  # 4 TB in a sparse file that takes a few KB of disk
    entries = {"huge.weight": ([elements // 1024, 1024], [0, 4 * elements])}
    entries["tail"] = ([4], [4 * elements, 4 * elements + 16])
    content = {name: {"dtype": "F32", "shape": shape, "data_offsets": at} for name, (shape, at) in entries.items()}
    path = header(json.dumps(content), 0)(tmp_path / "huge.safetensors")
    with path.open("ab") as file:
        file.truncate(file.tell() + 4 * elements)
        file.seek(0, os.SEEK_END)
        file.write(torch.arange(4.0).numpy().tobytes())
    counted, rows, tail, grown = unchecked(HUGE, str(path))
    assert counted == elements + 4
    assert rows == [elements, 4]
    assert tail == [0, 1, 2, 3]
    assert grown < 200_000, f"{grown} KiB"  # pandas, which wb.layers imports, is 60 MB of it


def test_a_file_that_shrinks_or_goes_away_after_opening_names_the_tensor(tmp_path: Path) -> None:
    path = as_safetensors({"a": torch.ones(4), "b": torch.ones(4)}, tmp_path / "net.safetensors")
    weights = wb.load(path)
    os.truncate(path, path.stat().st_size - 6)
    reason = r"net.safetensors \[b\]: the file changed since it was opened; open it again"
    with pytest.raises(wb.CheckpointError, match=reason) as error:
        weights["b"]
    assert (error.value.path, error.value.key) == (str(path), "b")
    path.unlink()
    with pytest.raises(wb.CheckpointError, match=r"\[a\]: cannot be read any more"):
        weights["a"]


@pytest.mark.parametrize("wrong", ["b", "fc.wieght"])
def test_an_unknown_tensor_offers_the_nearest(wrong: str) -> None:
    weights = wb.load({"fc.weight": torch.ones(2)})
    with pytest.raises(wb.LayerNotFoundError, match=f"a mapping in memory has no tensor '{wrong}'") as error:
        weights[wrong]
    assert ("Did you mean 'fc.weight'?" in str(error.value)) == (wrong != "b")
    assert wrong not in weights
    assert weights.get(wrong) is None


# What cannot be read


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def cut(saved: Saved, keep: float) -> Callable[[Path], Path]:
    def damaged(path: Path) -> Path:
        saved({"fc.weight": torch.ones(40, 30), "fc.bias": torch.ones(30)}, path)
        return write(path, path.read_bytes()[: int(path.stat().st_size * keep)])

    return damaged


def header(text: str, data: int = 8) -> Callable[[Path], Path]:
    return lambda path: write(path, len(text.encode()).to_bytes(8, "little") + text.encode() + bytes(data))


def foreign_zip(*names: str) -> Callable[[Path], Path]:
    def damaged(path: Path) -> Path:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "hello")
        return path

    return damaged


def folder(*names: str) -> Callable[[Path], Path]:
    def made(path: Path) -> Path:
        path.mkdir()
        for name in names:
            (path / name).touch()
        return path

    return made


RESAVE = r"refused: the file holds more than tensors.*torch.save\(module.state_dict\(\), path\)"
TENSORS = {"w": torch.ones(2)}
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty file": (lambda path: write(path, b""), "checkpoint: the file is empty"),
    "random": (
        lambda path: write(path, b"0123456789" * 9),
        r"neither safetensors nor a torch file \(it begins with b'01",
    ),
    "random, one byte": (lambda path: write(path, b"a"), "neither safetensors.*expected .safetensors, .pt, .pth"),
    "random .safetensors": (
        lambda path: write(path.with_suffix(".safetensors"), b"0123456789" * 9),
        "not a valid safetensors file: .*header",
    ),
    "GGUF": (
        lambda path: write(path, b"GGUF\x03" + bytes(99)),
        "GGUF holds quantised blocks, not weights; open the or",
    ),
    "safetensors, cut header": (cut(as_safetensors, 0.01), "not a valid safetensors file"),
    "safetensors, cut data": (cut(as_safetensors, 0.9), "not a valid safetensors file: .*not fully covered"),
    "safetensors, huge header": (
        lambda path: write(path, (10**9).to_bytes(8, "little") + b"{}"),
        "not a valid safetensors file: .*header too large",
    ),
    "safetensors, fewer than 8 bytes": (
        lambda path: write(path.with_suffix(".safetensors"), b"abc"),
        "not a valid safetensors file: .*header too small",
    ),
    "safetensors, header longer than the file": (
        lambda path: write(path, (5000).to_bytes(8, "little") + b'{"a":{}}'),
        "not a valid safetensors file: .*invalid header length",
    ),
    "safetensors, header length of 2^63": (
        lambda path: write(path, (2**63).to_bytes(8, "little") + b'{"a":{}}'),
        "not a valid safetensors file: .*header too large",
    ),
    "safetensors, end before begin": (
        header('{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}'),
        "not a valid safetensors file: .*invalid offset for tensor `a`",
    ),
    "safetensors, sizes overflow": (
        header('{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,8]}}'),
        "not a valid safetensors file: .*overflow",
    ),
    "safetensors, negative size": (
        header('{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}'),
        "not a valid safetensors file: .*-2",
    ),
    "safetensors, metadata is no text": (
        header('{"__metadata__":{"step":3},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
        "not a valid safetensors file: .*expected a string",
    ),
    "safetensors, no JSON": (header("{" * 40), "not a valid safetensors file: .*header"),
    "safetensors, trailing bytes": (
        header('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', 9),
        "not a valid safetensors file",
    ),
    "safetensors, hole": (
        header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'),
        "not a valid safetensors file: .*offset",
    ),
    "safetensors, overlap": (
        header(
            '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
        ),
        "not a valid safetensors file",
    ),
    "safetensors, shape and bytes": (
        header('{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}'),
        "not a valid safetensors file",
    ),
    "safetensors, unknown dtype": (
        header('{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}'),
        "not a valid safetensors file: .*F33",
    ),
    "safetensors, dtype torch has not": (
        header('{"a":{"dtype":"F4","shape":[16],"data_offsets":[0,8]}}'),
        r"\[a\]: dtype F4 is not one of \['BF16'",
    ),
    "zip, cut": (cut(as_zip, 0.9), "truncated or damaged zip archive"),
    "zip, one header": (cut(as_zip, 0.02), "truncated or damaged zip archive"),
    "zip, not torch's": (
        foreign_zip("readme.txt"),
        r"a zip archive, but not one that torch.save wrote \(no data.pkl\)",
    ),
    "zip, looks like torch's": (foreign_zip("a/data.pkl", "a/version"), "not a readable torch file: "),
    "legacy, cut pickle": (cut(as_legacy, 0.02), "not a readable torch file: "),
    "legacy, cut data": (cut(as_legacy, 0.9), "not a readable torch file: .*unexpected EOF"),
    "legacy, bare pickle": (
        lambda path: write(path, pickle.dumps({"a": 1}, protocol=2)),
        "not a readable torch file: .*Invalid magic number",
    ),
    "whole module": (lambda path: as_zip(nn.Linear(2, 2), path), RESAVE),
    "whole module, legacy": (lambda path: as_legacy(nn.Linear(2, 2), path), RESAVE),
    "module beside weights": (lambda path: as_zip({**TENSORS, "net": nn.ReLU()}, path), RESAVE),
    "namespace": (lambda path: as_zip({**TENSORS, "args": argparse.Namespace(lr=1)}, path), RESAVE),
    "tensor": (
        lambda path: as_zip(torch.ones(2), path),
        r"a single tensor without a name; save a dictionary \{name: t",
    ),
    "list": (lambda path: as_legacy([torch.ones(2)], path), "holds a list, expected a dictionary of tensors"),
    "no tensors": (
        lambda path: as_zip({"epoch": 3, "lr": 0.1}, path),
        r"holds no tensors by name \(it holds 'epoch' \(int\), 'lr' \(float\)\)",
    ),
    "empty dictionary": (lambda path: as_zip({}, path), r"holds no tensors by name \(it holds nothing\)"),
    "empty state_dict": (lambda path: as_zip({"state_dict": {}, "epoch": 3}, path), "holds no tensors"),
    "numbers in memory": (
        lambda _: {"a": np.ones(3), "b": 3},
        r"a mapping in memory: holds no tensors .*'a' \(ndarray\), 'b' \(int\)",
    ),
    "several files": (
        folder("a.safetensors", "b.safetensors", "c.bin"),
        r"a directory with 2 weight files \(a.safetensors, b.safetensors\); name one of them",
    ),
    "several torch files": (
        folder("a.pt", "b.ckpt", "c.th"),
        r"a directory with 3 weight files \(a.pt, b.ckpt, c.th\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_says_what_it_is_and_what_to_do(case: str, tmp_path: Path) -> None:
    make, words = REFUSED[case]
    source = make(tmp_path / "checkpoint")
    with pytest.raises(wb.CheckpointError, match=words) as error:
        wb.load(source)
    assert isinstance(error.value, ValueError)
    assert not isinstance(error.value, FileNotFoundError)
    assert error.value.reason in str(error.value)
    assert "\n" not in str(error.value)
    if isinstance(source, Path):
        assert error.value.path == str(source)
    assert pickle.loads(pickle.dumps(error.value)).args == error.value.args


NOT_FOUND = {
    "typo": ("model.saftensors", r"no such file or directory\. Did you mean 'model.safetensors'\?"),
    "nothing near": ("zzz", r"zzz: no such file or directory\.$"),
    "no folder either": ("gone/model.pt", r"gone/model.pt: no such file or directory\.$"),
    "folder without weights": ("notes", r"a directory without weights \(no .safetensors, .pt.*it holds a.txt, b.md"),
    "empty folder": ("void", "a directory without weights .*it holds nothing"),
}


@pytest.mark.parametrize("case", NOT_FOUND)
def test_what_is_not_there_offers_what_is(case: str, tmp_path: Path) -> None:
    as_safetensors(TENSORS, tmp_path / "model.safetensors")
    folder("a.txt", "b.md")(tmp_path / "notes")
    folder()(tmp_path / "void")
    name, words = NOT_FOUND[case]
    with pytest.raises(wb.CheckpointNotFoundError, match=words) as error:
        wb.load(tmp_path / name)
    assert isinstance(error.value, FileNotFoundError)
    assert isinstance(error.value, wb.CheckpointError)
    assert error.value.path == str(tmp_path / name)
    assert pickle.loads(pickle.dumps(error.value)).reason == error.value.reason


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "net.pt", "net.pth", "net.th", "last.ckpt"])
def test_a_folder_with_one_weight_file_means_that_file(name: str, tmp_path: Path) -> None:
    folder("config.json", "README.md")(tmp_path / "net")
    (as_safetensors if name.endswith("safetensors") else as_zip)(TENSORS, tmp_path / "net" / name)
    assert wb.load(tmp_path / "net").source == str(tmp_path / "net" / name)


@pytest.fixture(scope="module")
def wrong_types(raised: Callable[..., dict[str, list[str]]]) -> dict[str, list[str]]:
    return raised(WRONG_TYPES)


WRONG_TYPES = {"wb.load(3)": "int", "wb.load(None)": "NoneType", "wb.load(b'x')": "bytes", "wb.load([model])": "list"}


@pytest.mark.parametrize("call", WRONG_TYPES)
def test_what_is_no_model_at_all_says_what_one_is(call: str, wrong_types: dict[str, list[str]]) -> None:
    name, message = wrong_types[call]
    assert name == "SourceTypeError"
    assert issubclass(wb.SourceTypeError, TypeError)
    assert message == (
        f"a model is a path, a directory, a mapping of tensors or an nn.Module; got {WRONG_TYPES[call]}."
    )


class Hostile:
    """Unpickles by making a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("saved", [as_zip, as_legacy])
@pytest.mark.parametrize("place", ["value", "nested", "key", "whole", "metadata"])
def test_a_hostile_pickle_is_refused_and_leaves_no_trace(saved: Saved, place: str, tmp_path: Path) -> None:
    mark = tmp_path / "harm"
    hostile = Hostile(mark)
    state = nn.Linear(2, 2).state_dict()
    if place == "metadata":
        state._metadata = hostile  # type: ignore[attr-defined]
    content = {
        "value": {**TENSORS, "bias": hostile},
        "nested": {"state_dict": {**TENSORS, "bias": [hostile]}},
        "key": {**TENSORS, hostile: torch.ones(1)},
        "whole": hostile,
        "metadata": state,
    }[place]
    path = saved(content, tmp_path / "hostile.pt")
    with contextlib.suppress(Exception):  # the proof that it does harm where it is believed
        torch.load(path, weights_only=False)
    assert mark.exists()
    mark.unlink()
    with pytest.raises(wb.CheckpointError, match=RESAVE):
        wb.load(path)
    assert not mark.exists()


# Damage at random places: a refusal, or what the reference reader gives


def network_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "fc.weight": torch.randn(5, 4, generator=generator).bfloat16(),
        "fc.bias": torch.zeros(5),
        "steps": torch.tensor(3),
    }


def valid(saved: Saved, folder: Path) -> bytes:
    return bytes(saved(network_state(), folder / saved.__name__).read_bytes())


@contextlib.contextmanager
def damaged_file(saved: Saved, damage: Callable[[bytearray, int], None], folder: Path) -> Iterator[Path]:
    content = bytearray(valid(saved, folder))
    damage(content, content.find(b"}}}") if saved is as_safetensors else len(content))
    path = folder / "damaged"
    path.write_bytes(content)
    try:
        yield path
    finally:
        path.unlink()  # a new file each time: torch maps zip archives, and a mapped file must not change


def reference_bits(saved: Saved, path: Path) -> dict[str, Bits]:
    """What safetensors and torch read, the latter unmapped and onto the CPU."""
    if saved is as_safetensors:
        content: Any = safetensors.torch.load_file(path)
    else:
        content = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    return {str(name): bits(one) for name, one in content.items() if isinstance(one, Tensor)}


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "set", "set", "delete", "insert", "cut"]),
        st.floats(0, 1, exclude_max=True),
        st.booleans(),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


@pytest.mark.parametrize(
    "saved",
    [
        as_safetensors,
        as_legacy,
        as_zip,
    ],
)
@given(edits=EDITS)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_bytes_are_refused_or_read_as_the_reference_reads_them(
    saved: Saved, edits: list[tuple[str, float, bool, int]], scratch: Path
) -> None:
    def damage(content: bytearray, header: int) -> None:
        for kind, place, in_header, value in edits:
            at = int(place * (header if in_header else len(content)))
            if kind == "set":
                content[at : at + 1] = bytes([value])
            elif kind == "insert":
                content.insert(at, value)
            else:
                del content[at : at + 1 if kind == "delete" else None]

    with damaged_file(saved, damage, scratch) as path:
        try:
            weights = wb.load(path)
            wb.layers(weights)
            ours = {weights.infos[name].stored: bits(weights[name]) for name in weights}
        except wb.CheckpointError as error:
            assert error.path == str(path)
            return
        # torch itself hands out uninitialised memory for some damaged directories: undamaged tensors pass too
        undamaged = {name: bits(tensor) for name, tensor in network_state().items()}
        if ours != undamaged:
            reference = reference_bits(saved, path)
            assert ours.keys() == reference.keys()
            assert [name for name in ours if ours[name] not in (reference[name], undamaged.get(name))] == []


def test_duplicate_names_in_a_header_are_reported(tmp_path: Path) -> None:
    entry = '"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    path = header(f"{{{entry},{entry}}}")(tmp_path / "twice.safetensors")
    assert list(safetensors.torch.load_file(path)) == ["a"]
    assert any("a" in note and "twice" in note for note in wb.load(path).notes)


def test_a_damaged_pickle_in_a_zip_never_reads_its_neighbours_bytes(tmp_path: Path) -> None:
    path = as_zip({"a": torch.ones(2), "b": torch.full((2,), 7.0)}, tmp_path / "net.pt")
    content = path.read_bytes()
    longer = content.replace(b"K\x02", b"K\x20")  # 32 elements where two were stored; torch's own reader refuses
    with pytest.raises(RuntimeError, match="record size"):
        torch.load(io.BytesIO(longer), weights_only=True)
    with pytest.raises(wb.CheckpointError, match="damaged"):
        wb.load(write(path, longer))


# What a hostile user tried


@pytest.mark.parametrize("form", [as_zip, as_legacy])
def test_a_refusal_never_advises_to_load_the_file_unsafely(form: Callable[..., Path], tmp_path: Path) -> None:
    """Torch's own message does: it ends in "re-running torch.load with weights_only set to False"."""

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'pwned'}",)

    with pytest.raises(wb.CheckpointError, match="refused") as caught:
        wb.load(form({"a": Evil()}, tmp_path / "evil.pt"))
    assert "weights_only" not in str(caught.value) and "save" in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_a_torchscript_archive_is_called_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name in ("script/data.pkl", "script/constants.pkl", "script/code/net.py"):
            archive.writestr(name, b"")
    with pytest.raises(wb.CheckpointError, match=r"TorchScript.*state_dict\(\)"):
        wb.load(tmp_path / "script.pt")


def test_a_checkpoint_inside_itself_ends(tmp_path: Path) -> None:
    loop: dict[str, Any] = {"epoch": 3}
    loop["model"] = loop
    with pytest.raises(wb.CheckpointError, match="holds no tensors"):
        wb.load(loop)
    loop["fc.weight"] = torch.ones(2, 2)
    assert list(wb.load(loop)) == ["fc.weight"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(wb.CheckpointError, match="a pipe or a device"):
        wb.load(tmp_path / "pipe.pt")


def test_two_keys_that_read_the_same_are_not_one_tensor(tmp_path: Path) -> None:
    path = as_zip({0: torch.ones(2), "0": torch.zeros(2)}, tmp_path / "net.pt")  # type: ignore[dict-item]
    with pytest.raises(wb.CheckpointError, match=r"\[0\]: two keys"):
        wb.load(path)


def test_a_word_like_a_nesting_does_not_hide_the_tensors_beside_it() -> None:
    weights = wb.load({"fc.weight": torch.ones(2, 2), "model": {"name": "x"}})
    assert list(weights) == ["fc.weight"] and any("model" in note for note in weights.notes)


def test_compiled_parts_of_a_net_have_the_names_of_the_net() -> None:
    names = ["0._orig_mod.weight", "0._orig_mod.bias", "1.weight"]
    weights = wb.load({name: torch.ones(2, 2) for name in names})
    assert list(weights) == ["0.weight", "0.bias", "1.weight"]
    assert weights.renames["0.weight"] == "0._orig_mod.weight"
    assert "'_orig_mod.' of compiled submodules removed from 2 names" in weights.notes
    assert not any("prefix" in note for note in weights.notes)
    wrapped = wb.load({f"module.{name}": torch.ones(2, 2) for name in names})
    assert list(wrapped) == list(weights) and "prefix 'module.' removed from every name" in wrapped.notes


@pytest.mark.parametrize("path", ["", "~no_such_user_here/x", "x" * 300, "nul\0.pt"])
def test_a_path_that_cannot_be_is_a_checkpoint_error(path: str) -> None:
    with pytest.raises(wb.CheckpointError):
        wb.load(path)


def test_sparse_and_nested_tensors_are_listed() -> None:
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
    rows = (
        wb.layers({"fc": torch.eye(3), "sparse": torch.eye(3).to_sparse(), "nested": nested})
        .frame()
        .set_index("tensor")
    )
    assert rows["verdict"].to_dict() == {"fc": "analysed", "sparse": "excluded", "nested": "excluded"}
    assert "sparse" in rows.loc["sparse", "reason"] and "jagged" in rows.loc["nested", "reason"]


@pytest.mark.parametrize("at", [0, 26, 27])
def test_a_damaged_record_header_in_a_zip_never_shifts_the_numbers(at: int, tmp_path: Path) -> None:
    """The length of a record's name says where its numbers begin; torch believes it, mapped or not."""
    path = as_zip({"a": torch.arange(8.0)}, tmp_path / "net.pt")
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        (record,) = [entry for entry in archive.infolist() if entry.filename.endswith("data/0")]
    content[record.header_offset + at] += 4
    with pytest.raises(wb.CheckpointError, match="truncated or damaged zip archive"):
        wb.load(write(path, bytes(content)))


@pytest.mark.parametrize("change", [lambda path: os.truncate(path, 5000), os.unlink, lambda path: path.touch()])
def test_a_mapped_zip_that_changes_is_refused_and_does_not_end_the_process(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    path = as_zip({"a": torch.ones(1 << 22)}, tmp_path / "net.pt")
    weights = wb.load(path)
    change(path)
    with pytest.raises(
        wb.CheckpointError, match=r"\[a\]: (the file changed since it was opened|cannot be read any more)"
    ):
        weights["a"]


def test_compiled_parts_are_told_without_comparing_all_names() -> None:
    calls = 0

    class Watched(str):
        def startswith(self, *arguments: Any) -> bool:
            nonlocal calls
            calls += 1
            return super().startswith(*arguments)

    names = [Watched(f"a{n}._orig_mod.b.weight") for n in range(300)]
    assert list(without_prefixes(names)) == [f"a{n}.b.weight" for n in range(300)]
    assert calls < 300 * 10  # 300 · 300 where each name is compared with every other


def test_a_name_that_is_no_text_is_written_out(tmp_path: Path) -> None:
    state = {"fc\ud800.weight": torch.ones(2, 3), "fc.bias": torch.ones(2)}
    for source in (state, as_zip(state, tmp_path / "a.pt")):
        weights = wb.load(source)
        assert list(weights) == ["fc\\ud800.weight", "fc.bias"] and weights.fingerprint
        assert weights.renames == {"fc\\ud800.weight": "fc\ud800.weight"}
        assert any("half a surrogate pair" in note and r"fc\ud800.weight" in note for note in weights.notes)
        assert wb.contents(weights, cache=tmp_path / "cache").row("fc\\ud800")["mean"] == 1
        assert list(wb.load(wb.save(weights, tmp_path / "b.safetensors"))) == list(weights)
    with pytest.raises(wb.CheckpointError, match=r"\[fc\\ud800\]: no text .* another tensor's name; rename one"):
        wb.load({"fc\ud800": torch.ones(2), "fc\\ud800": torch.ones(2)})


def repacked(path: Path, method: Callable[[str], int]) -> Path:
    """A torch zip, each record written again with the compression that `method` says."""
    with zipfile.ZipFile(path) as archive:
        records = {record.filename: archive.read(record) for record in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, data, compress_type=method(name))
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
@pytest.mark.parametrize("which", ["data/0", "data/1", "data.pkl", ""])
def test_a_compressed_archive_is_read_and_not_mapped(method: int, which: str, tmp_path: Path) -> None:
    random = torch.randint(-(2**31), 2**31 - 1, (999,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    state = {"random": random, "zeros": torch.zeros(50, 40)}
    path = repacked(
        as_zip(state, tmp_path / "a.pt"), lambda name: method if name.endswith(which) else zipfile.ZIP_STORED
    )
    weights, reference = wb.load(path), torch.load(path, weights_only=True)
    for name in state:
        assert bits(weights[name]) == bits(reference[name]) == bits(state[name])
    told = [note for note in weights.notes if note.startswith("a compressed zip archive cannot be mapped: the whole")]
    assert len(told) == (method == zipfile.ZIP_DEFLATED)


@pytest.mark.parametrize("save", [as_zip, as_legacy])
def test_bytes_that_belong_to_no_tensor_are_reported(save: Saved, tmp_path: Path) -> None:
    whole = torch.zeros(1000)
    state = {"few": torch.zeros(10_000_000)[:3], "a": whole[:300], "b": whole[300:], "c": whole[:300], "d": whole[2:9]}
    weights = wb.load(save(state | {"none": torch.zeros(7)[:0]}, tmp_path / "a.pt"))
    (note,) = [note for note in weights.notes if note.startswith("wasted")]
    assert note == (
        "wasted: 40,000,016 bytes of storage belong to no tensor, in few (39,999,988 bytes), none (28 bytes); "
        "wb.save leaves them out"
    )
    assert wb.save(weights, tmp_path / "b.safetensors").stat().st_size < 10_000
    assert not any("wasted" in note for note in wb.load({"few": whole[:3]}).notes)  # a model in memory is no file


def sharded(folder: Path, shards: Mapping[str, Mapping[str, Tensor]], save: Saved = as_zip) -> Path:
    for file, state in shards.items():
        save(dict(state), folder / file)
    weight_map = {name: file for file, state in shards.items() for name in state}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.mark.parametrize("save", [as_zip, as_legacy])
def test_a_tie_inside_a_shard_counts_once(save: Saved, tmp_path: Path) -> None:
    shared = torch.randn(8, 5)
    state = {"wte.weight": shared, "head.weight": shared, "copy.weight": shared}
    single = wb.load(save(state, tmp_path / "single.pt"))
    parts = wb.load(sharded(tmp_path, {"a.bin": state, "b.bin": {"other.weight": torch.ones(3, 2)}}, save))
    assert single.elements == 40 and parts.elements == 46
    assert {name: parts.infos[name].tied_to for name in state} == {name: single.infos[name].tied_to for name in state}
    assert all(torch.equal(parts[name], shared) for name in state)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"head.weight": "a.bin", "copy.weight": "a.bin"}}))
    weights = wb.load(index)  # the first of the file's names is not in the index
    assert weights.elements == 40 and weights.infos["copy.weight"].tied_to == "head.weight"
    assert torch.equal(weights["copy.weight"], shared)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            "a" * 300 + ".bin",
            r"\[w\]: the index places it in '?aaa.*, which (cannot be read: File name too long|is missing)",
        ),
        ("a\0b.bin", r"\[w\]: the index places it in .*, which (cannot be read: embedded null|is missing)"),
        ("x.bin.index.json", r"\[w\]: the index places it in x.bin.index.json, another index; expected a weight file"),
    ],
    ids=["long", "nul", "itself"],
)
def test_an_index_of_what_is_no_weight_file_is_refused(file: str, message: str, tmp_path: Path) -> None:
    index = tmp_path / "x.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"w": file}}))
    with pytest.raises(wb.CheckpointError, match=message):
        wb.load(index)


def test_names_that_an_index_has_twice_are_reported(tmp_path: Path) -> None:
    for value, file in enumerate(("a.bin", "b.bin")):
        as_zip({"w": torch.full((2, 2), value)}, tmp_path / file)
    (tmp_path / "x.bin.index.json").write_text('{"weight_map": {"w": "a.bin", "w": "b.bin"}}')
    weights = wb.load(tmp_path)
    assert "the index names w twice; the last entry counts" in weights.notes and weights["w"].tolist() == [[1, 1]] * 2


def test_views_that_are_conjugate_or_negative_are_read_as_they_are(tmp_path: Path) -> None:
    z = torch.tensor([[1 + 2j, 3 - 1j]], dtype=torch.complex64)
    state = {"z": z, "conj": z.conj(), "negative": z.conj().imag}
    weights = wb.load(state)
    assert not any(info.tied_to for info in weights.infos.values())
    assert weights["negative"].tolist() == [[-2, 1]] and weights["conj"].tolist() == [[1 - 2j, 3 + 1j]]
    assert content_fingerprint(z.conj()) == content_fingerprint(z.conj().resolve_conj()) != content_fingerprint(z)
    again = wb.load(wb.save(state, tmp_path / "a.safetensors"))
    assert all(bits(again[name]) == bits(tensor.resolve_conj().resolve_neg()) for name, tensor in state.items())
    assert set(wb.contents(state).frame()["verdict"]) == {"finite"}


def test_some_of_the_weights_keep_their_ties_their_file_and_how_they_are_read(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    tied = {"a": shared, "b": shared, "c": shared, "d": torch.ones(2)}
    whole = wb.load(wb.save(tied, tmp_path / "m.safetensors", metadata={"by": "me"}))
    some = whole.only(["d", "c", "b"])
    assert list(some) == ["b", "c", "d"] and some.metadata["by"] == "me" and some.source == whole.source
    assert [some.infos[name].tied_to for name in some] == [None, "b", None] and some.elements == 6
    assert all(torch.equal(some[name], tied[name]) for name in some)
    assert some.borrowed("d").data_ptr() == some.borrowed("d").data_ptr(), "memory that is used again"
    assert [whole.infos[name].tied_to for name in whole] == [None, "a", "a", None]
    with pytest.raises(wb.LayerNotFoundError, match=r"has no tensor 'e'"):
        whole.only(["a", "e"])
    held = wb.load(tied).only(["a"])
    held["a"].zero_()
    assert held["a"].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_weights_told_as_something_else_are_the_same_tensors() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2))
    plain = wb.load({name: torch.ones_like(one) for name, one in module.state_dict().items()})
    found = plain.told_as("ones", notes=["made"], like=wb.load(module), ordered=False)
    assert (found.source, found.notes, found.ordered) == ("ones", ("made",), False)
    assert (found.infos["0.weight"].module, found.infos["0.weight"].groups) == ("Conv2d", 2)
    assert plain.infos["0.weight"].module is None and plain.ordered
    assert torch.equal(found["0.weight"], plain["0.weight"])
