"""Eigenvalues of WᵀW through float64 Gram matrices, in blocks of rows."""

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import LayerError

BLOCK_ELEMENTS = 1 << 20  # elements upcast at a time: 8 MB of float64, in cache reach and small beside any layer


def gram(matrix: Float[Tensor, "rows cols"]) -> Float[Tensor, "small small"]:
    """The Gram matrix of the smaller side in float64: WᵀW if rows ≥ cols, else WWᵀ.

    The long side is walked in blocks, so the float64 copy of a large matrix never exists.

    Args:
        matrix: real matrix of any floating dtype, on any device.

    Returns:
        The symmetric (min, min) matrix in float64 on the same device.

    Cost: 2·N·M² flops for N = max(rows, cols), M = min(rows, cols); memory M² + one block.
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    length, width = tall.shape
    step = max(BLOCK_ELEMENTS // max(width, 1), min(width, length), 1)
    total = torch.zeros(width, width, dtype=torch.float64, device=matrix.device)
    for begin in range(0, length, step):
        block = tall[begin : begin + step].to(torch.float64)
        total.addmm_(block.T, block)
    return total


def gram_eigenvalues(matrices: Float[Tensor, "matrices rows cols"]) -> Float[Tensor, "matrices small"]:
    """Eigenvalues λ = σ² of WᵀW for each of several matrices, ascending, in float64.

    An absolute error of about M·ε·λmax comes with the Gram matrix: eigenvalues below that are rounding. Negative
    rounding is set to zero.

    Args:
        matrices: real matrices of one shape, any floating dtype.

    Returns:
        The M = min(rows, cols) eigenvalues of each.

    Raises:
        LayerError: an element is NaN or infinite, or the eigensolver does not converge.

    Cost: 2·N·M² + 4/3·M³ flops a matrix, against 4·N·M² for the singular values.
    """
    count, rows, cols = matrices.shape
    if max(rows, cols) * min(rows, cols) <= BLOCK_ELEMENTS:
        wide = matrices.to(torch.float64)
        wide = wide if rows >= cols else wide.mT
        grams = wide.mT @ wide
    else:
        grams = torch.stack([gram(matrix) for matrix in matrices])
    if not bool(torch.isfinite(grams).all()):
        bad = int((~torch.isfinite(matrices)).sum())
        raise LayerError(
            f"{bad} of {matrices.numel()} elements are NaN or infinite"
            if bad
            else "the elements are so large that their squares overflow float64"
        )
    try:
        eigenvalues: Tensor = torch.linalg.eigvalsh(grams)
    except RuntimeError as error:
        raise LayerError(f"the eigensolver did not converge on a {min(rows, cols)}² Gram matrix") from error
    return eigenvalues.clamp_min_(0)
