"""Tensors in float64 a piece at a time, where whole copies would count in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

MOST_UPCAST = 1 << 22  # elements at a time, 34 MB
IN_CACHE = 1 << 16  # elements at a time where nothing is gained by more: fresh memory costs more than the arithmetic


def flat_pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Consecutive elements of several tensors of one size, as vectors in float64.

    Example:
        >>> [[piece.tolist() for piece in pieces] for pieces in flat_pieces(torch.eye(2), torch.ones(4))]
        [[[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]]
    """
    most = IN_CACHE if all(tensor.device.type == "cpu" for tensor in tensors) else MOST_UPCAST
    for pieces in zip(*(torch.split(tensor.reshape(-1), most) for tensor in tensors), strict=True):
        yield tuple(piece.double() for piece in pieces)
