"""Results joined by layer, and how their columns go together."""

from workbench.atlas.atlas import Atlas, atlas

__all__ = ["Atlas", "atlas"]
