"""Signatures: what changed between networks, and which part of it is robustness."""

from workbench.signatures.patched import Patched
from workbench.signatures.signature import Signature, signature
from workbench.signatures.similarity import Similarity, similarity

__all__ = ["Patched", "Signature", "Similarity", "signature", "similarity"]
