"""Matrix views of tensors, their order of depth, and how to choose among them."""

from workbench.layers.contents import Contents, contents
from workbench.layers.run import Run, found, layer_run
from workbench.layers.selection import Selection, selected, selected_views
from workbench.layers.table import LayerTable, layers
from workbench.layers.views import Conv, Exclusion, Layer, layer_list, layer_views, matrices

__all__ = [
    "Contents",
    "Conv",
    "Exclusion",
    "Layer",
    "LayerTable",
    "Run",
    "Selection",
    "contents",
    "found",
    "layer_list",
    "layer_run",
    "layer_views",
    "layers",
    "matrices",
    "selected",
    "selected_views",
]
