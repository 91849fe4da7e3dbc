"""Laws of a spectrum's tail λ ≥ xmin beside the power law: a cut-off, a log-normal and an exponential one.

All of them are written in y = ln(λ/xmin) ≥ 0 and x = λ/xmin ≥ 1, so that nothing depends on the unit of λ. The first
three are exponential families with a concave likelihood: their maximum is one point, or lies on an edge where the law
is the power law itself. That edge is what a test of the power law is made of.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from workbench.errors import ArgumentError, LayerError
from workbench.spectra.power_law import NARROWEST
from workbench.spectra.verdicts import MIN_TAIL

PANELS, NODES = 16, 16  # Gauss–Legendre over ln x: densities integrate to 1 within 1e-13
NEGLIGIBLE = 40.0  # nats below its maximum where a density ends: e⁻⁴⁰ is below float64's rounding
OVERFLOW = 700.0  # its exponential is the last below 1e308
STEPS = 100  # Newton's; tails take some ten
MOST_CURVED = 100.0  # ξ above which a log-normal tail is the power law within 1e-8 of its log-likelihood a point
ARTICLES = {
    "truncated power law": "a truncated power-law",
    "log-normal": "a log-normal",
    "exponential": "an exponential",
}
LEVEL = 0.1  # Clauset et al.: a likelihood ratio's sign is to be trusted where p is below this


@dataclass(frozen=True, kw_only=True, eq=False)
class TailLaw:
    """One law fitted to a tail by maximum likelihood.

    Attributes:
        name: `power law`, `truncated power law`, `log-normal` or `exponential`.
        parameters: `alpha`; `alpha` and `rate` Λ (per unit of λ); `mu` and `sigma` of ln λ; `rate`.
        log_likelihood: Σ ln p(λ) over the tail, p per unit of λ.
        at_limit: whether the best of this family is the power law at its edge: Λ = 0, or σ → ∞.
        points: ln p(λⱼ) of every point.
    """

    name: str
    parameters: Mapping[str, float]
    log_likelihood: float
    at_limit: bool
    points: Float[ndarray, " n"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Alternative:
    """The power law against one other law of the same tail.

    Attributes:
        law: the other law.
        ratio: R = Σ ln p(power law) − ln p(other): negative where the other fits better.
        normalised: R/(σ√n), σ the standard deviation of a point's term: Vuong's statistic; 0 where the laws are equal.
        vuong_p: two-sided p of `normalised`, as for laws of which neither contains the other.
        p_value: the test to use: χ² with one degree of freedom on 2|R| where the power law is an edge of the other
            (a cut-off, a log-normal), where it is near its level or below; else `vuong_p`.
    """

    law: TailLaw
    ratio: float
    normalised: float
    vuong_p: float
    p_value: float


@dataclass(frozen=True, kw_only=True, eq=False)
class TailComparison:
    """A power-law tail against its alternatives.

    Attributes:
        power_law: the fitted power law.
        alternatives: truncated power law, log-normal, exponential.
        preferred: `power law` (none is better, the exponential is worse), an alternative's name (the power law is
            rejected; of the alternatives this has the smallest BIC), or `undecided`.
        statement: what may be said, in a sentence.
    """

    power_law: TailLaw
    alternatives: tuple[Alternative, ...]
    preferred: str
    statement: str


def tail_comparison(tail: Float[Tensor, " n"], xmin: float | None = None) -> TailComparison:
    """The likelihood ratios R of a power-law tail and three other laws, and what they allow to say.

    Args:
        tail: the eigenvalues λ ≥ xmin, float64, ascending.
        xmin: where the tail begins; None for its smallest eigenvalue.

    Returns:
        Each law with its parameters, R, Vuong's statistic and p.

    Raises:
        ArgumentError: `xmin` is above the smallest eigenvalue, or not positive.
        LayerError: fewer than two points, or all of them equal: no law can be told from another.

    Cost: O(n), about half a millisecond at n = 400.

    Source: Clauset, Shalizi & Newman, "Power-law distributions in empirical data" (2009), table 2.1 and appendix C;
    Vuong (1989). Ours: the log-normal is tested as the cut-off is, by χ², because it too contains the power law
    (σ → ∞); both meet it at an edge, where R = 0 has a probability of its own. Measured on 2000 samples
    each of 30 to 400 points of power laws with α from 1.5 to 6, at the level 0.1: rejected by the cut-off in 6 to
    12 %, by the log-normal in 6 to 9 %, by any of the three in 7 to 14 %.

    Misreads: a power law that is not rejected need not be one. xmin counts as given and points as independent;
    neither is true of eigenvalues whose xmin was searched.

    Example:
        >>> import torch
        >>> n = 400
        >>> exponential = 1 - (1 - (torch.arange(1, n + 1, dtype=torch.float64) - 0.5) / n).log()
        >>> comparison = tail_comparison(exponential, 1.0)
        >>> comparison.preferred, round(comparison.alternatives[2].law.parameters["rate"], 2)
        ('exponential', 1.0)
    """
    smallest = float(tail.min()) if len(tail) else math.nan
    xmin = smallest if xmin is None else xmin
    if xmin <= 0 or xmin > smallest:
        raise ArgumentError(f"xmin={xmin:g}: expected 0 < xmin ≤ {smallest:g}, the tail's smallest eigenvalue.")
    logs = (tail.detach().cpu().numpy() / xmin).clip(1)
    logs = np.log(logs)
    if len(logs) < 2 or float(logs.max() - logs.min()) <= NARROWEST:
        some = "eigenvalue" if len(logs) == 1 else "equal eigenvalues" if len(logs) else "eigenvalues"
        raise LayerError(f"a tail of {len(logs)} {some}: no law can be told from another")
    fitted = power_law_tail(logs, xmin)
    others = (truncated_power_law_tail(logs, xmin), log_normal_tail(logs, xmin), exponential_tail(logs, xmin))
    alternatives = tuple(_against(fitted, other) for other in others)
    return TailComparison(
        power_law=fitted,
        alternatives=alternatives,
        preferred=(preferred := _preferred(alternatives, len(logs))),
        statement=_statement(preferred, alternatives, len(logs)),
    )


def _against(fitted: TailLaw, other: TailLaw) -> Alternative:
    difference = fitted.points - other.points
    ratio, scale = float(difference.sum()), float(difference.std()) * math.sqrt(len(difference))
    normalised = ratio / scale if scale > 0 else 0.0
    vuong = math.erfc(abs(normalised) / math.sqrt(2))
    nested = other.name != "exponential"
    return Alternative(
        law=other,
        ratio=ratio,
        normalised=normalised,
        vuong_p=vuong,
        p_value=math.erfc(math.sqrt(abs(ratio))) if nested else vuong,  # P(χ²₁ > 2|R|)
    )


def _preferred(alternatives: Sequence[Alternative], count: int) -> str:
    better = [one for one in alternatives if one.ratio < 0 and one.p_value < LEVEL]
    if count < MIN_TAIL:
        return "undecided"
    if better:
        return min(
            better, key=lambda one: len(one.law.parameters) * math.log(count) - 2 * one.law.log_likelihood
        ).law.name
    exponential = alternatives[-1]
    return "power law" if exponential.ratio > 0 and exponential.p_value < LEVEL else "undecided"


def _statement(preferred: str, alternatives: Sequence[Alternative], count: int) -> str:
    found = {one.law.name: f"R = {one.ratio:.1f}, p = {one.p_value:.2g}" for one in alternatives}
    if preferred in found:
        return f"not a power law: {ARTICLES[preferred]} tail fits better ({found[preferred]})"
    if preferred == "power law":
        return f"a power law is better than an exponential ({found['exponential']}); no cut-off or log-normal is needed"
    if count < MIN_TAIL:
        return f"{count} eigenvalues are too few to tell a power law from others"
    return f"{count} eigenvalues do not tell a power law from an exponential ({found['exponential']})"


def power_law_tail(logs: Float[ndarray, " n"], xmin: float) -> TailLaw:
    """p(λ) = (α−1)/xmin · x^−α with α = 1 + 1/⟨y⟩; `logs` are y."""
    alpha = 1 + 1 / float(logs.mean())
    return _law("power law", {"alpha": alpha}, math.log(alpha - 1) - alpha * logs, xmin)


def exponential_tail(logs: Float[ndarray, " n"], xmin: float) -> TailLaw:
    """p(λ) = Λ e^−Λ(λ−xmin) with Λ = 1/⟨λ − xmin⟩; `logs` are y."""
    above = np.expm1(logs)
    rate = 1 / float(above.mean())
    return _law("exponential", {"rate": rate / xmin}, math.log(rate) - rate * above, xmin)


def log_normal_tail(logs: Float[ndarray, " n"], xmin: float) -> TailLaw:
    """A normal ln λ (μ, σ) and cut off below xmin: p(λ) = φ((ln λ − μ)/σ) / (σ λ Φ((μ − ln xmin)/σ)).

    With m the mean and s² the variance of y, ξ = (ln xmin − μ)/σ and the normal hazard h(ξ) = φ(ξ)/Φ(−ξ) the
    likelihood equations are (1 − h(h−ξ))/(h−ξ)² = s²/m² and σ = m/(h−ξ). The left side rises from 0 to 1; where
    s ≥ m the maximum is at ξ → ∞: the power law.

    Source: Cohen (1950), "Estimating the mean and variance of normal populations from singly truncated samples".
    """
    from scipy.optimize import brentq

    mean, spread = float(logs.mean()), float(logs.std()) / float(logs.mean())
    if spread**2 >= _relative_variance(MOST_CURVED):
        return _at_limit("log-normal", {"mu": -math.inf, "sigma": math.inf}, logs, xmin)
    low = -2.0
    while _relative_variance(low) > spread**2:
        low *= 2
    edge = brentq(lambda xi: _relative_variance(xi) - spread**2, low, MOST_CURVED, xtol=1e-13, rtol=1e-14)
    sigma = mean / _mean_excess(edge)
    standard = logs / sigma + edge
    points = -(standard**2) / 2 - math.log(sigma) - math.log(2 * math.pi) / 2 - _log_survival(edge) - logs
    return _law("log-normal", {"mu": math.log(xmin) - edge * sigma, "sigma": sigma}, points, xmin)


def truncated_power_law_tail(logs: Float[ndarray, " n"], xmin: float) -> TailLaw:
    """p(λ) = x^−α e^−Λx / (xmin·Z(α, Λ)), Z = ∫₁^∞ x^−α e^−Λx dx = Λ^(α−1) Γ(1−α, Λ), for any α and Λ ≥ 0.

    Newton's method on the means of y, for α, and of x, for Λ. They and their covariances under the law are sums over
    Gauss–Legendre nodes in ln x, which need no Γ of a negative argument. Λ = 0 is the maximum exactly if the power
    law's own mean of x, (α−1)/(α−2), is at most the sample's. `rate` is Λ/xmin; the law is cut off about λ = 1/rate.
    """
    values = np.exp(logs)
    mean_log, mean = float(logs.mean()), float(values.mean())
    hill = 1 + 1 / mean_log
    if hill > 2 and (hill - 1) / (hill - 2) <= mean:
        return _at_limit("truncated power law", {"alpha": hill, "rate": 0.0}, logs, xmin)
    shape = mean**2 / float(values.var())  # start from the gamma law that has the sample's moments
    alpha, place = 1 - shape, math.log(shape / mean)
    low, high = -math.inf, math.inf
    for _ in range(STEPS):
        rate = math.exp(place)
        alpha, under = _matched(alpha, rate, mean_log)
        slope = under.mean - mean  # of the log-likelihood in Λ, with the best α for each: it falls, and has one zero
        low, high = (place, high) if slope > 0 else (low, place)
        along = under.covariance / under.variance_log
        step = slope / (rate * (under.variance - along * under.covariance))
        if abs(step) < 1e-10:
            break
        place += min(max(step, -2.0), 2.0)
        if not low < place < high:
            place = (low + high) / 2
        alpha -= along * (math.exp(place) - rate)
    points = -alpha * logs - rate * values - under.log_normaliser
    return _law("truncated power law", {"alpha": alpha, "rate": rate / xmin}, points, xmin)


class _Moments(NamedTuple):
    """Of the truncated power law: ln Z, means and variances of y = ln x and of x, their covariance."""

    log_normaliser: float
    mean_log: float
    mean: float
    variance_log: float
    variance: float
    covariance: float


def _matched(alpha: float, rate: float, target: float) -> tuple[float, _Moments]:
    """The α at which ⟨y⟩ is `target` for a given Λ, and the moments there."""
    for _ in range(STEPS):
        under = _moments(alpha, rate)
        width = math.sqrt(under.variance_log)
        step = (under.mean_log - target) / width  # in standard deviations of y, so that the cap means the same anywhere
        if abs(step) < 1e-9:
            break
        alpha += min(max(step, -1.0), 1.0) / width
    return alpha, under


def _moments(alpha: float, rate: float) -> _Moments:
    slope = alpha - 1
    peak = math.log(-slope / rate) if -slope > rate else 0.0  # of −(α−1)y − Λeʸ over y ≥ 0
    weight = rate * math.exp(peak)
    low, high = -_reach(slope, weight, -1, peak) if peak else 0.0, _reach(slope, weight, 1, math.inf)
    nodes, shares = _rule()
    places = low + (high - low) * nodes  # from the peak: a narrow one keeps its digits
    mass = np.exp(-slope * places - weight * np.expm1(places)) * shares
    values = math.exp(peak) * np.exp(places)
    total = float(mass.sum())
    mass /= total
    mean_log, mean = float(mass @ places), float(mass @ values)
    places -= mean_log
    values -= mean
    weighted = mass * places
    return _Moments(
        log_normaliser=math.log(total * (high - low)) - slope * peak - weight,
        mean_log=peak + mean_log,
        mean=mean,
        variance_log=float(weighted @ places),
        variance=float((mass * values) @ values),
        covariance=float(weighted @ values),
    )


@cache
def _rule() -> tuple[Float[ndarray, " nodes"], Float[ndarray, " nodes"]]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    panels = (np.arange(PANELS)[:, None] + (nodes + 1) / 2) / PANELS
    return panels.ravel(), np.tile(weights / (2 * PANELS), PANELS)


def _reach(slope: float, weight: float, direction: int, most: float) -> float:
    """How far from its peak a density goes until it is negligible, `most` at the utmost, within 2 % above."""
    inside, outside = 0.0, min(1.0, most)
    while outside < most and _drop(slope, weight, direction * outside) < NEGLIGIBLE:
        inside, outside = outside, min(2 * outside, most)
    if _drop(slope, weight, direction * outside) < NEGLIGIBLE:
        return most
    while outside - inside > 0.02 * outside:
        middle = (inside + outside) / 2
        if _drop(slope, weight, direction * middle) < NEGLIGIBLE:
            inside = middle
        else:
            outside = middle
    return outside


def _drop(slope: float, weight: float, place: float) -> float:
    """Nats below its peak of a density in y, at a distance from it."""
    return slope * place + weight * math.expm1(min(place, OVERFLOW))


def _mean_excess(edge: float) -> float:
    """h(ξ) − ξ, the mean of a standard normal's excess over ξ."""
    from scipy.special import erfcx

    return math.sqrt(2 / math.pi) / float(erfcx(edge / math.sqrt(2))) - edge


def _relative_variance(edge: float) -> float:
    """(1 − h(h − ξ))/(h − ξ)²: the excess's variance over its squared mean."""
    excess = _mean_excess(edge)
    return (1 - (excess + edge) * excess) / excess**2


def _log_survival(edge: float) -> float:
    from scipy.special import log_ndtr

    return float(log_ndtr(-edge))


def _law(name: str, parameters: Mapping[str, float], points: Float[ndarray, " n"], xmin: float) -> TailLaw:
    """The law from ln p in the unit of x."""
    points = points - math.log(xmin)
    return TailLaw(name=name, parameters=parameters, log_likelihood=float(points.sum()), at_limit=False, points=points)


def _at_limit(name: str, parameters: Mapping[str, float], logs: Float[ndarray, " n"], xmin: float) -> TailLaw:
    return replace(power_law_tail(logs, xmin), name=name, parameters=parameters, at_limit=True)
