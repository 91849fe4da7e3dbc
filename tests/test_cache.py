"""A cache gives back bit by bit what was computed, and only for the same numbers, rules and code."""

import importlib
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import workbench as wb
from workbench.cache import Cache, Entry

MODULE = importlib.import_module("workbench.spectra.spectrum")  # the package's name for it is the function
AWKWARD = {"third": 1 / 3, "nan": math.nan, "inf": -math.inf, "tiny": 5e-324, "text": "α\n", "none": None, "n": 2**60}


def model(seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {f"{n}.weight": torch.randn(40, 30, generator=random) for n in range(4)}


def equal(a: wb.Spectrum, b: wb.Spectrum) -> bool:
    tables = all(a.frame(name).equals(b.frame(name)) for name in a.tables)
    return tables and all(torch.equal(a.eigenvalues[name], b.eigenvalues[name]) for name in a.eigenvalues)


def test_values_and_tensors_read_back_bit_by_bit(tmp_path: Path) -> None:
    tensors = {"double": torch.tensor([1 / 3, math.nan, -0.0], dtype=torch.float64), "none": torch.zeros(0, 3)}
    first = Cache(tmp_path / "new").through({"a": 1}, lambda: Entry(AWKWARD, tensors))
    again = Cache(tmp_path / "new").through({"a": 1}, lambda: pytest.fail("it was kept"))
    assert first.values is AWKWARD and repr(dict(again.values)) == repr(AWKWARD)
    assert torch.equal(again.tensors["double"].view(torch.int64), tensors["double"].view(torch.int64))
    assert again.tensors["none"].shape == (0, 3)


@pytest.mark.parametrize("key", [{"a": 2}, {"a": "1"}, {"a": 1, "b": None}, {}])
def test_another_key_is_another_unit(tmp_path: Path, key: dict[str, Any]) -> None:
    cache = Cache(tmp_path)
    cache.through({"a": 1}, lambda: Entry({"x": 1}, {}))
    assert cache.through(key, lambda: Entry({"x": 2}, {})).values["x"] == 2


def test_another_version_computes_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Cache(tmp_path).through({}, lambda: Entry({"x": 1}, {}))
    monkeypatch.setattr("workbench.cache.__version__", "99")
    assert Cache(tmp_path).through({}, lambda: Entry({"x": 2}, {})).values["x"] == 2


@pytest.mark.parametrize("damage", [b"", b"\x00" * 40, None])
def test_damage_is_computed_again_counted_and_mended(tmp_path: Path, damage: bytes | None) -> None:
    Cache(tmp_path).through({}, lambda: Entry({"x": 1}, {"t": torch.ones(99)}))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-7] if damage is None else damage)
    cache = Cache(tmp_path)
    assert cache.through({}, lambda: Entry({"x": 2}, {})).values["x"] == 2
    assert cache.through({}, lambda: pytest.fail("it was mended")).values["x"] == 2
    assert cache.facts() == {"found": 1, "computed": 0, "damaged": 1, "not_kept": 0}


def test_what_raises_is_passed_on_and_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def fails() -> Entry:
        raise wb.LayerError("no")

    for _ in range(2):
        with pytest.raises(wb.LayerError, match="no"):
            cache.through({}, fails)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_loses_no_run(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "file" / "folder")
    (tmp_path / "file").write_text("in the way")
    assert cache.through({}, lambda: Entry({"x": 1}, {})).values["x"] == 1
    assert cache.facts() == {"found": 0, "computed": 1, "damaged": 0, "not_kept": 1}


def test_a_second_run_computes_nothing_and_is_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rules in ({}, {"compat": "weightwatcher"}, {"xmin": "median"}, {"conv": "flatten"}):
        plain, first = wb.spectrum(model(), **rules), wb.spectrum(model(), **rules, cache=tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(MODULE, "gram_eigenvalues", lambda _: pytest.fail("computed again"))
            again = wb.spectrum(model(), **rules, cache=tmp_path)
        assert equal(plain, first) and equal(plain, again)
        assert first.meta["cache"]["computed"] == again.meta["cache"]["found"] == 4
        assert plain.meta["fingerprints"] == again.meta["fingerprints"] and "cache" not in plain.meta


def test_only_changed_layers_are_computed(tmp_path: Path) -> None:
    before, after = model(), model()
    wb.spectrum(before, cache=tmp_path)
    after["2.weight"][3, 3] += 1e-6
    found = wb.spectrum(after, cache=tmp_path)
    assert found.meta["cache"] == {"found": 3, "computed": 1, "damaged": 0, "not_kept": 0}
    assert equal(found, wb.spectrum(after))


def test_a_cancelled_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(progress: wb.Progress) -> None:
        if progress.done == 2:
            raise wb.Cancelled

    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with pytest.raises(wb.Cancelled):
        wb.spectrum(model(), cache=tmp_path, progress=stop)
    found = wb.spectrum(model(), cache=tmp_path)
    assert found.meta["cache"]["found"] == 2 and equal(found, wb.spectrum(model()))


def test_a_failed_layer_is_not_kept(tmp_path: Path) -> None:
    bad = model()
    bad["1.weight"][0, 0] = math.nan
    for _ in range(2):
        found = wb.spectrum(bad, cache=tmp_path)
        assert found.row("1")["verdict"] == "failed"
    assert found.meta["cache"]["found"] == 3 and len(list(tmp_path.iterdir())) == 3


def test_wrong_caches_are_refused_before_anything_is_read(raised: Any, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    calls = {
        f"wb.spectrum(model, cache={str(file)!r})": "is a file: expected a folder",
        "wb.spectrum(model, cache=True)": "expected the path of a folder, or None",
        "wb.spectrum(model, cache='')": "expected the path of a folder, or None",
        f"wb.spectrum(model, cache={f'{file}/sub/folder'!r})": "lies in 'file', which is a file: expected a folder",
        "wb.spectrum(model, cache='a\\0b')": "cannot be a folder (",
        "wb.spectrum(model, cache=300 * 'a')": "cannot be a folder (File name too long); choose another path",
        "wb.spectrum(model, cache='~no such user')": "cannot be a folder (",
    }
    for code, (kind, message) in raised(calls).items():
        assert kind == "ArgumentError" and calls[code] in message


def test_the_cache_is_in_a_saved_result(tmp_path: Path) -> None:
    saved = wb.spectrum(model(), cache=tmp_path / "cache").save(tmp_path / "result")
    assert json.loads((saved / "result.json").read_text())["meta"]["cache"]["computed"] == 4


def test_no_flipped_byte_is_served(tmp_path: Path) -> None:
    def kept(value: float) -> Entry:
        return Cache(tmp_path).through({}, lambda: Entry({"x": value}, {"t": torch.full((3,), value)}))

    kept(1.0)
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    for place in range(len(data)):
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert kept(2.0).values["x"] == 2 and kept(3.0).tensors["t"].tolist() == [2.0] * 3


def test_an_entry_under_anothers_name_is_not_served(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.through({"unit": "a"}, lambda: Entry({"x": 1}, {}))
    (a,) = tmp_path.iterdir()
    cache.through({"unit": "b"}, lambda: Entry({"x": 2}, {}))
    (b,) = {*tmp_path.iterdir()} - {a}
    b.write_bytes(a.read_bytes())
    assert cache.through({"unit": "b"}, lambda: Entry({"x": 3}, {})).values["x"] == 3
    assert cache.facts()["damaged"] == 1


def test_an_entry_without_its_values_is_computed_again(tmp_path: Path) -> None:
    layer = {"0.weight": model()["0.weight"]}
    for call in (wb.spectrum, wb.contents):
        folder = tmp_path / call.__name__
        before = call(layer, cache=folder)
        (file,) = folder.iterdir()
        save_file({}, file, {"values": "{}"})
        again = call(layer, cache=folder)
        assert again.meta["cache"]["damaged"] == 1 and again.frame().equals(before.frame())


@pytest.mark.skipif(os.name == "nt", reason="rights of POSIX")
def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        Cache(tmp_path / "cache").through({}, lambda: Entry({"x": 1}, {}))
    finally:
        os.umask(before)
    (file,) = (tmp_path / "cache").iterdir()
    assert file.stat().st_mode & 0o777 == 0o644
