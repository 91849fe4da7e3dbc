"""The linear assignment problem."""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from workbench.errors import ArgumentError


def assignment(gain: Float[ndarray, "units units"]) -> Int[ndarray, " units"]:
    """The permutation p that maximises Σᵢ gain[i, p[i]].

    Args:
        gain: what it is worth to put unit p[i] in place i; float64, finite.

    Returns:
        p as int64.

    Raises:
        ArgumentError: a gain is NaN or infinite.

    Cost: O(n³) at worst, in scipy's solver; near O(n²) where the gains tell clearly.

    Source: Crouse, "On implementing 2D rectangular assignment algorithms", IEEE TAES 52 (2016), as in
    `scipy.optimize.linear_sum_assignment`.

    Example:
        >>> assignment(np.array([[1.0, 5.0], [4.0, 6.0]])).tolist()
        [1, 0]
    """
    from scipy.optimize import linear_sum_assignment

    if not np.isfinite(gain).all():
        raise ArgumentError("a gain is NaN or infinite, so no assignment is best: look for NaN in the weights.")
    return np.asarray(linear_sum_assignment(gain, maximize=True)[1], dtype=np.int64)
