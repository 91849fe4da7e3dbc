"""Tensors by name: what tells them from all others, and what they are stored in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TypeAlias

from torch import Tensor, nn

from workbench.weights.weights import content_fingerprint

Tensors: TypeAlias = Mapping[str, Tensor]


def fingerprint_of(tensors: Tensors) -> str:
    """One fingerprint of names, shapes, dtypes and contents."""
    rows = "\n".join(f"{name} {content_fingerprint(tensors[name])}" for name in sorted(tensors))
    return hashlib.blake2b(rows.encode(), digest_size=16).hexdigest()


def module_fingerprint(module: nn.Module) -> str:
    """The fingerprint of a module's parameters and buffers as they are, tied ones once."""
    return fingerprint_of(dict([*module.named_parameters(), *module.named_buffers()]))


def dtypes_of(tensors: Tensors) -> str:
    """The dtypes of the real numbers among them, as text."""
    return ", ".join(
        sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values() if tensor.is_floating_point()})
    )
