"""A layer against itself with its elements shuffled: what correlations, not elements, make of its spectrum."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ArgumentError
from workbench.linalg import gram_eigenvalues
from workbench.seeds import generator
from workbench.spectra.marchenko_pastur import LEVEL, MarchenkoPastur, marchenko_pastur_fit


@dataclass(frozen=True, kw_only=True, eq=False)
class Randomisation:
    """The spectrum of a layer whose elements were shuffled.

    Attributes:
        eigenvalues: all λ of the shuffled matrices, ascending.
        rand_distance: Jensen–Shannon distance between the layer's λ and these, in [0, √ln 2].
        max_rand_eval: the largest of these.
        num_traps: correlation traps: those beyond the Marchenko–Pastur edge, where single elements are so large that
            they make a direction of their own in any order.
        fit: the Marchenko–Pastur law fitted to these.
    """

    eigenvalues: Tensor
    rand_distance: float
    max_rand_eval: float
    num_traps: int
    fit: MarchenkoPastur


def randomisation(
    matrices: Float[Tensor, "matrices rows cols"],
    eigenvalues: Float[Tensor, " n"],
    *,
    seed: int,
    layer: str,
    level: float = LEVEL,
) -> Randomisation:
    """Eigenvalues of the layer's matrices after the elements of each were shuffled.

    Args:
        matrices: the layer's matrices, of any floating dtype and on any device.
        eigenvalues: their own λ, pooled and ascending, in float64; the results are on their device.
        seed: any integer; with `layer` it decides the order, on whatever device.
        layer: the layer's id.
        level: chance that noise without traps is said to have one.

    Returns:
        The shuffled spectrum and its distance from the layer's own.

    Raises:
        ArgumentError: the eigenvalues are not as many as the matrices have.
        LayerError: an element is NaN or infinite.

    Cost: as the spectrum itself, and a random permutation of the elements on the CPU.

    Source: Martin & Mahoney, "Implicit self-regularization in deep neural networks" (2021), for the shuffled
    spectrum; `rand_distance` and traps as WeightWatcher 0.7.7 defines them. Ours: the seed, and an edge by
    Tracy–Widom instead of its fixed margin.

    Misreads: `rand_distance` compares λ by rank and not two densities; scale is divided out. The shuffled spectrum
    differs from seed to seed by about one spacing.

    Example:
        >>> import torch
        >>> ones = torch.ones(1, 30, 40)
        >>> shuffled = randomisation(ones, gram_eigenvalues(ones)[0], seed=0, layer="fc")
        >>> round(shuffled.max_rand_eval, 6), round(shuffled.rand_distance, 6)
        (1200.0, 0.0)
    """
    count, rows, cols = matrices.shape
    if len(eigenvalues) != count * min(rows, cols):
        raise ArgumentError(
            f"{len(eigenvalues)} eigenvalues for {count} matrices of {rows}×{cols}: expected all "
            f"{count * min(rows, cols)}, zeros included."
        )
    own = gram_eigenvalues(shuffled_elements(matrices, seed=seed, layer=layer))
    shuffled = own.flatten().to(eigenvalues.device).sort().values
    fit = marchenko_pastur_fit(shuffled, rows, cols, count, level=level)
    return Randomisation(
        eigenvalues=shuffled,
        rand_distance=jensen_shannon_distance(eigenvalues, shuffled),
        max_rand_eval=float(shuffled[-1]),
        num_traps=fit.num_spikes,
        fit=fit,
    )


def shuffled_elements(
    matrices: Float[Tensor, "matrices rows cols"], *, seed: int, layer: str
) -> Float[Tensor, "matrices rows cols"]:
    """The matrices with the elements of each in a random order, drawn on the CPU from (seed, layer).

    Example:
        >>> import torch
        >>> tensor = torch.arange(6.0).reshape(1, 2, 3)
        >>> shuffled_elements(tensor, seed=0, layer="fc").flatten().sort().values.tolist()
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    draws = generator(seed, layer)
    flat = matrices.reshape(len(matrices), -1)
    orders = (torch.randperm(flat.shape[1], generator=draws, device="cpu").to(flat.device) for _ in flat)
    return torch.stack([one[order] for one, order in zip(flat, orders, strict=True)]).reshape(matrices.shape)


def jensen_shannon_distance(first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> float:
    """√((KL(p‖m) + KL(r‖m))/2) with m = (p + r)/2, where p and r are the values, each divided by their sum.

    Natural logarithms: 0 for proportional values, √ln 2 ≈ 0.8326 where one is zero wherever the other is not.

    Args:
        first: values ≥ 0.
        second: as many.

    Returns:
        The distance; NaN if all of one are zero.

    Source: Endres & Schindelin, "A new metric for probability distributions" (2003).

    Example:
        >>> import torch
        >>> ascending = torch.tensor([1.0, 3.0], dtype=torch.float64)
        >>> jensen_shannon_distance(ascending, 2 * ascending), jensen_shannon_distance(ascending, 0 * ascending)
        (0.0, nan)
    """
    total, other = first.sum(), second.sum()
    if not (total > 0 and other > 0):
        return math.nan
    p, r = first / total, second / other
    m = (p + r) / 2
    where_any = m > 0  # elsewhere both are zero, and 0·ln 0 = 0
    p, r, m = p[where_any], r[where_any], m[where_any]
    divergence = float((torch.xlogy(p, p / m) + torch.xlogy(r, r / m)).sum()) / 2
    return math.sqrt(max(divergence, 0.0))
