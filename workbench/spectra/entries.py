"""What the entries of matrices tell of noise and its eigenvalues do not: rare large ones, and rows there twice."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.linalg.gram import row_blocks


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


def copies(matrices: Float[Tensor, "matrices rows cols"]) -> int:
    """How often every row of the longer side is there, if it is the same for all that are not zero; else 1.

    m copies of N rows of noise have m times the eigenvalues of the N rows, and so their shape.

    Args:
        matrices: finite matrices of one shape, any floating dtype.

    Cost: one pass; a sort of all rows only where that of the largest entry is there more than once.

    Example:
        >>> copies(torch.tensor([[[1.0, 2.0], [1.0, 3.0], [0.0, 0.0], [1.0, 3.0], [1.0, 2.0]]]))
        2
    """
    found = set()
    for matrix in matrices:
        tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
        row, column = divmod(int(tall.argmax()), tall.shape[1])
        if not tall[row, column] > 0:  # none is positive, and the row may be a dead one
            row, column = divmod(int(tall.argmin()), tall.shape[1])
        alike = tall[tall[:, column] == tall[row, column]]
        if int((alike == tall[row]).all(1).sum()) == 1:
            return 1
        counts = tall[(tall != 0).any(1)].unique(dim=0, return_counts=True)[1]
        found.update(counts.tolist())
        if len(found) > 1:
            return 1
    return found.pop() if found else 1
