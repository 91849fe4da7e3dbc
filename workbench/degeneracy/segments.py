"""The derivative of what lies between two layers, as matrices between pairs of datapoints and factors at each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.degeneracy.recorded_ops import Recorder, Tap, Trace, in_order
from workbench.runtime.chain import Batch, Chain, Cut, mask_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """One batch's derivative: J_ts = diag(after_t) W_k diag(before_s) for the pairs (s, t) of each tap k, else 0.

    Attributes:
        taps: between datapoints of the source and of the target.
        before: (datapoints, width) of the source, None for ones; one of `before` and `after` is None.
        after: the same of the target.
        sources: number of the source's datapoints.
        targets: number of the target's.
        samples: number of the source's that are no padding.
        pattern: as in `ClosedForm`.
        operators: as in `ClosedForm`.
    """

    taps: tuple[Tap, ...]
    before: Tensor | None
    after: Tensor | None
    sources: int
    targets: int
    samples: int
    pattern: str
    operators: tuple[str, ...]

    def pairs(self, tap: Tap) -> tuple[Tensor, Tensor]:
        """A tap's datapoints of the source and of the target, each in full."""
        device = tap.weight.device
        read = torch.arange(self.sources, device=device) if tap.read is None else tap.read
        return read, torch.arange(self.targets, device=device) if tap.written is None else tap.written

    def without_padding(self, keep_source: Tensor | None, keep_target: Tensor | None) -> Segment:
        """The pairs in which neither is padding."""
        if keep_source is None and keep_target is None:
            return self
        taps = []
        for tap in self.taps:
            read, written = self.pairs(tap)
            keep = torch.ones(len(read), dtype=torch.bool, device=read.device)
            if keep_source is not None:
                keep &= keep_source[read]
            if keep_target is not None:
                keep &= keep_target[written]
            taps.append(Tap(tap.weight, read[keep], written[keep]))
        samples = self.samples if keep_source is None else int(keep_source.sum())
        return replace(self, taps=tuple(taps), samples=samples)

    def pulled_back(self, cotangents: Float[Tensor, "targets out"]) -> Float[Tensor, "sources width"]:
        """Σ_t J_tsᵀ v_t at each of the source's datapoints."""
        along = cotangents if self.after is None else cotangents * self.after
        found = along.new_zeros(self.sources, self.taps[0].weight.shape[1])
        for tap in self.taps:
            back = (along if tap.written is None else along[tap.written]) @ tap.weight
            found = found + back if tap.read is None else found.index_add_(0, tap.read, back)
        return found if self.before is None else found * self.before


def segment_of(chain: Chain, source: Cut, target: Cut, batch: Batch) -> Segment | str:
    """What one batch does between two layers, padding left out; or why it has no closed form."""
    with Recorder(source) as recorder:
        (output,) = chain.outputs(batch, [target], {source.layer: recorder.begin})
    trace = recorder.trace(output)
    if isinstance(trace, str):
        return trace
    found = _assembled(trace, source, target)
    if isinstance(found, str):
        return found
    start = trace if trace.linear is None else trace.linear.before
    return found.without_padding(kept(source, start.base, batch.keep), kept(target, output, batch.keep))


def kept(cut: Cut, output: Tensor, keep: Tensor | None) -> Tensor | None:
    """Which of a cut's datapoints are no padding, None for all."""
    mask = mask_of(cut.last(output), keep)
    return None if mask is None else mask.reshape(-1)


def _assembled(trace: Trace, source: Cut, target: Cut) -> Segment | str:
    """A trace in terms of the datapoints and features of source and target."""
    start = trace if trace.linear is None else trace.linear.before
    if trace.linear is None:
        inputs = torch.arange(start.base.numel(), device=start.base.device).view(-1, source.width)
        taps: tuple[Tap, ...] = (Tap(torch.eye(source.width, dtype=torch.float64, device=inputs.device), None, None),)
        before = None
    elif trace.affine or start.affine:
        inputs, taps, before = trace.linear.inputs, trace.linear.taps, start.slopes()
    else:
        return "it has functions of elements both before and after the linear map"
    targets = target.last(trace.ids).reshape(-1, target.width)
    reads = _places(inputs, source.width)
    plain = in_order(targets)
    writes = _places((targets if plain else _inverse(targets)).reshape(-1, trace.width), target.width)
    if reads is None or writes is None:
        return "it mixes positions with features"
    after = trace.slopes()
    if after is not None:
        after = after.reshape(targets.shape) if plain else after.reshape(-1)[targets]
    taps = tuple(
        _joined(tap, read, write, source.width, target.width) for tap in taps for read in reads for write in writes
    )
    if before is not None and start.affine and _constant(before):
        taps = tuple(tap._replace(weight=tap.weight * before[0].double()) for tap in taps)
        before = None
    if after is not None and trace.affine and _constant(after):
        taps = tuple(tap._replace(weight=tap.weight * after[0].double()[:, None]) for tap in taps)
        after = None
    if before is not None and after is not None:
        return "it has factors that differ from position to position, and functions of elements beyond the linear map"
    linear = trace.linear is not None or after is None
    words = ["elementwise"] * (after is not None) + ["linear"] * linear + ["elementwise"] * (before is not None)
    return Segment(
        taps=taps,
        before=before,
        after=after,
        sources=start.base.numel() // source.width,
        targets=len(targets),
        samples=start.base.numel() // source.width,
        pattern="∘".join(words),
        operators=trace.names if trace.linear is None else (*start.names, "linear", *trace.names),
    )


def _constant(factors: Tensor) -> bool:
    return bool((factors == factors[:1]).all())


def _inverse(ids: Tensor) -> Tensor:
    """Where each id is."""
    where = torch.empty_like(ids).reshape(-1)
    where[ids.reshape(-1)] = torch.arange(len(where), device=ids.device)
    return where


class _Place(NamedTuple):
    """Columns of a matrix of elements that are of one datapoint in each row: which, of what features, the points."""

    columns: Tensor
    features: Tensor
    points: Tensor | None


def _places(ids: Tensor, width: int) -> list[_Place] | None:
    """The columns of (rows, columns) elements by their position; None where a column has no feature or position."""
    if ids.shape[1] == width and in_order(ids):
        every = torch.arange(width, device=ids.device)
        return [_Place(every, every, None)]
    features, points = ids % width, ids // width
    if not bool((features == features[:1]).all()):
        return None
    found = []
    for point in torch.unique(points[0]):
        columns = (points[0] == point).nonzero().flatten()
        first = points[:, columns[0]]
        if not bool((points[:, columns] == first[:, None]).all()):
            return None
        found.append(_Place(columns, features[0, columns], first))
    return found


def _joined(tap: Tap, read: _Place, write: _Place, width: int, out: int) -> Tap:
    """The part of a tap between one position of the source and one of the target."""
    weight = tap.weight
    if read.points is not None or write.points is not None:
        weight = weight.new_zeros(out, width)
        weight[write.features[:, None], read.features] = tap.weight[write.columns[:, None], read.columns]
    return Tap(weight, _picked(read.points, tap.read), _picked(write.points, tap.written))


def _picked(points: Tensor | None, rows: Tensor | None) -> Tensor | None:
    """points[rows], where None is every one in order."""
    return rows if points is None else points if rows is None else points[rows]
