"""What changed between models, which part of it is robustness, and models made of several."""

from workbench.signatures.merge import merge

__all__ = ["merge"]
