"""`wb.figure`: from a result to what is drawn of it."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from workbench.atlas import Atlas
from workbench.connectivity.barrier import Barrier
from workbench.connectivity.groups import PermutationGroups
from workbench.connectivity.matching import Matching
from workbench.connectivity.surface import Surface
from workbench.degeneracy.ablation import Ablation
from workbench.degeneracy.activations import Activations
from workbench.degeneracy.audit import Degeneracy
from workbench.degeneracy.basis import InteractionBasis
from workbench.degeneracy.interaction_graph import InteractionGraph
from workbench.degeneracy.modules import InteractionModules
from workbench.errors import FigureError, nearest
from workbench.figures.ablation import curve
from workbench.figures.atlas import correlation_map, pairs, scatter
from workbench.figures.change_spectra import extraction, overlaps, singular
from workbench.figures.comparison import first_and_last, trajectory
from workbench.figures.connectivity import path, plane
from workbench.figures.contents import heat_map, histogram, magnitudes
from workbench.figures.degeneracy import activation_spectrum, ranks, spectra, weights
from workbench.figures.density import eigenvalue_density, window_density
from workbench.figures.diff import cosines, lorenz, ranked
from workbench.figures.interaction_graph import layered_graph, module_graph, module_sizes
from workbench.figures.layers import sizes
from workbench.figures.matching import alignment, graph, objective, reduction
from workbench.figures.similarity import similarity_map
from workbench.figures.spec import FigureSpec
from workbench.figures.spectra import alpha_over_depth, farms_over_depth
from workbench.figures.uses import learning_rate_over_depth, sparsity_over_depth
from workbench.layers import Contents, LayerTable
from workbench.results import Result
from workbench.signatures import Diff, Similarity
from workbench.spectra import AlphaPruning, Comparison, Farms, Spectrum, TempBalance

Drawing = Callable[..., FigureSpec]

KINDS: Mapping[type[Result], Mapping[str, Drawing]] = {
    Spectrum: {"alpha": alpha_over_depth, "esd": eigenvalue_density},
    Farms: {"alpha": farms_over_depth, "esd": window_density},
    TempBalance: {"learning_rate": learning_rate_over_depth},
    AlphaPruning: {"sparsity": sparsity_over_depth},
    Comparison: {"trajectory": trajectory, "change": first_and_last},
    LayerTable: {"sizes": sizes},
    Contents: {"rms": magnitudes, "histogram": histogram, "heatmap": heat_map},
    Barrier: {"barrier": path},
    Surface: {"surface": plane},
    PermutationGroups: {"graph": graph},
    Matching: {"objective": objective, "reduction": reduction, "alignment": alignment},
    Activations: {"spectrum": activation_spectrum},
    Degeneracy: {"ranks": ranks, "spectra": spectra},
    InteractionBasis: {"weights": weights},
    InteractionGraph: {"graph": layered_graph},
    Ablation: {"ablation": curve},
    InteractionModules: {"graph": module_graph, "modularity": module_sizes},
    Similarity: {"cosine": similarity_map},
    Diff: {
        "norms": ranked,
        "cosines": cosines,
        "lorenz": lorenz,
        "extraction": extraction,
        "singular": singular,
        "overlap": overlaps,
    },
    Atlas: {"correlations": correlation_map, "pairs": pairs, "scatter": scatter},
}
SEVERAL = (Barrier, Ablation)  # kinds of results that one figure shows several of, by their labels


def figure(
    result: Result | Mapping[str, Result],
    kind: str | None = None,
    *,
    layer: str | None = None,
    xmin: float | None = None,
    **options: Any,
) -> FigureSpec:
    """What a result looks like: a FigureSpec that plotly and matplotlib draw alike.

    Args:
        result: what an analysis returned; of Barriers or Ablations also several by their labels, as in
            `{"before": barrier, "after": matched}`.
        kind: which figure; None for the first. Spectrum: `alpha` (α over depth), `esd` (one layer's eigenvalue
            density and fit, with noise and shuffled elements if the result has those details). Farms: `alpha` (α of
            the windows beside α of the full matrix), `esd`. Comparison: `trajectory` (the metric over the sequence of
            models), `change` (the first model beside the last). TempBalance: `learning_rate`. AlphaPruning: `sparsity`.
            LayerTable: `sizes`. Contents: `rms` (magnitudes over depth), `histogram`, `heatmap`. Barrier: `barrier`
            (loss along the line, accuracy beside it). Surface: `surface` (loss on the plane with contours).
            PermutationGroups: `graph` (groups over the parameters that have them, and their units). Matching:
            `objective` (objective and distance per sweep), `reduction` (of every parameter's distance), `alignment`
            (of singular vectors, per layer and γ, before and after). Activations: `spectrum` (eigenvalues of a layer's
            covariance; without a layer, ranks over depth). Degeneracy: `ranks` (of activations and gradients over
            depth), `spectra` (of one layer). InteractionBasis: `weights` (Λ by direction of one layer, or of all).
            InteractionGraph: `graph` (layers of directions, their strongest edges). Ablation: `ablation` (loss and
            accuracy by what is kept). InteractionModules: `graph` (directions by module), `modularity` (sizes of the
            modules, and Q beside that of null graphs). Similarity: `cosine` (a map of all pairs). Diff:
            `norms` (changes by rank, with the floor), `cosines` (of several models' changes, clustered), `lorenz`,
            `extraction` (what a LoRA holds), `singular` (σ after over σ before), `overlap` (of the change's directions
            with the base's). Atlas: `correlations` (a map of ρ, and of what the controls leave), `pairs` (columns
            against each other, a layer one id in all panels), `scatter` (two columns).
        layer: the layer that a figure of one layer shows (it may be left out where there is only one), and that the
            others ring.
        xmin: where `esd` fits the tail anew; None for the result's own fit.
        options: further arguments of one kind. `spectra`: threshold=, a share of the largest eigenvalue. `weights`:
            direction=, which is ringed. `graph` of an InteractionGraph: modules= (InteractionModules for its colours),
            names= for these, nodes= and edges=, how many are drawn. Of a Diff: model=, the one that is drawn. `pairs`:
            columns=, two to four. `scatter`: x= and y=, columns. All of an Atlas: method= `rho` or `tau`.

    Returns:
        A FigureSpec: shown as a picture in a notebook, `.save("figure.pdf")` for print, `.to_plotly()` for more.

    Raises:
        FigureError: the result has no such figure, or nothing to draw, or the figure has no such option.
        ArgumentError: an option is out of its range.
        LayerNotFoundError: the layer is not in the result.

    Example:
        >>> import torch, workbench as wb
        >>> figure(wb.layers(torch.nn.Linear(3, 2))).kind
        'sizes'
    """
    shown: Any = result
    if isinstance(result, Mapping):
        first = shown = next(iter(result.values()), None)
        if not isinstance(first, SEVERAL) or any(type(one) is not type(first) for one in result.values()):
            held = ", ".join(sorted({type(one).__name__ for one in result.values()})) or "nothing"
            raise FigureError(
                f"a figure of several results by label takes Barriers, or Ablations; got a mapping of {held}."
            )
    kinds = KINDS.get(type(shown))
    if kinds is None:
        known = ", ".join(one.__name__ for one in KINDS)
        raise FigureError(f"there is no figure of {_one(shown)}; there are figures of {known}.")
    kind = next(iter(kinds)) if kind is None else kind
    if kind not in kinds:
        message = f"{_one(shown)} has the figures {list(kinds)}, not {kind!r}."
        raise FigureError(message + nearest(kind, kinds))
    taken = [name for name, one in inspect.signature(kinds[kind]).parameters.items() if one.kind is one.KEYWORD_ONLY]
    if unknown := next((name for name in options if name not in taken), None):
        known = f"it takes {', '.join(f'{name}=' for name in taken)}" if taken else "it takes no options"
        raise FigureError(f"{unknown}= does not go with the figure {kind!r}: {known}.")
    if xmin is None:
        return kinds[kind](result, layer, **options)
    if isinstance(xmin, bool) or not isinstance(xmin, int | float):
        raise FigureError(f"xmin={xmin!r}: expected a number, an eigenvalue at which the tail begins.")
    if kind != "esd":
        raise FigureError(f"xmin goes with the figure 'esd', which fits the tail anew; got {kind!r}.")
    return kinds[kind](result, layer, xmin)


def _one(result: object) -> str:
    name = type(result).__name__
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
