"""Degeneracy: activations, gradients, interaction bases and graphs, and the audit of all three."""
