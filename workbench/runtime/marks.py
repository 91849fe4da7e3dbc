"""What tells outputs apart without keeping them, and two inputs on which they differ."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from workbench.errors import ArgumentError
from workbench.runtime.activations import MASK
from workbench.runtime.passing import Call, by_sample, first_samples

SAMPLES = 8  # enough to see whether anything gets around a layer
LARGE = 1 << 14  # numbers in an input above which fewer samples are taken, since each has many
TOKEN = 64  # numbers that one token stands for, being embedded
ROUNDING = 1e-12  # of an output's norm


class Mark(NamedTuple):
    """An output's shape and its product uᵀFv with random vectors, with and without one sample."""

    shape: tuple[int, ...]
    whole: float
    rest: float
    norm: float

    def same(self, other: Mark) -> bool:
        """Whether the outputs are alike but for rounding; NaN is like NaN."""
        return self.shape == other.shape and self.close(other, ROUNDING * max(self.norm, other.norm))

    def close(self, other: Mark, tolerance: float) -> bool:
        """Whether the products differ by no more than the tolerance."""
        return abs(self.whole - other.whole) <= tolerance

    def same_rest(self, other: Mark) -> bool:
        """Whether all samples but the one are alike."""
        return abs(self.rest - other.rest) <= ROUNDING * max(self.norm, other.norm)


def mark_of(output: Tensor, left_out: int) -> Mark:
    """The mark of an output; the sample `left_out` on its first axis is not in `rest`."""
    shape = tuple(output.shape)
    if not output.numel():
        return Mark(shape, 0.0, 0.0, 0.0)
    matrix = output.detach().reshape(-1, shape[-1] if shape else 1).double()
    if not math.isfinite(float(norm := torch.linalg.vector_norm(matrix))):
        # other numbers stand for what is not finite, so that where it is counts as well
        matrix = matrix.nan_to_num(0.1, 0.2, 0.3)
        norm = torch.linalg.vector_norm(matrix)
    random = torch.Generator().manual_seed(0)
    right, left = (
        torch.randn(size, generator=random, dtype=torch.float64) for size in (shape[-1:] or (1,), len(matrix))
    )
    products = (matrix @ right.to(matrix.device)) * left.to(matrix.device)
    rows = len(matrix) // shape[0] if shape else 1
    whole = float(products.sum())
    return Mark(shape, whole, whole - float(products[left_out * rows : (left_out + 1) * rows].sum()), float(norm))


def few(call: Call, size: int) -> Call:
    """The first samples of a batch: 8, and down to 2 where a sample is large."""
    numbers = [
        part[0].numel() * (1 if part.is_floating_point() else TOKEN) for part in tensors(call) if by_sample(part, size)
    ]
    samples = max(2, min(SAMPLES, LARGE // max(1, *numbers, 1)))
    return first_samples(call, size, samples)


def other_input(call: Call) -> tuple[Call, Call, int]:
    """Another input of the same form, one with a single sample of it, and which one.

    Samples change places; where they are all alike, noise is added or tokens change places. A mask stays, as it is no
    input but says what is one.

    Raises:
        ArgumentError: neither makes another input.
    """
    size = sample_count(call)

    def changed(how: Any) -> Call:
        def part(value: Any) -> Any:
            return how(value) if by_sample(value, size) else value

        named = {name: value if name == MASK else part(value) for name, value in call[1].items()}
        return tuple(part(value) for value in call[0]), named

    for how in (lambda value: value.roll(1, 0), _noisy):
        other = changed(how)
        for sample in range(size):
            single = changed(lambda value, how=how, sample=sample: _with_sample(value, how(value), sample))
            if any(not torch.equal(a, b) for a, b in zip(tensors(call), tensors(single), strict=True)):
                return other, single, sample
    raise ArgumentError("the samples of the first batch are all alike, so that no layer can be tested: give others.")


def tensors(call: Call) -> list[Tensor]:
    """The tensors that a module is called with."""
    return [part for part in (*call[0], *call[1].values()) if isinstance(part, Tensor)]


def sample_count(call: Call) -> int:
    """Number of samples: the length of the first tensor."""
    return len(tensors(call)[0])


def _with_sample(value: Tensor, other: Tensor, sample: int) -> Tensor:
    new = value.clone()
    new[sample] = other[sample]
    return new


def _noisy(value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value.flip(-1)
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    return value + noise.to(value.device, value.dtype)
