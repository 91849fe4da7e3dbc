"""What the entries tell of noise and the eigenvalues do not: dead rows, rows there twice, rare large entries."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.linalg.gram import BLOCK_ELEMENTS, row_blocks


def excess_kurtosis(matrices: Float[Tensor, "matrices rows cols"], elements: float | None = None) -> float:
    """κ = n·Σw⁴/(Σw²)² − 3 of the entries of a matrix, the mean over the matrices that are not zero throughout.

    Args:
        matrices: finite matrices of one shape, any floating dtype.
        elements: entries n of a matrix that count, where dead rows and columns do not; None for all.

    Returns:
        κ: 0 for Gaussian entries, −2 for ±1, 3/p − 3 where a share p of Gaussian ones is kept; NaN for zero matrices.

    Cost: one pass; memory of one block.

    Misreads: entries of infinite variance have none: what is found there grows with the matrix.

    Example:
        >>> excess_kurtosis(torch.tensor([[[1.0, -1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]))
        -2.0
        >>> excess_kurtosis(torch.eye(8)[None])
        5.0
    """
    found = []
    count = matrices[0].numel() if elements is None else elements
    for matrix in matrices:
        squares = fourths = 0.0
        for block in row_blocks(matrix):
            square = block.to(torch.float64).square()
            squares += float(square.sum())
            fourths += float(torch.linalg.vecdot(square.flatten(), square.flatten()))
        if squares:
            found.append(count * fourths / squares / squares - 3)
    return math.fsum(found) / len(found) if found else math.nan


def live_shape(matrices: Float[Tensor, "matrices rows cols"]) -> tuple[int, int]:
    """Rows and columns that are not zero throughout, the most of one of the matrices; 1 at least.

    Cost: that of a row and a column where none of them has a zero; two passes at most.

    Example:
        >>> live_shape(torch.tensor([[[1.0, 0.0], [0.0, 0.0], [4.0, 0.0]]]))
        (2, 1)
    """
    rows = max([1, *(len(live_rows(matrix)) for matrix in matrices)])
    return rows, max([1, *(len(live_rows(matrix.T)) for matrix in matrices)])


def copies(matrices: Float[Tensor, "matrices rows cols"]) -> int:
    """How often every row of the longer side is there, if it is the same for all that are not zero; else 1.

    m copies of N rows of noise have m times the eigenvalues of the N rows, and so their shape.

    Args:
        matrices: finite matrices of one shape, any floating dtype.

    Cost: that of a row and a column where the first row has its largest entry alone; a sort of all rows only where it
    is there more than once.

    Example:
        >>> copies(torch.tensor([[[1.0, 2.0], [1.0, 3.0], [0.0, 0.0], [1.0, 3.0], [1.0, 2.0]]]))
        2
    """
    found = set()
    for matrix in matrices:
        tall = upright(matrix)
        live = live_rows(tall)
        if not len(live):
            continue
        first = tall[live[0]]
        column = int(first.abs().argmax())
        alike = tall[tall[:, column] == first[column]]
        if int((alike == first).all(1).sum()) == 1:
            return 1
        counts = torch.unique(tall[live], dim=0, return_counts=True)[1]
        found.update(counts.tolist())
        if len(found) > 1:
            return 1
    return found.pop() if found else 1


def upright(matrix: Float[Tensor, "rows cols"]) -> Float[Tensor, "long short"]:
    """The matrix or its transpose, whichever has no fewer rows than columns."""
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T


def live_rows(matrix: Float[Tensor, "rows cols"]) -> Int[Tensor, " live"]:
    """The rows that are not zero throughout, ascending: those zero so far are looked at in twice as many columns.

    Example:
        >>> live_rows(torch.tensor([[1.0, 2.0], [0.0, 0.0], [0.0, 3.0]])).tolist()
        [0, 2]
    """
    live = torch.zeros(len(matrix), dtype=torch.bool, device=matrix.device)
    zero, begin, width = torch.arange(len(matrix), device=matrix.device), 0, 1
    while len(zero) and begin < matrix.shape[1]:
        seen = (matrix[zero, begin : begin + width] != 0).any(1)
        live[zero[seen]] = True
        zero, begin = zero[~seen], begin + width
        width = min(2 * width, max(BLOCK_ELEMENTS // max(len(zero), 1), 1))
    return live.nonzero()[:, 0]
