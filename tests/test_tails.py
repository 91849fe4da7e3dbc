"""Laws of a tail: their densities by quadrature, their parameters and winners from samples, and another library."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import norm
from torch import Tensor

from workbench.errors import ArgumentError, LayerError
from workbench.linalg import gram_eigenvalues
from workbench.spectra import power_law
from workbench.spectra.tails import LEVEL, TailComparison, TailLaw, tail_comparison

GRID = (np.arange(1, 201) - 0.5) / 200
NAMES = ("truncated power law", "log-normal", "exponential")


def ascending(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.sort(values))


def truncated_grid(alpha: float, rate: float) -> np.ndarray:
    """Quantiles of x^−α e^−Λx above 1 by the trapezoid rule in ln x."""
    logs = np.linspace(0, math.log(1 / rate) + 5, 400_001)
    density = np.exp((1 - alpha) * logs - rate * np.exp(logs))
    mass = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.exp(np.interp(GRID, mass / mass[-1], logs))


DATA = {
    "Pareto": (1 - GRID) ** (-1 / 1.5),
    "log-normal": np.exp(1.2 * norm.ppf(0.5 + GRID / 2)),
    "exponential": 1 - np.log1p(-GRID) / 0.5,
    "cut off": truncated_grid(1.5, 0.05),
    "Burr": 1 + ((1 - GRID) ** (-1 / 1.5) - 1) ** 0.5,
}


def laws(comparison: TailComparison) -> dict[str, TailLaw]:
    return {
        law.name: law for law in (comparison.power_law, *(alternative.law for alternative in comparison.alternatives))
    }


def shape(law: TailLaw) -> Callable[[float], float]:
    """The law's density up to a factor, as the textbooks write it."""
    given = law.parameters
    if law.name == "exponential":
        return lambda x: math.exp(-given["rate"] * x)
    if law.name == "log-normal":
        return lambda x: math.exp(-((math.log(x) - given["mu"]) ** 2) / (2 * given["sigma"] ** 2)) / x
    return lambda x: x ** -given["alpha"] * math.exp(-given.get("rate", 0.0) * x)


# Densities and likelihoods


@pytest.mark.parametrize("unit", [1.0, 3e-7, 2e8])
@pytest.mark.parametrize("name", DATA)
def test_every_density_integrates_to_one(name: str, unit: float) -> None:
    comparison = tail_comparison(ascending(DATA[name] * unit), unit)
    values = np.sort(DATA[name]) * unit
    for law in laws(comparison).values():
        if law.at_limit:
            continue
        function = shape(law)
        middle = function(unit * float(np.median(DATA[name])))

        def in_logs(y: float, function: Callable[[float], float] = function, middle: float = middle) -> float:
            return function(unit * math.exp(y)) / middle * unit * math.exp(y)

        ends = [0.0, *np.arange(1.0, 12.0), 30.0, 80.0, 200.0] if "power" in law.name else [*np.arange(31.0)]
        whole = sum(
            quad(in_logs, a, b, epsabs=1e-12, epsrel=1e-11)[0]
            for a, b in zip(ends, ends[1:], strict=False)
            if in_logs(a) > 0
        )
        expected = [math.log(function(value) / middle / whole) for value in values]
        np.testing.assert_allclose(law.points, expected, rtol=1e-8, atol=1e-8)
        assert law.log_likelihood == pytest.approx(math.fsum(expected), rel=1e-9)


@pytest.mark.parametrize("name", DATA)
def test_parameters_are_where_the_likelihood_is_largest(name: str) -> None:
    """By a search that knows no derivative, on likelihoods whose normaliser is a quadrature."""
    values, logs = DATA[name], np.log(DATA[name])
    found = laws(tail_comparison(ascending(values), 1.0))

    def truncated(place: np.ndarray) -> float:
        alpha, rate = place[0], math.exp(place[1])
        ends = (0.0, 1.0, 3.0, 8.0, 20.0)
        whole = sum(
            quad(lambda y: math.exp((1 - alpha) * y - rate * math.expm1(y)), a, b)[0]
            for a, b in zip(ends, ends[1:], strict=False)
        )
        return float(alpha * logs.sum() + rate * (values - 1).sum()) + len(logs) * math.log(whole)

    def log_normal(place: np.ndarray) -> float:
        mu, sigma = place[0], math.exp(place[1])
        return -float((norm.logpdf(logs, mu, sigma) - logs - norm.logsf(0, mu, sigma)).sum())

    exact = {"xatol": 1e-9, "fatol": 1e-11, "maxiter": 4000, "maxfev": 4000}
    law = found["truncated power law"]
    start = [law.parameters["alpha"] + 0.2, math.log(law.parameters["rate"]) + 0.2]
    best = minimize(truncated, start, method="Nelder-Mead", options=exact)
    assert law.log_likelihood == pytest.approx(-best.fun, abs=1e-7)
    assert law.parameters["alpha"] == pytest.approx(best.x[0], abs=1e-4)
    assert law.parameters["rate"] == pytest.approx(math.exp(best.x[1]), rel=1e-3)
    law = found["log-normal"]
    if name != "Pareto":  # there the maximum is a ridge towards σ → ∞
        best = minimize(log_normal, [logs.mean(), math.log(logs.std())], method="Nelder-Mead", options=exact)
        assert law.log_likelihood == pytest.approx(-best.fun, abs=1e-7)
        assert [law.parameters["mu"], law.parameters["sigma"]] == pytest.approx(
            [best.x[0], math.exp(best.x[1])], rel=1e-4, abs=1e-4
        )


@given(st.integers(0, 2**32), st.integers(2, 60), st.floats(-20, 20))
def test_larger_families_are_never_worse_and_no_unit_matters(seed: int, count: int, exponent: float) -> None:
    rng = np.random.default_rng(seed)
    law = (rng.pareto(rng.uniform(0.3, 6), count), rng.lognormal(0, 2, count), rng.exponential(1, count))[seed % 3]
    tail = ascending(law + 1)
    here, there = tail_comparison(tail), tail_comparison(tail * 10.0**exponent)
    by_name = {one.law.name: one for one in here.alternatives}
    rounding = 1e-7 * count
    assert by_name["truncated power law"].ratio <= rounding
    assert by_name["log-normal"].ratio <= rounding
    cut, exponential = by_name["truncated power law"].law, by_name["exponential"].law
    assert cut.log_likelihood >= exponential.log_likelihood - rounding, "it is the cut-off with α = 0"
    for one, other in zip(here.alternatives, there.alternatives, strict=True):
        assert other.ratio == pytest.approx(one.ratio, abs=1e-6)


def test_where_the_best_cut_off_is_none_the_truncated_law_is_the_power_law() -> None:
    heavy = ascending(np.append(DATA["Pareto"] ** (1.5 / 3), 60.0))  # α ≈ 4 and one point far outside
    by_name = {one.law.name: one for one in tail_comparison(heavy, 1.0).alternatives}
    for name in ("truncated power law", "log-normal"):
        one = by_name[name]
        assert one.law.at_limit
        assert (one.ratio, one.normalised, one.p_value, one.vuong_p) == (0, 0, 1, 1)
    assert by_name["truncated power law"].law.parameters["rate"] == 0
    assert by_name["log-normal"].law.parameters == {"mu": -math.inf, "sigma": math.inf}
    assert not by_name["exponential"].law.at_limit


# Another library

POWERLAW = {  # powerlaw 2.0.0 (PyPI), Fit(x, xmin=1).distribution_compare("power_law", …), on DATA: R, p, normalised R
    "Pareto": [
        (-0.0581810631491112, 0.7330140488255943, -0.3134673746699921),
        (-0.009392466209405703, 0.9372572439209911, -0.0787176027948734),
        (60.73477139528713, 0.010979060315899071, 2.5433645798882563),
    ],
    "log-normal": [
        (-9.309446197126153, 1.5963075063574195e-05, -2.666561907309818),
        (-9.89069658755023, 0.007481694103806542, -2.6746068031335066),
        (8.540869264592889, 0.46439216721183385, 0.7316337099380705),
    ],
    "exponential": [  # its cut-off has α ≥ 0; the maximum lies at α = −0.018
        (-30.164547410214663, 7.993605777301127e-15, -5.032708707618705),
        (-29.03160327340378, 2.1721066035039637e-06, -4.736714652726599),
        (-30.164551138868127, 4.837565711237306e-07, -5.0326457445692325),
    ],
    "cut off": [
        (-7.609900216723536, 9.569478165749601e-05, -2.73029194319887),
        (-6.705425773296402, 0.020396650243940214, -2.3189702359572486),
        (25.487818435514917, 0.046025253540174, 1.9951616378857067),
    ],
    "Burr": [  # its cut-off again stops at α = 0; the maximum lies at α = −3.2
        (-31.291568812316203, 2.55351295663786e-15, -7.9898286152197695),
        (-46.158978366799765, 9.544674680517665e-08, -5.335185846595808),
        (-31.29157077241325, 1.352076179917934e-15, -7.9897546032788185),
    ],
}


@pytest.mark.parametrize("name", POWERLAW)
def test_ratios_are_those_of_the_powerlaw_package(name: str) -> None:
    """Its optimiser stops within about 1e-4 of the parameters: 1e-7 in R, 1e-4 in what divides it."""
    comparison = tail_comparison(ascending(DATA[name]), 1.0)
    for place, (one, (ratio, p, normalised)) in enumerate(zip(comparison.alternatives, POWERLAW[name], strict=True)):
        if place == 0 and name in ("exponential", "Burr"):
            assert one.law.parameters["alpha"] < 0 and one.ratio < ratio
            continue
        assert one.ratio == pytest.approx(ratio, abs=2e-6)
        assert one.normalised == pytest.approx(normalised, rel=1e-3)
        assert (one.p_value if place == 0 else one.vuong_p) == pytest.approx(p, rel=5e-3)


# Samples


def cut_off_sample(rng: np.random.Generator, count: int) -> np.ndarray:
    """x^−1.5 e^−x/20 above 1, by rejection from the power law."""
    values = np.exp(rng.exponential(2, 40 * count))
    return values[rng.random(len(values)) < np.exp(-0.05 * (values - 1))][:count]


def log_normal_sample(rng: np.random.Generator, count: int) -> np.ndarray:
    logs = rng.normal(0.5, 1.2, 6 * count)
    return np.exp(logs[logs > 0][:count])


SAMPLES: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], dict[str, float]]] = {
    "power law": (lambda rng, count: rng.pareto(1.5, count) + 1, {"alpha": 2.5}),
    "truncated power law": (cut_off_sample, {"alpha": 1.5, "rate": 0.05}),
    "log-normal": (log_normal_sample, {"mu": 0.5, "sigma": 1.2}),
    "exponential": (lambda rng, count: 1 + rng.exponential(2, count), {"rate": 0.5}),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_give_back_their_law_and_its_parameters(name: str) -> None:
    draw, truth = SAMPLES[name]
    seeds = 40
    found = [tail_comparison(ascending(draw(np.random.default_rng(seed), 1500)), 1.0) for seed in range(seeds)]
    for parameter, value in truth.items():
        estimates = np.array([laws(one)[name].parameters[parameter] for one in found])
        error = estimates.std(ddof=1) / math.sqrt(seeds)
        assert abs(estimates.mean() - value) < 4 * error + 0.02 * abs(value)  # maximum likelihood has a bias of O(1/n)
        assert estimates.std() < 0.2 * max(value, 0.5)
    assert np.mean([one.preferred == name for one in found]) > 0.8
    said = [one.statement for one in found if one.preferred == name]
    assert all(text.startswith("a power law" if name == "power law" else "not a power law") for text in said)


@pytest.mark.parametrize("exponent", [1.5, 2.5, 4.0])
def test_power_laws_are_rejected_about_as_often_as_the_level_says(exponent: float) -> None:
    """χ² with one degree of freedom at an edge: half its level for many points, all of it where ⟨x⟩ is infinite."""
    rng, samples = np.random.default_rng(0), 400
    rejected = np.zeros(3)
    for _ in range(samples):
        tail = ascending(np.exp(rng.exponential(1 / (exponent - 1), 150)))
        alternatives = tail_comparison(tail, 1.0).alternatives
        rejected += [one.ratio < 0 and one.p_value < LEVEL for one in alternatives]
    spread = 3 * math.sqrt(LEVEL * (1 - LEVEL) / samples)
    assert (rejected / samples < LEVEL + spread).all()
    assert (rejected[:2] / samples > LEVEL / 2 - spread / math.sqrt(2)).all()


@pytest.mark.parametrize("rule", ["search", "median"])
@pytest.mark.parametrize("shape", [(300, 300), (300, 150), (800, 200)])
def test_noise_is_never_a_power_law(shape: tuple[int, int], rule: str) -> None:
    """Eigenvalues of Gaussian matrices: the search finds a tail, with α up to 20; it is not preferred."""
    found = []
    for seed in range(8):
        noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))
        eigenvalues = gram_eigenvalues(noise)[0]
        fit = power_law(eigenvalues, rule)
        found.append(tail_comparison(eigenvalues[-fit.tail_size :], fit.xmin))
    assert "power law" not in {one.preferred for one in found}
    if rule == "median":  # half of all eigenvalues: enough to say so
        assert all(one.statement.startswith("not a power law") for one in found)


# Edges


@pytest.mark.parametrize("values", [[], [2.0], [2.0, 2.0], [0.1] * 50, [1.0, 1 + 1e-9]])
def test_a_tail_without_spread_has_no_law(values: list[float]) -> None:
    with pytest.raises(LayerError, match=f"a tail of {len(values)} .*: no law can be told from another"):
        tail_comparison(torch.tensor(values, dtype=torch.float64))


@pytest.mark.parametrize("xmin", [0.0, -1.0, 1.5])
def test_an_xmin_that_is_not_below_the_tail_is_refused(xmin: float) -> None:
    with pytest.raises(ArgumentError, match="expected 0 < xmin ≤ 1, the tail's smallest eigenvalue"):
        tail_comparison(torch.tensor([1.0, 2.0], dtype=torch.float64), xmin)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_too_few_points_leave_it_undecided(count: int) -> None:
    comparison = tail_comparison(torch.arange(1, count + 1, dtype=torch.float64))
    assert comparison.preferred == "undecided"
    assert comparison.statement == f"{count} eigenvalues are too few to tell a power law from others"
    assert all(math.isfinite(one.ratio) for one in comparison.alternatives)


def test_a_steep_tail_is_not_told_from_an_exponential() -> None:
    comparison = tail_comparison(ascending((1 - GRID[::5]) ** (-1 / 5)), 1.0)
    assert comparison.preferred == "undecided"
    assert comparison.statement.startswith("40 eigenvalues do not tell a power law from an exponential (R = ")


@pytest.mark.parametrize("width", [1e-4, 1e-2, 30.0, 300.0])
@pytest.mark.parametrize("xmin", [None, 0.5])
def test_narrow_and_wide_tails_have_finite_likelihoods(width: float, xmin: float | None) -> None:
    tail = torch.linspace(0, width, 50, dtype=torch.float64).exp()
    for one in tail_comparison(tail, xmin).alternatives:
        assert math.isfinite(one.ratio) and math.isfinite(one.law.log_likelihood)
        assert 0 <= one.p_value <= 1
