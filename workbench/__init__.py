"""Look inside trained networks: a library of analysis primitives and the explorers they drive.

import workbench as wb

spectrum = wb.spectrum("model.safetensors")
spectrum.frame()
wb.figure(spectrum, "esd", layer="fc1").save("esd.pdf")
wb.ui.SpectrumExplorer("model.safetensors")
"""

from typing import Any

from workbench.atlas import Atlas, atlas
from workbench.connectivity import (
    Barrier,
    Matching,
    MatchingProgress,
    PermutationGroups,
    Permutations,
    Surface,
    barrier,
    match,
    match_many,
    permutation_groups,
    repair,
    surface,
)
from workbench.degeneracy import (
    Ablation,
    Activations,
    Degeneracy,
    InteractionBasis,
    InteractionGraph,
    InteractionModules,
    ablated,
    ablation,
    activations,
    degeneracy,
    interaction_basis,
    interaction_graph,
    interaction_modules,
)
from workbench.errors import (
    ArgumentError,
    Cancelled,
    CheckpointError,
    CheckpointNotFoundError,
    FigureError,
    LayerError,
    LayerNotFoundError,
    ResultError,
    SourceTypeError,
    WorkbenchError,
)
from workbench.figures import FigureSpec, figure
from workbench.layers import Contents, Layer, LayerTable, contents, layers
from workbench.progress import Progress
from workbench.results import Result
from workbench.runtime import EvaluationError, Evaluator, evaluator
from workbench.sharing import Doctor, cite, doctor, export
from workbench.signatures import (
    MERGE_METHODS,
    Diff,
    Patched,
    Signature,
    Similarity,
    diff,
    merge,
    signature,
    similarity,
)
from workbench.spectra import (
    AlphaPruning,
    Comparison,
    Farms,
    Spectrum,
    TempBalance,
    TempBalanceScheduler,
    alphapruning,
    comparison,
    farms,
    sharpened,
    smoothed,
    spectrum,
    tempbalance,
)
from workbench.stored import open_result
from workbench.version import __version__ as __version__
from workbench.weights import ModelLike, Weights, labelled, load, save

__all__ = [
    "MERGE_METHODS",
    "Ablation",
    "Activations",
    "AlphaPruning",
    "ArgumentError",
    "Atlas",
    "Barrier",
    "Cancelled",
    "CheckpointError",
    "CheckpointNotFoundError",
    "Comparison",
    "Contents",
    "Degeneracy",
    "Diff",
    "Doctor",
    "EvaluationError",
    "Evaluator",
    "Farms",
    "FigureError",
    "FigureSpec",
    "InteractionBasis",
    "InteractionGraph",
    "InteractionModules",
    "Layer",
    "LayerError",
    "LayerNotFoundError",
    "LayerTable",
    "Matching",
    "MatchingProgress",
    "ModelLike",
    "Patched",
    "PermutationGroups",
    "Permutations",
    "Progress",
    "Result",
    "ResultError",
    "Signature",
    "Similarity",
    "SourceTypeError",
    "Spectrum",
    "Surface",
    "TempBalance",
    "TempBalanceScheduler",
    "Weights",
    "WorkbenchError",
    "ablated",
    "ablation",
    "activations",
    "alphapruning",
    "atlas",
    "barrier",
    "cite",
    "comparison",
    "contents",
    "degeneracy",
    "diff",
    "doctor",
    "evaluator",
    "export",
    "farms",
    "figure",
    "interaction_basis",
    "interaction_graph",
    "interaction_modules",
    "labelled",
    "layers",
    "load",
    "match",
    "match_many",
    "merge",
    "open_result",
    "permutation_groups",
    "repair",
    "save",
    "sharpened",
    "signature",
    "similarity",
    "smoothed",
    "spectrum",
    "surface",
    "tempbalance",
]


def __getattr__(name: str) -> Any:
    if name != "ui":
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    import importlib

    try:
        return importlib.import_module("workbench_widgets")
    except ModuleNotFoundError as error:
        if error.name == "workbench_widgets":
            raise
        raise ModuleNotFoundError(
            f"the explorers need {error.name}: pip install 'weight-workbench[lab]'", name=error.name
        ) from error


def __dir__() -> list[str]:
    return [*__all__, "ui"]
