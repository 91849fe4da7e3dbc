"""`wb.spectrum`: eigenvalues against singular values, failures as rows, cancelling, and a world left as it was."""

import inspect
import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy import stats
from threadpoolctl import threadpool_info
from torch import Tensor, nn
from torch.nn.utils import prune

import workbench as wb
from workbench.spectra.spectrum import METRICS

EPS = np.finfo(np.float64).eps


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def squared_singular_values(matrix: Any) -> np.ndarray:
    return np.linalg.svd(np.asarray(matrix, dtype=np.float64), compute_uv=False) ** 2


def assert_same_numbers(ours: pandas.DataFrame, expected: pandas.DataFrame) -> None:
    """Equal names, counts and verdicts, and numbers to rounding: libraries round by alignment and thread count."""
    pandas.testing.assert_frame_equal(
        ours.reset_index(drop=True), expected.reset_index(drop=True), check_exact=False, rtol=1e-10, atol=0
    )


def assert_same_eigenvalues(ours: wb.Spectrum, expected: wb.Spectrum, layers: Iterable[str]) -> None:
    for layer in layers:
        here, there = ours.eigenvalues[layer].numpy(), expected.eigenvalues[layer].numpy()
        np.testing.assert_allclose(here, there, rtol=0, atol=20 * EPS * len(there) * there[-1])


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Layers are analysed several at a time where torch has several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


# Eigenvalues


SLICES: dict[str, Callable[[np.ndarray], list[np.ndarray]]] = {
    "slices": lambda w: [w[(..., *at)] for at in np.ndindex(w.shape[2:])],
    "flatten": lambda w: [w.reshape(len(w), -1)],
}


@pytest.mark.parametrize("conv", ["slices", "flatten"])
@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("square", (60, 60), torch.float32),
        ("tall", (300, 20), torch.float32),
        ("wide", (20, 300), torch.float32),
        ("double", (40, 30), torch.float64),
        ("half", (40, 30), torch.float16),
        ("brain", (40, 30), torch.bfloat16),
        ("embed", (500, 16), torch.float32),
        ("row", (1, 50), torch.float32),
        ("column", (50, 1), torch.float32),
        ("one", (1, 1), torch.float32),
        ("conv1d", (24, 16, 5), torch.float32),
        ("conv2d", (24, 16, 3, 3), torch.bfloat16),
        ("conv2d 1×1", (24, 16, 1, 1), torch.float32),
        ("conv3d", (8, 6, 2, 3, 2), torch.float32),
        ("tall, in blocks", (32771, 37), torch.float32),
        ("wide, in blocks", (37, 32771), torch.float16),
        ("conv, in blocks", (17001, 64, 2), torch.float32),
        ("long, thin, in blocks", (2**20 + 7, 3), torch.float32),
    ],
)
def test_eigenvalues_are_the_squared_singular_values(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, conv: str
) -> None:
    weight = gaussian(*shape, dtype=dtype)
    result = wb.spectrum({f"{name}.weight": weight}, conv=conv)
    made = SLICES[conv](weight.double().numpy())
    expected = np.sort(np.concatenate([squared_singular_values(matrix) for matrix in made]))
    values = result.eigenvalues[name]
    assert values.dtype == torch.float64
    assert len(values) == len(made) * min(made[0].shape)
    assert (values.diff() >= 0).all()
    rounding = EPS * (max(made[0].shape) + 10 * min(made[0].shape)) * expected[-1]
    np.testing.assert_allclose(values.numpy(), expected, rtol=0, atol=rounding)
    row = result.row(name)
    assert (row["matrices"], row["rows"], row["cols"]) == (len(made), *made[0].shape)
    assert row["num_eigenvalues"] == len(values)
    assert row["lambda_max"] == values[-1]
    frobenius = np.square(weight.double().numpy(), dtype=np.float64).sum()
    assert row["frobenius_squared"] == pytest.approx(frobenius, rel=1e-12)


@pytest.mark.parametrize("xmin", ["search", "median", 0.5])
def test_a_row_is_what_its_eigenvalues_say(xmin: str | float) -> None:
    result = wb.spectrum({"fc.weight": gaussian(90, 70)}, xmin=xmin)
    row, values = result.row("fc"), result.eigenvalues["fc"].numpy()
    tail = values[values >= row["xmin"]]
    assert row["tail_size"] == len(tail)
    assert row["alpha"] == pytest.approx(1 + len(tail) / np.log(tail / row["xmin"]).sum(), rel=1e-12)
    assert row["alpha_error"] == pytest.approx((row["alpha"] - 1) / math.sqrt(len(tail)), rel=1e-12)
    law = stats.pareto(row["alpha"] - 1, scale=row["xmin"])
    assert row["ks_distance"] == pytest.approx(
        np.abs(law.cdf(tail) - np.arange(len(tail)) / len(tail)).max(), abs=1e-12
    )
    assert row["alpha_weighted"] == pytest.approx(row["alpha"] * math.log10(values[-1]), rel=1e-12)
    assert row["log_alpha_norm"] == pytest.approx(math.log10((values ** row["alpha"]).sum()), rel=1e-12)
    assert row["stable_rank"] == pytest.approx(values.sum() / values[-1], rel=1e-12)
    assert row["entropy"] == pytest.approx(stats.entropy(values) / math.log(len(values)), rel=1e-12)
    assert row["rank"] == len(values) == 70
    assert row["xmin"] == {"search": row["xmin"], "median": values[35], 0.5: 0.5}[xmin]


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.sampled_from(["rows", "cols", "transpose"]))
def test_neither_permuting_nor_transposing_a_matrix_changes_its_spectrum(
    rows: int, cols: int, seed: int, change: str
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(rows, cols))
    weight[:, : cols // 4] *= 10
    changed = {"rows": rng.permutation(weight), "cols": rng.permutation(weight, axis=1), "transpose": weight.T}[change]
    result = wb.spectrum({"a": torch.from_numpy(weight), "b": torch.from_numpy(changed.copy())})
    a, b = result.eigenvalues["a"].numpy(), result.eigenvalues["b"].numpy()
    np.testing.assert_allclose(a, b, rtol=0, atol=20 * EPS * max(rows, cols) * a[-1])
    assert (result.row("a")["stable_rank"], result.row("a")["entropy"]) == pytest.approx(
        (result.row("b")["stable_rank"], result.row("b")["entropy"]), rel=1e-10, nan_ok=True
    )


@pytest.mark.parametrize("exponent", [-60, -20, 3, 20, 60])
def test_scaling_a_matrix_scales_its_eigenvalues_and_leaves_its_shape(exponent: int) -> None:
    weight, scale = gaussian(64, 48, dtype=torch.float64), 2.0**exponent
    result = wb.spectrum({"a": weight, "b": scale * weight})
    a, b = result.row("a"), result.row("b")
    assert torch.allclose(result.eigenvalues["b"], scale**2 * result.eigenvalues["a"], rtol=1e-12, atol=0)
    for same in ("alpha", "alpha_error", "ks_distance", "stable_rank", "entropy"):
        assert b[same] == pytest.approx(a[same], rel=1e-9)
    assert (b["tail_size"], b["rank"], b["verdict"]) == (a["tail_size"], a["rank"], a["verdict"])
    assert b["xmin"] == pytest.approx(scale**2 * a["xmin"], rel=1e-11)
    assert b["log_alpha_norm"] == pytest.approx(a["log_alpha_norm"] + 2 * a["alpha"] * math.log10(scale), rel=1e-9)


@pytest.mark.parametrize("rank", [1, 2, 7, 40])
def test_the_rank_is_that_of_the_product_it_was_made_of_and_scales_the_entropy(rank: int) -> None:
    rng = np.random.default_rng(rank)
    weight = (rng.integers(-9, 9, (60, rank)) @ rng.integers(-9, 9, (rank, 40))).astype(np.float64)  # exact
    row = wb.spectrum({"fc.weight": torch.from_numpy(weight)}).row("fc")
    assert row["rank"] == np.linalg.matrix_rank(weight) == rank
    assert row["num_eigenvalues"] == 40
    if rank > 1:
        expected = stats.entropy(squared_singular_values(weight)) / math.log(rank)
        assert row["entropy"] == pytest.approx(expected, rel=1e-9)


def test_an_eigenvalue_counts_from_eps_times_the_longer_side_times_the_largest() -> None:
    relative = EPS * 50 * np.array([1 / 100, 1 / 4, 4, 100, 1e4])  # 50 rows; diagonal, so the Gram matrix is exact
    weight = np.zeros((50, 6))
    np.fill_diagonal(weight, np.sqrt(np.append(relative, 1)))
    assert wb.spectrum({"fc.weight": torch.from_numpy(weight)}).row("fc")["rank"] == 4


# Layers that are special, and layers that fail


FEW = "a power law is not told from others below 20"


@pytest.mark.parametrize(
    ("weight", "reason", "rank"),
    [
        (torch.zeros(30, 30), "all elements are zero", 0),
        (torch.zeros(1, 1), "all elements are zero", 0),
        (torch.ones(30, 30), f"1 non-zero eigenvalue: {FEW}", 1),
        (gaussian(1, 90), f"1 non-zero eigenvalue: {FEW}", 1),
        (gaussian(90, 1), f"1 non-zero eigenvalue: {FEW}", 1),
        (gaussian(90, 19), f"19 non-zero eigenvalues: {FEW}", 19),
        (torch.eye(30), "the eigenvalues are all equal: the tail has no spread", 30),
        (3e-5 * torch.eye(30), "the eigenvalues are all equal: the tail has no spread", 30),
        (torch.eye(30).roll(7, 1), "the eigenvalues are all equal: the tail has no spread", 30),
    ],
    ids=["zero", "zero 1×1", "rank one", "1×n", "n×1", "nineteen", "identity", "scaled", "permutation"],
)
def test_a_spectrum_without_a_tail_says_why(weight: Tensor, reason: str, rank: int) -> None:
    row = wb.spectrum({"fc.weight": weight}).row("fc")
    assert (row["verdict"], row["reason"], row["rank"]) == ("no tail", reason, rank)
    assert row["num_eigenvalues"] == min(weight.shape)
    if rank == 0:
        assert all(math.isnan(row[name]) for name in ("alpha", "stable_rank", "entropy", "log_alpha_norm"))
        assert (row["lambda_max"], row["frobenius_squared"], row["tail_size"]) == (0, 0, 0)
    if rank == 1:
        assert row["stable_rank"] == pytest.approx(1, abs=1e-12)
        assert math.isnan(row["entropy"])


def test_a_tail_too_short_to_be_fitted_says_so() -> None:
    row = wb.spectrum({"fc.weight": torch.diag(torch.arange(1.0, 31))}, xmin=23.5**2).row("fc")
    assert (row["verdict"], row["tail_size"]) == ("no tail", 7)
    assert row["reason"] == "a tail of 7 eigenvalues; 8 are the least that is fitted"
    longer = wb.spectrum({"fc": torch.diag(torch.arange(1.0, 31))}, xmin=22.5**2).row("fc")
    assert longer["tail_size"] == 8 and "noise of this shape" in longer["reason"]


@pytest.mark.parametrize(
    ("exponent", "verdict"), [(1.5, "heavy"), (1.9, "heavy"), (2.1, "typical"), (4.0, "typical"), (7.0, "weak")]
)
def test_a_tail_is_called_by_its_alpha(exponent: float, verdict: str) -> None:
    quantiles = (1 - (np.arange(1, 301) - 0.5) / 300) ** (-1 / (exponent - 1))
    row = wb.spectrum({"fc.weight": torch.from_numpy(np.diag(np.sqrt(quantiles)))}).row("fc")
    assert row["alpha"] == pytest.approx(exponent, rel=0.02)
    assert row["verdict"] == verdict
    assert "folk threshold" in row["reason"]
    other = wb.spectrum({"fc.weight": torch.from_numpy(np.diag(np.sqrt(quantiles)))}, xmin="median").row("fc")
    assert other["verdict"] == ("heavier than noise" if exponent < 2.12 else "lighter than noise")
    assert "noise of this shape gives 2.129 (2.079 to 2.183)" in other["reason"]


def poisoned(value: float) -> Tensor:
    weight = gaussian(20, 30)
    weight[3, 4] = value
    weight[5, :2] = value
    return weight


FAILING = {
    "nan": (poisoned(math.nan), "3 of 600 elements are NaN or infinite"),
    "inf": (poisoned(-math.inf), "3 of 600 elements are NaN or infinite"),
    "bfloat16 nan": (poisoned(math.nan).bfloat16(), "3 of 600 elements are NaN or infinite"),
    "conv nan": (poisoned(math.nan).reshape(20, 10, 3), "3 of 600 elements are NaN or infinite"),
    "overflow": (torch.full((20, 30), 1e200, dtype=torch.float64), "so large that their squares overflow float64"),
}


@pytest.mark.parametrize("case", FAILING)
@pytest.mark.parametrize("compat", [None, "weightwatcher"])
def test_a_layer_that_fails_is_a_row_and_the_others_are_as_without_it(case: str, compat: Any) -> None:
    bad, reason = FAILING[case]
    good = {"first.weight": gaussian(30, 40), "last.weight": gaussian(50, 25, seed=1)}
    alone = wb.spectrum(good, compat=compat)
    beside = wb.spectrum(
        {"first.weight": good["first.weight"], "bad.weight": bad, "last.weight": good["last.weight"]}, compat=compat
    )
    row = beside.row("bad")
    assert row["verdict"] == "failed"
    assert reason in row["reason"]
    assert (row["depth"], row["num_eigenvalues"], row["tail_size"], row["rank"]) == (1, 0, 0, 0)
    assert all(math.isnan(row[name]) for name in METRICS if name not in ("num_eigenvalues", "tail_size", "rank"))
    assert list(beside.eigenvalues) == ["first", "last"]
    others = beside.frame()[beside.frame()["layer"] != "bad"]
    assert_same_numbers(others.drop(columns="depth"), alone.frame().drop(columns="depth"))
    assert_same_eigenvalues(beside, alone, ["first", "last"])
    assert [beside.row(layer)["depth"] for layer in ("first", "last")] == [0, 2]
    assert "1 failed" in repr(beside)
    if compat:
        theirs = beside.frame("weightwatcher").set_index("longname")
        assert theirs["status"].to_dict() == {"first": "success", "bad": "failed", "last": "success"}
        assert math.isnan(theirs.loc["bad", "alpha"])


def test_float32_weights_whose_squares_overflow_float32_are_fine() -> None:
    row = wb.spectrum({"fc.weight": 1e30 * torch.eye(30)}).row("fc")
    assert row["lambda_max"] == pytest.approx(1e60, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-170, 1e-155])
def test_elements_whose_squares_underflow_are_not_called_zero(scale: float) -> None:
    row = wb.spectrum({"fc.weight": scale * torch.eye(30, dtype=torch.float64)}).row("fc")
    assert (row["verdict"], row["reason"]) == (
        "failed",
        "the elements are so small that their squares underflow float64",
    )


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float64])
def test_rounding_of_equal_singular_values_is_no_tail(precision: torch.dtype) -> None:
    """An orthogonal layer has one eigenvalue, 64 times; stored, the 64 differ by the rounding of its elements."""
    weight = nn.init.orthogonal_(torch.empty(64, 64), generator=torch.Generator().manual_seed(0)).to(precision)
    row = wb.spectrum({"fc.weight": weight}).row("fc")
    assert row["lambda_max"] != 1 and row["verdict"] == "no tail" and "no spread" in row["reason"]


def test_the_raw_parameters_of_a_reparametrised_weight_are_told_from_weights() -> None:
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(30, 40)), nn.Linear(40, 30))
    prune.random_unstructured(net[1], "weight", 0.5)
    result = wb.spectrum(net)
    reasons = result.frame("excluded").set_index("tensor")["reason"]
    assert "gain of a weight norm" in reasons["0.parametrizations.weight.original0"]
    assert "pruning mask" in reasons["1.weight_mask"]
    assert result.frame()["layer"].tolist() == ["0.parametrizations.weight.original1", "1.weight_orig"]
    assert all("not the weight that the network uses" in reason for reason in result.frame()["reason"])


@pytest.mark.parametrize("layer", ["ids", "codes", "norm", "scale", "empty"])
def test_what_is_no_matrix_is_listed_with_its_reason(layer: str) -> None:
    others = {
        "ids": (torch.ones(3, 4, dtype=torch.int64), "int64 tensor", 12),
        "codes": (torch.ones(3, 4, dtype=torch.uint8), "quantised storage", 12),
        "norm": (torch.ones(5), "a vector", 5),
        "scale": (torch.tensor(1.0), "a scalar", 1),
        "empty": (torch.ones(0, 4), "empty tensor", 0),
    }
    result = wb.spectrum({"fc.weight": gaussian(4, 5), **{name: tensor for name, (tensor, _, _) in others.items()}})
    excluded = result.frame("excluded").set_index("tensor")
    assert excluded.index.tolist() == list(others)
    assert others[layer][1] in excluded.loc[layer, "reason"]
    assert excluded.loc[layer, "elements"] == others[layer][2]
    assert "5 tensors excluded" in repr(result)


# The same numbers from every source, selection and setting


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.Dropout(0.5), nn.ConvTranspose2d(24, 30, 2), nn.Linear(40, 30)
    )


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy", "mapping", "Weights"])
def test_a_module_and_its_saved_file_have_the_same_spectrum(form: str, tmp_path: Path) -> None:
    module = network()
    path = tmp_path / "net"
    sources: dict[str, Callable[[], Any]] = {
        "safetensors": lambda: save_file(module.state_dict(), path) or path,
        "zip": lambda: torch.save(module.state_dict(), path) or path,
        "legacy": lambda: torch.save(module.state_dict(), path, _use_new_zipfile_serialization=False) or path,
        "mapping": module.state_dict,
        "Weights": lambda: wb.load(module),
    }
    here, there = wb.spectrum(module), wb.spectrum(sources[form]())
    sides = ["rows", "cols"]  # a file cannot tell that a convolution is transposed
    assert_same_numbers(here.frame().drop(columns=sides), there.frame().drop(columns=sides))
    assert_same_eigenvalues(here, there, here.eigenvalues)
    assert here.meta["fingerprint"] == there.meta["fingerprint"]
    assert here.meta["fingerprints"] == there.meta["fingerprints"]


@pytest.fixture(scope="module")
def full(minilm: Path) -> wb.Spectrum:
    return wb.spectrum(minilm)


SELECTIONS = ["encoder.layer.3.*", ["pooler.dense", "encoder.layer.0.attention.self.key"], "*.token_type_embeddings"]


@pytest.mark.parametrize("selection", [*SELECTIONS, lambda layer: layer.shape == (384, 1536)])
def test_a_selection_has_the_numbers_of_the_full_run(selection: Any, full: wb.Spectrum, minilm: Path) -> None:
    part = wb.spectrum(minilm, layers=selection)
    layers = part.frame()["layer"].tolist()
    assert 0 < len(layers) < len(full.frame())
    assert_same_numbers(part.frame(), full.frame()[full.frame()["layer"].isin(layers)])
    assert_same_eigenvalues(part, full, layers)
    assert part.meta["parameters"]["layers"] == layers
    assert part.meta["fingerprint"] == full.meta["fingerprint"]
    pandas.testing.assert_frame_equal(part.frame("excluded"), full.frame("excluded"))


def test_no_element_of_a_real_transformer_is_lost(full: wb.Spectrum, minilm: Path) -> None:
    frame = full.frame()
    analysed = (frame["rows"] * frame["cols"] * frame["matrices"]).sum()
    assert analysed + full.frame("excluded")["elements"].sum() == wb.load(minilm).elements
    assert len(frame) + len(full.frame("excluded")) == len(wb.load(minilm))
    assert frame["verdict"].tolist().count("failed") == 0
    assert len(full.eigenvalues) == len(frame) == len(full.meta["fingerprints"])


class Stop:
    """A callback that cancels when `at` layers are done, and keeps the names of those announced before."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.announced: list[str] = []

    def __call__(self, report: wb.Progress) -> None:
        if report.done >= self.at:
            raise wb.Cancelled
        self.announced.append(report.item)


@pytest.mark.parametrize("at", [0, 3])
def test_a_cancelled_run_keeps_the_rows_that_were_done_and_can_be_run_again(
    at: int, threads: int, full: wb.Spectrum, minilm: Path, tmp_path: Path
) -> None:
    stop = Stop(at)
    with pytest.raises(wb.Cancelled) as cancelled:
        wb.spectrum(minilm, progress=stop)
    partial = cancelled.value.partial
    assert isinstance(partial, wb.Spectrum)
    done = partial.frame()["layer"].tolist()
    assert done == stop.announced == full.frame()["layer"].tolist()[: len(done)]
    assert at <= len(done) < at + threads
    assert list(partial.eigenvalues) == done
    assert_same_numbers(partial.frame(), full.frame().head(len(done)))
    assert_same_eigenvalues(partial, full, done)
    assert partial.meta["cancelled"] == {"done": len(done), "total": len(full.frame())}
    assert f"CANCELLED after {len(done)} of {len(full.frame())} layers" in repr(partial)
    assert "cancelled" not in full.meta
    assert repr(wb.open_result(partial.save(tmp_path / "partial"))) == repr(partial)
    if done:
        again = wb.spectrum(minilm, layers=done)
        assert_same_numbers(again.frame(), partial.frame())


def test_a_cancel_after_the_last_layer_loses_nothing() -> None:
    model = {"a.weight": gaussian(20, 20), "b.weight": gaussian(20, 20, seed=1)}
    with pytest.raises(wb.Cancelled) as cancelled:
        wb.spectrum(model, progress=Stop(2))
    assert "cancelled" not in cancelled.value.partial.meta
    assert_same_numbers(cancelled.value.partial.frame(), wb.spectrum(model).frame())


def test_progress_names_every_layer_once_in_order_also_one_that_fails(threads: int) -> None:
    reports: list[wb.Progress] = []
    model = {"a.weight": gaussian(5, 5), "bias": torch.ones(3), "b.weight": poisoned(math.nan), "c": gaussian(4, 4)}
    wb.spectrum(model, progress=reports.append)
    assert [(report.total, report.item) for report in reports] == [(3, "a"), (3, "b"), (3, "c"), (3, "")]
    done = [report.done for report in reports]
    assert done == [0, 1, 2, 3] if threads == 1 else (done == sorted(done) and (done[0], done[-1]) == (0, 3))


def test_the_number_of_threads_changes_no_number(minilm: Path, threads: int, full: wb.Spectrum) -> None:
    result = wb.spectrum(minilm, layers="encoder.layer.[012].attention.*")
    assert_same_numbers(result.frame(), full.frame()[full.frame()["layer"].isin(result.frame()["layer"])])


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_module_and_every_global_setting_are_as_before(stopped: bool, dtype: torch.dtype, threads: int) -> None:
    module = network().to(dtype)
    module[4].weight.requires_grad_(False)
    module[0].eval()
    module[0](torch.ones(1, 3, 5, 5, dtype=dtype)).sum().backward()
    handle = module[4].register_forward_hook(lambda *_: None)

    def world() -> dict[str, Any]:
        return {
            "torch": torch.get_rng_state().tolist(),
            "numpy": str(np.random.get_state()),  # noqa: NPY002
            "dtype": torch.get_default_dtype(),
            "grad": torch.is_grad_enabled(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "threads": (torch.get_num_threads(), [one["num_threads"] for one in threadpool_info()]),
            "modes": [one.training for one in module.modules()],
            "requires": [one.requires_grad for one in module.parameters()],
            "gradients": [None if one.grad is None else one.grad.tolist() for one in module.parameters()],
            "versions": [one._version for one in module.parameters()],
            "bits": [one.tolist() for one in module.state_dict().values()],
            "hooks": [list(one._forward_hooks) for one in module.modules()],
            "devices": [one.device for one in module.parameters()],
        }

    before = world()
    try:
        result = wb.spectrum(module, progress=Stop(1) if stopped else None)
    except wb.Cancelled as stop:
        result = stop.partial
    assert world() == before
    assert all(not values.requires_grad for values in result.eigenvalues.values())
    handle.remove()


RANDOM = """
import json, random, torch
import workbench as wb
before = random.getstate()
wb.figure(wb.spectrum(torch.nn.Conv2d(9, 9, 3)))
print(json.dumps(random.getstate() == before))
"""


def test_pythons_generator_is_as_before_too(unchecked: Callable[..., Any]) -> None:
    assert unchecked(RANDOM) is True  # the run-time type checks of the tests draw from it


@pytest.fixture(params=[torch.float64, torch.float16])
def default_dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("xmin", ["search", "median", 0.3])
def test_numbers_do_not_depend_on_torchs_default_dtype(default_dtype: torch.dtype, xmin: Any) -> None:
    model = {"fc.weight": gaussian(50, 40), "conv.weight": gaussian(20, 20, 3)}
    compat: Any = "weightwatcher" if xmin == "search" else None
    here = wb.spectrum(model, xmin=xmin, compat=compat)
    torch.set_default_dtype(torch.float32)
    there = wb.spectrum(model, xmin=xmin, compat=compat)
    torch.set_default_dtype(default_dtype)
    assert_same_numbers(here.frame(), there.frame())
    assert torch.get_default_dtype() == default_dtype


@pytest.mark.parametrize("xmin", ["search", 0.3])
def test_numbers_do_not_depend_on_torchs_default_device(
    xmin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`torch.set_default_device("cuda")` is common in notebooks; "meta" stands for it on a machine without one."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # a default device is one thread's
    save_file({"fc.weight": gaussian(50, 40)}, tmp_path / "net.safetensors")
    expected = wb.spectrum(tmp_path / "net.safetensors", xmin=xmin, device="cpu")
    with torch.device("meta"):
        result = wb.spectrum(tmp_path / "net.safetensors", xmin=xmin, device="cpu")
    assert_same_numbers(result.frame(), expected.frame())


# What a result says about itself


def test_meta_tells_where_the_numbers_come_from(tmp_path: Path) -> None:
    save_file({"fc.weight": gaussian(30, 20), "fc.bias": torch.zeros(30)}, tmp_path / "net.safetensors")
    result = wb.spectrum(tmp_path, layers="fc", xmin="median", conv="flatten", device="cpu")
    meta = dict(result.meta)
    assert meta["source"] == str(tmp_path / "net.safetensors")
    assert meta["fingerprint"] == wb.load(tmp_path).fingerprint
    assert list(meta["fingerprints"]) == ["fc.weight"]
    assert meta["parameters"] == {
        "layers": ["fc"],
        "xmin": "median",
        "conv": "flatten",
        "compat": None,
        "detail": [],
    }
    options = set(inspect.signature(wb.spectrum).parameters) - {"model", "progress", "cache"}
    assert options - set(meta) == set(meta["parameters"]), "every parameter that could change a number"
    assert (meta["seed"], meta["dtype"], meta["device"]) == (None, "float64", "cpu")
    assert meta["versions"] == {"workbench": wb.__version__, "torch": torch.__version__}
    assert meta["seconds"] > 0
    assert meta["ordered"] is False
    assert meta["notes"] == list(wb.load(tmp_path).notes)
    assert json.loads(json.dumps(meta)) == meta
    assert wb.spectrum(tmp_path).meta["parameters"]["layers"] is None


def test_the_repr_has_facts_five_rows_and_the_next_call(full: wb.Spectrum) -> None:
    first, *_, last = repr(full).splitlines()
    counts = full.frame()["verdict"].value_counts()
    assert first.startswith("Spectrum of model/model.safetensors: 40 layers (")
    assert all(f"{count} {word}" in first for word, count in counts.items())
    assert f"{len(full.frame('excluded'))} tensors excluded" in first
    assert "… 35 more rows" in repr(full)
    assert last.startswith("next: .frame(), wb.figure(spectrum)")


def test_the_table_of_compat_is_there_only_on_request() -> None:
    with pytest.raises(wb.ArgumentError, match=r"no table 'weightwatcher': it is made by wb.spectrum\(..., compat='w"):
        wb.spectrum({"a": gaussian(3, 3)}).frame("weightwatcher")


ARGUMENTS = {
    "conv='slice'": "conv='slice': expected 'slices' or 'flatten'.",
    "compat='ww'": "compat='ww': expected None or 'weightwatcher'.",
    "compat='weightwatcher', xmin='median'": "means xmin='search' and conv='slices'; got xmin='median'",
    "compat='weightwatcher', conv='flatten'": "conv='flatten'. Drop compat to use other rules.",
    "compat='weightwatcher', xmin=2": "got xmin=2.0",
    "device='gpu'": "device='gpu': expected 'auto', 'cpu', 'cuda' or 'cuda:0'.",
    "device='meta'": "device='meta': expected 'auto', 'cpu' or 'cuda', the devices with float64.",
    "device='mps'": "device='mps': expected 'auto', 'cpu' or 'cuda', the devices with float64.",
}
if not torch.cuda.is_available():
    ARGUMENTS["device='cuda'"] = "device='cuda': torch sees no CUDA device here; use device='auto' or 'cpu'."


@pytest.fixture(scope="module")
def refused(raised: Callable[..., dict[str, list[str]]]) -> dict[str, list[str]]:
    return raised([f"wb.spectrum(model, {arguments})" for arguments in ARGUMENTS])


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_an_argument_out_of_range_says_what_is_expected(arguments: str, refused: dict[str, list[str]]) -> None:
    name, message = refused[f"wb.spectrum(model, {arguments})"]
    assert name == "ArgumentError"
    assert ARGUMENTS[arguments] in message
