"""Agreement with WeightWatcher 0.7.7: its own numbers on a real transformer, and its rules derived again."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from torch import Tensor

import workbench as wb

REFERENCE = Path(__file__).parent / "reference" / "ww_minilm_dict_default.csv"
EXACT = ["num_evals", "num_pl_spikes", "matrix_rank", "weak_rank_loss", "warning"]
CLOSE = [
    "alpha",
    "D",
    "sigma",
    "xmin",
    "norm",
    "lambda_max",
    "stable_rank",
    "entropy",
    "log_alpha_norm",
    "alpha_weighted",
]
OURS = {"alpha": "alpha", "D": "ks_distance", "sigma": "alpha_error", "xmin": "xmin", "num_pl_spikes": "tail_size"}


def compared(tensor: Tensor, name: str = "fc") -> tuple[dict[str, Any], dict[str, Any], wb.Spectrum]:
    """One layer's row under the compatible names, its row under ours, and the result."""
    result = wb.spectrum({f"{name}.weight": tensor}, compat="weightwatcher")
    return result.frame("weightwatcher").iloc[0].to_dict(), result.row(name), result


# Its own numbers


@pytest.fixture(scope="module")
def theirs() -> pandas.DataFrame:
    return pandas.read_csv(REFERENCE, keep_default_na=False).set_index("longname")


@pytest.fixture(scope="module")
def compatible(minilm: Path) -> wb.Spectrum:
    return wb.spectrum(minilm, compat="weightwatcher")


@pytest.mark.parametrize("column", CLOSE)
def test_39_layers_of_a_transformer_agree_to_nine_digits(
    column: str, compatible: wb.Spectrum, theirs: pandas.DataFrame
) -> None:
    """Measured: 4e-13 at most, in D; two linear algebra libraries need not round alike."""
    ours = compatible.frame("weightwatcher").set_index("longname").loc[theirs.index]
    assert len(ours) == 39
    np.testing.assert_allclose(ours[column], theirs[column].astype(float), rtol=1e-9, atol=0)
    if column in OURS:
        main = compatible.frame().set_index("layer").loc[theirs.index]
        assert main[OURS[column]].tolist() == ours[column].tolist()


@pytest.mark.parametrize("column", EXACT)
def test_counts_and_warnings_of_39_layers_are_the_same(
    column: str, compatible: wb.Spectrum, theirs: pandas.DataFrame
) -> None:
    ours = compatible.frame("weightwatcher").set_index("longname").loc[theirs.index]
    assert ours[column].tolist() == theirs[column].tolist()


def test_the_layer_that_it_leaves_out_in_silence_is_a_row_of_ours(
    compatible: wb.Spectrum, theirs: pandas.DataFrame
) -> None:
    missing = set(compatible.frame()["layer"]) - set(theirs.index)
    assert missing == {"embeddings.token_type_embeddings"}
    assert compatible.row(missing.pop())["verdict"] == "no tail"


def test_compatibility_changes_no_eigenvalue_of_a_matrix_and_no_rank(compatible: wb.Spectrum, minilm: Path) -> None:
    layers = ["pooler.dense", "encoder.layer.5.output.dense"]
    plain = wb.spectrum(minilm, layers=layers)
    for layer in layers:
        assert torch.allclose(plain.eigenvalues[layer], compatible.eigenvalues[layer], rtol=0, atol=1e-10)
        assert plain.row(layer)["rank"] == compatible.row(layer)["rank"]


# Its rules, derived again


def small_sample_fit(values: np.ndarray) -> tuple[float, float, float, float, int] | None:
    """α with n − 1, the xmin that minimises D − 0.868/√n over tails of at least 8 (all values if there are fewer)."""
    count, best = len(values), None
    for start in range(max(count - 8, 0) + 1):
        tail = values[start:]
        size = len(tail)
        spread = sum(math.log(value) for value in tail) - size * math.log(tail[0])
        if spread <= 1e-12:
            continue
        alpha = 1 + (size - 1) / spread
        fitted = 1 - (tail / tail[0]) ** (1 - alpha)
        distance = max(abs(fitted[i] - i / size) for i in range(size))
        objective = distance - 0.868 / math.sqrt(size)
        if best is None or objective < best[0]:
            best = (objective, (alpha, (alpha - 1) / math.sqrt(size), distance, float(tail[0]), size))
    return None if best is None else best[1]


@given(
    st.integers(9, 19),
    st.integers(0, 2**32),
    st.sampled_from(["pareto", "lognormal", "uniform", "exponential"]),
    st.integers(0, 3),
)
def test_below_twenty_eigenvalues_its_small_sample_fit_is_used(count: int, seed: int, law: str, zeros: int) -> None:
    rng = np.random.default_rng(seed)
    sizes: dict[str, Any] = {"pareto": (1.5,), "lognormal": (0, 1), "uniform": (0.1, 2), "exponential": (1,)}
    values = np.sort(getattr(rng, law)(*sizes[law], count) + 0.01)
    dead = rng.uniform(0, 9e-6, zeros)  # below its absolute zero of 1e-5: they count as none
    theirs, ours, result = compared(torch.from_numpy(np.diag(np.sqrt(np.append(dead, values)))))
    eigenvalues = result.eigenvalues["fc"].numpy()
    assert len(eigenvalues) == count + zeros
    expected = small_sample_fit(eigenvalues[eigenvalues > 1e-5])
    assert expected is not None
    fit = [theirs[name] for name in ("alpha", "sigma", "D", "xmin", "num_pl_spikes")]
    assert fit == pytest.approx(list(expected), rel=1e-9)
    assert [ours[OURS[name]] for name in ("alpha", "sigma", "D", "xmin", "num_pl_spikes")] == fit
    assert (theirs["status"], theirs["warning"]) == (
        "success",
        "over-trained" if expected[0] < 2 else "under-trained" if expected[0] > 6 else "",
    )
    assert ours["verdict"] == "no tail" or count + zeros >= 20, "our verdict stays: too few for a power law"


def test_the_verdict_on_a_small_sample_fit_is_no_tail_whatever_was_below_its_zero() -> None:
    values = np.append(np.full(5, 5e-6) * np.arange(1, 6) / 5, np.sort(np.random.default_rng(0).pareto(1.5, 17) + 1))
    theirs, ours, _ = compared(torch.from_numpy(np.diag(np.sqrt(values))))
    assert theirs["alpha"] == pytest.approx(small_sample_fit(values[5:])[0], rel=1e-9)  # type: ignore[index]
    assert (ours["verdict"], ours["rank"]) == ("no tail", 22)


@pytest.mark.parametrize("count", range(2, 9))
def test_below_eight_eigenvalues_all_of_them_are_the_tail(count: int) -> None:
    theirs, _, result = compared(torch.diag(torch.arange(1.0, count + 1)))
    expected = small_sample_fit(result.eigenvalues["fc"].numpy())
    assert expected is not None
    assert theirs["num_pl_spikes"] == count
    assert theirs["alpha"] == pytest.approx(expected[0], rel=1e-12)


@pytest.mark.parametrize("count", [19, 20])
def test_twenty_eigenvalues_are_where_its_plain_fit_begins(count: int) -> None:
    values = np.sort(np.random.default_rng(0).pareto(1.5, count) + 1)
    theirs, _, result = compared(torch.from_numpy(np.diag(np.sqrt(values))))
    tail = result.eigenvalues["fc"].numpy()
    tail = tail[tail >= theirs["xmin"]]
    assert theirs["alpha"] == pytest.approx(1 + (len(tail) - (count < 20)) / np.log(tail / tail[0]).sum(), rel=1e-10)


def plain_search(values: np.ndarray) -> tuple[float, float, float, float]:
    """α, σ, D and xmin of the smallest D over every position but the last, also among equal values."""
    logs, fits = np.log(values), []
    for start in range(len(values) - 1):
        tail = logs[start:] - logs[start]
        if (spread := tail.sum()) > 0:
            size, alpha = len(tail), 1 + len(tail) / spread
            distance = np.abs(1 - np.exp((1 - alpha) * tail) - np.arange(size) / size).max()
            fits.append((distance, alpha, (alpha - 1) / math.sqrt(size), values[start]))
    distance, alpha, error, xmin = min(fits)
    return alpha, error, distance, xmin


@pytest.mark.parametrize(
    "weight",
    [
        pytest.param(torch.randn(33, 40, 5, 5, 5, generator=torch.Generator().manual_seed(0)), id="4125 eigenvalues"),
        pytest.param(torch.diag(torch.arange(1.0, 31)).repeat_interleave(3, 1), id="one of each"),
        pytest.param(torch.diag(torch.arange(1.0, 31).repeat_interleave(3)), id="three of each"),
    ],
)
def test_it_tries_every_eigenvalue_also_of_many_and_among_equal_ones(weight: Tensor) -> None:
    theirs, _, result = compared(weight)
    expected = plain_search(result.eigenvalues["fc"].numpy())
    assert [theirs[name] for name in ("alpha", "sigma", "D", "xmin")] == pytest.approx(list(expected), rel=1e-9)


def conv_weight(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    "shape", [(8, 5, 3, 3), (5, 8, 3, 3), (24, 30, 2, 2), (6, 6, 7), (3, 4, 2, 2, 2), (9, 4, 1, 1)]
)
def test_convolutions_are_pooled_slices_scaled_by_the_root_of_a_half(shape: tuple[int, ...]) -> None:
    weight = conv_weight(*shape)
    if shape[2] > 1:
        weight[..., 0] = 0  # dead kernel positions: their singular values are lost ranks
    theirs, ours, result = compared(weight, "conv")
    slices = [weight[(..., *at)].numpy() * math.sqrt(0.5) for at in np.ndindex(shape[2:])]
    singular = [np.linalg.svd(one, compute_uv=False) for one in slices]
    values = np.sort(np.concatenate(singular) ** 2)
    np.testing.assert_allclose(result.eigenvalues["conv"].numpy(), values, rtol=0, atol=1e-13 * values[-1])
    small, large = sorted(shape[:2])
    assert (theirs["M"], theirs["N"], theirs["Q"], theirs["rf"]) == (small, large, large / small, len(slices))
    assert theirs["num_evals"] == len(values) == small * len(slices)
    assert theirs["matrix_rank"] == ours["rank"] == sum(np.linalg.matrix_rank(one) for one in slices)
    assert theirs["rank_loss"] == theirs["weak_rank_loss"] == len(values) - theirs["matrix_rank"]
    share = values / values.sum() + 1e-10
    expected = {
        "norm": values.sum(),
        "log_norm": math.log10(values.sum()),
        "spectral_norm": values[-1],
        "log_spectral_norm": math.log10(values[-1]),
        "xmax": values[-1],
        "stable_rank": values.sum() / values[-1],
        "entropy": -(share * np.log(share)).sum() / math.log(theirs["matrix_rank"] + 1e-10),
        "sv_max": max(one.max() for one in singular),
        "sv_min": max(one.min() for one in singular),
        "alpha_weighted": theirs["alpha"] * math.log10(values[-1]),
        "log_alpha_norm": math.log10((values[values > 0] ** theirs["alpha"]).sum()),
    }
    assert {name: theirs[name] for name in expected} == pytest.approx(expected, rel=1e-9)


NO_FIT = {
    "zero": torch.zeros(30, 30),
    "equal": torch.eye(30),
    "rank one": torch.ones(30, 30),
    "below its zero": 1e-4 * torch.diag(torch.linspace(1, 9, 60, dtype=torch.float64)),  # λ from 1e-8 to 8e-7
}


@pytest.mark.parametrize("case", NO_FIT)
def test_where_there_is_no_fit_there_is_no_number_under_its_names_either(case: str) -> None:
    theirs, ours, _ = compared(NO_FIT[case])
    assert all(math.isnan(theirs[name]) for name in ("alpha", "sigma", "D", "xmin"))
    assert theirs["num_pl_spikes"] == 0
    assert (theirs["status"], theirs["warning"]) == ("failed", "")
    assert ours["verdict"] == "no tail"
    assert all(math.isnan(ours[name]) for name in ("alpha", "alpha_error", "ks_distance", "xmin"))
    assert ours["tail_size"] == 0


def test_a_layer_below_its_absolute_zero_says_so() -> None:
    theirs, ours, _ = compared(NO_FIT["below its zero"])
    plain = wb.spectrum({"fc.weight": NO_FIT["below its zero"]}).row("fc")
    assert (plain["rank"], ours["rank"], theirs["weak_rank_loss"]) == (60, 60, 60)
    assert plain["alpha"] > 1
    assert "1e-05" in ours["reason"] or "1e-5" in ours["reason"], ours["reason"]


# What its mp_fit and randomize add

MP = ["W_scale", "sigma_mp", "mp_softrank", "bulk_min", "bulk_max", "num_spikes"]
RANDOM = ["rand_distance", "max_rand_eval", "ww_softrank", "ww_maxdist", "num_traps"] + [f"rand_{name}" for name in MP]


def spiked(rows: int, cols: int, strength: float) -> Tensor:
    """Noise of variance 4 and three directions, `strength` times its largest singular value and more."""
    rng = np.random.default_rng(1)
    sides = [np.linalg.qr(rng.standard_normal((size, 3)))[0] for size in (rows, cols)]
    edge = math.sqrt(rows) + math.sqrt(cols)
    directions = sides[0] @ np.diag([1.0, 1.2, 1.4]) @ sides[1].T * strength * edge
    return torch.from_numpy(2 * (rng.standard_normal((rows, cols)) + directions))


def analysed(weight: Tensor, *, detail: tuple[str, ...] = ("randomised",)) -> tuple[Any, wb.Spectrum]:
    result = wb.spectrum({"fc.weight": weight}, compat="weightwatcher", detail=detail, seed=2)
    return result.frame("weightwatcher").iloc[0], result


@pytest.mark.parametrize("shape", [(400, 200), (200, 400), (300, 300)])
@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_the_law_of_noise_and_what_was_planted_beside_it(shape: tuple[int, int], strength: float) -> None:
    row, _ = analysed(spiked(*shape, strength))
    small, large = sorted(shape)
    noise = math.sqrt(small / row["norm"]) * 2 * math.sqrt(large)  # σ of the noise where the mean λ is 1
    assert row["sigma_mp"] == pytest.approx(noise, rel=0.02)
    root = math.sqrt(small / large)
    edges = [4 * large * (1 - root) ** 2, 4 * large * (1 + root) ** 2]
    assert [row["bulk_min"], row["bulk_max"]] == pytest.approx(edges, rel=0.04)
    assert row["num_spikes"] == (3 if strength else 0)
    assert row["rand_sigma_mp"] == pytest.approx(1, abs=0.02), "shuffled, all is noise"
    assert row["num_traps"] == 0


@pytest.mark.parametrize("weight", [spiked(90, 60, 1.5), spiked(50, 50, 0), conv_weight(24, 30, 2, 2)])
def test_its_definitions_hold_of_the_layer_and_of_its_shuffled_elements(weight: Tensor) -> None:
    row, result = analysed(weight)
    own, drawn = result.eigenvalues["fc"].numpy(), result.randomised["fc"].numpy()
    for values, prefix in ((own, ""), (drawn, "rand_")):
        law = {name: row[prefix + name] for name in MP}
        assert law["W_scale"] == pytest.approx(math.sqrt(len(values) / values.sum()), rel=1e-12)
        rescaled = values * law["W_scale"] ** 2
        ends = [(law["sigma_mp"] * (1 + sign * math.sqrt(row["M"] / row["N"]))) ** 2 for sign in (-1, 1)]
        found = [law["bulk_min"] * law["W_scale"] ** 2, law["bulk_max"] * law["W_scale"] ** 2]
        assert found == pytest.approx(ends, rel=1e-9, abs=1e-12)
        assert law["mp_softrank"] == pytest.approx(ends[1] / rescaled.max(), rel=1e-9)
        margin = math.sqrt(1 / math.sqrt(row["Q"]) * ends[1] ** (2 / 3) * row["M"] ** (-2 / 3))
        assert law["num_spikes"] == (rescaled > ends[1] + margin).sum()
    assert row["rand_distance"] == pytest.approx(jensenshannon(own, drawn), rel=1e-7)
    assert row["max_rand_eval"] == drawn.max()
    assert row["ww_softrank"] == pytest.approx(drawn.max() / own.max(), rel=1e-12)
    assert row["ww_maxdist"] == pytest.approx(own.max() - drawn.max(), abs=1e-12 * own.max())
    assert row["num_traps"] == row["rand_num_spikes"]


def test_they_are_those_of_the_details_where_these_have_them() -> None:
    row, result = analysed(spiked(90, 60, 1.5), detail=("noise", "randomised"))
    noise, shuffled = (result.frame(name).iloc[0] for name in ("noise", "randomised"))
    assert row[["bulk_min", "bulk_max", "mp_softrank"]].tolist() == noise[["bulk_min", "bulk_max", "softrank"]].tolist()
    names = ["rand_distance", "max_rand_eval", "rand_bulk_max"]
    assert row[[*names, "rand_mp_softrank"]].tolist() == shuffled[[*names, "rand_softrank"]].tolist()


def test_what_was_not_drawn_and_what_is_not_there_is_no_number() -> None:
    row, _ = analysed(spiked(60, 40, 0), detail=())
    assert row[RANDOM].isna().all() and row[MP].notna().all()
    row, _ = analysed(torch.zeros(30, 30))
    zeros = ["num_spikes", "rand_num_spikes", "num_traps", "max_rand_eval", "ww_maxdist"]
    assert (row[zeros] == 0).all() and row[[*MP, *RANDOM]].drop(zeros).isna().all()
    row, _ = analysed(torch.full((30, 30), math.nan))
    assert row[[*MP[:-1], *RANDOM]].isna().all() and row["num_spikes"] == 0
