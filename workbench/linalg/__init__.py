"""Shared mathematics."""

from workbench.linalg.device import resolved_device
from workbench.linalg.gram import gram, gram_eigenvalues

__all__ = ["gram", "gram_eigenvalues", "resolved_device"]
