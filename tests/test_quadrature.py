"""Rules on [0, 1]: they integrate the polynomials that they must, and no more."""

from typing import Any

import numpy as np
import pytest

import workbench as wb
from workbench.degeneracy.quadrature import RULES, quadrature_points


def integral(rule: Any, points: int, power: int) -> float:
    return sum(weight * alpha**power for alpha, weight in quadrature_points(rule, points))


@pytest.mark.parametrize("points", range(1, 17))
def test_gauss_legendre_is_exact_to_twice_its_points(points: int) -> None:
    """To degree 2·points − 1; the next one errs by (n!)⁴/((2n+1)·((2n)!)²), on [0, 1] and for x²ⁿ."""
    for power in range(2 * points):
        assert integral("gauss-legendre", points, power) == pytest.approx(1 / (power + 1), rel=1e-13)
    factorials = [float(np.prod(np.arange(1.0, n + 1))) for n in (points, 2 * points)]
    miss = 1 / (2 * points + 1) - integral("gauss-legendre", points, 2 * points)
    if points < 5:  # later the miss is rounding
        assert miss == pytest.approx(factorials[0] ** 4 / ((2 * points + 1) * factorials[1] ** 2), rel=1e-6)


@pytest.mark.parametrize("points", [2, 3, 5, 9])
def test_the_trapezoid_errs_by_a_twelfth_of_its_step_squared(points: int) -> None:
    rule = quadrature_points("trapezoid", points)
    assert [alpha for alpha, _ in rule] == pytest.approx(np.linspace(0, 1, points).tolist())
    assert integral("trapezoid", points, 1) == pytest.approx(1 / 2, rel=1e-14)
    assert integral("trapezoid", points, 2) - 1 / 3 == pytest.approx(1 / (6 * (points - 1) ** 2), rel=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_weights_sum_to_one(rule: Any) -> None:
    assert all(integral(rule, points, 0) == pytest.approx(1, rel=1e-14) for points in (2, 3, 8, 64))
    assert quadrature_points("gradient", 8) == [(1.0, 1.0)]


@pytest.mark.parametrize(
    ("rule", "points", "message"),
    [
        ("simpson", 3, "quadrature='simpson': expected 'gradient'"),
        ("trapezoid", 1, "points=1: expected a number of points, at least 2 for 'trapezoid'"),
        ("gauss-legendre", 0, "points=0: expected a number of points, at least 1"),
        ("gauss-legendre", True, "points=True"),
    ],
)
def test_wrong_rules_are_told(rule: Any, points: int, message: str) -> None:
    with pytest.raises(wb.ArgumentError, match=message):
        quadrature_points(rule, points)
