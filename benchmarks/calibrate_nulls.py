"""Measures the constants of workbench/spectra/nulls.py and how often noise is called something else.

python benchmarks/calibrate_nulls.py [draws a shape, 200 unless told; 4 minutes]
"""

import collections
import math
import sys
from collections.abc import Iterator

import numpy as np
import torch
from scipy.linalg import eigvalsh_tridiagonal
from torch import Tensor, nn

import workbench as wb
from workbench.linalg import gram_eigenvalues
from workbench.spectra import noise_kinds, nulls
from workbench.spectra.entries import excess_kurtosis
from workbench.spectra.marchenko_pastur import largest_noise_eigenvalue, relaxed
from workbench.spectra.power_law import power_law

SHAPES = [(64, 1), (256, 1), (16, 9), (64, 9), (16, 49), (9, 9)]
ASPECTS = (1, 2, 4, 16)
NUMBERS = (1.0, 1.5)
ENTRIES = {
    "gaussian": lambda w, g: nn.init.normal_(w, generator=g),
    "uniform": lambda w, g: nn.init.kaiming_uniform_(w, generator=g),
    "xavier": lambda w, g: nn.init.xavier_normal_(w, generator=g),
    "truncated": lambda w, g: nn.init.trunc_normal_(w, generator=g),
    "±1": lambda w, g: nn.init.uniform_(w, -1, 1, generator=g).sign_(),
    "30 % kept": lambda w, g: nn.init.normal_(w, generator=g).mul_(torch.rand(w.shape, generator=g) < 0.3),
    "10 % ±1": lambda w, g: nn.init.normal_(w, generator=g).sign_().mul_(torch.rand(w.shape, generator=g) < 0.1),
    "orthogonal + 1 %": lambda w, g: w.copy_(torch.linalg.qr(torch.randn(w.shape, generator=g)).Q).add_(
        torch.randn(w.shape, generator=g), alpha=0.01
    ),
}
KEPT = (1.0, 0.3, 0.2)  # shares of Gaussian entries


def laws(draws: int) -> None:
    """Each law against Gaussian noise: what it predicts is 0 and 1, or the constant named in the heading."""
    print("M×k aspect | median rule, 1/(α−1): bias and spread in predicted spreads | 99.8 % of M·√k·D, and the law |")
    print(
        "  search: 0.5, 50 and 99.5 % over the law's centre | π²·var of a number's 1/(α−1) − ln(n/k), for two numbers"
    )
    random = np.random.default_rng(0)
    for aspect in ASPECTS:
        for side, pooled in SHAPES:
            spectra = [wishart_eigenvalues(random, aspect * side, side, pooled) for _ in range(draws)]
            print(f"{side}×{pooled} {aspect} |", *measured(spectra, aspect * side, side, pooled), flush=True)


def wishart_eigenvalues(draws: np.random.Generator, long_side: int, short_side: int, matrices: int) -> Tensor:
    """Eigenvalues of WᵀW for Gaussian matrices, by a bidiagonal matrix that has the same: Dumitriu & Edelman (2002)."""
    spectra = []
    for _ in range(matrices):
        diagonal = draws.chisquare(long_side - np.arange(short_side))
        below = draws.chisquare(np.arange(short_side - 1, 0, -1))
        off = np.sqrt(diagonal[:-1] * below)
        diagonal[1:] += below
        spectra.append(eigvalsh_tridiagonal(diagonal, off, lapack_driver="sterf") if short_side > 1 else diagonal)
    return torch.from_numpy(np.sort(np.concatenate(spectra)).clip(min=0))


def measured(spectra: list[Tensor], long_side: int, side: int, pooled: int) -> Iterator[str]:
    null = nulls.noise_alpha("median", long_side, side, pooled)
    grid = nulls.noise_grid(long_side, float(side), side * pooled)
    lighter = nulls.noise_grid(long_side, float(side), side * pooled, nulls.LIGHT_KURTOSIS)
    centre, other = (1 / (power_law(each, "median").alpha - 1) for each in (grid, lighter))
    spread = (1 / (null.low - 1) - centre - abs(other - centre)) / nulls.DEVIATIONS
    means = np.array([1 / (power_law(values, "median").alpha - 1) for values in spectra])
    yield f"{(means.mean() - centre) / spread:+.2f} {means.std() / spread:.2f} |"
    distances = [nulls.departure(values, long_side, side, pooled).ks_distance for values in spectra]
    law = nulls.DISTANCE + nulls.DISTANCE_GROWTH * math.log(side)
    yield f"{np.quantile(distances, 0.998) * side * math.sqrt(pooled):.2f} {law:.2f} |"
    searched = nulls.noise_alpha("search", long_side, side, pooled)
    excess = [(power_law(values).alpha - 1) / (searched.alpha - 1) for values in spectra]
    yield " ".join(f"{value:.2f}" for value in np.quantile(excess, [0.005, 0.5, 0.995])) + " |"
    for number in NUMBERS:
        fits = [power_law(values / values.mean(), number) for values in spectra]
        sizes = np.array([fit.tail_size for fit in fits])
        if sizes.min() >= nulls.MIN_TAIL:
            shares = np.array([1 / (fit.alpha - 1) for fit in fits])
            variance = (shares.std() / shares.mean() * sizes.mean() * math.pi) ** 2 / pooled
            yield f"{variance - math.log(max(sizes.mean() / pooled, 1)):.2f}"


def large_entries(draws: int) -> None:
    """The laws of entries with a kurtosis: D with and without it over its limit, the edge, the spread of ⟨λ²⟩."""
    print("\nkept M×k aspect | κ/√NM | D/limit: κ = 0, κ; 99 % | λmax/edge: 99 % | ⟨λ²⟩: bias, spread in deviations")
    print("  | searched α − 1 over the law's centre: 0.5, 50, 99.5 %")
    for kept in KEPT:
        for side, pooled, aspect in [(24, 25, 1), (24, 25, 3), (64, 9, 1), (64, 1, 4), (200, 1, 1)]:
            found = []
            for seed in range(draws):
                random = torch.Generator().manual_seed(seed)
                shape = (pooled, aspect * side, side)
                weights = torch.randn(shape, generator=random) * (torch.rand(shape, generator=random) < kept)
                spectra = noise_kinds.of_equal_variance(gram_eigenvalues(weights))
                values = spectra[spectra > 1e-9].sort().values
                kurtosis = excess_kurtosis(weights)
                plain, apart = (nulls.departure(values, *shape[1:], pooled, each) for each in (0.0, kurtosis))
                stretch, ratio = kurtosis / math.sqrt(aspect) / side, 1 / aspect
                top = float(relaxed(values[-1:] / values.mean(), ratio, stretch))
                edge = largest_noise_eigenvalue(aspect * side, side, pooled, nulls.EDGE_LEVEL) / aspect / side
                mean, deviation = noise_kinds.second_moment(aspect * side, side, pooled, kurtosis)
                moment = (float((values / values.mean()).square().mean()) - mean) / deviation
                excess = power_law(values).alpha - 1
                centre = nulls.noise_alpha("search", aspect * side, side, pooled).alpha - 1
                limits = (plain.ks_distance / plain.ks_limit, apart.ks_distance / apart.ks_limit)
                found.append((stretch, *limits, top / edge, moment, excess / centre))
            table = np.array(found)
            middle, high = np.median(table, 0), np.quantile(table, 0.99, 0)
            tails = " ".join(f"{value:.2f}" for value in np.quantile(table[:, 5], [0.005, 0.5, 0.995]))
            print(
                f"{kept:.0%} {side}×{pooled} {aspect} | {middle[0]:.2f} | {middle[1]:.2f} {middle[2]:.2f}; {high[2]:.2f}",  # noqa: E501
                f"| {high[3]:.2f} | {table[:, 4].mean():+.2f} {table[:, 4].std():.2f} | {tails}",
                flush=True,
            )


def alarms(draws: int) -> None:
    """How often each kind of noise is called anything but `no tail`."""
    print("\nentries | layers | called something else, by rule")
    for kind, fill in ENTRIES.items():
        found: collections.Counter[str] = collections.Counter()
        layers = 0
        for aspect in ASPECTS:
            for side, pooled in [(16, 9), (32, 1), (32, 9), (64, 1), (128, 1), (256, 1), (1024, 1)]:
                if side * aspect > 4096:
                    continue
                for seed in range(draws if side < 100 else draws // 10 if side < 1000 else 1):
                    generator = torch.Generator().manual_seed(seed)
                    weights = torch.stack([fill(torch.empty(aspect * side, side), generator) for _ in range(pooled)])
                    found.update(called(weights))
                    layers += 1
        print(f"{kind} | {layers} |", ", ".join(f"{rule} {found[rule] / layers:.2%}" for rule in found), flush=True)


def called(weights: Tensor) -> dict[str, bool]:
    """What `wb.spectrum` calls something else, by rule; several matrices are the positions of a kernel."""
    model = {"noise.weight": weights.permute(1, 2, 0) if len(weights) > 1 else weights[0]}
    mean = float(gram_eigenvalues(weights).mean())
    rules = {"search": "search", "median": "median"} | {f"{n}·mean": n * mean for n in NUMBERS}
    return {name: wb.spectrum(model, xmin=rule).row("noise")["verdict"] != "no tail" for name, rule in rules.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    laws(count)
    large_entries(count)
    alarms(count)
