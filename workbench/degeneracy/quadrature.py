"""Points and weights on the way from zero to the activations: ∫₀¹ h(α) dα ≈ Σ w·h(α)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from workbench.errors import ArgumentError

Quadrature: TypeAlias = Literal["gradient", "trapezoid", "gauss-legendre"]
RULES = ("gradient", "trapezoid", "gauss-legendre")


def quadrature_points(rule: str, points: int) -> list[tuple[float, float]]:
    """(α, weight) of a rule on [0, 1]; weights sum to 1.

    Args:
        rule: "gradient" is the single point α = 1, the plain gradient; "trapezoid" has both ends, "gauss-legendre" is
            exact for polynomials of degree 2·points − 1.
        points: number of points; not used by "gradient".

    Raises:
        ArgumentError: an unknown rule, or too few points.

    Example:
        >>> quadrature_points("trapezoid", 3)
        [(0.0, 0.25), (0.5, 0.5), (1.0, 0.25)]
    """
    if rule not in RULES:
        raise ArgumentError(f"quadrature={rule!r}: expected {', '.join(map(repr, RULES))}.")
    least = {"gradient": 1, "trapezoid": 2, "gauss-legendre": 1}[rule]
    if not isinstance(points, int) or isinstance(points, bool) or points < least:
        raise ArgumentError(f"points={points!r}: expected a number of points, at least {least} for {rule!r}.")
    if rule == "gradient":
        return [(1.0, 1.0)]
    if rule == "trapezoid":
        inner = 1 / (points - 1)
        return [(k * inner, inner / 2 if k in (0, points - 1) else inner) for k in range(points)]
    places, weights = np.polynomial.legendre.leggauss(points)
    return [(float((x + 1) / 2), float(w / 2)) for x, w in zip(places, weights, strict=True)]
