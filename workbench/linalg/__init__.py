"""Shared mathematics."""

from workbench.linalg.device import resolved_device
from workbench.linalg.gram import gram, gram_eigenvalues, stable_rank
from workbench.linalg.moments import Moments

__all__ = ["Moments", "gram", "gram_eigenvalues", "resolved_device", "stable_rank"]
