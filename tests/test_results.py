"""The contract of results: declared columns, saving that loses no bit, and errors that say what to do."""

import copy
import json
import math
import os
import pickle
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

import workbench as wb
from workbench.results import LAYER_COLUMNS, Column, LayerResult


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Toy(LayerResult):
    """Every kind of column, an optional table, a tensor and a mapping of tensors."""

    OPTIONAL: ClassVar = {"extra": "toys make it on request"}
    COLUMNS: ClassVar = {
        "cells": {
            "layer": LAYER_COLUMNS["layer"],
            "share": Column("a share", low=0),
            "score": Column("a score"),
            "count": Column("a count", int, "apples", low=0, high=2**70),
            "good": Column("a flag", bool, ""),
        },
        "extra": {"share": Column("a share", low=0)},
    }
    NEXT: ClassVar = "toy.play()"

    weight: Tensor
    weights: Mapping[str, Tensor]


def cells(**columns: list[Any]) -> dict[str, list[Any]]:
    return {"layer": ["fc"], "share": [0.5], "score": [-1.0], "count": [3], "good": [True]} | columns


def toy(tables: Mapping[str, Any] | None = None, **fields: Any) -> Toy:
    given_fields = {"meta": {"source": "a test"}, "weight": torch.ones(2), "weights": {}} | fields
    return Toy(tables={"cells": cells()} if tables is None else tables, **given_fields)


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"cells": cells(), "sells": {}}, ["Toy has no tables ['sells']", "it has ['cells', 'extra']"]),
        ({}, ["Toy was built without its table 'cells'"]),
        ({"cells": {"layer": ["fc"]}}, ["Toy.cells has the columns ['layer']", "expected ['layer', 'share'"]),
        ({"cells": dict(reversed(cells().items()))}, ["has the columns ['good', 'count'", "expected ['layer'"]),
        ({"cells": cells(count=[1, 2])}, ["columns of unequal length", "'count': 2", "'share': 1"]),
        ({"cells": cells(share=[-0.5])}, ["Toy.cells[0].share is -0.5", "expected float in [0, inf] (a share)"]),
        ({"cells": cells(share=[-math.inf])}, ["share is -inf", "float in [0, inf]"]),
        ({"cells": cells(count=[2**71])}, [f"count is {2**71}", "expected int"]),
        ({"cells": cells(count=[1.5])}, ["count is 1.5", "expected int"]),
        ({"cells": cells(count=["3"])}, ["count is '3'", "expected int"]),
        ({"cells": cells(good=["no"])}, ["good is 'no'", "expected bool", "(a flag)"]),
        ({"cells": cells(good=[2])}, ["good is 2", "expected bool"]),
        ({"cells": cells(layer=[3])}, ["layer is 3", "expected str"]),
        ({"cells": cells(layer=[None])}, ["layer is None", "expected str"]),
    ],
)
def test_what_breaks_the_contract_of_columns_is_refused_with_row_and_column(tables: Any, words: list[str]) -> None:
    with pytest.raises(wb.ResultError) as error:
        toy(tables)
    assert isinstance(error.value, ValueError)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("share", "half"),
        ("share", None),
        ("share", 1j),
        ("count", math.nan),
        ("count", math.inf),
        ("count", None),
    ],
    ids=["word", "None", "complex", "nan", "inf", "no count"],
)
def test_a_cell_that_cannot_even_be_converted_is_a_result_error_too(column: str, cell: Any) -> None:
    with pytest.raises(wb.ResultError, match=rf"cells\[0\]\.{column} is .*; expected"):
        toy({"cells": cells(**{column: [cell]})})


@pytest.mark.parametrize("text", ["nan", "NaN"])
def test_a_text_is_not_a_number_even_if_it_says_nan(text: str) -> None:
    with pytest.raises(wb.ResultError, match="expected float"):
        toy({"cells": cells(share=[text])})


def test_nan_means_does_not_exist_and_passes_every_range() -> None:
    assert math.isnan(toy({"cells": cells(share=[math.nan])}).frame()["share"][0])


def test_a_result_cannot_be_changed_by_what_it_was_made_of_or_by_its_readers() -> None:
    shares, meta = [0.5], {"source": "a test"}
    result = toy({"cells": cells(share=shares)}, meta=meta)
    shares[0], meta["source"] = 0.7, "elsewhere"
    frame = result.frame()
    frame.loc[0, "share"] = 0.9
    frame["new"] = 1
    assert result.frame()["share"].tolist() == [0.5]
    assert list(result.frame()) == list(Toy.COLUMNS["cells"])
    assert result.meta == {"source": "a test"}
    with pytest.raises(TypeError):
        result.tables["cells"]["share"][0] = 1.0
    with pytest.raises(TypeError):
        result.meta["source"] = "elsewhere"
    with pytest.raises(FrozenInstanceError):
        result.weight = torch.zeros(2)


def test_columns_keep_their_kind_in_the_frame_also_without_rows() -> None:
    kinds = {"layer": pandas.api.types.is_string_dtype, "share": pandas.api.types.is_float_dtype}
    kinds |= {"count": pandas.api.types.is_integer_dtype, "good": pandas.api.types.is_bool_dtype}
    for result in (toy(), toy({"cells": {name: [] for name in cells()}})):
        frame = result.frame()
        assert [name for name, kind in kinds.items() if not kind(frame[name].dtype)] == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cels", ["Toy has no table 'cels'; it has ['cells']", "Did you mean 'cells'?"]),
        ("extra", ["this Toy has no table 'extra'", "toys make it on request"]),
    ],
)
def test_a_table_that_is_not_there_says_which_are_and_how_to_make_it(name: str, words: list[str]) -> None:
    with pytest.raises(wb.ArgumentError) as error:
        toy().frame(name)
    assert all(word in str(error.value) for word in words), error.value


def test_a_row_by_layer_and_the_nearest_name_for_a_typo() -> None:
    result = toy(
        {"cells": cells(layer=["fc1", "fc2"], share=[0.1, 0.2], score=[1, 2], count=[1, 2], good=[True, False])}
    )
    assert result.row("fc2") == {"layer": "fc2", "share": 0.2, "score": 2.0, "count": 2, "good": False}
    with pytest.raises(
        wb.LayerNotFoundError, match=r"^Toy has no layer 'fc3'. Did you mean 'fc.' or 'fc.'\?$"
    ) as error:
        result.row("fc3")
    assert isinstance(error.value, KeyError)


def test_the_repr_has_facts_five_rows_and_the_next_call() -> None:
    layers = [f"layer{n}" for n in range(7)]
    result = toy({"cells": cells(layer=layers, share=[1 / 3] * 7, score=[0] * 7, count=[1] * 7, good=[True] * 7)})
    text = repr(result)
    first, *_, last = text.splitlines()
    assert first == "Toy of a test: 7 rows"
    assert last == "next: toy.play()"
    assert [name for name in layers if name in text] == layers[:5]
    assert "… 2 more rows" in text
    assert "0.3333" in text
    assert "more rows" not in repr(toy())


def test_the_html_repr_escapes_what_a_checkpoint_may_be_called() -> None:
    html = toy({"cells": cells(layer=["<script>alert(1)</script>"])}, meta={"source": "<b>"})._repr_html_()
    assert "<script>" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html
    assert "next: <code>toy.play()</code>" in html


def test_the_html_repr_has_the_notes() -> None:
    assert "<p>note: a &lt; b</p>" in toy(meta={"source": "s", "notes": ["a < b"]})._repr_html_()


def test_describe_tells_meaning_unit_and_range_of_every_column() -> None:
    text = Toy.describe()
    assert "count: a count [apples] in [0, 1.18059e+21]" in text
    assert "share: a share [1] in [0, inf]" in text
    assert "good: a flag [bool]" in text
    for kind in (wb.Spectrum, wb.LayerTable):
        assert all(f"    {name}: " in kind.describe() for columns in kind.COLUMNS.values() for name in columns)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    [
        "",
        "NA",
        "nan",
        "None",
        "null",
        "1e5",
        "007",
        "True",
        " x ",
        '"',
        "'",
        "a,b",
        "a\nb",
        "a\rb",
        "#",
        "\\",
        "λ→∞",
        "\0",
        "\x1a",
    ]
)
BITS = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0])
SCORES = (st.floats() | BITS).map(lambda x: math.nan if x != x else x)
SHARES = SCORES.map(abs)
CELLS = st.tuples(TEXT, SHARES, SCORES, st.integers(0, 2**70), st.booleans())
ROWS = st.lists(CELLS, max_size=6, unique_by=lambda row: row[0])
META = st.dictionaries(TEXT, st.none() | st.booleans() | st.integers() | TEXT | st.lists(st.floats(allow_nan=False)))
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8]
TENSORS = st.builds(
    lambda data, dtype, shape: torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype).reshape(shape),
    st.binary(min_size=48, max_size=48),
    st.sampled_from(DTYPES),
    st.sampled_from([(-1,), (2, -1), (-1, 1, 3)]),
) | st.sampled_from([torch.empty(0), torch.empty(3, 0, dtype=torch.int64), torch.tensor(-0.0), torch.tensor(True)])


def bits(tensor: Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def exact(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: [struct.pack("<d", cell) if isinstance(cell, float) else cell for cell in column]
        for name, column in table.items()
    }


@given(rows=ROWS, meta=META, weight=TENSORS, weights=st.dictionaries(TEXT, TENSORS, max_size=3), extra=st.booleans())
def test_saving_and_opening_loses_no_bit(
    rows: list[Any], meta: Any, weight: Tensor, weights: Any, extra: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * 5
    tables = {"cells": dict(zip(list(Toy.COLUMNS["cells"]), columns, strict=True))}
    if extra:
        tables["extra"] = {"share": columns[1]}
    weights = {name: tensor.clone() for name, tensor in weights.items()}
    result = toy(tables, meta=meta, weight=weight, weights=weights)
    opened = wb.open_result(result.save(tmp_path_factory.mktemp("saved") / "toy"))
    assert isinstance(opened, Toy)
    assert {name: exact(table) for name, table in opened.tables.items()} == {
        name: exact(table) for name, table in result.tables.items()
    }
    assert dict(opened.meta) == meta
    assert bits(opened.weight) == bits(weight)
    assert {name: bits(tensor) for name, tensor in opened.weights.items()} == {
        name: bits(tensor) for name, tensor in weights.items()
    }


def test_tensors_that_share_memory_are_saved(tmp_path: Path) -> None:
    whole = torch.arange(10.0)
    saved = toy(weight=whole, weights={"part": whole[2:5], "whole": whole}).save(tmp_path / "toy")
    assert wb.open_result(saved).weights["part"].tolist() == [2, 3, 4]


def test_a_saved_result_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toy().save(tmp_path / "toy")
    (tmp_path / "model.safetensors").symlink_to(path / "tensors.safetensors")
    told = r": a (file of a )?saved result, and no model: wb.open_result\('.*toy'\) opens it"
    for source in (path, path / "tensors.safetensors", path / "result.json", tmp_path / "model.safetensors"):
        for named in (source, str(source)):
            with pytest.raises(wb.CheckpointError, match=told):
                wb.load(named)
    with pytest.raises(wb.CheckpointError, match=told):
        wb.spectrum(path / "tensors.safetensors")
    monkeypatch.chdir(path)
    for relative in (".", "tensors.safetensors"):
        with pytest.raises(wb.CheckpointError, match=r"saved result, and no model: wb.open_result\('.*'\) opens it"):
            wb.load(relative)


def test_weights_beside_a_result_or_called_like_its_tensors_are_a_model(tmp_path: Path) -> None:
    path = toy().save(tmp_path / "toy")
    for file in (path / "model.safetensors", tmp_path / "tensors.safetensors"):
        save_file({"fc.weight": torch.ones(2, 3)}, file)
        assert list(wb.load(file)) == ["fc.weight"]
    (tmp_path / "result.json").write_text('{"accuracy": 0.9}')  # somebody's own, and no header of ours
    assert list(wb.load(tmp_path / "tensors.safetensors")) == ["fc.weight"] == list(wb.load(tmp_path))


def test_a_transposed_tensor_is_saved_as_it_looks(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3).T
    assert torch.equal(wb.open_result(toy(weight=weight).save(tmp_path / "toy")).weight, weight)


def test_a_saved_spectrum_opens_as_a_spectrum_that_draws_and_selects_alike(tmp_path: Path) -> None:
    torch.manual_seed(0)
    result = wb.spectrum({"fc.weight": torch.randn(30, 40), "nan.weight": torch.full((3, 3), math.nan)})
    opened = wb.open_result(result.save(tmp_path / "results" / "spectrum"))
    assert isinstance(opened, wb.Spectrum)
    pandas.testing.assert_frame_equal(opened.frame(), result.frame(), check_exact=True)
    assert torch.equal(opened.eigenvalues["fc"], result.eigenvalues["fc"])
    assert repr(opened) == repr(result)
    assert opened.meta["seconds"] == result.meta["seconds"]
    assert oct((tmp_path / "results" / "spectrum").stat().st_mode)[-3:] == "755"


def shares(path: Path) -> list[float]:
    return list(wb.open_result(path).tables["cells"]["share"])


def test_an_earlier_result_is_replaced_and_leaves_nothing_behind(tmp_path: Path) -> None:
    toy({"cells": cells(), "extra": {"share": [1.0]}}).save(tmp_path / "toy")
    toy({"cells": cells(share=[0.25])}).save(str(tmp_path / "toy"))
    assert shares(tmp_path / "toy") == [0.25]
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]
    with pytest.raises(wb.ArgumentError, match="no table 'extra'"):
        wb.open_result(tmp_path / "toy").frame("extra")


def test_a_save_that_fails_leaves_the_earlier_result_and_no_scratch(tmp_path: Path) -> None:
    toy().save(tmp_path / "toy")
    for name in ("toy", "new"):
        unsavable = toy({"cells": cells(share=[0.25])}, weight=torch.ones(2, dtype=torch.complex128))
        with pytest.raises(KeyError, match="complex128"):  # safetensors' own: found after the tables were written
            unsavable.save(tmp_path / name)
    assert shares(tmp_path / "toy") == [0.5]
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_a_save_that_fails_at_its_last_step_leaves_the_earlier_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy().save(tmp_path / "toy")
    renamed: list[Any] = []

    def rename(source: Path, target: Path, *, real: Callable[..., None] = os.rename) -> None:
        if Path(target) == tmp_path / "toy" and not renamed:
            renamed.append(target)
            raise OSError("disk full")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        patch.setattr(os, "replace", rename)
        with pytest.raises(OSError, match="disk full"):
            toy({"cells": cells(share=[0.25])}).save(tmp_path / "toy")
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]
    assert shares(tmp_path / "toy") == [0.5]


def file_there(path: Path) -> None:
    path.write_text("precious")


def folder_there(path: Path) -> None:
    path.mkdir()
    (path / "model.pt").write_text("precious")


def run_folder(path: Path) -> None:
    folder_there(path)
    (path / "result.json").write_text('{"accuracy": 0.9}')


def result_with_notes(path: Path) -> None:
    toy().save(path)
    (path / "notes.txt").write_text("precious")


def contents(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in [path, *path.rglob("*")] if file.is_file()}


@pytest.mark.parametrize(
    "occupied",
    [
        file_there,
        folder_there,
        run_folder,
        result_with_notes,
    ],
)
def test_what_is_not_a_saved_result_is_never_overwritten(occupied: Callable[[Path], None], tmp_path: Path) -> None:
    target = tmp_path / "run"
    occupied(target)
    before = contents(target)
    with pytest.raises(
        wb.ArgumentError,
        match=r"run (exists and is not a saved result|holds 'notes.txt' beside a saved result); .*choose another path",
    ):
        toy().save(target)
    assert contents(target) == before


def with_header(**fields: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = path / "result.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return damage


def with_text(name: str, text: str) -> Callable[[Path], object]:
    return lambda path: (path / name).write_text(text)


def cut(name: str, keep: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[: int(len(content) * keep)])

    return damage


def without(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(cut("result.json", 0.5), "damaged result: ", id="half a header"),
        pytest.param(with_text("result.json", "{}"), "damaged result: ", id="empty header"),
        pytest.param(with_text("result.json", "[]"), "damaged result: ", id="list header"),
        pytest.param(with_text("result.json", "null"), "damaged result: ", id="null header"),
        pytest.param(with_header(format="x"), "damaged result: ", id="format"),
        pytest.param(with_header(type=["Toy"]), "damaged result: ", id="type"),
        pytest.param(with_header(meta=[1]), "damaged result: ", id="meta"),
        pytest.param(with_header(tensors=3), "damaged result: ", id="tensors"),
        pytest.param(with_header(tensors=["weight", "gone"]), "damaged result: .*gone", id="tensor list"),
        pytest.param(without("cells.csv"), "damaged result: .*cells.csv", id="no table"),
        pytest.param(with_text("cells.csv", ""), "damaged result: ", id="empty table"),
        pytest.param(
            with_text("cells.csv", "layer,share\n"),
            r"lacks \['score', 'count', 'good'\] and has \[\]; recompute",
            id="columns",
        ),
        pytest.param(
            with_text("cells.csv", "layer,share,score,count,good\nfc,0.5\n"), "damaged result: ", id="short row"
        ),
        pytest.param(
            with_text("cells.csv", "layer,share,score,count,good\nfc,-1,0,3,True\n"), "share is -1.0", id="range"
        ),
        pytest.param(
            with_text("cells.csv", "layer,share,score,count,good\nfc,x,0,3,True\n"), "float: 'x'", id="number"
        ),
        pytest.param(
            with_text("cells.csv", "layer,share,score,count,good\nfc,1,0,3,Tru\n"),
            "Tru",
            id="flag",
        ),
        pytest.param(
            with_text("cells.csv", "layer,share,score,count,good\nfc,1,0,3,True,left over\n"),
            "damaged result: ",
            id="long row",
        ),
        pytest.param(without("tensors.safetensors"), "damaged result: .*tensors.safetensors", id="no tensors"),
        pytest.param(cut("tensors.safetensors", 0.9), "damaged result: ", id="cut tensors"),
        pytest.param(with_header(format=99), "this workbench reads .*: update weight-workbench", id="newer"),
        pytest.param(with_header(type="Farms2"), "a Farms2 of format .*update weight-workbench", id="unknown type"),
    ],
)
def test_a_damaged_or_newer_result_is_a_checkpoint_error_that_names_it(
    damage: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    path = toy().save(tmp_path / "toy")
    damage(path)
    with pytest.raises(wb.CheckpointError, match=words) as error:
        wb.open_result(path)
    assert error.value.path == str(path)
    assert not isinstance(error.value, FileNotFoundError)


@pytest.mark.parametrize("there", [True, False])
def test_opening_where_there_is_no_result_says_what_was_expected(there: bool, tmp_path: Path) -> None:
    path = tmp_path if there else tmp_path / "gone"
    with pytest.raises(wb.CheckpointNotFoundError, match=r"no saved result here \(expected a directory with") as error:
        wb.open_result(path)
    assert isinstance(error.value, FileNotFoundError)
    assert isinstance(error.value, ValueError)


def test_a_copied_result_opens_anywhere(tmp_path: Path) -> None:
    toy().save(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "ünïcode folder")
    assert shares(tmp_path / "ünïcode folder") == [0.5]


def test_a_layer_has_one_row() -> None:
    with pytest.raises(wb.ResultError, match="more than one row of 'fc'"):
        toy({"cells": {name: 2 * cell for name, cell in cells().items()}})


def test_a_result_travels_between_processes() -> None:
    again = pickle.loads(pickle.dumps(toy(weights={"a": torch.ones(2)})))
    assert exact(again.tables["cells"]) == exact(toy().tables["cells"])
    assert torch.equal(copy.deepcopy(again).weights["a"], torch.ones(2))


def test_rows_are_counted_in_one_pass() -> None:
    class Names(tuple[str, ...]):
        def count(self, name: object) -> int:
            pytest.fail("a pass over all rows for each of them")

    class Watched(Toy):
        def _table(self, name: str | None) -> Any:
            return {**super()._table(name), "layer": Names(["fc"])}

    assert Watched(tables={"cells": cells()}, meta=toy().meta, weight=torch.ones(1), weights={}).row("fc")["count"] == 3
