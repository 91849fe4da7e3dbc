"""`wb.farms`: the tail exponent of every weight matrix at one aspect ratio."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

from torch import Tensor

from workbench.errors import ArgumentError, nearest
from workbench.layers import Conv, Layer, Run, Selection, layer_run
from workbench.linalg import resolved_device
from workbench.progress import ProgressCallback
from workbench.results import LAYER_COLUMNS, Column, LayerResult, many
from workbench.spectra.farms_layer import Rules, Sampling, layer_farms, shape_row
from workbench.spectra.power_law import Xmin, checked_xmin
from workbench.spectra.spectrum import Spectrum
from workbench.weights import ModelLike

WINDOW = 100  # rows: FARMS' setting for vision models, and the default in its released code for both
STEPS = 9  # windows per axis: FARMS' setting for vision models
NUMBERS = "alpha alpha_error ks_distance xmin alpha_full alpha_full_error coverage".split()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Farms(LayerResult):
    """Tail exponents of windows of one aspect ratio, one row per layer.

    Attributes:
        eigenvalues: layer id → λ of all windows, ascending, float64. Above 65536 of them as many evenly spaced order
            statistics are kept, from the smallest to the largest; `num_eigenvalues` counts all. Layers that failed
            have none.
    """

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "layers": {
            **LAYER_COLUMNS,
            "rows": Column("rows of each matrix", int, low=1),
            "cols": Column("columns of each matrix", int, low=1),
            "matrices": Column("matrices whose windows are analysed", int, low=1),
            "window_rows": Column("rows of each window", int, low=0),
            "window_cols": Column("columns of each window", int, low=0),
            "windows": Column("windows in all matrices", int, low=0),
            "coverage": Column("share of the matrices' elements that lie in a window", low=0, high=1),
            "num_eigenvalues": Column("eigenvalues in all: windows · min(window_rows, window_cols)", int, low=0),
            "alpha": Column("power-law exponent α = 1 + n/Σ ln(λ/xmin) of the pooled windows' tail", low=1),
            "alpha_error": Column("standard deviation of α over resampled windows", low=0),
            "ks_distance": Column("largest distance of the tail's one-sided empirical CDF and the fit", low=0, high=1),
            "xmin": Column("λ at which the tail begins", unit="λ", low=0),
            "tail_size": Column("number n of eigenvalues in the tail", int, low=0),
            "alpha_full": Column("α of the full matrix under the same rule, with its aspect-ratio bias", low=1),
            "alpha_full_error": Column("(α − 1)/√n of that fit, as in a Spectrum", low=0),
        },
        "excluded": Spectrum.COLUMNS["excluded"],
    }
    NEXT: ClassVar[str] = ".frame(), wb.figure(farms)"

    eigenvalues: Mapping[str, Tensor]

    def facts(self) -> str:
        """Layers, windows, what was excluded, and whether the run was stopped."""
        table, parameters, counts = self.tables["layers"], self.meta["parameters"], self.verdict_counts()
        return (
            f"{self.title}: {many(len(table['verdict']), 'layer')}{f' ({counts})' if counts else ''}, "
            f"{many(sum(table['windows']), 'window')} of {many(parameters['window'], 'row')} at aspect ratio "
            f"{parameters['aspect_ratio']:g} ({parameters['sampling']}), "
            f"{many(len(self.tables['excluded']['tensor']), 'tensor')} excluded{self.stopped()}"
        )


def farms(
    model: ModelLike,
    *,
    layers: Selection = None,
    aspect_ratio: float = 1.0,
    window: int = WINDOW,
    stride: int | None = None,
    steps: int | None = None,
    sampling: Sampling = "cover",
    xmin: Xmin = "median",
    conv: Conv = "slices",
    resamples: int = 100,
    full: bool = True,
    seed: int = 0,
    device: str = "auto",
    cache: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
) -> Farms:
    """The tail exponent α = 1 + n/Σ ln(λ/xmin) of the pooled eigenvalues of equal windows of each weight matrix.

    The α of a full matrix depends on its aspect ratio even for pure noise; windows of one aspect ratio share one bias,
    so that layers of different shapes compare.

    Args:
        model: anything `wb.load` takes.
        layers: names, globs or a predicate of a Layer; None for all.
        aspect_ratio: columns per row of a window, 1 as in all published settings.
        window: rows of a window. 100 is the paper's setting for vision models and lets layers of 100 rows and more
            compare; it took 2000 for LLaMA.
        stride: most rows between neighbouring windows (for columns as much of a window's width); None for half a
            window. Of `cover` only.
        steps: windows per axis, 9 if None as in the paper's vision models (10 to 15 in its LLaMA). Of `reference` only.
        sampling: `cover` spreads windows from edge to edge over every row and column and pools all of them; a window
            that does not fit is shrunk at its aspect ratio. `reference` takes the windows of the released code.
        xmin: where the tail begins: `median` (λ[n//2], the paper's rule for vision), `peak` (its rule for LLaMA),
            `search` (the λ that minimises D), or a number λ > 0.
        conv: `slices` takes windows of the matrix of every kernel position, oriented tall; `flatten` those of the one
            out×(in·positions) matrix.
        resamples: resamples of the windows behind `alpha_error`; 0 for none.
        full: False leaves `alpha_full` NaN and saves its cost.
        seed: of the resamples, per layer.
        device: `auto`, `cpu` or `cuda`.
        cache: a folder that keeps finished layers by content fingerprint and parameters.
        progress: called before each layer with a Progress; it may raise `wb.Cancelled`.

    Returns:
        A Farms: a row per layer with `alpha`, its bootstrap standard error and `alpha_full`, the eigenvalues, and a
        table of what was excluded and why. A layer that cannot be analysed is a row with the verdict `failed`.

    Raises:
        CheckpointError: the model cannot be opened.
        LayerNotFoundError: the selection matches nothing.
        ArgumentError: an argument is out of its range, or belongs to the other sampling.
        Cancelled: the callback asked for it; `.partial` is the Farms of the layers that were done.

    Cost: 7/3·n³ flops a square window in float64, about 4·rows·cols/n² windows for `cover`; and a spectrum of the full
    matrix for `alpha_full`, unless full=False. Threads as in `wb.spectrum`. `search` and `peak` refit 512 quantiles a
    resample.

    Source: "Eigenspectrum Analysis of Neural Networks without Aspect Ratio Bias" (FARMS, ICML 2025, arXiv 2506.06280)
    and its released code. Ours: windows that reach every row and column, the standard error, zero eigenvalues
    (λ ≤ ε·N·λmax) left out, float64. `reference` takes convolutions as the released vision code does: slices scaled
    by √½, floor(rows/cols) row blocks, λ pooled over the slices of a block, α, D and xmin averaged over blocks.

    Misreads: α of a window is not the α of its matrix, and depends on the window's size where a layer is structured;
    compare at one `window`, and mind the layers whose `reason` says it was shrunk. Pure noise has α = 2.12 at aspect
    ratio 1 under `median`; noise with entries beyond about √window standard deviations is called heavier: one of
    them rules its window. `alpha_error` is the spread over windows of this matrix: it knows nothing of other seeds,
    and is too small where rows or columns differ in scale.

    Example:
        >>> import torch
        >>> result = farms({"fc.weight": torch.eye(64)}, window=32)
        >>> row = result.row("fc")
        >>> row["windows"], row["coverage"], row["num_eigenvalues"], row["verdict"]
        (9, 1.0, 288, 'no tail')
    """
    rules = checked_rules(
        aspect_ratio=aspect_ratio,
        window=window,
        stride=stride,
        steps=steps,
        sampling=sampling,
        xmin=xmin,
        conv=conv,
        resamples=resamples,
        seed=seed,
        full=full,
    )
    place = resolved_device(device)
    parameters = vars(rules) | {"stride": stride, "steps": steps}
    del parameters["seed"]
    return layer_run(
        model,
        layers,
        lambda layer, tensor: layer_farms(layer, tensor, rules=rules, device=place),
        lambda run: _farms(run, rules),
        function="wb.farms",
        parameters=parameters,
        seed=seed,
        device=place,
        cache=cache,
        progress=progress,
    )


def checked_rules(
    *,
    aspect_ratio: float,
    window: int,
    stride: int | None,
    steps: int | None,
    sampling: Sampling,
    xmin: Xmin,
    conv: Conv,
    resamples: int,
    seed: int,
    full: bool,
) -> Rules:
    """The arguments of `farms` as rules.

    Raises:
        ArgumentError: an argument is out of its range, or belongs to the other sampling.
    """
    samplings = ("cover", "reference")
    if sampling not in samplings:
        raise ArgumentError(f"sampling={sampling!r}: expected 'cover' or 'reference'." + nearest(sampling, samplings))
    if isinstance(aspect_ratio, bool) or not isinstance(aspect_ratio, Real) or not 0 < aspect_ratio < math.inf:
        raise ArgumentError(f"aspect_ratio={aspect_ratio!r}: expected a positive number, columns per row of a window.")
    if not _whole(window, 2):
        raise ArgumentError(f"window={window!r}: expected a whole number of rows, 2 or more.")
    if stride is not None and (sampling == "reference" or not _whole(stride, 1) or stride > window):
        raise ArgumentError(
            f"stride={stride!r}: expected a whole number from 1 to window={window} (a longer one leaves rows out), "
            "and sampling='cover'; the windows of 'reference' follow from steps."
        )
    if steps is not None and (sampling == "cover" or not _whole(steps, 2)):
        raise ArgumentError(
            f"steps={steps!r}: expected a whole number of windows per axis, 2 or more, and sampling='reference'; "
            "the windows of 'cover' follow from stride."
        )
    if conv not in ("slices", "flatten"):
        raise ArgumentError(f"conv={conv!r}: expected 'slices' or 'flatten'.")
    if sampling == "reference" and conv != "slices":
        raise ArgumentError("sampling='reference' takes the slices of a convolution; got conv='flatten'. Drop one.")
    if not _whole(resamples, 0) or resamples == 1:
        raise ArgumentError(f"resamples={resamples!r}: expected a whole number, 2 or more, or 0 for no standard error.")
    if not isinstance(full, bool):
        raise ArgumentError(f"full={full!r}: expected True or False.")
    if not _whole(seed, -math.inf):
        raise ArgumentError(f"seed={seed!r}: expected a whole number.")
    return Rules(
        aspect_ratio=float(aspect_ratio),
        window=int(window),
        stride=stride,
        steps=steps or STEPS,
        sampling=sampling,
        xmin=checked_xmin(xmin),
        conv=conv,
        resamples=int(resamples),
        seed=int(seed),
        full=full,
    )


def _whole(value: object, least: float) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _failed(layer: Layer, rules: Rules, reason: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(NUMBERS, math.nan)
    row |= dict.fromkeys(("window_rows", "window_cols", "windows", "num_eigenvalues", "tail_size"), 0)
    return row | {"verdict": "failed", "reason": reason} | shape_row(layer, rules)


def _farms(run: Run, rules: Rules) -> Farms:
    rows = {"layers": run.rows("layers", lambda layer, reason: _failed(layer, rules, reason))}
    rows["excluded"] = run.excluded()
    tables = {name: Farms.columns(name, inside) for name, inside in rows.items()}
    return Farms(tables=tables, meta=run.meta, eigenvalues=run.tensors("eigenvalues"))
