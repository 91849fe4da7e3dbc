"""Random numbers that depend on a seed and a name, and on nothing else."""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator for one named unit of work, independent of order, device and the global state.

    The stream is keyed by BLAKE2b of `seed/name`, so one layer alone draws what it draws among many.

    Args:
        seed: any integer; the caller's `seed` argument.
        name: the unit's name, by convention the layer id.

    Returns:
        A `torch.Generator` on the CPU. The global generator is not touched.

    Example:
        >>> a, b = generator(0, "fc1"), generator(0, "fc1")
        >>> bool((torch.rand(3, generator=a) == torch.rand(3, generator=b)).all())
        True
    """
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return torch.Generator(device="cpu").manual_seed(int.from_bytes(digest, "little") >> 1)
