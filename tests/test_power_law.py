"""The power-law fit and the norms: laws, hand calculations, and a slow search that is obviously right."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq
from torch import Tensor

import workbench as wb
from workbench.linalg import stable_rank
from workbench.spectra import PowerLaw, power_law
from workbench.spectra.norms import alpha_weighted, entropy, log_alpha_norm

Fit = tuple[float, float, float, int]  # α, D, xmin, tail


def pareto_quantiles(exponent: float, count: int) -> Tensor:
    middle = (torch.arange(1, count + 1, dtype=torch.float64) - 0.5) / count
    return (1 - middle) ** (-1 / (exponent - 1))


def reference_fit(values: list[float], start: int, xmin: float) -> Fit:
    """One tail's α and D by their definitions, a loop over its points."""
    tail = values[start:]
    alpha = 1 + len(tail) / math.fsum(math.log(value / xmin) for value in tail)
    distance = 0.0
    for index, value in enumerate(tail):
        distance = max(distance, abs(1 - (value / xmin) ** (1 - alpha) - index / len(tail)))
    return alpha, distance, xmin, len(tail)


def reference_search(values: list[float]) -> Fit:
    """A loop over every xmin but the last; the first of the smallest D wins."""
    best: Fit | None = None
    for start in range(len(values) - 1):
        fit = reference_fit(values, start, values[start])
        if best is None or fit[1] < best[1]:
            best = fit
    assert best
    return best


SHAPES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "pareto": lambda rng, count: rng.pareto(1.5, count) + 1,
    "log-normal": lambda rng, count: rng.lognormal(0, 2, count),
    "exponential": lambda rng, count: rng.exponential(1, count) + 1e-9,
    "uniform": lambda rng, count: rng.uniform(1, 2, count),
    "MP": lambda rng, count: np.linalg.svd(rng.normal(size=(count, 2 * count)), compute_uv=False) ** 2,
    "bulk and spikes": lambda rng, count: np.append(rng.uniform(0, 1, count), 10.0 ** rng.uniform(0, 4, 2)),
}
SPECTRA = st.builds(
    lambda shape, seed, count: np.sort(SHAPES[shape](np.random.default_rng(seed), count)),
    st.sampled_from(sorted(SHAPES)),
    st.integers(0, 2**32),
    st.integers(2, 80),
)


def assert_equals(fit: PowerLaw, expected: Fit, tolerance: float = 1e-10) -> None:
    alpha, distance, xmin, tail = expected
    assert fit.tail_size == tail
    assert fit.xmin == xmin
    assert fit.alpha == pytest.approx(alpha, rel=tolerance)
    assert fit.ks_distance == pytest.approx(distance, abs=tolerance)
    assert fit.alpha_error == pytest.approx((alpha - 1) / math.sqrt(tail), rel=tolerance)


@given(SPECTRA)
def test_the_search_equals_a_double_loop(values: np.ndarray) -> None:
    fit = power_law(torch.from_numpy(values))
    assert_equals(fit, reference_search(values.tolist()))
    assert fit.candidates == len(values) - 1


@given(SPECTRA)
def test_the_median_rule_starts_at_the_upper_median(values: np.ndarray) -> None:
    start = len(values) // 2
    if start == len(values) - 1:
        return  # a tail of one point, see below
    fit = power_law(torch.from_numpy(values), "median")
    assert_equals(fit, reference_fit(values.tolist(), start, values[start]))
    assert fit.candidates == 1


@given(SPECTRA, st.floats(0.0, 1.0), st.booleans())
def test_a_number_takes_the_tail_at_and_above_it(values: np.ndarray, place: float, on_a_point: bool) -> None:
    xmin = float(values[int(place * (len(values) - 2))])
    xmin = xmin if on_a_point else xmin * 0.999
    start = sum(value < xmin for value in values)
    assert_equals(power_law(torch.from_numpy(values), xmin), reference_fit(values.tolist(), start, xmin))


def peak_of(values: list[float]) -> float:
    """The left edge of the fullest of 100 bins of log10 λ (the first of equals), counted one by one."""
    logs = [math.log10(value) for value in values]
    low, width = min(logs), (max(logs) - min(logs)) / 100
    bins = [min(int((one - low) / width), 99) if width else 0 for one in logs]
    return 10 ** (low + min(range(100), key=lambda one: (-bins.count(one), one)) * width)


@given(SPECTRA)
def test_the_peak_rule_searches_about_the_fullest_bin_and_nowhere_else(values: np.ndarray) -> None:
    here, peak = values.tolist(), peak_of(values.tolist())
    clear = min(abs(value / bound - 1) for value in here for bound in (0.95 * peak, 1.5 * peak)) > 1e-9
    starts = [start for start in range(len(here) - 1) if 0.95 * peak <= here[start] <= 1.5 * peak]
    fit = power_law(torch.from_numpy(values), "peak")
    if not starts:
        assert fit.tail_size == 0 or not clear
    elif clear:
        best = min((reference_fit(here, start, here[start]) for start in starts), key=lambda one: one[1])
        assert_equals(fit, best)
        assert fit.candidates == len(starts)


def test_both_bounds_of_the_peak_rule_are_eigenvalues() -> None:
    """The released code compares λ with log10(0.95·peak): for a peak below 10 that takes in all λ of the bulk."""
    values = np.sort(np.concatenate([np.geomspace(0.01, 1.9, 50), np.full(40, 2.0) + np.arange(40) * 1e-4]))
    fit = power_law(torch.from_numpy(values), "peak")
    assert 0.95 * peak_of(values.tolist()) <= fit.xmin
    assert fit.candidates == sum(0.95 * peak_of(values.tolist()) <= value for value in values) - 1


def test_the_peak_rule_tries_512_quantiles_of_a_long_range() -> None:
    rng = np.random.default_rng(0)
    values = torch.from_numpy(np.sort(rng.lognormal(0, 0.3, 6000)))
    assert power_law(values, "peak").candidates == 512
    few = torch.from_numpy(np.sort(rng.lognormal(0, 30, 6000)))
    assert 0 < power_law(few, "peak").candidates < 512


@given(SPECTRA, st.floats(-30, 30), st.sampled_from(["search", "median"]))
def test_alpha_and_distance_do_not_depend_on_the_unit_of_the_eigenvalues(
    values: np.ndarray, exponent: float, rule: str
) -> None:
    here = power_law(torch.from_numpy(values), rule)
    there = power_law(torch.from_numpy(values * 10.0**exponent), rule)
    assert there.tail_size == here.tail_size
    assert there.alpha == pytest.approx(here.alpha, rel=1e-8, nan_ok=True)
    assert there.ks_distance == pytest.approx(here.ks_distance, abs=1e-9, nan_ok=True)
    assert there.xmin == pytest.approx(here.xmin * 10.0**exponent, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize(("exponent", "alpha"), [(2, 2.00042), (3, 3.00085), (4, 4.00127)])
def test_a_grid_of_pareto_quantiles_gives_back_its_exponent(exponent: int, alpha: float) -> None:
    fit = power_law(pareto_quantiles(exponent, 2000))
    assert round(fit.alpha, 5) == alpha
    assert float(f"{fit.ks_distance:.5g}") == 3.3628e-4
    assert fit.tail_size == 2000
    assert fit.xmin == pytest.approx((1 - 0.5 / 2000) ** (-1 / (exponent - 1)), rel=1e-15)
    assert fit.alpha_error == pytest.approx((fit.alpha - 1) / math.sqrt(2000))


def test_the_standard_error_is_the_spread_over_samples() -> None:
    samples, size = 500, 400
    rng = np.random.default_rng(0)
    fits = [power_law(torch.from_numpy(np.sort(rng.pareto(1.5, size) + 1)), 1.0) for _ in range(samples)]
    alphas = np.array([fit.alpha for fit in fits])
    errors = np.array([fit.alpha_error for fit in fits])
    bias = 1.5 / size  # the maximum-likelihood estimate's own, (α−1)/n
    assert abs(alphas.mean() - 2.5) < 4 * errors.mean() / math.sqrt(samples) + bias
    assert abs(alphas.std() / errors.mean() - 1) < 4 / math.sqrt(2 * samples)
    assert abs(np.mean(np.abs(alphas - 2.5) < errors) - 0.6827) < 4 * math.sqrt(0.6827 * 0.3173 / samples)


# Above 4096 eigenvalues


@pytest.mark.parametrize(("count", "candidates"), [(4096, 4095), (4097, 512), (6000, 512)])
def test_long_spectra_try_512_quantiles_and_say_so(count: int, candidates: int) -> None:
    assert power_law(pareto_quantiles(2.5, count)).candidates == candidates


def test_512_quantiles_find_the_best_of_themselves_and_almost_that_of_all() -> None:
    rng = np.random.default_rng(0)
    values = np.sort(np.append(rng.uniform(0, 1, 4500), rng.pareto(1.5, 1500) + 1))
    logs = np.log(values)
    starts = np.arange(len(values) - 1)
    alphas, distances = np.empty(len(starts)), np.empty(len(starts))
    for start in starts:
        tail = logs[start:] - logs[start]
        alphas[start] = 1 + len(tail) / tail.sum()
        distances[start] = np.abs(-np.expm1((1 - alphas[start]) * tail) - np.arange(len(tail)) / len(tail)).max()
    everywhere = int(distances.argmin())
    fit = power_law(torch.from_numpy(values))
    start = len(values) - fit.tail_size
    assert fit.alpha == pytest.approx(alphas[start], rel=1e-9)
    assert fit.ks_distance == pytest.approx(distances[start], abs=1e-9)
    quantiles = np.linspace(0, len(values) - 2, 512).round().astype(int)
    assert fit.ks_distance == pytest.approx(distances[quantiles].min(), abs=1e-9)
    assert abs(fit.alpha - alphas[everywhere]) < fit.alpha_error
    assert fit.ks_distance - distances[everywhere] < 0.1 / math.sqrt(fit.tail_size)


def test_a_spectrum_says_that_it_tried_512_of_its_eigenvalues() -> None:
    weight = torch.randn(33, 40, 5, 5, 5, generator=torch.Generator().manual_seed(0))
    spectrum = wb.spectrum({"conv.weight": weight})
    assert spectrum.row("conv")["num_eigenvalues"] == 33 * 125
    assert "512 of 4125 eigenvalues were tried as xmin" in spectrum.row("conv")["reason"]
    few = wb.spectrum({"conv.weight": weight[:, :, 0]})
    assert "tried" not in few.row("conv")["reason"]


# Where there is no tail


@pytest.mark.parametrize("rule", ["search", "median", "peak", 0.5, 1.0, 3.0])
@pytest.mark.parametrize("values", [[], [1.0], [1.0, 1.0], [2.0] * 50, [0.1] * 50, [1 / 3] * 1000, [7e-300] * 30])
def test_without_spread_there_is_no_alpha(values: list[float], rule: str | float) -> None:
    fit = power_law(torch.tensor(values, dtype=torch.float64), rule)
    above = len([value for value in values if not isinstance(rule, str) and value > rule])
    if above >= 2:  # a number below equal values: they have a distance from it, if not from each other
        assert_equals(fit, reference_fit(values, 0, float(rule)), 1e-9)
    else:
        assert fit.tail_size == 0
        assert all(math.isnan(number) for number in (fit.alpha, fit.alpha_error, fit.ks_distance, fit.xmin))


@pytest.mark.parametrize("xmin", [2.5, 3.0, 1e9])
def test_a_number_that_leaves_fewer_than_two_points_gives_no_fit(xmin: float) -> None:
    assert power_law(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), xmin).tail_size == 0
    row = wb.spectrum({"fc.weight": torch.eye(30)}, xmin=1e9).row("fc")
    assert (row["verdict"], row["tail_size"]) == ("no tail", 0)
    assert row["reason"] == "fewer than 2 eigenvalues lie at or above xmin=1e+09"
    assert math.isnan(row["alpha"])


XMIN_ERRORS = {
    "'peek'": "xmin='peek': expected 'search', 'median', 'peak' or a positive number. Did you mean 'peak'?",
    "'serach'": "Did you mean 'search'?",
    "0": "xmin=0: expected 'search', 'median', 'peak' or a positive number (a λ = σ², not a σ).",
    "-1.0": "xmin=-1.0: expected",
    "math.nan": "xmin=nan: expected",
    "math.inf": "xmin=inf: expected",
    "True": "xmin=True: expected",
    "None": "xmin=None: expected",
    "[1.0]": "xmin=[1.0]: expected",
}


@pytest.fixture(scope="module")
def refused(raised: Callable[..., dict[str, list[str]]]) -> dict[str, list[str]]:
    return raised([f"wb.spectrum(model, xmin={xmin})" for xmin in XMIN_ERRORS])


@pytest.mark.parametrize("xmin", XMIN_ERRORS)
def test_an_xmin_that_is_none_says_which_there_are(xmin: str, refused: dict[str, list[str]]) -> None:
    name, message = refused[f"wb.spectrum(model, xmin={xmin})"]
    assert name == "ArgumentError"
    assert issubclass(wb.ArgumentError, ValueError)
    assert XMIN_ERRORS[xmin] in message


@pytest.mark.parametrize("rule", ["search", "median", "peak"])
def test_a_tail_is_all_that_lies_at_or_above_its_xmin_also_among_equal_eigenvalues(rule: str) -> None:
    rng = np.random.default_rng(0)
    values = torch.from_numpy(np.sort(np.repeat(rng.pareto(1.5, 27) + 1, 5)))  # five equal kernel positions
    fit = power_law(values, rule)
    assert fit.tail_size == int((values >= fit.xmin).sum())


def test_a_spectrum_takes_the_peak_rule_and_calls_noise_by_its_name() -> None:
    row = wb.spectrum({"fc.weight": torch.randn(80, 60, generator=torch.Generator().manual_seed(0))}, xmin="peak")
    assert row.meta["parameters"]["xmin"] == "peak"
    assert row.row("fc")["verdict"] == "no tail"
    fit = power_law(row.eigenvalues["fc"], "peak")
    assert (row.row("fc")["alpha"], row.row("fc")["xmin"]) == (fit.alpha, fit.xmin)


# Random matrices


def marchenko_pastur(ratio: float) -> tuple[float, float, float, Callable[[float], float]]:
    """Edges, centre and density of the law for λ/N of iid N(0,1) entries, q = M/N, in θ: λ = 1 + q + 2√q cos θ.

    The substitution takes the square-root edges away, so that plain quadrature is exact to rounding.
    """
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    centre, radius = (low + high) / 2, (high - low) / 2

    def density(angle: float) -> float:
        value = centre + radius * math.cos(angle)
        return (radius * math.sin(angle)) ** 2 / (2 * math.pi * ratio * value)

    return low, high, centre, density


def hill_at_median(ratio: float) -> float:
    """α = 1 + P(λ ≥ m)/∫ ln(λ/m) over λ ≥ m, m the median of the Marchenko–Pastur law."""
    low, high, centre, density = marchenko_pastur(ratio)
    radius = (high - low) / 2
    angle = brentq(lambda end: quad(density, 0, end, epsabs=1e-13)[0] - 0.5, 0.5, 2.5, xtol=1e-14)
    median = centre + radius * math.cos(angle)
    logs = quad(lambda t: density(t) * math.log((centre + radius * math.cos(t)) / median), 0, angle, epsabs=1e-13)[0]
    return 1 + 0.5 / logs


MEDIAN_ALPHAS = [(1.0, 2.12169), (1 / 2, 2.70585), (1 / 4, 3.45460), (1 / 8, 4.46995), (1 / 16, 5.87754)]


@pytest.mark.parametrize(("ratio", "alpha"), MEDIAN_ALPHAS)
def test_the_median_rule_on_pure_noise_gives_the_quadrature_of_its_law(ratio: float, alpha: float) -> None:
    """The aspect-ratio bias: the same noise has another α at every aspect ratio."""
    exact = hill_at_median(ratio)
    assert exact == pytest.approx(alpha, rel=7e-6)  # the published digits come from a coarser quadrature
    width, seeds = 200, 8
    alphas = []
    for seed in range(seeds):
        noise = torch.randn(round(width / ratio), width, generator=torch.Generator().manual_seed(seed))
        alphas.append(wb.spectrum({"noise": noise}, xmin="median").row("noise")["alpha"])
    sampling = float(np.std(alphas, ddof=1)) / math.sqrt(seeds)
    finite_size = (exact - 1) ** 2 / width  # δα = (α−1)²·δ⟨ln⟩, and averages over rigid eigenvalues converge as 1/M
    assert abs(np.mean(alphas) - exact) < 3 * sampling + finite_size
    assert 3 * sampling + finite_size < 0.04 * exact


def test_noise_has_the_edges_and_moments_of_marchenko_and_pastur() -> None:
    noise = torch.randn(4000, 1000, generator=torch.Generator().manual_seed(0))
    spectrum = wb.spectrum({"noise": noise})
    values = spectrum.eigenvalues["noise"] / 4000
    low, high, _, density = marchenko_pastur(1 / 4)
    assert (low, high) == (0.25, 2.25)
    assert values[-1] == pytest.approx(2.25, rel=0.03)
    assert values[0] == pytest.approx(0.25, rel=0.03)
    assert values.mean() == pytest.approx(1, rel=0.03)
    assert (values**2).mean() == pytest.approx(1.25, rel=0.03)
    for share in (0.1, 0.5, 0.9):  # and every quantile between
        angle = brentq(lambda end: quad(density, 0, end)[0] - (1 - share), 0, math.pi)  # noqa: B023
        assert values.quantile(share) == pytest.approx(1.25 + math.cos(angle), rel=0.02)


@pytest.mark.parametrize(("strength", "largest"), [(0.5, 2.25), (1.0, 2.5), (2.0, 5.3125)])
def test_a_planted_rank_one_signal_moves_the_largest_eigenvalue_as_bbp_says(strength: float, largest: float) -> None:
    """λ = (1+θ²)(c+θ²)/θ² above the threshold θ = c^¼, the edge (1+√c)² below; noise of variance 1/N, c = ¼."""
    aspect = 1 / 4
    law = (1 + strength**2) * (aspect + strength**2) / strength**2
    assert largest == (law if strength > aspect**0.25 else (1 + math.sqrt(aspect)) ** 2)
    rows, cols = 2000, 500
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(rows, cols, generator=generator) / math.sqrt(rows)
    left, right = (torch.nn.functional.normalize(torch.randn(n, generator=generator), dim=0) for n in (rows, cols))
    row = wb.spectrum({"spiked": noise + strength * torch.outer(left, right)}).row("spiked")
    assert row["lambda_max"] == pytest.approx(largest, rel=0.05)


# Norms


def test_equal_eigenvalues_have_entropy_one_and_full_stable_rank() -> None:
    row = wb.spectrum({"fc.weight": torch.eye(64)}).row("fc")
    assert row["entropy"] == pytest.approx(1, abs=1e-14)
    assert (row["stable_rank"], row["rank"], row["lambda_max"], row["frobenius_squared"]) == (64, 64, 1, 64)


def test_the_norms_of_ten_powers_of_a_half() -> None:
    values = 2.0 ** -torch.arange(9, -1, -1, dtype=torch.float64)
    assert round(stable_rank(values), 6) == 1.998047
    assert stable_rank(values) == 1023 / 512
    assert round(entropy(values, 10), 6) == 0.598693
    assert round(log_alpha_norm(values, 3.0), 6) == 0.057992
    assert log_alpha_norm(values, 3.0) == pytest.approx(math.log10((1 - 8.0**-10) / (1 - 1 / 8)), rel=1e-14)
    assert alpha_weighted(values, 3.0) == 0


@given(SPECTRA, st.floats(1, 20))
def test_the_norms_equal_their_formulas(values: np.ndarray, alpha: float) -> None:
    spectrum, share = torch.from_numpy(values), values / values.sum()
    assert stable_rank(spectrum) == pytest.approx(values.sum() / values.max(), rel=1e-13)
    assert entropy(spectrum, len(values)) == pytest.approx(-(share @ np.log(share)) / math.log(len(values)), rel=1e-11)
    assert alpha_weighted(spectrum, alpha) == pytest.approx(alpha * math.log10(values.max()), rel=1e-13)
    expected = math.log10(math.fsum((value / values.max()) ** alpha for value in values))
    assert log_alpha_norm(spectrum, alpha) == pytest.approx(expected + alpha * math.log10(values.max()), rel=1e-11)


@pytest.mark.parametrize("largest", [1e-150, 1e150])
def test_the_alpha_norm_neither_overflows_nor_underflows(largest: float) -> None:
    values = torch.tensor([largest / 10, largest], dtype=torch.float64)
    assert log_alpha_norm(values, 20.0) == pytest.approx(20 * math.log10(largest) + math.log10(1 + 1e-20), rel=1e-13)


def test_zero_eigenvalues_have_no_norms_that_could_be_mistaken_for_numbers() -> None:
    zeros = torch.zeros(5, dtype=torch.float64)
    numbers = [stable_rank(zeros), entropy(zeros, 0), log_alpha_norm(zeros, 2.0), alpha_weighted(zeros, 2.0)]
    assert all(math.isnan(number) for number in numbers)
    assert math.isnan(entropy(torch.tensor([0.0, 1.0], dtype=torch.float64), 1))
