"""Oracles: quadrature of the density, the law's moments, Bornemann's Fredholm determinant, BBP, noise itself."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import airy
from torch import Tensor

import workbench as wb
from workbench.linalg import gram_eigenvalues
from workbench.spectra.marchenko_pastur import (
    MarchenkoPastur,
    ks_distance,
    largest_noise_eigenvalue,
    marchenko_pastur_cdf,
    marchenko_pastur_density,
    marchenko_pastur_edges,
    marchenko_pastur_fit,
    marchenko_pastur_median,
    marchenko_pastur_quantiles,
    tracy_widom_quantile,
)

RATIOS = [1.0, 0.99, 1 / 2, 1 / 4, 1 / 16, 1 / 400]


def spectrum_of(matrices: Tensor) -> Tensor:
    return gram_eigenvalues(matrices).flatten().sort().values


def gaussian(rows: int, cols: int, seed: int = 0, count: int = 1) -> Tensor:
    return torch.randn(count, rows, cols, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def integral(ratio: float, power: int, upper: float) -> float:
    """∫ xᵖ p(x) dx up to x, in the angle, where the density has no singular edge."""
    radius = 2 * math.sqrt(ratio)

    def weighted(angle: float) -> float:
        value = 1 + ratio + radius * math.cos(angle)
        density = marchenko_pastur_density(torch.tensor([value], dtype=torch.float64), ratio)
        return value**power * float(density) * radius * math.sin(angle)

    first = math.acos(max(-1.0, min(1.0, (upper - 1 - ratio) / radius)))
    return quad(weighted, first, math.pi - 1e-6, epsabs=1e-12)[0]


# The law


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_density_has_the_moments_of_the_law(ratio: float) -> None:
    """1, 1, 1 + q and 1 + 3q + q², whatever the edges."""
    moments = [integral(ratio, power, 5.0) for power in range(4)]
    assert moments == pytest.approx([1, 1, 1 + ratio, 1 + 3 * ratio + ratio**2], abs=1e-6)


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_closed_cdf_is_the_integral_of_the_density(ratio: float) -> None:
    low, high = marchenko_pastur_edges(ratio)
    points = torch.linspace(low, high, 9, dtype=torch.float64)[1:]
    expected = [integral(ratio, 0, float(point)) for point in points]
    assert marchenko_pastur_cdf(points, ratio).tolist() == pytest.approx(expected, abs=1e-6)
    beyond = torch.tensor([-1.0, low - 0.1, high + 0.1, 1e9], dtype=torch.float64)
    assert marchenko_pastur_cdf(beyond, ratio).tolist() == pytest.approx([0, 0, 1, 1], abs=1e-12)
    assert marchenko_pastur_density(beyond, ratio).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("ratio", [*RATIOS, 1e-5])
def test_quantiles_invert_the_cdf_and_ascend(ratio: float) -> None:
    shares = torch.cat([torch.tensor([0.0, 1e-9, 1e-5]), (torch.arange(5000) + 0.5) / 5000, torch.tensor([1.0])])
    shares = shares.double().sort().values
    quantiles = marchenko_pastur_quantiles(shares, ratio)
    low, high = marchenko_pastur_edges(ratio)
    assert bool((quantiles.diff() >= 0).all())
    assert (float(quantiles[0]), float(quantiles[-1])) == pytest.approx((low, high), abs=1e-6)
    back, inside = marchenko_pastur_cdf(quantiles, ratio), (shares > 1e-4) & (shares < 1 - 1e-4)
    assert torch.allclose(back, shares, rtol=0, atol=1e-6)
    assert torch.allclose(back[inside], shares[inside], rtol=0, atol=1e-9)  # the closed form is good to ε/q
    assert len(marchenko_pastur_quantiles(shares[:0], ratio)) == 0


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_median_halves_the_law(ratio: float) -> None:
    low, high = marchenko_pastur_edges(ratio)
    root = brentq(lambda value: integral(ratio, 0, value) - 0.5, low + 1e-6, high - 1e-6)
    assert marchenko_pastur_median(ratio) == pytest.approx(root, rel=1e-5)


@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.0001, math.nan, math.inf])
def test_a_ratio_that_is_none_is_refused(ratio: float) -> None:
    points = torch.ones(1, dtype=torch.float64)
    for call in (marchenko_pastur_cdf, marchenko_pastur_density, marchenko_pastur_quantiles):
        with pytest.raises(
            wb.ArgumentError, match=r"expected q = M/N of the smaller over the larger side, in \(0, 1\]"
        ):
            call(points, ratio)


def test_noise_has_the_edges_and_moments_of_the_law() -> None:
    """The specification's first golden test: λ/N of 4000×1000 standard normal entries, to 3 %."""
    values = spectrum_of(gaussian(4000, 1000))
    fit = marchenko_pastur_fit(values, 4000, 1000)
    measured = [float(values[-1]), float(values[0]), fit.bulk_max, fit.bulk_min]
    assert np.array(measured) / 4000 == pytest.approx([2.25, 0.25, 2.25, 0.25], rel=0.03)
    assert float((values / 4000).mean()) == pytest.approx(1, rel=0.03)
    assert float((values / 4000).square().mean()) == pytest.approx(1.25, rel=0.03)
    assert fit.sigma == pytest.approx(1, rel=0.003)
    assert (fit.num_spikes, fit.ratio) == (0, 0.25)
    assert fit.ks_distance < 5 / 1000  # eigenvalues are stiff: √(ln M)/M and not 1/√M


# The edge


def tracy_widom_cdf(point: float, nodes: int = 60) -> float:
    """F₁(s) = det(1 − K), K(x, y) = ½·Ai((x + y)/2 + s) on the half-line: Ferrari & Spohn (2005), Bornemann (2010)."""
    abscissae, weights = np.polynomial.legendre.leggauss(nodes)
    abscissae, weights = 8 * (abscissae + 1), 8 * weights
    kernel = airy((abscissae[:, None] + abscissae) / 2 + point)[0] / 2
    root = np.sqrt(weights)
    return float(np.linalg.det(np.eye(nodes) - root[:, None] * kernel * root))


@pytest.mark.parametrize("level", [0.2, 0.05, 0.01, 1e-3, 1e-4, 1e-5])
def test_the_gamma_law_has_the_tail_of_tracy_and_widom(level: float) -> None:
    """Chiani's law is read off its first three moments; the chance of its quantile is right to a factor below 1.6."""
    chance = 1 - tracy_widom_cdf(tracy_widom_quantile(level))
    assert 1 / 1.6 < chance / level < 1.6
    if level >= 0.01:
        assert chance == pytest.approx(level, rel=0.03)


@pytest.mark.parametrize(("rows", "cols", "count"), [(64, 64, 1), (40, 160, 1), (32, 16, 9)])
def test_noise_has_spikes_as_often_as_the_level_says(rows: int, cols: int, count: int) -> None:
    level, draws = 0.05, 300
    edge = largest_noise_eigenvalue(max(rows, cols), min(rows, cols), count, level)
    beyond = sum(float(spectrum_of(gaussian(rows, cols, seed, count))[-1]) > edge for seed in range(draws))
    assert abs(beyond - level * draws) < 3.5 * math.sqrt(draws * level * (1 - level))


@pytest.mark.parametrize(("rows", "cols", "count"), [(16, 16, 9), (64, 64, 1), (256, 64, 1), (32, 16, 49)])
def test_a_fit_calls_spikes_in_noise_as_often_as_its_level_says(rows: int, cols: int, count: int) -> None:
    """Also where σ is uncertain: the edge is moved out by as much."""
    level, draws = 0.05, 200
    spectra = (spectrum_of(gaussian(rows, cols, seed, count)) for seed in range(draws))
    found = sum(marchenko_pastur_fit(values, rows, cols, count, level=level).num_spikes > 0 for values in spectra)
    assert abs(found - level * draws) < 3.5 * math.sqrt(draws * level * (1 - level))


@pytest.mark.parametrize("side", [16, 64])
def test_the_median_of_finite_noise_is_below_that_of_the_law(side: int) -> None:
    medians = [float(spectrum_of(gaussian(side, side, seed, 9)).quantile(0.5)) / side for seed in range(150)]
    expected = marchenko_pastur_median(1.0, side)
    assert expected < marchenko_pastur_median(1.0)
    assert abs(np.mean(medians) - expected) < 4 * np.std(medians) / math.sqrt(150) + 0.1 / side


@pytest.mark.parametrize(("strength", "largest"), [(0.5, 2.25), (1.0, 2.5), (2.0, 5.3125)])
def test_a_planted_signal_is_a_spike_where_bbp_says(strength: float, largest: float) -> None:
    """The specification's fifth golden test: λ = (1+θ²)(c+θ²)/θ² above θ = c^¼, the edge below; 5 %."""
    rows, cols = 2000, 500
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.nn.functional.normalize(torch.randn(n, generator=generator), dim=0) for n in (rows, cols))
    values = spectrum_of(gaussian(rows, cols) / math.sqrt(rows) + strength * torch.outer(left, right))
    fit = marchenko_pastur_fit(values, rows, cols)
    assert float(values[-1]) == pytest.approx(largest, rel=0.05)
    assert fit.num_spikes == (strength > 0.25**0.25)
    assert fit.softrank == pytest.approx(2.25 / largest, rel=0.05)
    assert fit.sigma == pytest.approx(1 / math.sqrt(rows), rel=0.01)


# The fit


@pytest.mark.parametrize(
    ("rows", "cols", "count"), [(300, 300, 1), (300, 75, 1), (75, 300, 1), (64, 64, 9), (16, 64, 49), (800, 50, 1)]
)
@pytest.mark.parametrize("sigma", [1.0, 0.02, 1e-9, 1e9])
def test_the_fit_finds_sigma_of_noise(rows: int, cols: int, count: int, sigma: float) -> None:
    values = spectrum_of(sigma * gaussian(rows, cols, count=count))
    fit = marchenko_pastur_fit(values, rows, cols, count)
    small, large = min(rows, cols), max(rows, cols)
    assert fit.sigma == pytest.approx(sigma, rel=2 / small)  # the median moves by about a spacing, ln λ by a few 1/M
    assert fit.bulk_max == pytest.approx(large * fit.sigma**2 * (1 + math.sqrt(small / large)) ** 2)
    assert fit.num_spikes == 0
    assert fit.bulk_share > 1 - 4 / small
    assert fit.ks_distance < 4 / small


@pytest.mark.parametrize("spikes", [1, 10, 30])
@pytest.mark.parametrize(("rows", "cols"), [(300, 300), (1200, 300)])
def test_spikes_are_counted_and_do_not_move_sigma(rows: int, cols: int, spikes: int) -> None:
    noise = gaussian(rows, cols)[0]
    noise[:spikes, :spikes] += 100 * torch.diag(torch.arange(1.0, spikes + 1, dtype=torch.float64))
    fit = marchenko_pastur_fit(spectrum_of(noise[None]), rows, cols)
    assert fit.num_spikes == spikes
    assert fit.sigma == pytest.approx(1, rel=spikes / cols / 2 + 0.01)  # spikes are taken from the noise's own M


def test_dead_rows_of_the_short_side_narrow_the_law() -> None:
    weight = gaussian(400, 200)[0]
    weight[:, 50:] = 0
    fit, alone = (
        marchenko_pastur_fit(spectrum_of(each[None]), 400, each.shape[1]) for each in (weight, weight[:, :50])
    )
    assert fit.ratio == 50 / 400
    for field in fields(MarchenkoPastur):
        assert getattr(fit, field.name) == pytest.approx(getattr(alone, field.name), rel=1e-9), field.name


def test_a_heavy_tail_is_not_eaten_up_by_refits() -> None:
    """λ over six decades: a refit without the spikes has new ones, forever; the law would end at the smallest λ."""
    values = torch.logspace(-6, 0, 400, dtype=torch.float64)
    fit = marchenko_pastur_fit(values, 400, 400)
    assert 100 < fit.num_spikes < 300
    assert fit.bulk_max > float(values[50])


def test_pooled_copies_change_no_number_but_the_edge() -> None:
    values = spectrum_of(gaussian(90, 60))
    one, many = marchenko_pastur_fit(values, 90, 60), marchenko_pastur_fit(values.repeat_interleave(5), 90, 60, 5)
    assert many.spike_edge > one.spike_edge
    assert replace(many, spike_edge=one.spike_edge, ks_distance=one.ks_distance) == one
    assert many.ks_distance == pytest.approx(one.ks_distance, abs=1e-12)


@pytest.mark.parametrize("values", [[], [0.0] * 30, [1.0], [0.0] * 29 + [1.0]])
def test_below_two_eigenvalues_there_is_no_fit(values: list[float]) -> None:
    fit = marchenko_pastur_fit(torch.tensor(values, dtype=torch.float64), 30, 30)
    assert fit.num_spikes == 0
    assert all(math.isnan(getattr(fit, f.name)) for f in fields(fit) if f.name not in ("num_spikes", "level"))


def test_equal_eigenvalues_have_the_law_whose_median_they_are() -> None:
    fit = marchenko_pastur_fit(torch.full((64,), 3.0, dtype=torch.float64), 64, 64)
    assert 64 * fit.sigma**2 * marchenko_pastur_median(1.0, 64) == pytest.approx(3)
    assert (fit.num_spikes, fit.ks_distance) == (0, pytest.approx(0.5, abs=0.005))


def test_the_distance_is_that_of_kolmogorov_and_smirnov() -> None:
    from scipy.stats import kstest

    sample = np.sort(np.random.default_rng(0).random(57) ** 1.3)
    assert ks_distance(torch.from_numpy(sample)) == pytest.approx(kstest(sample, "uniform").statistic, abs=1e-15)
