"""M′ without a backward pass: segments that are a linear map with functions of elements on one side of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.degeneracy.gradients import GradientGram, Positions
from workbench.degeneracy.segments import Segment, kept, segment_of
from workbench.errors import ArgumentError, LayerError
from workbench.linalg.gram import add_gram, row_blocks
from workbench.runtime.chain import Batch, Chain, Cut
from workbench.runtime.passing import by_sample, first_samples
from workbench.seeds import generator

CHECKED = 32  # samples that are recognised and compared; each one is a test of every unit and weight
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative difference from autograd; no form in less


@dataclass(frozen=True, kw_only=True, eq=False)
class ClosedForm:
    """A segment whose M′ is known from the derivatives of its functions of elements.

    Attributes:
        source: the layer whose M′ it is.
        target: the later layer.
        pattern: `linear`, `elementwise∘linear`, `linear∘elementwise` or `elementwise`, the last to run named first.
        operators: those of torch that change values, as they run; `linear` stands for the linear map.
    """

    source: Cut
    target: Cut
    pattern: str
    operators: tuple[str, ...]

    def gram(
        self, chain: Chain, metric: Float[Tensor, "out out"] | None, told: Callable[[Batch], None] | None = None
    ) -> GradientGram:
        """M′ = 1/n Σ_x Σ_{t,s} J_tsᵀ P J_ts over all batches, J_ts = ∂f_target(t)/∂f(s), n source datapoints.

        With taps k, each a matrix W_k between the source's positions s and the target's t (one for a linear layer, one
        for each place of a kernel), and S_k the sum over the positions that the tap joins:
        Σ_k W_kᵀ(S_k∘P)W_k with S_k = Σ_t φ′_tφ′_tᵀ for elementwise∘linear, Σ_k S_k∘(W_kᵀPW_k) with S_k = Σ_s φ′_sφ′_sᵀ
        for linear∘elementwise.

        Args:
            chain: the module over data, lent.
            metric: P = C·Cᵀ of the target's directions; None for the identity.
            told: called before each batch.

        Returns:
            M′ in float64, estimator `closed form`, error 0. Padding counts neither as source nor as target.

        Raises:
            ArgumentError: the metric does not fit the target.
            LayerError: in a later batch the module does something else between the two layers.

        Cost: a forward pass, the derivatives, and a symmetric product n·d² a tap; where a function follows a linear map
        of all positions at once, one product for all taps.
        """
        width = self.target.width
        if metric is not None and metric.shape != (width, width):
            raise ArgumentError(
                f"metric has the shape {list(metric.shape)}: expected [{width}, {width}], the features of "
                f"{self.target.layer!r}."
            )
        P = None if metric is None else metric.to(chain.device, torch.float64)
        total = torch.zeros(self.source.width, self.source.width, dtype=torch.float64, device=chain.device)
        sums: _Sums | None = None
        count = 0
        for batch in chain.batches():
            if told is not None:
                told(batch)
            segment = segment_of(chain, self.source, self.target, batch)
            if isinstance(segment, str):
                raise LayerError(
                    f"between {self.source.layer!r} and {self.target.layer!r} batch {batch.number} has no closed form, "
                    f"unlike the first one: {segment}; use gradient_gram."
                )
            count += segment.samples
            if sums is None or not sums.fits(segment):
                total += 0 if sums is None else sums.gram(P)
                sums = _Sums(segment)
            sums.add(segment)
        total += 0 if sums is None else sums.gram(P)
        matrix = (total + total.T) / (2 * max(count, 1))
        return GradientGram(matrix=matrix, samples=count, estimator="closed form", error=0.0)


def closed_form(
    chain: Chain, source: Cut, target: Cut, batch: Batch, positions: Positions = "all"
) -> ClosedForm | None:
    """The closed form of M′ between two layers, or None where there is none or it does not prove true.

    The segment runs with every operator of torch seen that touches what comes from the source, so functional code,
    operations in place and modules are alike. It has a closed form if these are one linear map with constant weights
    (linear layers, products with a matrix, convolutions, a linear layer of all positions flattened; several without
    anything between them are one) and functions of elements with constants, all before it or all after it; factors and
    shifts, such as batch norm in evaluation mode, on either side. What was recognised is then compared with autograd,
    for random cotangents on the first samples of this batch.

    Args:
        chain: the module over data, lent.
        source: the layer whose M′ it is.
        target: a later layer.
        batch: what is looked at; the first batch.
        positions: "last" has no closed form.

    Cost: a forward pass of 32 samples with a dispatch in Python for each operator, and a vector-Jacobian product.

    Source: the chain rule for M′ of Bushnaq et al., The Local Interaction Basis (arXiv 2405.10928).

    Misreads: None says only that nothing here recognises the segment, not that it has no such form.
    """
    if positions != "all":
        return None
    few = _few(batch)
    segment = segment_of(chain, source, target, few)
    if isinstance(segment, str) or not _agrees(chain, source, target, few, segment):
        return None
    return ClosedForm(source=source, target=target, pattern=segment.pattern, operators=segment.operators)


class _Sums:
    """Σφ′φ′ᵀ over the pairs of each tap, or their number where there is no φ′; of batches with equal weights."""

    def __init__(self, segment: Segment) -> None:
        self.segment, self.groups = segment, self._groups(segment)
        device = segment.taps[0].weight.device
        slopes = self._slopes(segment)
        shape = () if slopes is None else (slopes.shape[1], slopes.shape[1])
        self.totals = [torch.zeros(shape, dtype=torch.float64, device=device) for _ in {*self.groups}]

    @staticmethod
    def _slopes(segment: Segment) -> Tensor | None:
        return segment.after if segment.before is None else segment.before

    @staticmethod
    def _groups(segment: Segment) -> list[int]:
        """The number of the sum that each tap needs: one for those over the same datapoints."""
        numbers: dict[int, int] = {}
        sides = (tap.read if segment.before is not None else tap.written for tap in segment.taps)
        counting = segment.before is None and segment.after is None
        keys = (number if counting else id(side) for number, side in enumerate(sides))
        return [numbers.setdefault(key, len(numbers)) for key in keys]

    def fits(self, segment: Segment) -> bool:
        """Whether another batch's sums can be added to these."""
        return (
            segment.pattern == self.segment.pattern
            and self._groups(segment) == self.groups
            and all(torch.equal(a.weight, b.weight) for a, b in zip(segment.taps, self.segment.taps, strict=True))
        )

    def add(self, segment: Segment) -> None:
        """Adds a batch."""
        slopes, added = self._slopes(segment), set[int]()
        for tap, group in zip(segment.taps, self.groups, strict=True):
            if group in added:
                continue
            added.add(group)
            if slopes is None:
                self.totals[group] += len(segment.pairs(tap)[0])
                continue
            side = tap.written if segment.before is None else tap.read
            for rows in row_blocks(slopes if side is None else slopes[side]):
                add_gram(self.totals[group], rows.double())

    def gram(self, metric: Tensor | None) -> Tensor:
        """n·M′ of the batches that were added."""
        width = self.segment.taps[0].weight.shape[1]
        whole = torch.zeros(width, width, dtype=torch.float64, device=self.totals[0].device)
        for tap, group in zip(self.segment.taps, self.groups, strict=True):
            weight, total = tap.weight, self.totals[group]
            if self.segment.before is None and self.segment.after is not None:
                inner = total if metric is None else total * metric
                whole += weight.T @ (inner.diagonal()[:, None] * weight if metric is None else inner @ weight)
            else:
                whole += total * (weight.T @ (weight if metric is None else metric @ weight))
        return whole


def _few(batch: Batch) -> Batch:
    """The first samples of a batch."""
    keep = batch.keep[:CHECKED] if batch.keep is not None and by_sample(batch.keep, batch.size) else batch.keep
    call = first_samples(batch.call, batch.size, CHECKED)
    return batch._replace(call=call, size=min(batch.size, CHECKED), keep=keep)


def _agrees(chain: Chain, source: Cut, target: Cut, batch: Batch, segment: Segment) -> bool:
    """Whether autograd's product of random cotangents with the Jacobian is the segment's."""
    leaf, output = chain.segment(batch, source, target)
    features = target.last(output)
    if features.dtype not in TOLERANCES or not features.requires_grad:
        return False
    drawn = torch.randn(features.shape, generator=generator(0, source.layer), dtype=torch.float64).to(features)
    if (keep := kept(target, output, batch.keep)) is not None:
        drawn.view(-1, target.width)[~keep] = 0
    (gradient,) = torch.autograd.grad(features, leaf, drawn, allow_unused=True)
    if gradient is None:
        return False
    expected = source.last(gradient).reshape(-1, source.width).double()
    if (keep := kept(source, leaf, batch.keep)) is not None:
        expected[~keep] = 0
    found = segment.pulled_back(drawn.reshape(-1, target.width).double())
    return bool((found - expected).norm() <= TOLERANCES[features.dtype] * expected.norm())
