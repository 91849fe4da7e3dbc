"""Connectivity: permutation groups, matching, barriers, landscapes."""

from workbench.connectivity.groups import PermutationGroups, permutation_groups
from workbench.connectivity.permutations import Permutations

__all__ = ["PermutationGroups", "Permutations", "permutation_groups"]
