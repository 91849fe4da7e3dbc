"""What each tensor operation does to axes."""

from workbench.connectivity.rules import contractions, images, normalisation, pointwise, recurrent, shapes
from workbench.connectivity.rules.call import LOOKED_UP, RULES, Axes, AxesOf, TracedCall, is_axes

__all__ = [
    "LOOKED_UP",
    "RULES",
    "Axes",
    "AxesOf",
    "TracedCall",
    "contractions",
    "images",
    "is_axes",
    "normalisation",
    "pointwise",
    "recurrent",
    "shapes",
]
