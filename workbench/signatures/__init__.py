"""What changed between networks, which part of it is robustness, and networks made of several."""

from workbench.signatures.diff import Diff, diff
from workbench.signatures.merge import METHODS as MERGE_METHODS
from workbench.signatures.merge import merge
from workbench.signatures.merge_method import MergeMethod
from workbench.signatures.patched import Patched
from workbench.signatures.signature import Signature, signature
from workbench.signatures.similarity import Similarity, similarity

__all__ = [
    "MERGE_METHODS",
    "Diff",
    "MergeMethod",
    "Patched",
    "Signature",
    "Similarity",
    "diff",
    "merge",
    "signature",
    "similarity",
]
