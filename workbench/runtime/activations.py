"""Moments of what submodules give, in one pass over the data."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import pooling
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from workbench.errors import ArgumentError, Cancelled, LayerNotFoundError, nearest
from workbench.linalg import Moments, resolved_device
from workbench.progress import ProgressCallback, check_progress, reporter
from workbench.results import many
from workbench.runtime.batches import arguments, check_data, first_tensor, iter_batches, naming
from workbench.runtime.borrowing import check_module, lent, name_of
from workbench.runtime.hooks import hooked, listed, submodules

MASK = "attention_mask"  # the key of a batch's mask, 1 where there is a token, as in Hugging Face's models
WIDEST = (
    1 << 14
)  # features of a layer that was not asked for by name: 2 GB of covariance, the output of no hidden layer
CHANNELS_FIRST = (_ConvNd, _NormBase, nn.GroupNorm, *(getattr(pooling, name) for name in pooling.__all__))
FEATURES_LAST = (nn.Linear, nn.Bilinear, nn.Embedding, nn.LayerNorm, nn.RMSNorm)  # whatever the number of axes


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerMoments:
    """The moments of one submodule's outputs, and what was taken for features and samples.

    Attributes:
        moments: count, mean, covariance and Gram matrix of the features, on the device of the run.
        features: the axis that was taken for the features in its first output: 1 for channels, −1 for the last, or
            what `features` said.
        calls: how often it ran; all its calls are in the moments.
        left_out: padded positions that are not.
        first_shape: shape of its first output.
        last_shape: shape of its last output.
    """

    moments: Moments
    features: int
    calls: int
    left_out: int
    first_shape: tuple[int, ...]
    last_shape: tuple[int, ...]

    @property
    def samples(self) -> int:
        """Number of samples: positions in all outputs but for the axis of features, without those left out."""
        return self.moments.count


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ActivationMoments(Mapping[str, LayerMoments]):
    """Path of a submodule → its LayerMoments, in the order in which they first ran.

    Attributes:
        layers: the same as a dict.
        skipped: path → why it has no moments.
        batches: number of batches that passed.
        cut: whether a cancel left batches out.
    """

    layers: Mapping[str, LayerMoments]
    skipped: Mapping[str, str]
    batches: int
    cut: bool = False

    def __getitem__(self, name: str) -> LayerMoments:
        if name in self.layers:
            return self.layers[name]
        if name in self.skipped:
            raise LayerNotFoundError(f"{name!r} has no moments: {self.skipped[name]}")
        raise LayerNotFoundError(f"{name!r} is not among the layers of this run.{nearest(name, self.layers)}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        told = f"{many(len(self), 'layer')} over {many(self.batches, 'batch')}, {len(self.skipped)} skipped"
        lines = [f"ActivationMoments of {told}"]
        for name, layer in list(self.items())[:5]:
            lines.append(f"  {name}: {many(layer.samples, 'sample')} of {many(layer.moments.width, 'feature')}")
        lines += [f"  … {len(self) - 5} more"] if len(self) > 5 else []
        return "\n".join([*lines, "next: [name].moments.covariance, .skipped"])


def activation_moments(
    module: nn.Module,
    data: Iterable[Any],
    layers: str | Iterable[str] | None = None,
    *,
    weights: Mapping[str, Tensor] | None = None,
    features: Mapping[str, int] | None = None,
    batch_first: bool | None = None,
    device: str = "auto",
    progress: ProgressCallback | None = None,
) -> ActivationMoments:
    """Mean μ, covariance Σ(x−μ)(x−μ)ᵀ/n and Gram Σxxᵀ/n of the outputs x of submodules, all in one pass, in float64.

    Features are axis 1 (channels) in outputs of torch's convolutions, pools, batch, instance and group norms, and in
    other outputs of 4 or 5 axes; else, and in outputs of linear layers, embeddings and layer norms always, the last.
    All other axes are samples: each position of an image or a sequence is one. A module that runs several times in a
    pass contributes all its calls.

    Args:
        module: the network, in evaluation mode meanwhile; it is as before afterwards, also after an error or a cancel.
        data: a re-iterable of batches, each a tensor, a tuple whose first element is the input, or a dict of named
            arguments (`labels` are left out). Where a dict has an `attention_mask` (batch, steps) of 0 and 1, the
            positions with 0 are left out of outputs of the shape (batch, steps, width) or (steps, batch, width).
        layers: paths as in `module.named_modules()` or globs, which match containers too; None for every module
            without children.
        weights: used in place of the module's own, as in `evaluator`.
        features: path → axis of the features, where the rule above is wrong.
        batch_first: whether outputs are (batch, steps, width), and not (steps, batch, width), where a mask leaves
            positions out of a batch with as many sequences as steps, so that no shape tells, and the module has no
            `batch_first` of its own; None refuses such outputs.
        device: "auto" takes CUDA when there is one; the moments stay there.
        progress: called before each batch with a Progress, and once at the end; it may raise `wb.Cancelled`. Where
            `len(data)` is unknown the total is the number of batches seen.

    Returns:
        A mapping of paths to LayerMoments. A module found by a glob or by None that has no moments is in `.skipped`
        with the reason: it did not run, its output is no tensor, complex, integer or without an axis of features, its
        width changed, or exceeds 16384, or which of its positions are padding is unknown (see `batch_first`).

    Raises:
        ArgumentError: the data can be walked only once or give no batch; the weights are not the module's; a module
            asked for by its path did not run.
        LayerNotFoundError: a name is unknown or a glob matches nothing; said before the data are read.
        EvaluationError: a batch failed, or the output of a module asked for by its path cannot be counted.
        Cancelled: the callback asked for it; `.partial` are the moments of the batches that passed.

    Cost: a forward pass over the data, n·width² flops and 8·width² bytes a layer, and a copy of one output at a time;
    whatever the number of samples. torch's fast path of attention is off.

    Source: Chan, Golub & LeVeque (1983) for the moments (see `Moments`); channels of a convolution with positions as
    samples as in Li et al. 2016, "Convergent learning" (arXiv 1511.07543).

    Misreads: positions of an image or a sequence are not independent samples. A function (torch.relu, an addition) is
    no submodule, and an activation module after Conv1d cannot be told from one in a sequence: name its axis in
    `features`. Padding counts where a model flattens, shortens or lengthens the steps: `.left_out` is 0 there. That an
    axis is as long as the batch or the steps is all that tells what it is.

    Example:
        >>> data = [torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 4.0]])]
        >>> layer = activation_moments(nn.Sequential(nn.ReLU()), data, device="cpu")["0"]
        >>> layer.samples, layer.moments.mean.tolist(), layer.moments.covariance.tolist()
        (2, [2.0, 2.0], [[1.0, 2.0], [2.0, 4.0]])
    """
    report = reporter(progress)
    check_module(module)
    check_data(data)
    check_progress(progress)
    if batch_first not in (True, False, None):
        raise ArgumentError(f"batch_first={batch_first!r}: expected True, False or None.")
    where, axes = resolved_device(device), features or {}
    asked = None if layers is None else listed(layers)
    parts = leaf_modules(module) if asked is None else submodules(module, asked)
    required = {*axes, *(name for name in asked or () if name in parts)}
    for name in axes:
        if name not in parts:
            raise LayerNotFoundError(f"features names {name!r}, which is not among the layers.{nearest(name, parts)}")
    counters: dict[str, _Counter] = {}
    keep: Tensor | None = None
    batches, length, whole = 0, batch_count(data), False

    def heard(name: str, output: object) -> None:
        if name not in counters:
            own = getattr(parts[name], "batch_first", None)  # torch's recurrent and attention layers say it
            order = own if isinstance(own, bool) else batch_first
            counters[name] = _Counter(name, parts[name], axes.get(name), name in required, where, order)
        counters[name].count(output, keep)

    def result() -> ActivationMoments:
        silent = dict.fromkeys(parts.keys() - counters.keys(), f"it did not run in {many(batches, 'batch')}.")
        skipped = {name: counter.reason for name, counter in counters.items() if counter.reason} | silent
        counted = {name: layer for name, counter in counters.items() if (layer := counter.layer_moments())}
        told = {name: skipped[name] for name in parts if name in skipped}
        return ActivationMoments(layers=counted, skipped=told, batches=batches, cut=not whole)

    try:
        with lent(module, weights, where), hooked(parts, heard):
            for number, batch in iter_batches(data):
                report(f"batch {number}", batches, max(length, batches + 1))
                with naming(number, batch):
                    positional, named = arguments(batch, where)
                    keep = kept_positions(named.get(MASK))
                    module(*positional, **named)
                batches += 1
        whole = True
        report("", batches, max(length, batches))
    except Cancelled as stop:
        stop.partial = result()
        raise
    if unheard := [name for name in parts if name in required and name not in counters]:
        raise ArgumentError(
            f"{name_of(module)}'s {unheard[0]!r} did not run in {many(batches, 'batch')}: leave it out, or name a "
            "module that the forward pass calls (functions are none, and a module whose weights alone are used does "
            "not run)."
        )
    return result()


class _Counter:
    """Counts one submodule's outputs, or knows why it cannot."""

    def __init__(
        self,
        name: str,
        part: nn.Module,
        axis: int | None,
        required: bool,
        device: torch.device,
        batch_first: bool | None,
    ) -> None:
        self.name, self.part, self.axis, self.required, self.device = name, part, axis, required, device
        self.batch_first = batch_first
        self.reason, self.calls, self.left_out = "", 0, 0
        self.moments: Moments | None = None
        self.shapes: list[tuple[int, ...]] = []  # of the first and the last output
        self.axes: list[int] = []  # the same outputs' axes of features

    def count(self, output: object, keep: Tensor | None) -> None:
        """Adds one output at once, so that operations in place that follow do not matter.

        Raises:
            ArgumentError: it cannot be counted, and was asked for.
        """
        if self.reason:
            return
        try:
            self._add(first_tensor(output), keep)
        except ArgumentError as error:
            if self.required:
                raise ArgumentError(f"layer {self.name!r}: {error}") from error
            self.reason, self.moments = str(error), None

    def _add(self, output: Tensor, keep: Tensor | None) -> None:
        if output.is_nested or output.layout != torch.strided or not output.is_floating_point():
            kind = "nested" if output.is_nested else f"{output.dtype}, {output.layout}"
            raise ArgumentError(f"its output is {kind}: expected a dense tensor of real floating numbers.")
        shape = tuple(output.shape)
        axis = feature_axis(self.part, output.ndim) if self.axis is None else self.axis
        if self.axis is None and output.ndim < 2:
            raise ArgumentError(f"its output {list(shape)} has no axis beside the samples; name one in `features`.")
        if not -output.ndim <= axis < output.ndim:
            raise ArgumentError(f"its output {list(shape)} has no axis {axis}, which `features` names.")
        width = shape[axis]
        if not width:
            raise ArgumentError(f"its output {list(shape)} has no features.")
        if width > WIDEST and not self.required:
            raise ArgumentError(
                f"its output {list(shape)} has {width} features, and a covariance would take {8e-9 * width**2:.3g} GB: "
                "name its path in `layers` to have it all the same."
            )
        if self.moments is None:
            self.moments = Moments(width, self.device)
        if width != self.moments.width:
            raise ArgumentError(
                f"its outputs {list(self.shapes[0])} and {list(shape)} have {self.moments.width} and {width} features: "
                "moments need one width; where the axis is wrong, name it in `features`."
            )
        keep = None if keep is None or output.ndim != 3 or axis not in (2, -1) else self._laid_out(keep, shape)
        if keep is not None:
            samples = output[keep.to(output.device)]
            self.left_out += shape[0] * shape[1] - len(samples)
        else:
            samples = output.movedim(axis, -1).reshape(-1, width)
        self.moments.update(samples)
        self.calls += 1
        self.shapes, self.axes = [*self.shapes[:1], shape], [*self.axes[:1], axis]

    def _laid_out(self, keep: Tensor, shape: tuple[int, ...]) -> Tensor | None:
        """The mask with the axes in the order of an output, or None where they are no axes of it.

        Raises:
            ArgumentError: both orders fit, leave out different positions, and nothing tells which one it is.
        """
        orders = [mask for mask in (keep, keep.T) if shape[:2] == tuple(mask.shape)]
        if len(orders) < 2 or torch.equal(keep, keep.T):
            return orders[0] if orders else None
        if self.batch_first is None:
            raise ArgumentError(
                f"its output {list(shape)} could be [batch, steps, width] or [steps, batch, width], so that which of "
                "its positions are padding is unknown: say it in `batch_first`, or give batches of another size."
            )
        return keep if self.batch_first else keep.T

    def layer_moments(self) -> LayerMoments | None:
        """What was counted, or None."""
        if self.moments is None:
            return None
        return LayerMoments(
            moments=self.moments,
            features=self.axes[0],
            calls=self.calls,
            left_out=self.left_out,
            first_shape=self.shapes[0],
            last_shape=self.shapes[-1],
        )


def feature_axis(part: nn.Module, ndim: int) -> int:
    """The axis of the features in an output of `ndim` axes: 1 for channels, −1 for the last."""
    channels = isinstance(part, CHANNELS_FIRST) or (ndim in (4, 5) and not isinstance(part, FEATURES_LAST))
    return 1 if channels else -1


def leaf_modules(module: nn.Module) -> dict[str, nn.Module]:
    """The modules without children, each under its first path; what computes a parametrised weight is no layer."""
    return {
        path: part
        for path, part in module.named_modules()
        if all(name == "parametrizations" for name, _ in part.named_children())
        and "parametrizations" not in path.split(".")
    }


def kept_positions(mask: object) -> Tensor | None:
    """Where a batch's mask has a token.

    Raises:
        ArgumentError: it is no (batch, steps) of 0 and 1, so what is padding is unknown.
    """
    if not isinstance(mask, Tensor):
        return None
    if mask.ndim != 2 or not bool(((mask == 0) | (mask == 1)).all()):
        raise ArgumentError(
            f"{MASK} is {list(mask.shape)}, {mask.dtype}: expected [batch, steps] of 1 (a token) and 0 (padding), so "
            "that padding can be left out; rename the argument in the module if it means something else."
        )
    return mask != 0


def batch_count(data: Iterable[Any]) -> int:
    """The number of batches, or 0 where it is unknown."""
    try:
        return len(data) if isinstance(data, Sized) else 0
    except (TypeError, NotImplementedError):  # a DataLoader of an iterable data set has a len() that raises
        return 0
