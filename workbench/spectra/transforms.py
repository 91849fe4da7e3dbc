"""SVD smoothing and sharpening: weights whose matrices keep some singular values only, or lose their traps."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ArgumentError, LayerError, nearest
from workbench.layers import Conv, Layer, Selection, layer_views, matrices, selected
from workbench.linalg import gram
from workbench.results import many, short_source
from workbench.seeds import generator
from workbench.spectra.det_x import det_x
from workbench.spectra.marchenko_pastur import largest_noise_eigenvalue
from workbench.spectra.norms import zero_threshold
from workbench.spectra.power_law import power_law
from workbench.weights import ModelLike, TensorInfo, Weights, load

Keep = Literal["det_x", "xmin", "noise"] | int | float
RULES = ("det_x", "xmin", "noise")

LEVEL = 0.01  # chance that a matrix of noise has a singular value called a spike
BLOCK_ELEMENTS = 1 << 20  # elements upcast at a time, as for Gram matrices
PASSES = 8  # of the noise's variance; noise with some spikes settles in two or three


def smoothed(weights: ModelLike, *, layers: Selection = None, keep: Keep = "det_x", conv: Conv = "slices") -> Weights:
    """Every weight matrix as its leading part W_k = Σ σᵢ uᵢ vᵢᵀ over the k largest singular values.

    Args:
        weights: anything `wb.load` takes.
        layers: names, globs or a predicate of a Layer; None for all.
        keep: how many singular values of each matrix stay. An int: that many; a float in (0, 1]: that share of
            min(rows, cols), rounded down, but one at least; `det_x`: the tail whose rescaled eigenvalues have the
            product 1 (the default as in WeightWatcher); `xmin`: the tail of the searched power law; `noise`: those
            above the edge of noise with the variance of all that is not above it (`detail="noise"` of a spectrum takes
            σ from the bulk's median, and may count more: see `noise_edge`). Rules look at a layer's pooled eigenvalues,
            so a kernel position may keep none.
        conv: `slices` takes each out×in matrix of a convolution, `flatten` the one out×(in·positions) matrix.

    Returns:
        Weights with the names, shapes and dtypes of before, computed each time a tensor is read. What is no matrix
        or was not selected passes bit for bit, and so does a layer where a rule finds nothing to cut at.

    Raises:
        CheckpointError: the weights cannot be opened.
        LayerNotFoundError: the selection matches nothing.
        ArgumentError: `keep` or `conv` is none of these.
        LayerError: on reading, a layer has NaN or infinite elements.

    Cost: the header; per matrix read 2·N·M² + 9·M³ flops in float64.

    Source: Eckart & Young (1936); WeightWatcher 0.7.7, `SVDSmoothing` (its methods svd, detX, lambda_min, rmt). Ours:
    exact projections where it uses a randomised SVD of seven iterations; for a convolution one threshold where it
    keeps ⌈k/positions⌉ of every position, so the cut is the best of its rank over all positions.

    Misreads: singular values below 1e-8·σmax are not told apart by a Gram matrix. Rounded to the dtype of before the
    matrix has a full rank again, with singular values of the size of the rounding. Fewer singular values are not
    fewer parameters.

    Example:
        >>> import torch
        >>> flat = smoothed({"fc.weight": torch.diag(torch.tensor([3.0, 2.0, 1.0]))}, keep=2)
        >>> flat["fc.weight"].diagonal().tolist()
        [3.0, 2.0, 0.0]
    """
    keep = checked_keep(keep)

    def transform(layer: Layer, given: Tensor) -> Tensor:
        return kept(given, keep)

    return _derived(load(weights), layers, conv, transform, f"smoothed, keep={keep!r}")


def sharpened(weights: ModelLike, *, layers: Selection = None, conv: Conv = "slices", seed: int = 0) -> Weights:
    """Every weight matrix without its correlation traps: singular values that its elements make in any order.

    The elements are shuffled, singular values of the shuffled matrix above the noise's edge are set to the edge, and
    the order is restored. What was learned as a direction is not seen by the shuffled matrix and stays; single
    elements so large that they make a direction by themselves are reduced.

    Args:
        weights: anything `wb.load` takes.
        layers: names, globs or a predicate of a Layer; None for all.
        conv: as for `smoothed`.
        seed: any integer; with the layer's id it decides the order.

    Returns:
        Weights as of `smoothed`; a layer without traps passes bit for bit.

    Raises:
        CheckpointError: the weights cannot be opened.
        LayerNotFoundError: the selection matches nothing.
        ArgumentError: `conv` is neither of these.
        LayerError: on reading, a layer has NaN or infinite elements.

    Cost: as of `smoothed`, and a random permutation of the elements.

    Source: WeightWatcher 0.7.7, `SVDSharpness`, as it is described. The released code counts the traps of the
    shuffled matrix and then sets as many leading singular values of the matrix in its own order to zero, which are
    what was learned. Ours: the shuffled matrix is what is changed, and clipped instead of emptied.

    Misreads: a trap's singular vectors hold what shares its row or column in the shuffled order: those N + M elements,
    others for another seed, shrink with it. Weights with heavy-tailed elements have many traps, and lose much.

    Example:
        >>> import torch
        >>> noise = torch.randn(60, 80, generator=torch.Generator().manual_seed(0))
        >>> trapped = noise.clone()
        >>> trapped[3, 5] = 100.0
        >>> flat = sharpened({"fc.weight": noise, "trap.weight": trapped})
        >>> bool((flat["fc.weight"] == noise).all()), bool(flat["trap.weight"][3, 5] < 20)
        (True, True)
    """

    def transform(layer: Layer, given: Tensor) -> Tensor:
        return untrapped(given, generator(seed, layer.layer))

    return _derived(load(weights), layers, conv, transform, f"sharpened, seed={seed}")


def checked_keep(keep: Keep) -> Keep:
    """`keep` itself, if it is a rule, a positive number of singular values or a share of them.

    Raises:
        ArgumentError: it is none of these.
    """
    if isinstance(keep, str):
        if keep in RULES:
            return keep
    elif not isinstance(keep, bool) and isinstance(keep, int | float) and keep > 0 and (type(keep) is int or keep <= 1):
        return keep
    expected = f"expected {', '.join(map(repr, RULES))}, a number of singular values (int ≥ 1) or a share in (0, 1]"
    raise ArgumentError(f"keep={keep!r}: {expected}." + (nearest(keep, RULES) if isinstance(keep, str) else ""))


def kept(given: Float[Tensor, "matrices rows cols"], keep: Keep) -> Float[Tensor, "matrices rows cols"]:
    """The matrices with their leading singular values only; the same object where nothing is cut.

    Args:
        given: matrices of one layer, of any floating dtype.
        keep: as for `smoothed`, already checked.
    """
    count, rows, cols = given.shape
    width = min(rows, cols)
    if isinstance(keep, int) and keep >= width:
        return given
    eigenvalues, vectors = _eigen(given)
    if isinstance(keep, str):
        cut = _cut(eigenvalues.flatten().sort().values, keep, rows, cols, count, given.dtype)
        numbers = (eigenvalues >= cut).sum(1).tolist()
    else:
        numbers = [keep if isinstance(keep, int) else max(1, math.floor(keep * width * (1 + 1e-12)))] * count
    if all(number >= width for number in numbers):
        return given
    leading = (
        _scaled(one, basis, torch.cat([basis.new_zeros(width - number), basis.new_ones(number)]))
        for one, basis, number in zip(given, vectors, numbers, strict=True)
    )
    return torch.stack(list(leading))


def untrapped(
    given: Float[Tensor, "matrices rows cols"], draws: torch.Generator
) -> Float[Tensor, "matrices rows cols"]:
    """The matrices, clipped at the noise's edge in a random order of their elements; the same object if none is above.

    Args:
        given: matrices of one layer, of any floating dtype.
        draws: a CPU generator for the orders.
    """
    count, rows, cols = given.shape
    flat = given.flatten(1)
    orders = [torch.randperm(flat.shape[1], generator=draws, device="cpu").to(flat.device) for _ in flat]
    shuffled = torch.stack([one[order] for one, order in zip(flat, orders, strict=True)]).reshape(given.shape)
    eigenvalues, vectors = _eigen(shuffled)
    edge = noise_edge(eigenvalues.flatten().sort().values, rows, cols, count)
    if not bool((eigenvalues > edge).any()):
        return given
    factors = (edge / eigenvalues).sqrt().clamp(max=1)
    result = torch.empty_like(flat)
    for one, basis, factor, order, place in zip(shuffled, vectors, factors, orders, result, strict=True):
        place[order] = _scaled(one, basis, factor).flatten()
    return result.reshape(given.shape)


def noise_edge(eigenvalues: Float[Tensor, " n"], rows: int, cols: int, matrices: int = 1) -> float:
    """The λ that the largest eigenvalue of noise with the spectrum's variance exceeds with the chance 1 %.

    The variance is that of the elements without the spikes, σ² = Σλ/((N−k)(M−k)) over the rest, repeated until no
    spike is added. The edge is σ²·(μ + s·t) of Johnstone and Ma with t of the Tracy–Widom law.

    `marchenko_pastur_fit` has another: it takes the directions of spikes for the bulk's. With 40 spikes in noise of
    300×200 its edge is 11 % too low, which would keep noise; this one is 1 % too low. And its median is that of the
    smaller variances where there are several: of noise whose rows differ in scale (log-normal, σ = 0.5) it calls 42 of
    200 eigenvalues spikes, this 25.

    Args:
        eigenvalues: all λ of the layer's matrices, ascending, float64.
        rows: rows of each matrix.
        cols: columns of each.
        matrices: number of matrices.

    Source: as of `largest_noise_eigenvalue`.

    Misreads: spikes that hold nearly all the variance hide the smaller among them: of 80 in 200×200 noise, 1.5 to 3
    times its largest singular value, it finds 10.
    """
    factor = largest_noise_eigenvalue(max(rows, cols), min(rows, cols), matrices, LEVEL)
    spikes, edge = 0, math.inf
    for _ in range(PASSES):
        gone = spikes / matrices
        variance = float(eigenvalues[: len(eigenvalues) - spikes].sum()) / matrices
        edge = factor * variance / ((rows - gone) * (cols - gone))
        beyond = int((eigenvalues > edge).sum())
        if beyond <= spikes or beyond == len(eigenvalues):
            break
        spikes = beyond
    return edge


def _cut(pooled: Tensor, rule: str, rows: int, cols: int, count: int, dtype: torch.dtype) -> float:
    """The smallest λ that a rule keeps; zero where it finds nothing to cut at."""
    positive = pooled[pooled > zero_threshold(pooled, max(rows, cols))]
    if rule == "det_x":
        cut = det_x(positive).xmin
    elif rule == "xmin":
        cut = power_law(positive, "search", resolution=torch.finfo(dtype).eps).xmin
    else:
        edge = noise_edge(pooled, rows, cols, count)
        cut = edge if len(positive) and edge < float(positive[-1]) else math.nan
    return 0.0 if math.isnan(cut) else cut


def _eigen(given: Tensor) -> tuple[Float[Tensor, "matrices small"], Float[Tensor, "matrices small small"]]:
    """Eigenvalues λ = σ², ascending, and eigenvectors of each matrix's Gram matrix of the smaller side."""
    grams = torch.stack([gram(one) for one in given])
    if not bool(torch.isfinite(grams.sum())):
        bad = int((~torch.isfinite(given)).sum())
        raise LayerError(f"{bad} of {given.numel()} elements are NaN or infinite, or their squares overflow float64")
    eigenvalues, vectors = torch.linalg.eigh(grams)
    return eigenvalues.clamp(min=0), vectors


def _scaled(matrix: Tensor, basis: Tensor, factors: Tensor) -> Tensor:
    """W with each singular value times its factor, in blocks; `basis` are the singular vectors of the smaller side."""
    upright = matrix.shape[0] >= matrix.shape[1]
    tall = matrix if upright else matrix.T
    few = int((factors == 0).sum()) * 2 > len(factors)  # few stay: built from nothing up, else by what is taken away
    weights = factors if few else factors - 1
    used = weights != 0
    inward, outward = basis[:, used] * weights[used], basis[:, used].T
    result = torch.empty_like(tall)
    step = max(BLOCK_ELEMENTS // tall.shape[1], 1)
    for begin in range(0, len(tall), step):
        block = tall[begin : begin + step].double()
        product = (block @ inward) @ outward
        result[begin : begin + step] = product if few else block + product
    return result if upright else result.T


def _derived(
    base: Weights, layers: Selection, conv: Conv, transform: Callable[[Layer, Tensor], Tensor], what: str
) -> Weights:
    """The base with the matrices of its selected layers transformed as tensors are read."""
    if conv not in ("slices", "flatten"):
        raise ArgumentError(f"conv={conv!r}: expected 'slices' or 'flatten'.")
    chosen: dict[str, list[Layer]] = {}
    for layer in selected(layer_views(base), layers, short_source(base.source)):
        chosen.setdefault(layer.tensor, []).append(layer)

    def read(info: TensorInfo) -> Tensor:
        inside = chosen.get(info.tied_to or info.name)
        return _replaced(base[info.name].contiguous(), inside, conv, transform) if inside else base[info.name]

    def borrow(info: TensorInfo) -> Tensor:
        return read(info) if (info.tied_to or info.name) in chosen else base.borrowed(info.name)

    return Weights(
        list(base.infos.values()),
        read,
        source=f"{base.source} ({what})",
        notes=[*base.notes, _note(chosen, layers, conv, what)],
        ordered=base.ordered,
        metadata=base.metadata,
        borrow=borrow,
    )


def _replaced(
    tensor: Tensor, inside: Sequence[Layer], conv: Conv, transform: Callable[[Layer, Tensor], Tensor]
) -> Tensor:
    """The tensor, which is ours to write to, with the matrices of some layers transformed."""
    for layer in inside:
        given = matrices(layer, tensor, conv)
        try:
            new = transform(layer, given)
        except LayerError as error:
            raise LayerError(f"{layer.layer}: {error}") from error
        if new is given:
            continue
        own = layer.part.of(tensor) if layer.part else tensor
        if own.ndim == 2:
            own.copy_(new[0])
        else:  # kernel positions: where each element came from, seen the same way
            numbers = torch.arange(tensor.numel(), dtype=torch.float64, device=tensor.device)  # exact below 2⁵³
            places = matrices(layer, numbers.reshape(tensor.shape), conv).flatten().long()
            tensor.view(-1)[places] = new.flatten()
    return tensor


def _note(chosen: Mapping[str, Sequence[Layer]], layers: Selection, conv: Conv, what: str) -> str:
    names = [layer.layer for inside in chosen.values() for layer in inside]
    listed = "" if layers is None else f": {', '.join(names[:4])}{', …' if len(names) > 4 else ''}"
    return f"{what}, conv={conv!r}: the matrices of {many(len(names), 'layer')}, computed as they are read{listed}"
