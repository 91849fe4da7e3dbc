"""`wb.farms`: windows drawn by hand, the paper's law, the released code's own numbers and none of its faults."""

import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

import workbench as wb
from workbench.figures import Points
from workbench.spectra import farms_layer, power_law
from workbench.spectra.window_bootstrap import window_bootstrap
from workbench.spectra.windows import Windows, cover, reference, window_eigenvalues

REFERENCE = Path(__file__).parent / "reference" / "farms_minilm_mid_n200_ops10.csv"
SQRT_HALF = math.sqrt(0.5)


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def squares(matrix: Any) -> np.ndarray:
    return np.linalg.svd(np.asarray(matrix, dtype=np.float64), compute_uv=False) ** 2


def hill(values: Any) -> tuple[float, float, float, int]:
    """α, D, xmin and tail size at the upper median, by their definitions."""
    ascending = np.sort(np.ravel(values))
    tail = ascending[len(ascending) // 2 :]
    alpha = 1 + len(tail) / np.log(tail / tail[0]).sum()
    fitted = 1 - (tail / tail[0]) ** (1 - alpha)
    return alpha, np.abs(fitted - np.arange(len(tail)) / len(tail)).max(), tail[0], len(tail)


def assert_hill(row: dict[str, Any], values: Any) -> None:
    alpha, distance, xmin, tail = hill(values)
    assert row["alpha"] == pytest.approx(alpha, rel=1e-9)
    assert row["ks_distance"] == pytest.approx(distance, abs=1e-9)
    assert row["xmin"] == pytest.approx(xmin, rel=1e-9)
    assert row["tail_size"] == tail


# Where windows lie


SIDES = st.integers(1, 90)
RATIOS = st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 3.7])


def seen_by(windows: Windows, rows: int, cols: int) -> np.ndarray:
    """How many windows each element lies in."""
    counts = np.zeros((rows, cols), int)
    for top in windows.tops:
        for left in windows.lefts:
            counts[top : top + windows.height, left : left + windows.width] += 1
    return counts


@given(SIDES, SIDES, st.integers(2, 60), RATIOS, st.integers(0, 60))
def test_covering_windows_reach_every_element_from_edge_to_edge(
    rows: int, cols: int, window: int, ratio: float, stride: int
) -> None:
    windows = cover(rows, cols, window=window, aspect_ratio=ratio, stride=min(stride, window) or None)
    assert (seen_by(windows, rows, cols) > 0).all()
    assert windows.elements == rows * cols
    ends = (windows.tops[-1] + windows.height, windows.lefts[-1] + windows.width)
    assert (windows.tops[0], windows.lefts[0], *ends) == (0, 0, rows, cols)
    most = min(stride, window) or max(windows.height // 2, 1)
    assert max(np.diff(windows.tops), default=0) <= most
    assert max(np.diff(windows.lefts), default=0) <= max(most * windows.width / windows.height, 1)
    for starts in (windows.tops, windows.lefts):
        assert np.ptp(np.diff(starts)) <= 1 if len(starts) > 1 else starts == (0,)
    assert windows.disjoint == math.ceil(rows * cols / (windows.height * windows.width))


@given(SIDES, SIDES, st.integers(2, 60), RATIOS)
def test_a_window_keeps_its_shape_and_is_shrunk_no_more_than_it_must(
    rows: int, cols: int, window: int, ratio: float
) -> None:
    windows = cover(rows, cols, window=window, aspect_ratio=ratio, stride=None)
    fitting = [n for n in range(1, window + 1) if n <= rows and round(n * ratio) <= cols]
    assert windows.height == max(fitting, default=1)
    assert windows.width == min(max(round(windows.height * ratio), 1), cols)


def released(rows: int, cols: int, size: int, ratio: float, steps: int) -> list[tuple[list[int], list[int]]]:
    """Rows and columns that the released vision code takes, by its formulas and Python's own slicing."""
    wide = int(size * ratio)
    down, right = (max(1, (rows - size) // (steps - 1)), max(1, (cols - wide) // (steps - 1)))
    many = min(steps, max(1, (rows - size) // down + 1)), min(steps, max(1, (cols - wide) // right + 1))
    taken = []
    for i in range(many[0]):
        for j in range(many[1]):
            top, left = min(i * down, rows - size), min(j * right, cols - wide)
            taken.append((list(range(rows))[top : top + size], list(range(cols))[left : left + wide]))
    return taken


@given(SIDES, SIDES, st.integers(2, 60), st.sampled_from([0.5, 1.0, 2.0]), st.integers(2, 12))
def test_reference_windows_are_the_released_codes_also_from_a_negative_start(
    rows: int, cols: int, window: int, ratio: float, steps: int
) -> None:
    windows = reference(rows, cols, window=window, aspect_ratio=ratio, steps=steps)
    ours = [
        (list(range(top, top + windows.height)), list(range(left, left + windows.width)))
        for top in windows.tops
        for left in windows.lefts
    ]
    theirs = released(rows, cols, window, ratio, steps)
    assert ours == theirs
    counts = np.zeros((rows, cols), int)
    for down, right in theirs:
        counts[np.ix_(down, right)] += 1
    assert windows.elements == (counts > 0).sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "windows"),
    [
        ((2, 40, 30), Windows(height=12, width=12, tops=(0, 14, 28), lefts=(0, 9, 18))),
        ((1, 30, 40), Windows(height=12, width=12, tops=(0, 3, 6, 9), lefts=(0, 28))),
        ((1, 40, 20), Windows(height=15, width=15, tops=(0, 25), lefts=tuple(range(6)))),  # one Gram a strip
        ((1, 20, 40), Windows(height=15, width=15, tops=tuple(range(6)), lefts=(0, 25))),  # and on its side
        ((3, 20, 40), Windows(height=5, width=20, tops=(0, 15), lefts=(0, 10, 20))),
        ((3, 20, 40), Windows(height=20, width=5, tops=(0,), lefts=(0, 17, 35))),
        ((2, 7, 1), Windows(height=1, width=1, tops=(0, 3, 6), lefts=(0,))),
    ],
)
def test_eigenvalues_of_windows_are_their_squared_singular_values(
    shape: tuple[int, ...], windows: Windows, dtype: torch.dtype
) -> None:
    weight = gaussian(*shape, dtype=dtype)
    found = window_eigenvalues(weight, windows)
    small = min(windows.height, windows.width)
    assert found.shape == (shape[0], len(windows.tops), len(windows.lefts), small) and found.dtype == torch.float64
    for (matrix, i, j), values in zip(np.ndindex(found.shape[:3]), found.reshape(-1, small), strict=True):
        top, left = windows.tops[i], windows.lefts[j]
        part = weight[matrix, top : top + windows.height, left : left + windows.width]
        expected = np.sort(squares(part.double()))
        np.testing.assert_allclose(values.numpy(), expected, rtol=0, atol=1e-13 * expected[-1])


# The estimate


@pytest.mark.parametrize("shape", [(70, 50), (50, 70), (64, 64), (150, 31)])
def test_a_rows_numbers_are_those_of_its_pooled_windows(shape: tuple[int, int]) -> None:
    weight = gaussian(*shape)
    result = wb.farms({"fc.weight": weight}, window=20)
    row = result.row("fc")
    starts = [np.unique(np.linspace(0, n - 20, math.ceil((n - 20) / 10) + 1).round().astype(int)) for n in shape]
    values = [squares(weight[i : i + 20, j : j + 20]) for i in starts[0] for j in starts[1]]
    assert_hill(row, values)
    assert (row["window_rows"], row["window_cols"], row["windows"]) == (20, 20, len(values))
    assert (row["coverage"], row["num_eigenvalues"]) == (1, 20 * len(values))
    np.testing.assert_allclose(result.eigenvalues["fc"], np.sort(np.ravel(values)), atol=1e-12 * np.max(values))
    spectrum = wb.spectrum({"fc.weight": weight}, xmin="median")
    assert row["alpha_full"] == spectrum.row("fc")["alpha"]


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_windows_of_another_aspect_ratio(ratio: float) -> None:
    weight = gaussian(60, 60)
    row = wb.farms({"fc.weight": weight}, window=20, aspect_ratio=ratio, stride=20).row("fc")
    width = round(20 * ratio)
    rights = {10: [0, 10, 20, 30, 40, 50], 40: [0, 20]}[width]
    assert_hill(row, [squares(weight[i : i + 20, j : j + width]) for i in (0, 20, 40) for j in rights])
    assert (row["window_rows"], row["window_cols"]) == (20, width)


@pytest.mark.parametrize("shape", [(24, 10, 3, 3), (10, 24, 3, 3), (12, 12, 1, 1), (24, 10, 5), (6, 12, 2, 2, 2)])
def test_a_convolution_pools_the_windows_of_its_kernel_positions_oriented_tall(shape: tuple[int, ...]) -> None:
    weight = gaussian(*shape)
    row = wb.farms({"conv.weight": weight}).row("conv")
    side = min(shape[:2])
    slices = weight.flatten(2).permute(2, 0, 1)
    slices = slices if shape[0] >= shape[1] else slices.transpose(1, 2)
    last = slices.shape[1] - side
    tops = np.linspace(0, last, math.ceil(last / (side // 2)) + 1).round().astype(int)
    values = [squares(one[top : top + side]) for one in slices for top in tops]
    assert_hill(row, values)
    assert (row["matrices"], row["windows"]) == (len(slices), len(values))
    assert f"does not fit in {max(shape[:2])}×{side} and was shrunk to {side}×{side}" in row["reason"]


def test_a_flattened_convolution_is_one_matrix() -> None:
    weight = gaussian(24, 10, 3, 3)
    flat = wb.farms({"conv.weight": weight}, conv="flatten", window=12).row("conv")
    linear = wb.farms({"fc.weight": weight.flatten(1)}, window=12).row("fc")
    differing = {name for name in flat if flat[name] != linear[name]}
    assert differing == {"layer", "alpha_error"}  # resamples are drawn by the layer's name


@pytest.mark.parametrize("rule", ["median", "search", "peak", 0.7])
def test_every_rule_for_xmin_is_applied_to_the_windows_and_to_the_full_matrix(rule: Any) -> None:
    weight = gaussian(80, 60)
    result = wb.farms({"fc.weight": weight}, window=30, xmin=rule, resamples=20)
    row, fit = result.row("fc"), power_law(result.eigenvalues["fc"], rule)
    assert (row["alpha"], row["ks_distance"], row["xmin"]) == (fit.alpha, fit.ks_distance, fit.xmin)
    whole = wb.spectrum({"fc.weight": weight}, xmin=rule).row("fc")
    assert (row["alpha_full"], row["alpha_full_error"]) == (whole["alpha"], whole["alpha_error"])
    assert row["verdict"] == "no tail" and "noise of this shape gives" in row["reason"]
    assert row["alpha_error"] > 0


# The paper's argument


ALPHA_OF_SQUARE_NOISE = 2.12169  # quadrature of the Marchenko–Pastur law at q = 1, see test_power_law.py
FULL = {1: 2.12169, 2: 2.70585, 4: 3.45460, 8: 4.46995, 16: 5.87754}


@pytest.mark.parametrize("tall", [True, False])
@pytest.mark.parametrize("times", FULL)
def test_noise_has_one_alpha_at_every_aspect_ratio(times: int, tall: bool) -> None:
    noise = gaussian(400 * times, 400)
    row = wb.farms({"fc.weight": noise if tall else noise.T.contiguous()}).row("fc")
    assert row["alpha"] == pytest.approx(ALPHA_OF_SQUARE_NOISE, abs=0.015)
    assert abs(row["alpha"] - ALPHA_OF_SQUARE_NOISE) < 3 * row["alpha_error"]
    assert row["alpha_full"] == pytest.approx(FULL[times], rel=0.01)


@pytest.mark.parametrize(("rows", "full"), [(512, 2.08), (4096, 4.10)])
def test_heavy_tailed_elements_have_one_alpha_at_every_aspect_ratio(rows: int, full: float) -> None:
    """Student's t with 3 degrees of freedom, 512 columns."""
    weight = torch.from_numpy(np.random.default_rng(0).standard_t(3, size=(rows, 512)))
    row = wb.farms({"fc.weight": weight}).row("fc")
    assert row["alpha"] == pytest.approx(2.015, abs=0.02)
    assert row["alpha_full"] == pytest.approx(full, abs=0.1)


# The released code's own numbers


@pytest.fixture(scope="module")
def theirs() -> pandas.DataFrame:
    return pandas.read_csv(REFERENCE).set_index("longname")


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> dict[str, Tensor]:
    tensors = load_file(minilm / "model.safetensors")
    return {name: one for name, one in tensors.items() if one.ndim == 2 and not name.startswith("embeddings")}


@pytest.fixture(scope="module")
def covered(encoder: dict[str, Tensor]) -> wb.Farms:
    return wb.farms(encoder, window=200)


def test_the_released_windows_give_the_released_numbers(encoder: dict[str, Tensor], theirs: pandas.DataFrame) -> None:
    """Measured: 5e-7; the released code computes in float32."""
    chosen = ["encoder.layer.[05].*", "pooler.dense"]
    result = wb.farms(encoder, layers=chosen, window=200, sampling="reference", steps=10, resamples=0)
    ours = result.frame().set_index("layer")
    assert len(ours) == 13
    expected = theirs.loc[ours.index]
    np.testing.assert_allclose(ours["alpha"], expected["alpha"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours["ks_distance"], expected["D"], rtol=0, atol=1e-5)
    assert ours["num_eigenvalues"].tolist() == expected["n_eigs"].tolist()


def test_covering_windows_agree_on_every_layer_within_their_error(covered: wb.Farms, theirs: pandas.DataFrame) -> None:
    ours = covered.frame().set_index("layer")
    gaps = (ours["alpha"] - theirs["alpha"].loc[ours.index]).abs()
    assert len(gaps) == len(theirs) == 37
    assert gaps.max() <= 0.03  # measured: 0.0276
    assert (gaps < 2 * ours["alpha_error"]).mean() >= 0.9  # measured: all 37
    assert (ours["coverage"] == 1).all()


# The released code's faults


@pytest.mark.parametrize("ratio", [1.0, 2.0, 0.5])
@pytest.mark.parametrize("shape", [(20, 6, 3, 3), (6, 20, 3, 3), (12, 12, 3, 3)])
def test_convolutions_do_not_crash_in_reference_sampling(shape: tuple[int, ...], ratio: float) -> None:
    """Its code for language models ends on the first Conv2d; the rule is that of its vision code, done by hand here."""
    weight = gaussian(*shape, dtype=torch.float64)
    row = wb.farms({"conv.weight": weight}, sampling="reference", aspect_ratio=ratio).row("conv")
    slices = weight.flatten(2).permute(2, 0, 1).numpy()
    slices = slices if shape[0] >= shape[1] else slices.transpose(0, 2, 1)
    cols = slices.shape[2]
    height, width = (int(cols // ratio), cols) if ratio > 1 else (cols, int(cols // (1 / ratio)))
    blocks = [
        hill([squares(one[block * height : (block + 1) * height, :width] * SQRT_HALF) for one in slices])
        for block in range(slices.shape[1] // cols)
    ]
    alpha, distance, xmin, tail = (np.array(column) for column in zip(*blocks, strict=True))
    assert row["alpha"] == pytest.approx(alpha.mean(), rel=1e-9)
    assert row["ks_distance"] == pytest.approx(distance.mean(), abs=1e-9)
    assert row["xmin"] == pytest.approx(xmin.mean(), rel=1e-9)
    assert (row["tail_size"], row["windows"]) == (tail.sum(), 9 * len(blocks))
    assert "the one for language models crashes here" in row["reason"]


def test_a_side_shorter_than_the_window_is_seen_whole() -> None:
    """The released start is negative there: of 64×512 it analyses the last 36 rows, and so does `reference`."""
    weight = {"fc.weight": gaussian(64, 512)}
    here, there = wb.farms(weight).row("fc"), wb.farms(weight, sampling="reference").row("fc")
    assert (here["window_rows"], here["window_cols"], here["coverage"]) == (64, 64, 1)
    assert "the window of 100×100 does not fit in 64×512 and was shrunk to 64×64" in here["reason"]
    assert (there["window_rows"], there["window_cols"]) == (36, 100)
    assert there["coverage"] == 36 * (8 * 51 + 100) / (64 * 512)
    assert "from a negative start the released vision code takes 36×100" in there["reason"]
    values = [squares(weight["fc.weight"][28:, left : left + 100]) for left in range(0, 409, 51)]
    assert_hill(there, values)


def test_trailing_rows_and_columns_are_seen() -> None:
    """Floor steps end at row 180 + 200 of 384, so the last four rows and columns do not count."""
    weight = gaussian(384, 384)
    weight[380:] *= 1000
    options: dict[str, Any] = {"window": 200, "resamples": 0}
    here = wb.farms({"fc.weight": weight}, **options)
    there = wb.farms({"fc.weight": weight}, **options, sampling="reference", steps=10)
    assert here.eigenvalues["fc"][-1] > 1e6 > 1e4 > there.eigenvalues["fc"][-1]
    assert here.row("fc")["coverage"] == 1 and there.row("fc")["coverage"] == (380 / 384) ** 2


def test_a_tall_matrix_is_seen_from_top_to_bottom() -> None:
    """Of MiniLM's 30522×384 embedding the released windows see 7 % of the rows."""
    weight = {"embed.weight": gaussian(3000, 60)}
    here, there = wb.farms(weight, window=20), wb.farms(weight, window=20, sampling="reference", steps=10)
    assert here.row("embed")["coverage"] == 1
    assert there.row("embed")["coverage"] == pytest.approx(10 * 20 / 3000 * (9 * 4 + 20) / 60)
    assert "the released code skips embedding layers" in there.row("embed")["reason"]
    assert reference(30522, 384, window=200, aspect_ratio=1.0, steps=10).elements / (30522 * 384) < 0.07


def test_every_spectrum_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("window_eigenvalues", "gram_eigenvalues"):
        original = getattr(farms_layer, name)
        monkeypatch.setattr(
            farms_layer, name, lambda *a, name=name, original=original: calls.append(name) or original(*a)
        )
    wb.farms({"fc.weight": gaussian(150, 120)})
    assert calls == ["gram_eigenvalues", "window_eigenvalues"]
    calls.clear()
    wb.farms({"conv.weight": gaussian(16, 16, 3, 3)})  # here the windows are the matrices
    assert calls == ["gram_eigenvalues"]


def test_small_layers_are_rows_and_not_dropped() -> None:
    row = wb.farms({"fc.weight": gaussian(3, 90)}, sampling="reference").row("fc")
    assert row["verdict"] == "no tail" and row["num_eigenvalues"] == 3
    assert "the released code drops a layer of fewer than 5 eigenvalues" in row["reason"]


# The standard error


@settings(max_examples=40)
@given(
    st.integers(2, 12),
    st.integers(1, 40),
    st.integers(2, 15),
    st.integers(0, 2**32),
    st.sampled_from(["median", "search", "peak", 0.3]),
    st.booleans(),
)
def test_the_bootstrap_refits_what_it_draws(
    windows: int, small: int, draws: int, seed: int, rule: Any, ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(np.sort(rng.pareto(1.5, (windows, small)), 1))
    values = values.mul(8).round() / 8 if ties else values
    random = torch.Generator().manual_seed(seed)
    found = window_bootstrap(values, rule, above=0.05, draws=draws, resamples=7, generator=random)
    picked = torch.randint(windows, (7, draws), generator=torch.Generator().manual_seed(seed))
    for rows, alpha in zip(picked, found, strict=True):
        drawn = values[rows].flatten().sort().values
        drawn = drawn[drawn > 0.05]
        expected = power_law(drawn, rule).alpha if len(drawn) <= 512 else float(alpha)
        assert float(alpha) == pytest.approx(expected, rel=1e-9, nan_ok=True)


def test_the_bootstrap_of_many_windows_goes_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.from_numpy(np.sort(np.random.default_rng(0).pareto(1.5, (60, 50)), 1))
    expected = None
    for least, table in ((1, 1 << 30), (64, 1 << 20), (7, 1 << 10), (5000, 1 << 20)):
        monkeypatch.setattr("workbench.spectra.window_bootstrap.LEAST_BLOCK", least)
        monkeypatch.setattr("workbench.spectra.window_bootstrap.TABLE_ELEMENTS", table)
        random = torch.Generator().manual_seed(0)
        found = window_bootstrap(values, "median", above=0.0, draws=20, resamples=50, generator=random)
        expected = found if expected is None else expected
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=0)


@pytest.mark.parametrize("law", ["normal", "student"])
def test_the_standard_error_is_the_spread_over_matrices_within_a_factor_of_two(law: str) -> None:
    rng = np.random.default_rng(0)
    model = {
        f"{n}.weight": torch.from_numpy(
            rng.normal(size=(150, 100)) if law == "normal" else rng.standard_t(3, (150, 100))
        )
        for n in range(60)
    }
    frame = wb.farms(model, window=40).frame()
    ratio = frame["alpha_error"].mean() / frame["alpha"].std()
    assert 1 / 2 < ratio < 2, ratio  # measured: 1.7 for noise, 1.1 for Student's t; 60 matrices know it to 9 %


def test_the_standard_error_depends_on_the_seed_and_the_layer_alone() -> None:
    model = {f"{n}.weight": gaussian(60, 50, seed=n) for n in range(3)}
    whole = wb.farms(model, window=20).frame().set_index("layer")["alpha_error"]
    assert wb.farms(model, window=20, layers=["2"]).row("2")["alpha_error"] == whole["2"]
    swapped = wb.farms(dict(reversed(model.items())), window=20).frame().set_index("layer")["alpha_error"]
    assert swapped.loc[whole.index].tolist() == whole.tolist()
    assert (wb.farms(model, window=20, seed=1).frame()["alpha_error"].to_numpy() != whole.to_numpy()).all()
    assert (wb.farms(model, window=20, seed=1).frame()["alpha"].to_numpy() > 1).all()
    assert "standard error from 100 resamples of 8 windows" in wb.farms(model, window=20).row("0")["reason"]


def test_without_resamples_or_with_one_window_there_is_no_standard_error() -> None:
    row = wb.farms({"fc.weight": gaussian(50, 50)}, window=20, resamples=0).row("fc")
    assert math.isnan(row["alpha_error"]) and "standard error" not in row["reason"]
    row = wb.farms({"fc.weight": gaussian(50, 50)}).row("fc")
    assert math.isnan(row["alpha_error"]) and "one window: no standard error" in row["reason"]
    assert row["windows"] == 1 and row["alpha"] == row["alpha_full"]


# Bad input


BAD = {
    "rank one": (torch.outer(torch.arange(1.0, 61), torch.arange(1.0, 61)), None),
    "all equal": (torch.full((60, 60), 0.3), "no tail"),
    "zero": (torch.zeros(60, 60), "no tail"),
    "identity": (torch.eye(60), "no tail"),
    "duplicated rows": (gaussian(6, 60).repeat(10, 1), "no tail"),
    "a dead half": (torch.cat([gaussian(60, 30), torch.zeros(60, 30)], 1), "no tail"),
    "one column": (gaussian(60, 1), "no tail"),
    "one row": (gaussian(1, 60), "no tail"),
    "one element": (torch.ones(1, 1), "no tail"),
    "constant filters": (torch.ones(16, 16, 3, 3) * gaussian(16, 1, 1, 1), "no tail"),
    "depthwise, from a file": (gaussian(32, 1, 3, 3), "no tail"),
    "1×1 convolution": (gaussian(64, 24, 1, 1), "no tail"),
    "half": (gaussian(60, 60, dtype=torch.float16), "no tail"),
    "infinite variance": (torch.from_numpy(np.random.default_rng(0).standard_cauchy((60, 60))), "heavier than noise"),
}


@pytest.mark.parametrize("sampling", ["cover", "reference"])
@pytest.mark.parametrize("rule", ["median", "search", "peak", 0.1])
@pytest.mark.parametrize("case", BAD)
def test_odd_matrices_are_rows_with_numbers_in_range_and_a_reason(case: str, rule: Any, sampling: Any) -> None:
    weight, verdict = BAD[case]
    result = wb.farms({"odd.weight": weight}, window=20, xmin=rule, sampling=sampling, resamples=5)
    row = result.row("odd")
    assert row["verdict"] in ("no tail", "heavier than noise", "lighter than noise") and row["reason"]
    assert (row["verdict"] == "no tail") or math.isfinite(row["alpha"])
    assert math.isnan(row["alpha"]) or row["alpha"] > 1
    assert (
        len(result.eigenvalues["odd"])
        == row["num_eigenvalues"]
        == row["windows"] * min(row["window_rows"], row["window_cols"])
    )
    if rule == "median" and sampling == "cover" and verdict:
        assert row["verdict"] == verdict


def test_depthwise_kernels_of_a_module_are_one_matrix_per_group() -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(24, 24, 3, groups=24)
    here, there = wb.farms(net).row("weight"), wb.farms(net, sampling="reference").row("weight")
    assert (here["matrices"], here["rows"], here["cols"], here["num_eigenvalues"]) == (216, 1, 1, 216)
    assert (there["matrices"], there["rows"], there["cols"]) == (9, 24, 1)  # the released code does not know groups
    assert_hill(here, net.weight.detach().double().numpy() ** 2)


def test_nan_in_one_layer_of_many_is_one_row_and_no_lost_run(tmp_path: Path) -> None:
    bad = gaussian(30, 30)
    bad[3, 4] = math.nan
    model = {"a.weight": gaussian(30, 30), "b.weight": bad, "b.bias": torch.zeros(30), "c.weight": gaussian(30, 20)}
    result = wb.farms(model, window=10)
    assert result.frame()["verdict"].tolist() == ["no tail", "failed", "no tail"]
    row = result.row("b")
    assert row["reason"] == "1 of 900 elements are NaN or infinite"
    assert (row["rows"], row["cols"], row["windows"], row["num_eigenvalues"]) == (30, 30, 0, 0)
    assert all(math.isnan(row[name]) for name in ("alpha", "alpha_error", "xmin", "alpha_full", "coverage"))
    assert list(result.eigenvalues) == ["a", "c"]
    assert result.frame("excluded")["tensor"].tolist() == ["b.bias"]
    again = wb.open_result(result.save(tmp_path / "farms"))
    pandas.testing.assert_frame_equal(again.frame(), result.frame())
    assert torch.equal(again.eigenvalues["c"], result.eigenvalues["c"])


ARGUMENTS = {
    "sampling='covers'": "sampling='covers': expected 'cover' or 'reference'. Did you mean 'cover'?",
    "aspect_ratio=0": "aspect_ratio=0: expected a positive number, columns per row of a window.",
    "aspect_ratio=math.nan": "aspect_ratio=nan: expected a positive number",
    "aspect_ratio=True": "aspect_ratio=True: expected a positive number",
    "window=1": "window=1: expected a whole number of rows, 2 or more.",
    "window=20.5": "window=20.5: expected a whole number of rows",
    "stride=0": "stride=0: expected a whole number from 1 to window=100",
    "stride=101": "stride=101: expected a whole number from 1 to window=100 (a longer one leaves rows out)",
    "stride=5, sampling='reference'": "the windows of 'reference' follow from steps.",
    "steps=9": "and sampling='reference'; the windows of 'cover' follow from stride.",
    "steps=1, sampling='reference'": "steps=1: expected a whole number of windows per axis, 2 or more",
    "conv='slice'": "conv='slice': expected 'slices' or 'flatten'.",
    "conv='flatten', sampling='reference'": "takes the slices of a convolution; got conv='flatten'.",
    "resamples=1": "resamples=1: expected a whole number, 2 or more, or 0 for no standard error.",
    "resamples=-2": "resamples=-2: expected a whole number",
    "seed=0.5": "seed=0.5: expected a whole number.",
    "xmin='peek'": "Did you mean 'peak'?",
    "progress=3": "progress=3: expected a function of a Progress, or None.",
    "device='gpu'": "device='gpu': expected 'auto', 'cpu', 'cuda' or 'cuda:0'.",
}


@pytest.fixture(scope="module")
def refused(raised: Callable[..., dict[str, list[str]]]) -> dict[str, list[str]]:
    return raised([f"wb.farms(model, {arguments})" for arguments in ARGUMENTS])


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_an_argument_out_of_range_says_what_is_expected(arguments: str, refused: dict[str, list[str]]) -> None:
    name, message = refused[f"wb.farms(model, {arguments})"]
    assert name == "ArgumentError"
    assert ARGUMENTS[arguments] in message


# What a result says about itself, and the world left as it was


def test_meta_tells_every_parameter() -> None:
    result = wb.farms({"fc.weight": gaussian(30, 20)}, layers="fc", window=10, stride=4, xmin="peak", seed=3)
    meta = dict(result.meta)
    options = set(inspect.signature(wb.farms).parameters) - {"model", "progress", "cache"}
    assert options - set(meta) == set(meta["parameters"])
    assert meta["parameters"]["stride"] == 4 and meta["parameters"]["steps"] is None
    assert (meta["seed"], meta["dtype"], meta["device"], meta["function"]) == (3, "float64", "cpu", "wb.farms")
    assert json.loads(json.dumps(meta)) == meta
    first = repr(result).splitlines()[0]
    assert "1 layer (1 no" in first and "windows of 10 rows at aspect ratio 1 (cover), 0 tensors excluded" in first


@pytest.mark.parametrize("threads", [1, 3])
def test_a_cancelled_run_keeps_its_rows(threads: int) -> None:
    model = {f"{n}.weight": gaussian(40, 30, seed=n) for n in range(6)}
    reports: list[wb.Progress] = []

    def stop(report: wb.Progress) -> None:
        reports.append(report)
        if report.done >= 2:
            raise wb.Cancelled

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = wb.farms(model, window=15)
        with pytest.raises(wb.Cancelled) as cancelled:
            wb.farms(model, window=15, progress=stop)
    finally:
        torch.set_num_threads(before)
    partial = cancelled.value.partial
    done = len(partial.frame())
    assert 2 <= done < 2 + threads
    pandas.testing.assert_frame_equal(partial.frame(), whole.frame().head(done), rtol=1e-10)
    assert partial.meta["cancelled"] == {"done": done, "total": 6}
    assert f"CANCELLED after {done} of 6 layers" in repr(partial)


def test_no_draw_touches_the_global_generators_and_no_default_changes_a_number() -> None:
    model = {"fc.weight": gaussian(50, 40), "conv.weight": gaussian(20, 20, 3)}
    before = torch.get_rng_state().tolist(), str(np.random.get_state())  # noqa: NPY002
    expected = wb.farms(model, window=15, device="cpu").frame()
    assert (torch.get_rng_state().tolist(), str(np.random.get_state())) == before  # noqa: NPY002
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("meta"):
            found = wb.farms(model, window=15, device="cpu").frame()
    finally:
        torch.set_default_dtype(torch.float32)
    pandas.testing.assert_frame_equal(found, expected, rtol=1e-10)


def test_very_many_eigenvalues_are_kept_as_order_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = gaussian(90, 90)
    whole = wb.farms({"fc.weight": weight}, window=20)
    monkeypatch.setattr(farms_layer, "KEPT", 101)
    thinned = wb.farms({"fc.weight": weight}, window=20)
    kept, everything = thinned.eigenvalues["fc"], whole.eigenvalues["fc"]
    assert len(kept) == 101 and len(everything) == whole.row("fc")["num_eigenvalues"] == 1280
    ranks = torch.linspace(0, 1279, 101, dtype=torch.float64).round().long()
    assert torch.equal(kept, everything[ranks])
    assert "101 order statistics of 1280 eigenvalues are kept" in thinned.row("fc")["reason"]
    assert thinned.row("fc")["alpha"] == whole.row("fc")["alpha"]


def test_the_figure_shows_both_alphas_of_every_layer_by_its_id() -> None:
    model = {"a.weight": gaussian(60, 30), "b.weight": gaussian(30, 30), "zero.weight": torch.zeros(30, 30)}
    result = wb.farms(model, window=15)
    frame = result.frame().set_index("layer")
    figure = wb.figure(result, layer="b")
    full, points, ring = figure.panels[0].marks
    assert all(isinstance(mark, Points) for mark in (full, points, ring))
    assert (full.label, points.label, ring.ids) == ("full matrix", "no tail", ("b",))
    assert full.ids == points.ids == ("a", "b")
    assert full.y == tuple(frame.loc[["a", "b"], "alpha_full"])
    assert points.y == tuple(frame.loc[["a", "b"], "alpha"])
    assert points.error == tuple(frame.loc[["a", "b"], "alpha_error"])
    low, high = figure.panels[0].y.limits
    assert low < min(frame["alpha"] - frame["alpha_error"]) and max(frame["alpha_full"]) < high
    assert "windows of 15 rows at aspect ratio 1" in figure.title
    figure.to_plotly(), figure.to_matplotlib()
    with pytest.raises(wb.FigureError, match="no layer of this result has a fitted tail"):
        wb.figure(wb.farms({"zero.weight": torch.zeros(30, 30)}))


def test_a_layer_without_standard_error_is_drawn_without_a_bar(tmp_path: Path) -> None:
    figure = wb.figure(wb.farms({"a.weight": gaussian(60, 30), "b.weight": gaussian(30, 30)}, window=30))
    assert math.isnan(figure.panels[0].marks[1].error[1])
    for ending in ("pdf", "svg", "png", "csv"):
        assert figure.save(tmp_path / f"a.{ending}").stat().st_size > 0
    figure.to_plotly()
