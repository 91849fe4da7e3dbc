"""One α per layer for those who use it: of FARMS' windows, or of the full matrices."""

import os
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, Literal, TypeVar

from workbench.errors import ArgumentError, Cancelled, nearest
from workbench.layers import Selection
from workbench.progress import ProgressCallback
from workbench.spectra.farms import WINDOW, Farms, farms
from workbench.spectra.power_law import Xmin
from workbench.spectra.spectrum import Spectrum, spectrum
from workbench.weights import Weights

R = TypeVar("R")

Estimator = Literal["farms", "spectrum"]

EQUAL = 1e-9  # relative: α of equal matrices differ by roundings, which no range is to be stretched over


def layer_alphas(
    weights: Weights,
    *,
    estimator: Estimator,
    xmin: Xmin,
    window: int | None,
    stride: int | None,
    layers: Selection,
    device: str,
    cache: str | os.PathLike[str] | None,
    progress: ProgressCallback | None,
) -> Farms | Spectrum:
    """A result with the columns `layer depth verdict reason alpha`, by one of two estimators.

    Raises:
        ArgumentError: an unknown estimator, a window or a stride for one that has none, or what the estimator refuses.
    """
    if estimator == "farms":
        size = WINDOW if window is None else window
        return farms(
            weights,
            layers=layers,
            xmin=xmin,
            window=size,
            stride=stride,
            resamples=0,
            full=False,
            device=device,
            cache=cache,
            progress=progress,
        )
    if estimator != "spectrum":
        message = f"estimator={estimator!r}: expected 'farms' or 'spectrum'."
        raise ArgumentError(message + nearest(estimator, ("farms", "spectrum")))
    if window is not None or stride is not None:
        raise ArgumentError(
            f"window={window!r}, stride={stride!r} go with estimator='farms'; full matrices have no windows. Drop them."
        )
    return spectrum(weights, layers=layers, xmin=xmin, device=device, cache=cache, progress=progress)


def estimated(built: Callable[[Farms | Spectrum], R], weights: Weights, **options: Any) -> R:
    """What is built of `layer_alphas`, also where a cancel comes after its last layer.

    Raises:
        Cancelled: with the estimate so far, or with what was built of the whole.
    """
    try:
        estimate = layer_alphas(weights, **options)
    except Cancelled as stop:
        if "cancelled" not in stop.partial.meta:
            stop.partial = built(stop.partial)
        raise
    return built(estimate)


def estimate_meta(estimate: Farms | Spectrum) -> dict[str, Any]:
    """What the provenance of a result takes over from that of its estimate."""
    meta: Mapping[str, Any] = estimate.meta
    names = ("fingerprints", "dtype", "device", "cache")
    return {name: meta[name] for name in names if name in meta} | {"seed": None}


def is_number(value: object) -> bool:
    """Whether an argument is a real number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def positions(values: list[float]) -> list[float]:
    """(v − min)/(max − min) of each value; ½ for all where they are equal to 1e-9.

    Example:
        >>> positions([2.0, 3.0, 4.0]), positions([3.0, 3.0])
        ([0.0, 0.5, 1.0], [0.5, 0.5])
    """
    if not values:
        return []
    low, high = min(values), max(values)
    if high - low <= EQUAL * abs(high):
        return [0.5] * len(values)
    return [(value - low) / (high - low) for value in values]
