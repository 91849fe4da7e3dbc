"""Eigenvalues of WᵀW through float64 Gram matrices, in blocks of rows."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import LayerError
from workbench.linalg.lapack import lapack_eigenvalues

BLOCK_ELEMENTS = 1 << 20  # elements upcast at a time: 8 MB of float64, in cache reach and small beside any layer


def gram(matrix: Float[Tensor, "rows cols"]) -> Float[Tensor, "small small"]:
    """The Gram matrix of the smaller side in float64: WᵀW if rows ≥ cols, else WWᵀ.

    The long side is walked in blocks, so the float64 copy of a large matrix never exists. On the CPU numpy
    multiplies, because its BᵀB is a symmetric product (syrk) and costs half of torch's general one.

    Args:
        matrix: real matrix of any floating dtype, on any device.

    Returns:
        The symmetric (min, min) matrix in float64 on the same device.

    Cost: N·M² flops for N = max(rows, cols), M = min(rows, cols) (twice that on CUDA); memory M² + one block.
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    width = tall.shape[1]
    total: Tensor | None = None
    for block in row_blocks(tall):
        wide = block.to(torch.float64)
        if total is None:
            total = product(wide)
        else:
            add_gram(total, wide)
    return torch.zeros(width, width, dtype=torch.float64, device=matrix.device) if total is None else total


def row_blocks(matrix: Float[Tensor, "rows cols"]) -> Iterator[Tensor]:
    """Views of consecutive rows, of about BLOCK_ELEMENTS elements and at least as many rows as columns."""
    length, width = matrix.shape
    step = max(BLOCK_ELEMENTS // max(width, 1), min(width, length), 1)
    yield from (matrix[begin : begin + step] for begin in range(0, length, step))


def product(block: Float[Tensor, "rows width"]) -> Float[Tensor, "width width"]:
    """BᵀB in float64; on the CPU by numpy, whose symmetric product costs half of torch's general one."""
    if block.device.type != "cpu":
        return block.T @ block
    rows = block.numpy()
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and overflow are found in the sum, and named
        return torch.from_numpy(rows.T @ rows)


def add_gram(total: Float[Tensor, "width width"], block: Float[Tensor, "rows width"]) -> None:
    """Adds BᵀB to `total`, in place; both float64 and on one device."""
    if block.device.type == "cpu":
        with np.errstate(invalid="ignore", over="ignore"):
            total += product(block)
    else:
        total.addmm_(block.T, block)


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

    Cost: N·M² + 4/3·M³ flops a matrix, against 4·N·M² for the singular values.
    """
    grams = [gram(matrix) for matrix in matrices]
    traces = torch.stack([one.trace() for one in grams])
    if not bool(torch.isfinite(traces.sum())):
        bad = int((~torch.isfinite(matrices)).sum())
        raise LayerError(
            f"{bad} of {matrices.numel()} elements are NaN or infinite"
            if bad
            else "the elements are so large that their squares overflow float64"
        )
    if float(traces.max()) < torch.finfo(torch.float64).tiny and bool(matrices.any()):
        raise LayerError("the elements are so small that their squares underflow float64")
    try:
        return symmetric_eigenvalues(grams, overwrite=True).clamp_min_(0)
    except RuntimeError as error:
        raise LayerError(f"the eigensolver did not converge on a {len(grams[0])}² Gram matrix") from error


def symmetric_eigenvalues(
    symmetric: Sequence[Float[Tensor, "n n"]], *, overwrite: bool = False
) -> Float[Tensor, "matrices n"]:
    """Eigenvalues of symmetric float64 matrices of one size, ascending: by LAPACK on the CPU, one batch on CUDA.

    Args:
        symmetric: the matrices, at least one.
        overwrite: allows the input to be destroyed, which saves a copy.

    Raises:
        RuntimeError: the solver does not converge.
    """
    if symmetric[0].device.type == "cpu":
        return torch.from_numpy(lapack_eigenvalues([one.numpy() for one in symmetric], overwrite=overwrite))
    batch = torch.stack(list(symmetric)) if len(symmetric) > 1 else symmetric[0][None]
    eigenvalues: Tensor = torch.linalg.eigvalsh(batch)
    return eigenvalues


def stable_rank(eigenvalues: Float[Tensor, " n"]) -> float:
    """Σλ/λmax of λ = σ² in any order: between 1 (rank one) and n (all equal); NaN if all are zero, or there are none.

    Example:
        >>> stable_rank(torch.tensor([4.0, 1.0, 1.0])), stable_rank(torch.zeros(2))
        (1.5, nan)
    """
    largest = float(eigenvalues.max()) if len(eigenvalues) else 0.0
    return float(eigenvalues.sum()) / largest if largest > 0 else math.nan
