"""How a change is spread: the Lorenz curve of τ², and channels that stand out."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from workbench.layers import Layer, matrices
from workbench.signatures.elements import change_magnitudes, piece_arrays

Floats: TypeAlias = NDArray[np.float64]

POINTS = 101  # of a Lorenz curve: at every hundredth of the elements
MAD_TO_SD = 1.4826  # of a Gaussian, 1/Φ⁻¹(3/4)
OUTLIER = 6.0


def lorenz_curve(base: Tensor, other: Tensor) -> tuple[Floats, dict[str, float]]:
    """The share of Στ² that the smallest elements have, and what it comes to.

    Args:
        base: W, real of any floating dtype.
        other: W′ of the same shape.

    Returns:
        The curve at every hundredth of the elements, linear between elements; top10, gini and half. NaN where τ = 0.
    """
    magnitudes = change_magnitudes(base, other)
    magnitudes.sort()
    largest = float(magnitudes[-1])
    if not 0 < largest < np.inf:
        return np.full(POINTS, np.nan), dict.fromkeys(("top10", "gini", "half"), np.nan)
    count = len(magnitudes)
    sums = np.empty(count + 1)
    sums[0] = 0
    np.divide(magnitudes, largest, out=sums[1:])
    np.square(sums[1:], out=sums[1:])
    np.cumsum(sums[1:], out=sums[1:])
    total = sums[-1]
    curve = np.interp(np.linspace(0, count, POINTS), np.arange(count + 1), sums) / total
    area = (sums.sum() - total / 2) / (count * total)  # trapezia
    top = 1 - np.interp(0.9 * count, np.arange(count + 1), sums) / total
    half = (count - int(np.searchsorted(sums, total / 2, side="right")) + 1) / count
    return curve, {"top10": float(top), "gini": max(float(1 - 2 * area), 0.0), "half": float(half)}


def outlier_channels(layer: Layer, base: Tensor, other: Tensor) -> Iterator[dict[str, Any]]:
    """Rows and columns of τ whose norm has a robust z above 6, largest first.

    Args:
        layer: what holds the matrices; kernel positions lie in a channel's norm.
        base: the whole tensor W.
        other: W′ of the same shape.
    """
    # (groups, out, in·positions): inputs of the groups are channels of their own
    pairs = zip(matrices(layer, base, "slices"), matrices(layer, other, "slices"), strict=True)
    positions = layer.extent()[0] // layer.groups
    squares = {
        "output": np.zeros((layer.groups, layer.extent()[1])),
        "input": np.zeros((layer.groups, layer.extent()[2])),
    }
    for number, (one, two) in enumerate(pairs):
        rows, cols = _squares(one, two)
        squares["output"][number // positions] += rows
        squares["input"][number // positions] += cols
    for axis, found in squares.items():
        norms = np.sqrt(found.reshape(-1))
        z = robust_z(norms)
        for channel in sorted(np.flatnonzero(z > OUTLIER), key=lambda channel: -norms[channel]):
            yield {"axis": axis, "channel": int(channel), "norm": float(norms[channel]), "z": float(z[channel])}


def _squares(one: Tensor, two: Tensor) -> tuple[Floats, Floats]:
    """Στ² of every row and of every column, in float64 a few rows at a time."""
    rows, cols = np.zeros(one.shape[0]), np.zeros(one.shape[1])
    step = max((1 << 15) // max(one.shape[1], 1), 1)
    for begin in range(0, one.shape[0], step):
        end = begin + step
        block = np.concatenate(
            [own - base for base, own in piece_arrays(one[begin:end], two[begin:end])], dtype=np.float64
        ).reshape(-1, one.shape[1])
        np.square(block, out=block)
        rows[begin:end] += block.sum(1)
        cols += block.sum(0)
    return rows, cols


def robust_z(values: Floats) -> Floats:
    """(x − median)/(1.4826·MAD): 0 where x is the median, ±∞ elsewhere if the MAD is 0.

    Example:
        >>> robust_z(np.array([1.0, 2.0, 3.0, 4.0, 100.0])).round(4).tolist()
        [-1.349, -0.6745, 0.0, 0.6745, 65.4256]
    """
    apart = values - np.median(values)
    spread = MAD_TO_SD * np.median(np.abs(apart))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(apart == 0, 0.0, apart / spread)
