"""Where FARMS' windows lie on a matrix, and the eigenvalues inside them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.linalg.gram import product, symmetric_eigenvalues


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Equal windows on a grid: one at every pair of a top and a left.

    Attributes:
        height: rows of each window.
        width: columns of each window.
        tops: first rows, ascending.
        lefts: first columns, ascending.
    """

    height: int
    width: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.tops) * len(self.lefts)

    @property
    def elements(self) -> int:
        """Elements that lie in one window or more."""
        return _union(self.tops, self.height) * _union(self.lefts, self.width)

    @property
    def disjoint(self) -> int:
        """How many windows without overlap have as many elements, rounded up: the independent part of the sample."""
        return math.ceil(self.elements / (self.height * self.width))


def cover(rows: int, cols: int, *, window: int, aspect_ratio: float, stride: int | None) -> Windows:
    """Windows that cover every row and every column, evenly spread from edge to edge.

    A window that does not fit is shrunk to the largest of its shape that does.

    Args:
        rows: rows of the matrix.
        cols: columns of the matrix.
        window: rows n of a window; it has round(n·aspect_ratio) columns.
        aspect_ratio: columns per row of a window.
        stride: most rows from one window to the next, and as much of a window's width; None for half a window.
    """
    height = min(window, rows, math.floor((cols + 0.5) / aspect_ratio))
    while height > 1 and round(height * aspect_ratio) > cols:
        height -= 1
    height = max(height, 1)
    width = min(max(round(height * aspect_ratio), 1), cols)
    step = min(stride or max(height // 2, 1), height)
    return Windows(
        height=height,
        width=width,
        tops=even_starts(rows, height, step),
        lefts=even_starts(cols, width, max(step * width // height, 1)),
    )


def even_starts(length: int, size: int, stride: int) -> tuple[int, ...]:
    """Fewest evenly spread starts from 0 to length − size that are no more than `stride` apart."""
    last = length - size
    gaps = math.ceil(last / stride)
    return tuple(round(gap * last / gaps) for gap in range(gaps + 1)) if gaps else (0,)


def reference(rows: int, cols: int, *, window: int, aspect_ratio: float, steps: int) -> Windows:
    """The windows that FARMS' released code takes of a linear layer.

    The step is floor((length − size)/(steps − 1)) in each axis, so trailing rows are left out. Where the window is
    longer than the axis its one start is negative, and Python counts that from the end: the code then sees the last
    window − length elements of the axis, or all where the window is twice as long.
    """
    width = max(int(window * aspect_ratio), 1)
    tops, height = _released_axis(rows, window, steps)
    lefts, width = _released_axis(cols, width, steps)
    return Windows(height=height, width=width, tops=tops, lefts=lefts)


def reference_blocks(rows: int, cols: int, *, aspect_ratio: float) -> Windows:
    """The row blocks that FARMS' released code takes of a tall slice of a convolution: floor(rows/cols), no overlap."""
    height = max(int(cols // aspect_ratio), 1) if aspect_ratio > 1 else cols
    width = cols if aspect_ratio > 1 else max(int(cols // (1 / aspect_ratio)), 1)
    return Windows(height=height, width=width, tops=tuple(n * height for n in range(rows // cols)), lefts=(0,))


def window_eigenvalues(
    matrices: Float[Tensor, "matrices rows cols"], windows: Windows
) -> Float[Tensor, "matrices tops lefts small"]:
    """Eigenvalues λ = σ² of every window of every matrix, ascending within a window, in float64.

    Where windows overlap much, the Gram matrix of a whole strip of rows is cheaper than theirs, which are its blocks.

    Args:
        matrices: finite matrices of one shape, any floating dtype.
        windows: where the windows lie.

    Cost: n·m² + 4/3·m³ flops a window for its longer and shorter side n and m; the first term once for a strip of
    overlapping windows. Memory: a strip in float64 and the Gram matrices of its windows.
    """
    height, width, cols = windows.height, windows.width, matrices.shape[2]
    if width > height or (width == height and cols > matrices.shape[1]):  # the shorter side has the smaller Gram
        turned = Windows(height=width, width=height, tops=windows.lefts, lefts=windows.tops)
        return window_eigenvalues(matrices.transpose(1, 2), turned).transpose(1, 2)
    shared = cols**2 < len(windows.lefts) * width**2
    found = []
    for matrix in matrices:
        for top in windows.tops:
            strip = matrix[top : top + height].to(torch.float64)
            if shared:
                whole = product(strip)
                grams = [whole[left : left + width, left : left + width] for left in windows.lefts]
            else:
                grams = [product(strip[:, left : left + width]) for left in windows.lefts]
            found.append(symmetric_eigenvalues(grams))
    return torch.stack(found).clamp_min_(0).reshape(len(matrices), len(windows.tops), len(windows.lefts), width)


def _released_axis(length: int, size: int, steps: int) -> tuple[tuple[int, ...], int]:
    """Starts along one axis and what of it each window sees."""
    if size > length:
        return (max(2 * length - size, 0),), min(size - length, length)
    step = max(1, (length - size) // (steps - 1))
    return tuple(n * step for n in range(min(steps, (length - size) // step + 1))), size


def _union(starts: Sequence[int], size: int) -> int:
    """Length of the union of the intervals of one size that begin at ascending starts."""
    gaps = (min(after - before, size) for before, after in zip(starts, starts[1:], strict=False))
    return sum(gaps) + (size if starts else 0)
