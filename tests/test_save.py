"""Saved weights come back bit by bit, in order, with every name; what stood there before is replaced whole or kept."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

import workbench as wb
from workbench.weights import TensorInfo
from workbench.weights.written_behind import written_behind

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.uint8]
DTYPES += [torch.bool, torch.complex64]


def state() -> dict[str, Tensor]:
    """Every dtype, a scalar, an empty and a transposed tensor, in an order that no sorting gives."""
    random = torch.Generator().manual_seed(0)
    tensors = {f"z{9 - n}.weight": torch.randn(3, 4, generator=random).to(dtype) for n, dtype in enumerate(DTYPES)}
    return tensors | {"b": torch.tensor(3.0), "a": torch.ones(0, 4), "t.weight": torch.arange(6.0).reshape(2, 3).T}


def assert_same(weights: Any, tensors: dict[str, Tensor]) -> None:
    assert list(weights) == list(tensors)
    for name, tensor in tensors.items():
        assert weights[name].dtype == tensor.dtype and torch.equal(weights[name], tensor), name


@pytest.mark.parametrize("target", ["net.safetensors", "folder", "new/folder/net"])
def test_what_is_saved_comes_back_bit_by_bit_and_in_order(target: str, tmp_path: Path) -> None:
    if target.endswith(".safetensors"):
        (tmp_path / target).parent.mkdir(exist_ok=True)
    path = wb.save(state(), tmp_path / target, metadata={"licence": "mine"})
    weights = wb.load(path)
    assert_same(weights, state())
    assert weights.ordered and weights.metadata["licence"] == "mine"
    file = path if path.is_file() else path / "model.safetensors"
    theirs = safetensors.torch.load_file(file)  # the library's own reader
    assert set(theirs) == set(state()) and all(torch.equal(theirs[name], tensor) for name, tensor in state().items())


def test_all_forms_of_one_checkpoint_are_equal(tmp_path: Path) -> None:
    net = nn.Sequential(*[nn.Linear(4, 4) for _ in range(12)])
    plain = dict(net.state_dict())
    torch.save(plain, tmp_path / "zip.pt")
    torch.save(plain, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(
        {"model": {f"module.{name}": tensor for name, tensor in plain.items()}, "epoch": 1}, tmp_path / "wrapped.ckpt"
    )
    safetensors.torch.save_file(dict(reversed(plain.items())), tmp_path / "reordered.safetensors")
    sharded = wb.save(net, tmp_path / "sharded", shard_bytes=200)
    forms = [wb.load(tmp_path / name) for name in ("zip.pt", "legacy.pt", "wrapped.ckpt", "reordered.safetensors")]
    forms += [wb.load(sharded), wb.load(sharded / "model.safetensors.index.json"), wb.load(net), wb.load(plain)]
    expected = wb.spectrum(plain).frame()
    for weights in forms:
        assert len({weights.fingerprint, forms[0].fingerprint}) == 1
        assert {name: weights[name].tolist() for name in weights} == {name: one.tolist() for name, one in plain.items()}
        assert wb.spectrum(weights).frame().equals(expected) or not weights.ordered


def test_a_tied_tensor_is_stored_once_and_keeps_its_names(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(5, 7, bias=False)
            self.embedding = nn.Embedding(7, 5)
            self.head.weight = self.embedding.weight

    for target in ("net.safetensors", "folder"):
        weights = wb.load(wb.save(Tied(), tmp_path / target))
        assert weights.infos["embedding.weight"].tied_to == "head.weight"
        assert (weights.elements, weights.bytes) == (35, 140)
        Tied().load_state_dict(dict(weights))  # strict: every name is there
    assert list(safetensors.torch.load_file(tmp_path / "net.safetensors")) == ["head.weight"]


def test_a_cast_touches_floating_tensors_alone(tmp_path: Path) -> None:
    tensors = {"w": torch.randn(3, 3, generator=torch.Generator().manual_seed(0)), "ids": torch.arange(4)}
    weights = wb.load(wb.save(tensors, tmp_path / "net.safetensors", dtype=torch.bfloat16))
    assert weights["w"].dtype == torch.bfloat16 and torch.equal(weights["w"], tensors["w"].bfloat16())
    assert torch.equal(weights["ids"], tensors["ids"])


def test_shards_hold_at_most_their_size_and_the_index_all_names(tmp_path: Path) -> None:
    tensors = {f"{n}.weight": torch.full((10,), float(n)) for n in range(9)} | {"big": torch.zeros(100)}
    folder = wb.save(tensors, tmp_path / "net", shard_bytes=100)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 9 * 40 + 400
    assert list(index["weight_map"]) == list(tensors)
    for file in set(index["weight_map"].values()):
        held = safetensors.torch.load_file(folder / file)
        assert sum(one.nbytes for one in held.values()) <= 100 or list(held) == ["big"]
    assert_same(wb.load(folder), tensors)


@pytest.mark.parametrize(("first", "second"), [(50, 10**9), (10**9, 50), (50, 60), (50, 50)])
def test_a_folder_holds_the_last_checkpoint_and_nothing_of_those_before(
    first: int, second: int, tmp_path: Path
) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "config.json").write_text("{}")
    wb.save({f"{n}.weight": torch.ones(10) for n in range(4)}, tmp_path / "net", shard_bytes=first)
    later = {f"{n}.weight": torch.full((10,), 2.0) for n in range(3)}
    wb.save(later, tmp_path / "net", shard_bytes=second)
    assert_same(wb.load(tmp_path / "net"), later)
    files = [file for file in (tmp_path / "net").iterdir() if file.suffix == ".safetensors"]
    assert len(files) == (1 if second == 10**9 else 3)
    assert (tmp_path / "net" / "config.json").read_text() == "{}"


FULL = """
import resource, signal, sys
import torch, workbench as wb
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a full disk, as the file system reports it
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    wb.save({f"{n}.weight": torch.full((3000,), 7.0) for n in range(9)}, sys.argv[1], shard_bytes=int(sys.argv[2]))
except OSError as error:
    print("OSError", error.strerror)
"""


@pytest.mark.parametrize(("target", "shard_bytes"), [("net.safetensors", 10**9), ("net", 10**9), ("net", 40_000)])
def test_a_full_disk_leaves_the_earlier_checkpoint(target: str, shard_bytes: int, tmp_path: Path) -> None:
    earlier = {f"{n}.weight": torch.ones(3000) for n in range(5)}
    wb.save(earlier, tmp_path / target, shard_bytes=40_000)
    before = sorted(tmp_path.rglob("*"))
    if shard_bytes == 40_000:  # the limit is a file's: let one tensor be larger than it
        code = FULL.replace("(3000,)", "(3000 * (1 + 9 * (n == 8)),)")
    else:
        code = FULL
    command = [sys.executable, "-c", code, str(tmp_path / target), str(shard_bytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "OSError File too large\n"
    assert sorted(tmp_path.rglob("*")) == before
    assert_same(wb.load(tmp_path / target), earlier)


def test_a_checkpoint_is_saved_over_itself(tmp_path: Path) -> None:
    path = wb.save(state(), tmp_path / "net.safetensors")
    old = wb.load(path)
    wb.save({"first": torch.zeros(50), **old}, path)
    assert_same(wb.load(path), {"first": torch.zeros(50), **state()})
    with pytest.raises(wb.CheckpointError, match="changed since it was opened"):
        old["b"]  # its offsets mean other numbers now


def test_one_tensor_is_in_memory_at_a_time(tmp_path: Path) -> None:
    code = (
        "import resource, sys, torch, workbench as wb\n"
        "net = wb.load(sys.argv[1])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "wb.save(net, sys.argv[2])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    wb.save({f"{n}.weight": torch.zeros(4, 1 << 20) for n in range(10)}, tmp_path / "net.safetensors")
    command = [sys.executable, "-c", code, str(tmp_path / "net.safetensors"), str(tmp_path / "copy.safetensors")]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown < 60_000, f"{grown} KiB for tensors of 16 MiB"  # 160 MiB in all
    assert resource.getpagesize() > 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda d: wb.save({"a": torch.ones(2)}, d / "net.pt"), ["net.pt", ".safetensors", "folder"]),
        (lambda d: wb.save({"a": torch.ones(2)}, d / "no" / "net.safetensors"), ["not a folder"]),
        (lambda d: wb.save({"a": torch.ones(2)}, d / "net", dtype=torch.int8), ["dtype=torch.int8", "bfloat16"]),
        (lambda d: wb.save({"a": torch.ones(2)}, d / "net", shard_bytes=0), ["shard_bytes=0", "positive"]),
        (lambda d: wb.save({"a": torch.ones(2)}, d / "net", metadata={"workbench": "x"}), ["metadata['workbench']"]),
        (lambda d: wb.save({"a": torch.eye(2).to_sparse()}, d / "net"), ["sparse", "to_dense"]),
        (lambda d: wb.save({"a": torch.ones(2, dtype=torch.complex128)}, d / "net"), ["complex128", "cast it first"]),
    ],
)
def test_what_cannot_be_saved_says_what_to_do(call: Callable[[Path], Any], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(wb.ArgumentError) as caught:
        call(tmp_path)
    assert all(word in str(caught.value) for word in words), caught.value
    assert not list(tmp_path.iterdir())


# Shards of others


def index_of(folder: Path, weight_map: Any, name: str = "model.safetensors.index.json") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 8}, "weight_map": weight_map}))
    return folder


def test_shards_of_torch_files_open_too(tmp_path: Path) -> None:
    folder = index_of(tmp_path / "net", {"a": "one.bin", "b": "two.bin"}, "pytorch_model.bin.index.json")
    torch.save({"a": torch.ones(2)}, folder / "one.bin")
    torch.save({"b": torch.zeros(3), "c": torch.zeros(4)}, folder / "two.bin", _use_new_zipfile_serialization=False)
    weights = wb.load(folder)
    assert {name: weights[name].tolist() for name in weights} == {"a": [1, 1], "b": [0, 0, 0]}
    assert any("not in the index, left out: c in two.bin" in note for note in weights.notes)
    assert any("legacy" in note for note in weights.notes)
    weights["a"].zero_()
    assert weights["a"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("weight_map", "words"),
    [
        ({"a": "../outside.safetensors"}, r"\[a\].*outside the checkpoint's folder: refused"),
        ({"a": "sub/../../outside.safetensors"}, "refused"),
        ({"a": "/etc/passwd"}, "refused"),
        ({"a": "C:\\\\x.safetensors"}, "refused"),
        ({"a": "..\\\\outside.safetensors"}, "refused"),
        ({"a": "gone.safetensors"}, r"\[a\]: the index places it in gone.safetensors, which is missing"),
        (
            {"a": "one.safetensors", "b": "one.safetensors"},
            r"\[b\]: the index places it in one.safetensors, which does not",
        ),
        ({"a": 3}, r"\[a\]: the index gives 3 for its file"),
        ({"a": "empty.safetensors"}, r"net/empty.safetensors: the file is empty"),
        ({"a": "cut.safetensors"}, r"net/cut.safetensors: not a valid safetensors file: .*not fully covered"),
        ({"a": "sub"}, r"\[a\]: the index places it in sub, which is missing"),
        ({}, 'an index without "weight_map"'),
        ([], 'an index without "weight_map"'),
    ],
)
def test_an_index_is_not_believed(weight_map: Any, words: str, tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "outside.safetensors")
    folder = index_of(tmp_path / "net", weight_map)
    safetensors.torch.save_file({"a": torch.ones(2)}, folder / "one.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "one.safetensors").read_bytes()[:-1])
    (folder / "empty.safetensors").touch()
    (folder / "sub").mkdir()
    with pytest.raises(wb.CheckpointError, match=words):
        wb.load(folder)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '"x"', "\\xff"])
def test_a_damaged_index_is_a_checkpoint_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(wb.CheckpointError, match="index"):
        wb.load(tmp_path)


@pytest.mark.parametrize(
    "record", ["{", "[]", '{"order": ["x"]}', '{"ties": {"a": "gone", "b": "a"}}', '{"order": 3, "ties": 4}']
)
def test_a_record_that_does_not_fit_is_not_believed(record: str, tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2), "b": torch.zeros(2)}
    safetensors.torch.save_file(tensors, tmp_path / "net.safetensors", metadata={"workbench": record})
    weights = wb.load(tmp_path / "net.safetensors")
    assert_same(weights, tensors)
    assert not weights.ordered


def test_what_is_written_behind_is_what_was_given_whatever_becomes_of_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors that share one memory, as borrowed ones do, in pieces that fill the writer's buffers in every way."""
    monkeypatch.setattr("workbench.weights.written_behind.BUFFER", 1000)
    lent = torch.empty(900)
    sizes = [1, 249, 250, 251, 900, 3, 500]
    infos = [TensorInfo(name=f"t{n}", stored=f"t{n}", shape=(n,), dtype=torch.float32) for n in sizes]

    def borrowed(info: Any) -> Tensor:
        return lent[: info.elements].fill_(info.elements)

    wb.save(wb.Weights(infos, borrowed, source="lent"), tmp_path / "net.safetensors")
    stored = safetensors.torch.load_file(tmp_path / "net.safetensors")
    assert {name: set(tensor.tolist()) for name, tensor in stored.items()} == {f"t{n}": {float(n)} for n in sizes}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_an_error_of_the_writing_thread_is_raised() -> None:
    with pytest.raises(OSError, match="No space left"), written_behind(Path("/dev/full"), 10) as file:
        file.write(b"0123456789")
