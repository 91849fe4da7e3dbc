"""Connectivity: permutation groups, matching, barriers, landscapes."""

from workbench.connectivity.alignment import singular_alignment
from workbench.connectivity.barrier import Barrier, barrier
from workbench.connectivity.groups import PermutationGroups, permutation_groups
from workbench.connectivity.match import match
from workbench.connectivity.match_many import match_many
from workbench.connectivity.matching import Matching
from workbench.connectivity.permutations import Permutations
from workbench.connectivity.repair import repair
from workbench.connectivity.surface import Surface, surface
from workbench.connectivity.weight_matching import MatchingProgress

__all__ = [
    "Barrier",
    "Matching",
    "MatchingProgress",
    "PermutationGroups",
    "Permutations",
    "Surface",
    "barrier",
    "match",
    "match_many",
    "permutation_groups",
    "repair",
    "singular_alignment",
    "surface",
]
