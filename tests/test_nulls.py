"""Oracles: noise of many kinds, exact moments of finite Wishart matrices, α of the law by quadrature, real layers."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor, nn

import workbench as wb
from workbench.linalg import gram_eigenvalues
from workbench.spectra import nulls
from workbench.spectra.entries import copies, excess_kurtosis
from workbench.spectra.marchenko_pastur import marchenko_pastur_quantiles, orthogonal_edge, relaxed, stretched
from workbench.spectra.noise_kinds import second_moment
from workbench.spectra.norms import zero_threshold
from workbench.spectra.nulls import departure, farms_verdict, noise_alpha, noise_cdf, noise_grid
from workbench.spectra.power_law import NO_FIT, power_law

RULES = ["search", "median", "mean", "1.5 mean"]


def positive_eigenvalues(matrices: Tensor) -> Tensor:
    values = gram_eigenvalues(matrices).flatten().sort().values
    return values[values > zero_threshold(values, max(matrices.shape[1:]))]


def called(matrices: Tensor, rule: str) -> tuple[str, str]:
    """The verdict as `wb.spectrum` asks for it; `mean` stands for the number that is the mean eigenvalue."""
    values = positive_eigenvalues(matrices)
    number = {"mean": 1.0, "1.5 mean": 1.5}.get(rule)
    xmin: Any = rule if number is None else number * float(values.mean())
    fit = power_law(values, xmin, resolution=torch.finfo(matrices.dtype).eps)
    return nulls.verdict(fit, xmin, values, matrices.shape[1], matrices.shape[2], len(matrices))


def weights(*shape: int, fill: Callable[..., Any], seed: int = 0) -> Tensor:
    return fill(torch.empty(*shape), generator=torch.Generator().manual_seed(seed))


def noise_spectra(count: int, rows: int, cols: int, pooled: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (pooled, rows, cols)
    return [positive_eigenvalues(torch.randn(shape, generator=generator)) for _ in range(count)]


def signs(tensor: Tensor, generator: torch.Generator) -> Tensor:
    return tensor.uniform_(-1, 1, generator=generator).sign_()


def conv_default(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """As nn.Linear and nn.Conv2d begin."""
    return nn.init.kaiming_uniform_(tensor, a=math.sqrt(5), generator=generator)


FILLS = [nn.init.normal_, nn.init.xavier_normal_, nn.init.xavier_uniform_, conv_default, nn.init.trunc_normal_, signs]


# Noise says `no tail`


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize(
    ("rows", "cols"), [(32, 32), (64, 64), (256, 64), (64, 1024), (300, 150), (256, 256), (20, 320)]
)
def test_noise_has_no_tail_under_any_rule(rows: int, cols: int, fill: Callable[..., Any], rule: str) -> None:
    word, reason = called(weights(rows, cols, fill=fill)[None], rule)
    assert word == "no tail", reason


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("fill", [nn.init.normal_, conv_default, signs])
@pytest.mark.parametrize(
    ("out", "into", "positions"), [(16, 16, 9), (64, 64, 9), (16, 3, 49), (96, 24, 5), (128, 64, 1)]
)
def test_pooled_noise_has_no_tail(out: int, into: int, positions: int, fill: Callable[..., Any], rule: str) -> None:
    kernel = weights(out, into, positions, fill=fill)
    assert called(kernel.permute(2, 0, 1), rule)[0] == "no tail"


@pytest.mark.parametrize("rule", ["search", "median"])
def test_large_noise_has_no_tail(rule: str) -> None:
    for rows, cols in [(1024, 1024), (4096, 512)]:
        (values,) = noise_spectra(1, rows, cols)
        assert nulls.verdict(power_law(values, rule), rule, values, rows, cols)[0] == "no tail"


@pytest.mark.parametrize(("rows", "cols", "pooled"), [(64, 64, 1), (256, 64, 1), (32, 32, 9)])
def test_false_alarms_are_rare(rows: int, cols: int, pooled: int) -> None:
    """At most 1 % of layers: more than 7 in 200 would come by chance once in 300."""
    alarms = dict.fromkeys(("search", "median"), 0)
    for values in noise_spectra(200, rows, cols, pooled):
        for rule in alarms:
            word = nulls.verdict(power_law(values, rule), rule, values, rows, cols, pooled)[0]  # type: ignore[arg-type]
            alarms[rule] += word != "no tail"
    assert max(alarms.values()) <= 7, alarms


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_a_verdict_does_not_depend_on_scale_or_orientation(rule: str, scale: float) -> None:
    for weight in (weights(60, 90, fill=nn.init.normal_), weights(60, 90, fill=torch.Tensor.cauchy_)):
        plain, scaled, turned = (called(each[None], rule)[0] for each in (weight, scale * weight, weight.T))
        assert plain == scaled == turned


# What is not noise says so


def heavy_tailed(degrees: float, rows: int, cols: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_t(degrees, (rows, cols)))


def correlated(power: float, rows: int, cols: int) -> Tensor:
    """Rows with the covariance eigenvalues k^(−2·power)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, cols, generator=generator) * torch.arange(1.0, cols + 1) ** -power


@pytest.mark.parametrize("rule", ["search", "median"])
@pytest.mark.parametrize(
    "weight",
    [
        heavy_tailed(2, 64, 64),
        heavy_tailed(2.5, 256, 64),
        heavy_tailed(3, 256, 256),
        heavy_tailed(3, 1024, 128),
        correlated(0.3, 256, 128),
        correlated(0.5, 128, 128),
        correlated(1.0, 128, 512),
    ],
    ids=["t2", "t2.5", "t3", "t3 wide", "k^-0.6", "k^-1", "k^-2"],
)
def test_heavy_tails_and_power_law_covariances_are_told_from_noise(weight: Tensor, rule: str) -> None:
    word, reason = called(weight[None], rule)
    assert word in {"search": {"heavy", "typical", "weak"}, "median": {"heavier than noise"}}[rule], reason


@pytest.mark.parametrize("rule", ["search", "median"])
def test_real_layers_are_told_from_noise_and_one_that_was_not_trained_is_noise(minilm: Path, rule: str) -> None:
    """Sentence embeddings never use the pooler: its weights are as they were drawn."""
    layers = ["encoder.layer.[05].*.dense", "encoder.layer.3.attention.self.*", "pooler.dense"]
    spectrum = wb.spectrum(minilm, layers=layers, xmin=rule)
    for row in spectrum.frame().itertuples():
        values = spectrum.eigenvalues[row.layer]
        values = values[values > zero_threshold(values, max(row.rows, row.cols))]
        word, reason = nulls.verdict(power_law(values, rule), rule, values, row.rows, row.cols)  # type: ignore[arg-type]
        assert (word == "no tail") == (row.layer == "pooler.dense"), (row.layer, reason)


@pytest.mark.parametrize(("strength", "noise"), [(0.5, True), (2.5, False)])
@pytest.mark.parametrize("rule", ["search", "median"])
def test_a_planted_signal_is_seen_above_its_threshold_and_not_below(strength: float, noise: bool, rule: str) -> None:
    generator = torch.Generator().manual_seed(1)
    left, right = (nn.functional.normalize(torch.randn(n, generator=generator), dim=0) for n in (400, 100))
    weight = torch.randn(400, 100, generator=generator) / 20 + strength * torch.outer(left, right)
    assert (called(weight[None], rule)[0] == "no tail") == noise


def test_a_spectrum_narrower_than_noise_has_no_searched_tail_and_is_lighter_under_the_median() -> None:
    """Singular values of 1 ± 1 % at random: the search finds α = 40 and more where noise has 23 at most."""
    values = torch.from_numpy(np.sort(1 + 0.02 * np.random.default_rng(0).random(128)))
    word, reason = nulls.verdict(power_law(values, "median"), "median", values, 128, 128)
    assert word == "lighter than noise"
    assert reason.startswith("α = ") and "noise of this shape gives 2.138 (" in reason
    word, reason = nulls.verdict(power_law(values), "search", values, 128, 128)
    assert word == "no tail"
    assert "the spectrum is narrower than noise" in reason


@pytest.mark.parametrize(("exponent", "word"), [(1.5, "heavy"), (3.0, "typical"), (7.0, "weak")])
def test_an_exact_power_law_is_called_by_its_alpha(exponent: float, word: str) -> None:
    values = torch.from_numpy((1 - (np.arange(1, 301) - 0.5) / 300) ** (-1 / (exponent - 1)))
    found, reason = nulls.verdict(power_law(values), "search", values, 300, 300)
    assert found == word
    assert reason.startswith("a folk threshold on α; the spectrum is not noise: ")
    median = nulls.verdict(power_law(values, "median"), "median", values, 300, 300)[0]
    assert median == ("heavier than noise" if exponent < 2 else "lighter than noise")


# Too little to judge


@pytest.mark.parametrize(
    ("matrices", "reason"),
    [
        (torch.zeros(1, 30, 40), "all elements are zero"),
        (torch.outer(torch.arange(1.0, 31), torch.ones(40))[None], "1 non-zero eigenvalue: a power law is not told"),
        (torch.ones(30, 40)[None], "1 non-zero eigenvalue: a power law is not told from others below 20"),
        (torch.arange(1.0, 31)[None, :, None], "1 non-zero eigenvalue: a power law is not told from others below 20"),
        (weights(19, 80, fill=nn.init.normal_)[None], "19 non-zero eigenvalues: a power law is not told from others"),
        (3 * torch.eye(64)[None], "the eigenvalues are all equal: the tail has no spread"),
        (weights(64, 64, fill=nn.init.orthogonal_)[None], "the eigenvalues are all equal: the tail has no spread"),
    ],
    ids=["zero", "rank one", "duplicated rows", "one column", "nineteen", "identity", "orthogonal"],
)
@pytest.mark.parametrize("rule", ["search", "median"])
def test_where_there_is_too_little_the_reason_says_what(matrices: Tensor, reason: str, rule: str) -> None:
    values = positive_eigenvalues(matrices) if matrices.any() else torch.zeros(0, dtype=torch.float64)
    fit = power_law(values, rule, resolution=torch.finfo(torch.float32).eps)  # type: ignore[arg-type]
    word, found = nulls.verdict(fit, rule, values, matrices.shape[1], matrices.shape[2])  # type: ignore[arg-type]
    assert word == "no tail"
    assert found.startswith(reason)


def test_duplicated_rows_of_noise_are_noise_of_fewer_rows() -> None:
    weight = weights(50, 200, fill=nn.init.normal_)
    for rule in ("search", "median"):
        assert called(torch.cat([weight, weight])[None], rule)[0] == "no tail"


@pytest.mark.parametrize("level", [1e9, 1e4])
def test_a_number_above_all_eigenvalues_leaves_no_tail(level: float) -> None:
    values = positive_eigenvalues(weights(64, 64, fill=nn.init.normal_)[None])
    word, reason = nulls.verdict(power_law(values, level), level, values, 64, 64)
    assert (word, reason) == ("no tail", f"fewer than 2 eigenvalues lie at or above xmin={level:g}")


def test_a_number_beyond_the_edge_of_noise_is_reached_only_by_heavier_tails() -> None:
    values = positive_eigenvalues(correlated(0.5, 256, 128)[None])
    word, reason = nulls.verdict(power_law(values, 20.0), 20.0, values, 256, 128)
    assert word == "heavier than noise", reason


# The null


def alpha_of_the_law(ratio: float) -> float:
    """1 + ½/∫ ln(x/m) over x ≥ m by quadrature, m the median, in the angle x = 1 + q + 2√q·cos θ."""
    from scipy.optimize import brentq

    root = 2 * math.sqrt(ratio)

    def density(angle: float) -> float:
        return (root * math.sin(angle)) ** 2 / (2 * math.pi * ratio * (1 + ratio + root * math.cos(angle)))

    end = brentq(lambda angle: quad(density, 0, angle)[0] - 0.5, 0.5, 2.5)
    middle = 1 + ratio + root * math.cos(end)
    mean = quad(lambda t: density(t) * math.log((1 + ratio + root * math.cos(t)) / middle), 0, end)[0]
    return 1 + 0.5 / mean


@pytest.mark.parametrize(("aspect", "alpha"), [(1, 2.12169), (2, 2.70585), (4, 3.45460), (8, 4.46995), (16, 5.87754)])
def test_the_null_of_the_median_is_the_law_in_the_limit(aspect: int, alpha: float) -> None:
    """The specification's third golden test, now of the null."""
    null = noise_alpha("median", 4000 * aspect, 4000)
    assert null.alpha == pytest.approx(alpha_of_the_law(1 / aspect), rel=1e-3)
    assert null.alpha == pytest.approx(alpha, rel=1e-3)
    assert null.low < alpha < null.high
    assert (null.high - null.low) / alpha < 0.01


@pytest.mark.parametrize(("side", "aspect", "pooled"), [(64, 1, 1), (64, 4, 1), (32, 16, 9), (100, 1, 4)])
def test_the_null_of_the_median_has_the_centre_and_the_spread_of_noise(side: int, aspect: int, pooled: int) -> None:
    count = 200
    spectra = noise_spectra(count, aspect * side, side, pooled)
    means = np.array([1 / (power_law(values, "median").alpha - 1) for values in spectra])
    null = noise_alpha("median", aspect * side, side, pooled)
    centre, half = 1 / (null.alpha - 1), 1 / (null.low - 1) - 1 / (null.alpha - 1)
    assert abs(means.mean() - centre) < 4 * means.std() / math.sqrt(count)
    assert 3 < half / means.std() < 8  # 3.3 deviations, and room for other entries than Gaussian ones
    assert 1 / (null.alpha - 1) - 1 / (null.high - 1) == pytest.approx(half)


@pytest.mark.parametrize(("long_side", "short_side", "pooled"), [(64, 64, 1), (512, 128, 1), (32, 16, 9)])
def test_the_searched_alpha_of_noise_lies_in_its_range(long_side: int, short_side: int, pooled: int) -> None:
    null = noise_alpha("search", long_side, short_side, pooled)
    alphas = [power_law(values).alpha for values in noise_spectra(60, long_side, short_side, pooled)]
    assert np.mean([null.low <= alpha <= null.high for alpha in alphas]) > 0.95
    assert np.median(alphas) == pytest.approx(null.alpha, rel=0.35)


@pytest.mark.parametrize("kurtosis", [0.0, -2.0, -1.2, 3.0, 12.0])
@pytest.mark.parametrize(("long_side", "short_side"), [(1000, 1000), (4000, 1000), (3000, 200)])
def test_finite_noise_has_the_exact_moments_of_its_trace(long_side: int, short_side: int, kurtosis: float) -> None:
    """E tr WᵀW = NM and E tr (WᵀW)² = NM(N + M + 1 + κ) for independent entries with excess kurtosis κ."""
    grid = noise_grid(long_side, float(short_side), 100_000, kurtosis)
    correction, second = (1 + kurtosis) / long_side, kurtosis**2 / (long_side * short_side)  # of the next order
    assert float(grid.mean()) == pytest.approx(1, abs=2e-5)
    assert float(grid.square().mean()) - 1 - short_side / long_side == pytest.approx(correction, abs=3e-5 + 2 * second)
    shares = noise_cdf(grid[1000::1000], short_side / long_side, float(short_side), kurtosis)
    assert torch.allclose(shares, (torch.arange(1000, 100_000, 1000) + 0.5).double() / 1e5, atol=3 / short_side**1.5)


def masked(*shape: int, kept: float, seed: int = 0) -> Tensor:
    """A pruned initialisation: Gaussian entries, each kept with one chance."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < kept)


def ternary(*shape: int, kept: float, seed: int = 0) -> Tensor:
    return masked(*shape, kept=kept, seed=seed).sign()


@pytest.mark.parametrize("stretch", [-math.inf, 0.0, 0.1, 0.5])
@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.02])
def test_stretching_moves_both_edges_keeps_the_mean_and_is_undone(ratio: float, stretch: float) -> None:
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    stretch = max(stretch, -2 * math.sqrt(ratio) / 20)  # ±1 entries with M = 20, the least that is judged
    values = torch.linspace(0, 1.5 * high, 300, dtype=torch.float64)
    moved = stretched(values, ratio, stretch)
    inside = values >= low
    assert (moved[inside].diff() > 0).all()
    torch.testing.assert_close(relaxed(moved, ratio, stretch)[inside], values[inside], rtol=1e-12, atol=1e-12)
    ends = stretched(torch.tensor([low, high], dtype=torch.float64), ratio, stretch)
    assert ends.tolist() == pytest.approx([low * (1 - stretch), high * (1 + stretch)])
    law = stretched(marchenko_pastur_quantiles((torch.arange(20_000) + 0.5).double() / 20_000, ratio), ratio, stretch)
    assert float(law.mean()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("rows", "cols", "kept"), [(64, 64, 0.3), (128, 32, 0.3), (128, 128, 0.2), (256, 256, 0.1)])
@pytest.mark.parametrize("signs_only", [False, True])
def test_the_spectrum_of_sparse_noise_follows_its_stretched_law(
    rows: int, cols: int, kept: float, signs_only: bool
) -> None:
    """Without κ the distance is κ/(2π·M); with it of the next order, (κ/M)². A third of ±1 entries has the same κ."""
    pooled = max(1 << 20 >> (rows * cols).bit_length(), 12)
    matrices = ternary(pooled, rows, cols, kept=kept / 3) if signs_only else masked(pooled, rows, cols, kept=kept)
    spectra = gram_eigenvalues(matrices)
    values = (spectra / spectra.mean(1, keepdim=True)).flatten().sort().values
    kurtosis = 3 / kept - 3
    steps = (torch.arange(len(values)) + 0.5).double() / len(values)
    apart, plain = (
        float((noise_cdf(values, cols / rows, cols, assumed) - steps).abs().max()) for assumed in (kurtosis, 0.0)
    )
    chance = (nulls.DISTANCE + nulls.DISTANCE_GROWTH * math.log(cols)) / cols / math.sqrt(pooled)
    second = (kurtosis / cols) ** 2
    assert abs(plain - kurtosis / (2 * math.pi * cols)) < second + chance
    assert apart < second + chance and apart < plain / 1.5


@pytest.mark.parametrize(("rows", "cols"), [(64, 64), (256, 64), (400, 50)])
@pytest.mark.parametrize("kept", [1.0, 0.3])
def test_the_second_moment_of_noise_has_its_mean_and_its_deviation(rows: int, cols: int, kept: float) -> None:
    count = 300
    spectra = gram_eigenvalues(masked(count, rows, cols, kept=kept))
    relative = spectra / spectra.mean(1, keepdim=True)
    kurtosis = 3 / kept - 3
    expected, deviation = second_moment(rows, cols, 1, kurtosis)
    found = relative.square().mean(1)
    # κ differs from layer to layer and Σλ divides: at most (κ+2)·(1+q)/NM of the mean
    division = (kurtosis + 2) * (1 + cols / rows) * 2 / (rows * cols)
    spread = math.sqrt(max(float(found.var()) - float(sampled_kurtosis(rows * cols, kept)) / rows**2, 0))
    assert abs(float(found.mean()) - expected) < 4 * deviation * 2 / math.sqrt(count) + division
    assert 0.6 < spread / deviation < 1.5


def sampled_kurtosis(count: int, kept: float) -> float:
    """Variance of the κ of so many entries: (m8 − m4²)/n of the ratio Σw⁴/(Σw²)², by its linear part."""
    m2, m4, m6, m8 = kept, 3 * kept, 15 * kept, 105 * kept
    four, two, both = m8 - m4**2, m4 - m2**2, m6 - m2 * m4
    slope = 2 * m4 / m2
    return (four - 2 * slope * both + slope**2 * two) / m2**4 / count


@pytest.mark.parametrize("kept", [1.0, 0.3, 0.05])
def test_kurtosis_is_that_of_the_entries_that_count(kept: float) -> None:
    weight = masked(2, 300, 400, kept=kept)
    expected = np.mean([(one**4).mean() / (one**2).mean() ** 2 - 3 for one in weight.double().numpy()])
    assert excess_kurtosis(weight) == pytest.approx(expected)
    assert expected == pytest.approx(3 / kept - 3, abs=5 * math.sqrt(sampled_kurtosis(240_000, kept)))
    dead = torch.cat([weight, torch.zeros_like(weight)], 1)
    assert excess_kurtosis(dead, 300 * 400) == pytest.approx(expected)
    assert excess_kurtosis(1e-9 * torch.cat([weight, torch.zeros(1, 300, 400)])) == pytest.approx(expected, rel=1e-5)
    assert excess_kurtosis(weight.bfloat16()) == pytest.approx(expected, rel=1e-2, abs=1e-2)
    assert math.isnan(excess_kurtosis(torch.zeros(1, 3, 4)))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_copies_are_told_where_every_row_is_there_as_often(dtype: torch.dtype, sign: int) -> None:
    weight = sign * weights(50, 20, fill=nn.init.uniform_).to(dtype)
    dead = torch.zeros(7, 20, dtype=dtype)
    twice = torch.cat([weight, dead, weight])
    assert copies(weight[None]) == copies(torch.cat([weight, dead])[None]) == 1
    assert copies(twice[None]) == copies(twice.T[None]) == copies(twice[torch.randperm(107)][None]) == 2
    assert copies(torch.cat([twice, weight])[None]) == 3
    assert copies(torch.cat([twice, weight[:1]])[None]) == copies(torch.cat([weight, weight[:49]])[None]) == 1
    assert copies(torch.stack([twice, 2 * twice])) == 2
    assert copies(torch.stack([twice, torch.cat([weight, 2 * weight, dead])])) == 1
    assert copies(torch.zeros(2, 5, 4, dtype=dtype)) == 1
    assert copies(torch.ones(1, 5, 4, dtype=dtype)) == 5


@pytest.mark.parametrize("ratio", [1.0, 0.25])
def test_the_edge_of_an_orthogonal_matrix_with_noise_is_where_its_spectrum_ends(ratio: float) -> None:
    """Marchenko and Pastur's edge at w = 1, a semicircle's 1 + 2√Var at w → 0, and drawn matrices between."""
    rows, cols = 800, round(800 * ratio)
    assert orthogonal_edge(1.0, ratio) == pytest.approx((1 + math.sqrt(ratio)) ** 2)
    assert orthogonal_edge(1e-6, ratio) == pytest.approx(1 + 2 * math.sqrt(2e-6 * ratio), abs=1e-5)
    frame = weights(rows, cols, fill=nn.init.orthogonal_).double()
    noise = weights(rows, cols, fill=nn.init.normal_, seed=1).double() / math.sqrt(rows)
    for share in (0.02, 0.3, 0.7):
        (values,) = gram_eigenvalues((math.sqrt(1 - share) * frame + math.sqrt(share) * noise)[None])
        width = orthogonal_edge(share, ratio) - 1
        assert float(values[-1]) - 1 == pytest.approx(width, rel=5 * cols ** (-2 / 3))  # Tracy and Widom's scale
        assert float(values.var()) == pytest.approx(ratio * (1 - (1 - share) ** 2), rel=0.05)


def test_a_departure_names_both_of_its_numbers() -> None:
    (values,) = noise_spectra(1, 200, 100)
    noise = departure(values, 200, 100)
    assert noise.noise and noise.num_spikes == 0
    values[-1] *= 3
    spiked = departure(values, 100, 200)
    assert not spiked.noise
    assert str(spiked).startswith("1 eigenvalue beyond its edge, ") and "from the Marchenko–Pastur law" in str(spiked)


# FARMS


def windows_of(weight: Tensor, size: int) -> Tensor:
    """Square windows that cover the matrix, half overlapping."""
    starts = [
        np.linspace(0, length - size, max(math.ceil(2 * (length - size) / size) + 1, 1)).round().astype(int)
        for length in weight.shape
    ]
    return torch.stack([weight[row : row + size, col : col + size] for row in starts[0] for col in starts[1]])


def farmed(weight: Tensor, size: int, rule: Any = "median") -> tuple[float, tuple[str, str]]:
    windows = windows_of(weight, size)
    values = positive_eigenvalues(windows)
    fit = power_law(values, rule)
    independent = weight.numel() / size**2
    return fit.alpha, farms_verdict(fit.alpha, rule, values, size, size, len(windows), independent)


@pytest.mark.parametrize("fill", [nn.init.normal_, conv_default, signs])
@pytest.mark.parametrize(("rows", "cols", "size"), [(200, 200, 100), (800, 200, 100), (64, 512, 64), (100, 100, 100)])
def test_noise_in_windows_has_no_tail_and_the_published_alpha(
    rows: int, cols: int, size: int, fill: Callable[..., Any]
) -> None:
    alpha, (word, reason) = farmed(weights(rows, cols, fill=fill), size)
    assert word == "no tail", reason
    assert alpha == pytest.approx(2.12, abs=0.06)


def test_the_null_of_hundred_wide_windows_is_what_was_measured() -> None:
    """FARMS finds 2.115 to 2.118 in noise at Q = 1, where the law of infinite windows has 2.1217."""
    assert 2.115 < noise_alpha("median", 100, 100, 16, count=4900).alpha < 2.118


@pytest.mark.parametrize("weight", [heavy_tailed(2.5, 400, 200), correlated(0.5, 400, 200)], ids=["t2.5", "k^-1"])
def test_farms_tells_heavy_tails_from_noise(weight: Tensor) -> None:
    assert farmed(weight, 100)[1][0] == "heavier than noise"


def test_farms_of_an_orthogonal_like_layer_is_lighter_than_noise() -> None:
    weight = weights(100, 100, fill=nn.init.orthogonal_) + 0.01 * weights(100, 100, fill=nn.init.normal_)
    assert farmed(weight, 100)[1][0] == "lighter than noise"


@pytest.mark.parametrize("alpha", [2.12, math.nan])
def test_farms_of_too_little_says_so(alpha: float) -> None:
    few = torch.linspace(1, 2, 10, dtype=torch.float64)
    assert farms_verdict(alpha, "median", few, 10, 10, 1, 1.0)[1].startswith("10 non-zero eigenvalues")
    equal = torch.ones(40, dtype=torch.float64)
    assert farms_verdict(math.nan, "median", equal, 40, 40, 1, 1.0) == (
        "no tail",
        "the eigenvalues are all equal: the tail has no spread",
    )
    assert nulls.verdict(NO_FIT, "median", equal, 40, 40)[0] == "no tail"
