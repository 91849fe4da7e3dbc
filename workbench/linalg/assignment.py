"""The linear assignment problem, and prices that make its next solution cheaper."""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from workbench.errors import ArgumentError

BLOCK = 1 << 15  # gains looked at at a time
GUESS = 1.5  # standard deviations
RAISES = 2  # of the prices after a solution; more of them cost more than they save


def assignment(
    gain: Float[ndarray, "units units"], prices: Float[ndarray, " units"] | None = None
) -> Int[ndarray, " units"]:
    """The permutation p that maximises Σᵢ gain[i, p[i]].

    Args:
        gain: what it is worth to put unit p[i] in place i; float64, finite.
        prices: of the units, from `raised_prices` of a similar problem; None for a guess. They change no solution (but
            among ties): each is paid once by every permutation. Near the dual solution the solver's paths are short.

    Returns:
        p as int64.

    Raises:
        ArgumentError: a gain is NaN or infinite.

    Cost: O(n³) at worst, in scipy's solver; a guess of the prices saves a third at n = 512, good ones two thirds, and
    more beyond.

    Source: Crouse, "On implementing 2D rectangular assignment algorithms", IEEE TAES 52 (2016), as in
    `scipy.optimize.linear_sum_assignment`.

    Example:
        >>> assignment(np.array([[1.0, 5.0], [4.0, 6.0]])).tolist()
        [1, 0]
    """
    from scipy.optimize import linear_sum_assignment

    if not np.isfinite(gain).all():
        raise ArgumentError("a gain is NaN or infinite, so no assignment is best: look for NaN in the weights.")
    if prices is None:  # a unit that is wanted in many places is dear: measured better than its mean or largest gain
        mean, square = gain.mean(0), np.einsum("ij,ij->j", gain, gain) / len(gain)
        prices = mean + GUESS * np.sqrt(np.maximum(square - mean**2, 0))
    cost = gain - prices
    np.subtract(cost.max(1)[:, None], cost, out=cost)
    return np.asarray(linear_sum_assignment(cost)[1], dtype=np.int64)


def raised_prices(
    gain: Float[ndarray, "units units"], order: Int[ndarray, " units"], prices: Float[ndarray, " units"] | None = None
) -> Float[ndarray, " units"]:
    """Prices at which fewer places would rather have another unit than theirs: steps towards the dual solution.

    A step raises the price of unit j to maxᵢ (gain[i, j] − gain[i, p[i]] + price[p[i]]), which is Bellman and Ford's.

    Args:
        gain: of the problem that `order` solves.
        order: its solution p.
        prices: where to begin; None for zero.

    Example:
        >>> raised_prices(np.array([[1.0, 5.0], [4.0, 6.0]]), np.array([1, 0])).tolist()
        [0.0, 2.0]
    """
    places = np.arange(len(order))
    prices = np.zeros(len(order)) if prices is None else prices
    for _ in range(RAISES):
        kept = gain[places, order] - prices[order]
        for rows in np.array_split(places, max(1, gain.size // BLOCK)):  # in cache, and no second matrix
            prices = np.maximum(prices, (gain[rows[0] : rows[-1] + 1] - kept[rows, None]).max(0))
    return prices
