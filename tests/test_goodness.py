"""The bootstrap of a KS distance: a loop that refits every sample, and p-values that are uniform under the null."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor

from workbench.errors import ArgumentError
from workbench.seeds import generator
from workbench.spectra import goodness as module
from workbench.spectra.goodness import goodness
from workbench.spectra.power_law import NO_FIT, PowerLaw, peak_range, power_law

LAWS: dict[str, Any] = {
    "pareto": lambda rng, count: rng.pareto(1.5, count) + 1,
    "log-normal": lambda rng, count: rng.lognormal(0, 1, count),
    "exponential": lambda rng, count: rng.exponential(1, count),
    "bulk and tail": lambda rng, count: np.append(rng.uniform(0.01, 1, count // 2), 1 + rng.pareto(1.5, count // 2)),
    "ties": lambda rng, count: np.repeat(rng.pareto(1.5, count // 4 + 1) + 1, 4),
}


def ascending(law: str, seed: int, count: int) -> Tensor:
    return torch.from_numpy(np.sort(LAWS[law](np.random.default_rng(seed), count)))


def slow(eigenvalues: Tensor, fit: PowerLaw, xmin: str | float, layer: str, resamples: int) -> tuple[float, int]:
    """Draws by a loop over the same uniform numbers, and a whole fit of each sample."""
    count = len(eigenvalues)
    below = eigenvalues[: count - fit.tail_size]
    chosen, level = torch.rand(2, resamples, count, generator=generator(0, f"{layer}/goodness"), dtype=torch.float64)
    larger = fitted = 0
    for pick, place in zip(chosen.tolist(), level.tolist(), strict=True):
        sample = [
            fit.xmin * (1 - u) ** (-1 / (fit.alpha - 1))
            if which < fit.tail_size / count or not len(below)
            else float(below[int(u * len(below))])
            for which, u in zip(pick, place, strict=True)
        ]
        refitted = power_law(torch.tensor(sorted(sample), dtype=torch.float64), xmin)
        fitted += refitted.tail_size > 0
        larger += refitted.ks_distance > fit.ks_distance
    return (larger / fitted if fitted else math.nan), fitted


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(LAWS)),
    st.integers(0, 2**32),
    st.integers(8, 60),
    st.sampled_from(["search", "median", "peak", 3]),
)
def test_p_is_that_of_a_loop_over_whole_fits(law: str, seed: int, count: int, rule: str | int) -> None:
    values = ascending(law, seed, count)
    xmin = rule if isinstance(rule, str) else float(values[count // rule])
    fit = power_law(values, xmin)
    found = goodness(values, fit, xmin, layer="fc", resamples=30)
    if fit.tail_size == 0:
        assert found.resamples == 0
        return
    share, fitted = slow(values, fit, xmin, "fc", 30)
    assert found.resamples == fitted
    assert found.p_value == pytest.approx(share, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("rule", ["search", "peak"])
def test_above_4096_eigenvalues_the_same_quantiles_are_tried(rule: str) -> None:
    values = ascending("bulk and tail", 0, 4400)
    fit = power_law(values, rule)
    assert fit.candidates == 512
    found = goodness(values, fit, rule, layer="fc", resamples=6)
    assert found.p_value == pytest.approx(slow(values, fit, rule, "fc", 6)[0], abs=1e-9)


def test_chunks_do_not_change_what_is_drawn_for_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """More samples than one chunk holds are drawn chunk by chunk; the number of tails at a time changes nothing."""
    values = ascending("log-normal", 0, 100)
    fit = power_law(values)
    samples = module._synthetic(values.log(), fit, 40, generator(0, "x"))
    whole = module._at_least_as_close(samples, "search", fit.ks_distance, 0.0)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 300)
    pieces = module._at_least_as_close(samples, "search", fit.ks_distance, 0.0)
    assert torch.equal(whole[0], pieces[0]) and torch.equal(whole[1], pieces[1])


# What p is under the null, and off it


def p_values(law: str, rule: str | float, count: int, seeds: int) -> np.ndarray:
    found = []
    for seed in range(seeds):
        values = ascending(law, seed, count)
        found.append(goodness(values, power_law(values, rule), rule, seed=seed).p_value)
    return np.array(found)


@pytest.mark.parametrize("rule", [1.0, "median"])
def test_p_is_uniform_under_the_null(rule: str | float) -> None:
    assert kstest(p_values("pareto", rule, 60, 100), "uniform").pvalue > 0.01


@pytest.mark.parametrize("count", [60, 300])
def test_p_about_a_peak_is_at_its_level(count: int) -> None:
    """101 values that p can have: at or below a level are ⌊100·level⌋ + 1 of them if p is uniform."""
    found = p_values("pareto", "peak", count, 80)
    for level in (0.05, 0.1, 0.2, 0.5):
        share = (round(100 * level) + 1) / 101
        assert abs((found <= level).mean() - share) <= 3 * math.sqrt(share * (1 - share) / 80)
    assert abs(found.mean() - 0.5) <= 3 * math.sqrt(1 / 12 / 80)


def test_an_exponential_is_no_power_law_about_its_peak_and_each_sample_has_its_own() -> None:
    found = []
    for seed in range(8):
        values = 1 + ascending("exponential", seed, 1000)
        fit = power_law(values, "peak")
        found.append(goodness(values, fit, "peak", seed=seed))
        assert goodness(values, fit, "peak", seed=seed) == found[-1]
    assert max(one.p_value for one in found) <= 0.05
    samples = module._synthetic(values.log(), fit, 20, generator(0, "x")).exp()
    assert len({peak_range(sample) for sample in samples}) > 10


def test_p_of_a_searched_tail_is_at_its_level_or_below() -> None:
    """The search fits noise in the data too; p is stochastically larger than uniform, 0.6 in the mean."""
    found = p_values("pareto", "search", 60, 100)
    for level in (0.05, 0.1, 0.2):
        assert (found <= level).mean() <= level + 3 * math.sqrt(level * (1 - level) / 100)
    assert 0.5 < found.mean() < 0.7


@pytest.mark.parametrize("law", ["log-normal", "exponential"])
@pytest.mark.parametrize("rule", [1.0, "median"])
def test_p_is_near_zero_off_the_null(law: str, rule: str | float) -> None:
    found = p_values(law, rule, 1000, 10)
    assert found.max() <= 0.02


def test_the_standard_error_is_the_spread_over_seeds() -> None:
    values = ascending("pareto", 3, 60)
    fit = power_law(values, 1.0)
    found = [goodness(values, fit, 1.0, seed=seed) for seed in range(60)]
    p = np.array([one.p_value for one in found])
    assert 0.1 < p.mean() < 0.9
    assert p.std() == pytest.approx(np.mean([one.p_error for one in found]), rel=3 / math.sqrt(2 * 60))


def test_draws_depend_on_seed_and_layer_only() -> None:
    values = ascending("pareto", 3, 60)
    fit = power_law(values)
    state = torch.get_rng_state()
    first = goodness(values, fit, layer="a", seed=1)
    assert goodness(values, fit, layer="a", seed=1) == first
    assert len({goodness(values, fit, layer=layer, seed=seed).p_value for layer in "ab" for seed in range(4)}) > 2
    assert torch.equal(torch.get_rng_state(), state)


# Edges


def test_without_a_tail_there_is_no_p() -> None:
    found = goodness(torch.ones(20, dtype=torch.float64), NO_FIT)
    assert found.resamples == 0 and math.isnan(found.p_value) and math.isnan(found.p_error)


def test_the_error_is_not_zero_where_p_is() -> None:
    values = ascending("exponential", 0, 1000)
    found = goodness(values, power_law(values, 1.0), 1.0)
    assert found.p_value == 0
    assert found.p_error == pytest.approx(math.sqrt(1 / 102 * 101 / 102 / 100))


def test_samples_whose_tail_is_too_short_to_fit_are_left_out() -> None:
    values = torch.cat([torch.linspace(0.1, 0.9, 98, dtype=torch.float64), torch.tensor([2.0, 3.0]).double()])
    found = goodness(values, power_law(values, 2.0), 2.0, resamples=200)
    chance = 1 - math.exp(-2) * 3  # of two or more of 100 points with 2 % each, by Poisson's law
    assert abs(found.resamples / 200 - chance) < 3 * math.sqrt(chance * (1 - chance) / 200) + 0.01


@pytest.mark.parametrize("resamples", [0, -5, True])
def test_a_number_of_resamples_below_one_is_refused(resamples: int) -> None:
    values = ascending("pareto", 0, 30)
    with pytest.raises(ArgumentError, match=f"resamples={resamples}: expected an int ≥ 1"):
        goodness(values, power_law(values), resamples=resamples)
