"""Which datapoints lie at the ends of a direction."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.degeneracy.gradients import counted
from workbench.errors import ArgumentError
from workbench.runtime.chain import Chain


def datapoints(
    chain: Chain, layer: str, mean: Float[Tensor, " width"], direction: Float[Tensor, " width"], count: int
) -> list[dict[str, Any]]:
    """The `count` largest and the `count` smallest coordinates (f−μ)·direction, the largest first; padding has none.

    Returns:
        Rows of batch, sample within it, position within the sample (0 where there is one), and coordinate.

    Raises:
        ArgumentError: a coordinate is NaN or infinite.
    """
    cut = next(cut for cut in chain.cuts if cut.layer == layer)
    rows: list[tuple[float, int, int, int]] = []
    with chain.lent():
        for batch in chain.batches():
            (output,) = chain.outputs(batch, [cut])
            features = cut.last(output)
            samples = features.shape[0]
            values = ((features.double().cpu() - mean) @ direction).reshape(samples, -1)
            flat = values.flatten()
            known = counted(features, batch.keep, "all").flatten().cpu().nonzero().flatten()
            if not bool(flat[known].isfinite().all()):
                raise ArgumentError(
                    f"the outputs of {layer!r} are NaN or infinite in batch {batch.number}: leave those samples out."
                )
            order = known[flat[known].argsort(descending=True, stable=True)]
            ends = order if len(order) <= 2 * count else torch.cat([order[:count], order[-count:]])
            places = values.shape[1]
            rows += [(float(flat[i]), batch.number, int(i) // places, int(i) % places) for i in ends]
            rows.sort(key=lambda row: -row[0])
            rows = rows if len(rows) <= 2 * count else rows[:count] + rows[-count:]
    names = ("batch", "sample", "position")
    return [dict(zip(names, row[1:], strict=True)) | {"coordinate": row[0]} for row in rows]
