"""The exact k-th largest magnitude of numbers that are read piece by piece, however many there are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.errors import LayerError

BITS = 16  # of a magnitude that are looked at in one pass
INTEGERS = {torch.float32: (torch.int32, 31), torch.float64: (torch.int64, 63)}  # the same bytes; bits without the sign


@dataclass(frozen=True, kw_only=True)
class Largest:
    """Which magnitudes are the k largest of all.

    Attributes:
        value: the k-th largest; infinity for k = 0.
        above: how many are larger.
        equal: how many are as large.
        kept: how many of those are among the k: the first ones.
    """

    value: float
    above: int
    equal: int
    kept: int


Walk = Callable[[], Iterable[tuple[str, Tensor]]]  # (name of a tensor, some of its numbers), all in one dtype


def passes(dtype: torch.dtype) -> int:
    """How many walks `largest` takes."""
    return math.ceil(INTEGERS[dtype][1] / BITS)


def largest(walk: Walk, count: int, dtype: torch.dtype) -> Largest:
    """The k = `count` largest of |x|, by radix selection: a histogram of 16 bits of them a pass.

    The bits of a float without its sign are an integer that grows with its magnitude.

    Args:
        walk: goes through all numbers in the same order each time.
        count: k.
        dtype: float32 or float64, of the numbers.

    Raises:
        LayerError: a number is NaN or infinite.

    Cost: two walks for float32, four for float64; 0.5 MB.
    """
    if not count:
        return Largest(value=math.inf, above=0, equal=0, kept=0)
    integers, bits = INTEGERS[dtype]
    first_infinite = int(torch.tensor(math.inf, dtype=dtype).view(integers))
    prefix, above, shift = 0, 0, bits
    while shift:
        width = min(BITS, shift)
        shift -= width
        histogram = torch.zeros(1 << width, dtype=torch.int64)
        for name, numbers in walk():
            magnitudes = numbers.abs().view(integers)
            if shift + width == bits:
                if len(magnitudes) and int(magnitudes.max()) >= first_infinite:
                    raise LayerError(
                        f"{name}: a difference to the base is NaN or infinite, which has no rank by size: expected "
                        "finite tensors, or the same in base and model, as of a mask."
                    )
                digits = magnitudes >> shift
            else:
                inside = (magnitudes >> (shift + width)) == prefix
                digits = (magnitudes[inside] >> shift) & ((1 << width) - 1)
            histogram += torch.bincount(digits, minlength=1 << width)
        at_least = histogram.flip(0).cumsum(0).flip(0)  # how many have this digit or a larger one
        digit = int((at_least >= count - above).nonzero().max())
        above += int(at_least[digit] - histogram[digit])
        prefix = (prefix << width) | digit
    value = float(torch.tensor(prefix, dtype=integers).view(dtype))
    return Largest(value=value, above=above, equal=int(histogram[digit]), kept=count - above)
