"""Connectivity: permutation groups, matching, barriers, landscapes."""

from workbench.connectivity.barrier import Barrier, barrier
from workbench.connectivity.groups import PermutationGroups, permutation_groups
from workbench.connectivity.permutations import Permutations
from workbench.connectivity.repair import repair
from workbench.connectivity.surface import Surface, surface

__all__ = [
    "Barrier",
    "PermutationGroups",
    "Permutations",
    "Surface",
    "barrier",
    "permutation_groups",
    "repair",
    "surface",
]
