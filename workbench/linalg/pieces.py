"""Tensors a piece at a time, in one dtype on one device, where whole copies would count in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

MOST_UPCAST = 1 << 22  # elements at a time, 34 MB
IN_CACHE = 1 << 16  # elements at a time where nothing is gained by more: fresh memory costs more than the arithmetic
CPU = torch.device("cpu")


def flat_pieces(
    *tensors: Tensor, dtype: torch.dtype = torch.float64, size: int = IN_CACHE, device: torch.device = CPU
) -> Iterator[tuple[Tensor, ...]]:
    """Consecutive elements of several tensors of one size, as vectors of one dtype on one device.

    They are for reading only, and only until the next are asked for: what must be cast or moved goes through memory
    that is used again, and what need not is the tensor's own.

    Args:
        tensors: of any dtypes, on any devices.
        dtype: of the pieces.
        size: elements at a time; more where one of the tensors is not on the CPU, as each move there costs the same.
        device: of the pieces: the CPU but where the result belongs elsewhere.

    Example:
        >>> [[piece.tolist() for piece in pieces] for pieces in flat_pieces(torch.eye(2), torch.ones(4))]
        [[[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]]
    """
    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    most = size if all(one.device == CPU for one in flat) else max(size, MOST_UPCAST)
    longest = min(most, max(one.numel() for one in flat))
    buffers = [
        None if (one.dtype, one.device) == (dtype, device) else torch.empty(longest, dtype=dtype, device=device)
        for one in flat
    ]
    for parts in zip(*(torch.split(one, most) for one in flat), strict=True):
        yield tuple(
            part if buffer is None else buffer[: len(part)].copy_(part)
            for part, buffer in zip(parts, buffers, strict=True)
        )
