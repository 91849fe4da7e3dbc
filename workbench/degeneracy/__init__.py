"""Degeneracy: activations, gradients, interaction bases and graphs, their modules and ablations, and the audit."""

from workbench.degeneracy.ablated import ablated
from workbench.degeneracy.ablation import Ablation, ablation
from workbench.degeneracy.activations import Activations, activations
from workbench.degeneracy.audit import Degeneracy, degeneracy
from workbench.degeneracy.basis import InteractionBasis
from workbench.degeneracy.interaction_basis import interaction_basis
from workbench.degeneracy.interaction_graph import InteractionGraph, interaction_graph
from workbench.degeneracy.modules import InteractionModules, interaction_modules

__all__ = [
    "Ablation",
    "Activations",
    "Degeneracy",
    "InteractionBasis",
    "InteractionGraph",
    "InteractionModules",
    "ablated",
    "ablation",
    "activations",
    "degeneracy",
    "interaction_basis",
    "interaction_graph",
    "interaction_modules",
]
