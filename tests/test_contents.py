"""What `wb.contents` says of a tensor is what numpy says of all its elements at once."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import workbench as wb
from workbench.layers.contents import _edges, _tiles

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def looked_into(tensor: torch.Tensor, **options: Any) -> tuple[dict[str, Any], wb.Contents]:
    found = wb.contents({"t": tensor}, **options)
    return found.row("t"), found


def assert_as_numpy(tensor: torch.Tensor, bins: int = 100, cells: int = 64) -> None:
    row, found = looked_into(tensor, bins=bins, cells=cells)
    every = tensor.to(torch.float64).numpy()
    finite = every[np.isfinite(every)]
    assert (row["elements"], row["zeros"]) == (every.size, int((every == 0).sum()))
    assert (row["nan"], row["infinite"]) == (int(np.isnan(every).sum()), int(np.isinf(every).sum()))
    assert row["sparsity"] == row["zeros"] / every.size
    if not finite.size:
        assert all(math.isnan(row[name]) for name in ("minimum", "maximum", "mean", "std", "rms"))
        assert len(found.counts["t"]) == 0
        return
    assert (row["minimum"], row["maximum"]) == (finite.min(), finite.max())
    bound = 1e-13 * np.abs(finite).max()  # sums of n rounded terms, in any order
    assert row["mean"] == pytest.approx(finite.mean(), abs=bound)
    assert row["std"] == pytest.approx(finite.std(), abs=bound, rel=1e-10)
    assert row["rms"] == pytest.approx(np.sqrt(np.square(finite).mean()), abs=bound)
    assert found.counts["t"].sum() == finite.size
    if finite.min() < finite.max():
        counts, edges = np.histogram(finite, bins)
        np.testing.assert_array_equal(found.counts["t"], counts)
        np.testing.assert_array_equal(found.edges["t"], edges)
    flat = every.reshape(every.shape[0], -1) if every.ndim > 1 else every.reshape(1, -1)
    down, across = ([side * n // min(side, cells) for n in range(min(side, cells) + 1)] for side in flat.shape)
    with np.errstate(invalid="ignore"):
        blocks = [
            [np.sqrt(np.square(flat[a:b, c:d]).mean()) for c, d in zip(across, across[1:], strict=False)]
            for a, b in zip(down, down[1:], strict=False)
        ]
    expected = np.where(np.isfinite(blocks), blocks, np.nan)
    np.testing.assert_allclose(found.heat["t"], expected, rtol=1e-12)


@given(
    shape=st.lists(st.integers(1, 9), max_size=4),
    seed=st.integers(0, 2**16),
    dtype=st.sampled_from(FLOATS),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    cells=st.integers(1, 12),
    bins=st.integers(1, 40),
    tile=st.sampled_from([1, 7, 1 << 20]),
)
def test_any_shape_dtype_and_tiling_is_as_numpy(
    shape: list[int], seed: int, dtype: torch.dtype, share: float, cells: int, bins: int, tile: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    tensor = torch.randn(shape, generator=random, dtype=torch.float64).to(dtype)
    odd = torch.rand(shape, generator=random)
    tensor = torch.where(odd < share / 3, torch.tensor(math.nan), tensor)
    tensor = torch.where((odd > 1 - share / 3), torch.tensor(-math.inf), tensor)
    tensor = torch.where((odd > share / 3) & (odd < 0.4), torch.tensor(0.0), tensor).to(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_tiles.__globals__, "TILE_ELEMENTS", tile)
        assert_as_numpy(tensor, bins, cells)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(-5, 300).reshape(5, 61),
        torch.tensor([True, False, True]),
        torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4),
        torch.linspace(-1, 1, 3_000_001),  # several tiles along one row
        torch.randn(1500, 1100, generator=torch.Generator().manual_seed(0)).bfloat16(),
        torch.eye(65)[:, ::2],  # not contiguous, blocks of unequal size
        torch.tensor(2.5),
        torch.full((3, 3), math.nan),
    ],
    ids=["int64", "bool", "uint8", "long", "tiles", "strided", "scalar", "nothing finite"],
)
def test_all_kinds_of_tensors_are_as_numpy(tensor: torch.Tensor) -> None:
    assert_as_numpy(tensor)


def test_numbers_near_the_ends_of_float64_do_not_overflow() -> None:
    for size in (1e300, 1e-300):
        row, found = looked_into(torch.tensor([[3.0, -4.0], [0.0, 5.0]], dtype=torch.float64) * size)
        assert row["mean"] == pytest.approx(1.0 * size, rel=1e-14)
        assert row["rms"] == pytest.approx(math.sqrt(12.5) * size, rel=1e-14)
        assert row["std"] == pytest.approx(math.sqrt(11.5) * size, rel=1e-14)
        np.testing.assert_allclose(found.heat["t"], np.array([[3, 4], [0, 5]]) * size, rtol=1e-14)
        assert found.counts["t"].sum() == 4
    row, found = looked_into(torch.tensor([1.7e308, -1.7e308], dtype=torch.float64))
    assert row["mean"] == 0 and row["std"] == pytest.approx(1.7e308) and found.counts["t"].tolist()[::99] == [1, 1]


def test_a_small_spread_far_from_zero_is_not_lost() -> None:
    tensor = torch.full((1000,), 1e6, dtype=torch.float64)
    tensor[::2] += 2**-20  # exact in float64: the deviation is 2⁻²¹
    assert looked_into(tensor)[0]["std"] == pytest.approx(2**-21, rel=1e-9)


def test_bins_are_as_many_as_float64_can_tell_apart() -> None:
    one, next_one = 1.0, math.nextafter(1.0, 2)
    row, found = looked_into(torch.tensor([one, next_one, next_one], dtype=torch.float64))
    assert found.counts["t"].sum() == 3 and row["verdict"] == "finite"
    assert (np.diff(_edges(1.0, 1 + 1e-13, 10_000)) > 0).all()


@pytest.mark.parametrize(
    ("tensor", "verdict", "reason"),
    [
        (torch.ones(4), "constant", "all 4 elements are 1"),
        (torch.tensor(0.5), "constant", "the only element is 0.5"),
        (torch.zeros(0, 3), "empty", "no elements"),
        (torch.tensor([math.nan, 1]), "not finite", "1 of 2 elements is NaN"),
        (torch.tensor([math.nan, math.nan, 1, -math.inf]), "not finite", "2 of 4 elements are NaN and 1 of 4"),
        (torch.tensor([3 + 4j, 0j]), "finite", "complex: the numbers are those of the absolute values"),
        (torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn), "finite", "its scales are not known here"),
        (torch.eye(3).to_sparse(), "failed", "sparse_coo layout: only dense tensors are looked into"),
    ],
)
def test_verdicts_say_why(tensor: torch.Tensor, verdict: str, reason: str) -> None:
    net = torch.nn.Module()
    net.register_buffer("t", tensor)
    row = wb.contents(net).row("t")
    assert row["verdict"] == verdict and reason in row["reason"]


def test_absolute_values_stand_for_complex_numbers() -> None:
    row, _ = looked_into(torch.tensor([3 + 4j, 0j]))
    assert (row["maximum"], row["zeros"], row["mean"]) == (5.0, 1, 2.5)


def test_rows_are_those_of_layers_and_a_tie_is_counted_once() -> None:
    net = torch.nn.ModuleDict({"attention": torch.nn.MultiheadAttention(4, 2), "head": torch.nn.Linear(4, 9)})
    net["embed"] = torch.nn.Embedding(9, 4)
    net["head"].weight = net["embed"].weight
    table, found = wb.layers(net).frame(), wb.contents(net)
    frame = found.frame()
    for column in ("layer", "depth", "kind", "shape", "dtype"):
        assert list(frame[column]) == list(table[column])
    assert frame["elements"].sum() == table["elements"].sum() == found.meta["elements"]
    assert list(frame.loc[frame["verdict"] == "tied", "elements"]) == [0]
    q = net["attention"].in_proj_weight[:4].detach().double()
    assert found.row("attention.in_proj_weight.q")["mean"] == pytest.approx(float(q.mean()), rel=1e-12)


def test_selection_is_of_any_tensor() -> None:
    model = {"fc.weight": torch.eye(3), "fc.bias": torch.zeros(3), "other.weight": torch.eye(2)}
    named = {"fc": ["fc"], "fc.weight": ["fc"], "fc.*": ["fc", "fc.bias"], "*.bias": ["fc.bias"]}
    for pattern, layers in named.items():
        assert list(wb.contents(model, layers=pattern).frame()["layer"]) == layers
    biases = wb.contents(model, layers=lambda view: not view.kind and view.elements == 3)
    assert list(biases.frame()["layer"]) == ["fc.bias"]
    with pytest.raises(wb.LayerNotFoundError, match=r"no layer of .* matches 'fc.bais'.* Did you mean 'fc.bias'"):
        wb.contents(model, layers="fc.bais")


def test_only_what_is_asked_for_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({f"{n}.weight": torch.eye(3) for n in range(5)}, tmp_path / "m.safetensors")
    read: list[str] = []
    borrowed = wb.Weights.borrowed
    monkeypatch.setattr(wb.Weights, "borrowed", lambda self, name: read.append(name) or borrowed(self, name))
    wb.contents(tmp_path / "m.safetensors", layers=["1", "3"])
    assert read == ["1.weight", "3.weight"]


def test_cancel_keeps_what_is_done_and_the_cache_goes_on(tmp_path: Path) -> None:
    model = {f"{n}.weight": torch.full((3, 3), float(n)) for n in range(5)}

    def stop(progress: wb.Progress) -> None:
        if progress.item == "3":
            raise wb.Cancelled

    with pytest.raises(wb.Cancelled) as stopped:
        wb.contents(model, cache=tmp_path, progress=stop)
    partial = stopped.value.partial
    assert list(partial.frame()["layer"]) == ["0", "1", "2"] and "CANCELLED after 3 of 5 tensors" in partial.facts()
    found = wb.contents(model, cache=tmp_path)
    assert found.meta["cache"]["found"] == 3
    plain = wb.contents(model)
    assert found.frame().equals(plain.frame()) and torch.equal(found.heat["4"], plain.heat["4"])


def test_a_saved_result_reads_back(tmp_path: Path) -> None:
    found = wb.contents({"a": torch.tensor([1.0, math.nan]), "b.weight": torch.eye(3)})
    again = wb.open_result(found.save(tmp_path / "contents"))
    assert isinstance(again, wb.Contents) and again.frame().equals(found.frame())
    assert torch.equal(again.counts["b"], found.counts["b"])


def test_wrong_arguments_are_refused(raised: Any) -> None:
    calls = {
        "wb.contents(model, bins=0)": "bins=0: expected a whole number from 1 to 10,000",
        "wb.contents(model, bins=2.5)": "bins=2.5: expected a whole number",
        "wb.contents(model, cells=True)": "cells=True: expected a whole number from 1 to 1,000",
        "wb.contents(model, progress=1)": "progress=1: expected a function of a Progress, or None",
    }
    for code, (kind, message) in raised(calls).items():
        assert kind == "ArgumentError" and calls[code] in message


def test_facts_and_figures() -> None:
    found = wb.contents({"fc.weight": torch.tensor([[0.0, 1.0], [math.nan, 2.0]]), "fc.bias": torch.zeros(2)})
    assert "2 tensors (1 not finite, 1 constant), 1 NaN and 0 infinite of 6 elements" in found.facts()
    (bars,) = wb.figure(found, "histogram", layer="fc").panels[0].marks
    assert np.nansum(bars.heights) == 3
    panel = wb.figure(found, "heatmap", layer="fc").panels[0]
    (heat,) = panel.marks
    np.testing.assert_array_equal(heat.values, [[0, 1], [math.nan, 2]])
    assert heat.limits == (0, 2) and panel.y.descending and "1 empty: NaN or infinite" in panel.title
    (points,) = wb.figure(found).panels[0].marks
    assert points.ids == ("fc",) and points.y == (pytest.approx(math.sqrt(5 / 3)),)
    with pytest.raises(wb.FigureError, match="shows one layer: say which, as in layer='fc'"):
        wb.figure(found, "histogram")
    only = wb.contents({"fc.weight": torch.eye(3)})
    assert wb.figure(only, "heatmap").title == "fc"
    with pytest.raises(wb.FigureError, match="no finite element to draw"):
        wb.figure(wb.contents({"t": torch.full((2,), math.nan)}), "histogram")
    with pytest.raises(wb.FigureError, match="no magnitude to draw"):
        wb.figure(wb.contents({"t": torch.zeros(2)}))


@pytest.mark.parametrize("shape", [(1, 5_000_000), (5_000_000, 1), (3000, 2000), (2, 1 << 20), (3, (1 << 20) + 1)])
def test_tiles_are_bounded_whatever_the_shape(shape: tuple[int, int]) -> None:
    seen = torch.zeros(shape, dtype=torch.bool)
    for tile, top, left in _tiles(torch.zeros(1).expand(shape)):
        assert tile.size <= 1 << 20
        here = seen[top : top + tile.shape[0], left : left + tile.shape[1]]
        assert here.shape == tile.shape and not here.any()
        here.fill_(True)
    assert seen.all()


def test_one_block_is_summed_over_many_tiles() -> None:
    tensor = torch.randn(1700, 1300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for cells in (1, 3):
        assert_as_numpy(tensor, cells=cells)


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (torch.tensor([1, 2**53]), True),
        (torch.tensor([1, 2**53 - 1]), False),
        (torch.tensor([0, -(2**60)]), True),
        (torch.tensor([7, 2**63], dtype=torch.uint64), True),
        (torch.tensor([1.0, 2.0**60]), False),
    ],
)
def test_integers_that_are_rounded_say_so(tensor: torch.Tensor, told: bool) -> None:
    assert looked_into(tensor)[0]["reason"] == ("integers of 2⁵³ or more: the numbers are rounded" if told else "")


@pytest.mark.parametrize("size", [1.79e308, np.finfo(np.float64).max, -np.finfo(np.float64).max])
def test_numbers_at_the_very_end_have_finite_edges_and_no_figure(size: float) -> None:
    row, found = looked_into(torch.full((2, 2), size, dtype=torch.float64))
    low, high = found.edges["t"].tolist()
    assert math.isfinite(low) and math.isfinite(high) and low <= size <= high and found.counts["t"].tolist() == [4]
    assert row["mean"] == size and row["rms"] == abs(size)
    for kind in ("histogram", "heatmap"):
        with pytest.raises(wb.FigureError, match=r"t has elements of 1\.\d+e\+308: a figure takes 1e\+300 at most"):
            wb.figure(found, kind)
    with pytest.raises(wb.FigureError, match=r"no magnitude to draw \(not drawn: 1 above 1e\+300\); see .frame"):
        wb.figure(found, "rms", layer="t")


def test_a_logarithmic_axis_says_what_it_leaves_out() -> None:
    drawn = {"a": torch.ones(3), "b": torch.full((2, 2), 2.0)}
    assert wb.figure(wb.contents(drawn), "rms").panels[0].title == ""
    lost = {"zero": torch.zeros(4), "nil": torch.zeros(2, 2), "nan": torch.full((2,), math.nan), "none": torch.zeros(0)}
    figure = wb.figure(wb.contents(drawn | lost | {"huge": torch.full((2,), 1e301, dtype=torch.float64)}), "rms")
    assert figure.panels[0].title == "not drawn: 2 all zero, 2 without a finite element, 1 above 1e+300"
    assert {name for mark in figure.panels[0].marks for name in mark.ids} == set(drawn)  # type: ignore[union-attr]
