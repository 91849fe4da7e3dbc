"""How localised the leading singular vectors are: on few rows and columns of a matrix, or on all."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.errors import ArgumentError, LayerError
from workbench.linalg import gram
from workbench.spectra.norms import zero_threshold

LARGEST = 0.01  # share of the coordinates that counts as the largest ones
TURNED = 0.01  # a vector that rounding may turn by more than this is known within its subspace only
BLOCK_ELEMENTS = 1 << 20  # elements upcast at a time, as for Gram matrices


@dataclass(frozen=True, kw_only=True, eq=False)
class Localisation:
    """Where the mass p = v² (Σp = 1) of each of k vectors with n coordinates lies.

    Attributes:
        participation_ratio: 1/Σp²: 1 if one coordinate has it all, n if all have the same, n/3 for random vectors.
        inverse_participation_ratio: Σp².
        largest_share: Σp over the largest ⌈n/100⌉ coordinates.
        entropy: −Σ p ln p / ln n: 0 if one coordinate has it all, 1 if all have the same, 1 − 0.73/ln n for random
            vectors; NaN for n = 1.
    """

    participation_ratio: Float[Tensor, " k"]
    inverse_participation_ratio: Float[Tensor, " k"]
    largest_share: Float[Tensor, " k"]
    entropy: Float[Tensor, " k"]


@dataclass(frozen=True, kw_only=True, eq=False)
class LeadingVectors:
    """The k leading singular vectors of a matrix and their localisation; the largest singular value first.

    Attributes:
        singular_values: σ, descending.
        degenerate: whether a neighbour's σ is so near that rounding mixes the vectors: then each is any vector of
            their common subspace, and its localisation is that of the subspace's mean mass, which no basis changes.
        left: localisation over the rows.
        right: localisation over the columns.
        left_vectors: u, one a row, of either sign.
        right_vectors: v, one a row, with W v = σ u.
    """

    singular_values: Float[Tensor, " k"]
    degenerate: Bool[Tensor, " k"]
    left: Localisation
    right: Localisation
    left_vectors: Float[Tensor, "k rows"]
    right_vectors: Float[Tensor, "k cols"]


def leading_vectors(matrix: Float[Tensor, "rows cols"], count: int = 10) -> LeadingVectors:
    """The leading singular vectors of a matrix, and on how many coordinates they lie.

    Args:
        matrix: any floating dtype, any device.
        count: number k of vectors; at most min(rows, cols) are there, and fewer if the rank is lower.

    Returns:
        Values and vectors in float64 on the CPU.

    Raises:
        ArgumentError: `count` is below 1.
        LayerError: an element is NaN or infinite, or the eigensolver does not converge.

    Cost: N·M² + 4/3·M³ flops for the Gram matrix and its tridiagonal form, then O(M²·k) and N·M·k.

    Source: Martin & Mahoney, "Implicit self-regularization in deep neural networks" (2021), section 3.1 and appendix,
    for localisation of weight matrices; the participation ratio of Bell & Dean (1970). WeightWatcher's
    `participation_ratio` is the fourth root of this one, its `vec_entropy` that of a histogram of |v|.

    Misreads: compare with random vectors of the same length, not with 1 and n. Large elements, as in embeddings of
    frequent tokens, localise as well as traps do.

    Example:
        >>> import torch
        >>> spikes = torch.diag(torch.tensor([3.0, 2.0, 1.0, 1.0]))
        >>> found = leading_vectors(spikes, 4)
        >>> found.right.participation_ratio.tolist(), found.degenerate.tolist()
        ([1.0, 1.0, 2.0, 2.0], [False, False, True, True])
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ArgumentError(f"count={count!r}: expected a number of vectors, an int ≥ 1.")
    product = gram(matrix).cpu()
    if not bool(torch.isfinite(product.sum())):
        bad = int((~torch.isfinite(matrix)).sum())
        raise LayerError(f"{bad} of {matrix.numel()} elements are NaN or infinite, or their squares overflow float64")
    width, length = len(product), max(matrix.shape)
    wanted = asked = min(count, width)
    while True:  # a subspace is taken whole: with more vectors than were asked for, if it goes on
        asked = min(asked + 1, width)
        eigenvalues, vectors = _largest(product, asked)
        gaps = eigenvalues[:-1] - eigenvalues[1:]
        size = float(eigenvalues[0])
        spread = math.sqrt(float(product.trace()) / matrix.numel())  # of the elements, and so of their rounding
        rounding = width * torch.finfo(torch.float64).eps * size
        rounding += 2 * math.sqrt(size) * torch.finfo(matrix.dtype).eps * spread
        near = gaps <= rounding / TURNED
        if asked == width or not bool(near[wanted - 1 :].all()):
            break
        asked = 2 * asked
    rank = int((eigenvalues > zero_threshold(eigenvalues.flip(0), length)).sum())
    wanted, vectors, near = min(wanted, rank), vectors[:rank], near[: max(rank - 1, 0)]
    others = _other_side(matrix, vectors)
    left, right = (others, vectors) if matrix.shape[0] >= matrix.shape[1] else (vectors, others)
    edge = near.new_zeros(1)
    groups = torch.cat([edge, ~near]).cumsum(0)[:rank]
    return LeadingVectors(
        singular_values=eigenvalues[:wanted].sqrt(),
        degenerate=(torch.cat([edge, near]) | torch.cat([near, edge]))[:wanted],
        left=localisation(_mean_mass(left, groups)[:wanted]),
        right=localisation(_mean_mass(right, groups)[:wanted]),
        left_vectors=left[:wanted],
        right_vectors=right[:wanted],
    )


def localisation(mass: Float[Tensor, "k n"]) -> Localisation:
    """Participation, largest coordinates and entropy of masses p ≥ 0 with Σp = 1 in each row.

    Example:
        >>> import torch
        >>> found = localisation(torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]]))
        >>> found.participation_ratio.tolist(), found.entropy.tolist(), found.largest_share.tolist()
        ([2.0, 4.0], [0.5, 1.0], [0.5, 0.25])
    """
    length = mass.shape[1]
    inverse = (mass**2).sum(1)
    largest = mass.topk(math.ceil(LARGEST * length), dim=1).values.sum(1)
    entropy = -torch.xlogy(mass, mass).sum(1)
    return Localisation(
        participation_ratio=1 / inverse,
        inverse_participation_ratio=inverse,
        largest_share=largest,
        entropy=entropy / math.log(length) if length > 1 else torch.full_like(entropy, math.nan),
    )


def _largest(product: Tensor, count: int) -> tuple[Float[Tensor, " k"], Float[Tensor, "k n"]]:
    """The largest eigenvalues of a symmetric matrix, descending, and their eigenvectors as rows."""
    from scipy.linalg import LinAlgError, eigh

    width = len(product)
    try:
        values, vectors = eigh(product.numpy(), subset_by_index=[width - count, width - 1], check_finite=False)
    except LinAlgError as error:
        raise LayerError(f"the eigensolver did not converge on a {width}² Gram matrix") from error
    return torch.from_numpy(values[::-1].copy()).clamp(min=0), torch.from_numpy(vectors[:, ::-1].T.copy())


def _other_side(matrix: Tensor, vectors: Tensor) -> Float[Tensor, "k n"]:
    """W v/|W v| for singular vectors v of the smaller side."""
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    step = max(BLOCK_ELEMENTS // max(tall.shape[1], 1), 1)
    blocks = (tall[begin : begin + step] for begin in range(0, len(tall), step))
    images = torch.cat([block.to("cpu", torch.float64) @ vectors.T for block in blocks])
    return torch.nn.functional.normalize(images, dim=0, eps=0).T


def _mean_mass(vectors: Tensor, groups: Tensor) -> Float[Tensor, "k n"]:
    """v², or its mean over the vectors of the same group."""
    mass = vectors**2
    count = int(groups[-1]) + 1 if len(groups) else 0
    sums = mass.new_zeros(count, mass.shape[1]).index_add_(0, groups, mass)
    return (sums / torch.bincount(groups, minlength=count)[:, None])[groups]
