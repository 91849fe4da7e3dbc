"""The linear assignment problem, and prices that make its solution cheaper."""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from workbench.errors import ArgumentError

FEW = 128  # units; below, prices cost more than they save
GUESS = 1.5  # standard deviations of a unit's gains above their mean: where prices begin
COLD, WARM = (0.1, 20), (0.03, 10)  # temperature in mean standard deviations, and steps: from the guess, from prices
LEAST = -30.0  # e^-30 of a place's best at least, so that no product leaves float32


def assignment(
    gain: Float[ndarray, "units units"], prices: Float[ndarray, " units"] | None = None
) -> Int[ndarray, " units"]:
    """The permutation p that maximises Σᵢ gain[i, p[i]].

    Args:
        gain: what it is worth to put unit p[i] in place i; float64, finite.
        prices: of the units; None for `entropic_prices`. They change no solution (but among ties): each is paid once
            by every permutation. Near the dual solution the solver's paths are short.

    Returns:
        p as int64.

    Raises:
        ArgumentError: a gain is NaN or infinite.

    Cost: O(n³) at worst, in scipy's solver; the prices cost O(n²) and save half of it at n = 512, and more beyond.

    Source: Crouse, "On implementing 2D rectangular assignment algorithms", IEEE TAES 52 (2016), as in
    `scipy.optimize.linear_sum_assignment`.

    Example:
        >>> assignment(np.array([[1.0, 5.0], [4.0, 6.0]])).tolist()
        [1, 0]
    """
    from scipy.optimize import linear_sum_assignment

    if not np.isfinite(gain).all():
        raise ArgumentError("a gain is NaN or infinite, so no assignment is best: look for NaN in the weights.")
    prices = entropic_prices(gain) if prices is None else prices
    return np.asarray(linear_sum_assignment(prices - gain)[1], dtype=np.int64)


def entropic_prices(
    gain: Float[ndarray, "units units"], prices: Float[ndarray, " units"] | None = None
) -> Float[ndarray, " units"]:
    """Prices of the units at which most places want one of their own: near the dual solution of the assignment.

    Sinkhorn's steps on exp((gain − price)/T) share the units out among the places; a unit's column is multiplied by
    exp(−(rise of its price)/T). A step is two products of a matrix and a vector, in float32: prices may be inexact.

    Args:
        gain: as for `assignment`.
        prices: where to begin, from the last time that this was asked for a similar problem; they take fewer steps and
            a lower temperature T than the guess that None stands for.

    Returns:
        Finite prices; zeros for few units, where the solver alone is as fast.

    Cost: 10 to 20 passes over the gains.

    Source: Kosowsky and Yuille, "The invisible hand algorithm: solving the assignment problem with statistical
    physics", Neural Networks 7 (1994); Cuturi, "Sinkhorn distances" (arXiv 1306.0895).

    Example:
        >>> gain = np.eye(128) + np.linspace(0, 9, 128)  # every place wants the last unit
        >>> dear = entropic_prices(gain)
        >>> bool((np.argmax(gain - dear, axis=1) == np.arange(128)).all())
        True
    """
    none = np.zeros(len(gain))
    if len(gain) < FEW:
        return none
    with np.errstate(all="ignore"):  # gains beyond float32, or all the same, end as NaN
        mean, square = gain.mean(0), np.einsum("ij,ij->j", gain, gain) / len(gain)
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        temperature, steps = COLD if prices is None else WARM
        temperature *= float(deviation.mean())
        prices = mean + GUESS * deviation if prices is None else prices
        kernel = np.empty(gain.shape, np.float32)  # written in place: fresh memory costs more than the arithmetic
        np.subtract(gain, prices, out=kernel, casting="same_kind")
        kernel -= kernel.max(1)[:, None]
        kernel /= np.float32(temperature)
        np.exp(np.maximum(kernel, LEAST, out=kernel), out=kernel)
        units: Float[ndarray, " units"] = np.ones(len(gain), np.float32)
        for _ in range(steps):
            units = 1 / ((1 / (kernel @ units)) @ kernel)
        raised = prices - temperature * np.log(units.astype(np.float64))
    return raised if np.isfinite(raised).all() else none
