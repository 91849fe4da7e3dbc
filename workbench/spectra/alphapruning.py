"""`wb.alphapruning`: how much of each layer to prune, from the tail exponents of its weights."""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from workbench.errors import ArgumentError, LayerNotFoundError, nearest
from workbench.layers import Layer, Selection, layer_list, layer_views, selected
from workbench.progress import ProgressCallback
from workbench.results import LAYER_COLUMNS, Column, LayerResult, many, short_source
from workbench.spectra.farms import Farms
from workbench.spectra.layer_alphas import Estimator, estimate_meta, estimated, is_number, positions
from workbench.spectra.power_law import Xmin
from workbench.spectra.spectrum import Spectrum
from workbench.weights import ModelLike, TensorInfo, Weights, load

By = Literal["block", "layer"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AlphaPruning(LayerResult):
    """How much of each layer is pruned, one row per layer; the elements kept add up to what was asked for."""

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "layers": {
            **LAYER_COLUMNS,
            "tensor": Column("the tensor's name", str, ""),
            "block": Column("the layer's id up to its first number that has a name after it; else the id", str, ""),
            "alpha": Column("power-law exponent of the layer, NaN if it has none", low=1),
            "score": Column("the α that decides: the block's mean, or the layer's own; NaN if there is none", low=1),
            "ratio": Column("r = (1 − ε) + (α − α_min)/(α_max − α_min)·2ε; 0 if the layer is not pruned", low=0),
            "elements": Column("elements of the layer", int, low=1),
            "kept": Column("elements that stay", int, low=0),
            "density": Column("kept/elements", low=0, high=1),
            "sparsity": Column("1 − density", low=0, high=1),
        }
    }
    NEXT: ClassVar[str] = ".frame(), wb.save(pruning.apply(model), path), wb.figure(pruning)"

    def facts(self) -> str:
        """Layers, elements kept of those that are pruned, and the range of sparsities."""
        table = self.tables["layers"]
        rows = [row for row, ratio in enumerate(table["ratio"]) if ratio > 0]
        kept, elements = (sum(table[name][row] for row in rows) for name in ("kept", "elements"))
        span = [table["sparsity"][row] for row in rows]
        whole = len(table["layer"]) - len(rows)
        return (
            f"{self.title}: {many(len(rows), 'layer')}, {kept:,} of {elements:,} elements kept "
            f"({kept / max(elements, 1):.4g}), sparsities {min(span, default=0):.3f} to {max(span, default=0):.3f}"
            + (f"; {many(whole, 'layer')} left whole" if whole else "")
        )

    def apply(self, model: ModelLike) -> Weights:
        """The model with the elements of smallest magnitude of each layer set to zero, tensor by tensor when read.

        Of equal magnitudes those that come first are pruned. Names, shapes, dtypes, order and ties stay; a tensor
        without a row is handed on bit for bit.

        Args:
            model: anything `wb.load` takes, with these layers.

        Returns:
            Weights, for `wb.save`, `wb.evaluator` or `module.load_state_dict`.

        Raises:
            CheckpointError: the model cannot be opened.
            LayerNotFoundError: it lacks one of the layers.
            ArgumentError: it has one of another size.
        """
        weights = load(model)
        inside = self._layers_of(weights)

        def read(info: TensorInfo) -> Tensor:
            tensor = weights[info.name]
            for layer, count in inside.get(info.tied_to or info.name, ()):
                own = layer.part.of(tensor) if layer.part else tensor
                own.masked_fill_(~largest(own, layer.elements - count), 0)
            return tensor

        return self._derived(weights, list(weights.infos.values()), read, "pruned by magnitude")

    def masks(self, model: ModelLike) -> Weights:
        """Which elements `apply` keeps: a boolean tensor for each tensor with a row, True where kept.

        Args:
            model: anything `wb.load` takes, with these layers.

        Returns:
            Weights of dtype bool, computed when read, for `wb.save` or to hold zeros in place while fine-tuning.

        Raises:
            As `apply`.
        """
        weights = load(model)
        inside = self._layers_of(weights)

        def read(info: TensorInfo) -> Tensor:
            tensor = weights.borrowed(info.name)
            mask = torch.ones_like(tensor, dtype=torch.bool)
            for layer, count in inside[info.name]:
                own, held = (layer.part.of(one) if layer.part else one for one in (tensor, mask))
                held.copy_(largest(own, layer.elements - count))
            return mask

        infos = [replace(weights.infos[name], dtype=torch.bool) for name in weights if name in inside]
        return self._derived(weights, infos, read, "masks, True where kept,")

    def _layers_of(self, weights: Weights) -> dict[str, list[tuple[Layer, int]]]:
        """Tensor → its layers and how many elements of each are pruned."""
        known = {layer.layer: layer for layer in layer_list(layer_views(weights))}
        table = self.tables["layers"]
        inside: dict[str, list[tuple[Layer, int]]] = {}
        for name, elements, kept in zip(table["layer"], table["elements"], table["kept"], strict=True):
            source = short_source(weights.source)
            if name not in known:
                raise LayerNotFoundError(f"{source} has no layer {name!r} to prune.{nearest(name, known)}")
            if known[name].elements != elements:
                raise ArgumentError(
                    f"{name!r} of {source} has {known[name].elements} elements, {elements} where it was analysed: "
                    "pass that model."
                )
            inside.setdefault(known[name].tensor, []).append((known[name], elements - kept))
        return inside

    def _derived(self, weights: Weights, infos: Sequence[TensorInfo], read: Any, what: str) -> Weights:
        density = self.meta["parameters"]["density"]
        return Weights(
            infos,
            read,
            source=f"{weights.source} pruned",
            notes=[*weights.notes, f"{what} by wb.alphapruning to a density of {density:g}: {self.facts()}"],
            ordered=weights.ordered,
            metadata=weights.metadata,
        )


def alphapruning(
    model: ModelLike,
    *,
    density: float = 0.3,
    epsilon: float = 0.2,
    by: By = "block",
    estimator: Estimator = "farms",
    xmin: Xmin = "median",
    window: int | None = None,
    stride: int | None = None,
    layers: Selection = None,
    device: str = "auto",
    cache: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
) -> AlphaPruning:
    """Layer-wise sparsities sᵢ = rᵢ·S·Σd/Σ(d·r), r = (1 − ε) + (α − α_min)/(α_max − α_min)·2ε, S = 1 − density.

    A layer whose spectrum has a light tail (large α) counts as trained less and is pruned more.

    Args:
        model: anything `wb.load` takes.
        density: the share kept of all elements of the chosen layers, in (0, 1]; the paper's 70 % sparsity by default.
        epsilon: ε in [0, 1), how far the layers' sparsities spread; the paper searches 0.1 to 0.3. 0 is uniform.
        by: `block` gives all layers of a block the mean of their α, as in the paper; `layer` lets each have its own.
            A layer's block is its id up to the first number that has a name after it: `encoder.layer.3` of
            `encoder.layer.3.output.dense`, `layer1.0` of `layer1.0.conv1`; a layer without one is its own block.
        estimator: `farms` takes α of windows of one aspect ratio, `spectrum` α of the full matrices (the paper's).
        xmin: where the tail begins; `peak` is the paper's rule for language models.
        window: rows of FARMS' windows, 100 if None.
        stride: most rows between its windows, half a window if None.
        layers: names, globs or a predicate of a Layer; None for all. What is not chosen is not pruned nor counted.
            The paper's models keep their embeddings and heads whole.
        device: `auto`, `cpu` or `cuda`.
        cache: a folder that keeps finished layers of the estimator by content fingerprint and parameters; a layer
            found there is read and not computed. `.meta["cache"]` counts both.
        progress: called before each layer with a Progress; it may raise `wb.Cancelled`.

    Returns:
        An AlphaPruning: a row per layer with its block, α, sparsity, density and the elements kept, with `.apply` and
        `.masks`. The elements kept are round(density · elements) in all, exactly: where r asks for more than a layer
        has it keeps one element, and the rest is taken from the others in proportion to d·r; fractions are rounded
        by largest remainder. Equal α (to 1e-9) mean r = 1, and so does a layer without α. A layer that cannot be
        analysed (NaN) is left whole and not counted, with the verdict `failed`.

    Raises:
        CheckpointError: the model cannot be opened.
        LayerNotFoundError: the selection matches nothing.
        ArgumentError: an argument is out of its range, there is one layer or block only, or the density leaves
            less than an element a layer.
        Cancelled: the callback asked for it; `.partial` is the estimator's result so far, at the very end the whole.

    Cost: that of `wb.farms` without resamples and full matrices, or of `wb.spectrum`; `.apply` reads a tensor at a
    time, O(elements).

    Source: Lu, Zhou, Liu, Wang, Mahoney & Yang, "AlphaPruning: Using Heavy-Tailed Self Regularization Theory for
    Improved Layer-wise Pruning of Large Language Models" (NeurIPS 2024), section 3, and its released code. Ours:
    windows; a sparsity above 1 is clamped and made up for (the released code lets an index run over); exact counts
    (its `<=` prunes an element more, and all equal ones).

    Misreads: r spreads any difference of α over the whole range. Small layers (a head, a first layer) are ranked with
    large ones by the same scale: choose `layers` if they should stay. Accuracy after pruning is not promised.

    Example:
        >>> import torch
        >>> alpha = lambda a: torch.diag((torch.arange(1, 201) / 200.5) ** (-0.5 / (a - 1)))
        >>> model = {f"{a}.weight": alpha(a) for a in (2, 3, 4)}
        >>> pruning = alphapruning(model, density=0.4, estimator="spectrum", xmin=1.0)
        >>> [round(sparsity, 2) for sparsity in pruning.frame()["sparsity"]]
        [0.48, 0.6, 0.72]
    """
    begin = time.perf_counter()
    if not is_number(density) or not 0 < density <= 1:
        raise ArgumentError(f"density={density!r}: expected the share that is kept, in (0, 1].")
    if not is_number(epsilon) or not 0 <= epsilon < 1:
        raise ArgumentError(f"epsilon={epsilon!r}: expected a number in [0, 1); 0.1 to 0.3 are usual.")
    if by not in ("block", "layer"):
        raise ArgumentError(f"by={by!r}: expected 'block' or 'layer'." + nearest(by, ("block", "layer")))
    weights = load(model)
    chosen = selected(layer_views(weights), layers, short_source(weights.source))
    blocks = {layer.layer: block_of(layer.layer) for layer in chosen}
    groups = blocks if by == "block" else {name: name for name in blocks}
    if len(set(groups.values())) < 2:
        more = "by='layer' compares the layers in it." if len(chosen) > 1 else "choose more layers."
        raise ArgumentError(f"{groups[chosen[0].layer]!r} is the only {by}: α is compared between {by}s; {more}")

    def built(estimate: Farms | Spectrum) -> AlphaPruning:
        rows = [estimate.row(layer.layer) | {"tensor": layer.tensor, "elements": layer.elements} for layer in chosen]
        for row in rows:
            row |= {
                "block": blocks[row["layer"]],
                "score": _mean(one["alpha"] for one in rows if groups[one["layer"]] == groups[row["layer"]]),
            }
        scores = {groups[row["layer"]]: row["score"] for row in rows if math.isfinite(row["score"])}
        places = dict(zip(scores, positions(list(scores.values())), strict=True))
        for row in rows:
            row["ratio"] = 1 - epsilon + 2 * epsilon * places.get(groups[row["layer"]], 0.5)
            if row["verdict"] == "failed":
                row |= {"ratio": 0.0, "score": math.nan, "reason": f"left whole: {row['reason']}"}
            elif not math.isfinite(row["score"]):
                row["reason"] = f"ratio 1: no α; {row['reason']}"
        counts = pruned_counts([row["elements"] for row in rows], [row["ratio"] for row in rows], density)
        for row, pruned in zip(rows, counts, strict=True):
            row["kept"] = row["elements"] - pruned
            row["density"] = row["kept"] / row["elements"]
            row["sparsity"] = pruned / row["elements"]
        parameters = {
            "density": float(density),
            "epsilon": float(epsilon),
            "by": by,
            "estimator": estimator,
            "xmin": estimate.meta["parameters"]["xmin"],
            "window": estimate.meta["parameters"].get("window"),
            "stride": stride,
            "layers": None if layers is None else [layer.layer for layer in chosen],
        }
        meta = weights.provenance("wb.alphapruning", **parameters)
        meta |= estimate_meta(estimate)
        meta["seconds"] = time.perf_counter() - begin
        return AlphaPruning(tables={"layers": AlphaPruning.columns("layers", rows)}, meta=meta)

    return estimated(
        built,
        weights,
        estimator=estimator,
        xmin=xmin,
        window=window,
        stride=stride,
        layers=[layer.layer for layer in chosen],
        device=device,
        cache=cache,
        progress=progress,
    )


def block_of(layer: str) -> str:
    """The block of a layer: its id up to the first number that has a name after it; the id itself if there is none.

    Example:
        >>> [block_of(name) for name in ("encoder.layer.3.output.dense", "layer1.0.conv1", "h.0.attn.c_attn.q", "2")]
        ['encoder.layer.3', 'layer1.0', 'h.0', '2']
    """
    parts = layer.split(".")
    numbers = (place for place, part in enumerate(parts) if part.isdigit())
    return ".".join(parts[: next(numbers, len(parts)) + 1])


def pruned_counts(elements: Sequence[int], ratios: Sequence[float], density: float) -> list[int]:
    """How many elements of each layer to prune: in proportion to d·r, less than all, and exactly as many as asked for.

    Args:
        elements: d of each layer.
        ratios: r of each layer; a layer with 0 is neither pruned nor counted.
        density: the share kept of those that are counted.

    Returns:
        The counts; they add up to Σd − round(density · Σd).

    Raises:
        ArgumentError: the density leaves less than one element for each layer.

    Example:
        >>> pruned_counts([100, 100], [0.5, 1.5], 0.5), pruned_counts([100, 100], [0.5, 1.5], 0.1)
        ([25, 75], [81, 99])
    """
    counted = [place for place, ratio in enumerate(ratios) if ratio > 0]
    total = sum(elements[place] for place in counted)
    kept = round(density * total)
    if kept < len(counted):
        raise ArgumentError(
            f"density={density!r} keeps {kept} of {total} elements in {len(counted)} layers: expected one a layer at "
            f"least, a density of {len(counted) / total:.3g} or more."
        )
    wanted, free = total - kept, list(counted)
    shares = [0.0] * len(elements)
    while free:  # each turn fills the layers that would be pruned whole, and shares out again what is left
        left = wanted - sum(elements[place] - 1 for place in counted if place not in free)
        weight = math.fsum(elements[place] * ratios[place] for place in free)
        for place in free:
            shares[place] = elements[place] * ratios[place] * left / weight
        over = [place for place in free if shares[place] > elements[place] - 1]
        if not over:
            break
        for place in over:
            shares[place] = elements[place] - 1
        free = [place for place in free if place not in over]
    counts = [math.floor(share) for share in shares]
    remainder = wanted - sum(counts)
    room = [place for place in counted if counts[place] < elements[place] - 1]
    for place in sorted(room, key=lambda place: counts[place] - shares[place])[:remainder]:
        counts[place] += 1
    return counts


def largest(tensor: Tensor, count: int) -> Tensor:
    """A mask of the `count` elements of largest magnitude, NaN the largest; of equal ones the last are kept.

    Example:
        >>> largest(torch.tensor([[3.0, -1.0], [1.0, -2.0]]), 3).tolist()
        [[True, False], [True, True]]
    """
    size = tensor.detach().abs().flatten().nan_to_num(nan=math.inf, posinf=math.inf)
    pruned = size.numel() - count
    if pruned <= 0:
        return torch.ones_like(tensor, dtype=torch.bool)
    size = size if size.dtype == torch.float64 else size.float()
    threshold = size.kthvalue(pruned).values
    mask = size > threshold
    equal = (size == threshold).nonzero().flatten()
    mask[equal[len(equal) - (count - int(mask.sum())) :]] = True
    return mask.reshape(tensor.shape)


def _mean(alphas: Any) -> float:
    found = [alpha for alpha in alphas if math.isfinite(alpha)]
    return math.fsum(found) / len(found) if found else math.nan
