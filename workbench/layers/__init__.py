"""Matrix views of tensors, their order of depth, and how to choose among them."""

from workbench.layers.selection import Selection, selected
from workbench.layers.table import LayerTable, layers
from workbench.layers.views import Conv, Exclusion, Layer, layer_list, layer_views, matrices

__all__ = [
    "Conv",
    "Exclusion",
    "Layer",
    "LayerTable",
    "Selection",
    "layer_list",
    "layer_views",
    "layers",
    "matrices",
    "selected",
]
