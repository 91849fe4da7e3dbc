"""Tensors in b bits an element: codes between a lowest and a highest value, really packed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from workbench.errors import ArgumentError
from workbench.linalg.pieces import flat_pieces

BITS = range(2, 9)
HEADER = 8  # bytes a tensor: lowest and highest value, float32, little-endian
PIECE = 1 << 16  # elements at a time; a multiple of 8, so that pieces begin at whole bytes


def payload(elements: int, bits: int) -> int:
    """Bytes of one packed tensor: ⌈n·b/8⌉ and 8 for its two ends.

    Example:
        >>> payload(72, 4), payload(3, 3)
        (44, 10)
    """
    return HEADER + (elements * bits + 7) // 8


def check_bits(bits: int) -> None:
    """Refuses a number of bits that codes cannot have.

    Raises:
        ArgumentError: it is no whole number from 2 to 8.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or bits not in BITS:
        raise ArgumentError(f"bits={bits!r}: expected a whole number from 2 to 8, or None to store every bit.")


def packed(tensor: Float[Tensor, "*shape"], bits: int) -> UInt8[Tensor, " bytes"]:
    """Codes k = round((x − lo)·(2^b − 1)/(hi − lo)), b bits each, behind lo and hi.

    Args:
        tensor: finite values within float32's range.
        bits: b, from 2 to 8.

    Returns:
        `payload(n, bits)` bytes. lo and hi are the smallest and largest value, rounded outwards to float32; an empty
        tensor has two zeros.

    Source: uniform affine quantisation, as in the RWS paper's storage study; its code keeps the codes as floats and
    calls levels bits.
    """
    flat = tensor.detach().reshape(-1).cpu()
    low, high = _ends(flat)
    scale = (2**bits - 1) / (high - low) if high > low else 0.0
    pieces = [np.array([low, high], "<f4").view(np.uint8)]
    for (piece,) in flat_pieces(flat, size=PIECE) if flat.numel() else ():
        codes = ((piece - low) * scale).round().clamp_(0, 2**bits - 1).to(torch.uint8).numpy()
        digits = (codes[:, None] >> np.arange(bits, dtype=np.uint8)) & 1
        pieces.append(np.packbits(digits, bitorder="little"))
    return torch.from_numpy(np.concatenate(pieces))


def unpacked(
    data: UInt8[Tensor, " bytes"], shape: Sequence[int], bits: int, dtype: torch.dtype
) -> Float[Tensor, "*shape"]:
    """The tensor that `packed` stored: x = lo + k·(hi − lo)/(2^b − 1), within (hi − lo)/(2·(2^b − 1)) of what it was.

    Raises:
        ArgumentError: the bytes are not as many as the shape needs, or their ends are no range.

    Example:
        >>> unpacked(packed(torch.tensor([0.0, 0.4, 3.0]), 2), [3], 2, torch.float32).tolist()
        [0.0, 0.0, 3.0]
    """
    elements = math.prod(shape)
    if data.numel() != payload(elements, bits):
        raise ArgumentError(
            f"{data.numel()} bytes for {elements} elements of {bits} bits: expected {payload(elements, bits)}."
        )
    raw = data.numpy()
    low, high = (float(end) for end in raw[:HEADER].copy().view("<f4"))
    if not low <= high < math.inf or low == -math.inf:
        raise ArgumentError(f"the ends of the codes are {low:g} and {high:g}: expected a finite range.")
    step, found = (high - low) / (2**bits - 1), torch.empty(elements, dtype=dtype)
    weights = (1 << np.arange(bits)).astype(np.uint8)
    for start, codes in _codes(raw[HEADER:], elements, bits, weights):
        found[start : start + len(codes)] = torch.from_numpy(low + codes * step)
    return found.reshape(tuple(shape))


def _codes(
    raw: UInt8[np.ndarray, " bytes"], elements: int, bits: int, weights: UInt8[np.ndarray, " bits"]
) -> Iterator[tuple[int, Float[np.ndarray, " piece"]]]:
    """Where each piece begins, and its codes."""
    for start in range(0, elements, PIECE):
        count = min(PIECE, elements - start)
        part = raw[start * bits // 8 : (start * bits + count * bits + 7) // 8]
        digits = np.unpackbits(part, count=count * bits, bitorder="little").reshape(count, bits)
        yield start, (digits @ weights).astype(np.float64)


def _ends(flat: Float[Tensor, " elements"]) -> tuple[float, float]:
    """Smallest and largest value, rounded outwards to float32.

    Raises:
        ArgumentError: they are not finite in float32.
    """
    if not flat.numel():
        return 0.0, 0.0
    exact = float(flat.min()), float(flat.max())
    with np.errstate(over="ignore"):
        low, high = (np.float32(end) for end in exact)
        low = np.nextafter(low, np.float32(-np.inf)) if low > exact[0] else low
        high = np.nextafter(high, np.float32(np.inf)) if high < exact[1] else high
    if not np.isfinite(low) or not np.isfinite(high):
        raise ArgumentError(f"values from {exact[0]:g} to {exact[1]:g} cannot be packed: float32 does not hold them.")
    return float(low), float(high)
