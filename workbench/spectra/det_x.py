"""The tail whose rescaled eigenvalues have the product 1: Πλ/⟨λ⟩ ≈ 1, WeightWatcher's detX and its ERG condition."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.results import Column

COLUMNS: Mapping[str, Column] = {
    "W_scale": Column("1/√⟨λ⟩: times this the weights have mean λ = 1"),
    "detX_num": Column("eigenvalues at which the product of the largest, over their mean, first falls below 1", int),
    "detX_val": Column("smallest of them, as it is", unit="λ"),
    "detX_val_unrescaled": Column("smallest of them over ⟨λ⟩: the rescaled value, whatever the name says"),
    "num_ERG_spikes": Column("detX_num under another name", int),
    "ERG_gap": Column("detX_num − num_pl_spikes; NaN if there is no power law"),
}


@dataclass(frozen=True, kw_only=True)
class DetX:
    """The tail with Πλ/⟨λ⟩ nearest to 1; NaN and 0 throughout if there are no eigenvalues.

    Attributes:
        size: number of eigenvalues in it.
        xmin: the smallest of them, in the unit of λ.
        log_product: Σ ln(λ/⟨λ⟩) over the tail: how near to zero the rule came.
        scale: 1/√⟨λ⟩, the factor of the weights that makes the mean eigenvalue 1.
    """

    size: int
    xmin: float
    log_product: float
    scale: float


def det_x(eigenvalues: Float[Tensor, " n"]) -> DetX:
    """The tail of largest eigenvalues whose product, each over the mean of all, is nearest to 1.

    S_k = Σ ln(λ/⟨λ⟩) over the k largest rises while λ > ⟨λ⟩ and falls below zero at the end (the geometric mean is
    at most the arithmetic), so it comes back to zero once; k is the nearer of the two sizes around that place.

    Args:
        eigenvalues: non-zero λ, ascending, float64 (above `norms.zero_threshold`). Zeros would lower the mean, and a
            matrix padded with them would get another tail.

    Returns:
        The tail; all of the eigenvalues if they are equal.

    Cost: O(n).

    Source: WeightWatcher 0.7.7, `detX_constraint`. Ours: the nearer side of 1 where it takes the first product below
    1; sums of logarithms, since its products leave the floats at some thousand eigenvalues; zeros left out; and an
    answer where eigenvalues are equal or no product falls below 1 (see `compatible_det_x`).

    Misreads: every spectrum has such a tail. That it should end where the power law begins is a conjecture on
    ideally trained layers, not a test.

    Example:
        >>> import torch
        >>> tail = det_x(torch.tensor([0.125, 0.125, 0.25, 1.0, 3.5], dtype=torch.float64))  # their mean is 1
        >>> tail.size, tail.xmin, round(math.exp(tail.log_product), 12)
        (3, 0.25, 0.875)
    """
    count = len(eigenvalues)
    if count == 0:
        return DetX(size=0, xmin=math.nan, log_product=math.nan, scale=math.nan)
    logs, sums = _rescaled(eigenvalues)
    rounding = count * torch.finfo(sums.dtype).eps * float(logs.abs().sum() + 1)
    size = int((sums >= -rounding).nonzero()[-1]) + 1  # the last that is not below 1: S has one maximum
    if size < count and -float(sums[size]) < float(sums[size - 1]):
        size += 1
    return DetX(
        size=size,
        xmin=float(eigenvalues[-size]),
        log_product=float(sums[size - 1]),
        scale=1 / math.sqrt(float(eigenvalues.mean())),
    )


def compatible_det_x(eigenvalues: Float[Tensor, " n"], tail_size: int) -> dict[str, Any]:
    """WeightWatcher 0.7.7's columns of `detX=True`, with `W_scale` of its `mp_fit`.

    Its rules: the first k < n at which the product of the k largest, rescaled to mean 1, is below 1; where there is
    none, detX_num is n but detX_val the second smallest eigenvalue; for equal eigenvalues detX_num is 0 and detX_val
    the smallest. One thing is not copied: products of some thousand eigenvalues that leave the floats, where it
    stops at an underflow.

    Args:
        eigenvalues: all λ, zeros too, ascending, float64; of convolutions with its factor √½ per slice.
        tail_size: number of eigenvalues in the power law's tail; 0 if there is none.

    Returns:
        The cells of `COLUMNS`.
    """
    count, total = len(eigenvalues), float(eigenvalues.sum())
    scale = math.sqrt(count) / math.sqrt(total) if total > 0 else math.nan
    number = place = 0
    if count >= 2 and float(eigenvalues[0]) < float(eigenvalues[-1]):
        below = (_rescaled(eigenvalues)[1][: count - 1] < 0).nonzero()
        number, place = (count, 1) if len(below) == 0 else (int(below[0]) + 1, count - int(below[0]) - 1)
    value = float(eigenvalues[place]) if count else math.nan
    return {
        "W_scale": scale,
        "detX_num": number,
        "detX_val": value,
        "detX_val_unrescaled": value * scale**2,
        "num_ERG_spikes": number,
        "ERG_gap": float(number - tail_size) if tail_size else math.nan,
    }


def _rescaled(eigenvalues: Float[Tensor, " n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """ln(λ/⟨λ⟩) from the largest down, and its running sums."""
    logs = (eigenvalues / eigenvalues.mean()).log().flip(0)
    return logs, logs.cumsum(0)
