"""Connectivity: permutation groups, matching, barriers, landscapes."""

from workbench.connectivity.alignment import singular_alignment
from workbench.connectivity.groups import PermutationGroups, permutation_groups
from workbench.connectivity.match import match, match_many
from workbench.connectivity.matching import Matching
from workbench.connectivity.permutations import Permutations
from workbench.connectivity.weight_matching import MatchingProgress

__all__ = [
    "Matching",
    "MatchingProgress",
    "PermutationGroups",
    "Permutations",
    "match",
    "match_many",
    "permutation_groups",
    "singular_alignment",
]
