"""Signatures in few bits: the error bound, the bytes, files that open again, and damage."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

import workbench as wb
from workbench.signatures.quantised import packed, payload, unpacked

floats = st.floats(-1e6, 1e6, width=32)
EACH_BITS = pytest.mark.parametrize("bits", range(2, 9))


@given(arrays(np.float32, st.integers(0, 300), elements=floats), st.integers(2, 8))
def test_the_error_is_half_a_step_at_most_and_the_bytes_are_the_formula_s(values: Any, bits: int) -> None:
    tensor = torch.from_numpy(values)
    data = packed(tensor, bits)
    assert data.dtype == torch.uint8 and data.numel() == payload(len(values), bits) == 8 + -(-len(values) * bits // 8)
    again = unpacked(data, tensor.shape, bits, torch.float64)
    if len(values):
        low, high = float(tensor.min()), float(tensor.max())
        half, rounding = (high - low) / (2 * (2**bits - 1)), 2.0**-51 * max(abs(low), abs(high))
        assert float((again - tensor.double()).abs().max()) <= half + rounding
        assert again.min() == low and abs(float(again.max()) - high) <= rounding


@EACH_BITS
def test_codes_are_really_packed_by_hand(bits: int) -> None:
    """The first element's lowest bit is the lowest bit of the first byte behind the two ends."""
    codes = [3, 0, 1, 2, 2**bits - 1]
    tensor = torch.tensor(codes, dtype=torch.float32)
    whole = sum(code << (place * bits) for place, code in enumerate(codes))
    expected = np.array([0, 2**bits - 1], "<f4").tobytes() + whole.to_bytes(-(-5 * bits // 8), "little")
    assert packed(tensor, bits).numpy().tobytes() == expected
    assert torch.equal(unpacked(packed(tensor, bits), [5], bits, torch.float32), tensor)


@EACH_BITS
def test_pieces_meet_at_whole_bytes(bits: int) -> None:
    tensor = torch.randn(200_003, generator=torch.Generator().manual_seed(bits))
    again = unpacked(packed(tensor, bits), tensor.shape, bits, torch.float32)
    step = float(tensor.max() - tensor.min()) / (2**bits - 1)
    assert float((again - tensor).abs().max()) <= step / 2 + 1e-6
    for part in (tensor[:65_536], tensor[65_536:131_072], tensor[-1:]):
        alone = unpacked(
            packed(torch.cat([part, tensor.min()[None], tensor.max()[None]]), bits),
            [len(part) + 2],
            bits,
            torch.float32,
        )
        place = next(place for place in (0, 65_536, 200_002) if tensor[place] == part[0])
        assert torch.equal(alone[:-2], again[place : place + len(part)])


def test_ends_are_rounded_outwards_where_float32_is_too_coarse() -> None:
    tensor = torch.tensor([1 + 1e-12, 2 - 1e-12], dtype=torch.float64)
    low, high = packed(tensor, 2)[:8].numpy().view("<f4").tolist()
    assert low == 1.0 and high == 2.0
    with pytest.raises(wb.ArgumentError, match="float32 does not hold them"):
        packed(torch.tensor([0.0, 1e60], dtype=torch.float64), 4)
    assert unpacked(packed(torch.full((3,), 0.1), 2), [3], 2, torch.float32).tolist() == [np.float32(0.1)] * 3


# Files


def taken(*, norm: bool = False, dtype: torch.dtype = torch.float32, seed: int = 0) -> wb.Signature:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules = [
            nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.Linear(5, 7)).to(dtype)
            for _ in range(3)
        ]
    return wb.signature(ancestor=modules[0], clean=modules[1], robust=modules[2])


def same(one: wb.Signature, other: wb.Signature) -> None:
    assert list(one) == list(other)
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name])
    assert all(
        torch.equal(one.statistics[name], other.statistics[name]) for name in {*one.statistics, *other.statistics}
    )
    assert one.frame().equals(other.frame())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", [False, True])
def test_an_exact_file_is_the_signature_and_is_weights_too(norm: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    found = taken(norm=norm, dtype=dtype)
    again = wb.Signature.load(found.save(tmp_path / "s.safetensors"))
    same(found, again)
    assert again.fingerprint == found.fingerprint and again.meta["fingerprints"] == found.meta["fingerprints"]
    assert again.meta["bits"] is None and repr(again) == repr(found)
    weights = wb.load(tmp_path / "s.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in found.items())


@EACH_BITS
def test_a_packed_file_has_the_bytes_of_the_formula_and_opens_again(bits: int, tmp_path: Path) -> None:
    found = taken(norm=True)
    path = found.save(tmp_path / "s.safetensors", bits=bits)
    file = path.read_bytes()
    head = int.from_bytes(file[:8], "little")
    statistics = sum(one.nbytes for one in found.statistics.values())
    formula = sum(-(-one.numel() * bits // 8) + 8 for one in found.values())
    assert len(file) == 8 + head + formula + statistics
    again = wb.Signature.load(path)
    assert again.meta["bits"] == bits and f"from {bits} bits" in repr(again)
    for name, tensor in found.items():
        assert again[name].dtype == tensor.dtype and again[name].shape == tensor.shape
        assert (
            float((again[name] - tensor).abs().max()) <= float(tensor.max() - tensor.min()) / (2 * (2**bits - 1)) + 1e-7
        )
    exact, stored = found.frame().set_index("tensor"), again.frame().set_index("tensor")
    assert stored.drop(columns="norm").equals(exact.drop(columns="norm")), (
        "what it was made of is that of the exact one"
    )
    assert stored["norm"].to_dict() == pytest.approx({name: float(again[name].double().norm()) for name in found})
    assert torch.equal(again.statistics["1.running_var"], found.statistics["1.running_var"])
    twice = wb.Signature.load(again.save(tmp_path / "twice.safetensors", bits=bits))
    for name, tensor in again.items():
        torch.testing.assert_close(twice[name], tensor, rtol=0, atol=1e-6)


def test_a_packed_file_is_no_weights_and_part_of_it_is_applied_as_it_is(tmp_path: Path) -> None:
    found = taken()
    path = found.only("0").save(tmp_path / "s.safetensors", bits=4)
    with pytest.raises(wb.CheckpointError, match="a signature in few bits: open it with wb.Signature.load"):
        wb.load(path)
    again = wb.Signature.load(path)
    assert list(again) == ["0.weight", "0.bias"]
    model = {name: torch.zeros_like(tensor) for name, tensor in found.items()}
    patched = again.apply(model)
    assert torch.equal(patched["0.weight"], again["0.weight"]) and not patched["2.weight"].any()
    undo = patched.save_undo(tmp_path / "undo.safetensors")
    assert not any(tensor.any() for tensor in wb.Signature.remove(dict(patched), undo).values())


def test_ties_and_odd_shapes_come_back(tmp_path: Path) -> None:
    states = []
    for seed in range(3):
        random = torch.Generator().manual_seed(seed)
        shared = torch.randn(3, 3, generator=random)
        states.append({"b": shared, "a": shared, "scalar": torch.randn((), generator=random), "none": torch.ones(0, 2)})
    found = wb.signature(ancestor=states[0], clean={**states[1], "scalar": states[0]["scalar"]}, robust=states[2])
    for bits in (None, 3):
        again = wb.Signature.load(found.save(tmp_path / "s.safetensors", bits=bits))
        assert again.weights.infos["a"].tied_to == "b" and torch.equal(again["a"], again["b"])
        assert again["scalar"].shape == () and again["none"].shape == (0, 2)
        assert float(again["scalar"]) == float(found["scalar"])


FULL = """
import resource, signal, sys
import torch, workbench as wb
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a full disk, as the file system reports it
states = [{"w": torch.randn(300, 300, generator=torch.Generator().manual_seed(n))} for n in range(3)]
found = wb.signature(ancestor=states[0], clean=states[1], robust=states[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for call in (lambda p: found.save(p, bits=4), found.save, found.apply(states[1]).save_undo):
    try:
        call(sys.argv[1])
    except OSError as error:
        print("OSError", error.strerror)
"""


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    path = taken().save(tmp_path / "s.safetensors", bits=4)
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "OSError File too large\n" * 3
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before


def _edited(path: Path, edit: Any) -> None:
    """The file with another metadata text."""
    file = path.read_bytes()
    end = 8 + int.from_bytes(file[:8], "little")
    head = json.loads(file[8:end])
    key = "packed signature"
    head["__metadata__"][key] = edit(head["__metadata__"][key])
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + file[end:])


def test_what_is_no_signature_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(wb.CheckpointNotFoundError, match="no such file"):
        wb.Signature.load(tmp_path / "s.safetensors")
    with pytest.raises(wb.CheckpointError, match="no signature: expected a file that Signature.save wrote"):
        wb.Signature.load(wb.save({"a": torch.ones(2)}, tmp_path / "net.safetensors"))
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(wb.CheckpointError, match="not a valid safetensors file"):
        wb.Signature.load(tmp_path / "text.safetensors")
    with pytest.raises(wb.ArgumentError, match="ends in .safetensors"):
        taken().save(tmp_path / "s.bin")
    edits: list[tuple[Any, str]] = [
        (lambda text: "{", "damaged signature"),
        (lambda text: text.replace('"bits": 4', '"bits": 5', 1), "stored, expected"),
        (lambda text: text.replace('"bits": 4', '"bits": 44', 1), "damaged signature"),
        (lambda text: text.replace("[8, 1, 3, 3]", "[8, 1, 3, 4]"), "stored, expected"),
        (lambda text: text.replace('"0.bias"', '"0.bios"'), "damaged signature"),
        (lambda text: text.replace('"notes": []', '"notes": 3'), "damaged signature"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "format 2: update"),
    ]
    for edit, words in edits:
        path = taken().save(tmp_path / "s.safetensors", bits=4)
        _edited(path, edit)
        with pytest.raises(wb.CheckpointError, match=words):
            wb.Signature.load(path)


def test_ends_that_are_no_range_are_refused(
    tmp_path: Path, raised: Callable[[list[str]], dict[str, list[str]]]
) -> None:
    file = bytearray(taken().save(tmp_path / "s.safetensors", bits=4).read_bytes())
    head = 8 + int.from_bytes(file[:8], "little")
    begin = head + json.loads(file[8:head])["0.weight"]["data_offsets"][0]
    codes = []
    for number, ends in enumerate(((1.0, 0.0), (0.0, np.inf), (np.nan, 1.0), (-np.inf, 1.0))):
        file[begin : begin + 8] = np.array(ends, "<f4").tobytes()
        (tmp_path / f"{number}.safetensors").write_bytes(bytes(file))
        codes.append(f"wb.Signature.load({str(tmp_path / f'{number}.safetensors')!r})['0.weight']")
    for kind, message in raised(codes).values():
        assert kind == "CheckpointError" and "[0.weight]" in message and "expected a finite range" in message


def test_meta_of_many_kinds_of_names_comes_back(tmp_path: Path) -> None:
    states: list[dict[str, Tensor]] = [
        {"schicht.größe.weight": torch.randn(4, 4, generator=torch.Generator().manual_seed(n))} for n in range(3)
    ]
    found = wb.signature(ancestor=states[0], clean=states[1], robust=states[2])
    again = wb.Signature.load(found.save(tmp_path / "s.safetensors", bits=8))
    assert list(again) == list(found) and again.meta["sources"] == found.meta["sources"]


def test_the_fewest_bits_that_numbers_went_through_are_told(tmp_path: Path) -> None:
    """Eight bits of a signature of two are still a signature of two."""
    two = wb.Signature.load(taken().save(tmp_path / "two.safetensors", bits=2))
    eight = wb.Signature.load(two.save(tmp_path / "eight.safetensors", bits=8))
    exact = wb.Signature.load(two.save(tmp_path / "exact.safetensors"))
    for one in (two, eight, exact, wb.Signature.mean([taken(), two]), two.only("0")):
        assert one.meta["bits"] == 2 and "from 2 bits" in repr(one)
        norms = {name: float(one[name].double().norm()) for name in one}
        assert one.frame().set_index("tensor")["norm"].to_dict() == pytest.approx(norms, rel=1e-6)
    assert "bits" not in repr(wb.Signature.mean([taken()])).splitlines()[0]
