"""`wb.figure`: from a result to what is drawn of it."""

from collections.abc import Callable, Mapping
from typing import Any

from workbench.errors import FigureError, nearest
from workbench.figures.layers import sizes
from workbench.figures.spec import FigureSpec
from workbench.figures.spectra import alpha_over_depth, eigenvalue_density, farms_over_depth
from workbench.figures.uses import learning_rate_over_depth, sparsity_over_depth
from workbench.layers import LayerTable
from workbench.results import Result
from workbench.spectra import AlphaPruning, Farms, Spectrum, TempBalance

Drawing = Callable[[Any, str | None], FigureSpec]

KINDS: Mapping[type[Result], Mapping[str, Drawing]] = {
    Spectrum: {"alpha": alpha_over_depth, "esd": eigenvalue_density},
    Farms: {"alpha": farms_over_depth},
    TempBalance: {"learning_rate": learning_rate_over_depth},
    AlphaPruning: {"sparsity": sparsity_over_depth},
    LayerTable: {"sizes": sizes},
}


def figure(result: Result, kind: str | None = None, *, layer: str | None = None) -> FigureSpec:
    """What a result looks like: a FigureSpec that plotly and matplotlib draw alike.

    Args:
        result: what an analysis returned.
        kind: which figure; None for the first. Spectrum: `alpha` (α over depth), `esd` (one layer's eigenvalue
            density and fit). Farms: `alpha` (α of the windows beside α of the full matrix).
            TempBalance: `learning_rate`. AlphaPruning: `sparsity`. LayerTable: `sizes`.
        layer: the layer that `esd` shows, and that the others ring.

    Returns:
        A FigureSpec: shown as a picture in a notebook, `.save("figure.pdf")` for print, `.to_plotly()` for more.

    Raises:
        FigureError: the result has no such figure, or nothing to draw.
        LayerNotFoundError: the layer is not in the result.

    Example:
        >>> import torch, workbench as wb
        >>> figure(wb.layers(torch.nn.Linear(3, 2))).kind
        'sizes'
    """
    kinds = KINDS.get(type(result))
    if kinds is None:
        known = ", ".join(one.__name__ for one in KINDS)
        raise FigureError(f"there is no figure of a {type(result).__name__}; there are figures of {known}.")
    kind = next(iter(kinds)) if kind is None else kind
    if kind not in kinds:
        message = f"a {type(result).__name__} has the figures {list(kinds)}, not {kind!r}."
        raise FigureError(message + nearest(kind, kinds))
    return kinds[kind](result, layer)
