"""Signatures: what changed between models, and which part of it is robustness."""

from workbench.signatures.diff import Diff, diff

__all__ = ["Diff", "diff"]
